"""Decides how the parts meet: the one door through which a program starts, addresses, sees and stops its actors."""

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from .address import Address
from .child import Child, Group, State
from .directory import Directory
from .errors import KillRefused, MailboxFull
from .events import EVENT_TYPES, DeadLetter, Event
from .guardian import Guardian
from .incarnation import Incarnation
from .lanes import CONTROL, Lane, LaneTable
from .mailbox import Fate, Mailbox
from .seat import Order
from .settle import Gauge
from .spec import ChildSpec, LaneBounds, Restart, Strategy
from .supervisor import Launch, Release, Supervision, Supervisor
from .timers import Clock
from .tree import ActorStatus, Depth

SUPERVISOR = Address("supervisor")
OWNED_S = 0.5
MOMENT_S = 0.05
"""What an idle actor needs to stop: it is not left behind because another one used up the time."""

logger = logging.getLogger("supervision")


class ActorSystem:
    """Names, their actors, the supervisor that keeps them alive and the guardian above it.

    `lanes` gives each message type its lane; types that a mapping does not name are MUST, and the events of this
    library CONTROL. `on_event` is called on the supervisor's thread and must be short. `on_escalate` is called once, on
    a thread of its own, with the reason why the process should stop. `check_ms` is how often hung and vanished
    actors are looked for, on `clock`; `supervisor_deadline_ms` how long, in real time, the supervisor may take over
    one message, and how late the clock's timers may be.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        lanes: Callable[[type], Lane] | Mapping[type, Lane] | None = None,
        rng: random.Random | None = None,
        on_event: Callable[[Event], None] | None = None,
        on_escalate: Callable[[str], None] | None = None,
        check_ms: int = 250,
        supervisor_deadline_ms: int = 5_000,
    ) -> None:
        self._clock = clock
        self._gauge = Gauge()
        self._directory = Directory(clock, LaneTable({} if lanes is None else lanes, EVENT_TYPES))
        self._check_ms = check_ms
        self._stopping = False
        self._started_at = clock.monotonic_ms()
        self._stop_lock = threading.Lock()
        self._guardian = Guardian(on_escalate, lambda: self.beats, supervisor_deadline_ms, clock, check_ms)
        self._box = Mailbox(LaneTable(lambda _: CONTROL), LaneBounds(), None)
        self._supervision = Supervision(
            self._directory, rng or random.Random(), on_event, self._guardian.escalate, self._post
        )
        self._supervisor: Incarnation | None = None
        self._actor: Supervisor | None = None

    # Life

    def start(self, specs: Sequence[ChildSpec], strategy: Strategy = Strategy.ONE_FOR_ONE) -> None:
        """Start children in order as one group: the next one once the last one's `started` returned or failed.

        All names take messages from the beginning. One that fails to start is restarted by its policy while the
        others go on. May be called again for further groups. Raises ValueError if a name is taken, RuntimeError
        after `stop` or if the supervisor is dead.
        """
        if self._stopping:
            raise RuntimeError("the system was stopped")
        names = [spec.address for spec in specs]
        for address in names:
            if address in self._directory.boxes or address == SUPERVISOR or names.count(address) > 1:
                raise ValueError(f"the name {address} is taken")
        group = Group(strategy)
        for spec in specs:
            mailbox = Mailbox(self._directory.lanes, spec.lane_bounds, self._gauge if spec.tracked else None)
            child = Child(spec, mailbox)
            child.group = group
            group.children.append(child)
            self._supervision.children = {**self._supervision.children, child.name: child}
            self._directory.boxes[spec.address] = mailbox
        if self._supervisor is None:
            self._begin()
        for child in group.children:
            self._post(Launch(child.name, 0))
            while not child.settled.wait(0.1):
                if self._stopping or self._guardian.reason is not None:
                    raise RuntimeError(f"{child.name} was not started: {self._guardian.reason or 'stopped'}")

    def stop(self, deadline_ms: int = 10_000) -> tuple[str, ...]:
        """Stop the supervisor, then all actors, last started first, and return the names of those abandoned.

        Each works off what waits for it first, within its own deadlines and what is left of `deadline_ms`, all
        real time. What is still there then is fenced and left behind. Threads that actors owned get half a second in
        all to end. Needs no living supervisor.
        """
        with self._stop_lock:
            if self._stopping:
                return ()
            self._stopping = True
        began = time.monotonic()
        end = began + deadline_ms / 1000
        self._guardian.dismiss()
        abandoned = []
        supervisor = self._supervisor
        if supervisor is not None and supervisor.is_current():
            self._box.request_stop(supervisor.seat, drain=False)
            patience_s = 0.0 if supervisor.lost_thread() else max(0.0, min(1.0, end - time.monotonic()))
            if not supervisor.ended.wait(patience_s) and supervisor.end(
                "stop", "not stopped in time", Fate.DONE, outside=True, abandoned=True
            ):
                abandoned.append(str(SUPERVISOR))
        for child in reversed(tuple(self._supervision.children.values())):
            by_ms = child.spec.stop_by_ms
            last = end if by_ms is None else max(began + by_ms / 1000, time.monotonic() + MOMENT_S)
            if child.state is not State.STOPPED and not self._stop_child(child, min(end, last)):
                abandoned.append(child.name)
        self._join_owned(min(end, time.monotonic() + OWNED_S))
        return tuple(abandoned)

    def _join_owned(self, deadline: float) -> None:
        """Wait for the threads that the last incarnations owned; fenced, they are only in the way of a clean exit."""
        for child in self._supervision.children.values():
            for owned in () if child.incarnation is None else child.incarnation.owned:
                owned.thread.join(max(0.0, deadline - time.monotonic()))
                if owned.thread.is_alive():
                    logger.warning("thread %s has not ended and is left behind", owned.thread.name)

    def _stop_child(self, child: Child, end: float) -> bool:
        deadline = min(end, time.monotonic() + child.spec.stop_deadline_ms / 1000)
        self._note_end(child)
        if incarnation := child.alive():
            self._supervision.look_for_loss(incarnation)
            self._note_end(child)
        while True:
            incarnation = child.alive() or self._once_more(child, deadline)
            if incarnation is None:
                break
            child.mailbox.request_stop(incarnation.seat, drain=True)
            if not incarnation.ended.wait(max(0.0, deadline - time.monotonic())) and incarnation.end(
                "stop", "not stopped in time", Fate.DONE, outside=True, abandoned=True
            ):
                self._note_end(child)
                self._supervision.retire(child, abandoned=True)
                return False
            self._note_end(child)
            if incarnation.thread is not None:
                incarnation.thread.join(max(0.0, deadline - time.monotonic()))
            if incarnation.down is not None and incarnation.down.phase == "stop":
                break
        self._supervision.retire(child)
        return True

    def _once_more(self, child: Child, deadline: float) -> Incarnation | None:
        """Start a child that died before it worked off what waits, if there is time: it was accepted, after all."""
        if (
            child.incarnation is None
            or child.state is State.QUARANTINED
            or child.spec.restart is Restart.TEMPORARY
            or not any(child.mailbox.waiting())
            or time.monotonic() >= deadline
        ):
            return None
        self._supervision.launch(child)
        return child.incarnation

    def _note_end(self, child: Child) -> None:
        incarnation = child.incarnation
        if incarnation is not None and incarnation.down is not None and child.booked != child.epoch:
            self._supervision.book(child, incarnation.down)

    def _begin(self) -> None:
        supervisor = Incarnation(SUPERVISOR, 1, self._box, self._directory, self._guardian.report, 1)
        self._supervisor = supervisor

        def make(context: Any) -> Supervisor:
            self._actor = Supervisor(context, self._supervision)
            return self._actor

        supervisor.begin(make, None)
        self._guardian.watch(supervisor)
        self._clock.call_later(self._check_ms, self._tick)

    def _tick(self) -> None:
        if self._stopping:
            return
        self._guardian.ticked()
        self._supervision.request_look()
        self._clock.call_later(self._check_ms, self._tick)

    def _post(self, message: object) -> None:
        self._box.offer(message, CONTROL)

    # Messages

    def tell(self, to: Address, message: object) -> bool:
        """Leave `message` for `to`, from outside of the actors; as `Context.tell`, without a fence."""
        return self._directory.tell(to, message)

    def ask(self, to: Address, message: object, timeout_s: float) -> Any:
        """Return what the handler of `to` returns for `message`; for tests and tools, not between actors.

        Raises what the handler raised, which is also the actor's failure; NotRunning if the name takes no
        messages; pykka.Timeout after `timeout_s` seconds.
        """
        return self._directory.ask(to, message, timeout_s)

    def wait_settled(self, timeout_s: float) -> bool:
        """Wait until no message to a tracked actor waits or is in hand; False after `timeout_s` seconds.

        What waits for a quarantined actor does not count, nor does a timer that is not due yet.
        """
        return self._gauge.wait(timeout_s)

    # Sight

    def tree(self) -> tuple[ActorStatus, ...]:
        """Return what is to be seen of the supervisor and all children in start order, without asking them."""
        children = self._supervision.children.values()
        return (self._own_status(), *(child.status(self._clock) for child in children))

    def _own_status(self) -> ActorStatus:
        supervisor = self._supervisor
        now = self._clock.monotonic_ms()
        alive = supervisor is not None and supervisor.is_current()
        busy = supervisor is not None and alive and supervisor.seat.source is not None
        return ActorStatus(
            name=str(SUPERVISOR),
            kind=SUPERVISOR.kind,
            state="running" if alive else "stopped" if supervisor is not None else "starting",
            epoch=0 if supervisor is None else supervisor.epoch,
            restarts=0,
            uptime_ms=now - self._started_at if alive else 0,
            mailbox=Depth(*self._box.waiting()),
            last_error=self._guardian.reason or "",
            busy_ms=max(0, now - supervisor.seat.taken_at) if supervisor is not None and busy else 0,
            last_done_ms=None,
            abandoned=0,
        )

    @property
    def beats(self) -> int:
        """How many messages the supervisor has taken: grows every `check_ms` while it, and the clock, are alive."""
        return 0 if self._actor is None else self._actor.beats

    def dead_letters(self) -> tuple[DeadLetter, ...]:
        """Return the messages that were given up and neither retried nor dropped, oldest first, 10,000 at most."""
        return tuple(entry[0] for entry in self._supervision.letters.copy())

    @property
    def refused_effects(self) -> int:
        """How often an incarnation tried to tell or to have an effect after its epoch."""
        return self._directory.refused_effects

    @property
    def undelivered(self) -> int:
        """How many messages were refused by their names: unknown, stopped, quarantined, or a full stream lane."""
        return self._directory.undelivered

    # Commands

    def retry_dead_letter(self, number: int) -> bool:
        """Tell a dead letter's message to its name once more; False if there is no such letter or it is refused.

        One that its name refuses, or has no room for, stays a dead letter.
        """
        found = self._supervision.take_letter(number)
        if found is None:
            return False
        _, child, parcel = found
        with suppress(MailboxFull):
            if self.tell(child.spec.address, parcel.message):
                return True
        self._supervision.put_back(found)
        return False

    def drop_dead_letter(self, number: int) -> bool:
        """Forget a dead letter; False if there is none of that number."""
        return self._supervision.take_letter(number) is not None

    def release(self, address: Address) -> bool:
        """End the quarantine of `address`: it is started anew. False if it is in none."""
        child = self._supervision.children.get(str(address))
        if child is None or not (child.in_care or child.state is State.QUARANTINED):
            return False
        self._post(Release(child.name))
        return True

    def kill(self, address: Address, how: str) -> None:
        """Make the actor's next message fail: "raise" an exception, "exit" by SystemExit, "hang", or "vanish".

        It is restarted as after any failure, but that counts towards no intensity, quarantine or dead letter, and
        the message is handled by the next incarnation. Raises KillRefused if the name is unknown, not running, or
        has a kill pending, ValueError for another `how`.
        """
        order = Order(how)
        if order in {Order.STOP, Order.LEAVE}:
            raise ValueError(f"{how!r} is no way to die")
        child = self._supervision.children.get(str(address))
        incarnation = self._supervisor if address == SUPERVISOR else None if child is None else child.alive()
        if child is None and address != SUPERVISOR:
            raise KillRefused(f"no actor is named {address}")
        if incarnation is None or (child is not None and child.state is not State.UP):
            raise KillRefused(f"{address} is not running")
        if not incarnation.mailbox.doom(incarnation.seat, order):
            raise KillRefused(f"{address} is not running, or a kill is pending")
