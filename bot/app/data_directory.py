"""The data directory: who owns it, where its files are, and the kill switch in it. Source: contract, section 6."""

import fcntl
import json
import os
import re
import threading
from contextlib import suppress
from pathlib import Path

import msgspec

from bot.domain.order import Side

_LOOKS = 100
ENTRIES = "entries"
"""The name of the file that stops the entries of all symbols; no symbol has lower case."""

REBUILT = "rebuilt"
"""The account of a book that was made of its trades alone, where the exchange knows more of it."""

UID = "uid "
"""With which the name of an account begins that the exchange itself gave; other names are made of the API key."""


class DataDirectoryError(Exception):
    """A directory that cannot be used; the text is one line with the fix."""


class Identity(msgspec.Struct, frozen=True):
    """Whose book a directory holds; it never mixes two."""

    mode: str
    exchange: str
    account: str
    bot_id: str


def _first_line(path: str) -> str | None:
    """Return a file's text, None if there is no such file; one that cannot be read counts as there."""
    try:
        os.stat(path)  # there is none, as a rule, and this tells it in a tenth of the time
        return Path(path).read_text("utf-8", "replace").strip() or "without a reason"
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"


def _file_name(host: str) -> str:
    return re.sub(r"[^a-z0-9.-]", "_", host)


_identities = msgspec.json.Decoder(Identity)


