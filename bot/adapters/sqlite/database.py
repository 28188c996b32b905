"""How a database file is opened, migrated, written by one and read by many, and what its errors are called."""

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Self

from bot.ports import StoreError

Migration = Iterable[str]
"""The SQL statements that take a schema from one version to the next. None of them may begin or end a transaction."""

PAGE_BYTES = 4_096
"""SQLite's own default, with which all files were created."""

_FIXES = {
    "SQLITE_BUSY": "another process holds the write lock: end it, only one may write",
    "SQLITE_FULL": "the disk is full: free space on it",
    "SQLITE_IOERR": "the disk failed or a limit was reached: check the disk and its free space",
    "SQLITE_CORRUPT": "the file is damaged: move it away and restore a copy",
    "SQLITE_NOTADB": "the file is damaged or of another kind: move it away and restore a copy",
    "SQLITE_CANTOPEN": "check that the directory exists and that this user may write to it",
    "SQLITE_READONLY": "give this user the right to write the file and its directory",
    "SQLITE_PERM": "give this user the right to write the file and its directory",
}


class Database:
    """One SQLite file in WAL mode whose schema version is the number of migrations that were applied to it.

    `migrations` is the ordered list of all steps ever: version n is what the first n make of an empty file. A writer
    applies the missing ones at open, all in one transaction, so that a process killed meanwhile leaves the old version.
    One connection writes, under a lock. Each read opens its own (0.15 ms): a reader never waits for the writer, sees
    one consistent state, and may sit in any thread or process.

    Every error is a StoreError of one line that names the file and the fix.
    """

    def __init__(
        self,
        path: Path,
        migrations: Sequence[Migration],
        *,
        read_only: bool = False,
        lock_timeout_s: float = 5.0,
        wal_pages: int = 1_000,
    ) -> None:
        """Open the file; a writer creates and migrates it, a reader changes and creates nothing.

        `lock_timeout_s` is how long a write waits for another process that writes. The write that makes the WAL longer
        than `wal_pages` folds it into the file, which takes as long as the disk does, unless `fold` did so before.

        Raises StoreError if it cannot be opened, if its version is newer than this program knows, and, for a reader,
        if there is no file yet or its version is older.
        """
        self._path = path
        self._migrations = migrations
        self._lock_timeout_s = lock_timeout_s
        self._wal_pages = wal_pages
        self._lock = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._shared: sqlite3.Connection | None = None
        if read_only:
            with self.reading() as connection:
                self._refuse_other_versions(connection, oldest=len(migrations))
        else:
            with self._errors_named():
                self._writer = self._open_writer()

    def close(self) -> None:
        """End writing and fold the WAL into the file. Reading stays possible; closing twice does nothing."""
        with self._lock, self._errors_named():
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def fold(self, pages: int) -> bool:
        """Fold a WAL of at least so many pages into the file, so that no write has to; return whether that was done.

        Writes go on meanwhile, but for one sync of the disk at the end: the one that a WAL that begins anew costs.
        """
        with self._errors_named():
            try:
                size = self._path.with_name(f"{self._path.name}-wal").stat().st_size
            except FileNotFoundError:  # closed in order
                return False
            if size < pages * PAGE_BYTES:
                return False
            with closing(sqlite3.connect(self._path, timeout=0, isolation_level=None)) as connection:
                _, in_wal, folded = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if in_wal == folded:
            with self.writing() as connection:
                connection.execute(f"PRAGMA user_version = {len(self._migrations)}")
        return bool(in_wal == folded)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Give the writer's connection inside a transaction that is committed at the end, or undone by an exception.

        Once the block has been left without an error, a SIGKILL loses nothing of it; a power cut may (WAL, NORMAL).
        """
        with self._lock, self._errors_named():
            connection = self._writer
            if connection is None:
                raise StoreError(f"{self._path} is not open for writing: open it as a writer first")
            with _transaction(connection):
                yield connection

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give a connection that reads one consistent state, the last one committed. Keep it shortly.

        An open read keeps the WAL from starting over, so a reader that lingers lets it grow.
        """
        if self._shared is not None:
            yield self._shared
            return
        with self._errors_named():
            connection = self._open_reader()
            try:
                connection.execute("BEGIN")
                yield connection
            finally:
                connection.close()

    @contextmanager
    def glancing(self) -> Iterator[sqlite3.Connection]:
        """Give a connection for a look at a row or two: the writer's, which costs no opening, where there is one.

        Whoever writes waits meanwhile.
        """
        with self._lock, self._errors_named():
            if self._writer is not None:
                yield self._writer
                return
        with self.reading() as connection:
            yield connection

    @contextmanager
    def one_state(self) -> Iterator[None]:
        """Let all reads of the block see one state, by one connection. Only where one thread alone reads by this."""
        with self.reading() as connection:
            self._shared = connection
            try:
                yield
            finally:
                self._shared = None

    def _open_writer(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=self._lock_timeout_s, isolation_level=None, check_same_thread=False
        )
        try:
            # Refused before the WAL is switched on: a newer program's file is left as it is.
            self._refuse_other_versions(connection, oldest=0)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA wal_autocheckpoint = {self._wal_pages}")
            with _transaction(connection):
                version = self._refuse_other_versions(connection, oldest=0)
                for migration in self._migrations[version:]:
                    for statement in migration:
                        connection.execute(statement)
                if version < len(self._migrations):
                    connection.execute(f"PRAGMA user_version = {len(self._migrations)}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _open_reader(self) -> sqlite3.Connection:
        if not self._path.exists():
            raise StoreError(f"{self._path} does not exist: start the bot first, it creates it")
        uri = f"{self._path.absolute().as_uri()}?mode=ro"
        if not self._path.with_name(f"{self._path.name}-wal").exists():
            # Closed in order: everything is in the file itself. A plain open would create -wal and -shm beside it,
            # which a read-only directory refuses. A writer that starts now changes the file only when it folds its
            # first thousand pages into it, long after one of our reads has ended.
            uri += "&immutable=1"
        return sqlite3.connect(
            uri, uri=True, timeout=self._lock_timeout_s, isolation_level=None, check_same_thread=False
        )

    def _refuse_other_versions(self, connection: sqlite3.Connection, oldest: int) -> int:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        known = len(self._migrations)
        if version > known:
            raise StoreError(
                f"{self._path} has schema version {version}, this program knows versions up to {known}: "
                f"use the newer program"
            )
        if version < oldest:
            raise StoreError(
                f"{self._path} has schema version {version}, this program reads {known}: "
                f"start the bot once, it migrates the file"
            )
        return int(version)

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "")
            primary = "_".join(name.split("_")[:2])
            fix = _FIXES.get(primary, "this is a defect of the program: report it")
            raise StoreError(f"{self._path}: {error} ({name or type(error).__name__}); {fix}") from error


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Also after a failed COMMIT, which may leave the transaction open; nothing to do where SQLite undid it itself.
        connection.rollback()
        raise


class DatabaseOwner:
    """What the store and the journal share: one database, closed by `close` or at the end of a `with`."""

    _database: Database

    def close(self) -> None:
        """End writing and fold the WAL into the file. Reading stays possible; closing twice does nothing."""
        self._database.close()

    def one_state(self) -> AbstractContextManager[None]:
        """Let all reads of the block see one state, and sooner. Only where one thread alone reads by this object."""
        return self._database.one_state()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
