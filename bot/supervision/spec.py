"""Decides how a child is kept alive: the policy as data, and the arithmetic of back-off and intensity."""

import enum
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .address import Address

if TYPE_CHECKING:
    from .actor import Actor
    from .context import Context


class Restart(enum.Enum):
    """Which endings are followed by a new incarnation: every one, failures only, none."""

    PERMANENT = "permanent"
    TRANSIENT = "transient"
    TEMPORARY = "temporary"


class Strategy(enum.Enum):
    """Who is restarted with a child: nobody, those started after it, all of its group."""

    ONE_FOR_ONE = "one_for_one"
    REST_FOR_ONE = "rest_for_one"
    ONE_FOR_ALL = "one_for_all"


class Exceeded(enum.Enum):
    """What follows too many restarts: only this name is shut off, or the whole system is to stop."""

    QUARANTINE = "quarantine"
    ESCALATE = "escalate"


@dataclass(frozen=True, slots=True)
class Backoff:
    """The wait before a restart: grows by `factor` up to `max_ms`, begins anew after `reset_after_ms` of health.

    `jitter` is the part by which a wait is made shorter or longer at random, so that many do not return at once.
    """

    min_ms: int = 100
    max_ms: int = 10_000
    factor: float = 2.0
    jitter: float = 0.2
    reset_after_ms: int = 30_000

    def delay_ms(self, step: int, rng: random.Random) -> int:
        """Return the wait in ms before the restart after `step` earlier failures in a row; never above `max_ms`."""
        plain = min(float(self.max_ms), self.min_ms * self.factor ** min(step, 64))
        return round(min(float(self.max_ms), plain * rng.uniform(1 - self.jitter, 1 + self.jitter)))


@dataclass(frozen=True, slots=True)
class LaneBounds:
    """How many messages may wait in a lane (the control lane has no bound), and how long a must sender waits."""

    must: int = 10_000
    stream: int = 1_000
    put_timeout_ms: int = 5_000


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """An actor to be kept alive. Times are ms on the system's clock; the stop's and put timeouts are real ones.

    `stop_deadline_ms` is how long its own stop may take; `stop_by_ms`, if given, until when after the beginning of the
    whole system's stop it may last (and a moment, if others left it none), so that those stopped after it have time.

    More than `max_restarts` failures within `period_ms` lead to `on_exceeded`. A message whose handling killed the
    actor is tried `poison_attempts` times in all. `stand_in`, if given, serves the name while it is in quarantine, with
    the same mailbox and policy; if that fails too often as well, the name refuses messages. `tracked` says whether
    `ActorSystem.wait_settled` waits for it.
    """

    address: Address
    factory: "Callable[[Context], Actor]"
    restart: Restart = Restart.PERMANENT
    handler_deadline_ms: int = 10_000
    start_deadline_ms: int = 10_000
    stop_deadline_ms: int = 2_000
    stop_by_ms: int | None = None
    max_restarts: int = 5
    period_ms: int = 30_000
    backoff: Backoff = Backoff()
    on_exceeded: Exceeded = Exceeded.QUARANTINE
    poison_attempts: int = 2
    stand_in: "Callable[[Context], Actor] | None" = None
    lane_bounds: LaneBounds = LaneBounds()
    tracked: bool = True


class History:
    """What a child's failures add up to; times are monotonic ms."""

    def __init__(self, spec: ChildSpec) -> None:
        self._spec = spec
        self._failures: deque[int] = deque()
        self._step = 0

    def forget(self) -> None:
        """Begin anew, as after a release."""
        self._failures.clear()
        self._step = 0

    def exceeds(self, now: int) -> bool:
        """Count a failure at `now`; True if the period now holds more than the spec accepts."""
        self._failures.append(now)
        while self._failures[0] <= now - self._spec.period_ms:
            self._failures.popleft()
        return len(self._failures) > self._spec.max_restarts

    def delay_ms(self, up_ms: int, rng: random.Random) -> int:
        """Return the wait before the next restart, after an incarnation that was up for `up_ms`."""
        backoff = self._spec.backoff
        if up_ms >= backoff.reset_after_ms:
            self._step = 0
        self._step += 1
        return backoff.delay_ms(self._step - 1, rng)
