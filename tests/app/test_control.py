"""The control socket: one line in, one line out, only for the owner, whatever comes in."""

import json
import os
import socket
import stat
import threading
import time

import pytest

from bot.app import control
from bot.app.control import ControlError, ControlServer, ask


def handler(request):
    match request["command"]:
        case "echo":
            return {"said": request.get("text", "")}
        case "refuse":
            raise ControlError("not now")
        case "break":
            raise RuntimeError("a bug")
        case "unspeakable":
            return {"said": object()}
    raise ValueError(f"unknown command {request['command']!r}")


@pytest.fixture(params=["short", "long"])
def path(request, tmp_path):
    """A path that fits a socket's address, and one that does not (108 bytes)."""
    folder = tmp_path if request.param == "short" else tmp_path / ("d" * 120) / ("e" * 60)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "control.sock"


@pytest.fixture
def server(path):
    server = ControlServer(path, handler)
    server.start()
    yield server
    server.close()
    assert not path.exists()


def raw(path, data, shut=True):
    """Send bytes as they are and return the answer's line."""
    folder = str(path.parent)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        if len(folder) > 80:
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                connection.connect(f"/proc/self/fd/{descriptor}/{path.name}")
            finally:
                os.close(descriptor)
        else:
            connection.connect(str(path))
        connection.sendall(data)
        if shut:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while not answer.endswith(b"\n"):
            chunk = connection.recv(65_536)
            if not chunk:
                break
            answer += chunk
    return answer


def test_a_request_is_answered(server, path):
    assert ask(path, {"command": "echo", "text": "ä" * 5_000}) == {"said": "ä" * 5_000}


def test_only_the_owner_may_ask(server, path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_refusal_reaches_the_asker(server, path):
    with pytest.raises(ControlError, match=r"^not now$"):
        ask(path, {"command": "refuse"})


@pytest.mark.parametrize(
    "data",
    [b"", b"\n", b"{", b"5\n", b"[]\n", b"{}\n", b"\xff\xfe\n", b'{"command": "nothing"}\n', b"[" * 60_000 + b"\n"],
    ids=lambda data: repr(data[:12]),
)
def test_garbage_is_answered_and_the_next_request_too(server, path, data):
    assert "error" in json.loads(raw(path, data))
    assert ask(path, {"command": "echo"}) == {"said": ""}


@pytest.mark.parametrize("command", ["break", "unspeakable"])
def test_a_handler_that_fails_ends_nothing(server, path, command):
    with pytest.raises(ControlError):
        ask(path, {"command": command})
    assert ask(path, {"command": "echo"}) == {"said": ""}


def test_a_request_without_an_end_is_cut_off(server, path):
    try:
        answer = raw(path, b'"' + b"x" * 200_000, shut=False)
    except (BrokenPipeError, ConnectionResetError):
        answer = b""
    assert not answer or "error" in json.loads(answer)
    assert ask(path, {"command": "echo"}) == {"said": ""}


def test_one_that_dribbles_is_cut_off_and_the_next_one_served(server, path):
    over = threading.Event()

    def dribble(connection):
        while not over.wait(0.1):
            try:
                connection.sendall(b"x")
            except OSError:
                return

    with socket.socket(socket.AF_UNIX) as connection, control._short(path) as short:
        connection.connect(short)
        dribbler = threading.Thread(target=dribble, args=(connection,))
        dribbler.start()
        try:
            began = time.monotonic()
            assert ask(path, {"command": "echo"}) == {"said": ""}
            assert time.monotonic() - began < control._TIMEOUT_S
        finally:
            over.set()
            dribbler.join(60)


def test_an_asker_that_goes_away_ends_nothing(server, path):
    for _ in range(3):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.close()
    assert ask(path, {"command": "echo"}) == {"said": ""}


def test_where_nobody_listens_that_is_said_in_one_line(tmp_path):
    for path in (tmp_path / "control.sock", tmp_path / "nowhere" / ("x" * 120) / "control.sock"):
        with pytest.raises(ControlError, match="does not answer") as failed:
            ask(path, {"command": "status"})
        assert "\n" not in str(failed.value)


def test_the_socket_of_a_killed_process_is_replaced(path):
    first = ControlServer(path, handler)
    first.start()
    first._socket.close()
    second = ControlServer(path, lambda request: {"said": "second"})
    second.start()
    assert ask(path, {"command": "echo"}) == {"said": "second"}
    second.close()


def test_a_server_that_was_closed_leaves_no_thread(path):
    server = ControlServer(path, handler)
    server.start()
    ask(path, {"command": "echo"})
    server.close()
    server._thread.join(60)
    assert not server._thread.is_alive()
    assert "control" not in {thread.name for thread in threading.enumerate() if thread is server._thread}
    with pytest.raises(ControlError, match="does not answer"):
        ask(path, {"command": "echo"})