class DataDirectory:
    """Paths of one data directory; reading needs nothing more, running needs `claim`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.history = path / "history.db"
        self.orders = path / "orders.db"
        self.outbox = path / "outbox.db"
        self.archive = path / "dynamodb.db"
        self.exchange = path / "exchange"
        self.control_socket = path / "control.sock"
        self._lock_path = path / "lock"
        self._identity_path = path / "identity.json"
        self._halt_path = path / "halt"
        self._flatten_path = path / "flatten"
        self._stops_path = path / "stops"
        # As text for what is looked at before every order: a Path costs more than the look.
        self._halt_file, self._stop_files = str(self._halt_path), f"{self._stops_path}{os.sep}"
        self._pauses_path = path / "pauses"
        self._lock: int | None = None
        self._unwritten_halt: str | None = None
        self._unwritten_stops: dict[str, str] = {}

    def claim(self, identity: Identity) -> None:
        """Make this process the directory's only user until it ends, however it ends, and the book `identity`'s.

        Raises DataDirectoryError if another process has it (its pid is named) or it belongs to another identity.
        """
        self.lock()
        self.belong_to(identity)

    def lock(self) -> None:
        """Make this process the directory's only user. Raises DataDirectoryError as `claim` does for other users."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DataDirectoryError(f"{self.path}: {error.strerror}; name a writable --data-dir") from None
        if not self._take(lock):
            os.close(lock)
            raise self._in_use(self.running_pid())
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        self._lock = lock

    def refuse_if_used(self) -> None:
        """Raise DataDirectoryError as `lock` does where another process has the directory; change nothing."""
        pid = self.running_pid()
        if pid is not None:
            raise self._in_use(pid)

    def _in_use(self, pid: int | None) -> DataDirectoryError:
        return DataDirectoryError(f"{self.path} is in use by process {pid}; stop that one or give another --data-dir")

    def belong_to(self, identity: Identity, formerly: frozenset[str] = frozenset()) -> None:
        """Make the book `identity`'s where it is nobody's; the lock is given up where it is somebody else's.

        An account still unknown (empty) is not compared, and nothing is written then. A book whose account was named
        as in `formerly` gets the new name.

        Raises DataDirectoryError if the directory belongs to another identity, or cannot be written.
        """
        try:
            self._check_identity(identity, formerly)
        except OSError as error:
            self.release()
            raise DataDirectoryError(f"{self.path}: {error.strerror}; name a writable --data-dir") from None
        except DataDirectoryError:
            self.release()
            raise

    def _take(self, lock: int) -> bool:
        """Lock the file, unless another process has it and says so.

        Who only looks (`running_pid`) holds the lock for an instant too; that is waited for.
        """
        pause = threading.Event()
        for _ in range(_LOOKS):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except OSError:
                if self.running_pid() is not None:
                    return False
            pause.wait(0.01)
        return False

    def release(self) -> None:
        """Let another process have the directory."""
        if self._lock is not None:
            os.ftruncate(self._lock, 0)
            os.close(self._lock)
            self._lock = None

    def discard(self) -> None:
        """Delete a book that was begun and is not to be. For the process that made it only."""
        for database in (self.history, self.orders):
            for file in self.path.glob(f"{database.name}*"):
                file.unlink()
        self._identity_path.unlink(missing_ok=True)

    def identity(self) -> Identity | None:
        """Return whose book this is, None for a directory that holds none. Raises DataDirectoryError if unreadable."""
        try:
            return _identities.decode(self._identity_path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            reason = f"cannot be read ({error.strerror}); name a --data-dir that this user may read"
            raise DataDirectoryError(f"{self._identity_path}: {reason}") from None
        except msgspec.DecodeError as error:
            raise DataDirectoryError(f"{self._identity_path}: {error}; restore it or use another --data-dir") from None

    def running_pid(self) -> int | None:
        """Return the pid of the process that has the directory, None if none has."""
        try:
            probe = os.open(self._lock_path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            text = os.pread(probe, 20, 0).decode("ascii", "replace")
            return int(text) if text.isdigit() else None
        finally:
            os.close(probe)
        return None

    def free_bytes(self) -> int:
        """Return how much the file system can still take."""
        state = os.statvfs(self.path)
        return state.f_bavail * state.f_frsize

    def halt(self, reason: str, flatten: bool = False) -> None:
        """Let no order leave from now on, over every restart, until `resume`; `flatten`: but those that sell all.

        Raises OSError if that cannot be written; then it holds for as long as this process lives.
        """
        self._unwritten_halt = reason
        self.path.mkdir(parents=True, exist_ok=True)
        if flatten:
            self._flatten_path.touch()
        if not self._halt_path.exists():
            self._halt_path.write_text(reason + "\n", "utf-8")
        self._unwritten_halt = None

    def resume(self) -> bool:
        """Let orders leave again; False if they were not halted."""
        self.flat()
        try:
            self._halt_path.unlink()
        except FileNotFoundError:
            return False
        return True

    def is_flattening(self) -> bool:
        """Whether all of the bot's coins are to be sold while it is halted."""
        return self._flatten_path.exists()

    def flat(self) -> None:
        """Nothing is left to sell, or is to be sold."""
        self._flatten_path.unlink(missing_ok=True)

    def stop_symbol(self, symbol: str, reason: str) -> None:
        """Let no order of one symbol leave, over every restart, until `free_symbol`; the first reason stands.

        An empty symbol: no entry of any symbol. Raises OSError if that cannot be written; then it holds for as long as
        this process lives.
        """
        self._unwritten_stops[symbol] = reason
        self._stops_path.mkdir(parents=True, exist_ok=True)
        path = self._stops_path / (symbol or ENTRIES)
        if not path.exists():
            path.write_text(reason + "\n", "utf-8")
        del self._unwritten_stops[symbol]

    def free_symbol(self, symbol: str) -> bool:
        """Let orders of a symbol leave again, or entries where it is empty; False if they were not stopped."""
        was_stopped = self._unwritten_stops.pop(symbol, None) is not None
        try:
            (self._stops_path / (symbol or ENTRIES)).unlink()
        except (FileNotFoundError, NotADirectoryError):
            return was_stopped
        return True

    def stopped_symbols(self) -> dict[str, str]:
        """Return why each stopped symbol was stopped; the empty one stands for all entries.

        Where that cannot be read it is told as a stop of all entries, and `refusal` lets no exit leave either.
        """
        try:
            names = sorted(os.listdir(self._stops_path))
        except (FileNotFoundError, NotADirectoryError):
            names = []
        except OSError as error:
            reason = f"{self._stops_path} cannot be read: {error.strerror}; exits are stopped too"
            return {"": reason} | self._unwritten_stops
        reasons = {"" if name == ENTRIES else name: _first_line(self._stop_files + name) for name in names}
        return self._unwritten_stops | {symbol: reason for symbol, reason in reasons.items() if reason is not None}

    def pause(self, host: str) -> tuple[int, int, str] | None:
        """Return since and until when (ms UTC) a host is to be asked nothing, and why; None if it said nothing."""
        line = _first_line(str(self._pauses_path / _file_name(host))) or ""
        found = re.fullmatch(r"([0-9]{1,15}) ([0-9]{1,15})( .*)?", line)
        return (int(found[1]), int(found[2]), (found[3] or "").strip()) if found else None

    def keep_pause(self, host: str, since_ms: int, until_ms: int, reason: str) -> None:
        """Remember over restarts that a host is to be asked nothing; where that cannot be written, nothing is."""
        with suppress(OSError):
            self._pauses_path.mkdir(exist_ok=True)
            (self._pauses_path / _file_name(host)).write_text(f"{since_ms} {until_ms} {reason}\n", "utf-8")

    def halted(self) -> str | None:
        """Return why no order may leave, None if orders may."""
        return _first_line(self._halt_file) or self._unwritten_halt

    def refusal(self, symbol: str, side: Side) -> str | None:
        """Return why no order of this side may leave for a symbol, None if orders may.

        Read before every order, so it stays cheap.
        """
        halted = self.halted()
        if halted is not None:
            return f"halted: {halted}"
        unwritten = self._unwritten_stops
        stopped = unwritten.get(symbol) or _first_line(self._stop_files + symbol)
        if stopped is not None:
            return f"{symbol} is stopped: {stopped}"
        if side is not Side.BUY:
            return None
        entries = unwritten.get("") or _first_line(self._stop_files + ENTRIES)
        return None if entries is None else f"all entries are stopped: {entries}"

    def _check_identity(self, identity: Identity, formerly: frozenset[str]) -> None:
        known = self.identity()
        if known is None:
            if self.orders.exists() or self.history.exists():
                raise DataDirectoryError(
                    f"{self.path} holds a book but no {self._identity_path.name}; restore it or use another --data-dir"
                )
            if identity.account:
                self._write_identity(identity)
            return
        account = identity.account or known.account
        wanted = msgspec.structs.replace(identity, account=account)
        differing = {
            key: f"{key} is {value!r}, not {getattr(wanted, key)!r}"
            for key, value in msgspec.structs.asdict(known).items()
            if value != getattr(wanted, key) and (key != "account" or value not in formerly)
        }
        if differing:
            if known.account == REBUILT:
                raise DataDirectoryError(
                    f"{self.path} was rebuilt of trades, to be looked at: orders that made no trade are not in it, "
                    f"so no {known.mode} run goes on with it; trade with the original, or another --data-dir"
                )
            # Of two names made of keys nobody can tell whether they are one account's.
            fix = "give another --data-dir"
            if [*differing] == ["account"] and not (known.account.startswith(UID) and account.startswith(UID)):
                fix += (
                    "; if it is the same account with a new API key, go on with this book by writing "
                    f'"account": "{account}" in {self._identity_path}'
                )
            raise DataDirectoryError(f"{self.path} belongs to another run ({'; '.join(differing.values())}); {fix}")
        if known != wanted:
            self._write_identity(wanted)

    def _write_identity(self, identity: Identity) -> None:
        text = json.dumps(msgspec.structs.asdict(identity), indent=1)
        partial = self._identity_path.with_suffix(".partial")
        partial.write_text(text + "\n", "utf-8")
        partial.replace(self._identity_path)
