"""systemd's end of the notify socket, which is read all the time: it holds ten words, and who has more to say waits."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_END = b"the listener ends"


@contextmanager
def listening(path: Path) -> Iterator[list[str]]:
    """Listen at a path that is free; the value is what was said so far, word by word, and grows."""
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))

        def listen() -> None:
            while (word := listener.recv(1_000)) != _END:
                heard.append(word.decode())

        reader = threading.Thread(target=listen, daemon=True)
        reader.start()
        try:
            yield heard
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as teller:
                teller.sendto(_END, str(path))
            reader.join()
