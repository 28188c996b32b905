"""The control socket of a running bot: one JSON line in, one JSON line out. Only the owner may open it (mode 0600)."""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Handler = Callable[[Mapping[str, Any]], Mapping[str, Any]]

_TIMEOUT_S = 5.0
"""How long an asker waits for its answer, those before it included."""
_REQUEST_S = 1.0
"""How long one connection may take to say what it wants: meanwhile nobody else is served."""
_MAX_REQUEST = 65_536


class ControlError(Exception):
    """The running bot could not be asked, or refused; the text is one line."""


class ControlServer:
    """Answers requests on a thread of its own until it is closed."""

    def __init__(self, path: Path, handler: Handler) -> None:
        self._path = path
        self._handler = handler
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)

    def start(self) -> None:
        """Bind and serve. Raises OSError if the path cannot be bound."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        with _short(self._path) as short:
            mask = os.umask(0o177)
            try:
                self._socket.bind(short)
            finally:
                os.umask(mask)
        self._socket.listen(8)
        self._thread.start()

    def close(self) -> None:
        """Stop serving and remove the socket."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                try:
                    answer = self._answer(_read_line(connection, _REQUEST_S))
                except TimeoutError:
                    answer = _refusal(f"no request, one JSON line, came within {_REQUEST_S:g} s")
                connection.settimeout(_REQUEST_S)
                connection.sendall(answer)

    def _answer(self, line: bytes) -> bytes:
        try:
            request = json.loads(line)
            if not isinstance(request, dict) or "command" not in request:
                raise ControlError('not a request: send one JSON line such as {"command": "status"}')
            return json.dumps(dict(self._handler(request))).encode() + b"\n"
        except ControlError as error:
            text = str(error)
        except Exception as error:
            # Whatever the handler does not bear: the next request must find somebody to answer it.
            text = f"not a request: {type(error).__name__}: {error}"
        return _refusal(text)


def _refusal(text: str) -> bytes:
    return json.dumps({"error": text}).encode() + b"\n"


def ask(path: Path, request: Mapping[str, Any], seconds: float = _TIMEOUT_S) -> dict[str, Any]:
    """Send a request to the bot that listens at `path` and return its answer, which may take so many seconds.

    Raises ControlError if nobody listens there, the answer does not come, or it is a refusal.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(seconds)
            with _short(path) as short:
                connection.connect(short)
            connection.sendall(json.dumps(request).encode() + b"\n")
            answer = json.loads(_read_line(connection, seconds, limit=None))
    except (OSError, ValueError) as error:
        raise ControlError(f"the running bot does not answer at {path}: {error}") from None
    if "error" in answer:
        raise ControlError(str(answer["error"]))
    return dict(answer)


def _read_line(connection: socket.socket, seconds: float, limit: int | None = _MAX_REQUEST) -> bytes:
    """Return what comes until a line ends. Raises TimeoutError after `seconds`, however much came meanwhile."""
    deadline = time.monotonic() + seconds
    data = b""
    while not data.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no whole line came in time")
        connection.settimeout(left)
        chunk = connection.recv(65_536)
        if not chunk or (limit is not None and len(data) > limit):
            break
        data += chunk
    return data


@contextlib.contextmanager
def _short(path: Path) -> Any:
    """Yield a name for `path` that fits a socket address (108 bytes), whatever the directory's length."""
    if len(os.fsencode(path)) < 100:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
