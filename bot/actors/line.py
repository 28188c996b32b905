"""One connection of an actor, from the attempt to its end, whoever of two threads ends it."""

import threading
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    def close(self) -> None:
        """End the connection from any thread."""


C = TypeVar("C", bound=Closable)


class Line(Generic[C]):
    """The reader thread opens it, the actor may give it up; given up while it was opened, it is closed once it is open.

    `opened_ms` (monotonic) is written by the reader.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.opened_ms = 0
        self.is_given_up = False
        self._connection: C | None = None
        self._lock = threading.Lock()

    def opened(self, connection: C, now_ms: int) -> bool:
        """Take the open connection; False if nobody wants it any more."""
        with self._lock:
            self._connection = connection
            self.opened_ms = now_ms
            return not self.is_given_up

    def give_up(self) -> None:
        """Close the connection, now or as soon as it is open."""
        with self._lock:
            self.is_given_up = True
            connection = self._connection
        if connection is not None:
            connection.close()
