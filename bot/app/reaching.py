"""Asks others what a start depends on: an exchange patiently, nobody longer than whoever started it wishes."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from bot.ports import ExchangeBusy, ExchangeUnavailable
from bot.supervision import Clock

T = TypeVar("T")

AWAY_MS, BUSY_MS = 15_000, 75_000
"""How long a start waits for an exchange that does not answer, and for one whose limit for this minute is reached."""


class StartError(Exception):
    """The bot cannot start; the text is one line with the fix."""


class StartCancelled(Exception):
    """The bot was told to stop before it had started."""


class Reaching:
    """Questions of one start; setting `cancelled` ends the waiting for any of them."""

    def __init__(self, clock: Clock, cancelled: threading.Event) -> None:
        self._clock = clock
        self._cancelled = cancelled

    def answer(self, question: Callable[[], T], where: str) -> T:
        """Return what `question` returns; an exchange that is away gets some seconds to come back.

        Raises StartError, StartCancelled, and what else `question` raises.
        """
        began = self._clock.monotonic_ms()
        while True:
            try:
                return self._asked(question)
            except ExchangeUnavailable as error:
                patience_ms = BUSY_MS if isinstance(error, ExchangeBusy) else AWAY_MS
                if self._clock.monotonic_ms() - began > patience_ms:
                    raise StartError(f"{where} cannot be reached: {error}; check address and network") from None
                if self._cancelled.wait(0.5):
                    raise StartCancelled from None

    def _asked(self, question: Callable[[], T]) -> T:
        """Ask on a thread of its own: a start that is cancelled waits for nobody who takes his time."""
        answer: Future[T] = Future()

        def ask() -> None:
            try:
                answer.set_result(question())
            except BaseException as error:
                answer.set_exception(error)

        if not self._cancelled.is_set():
            threading.Thread(target=ask, name="start", daemon=True).start()
        while not self._cancelled.is_set():
            if wait([answer], 0.1).done:
                return answer.result()
        raise StartCancelled
