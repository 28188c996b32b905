"""The bot and the simulated exchange as real processes: how tests start them, watch them, and end them."""

import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any

import requests

import bot
from bot.adapters.sqlite import SqliteStore
from bot.app.control import ControlError, ask
from bot.ports import StoreError
from bot.simulator.journal import FILE_NAME
from tests.support.ports import unused_port

ROOT = Path(bot.__file__).parents[1]
SYMBOLS = ("BTCUSDT", "ETHUSDT", "DOGEUSDT")
POLL_S = 0.02
PATIENCE = 4
"""How many times as long as on a machine with nothing else to do something may take, where no time is promised."""


def pause(seconds: float) -> None:
    """Let a chosen time pass: for moments that are picked by chance, not for conditions."""
    threading.Event().wait(seconds)


def wait_until(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """Return the first true value of `condition`. Fails, naming `what`, when none came in far more than `timeout_s`.

    What is promised within a time is waited for by `within`.
    """
    return within(timeout_s * PATIENCE, condition, what)


def within(timeout_s: float, condition: Callable[[], Any], what: str) -> Any:
    """Return the first true value of `condition`. Fails, naming `what`, when none came within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        pause(POLL_S)


def environment(**more: str) -> dict[str, str]:
    """The tests' environment without any setting of the bot, and with this checkout as what is run."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BOT_")}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **more}


def bulkhead(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "bot.main", *map(str, arguments)]


def command(*arguments: object, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run one command of the bot to its end."""
    return subprocess.run(
        bulkhead(*arguments),
        cwd=cwd,
        env=environment(**settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60 * PATIENCE,
        check=False,
    )


def told(*arguments: object, cwd: Path) -> Any:
    """What a command prints with --json, and nothing else; it must succeed and complain of nothing."""
    ended = command(*arguments, "--json", cwd=cwd)
    complaints = [line for line in ended.stderr.splitlines() if not line.startswith("compare_on = ")]
    assert (ended.returncode, complaints) == (0, []), ended.stderr
    assert ended.stdout.count("\n") == 1
    return json.loads(ended.stdout)


def status_of(data: Path) -> Any:
    """What the bot that runs in this directory says of itself; None while none does, or it does not listen yet.

    It is asked without a process of a command: for what is asked again and again.
    """
    try:
        return ask(data / "control.sock", {"command": "status"})
    except ControlError:
        return None


def count_of_klines(data: Path) -> int:
    """How many klines the bot of this directory stored so far; asked of its database, as often as one likes."""
    with suppress(StoreError), SqliteStore.read_only(data / "history.db") as store:
        return sum(1 for _ in store.klines())
    return 0  # it is not made yet


def count_of_trades(data: Path) -> int:
    """The same of trades."""
    with suppress(StoreError), SqliteStore.read_only(data / "history.db") as store:
        return sum(1 for _ in store.trades())
    return 0


def is_left(group: int) -> bool:
    """Whether a process of this process group lives. Signal 0 only asks."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


class Program:
    """One command of the bot as a process in a group of its own; what it prints is read as it comes.

    Leaving the `with` ends it, whatever happened in between.
    """

    def __init__(self, *arguments: object, cwd: Path, settings: Mapping[str, str] | None = None) -> None:
        self.began = time.monotonic()
        self.began_ms = time.time_ns() // 1_000_000
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._readers: list[threading.Thread] = []
        self._process = self._spawn(bulkhead(*arguments), cwd, environment(**(settings or {})))
        self.pid = self._process.pid

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def said(self) -> str:
        """All that it printed so far, for a failed test's report."""
        return "".join([*self.lines[-60:], *self.errors])

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log lines of one event, so far."""
        return [line for line in self.log() if line["event"] == name]

    def log(self) -> Iterator[dict[str, Any]]:
        """All structured log lines, so far."""
        return (json.loads(line) for line in self.lines if line.startswith("{"))

    def await_line(self, text: str, timeout_s: float, since: int = 0) -> str:
        """Return the first line with `text` in it, of those from number `since` on."""

        def found() -> str | None:
            assert self.is_running, f"ended with {self._process.returncode}:\n{self.said}"
            return next((line for line in self.lines[since:] if text in line), None)

        return str(wait_until(found, timeout_s, f"a line with {text!r}"))

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def ends(self, timeout_s: float = 10) -> int:
        """Wait until it has ended, all its output is read and no process of its group is left; its exit status."""
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not end within {timeout_s} s:\n{self.said}") from None
        self._hang_up()
        for reader in self._readers:
            reader.join(5)
        assert not is_left(self.pid), "a process of it is left over"
        return status

    def kill(self) -> None:
        """SIGKILL, and nothing is left."""
        self._process.kill()
        self.ends()

    def _spawn(self, program: list[str], cwd: Path, variables: dict[str, str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            program,
            cwd=cwd,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for stream, lines in ((process.stdout, self.lines), (process.stderr, self.errors)):
            self._read_aside(_take_lines, stream, lines)
        return process

    def _hang_up(self) -> None:
        """Let the readers come to an end, once the process has ended."""

    def _read_aside(self, read: Callable[..., None], *arguments: object) -> None:
        reader = threading.Thread(target=read, args=arguments, daemon=True)
        self._readers.append(reader)
        reader.start()


def _take_lines(stream: Any, into: list[str]) -> None:
    with stream:
        into.extend(stream)


class TerminalProgram(Program):
    """The same on a terminal of its own, 80 by 24, which is also the one that Ctrl-C comes from."""

    # The leader of a new session takes the terminal for its own, then becomes the program.
    _ENTER = (
        "import fcntl, os, sys, termios\n"
        "tty = os.open(sys.argv[1], os.O_RDWR)\n"
        "fcntl.ioctl(tty, termios.TIOCSCTTY, 0)\n"
        "for number in (0, 1, 2): os.dup2(tty, number)\n"
        "os.execv(sys.argv[2], sys.argv[2:])\n"
    )

    def _spawn(self, program: list[str], cwd: Path, variables: dict[str, str]) -> subprocess.Popen[str]:
        # Ours of both ends stays open until the process has ended, so that the terminal is there all the time.
        self._keyboard, self._inner = pty.openpty()
        termios.tcsetwinsize(self._inner, (24, 80))
        self._read_aside(self._take_screen)
        return subprocess.Popen(
            [sys.executable, "-c", self._ENTER, os.ttyname(self._inner), *program],
            cwd=cwd,
            env={**variables, "TERM": "xterm-256color"},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )

    def type(self, keys: bytes) -> None:
        os.write(self._keyboard, keys)

    @property
    def text(self) -> str:
        """All that was written so far, without colours and movements."""
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", " ", "".join(self.lines))

    def _hang_up(self) -> None:
        if self._inner >= 0:
            os.close(self._inner)
            self._inner = -1

    def _take_screen(self) -> None:
        try:
            while data := os.read(self._keyboard, 65_536):
                self.lines.append(data.decode("utf-8", "replace"))
        except OSError:  # EIO: nobody has the other end any more
            os.close(self._keyboard)


class ExchangeProcess:
    """The simulated exchange as a process of its own, on books that outlive it; it comes back on the same port."""

    def __init__(self, directory: Path, seed: int, interval_ms: int, *arguments: object) -> None:
        self._directory = directory
        self._arguments = ("--seed", seed, "--interval-ms", interval_ms, *arguments)
        self._session = requests.Session()
        self._session.trust_env = False
        self._program: Program | None = None
        self._port = unused_port()
        self.ends: dict[str, str] = {}

    def __enter__(self) -> "ExchangeProcess":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._session.close()

    @property
    def settings(self) -> dict[str, str]:
        """The bot's environment that points it here."""
        return {
            "BOT_EXCHANGE__REST_URL": self.ends["rest_url"],
            "BOT_EXCHANGE__WS_URL": self.ends["ws_url"],
            "BOT_EXCHANGE__WS_API_URL": self.ends["ws_api_url"],
            "BOT_API_KEY": self.ends["api_key"],
            "BOT_API_SECRET": self.ends["api_secret"],
        }

    @property
    def is_running(self) -> bool:
        return self._program is not None and self._program.is_running

    def start(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        books = self._directory / "books"
        program = Program(
            "simulator", "--json", "--port", self._port, "--data-dir", books, *self._arguments, cwd=self._directory
        )
        self._program = program
        try:
            ends = json.loads(program.await_line("rest_url", timeout_s=20))
        except AssertionError:
            program.kill()
            raise
        assert self.ends in ({}, ends), "the exchange came back elsewhere or with other keys"
        self.ends = ends

    def kill(self) -> None:
        if self._program is not None:
            self._program.kill()

    def change_key(self) -> None:
        """Start it again with another API key of the same account."""
        self.kill()
        with closing(sqlite3.connect(self._directory / "books" / FILE_NAME)) as books, books:
            books.execute("UPDATE facts SET value = ? WHERE name = 'api_key'", (token_hex(32),))
        self.ends = {}
        self.start()

    def state(self) -> dict[str, Any]:
        return dict(self.get("/sim/state"))

    def get(self, path: str, **params: str) -> Any:
        answer = self._session.get(self.ends["rest_url"] + path, params=params, timeout=10)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def used_weight(self) -> int:
        """What this minute's requests weigh so far, as the exchange counts them."""
        answer = self._session.get(self.ends["rest_url"] + "/api/v3/ping", timeout=10)
        return int(answer.headers["x-mbx-used-weight-1m"])

    def post(self, path: str, /, **values: object) -> Any:
        answer = self._session.post(self.ends["rest_url"] + path, json=values, timeout=10)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def fault(self, kind: str, **values: object) -> None:
        self.post("/sim/fault", kind=kind, **values)
