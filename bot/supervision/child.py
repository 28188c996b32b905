"""Decides what is remembered of a child beyond one incarnation: its state, its counts, its group."""

import enum
import threading
from collections.abc import Sequence

from .incarnation import Incarnation
from .mailbox import Mailbox
from .spec import ChildSpec, History, Strategy
from .timers import Clock
from .tree import ActorStatus, Depth


class State(enum.Enum):
    """Where a child is; only UP takes part in the work."""

    STARTING = "starting"
    UP = "running"
    RESTARTING = "restarting"
    QUARANTINED = "quarantined"
    STOPPED = "stopped"


class Child:
    """One name that is kept alive. Written by the supervisor's thread, read by any."""

    def __init__(self, spec: ChildSpec, mailbox: Mailbox) -> None:
        self.spec = spec
        self.name = str(spec.address)
        self.mailbox = mailbox
        self.group: Group = Group(Strategy.ONE_FOR_ONE)
        self.history = History(spec)
        self.state = State.STARTING
        self.in_care = False  # quarantined, and served by the spec's stand-in
        self.is_stood_in = False  # the incarnation is the stand-in; for a moment still after a release
        self.incarnation: Incarnation | None = None
        self.epoch = 0
        self.booked = 0  # the last epoch whose end was noted
        self.restarts = 0
        self.abandoned = 0
        self.last_error = ""
        self.launched_at = 0  # monotonic ms, as the next three
        self.up_at: int | None = None
        self.down_at: int | None = None
        self.stop_by: int | None = None
        self.suspected: tuple[int, int] | None = None
        self.settled = threading.Event()  # the first start succeeded or failed

    def alive(self) -> Incarnation | None:
        """Return the incarnation whose epoch lasts, if there is one."""
        incarnation = self.incarnation
        return incarnation if incarnation is not None and incarnation.is_current() else None

    def status(self, clock: Clock) -> ActorStatus:
        """Return what is to be seen of it now."""
        now = clock.monotonic_ms()
        incarnation = self.alive()
        up_at = self.up_at
        up = self.state is State.UP and incarnation is not None and up_at is not None
        busy_ms, last_done_ms = 0, None
        if incarnation is not None:
            seat = incarnation.seat
            if seat.source is not None:
                busy_ms = max(0, now - seat.taken_at)
            if seat.done_at is not None:
                last_done_ms = max(0, now - max(seat.done_at, seat.taken_at))
        return ActorStatus(
            name=self.name,
            kind=self.spec.address.kind,
            state=incarnation.state if up and incarnation is not None and not self.in_care else self._word(),
            epoch=self.epoch,
            restarts=self.restarts,
            uptime_ms=now - up_at if up and up_at is not None else 0,
            mailbox=Depth(*self.mailbox.waiting()),
            last_error=self.last_error,
            busy_ms=busy_ms,
            last_done_ms=last_done_ms,
            abandoned=self.abandoned,
        )

    def _word(self) -> str:
        if self.in_care:
            return State.QUARANTINED.value
        # Between an epoch's end and the supervisor's notice of it the child is on its way back already.
        return State.RESTARTING.value if self.state is State.UP else self.state.value


class Plan:
    """A restart of several: first these stop, last started first, then, after the wait, those start in order."""

    def __init__(self, to_stop: list[Child], to_start: list[Child], delay_ms: int) -> None:
        self.to_stop = to_stop
        self.to_start = to_start
        self.delay_ms = delay_ms
        self.armed = False
        self.starting: Child | None = None


class Group:
    """Children that were started together, in start order, under one strategy."""

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self.children: list[Child] = []
        self.plan: Plan | None = None

    def concerned(self, child: Child) -> Sequence[Child]:
        """Return those that restart with `child`, itself included, in start order."""
        match self.strategy:
            case Strategy.ONE_FOR_ONE:
                return (child,)
            case Strategy.REST_FOR_ONE:
                return self.children[self.children.index(child) :]
            case Strategy.ONE_FOR_ALL:
                return self.children
