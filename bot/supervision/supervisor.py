"""Decides what follows a child's end: a restart, the restart of its group, quarantine, escalation or nothing.

The supervisor is an actor like any other, so its own death is seen as any other's, by the guardian above it.
Reports, due restarts and looks at the clock come to it as messages; nothing it does can wait for a child.
"""

import logging
import random
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from .actor import Actor
from .child import Child, Group, Plan, State
from .context import Context
from .directory import Directory
from .errors import NotRunning
from .events import (
    ActorFailed,
    ActorQuarantined,
    ActorRestarted,
    ActorStarted,
    ActorStopped,
    DeadLetter,
    Event,
)
from .incarnation import Down, Incarnation, Up, drop
from .lanes import MUST
from .mailbox import Fate
from .seat import Parcel
from .spec import Exceeded, Restart, Strategy

KEPT_LETTERS = 10_000

logger = logging.getLogger("supervision")


@dataclass(frozen=True, slots=True)
class Launch:
    """Command: start the child if it waits for that since `epoch` ended."""

    name: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Release:
    """Command: end the child's quarantine."""

    name: str


@dataclass(frozen=True, slots=True)
class Proceed:
    """Command: the wait of a group's plan is over."""

    plan: Plan


@dataclass(frozen=True, slots=True)
class Look:
    """Command: look for children that hang or vanished."""


Command = Launch | Release | Proceed | Look


Buried = tuple[DeadLetter, Child, Parcel]


class Supervision:
    """The books and the decisions; what the supervisor does with its messages, and `ActorSystem.stop` without it."""

    def __init__(
        self,
        directory: Directory,
        rng: random.Random,
        on_event: Callable[[Event], None] | None,
        escalate: Callable[[str], None],
        post: Callable[[Up | Down | Command], object],
    ) -> None:
        self.children: dict[str, Child] = {}
        self.directory = directory
        self.letters: deque[Buried] = deque(maxlen=KEPT_LETTERS)
        self._letters_lock = threading.Lock()
        self._letter_count = 0
        self._look_waits = False
        self._clock = directory.clock
        self._rng = rng
        self._on_event = on_event
        self._escalate = escalate
        self._post = post

    def emit(self, event: Event) -> None:
        """Hand `event` to the listener; what that raises is logged and harms nobody."""
        if self._on_event is not None:
            try:
                self._on_event(event)
            except Exception:
                logger.exception("a listener failed at %r", event)

    # Starting

    def launch(self, child: Child) -> None:
        """Begin the child's next epoch; `Up` or `Down` will tell."""
        previous = child.incarnation
        child.epoch += 1
        child.up_at = child.suspected = child.stop_by = None
        child.launched_at = self._clock.monotonic_ms()
        incarnation = Incarnation(
            child.spec.address,
            child.epoch,
            child.mailbox,
            self.directory,
            self._post,
            child.spec.poison_attempts,
        )
        child.incarnation = incarnation
        # On a thread of its own: making an actor may hang, and may have to wait for an effect of the last epoch.
        spec = child.spec
        child.is_stood_in = child.in_care
        factory = spec.stand_in if child.in_care and spec.stand_in is not None else spec.factory
        threading.Thread(
            target=incarnation.begin, args=(factory, previous), name=f"start of {child.name}", daemon=True
        ).start()

    def up(self, report: Up) -> None:
        """Note that a child has started."""
        child = self.children[str(report.address)]
        if report.epoch != child.epoch or child.booked == child.epoch:
            return
        if _is_released(child):
            return  # its end is on the way, and all else follows from that
        now = self._clock.monotonic_ms()
        child.state = State.UP
        child.up_at = now
        time = self._clock.now_ms()
        if child.down_at is None:
            self.emit(ActorStarted(child.name, child.epoch, child.spec.address.kind, time))
        else:
            self.emit(ActorRestarted(child.name, child.epoch, child.restarts, now - child.down_at, time))
        child.settled.set()
        self._resume_plan(child)

    def due(self, command: Launch) -> None:
        """Start a child whose wait is over, or that was never started."""
        child = self.children[command.name]
        if child.epoch == command.epoch and child.state in {State.STARTING, State.RESTARTING}:
            self.launch(child)

    def release(self, command: Release) -> None:
        """End a quarantine; the child's past is forgotten."""
        child = self.children[command.name]
        child.history.forget()
        stand_in = child.alive()
        was_in_care, child.in_care = child.in_care, False
        if child.state is State.QUARANTINED:
            child.state = State.RESTARTING
            child.restarts += 1
            child.mailbox.unpark()
            self.launch(child)
        elif was_in_care and stand_in is not None:
            # What waits stays for the actor proper, which is launched when the stand-in has ended.
            child.state = State.RESTARTING
            child.stop_by = self._clock.monotonic_ms() + child.spec.stop_deadline_ms
            child.mailbox.request_stop(stand_in.seat, drain=False)

    # Ending

    def down(self, report: Down) -> None:
        """Act on the end of a child's epoch."""
        child = self.children[str(report.address)]
        if report.epoch != child.epoch or child.booked == child.epoch:
            return
        up_ms = self.book(child, report)
        plan = child.group.plan
        if plan is not None and child in plan.to_stop:
            self._stopped_for_plan(child, plan)
        elif _is_released(child):
            # However the stand-in ended, it says nothing about the actor proper.
            self._restart(child, 0)
        elif child.spec.restart is Restart.TEMPORARY or (
            child.spec.restart is Restart.TRANSIENT and report.error is None
        ):
            self.retire(child, abandoned=report.abandoned)
            self._resume_plan(child)
        elif not report.chaos and child.history.exceeds(self._clock.monotonic_ms()):
            self._give_up(child, report)
        else:
            # A kill by command says nothing about the child's health, so it does not make the next wait longer.
            spec = child.spec
            step_free = spec.backoff.delay_ms(0, self._rng) if report.chaos else None
            self._restart(child, child.history.delay_ms(up_ms, self._rng) if step_free is None else step_free)

    def book(self, child: Child, report: Down) -> int:
        """Note and announce what happened; return for how many ms the incarnation was up."""
        now = self._clock.monotonic_ms()
        up_ms = 0 if child.up_at is None else now - child.up_at
        child.booked = report.epoch
        child.up_at = None
        child.down_at = now
        child.abandoned += report.abandoned
        if report.error is not None:
            child.last_error = report.error
            self.emit(
                ActorFailed(child.name, report.epoch, report.phase, report.message_type, report.error, report.time)
            )
        if report.poison is not None:
            self.bury(child, report.poison, report.error or "")
        self.directory.announce(child.spec.address, report.epoch, report.error or "stopped")
        child.settled.set()
        return up_ms

    def bury(self, child: Child, parcel: Parcel, error: str) -> None:
        """Keep a message that was given up as a dead letter."""
        with self._letters_lock:
            self._letter_count += 1
            letter = DeadLetter(
                name=child.name,
                message_type=type(parcel.message).__name__,
                error=error,
                attempts=parcel.attempts,
                time=self._clock.now_ms(),
                number=self._letter_count,
            )
            self.letters.append((letter, child, parcel))
        self.emit(letter)

    def take_letter(self, number: int) -> Buried | None:
        """Remove a dead letter and return it; None if there is none of that number."""
        with self._letters_lock:
            for entry in self.letters:
                if entry[0].number == number:
                    self.letters.remove(entry)
                    return entry
        return None

    def put_back(self, taken: Buried) -> None:
        """Keep a dead letter that was taken, in its place."""
        with self._letters_lock:
            place = sum(entry[0].number < taken[0].number for entry in self.letters)
            if len(self.letters) < KEPT_LETTERS:  # a full record has newer ones in its place by now
                self.letters.insert(place, taken)

    def retire(self, child: Child, abandoned: bool = False) -> None:
        """Close the child's name for good. Must messages that waited become dead letters, others are counted."""
        child.state = State.STOPPED
        child.in_care = False
        for parcel in child.mailbox.close():
            drop(parcel, NotRunning(child.name))
            if parcel.lane is MUST and parcel.reply is None:
                self.bury(child, parcel, "stopped before it was handled")
            else:
                child.mailbox.refused += 1
        time = self._clock.now_ms()
        self.emit(ActorStopped(child.name, child.epoch, child.spec.address.kind, time, abandoned))
        child.settled.set()

    def _give_up(self, child: Child, report: Down) -> None:
        spec = child.spec
        reason = f"more than {spec.max_restarts} failures in {spec.period_ms} ms, last: {report.error or 'stopped'}"
        if spec.on_exceeded is Exceeded.ESCALATE:
            child.state = State.RESTARTING
            self._escalate(f"{child.name}: {reason}")
            return
        if child.in_care:
            reason = f"the stand-in too: {reason}"
        has_help = spec.stand_in is not None and not child.in_care
        if has_help:
            child.in_care = True
            child.state = State.RESTARTING
            child.history.forget()
        else:
            child.state = State.QUARANTINED
            child.mailbox.park()
        # Told of when it is so: who hears of it may release the name at once.
        self.emit(ActorQuarantined(child.name, reason, self._clock.now_ms()))
        if has_help:
            self._restart(child, spec.backoff.delay_ms(0, self._rng))
        else:
            self._resume_plan(child)

    # Restarting

    def _restart(self, child: Child, delay_ms: int) -> None:
        group = child.group
        child.state = State.RESTARTING
        if group.strategy is Strategy.ONE_FOR_ONE:
            child.restarts += 1
            command = Launch(child.name, child.epoch)
            if delay_ms <= 0:
                self.due(command)
            else:
                self._clock.call_later(delay_ms, lambda: self._tell_self(command))
            return
        concerned = set(group.concerned(child))
        if group.plan is not None:
            concerned.update(group.plan.to_start)
        members = [c for c in group.children if c in concerned and c.state not in {State.QUARANTINED, State.STOPPED}]
        group.plan = Plan([c for c in reversed(members) if c is not child], members, delay_ms)
        self._pursue(group, group.plan)

    def _tell_self(self, command: Command) -> None:
        self._post(command)

    def _pursue(self, group: Group, plan: Plan) -> None:
        while plan.to_stop:
            child = plan.to_stop[0]
            incarnation = child.alive()
            if incarnation is not None:
                child.state = State.RESTARTING
                child.stop_by = self._clock.monotonic_ms() + child.spec.stop_deadline_ms
                # What waits stays for the next incarnation, so it need not be worked off first.
                child.mailbox.request_stop(incarnation.seat, drain=False)
                return
            plan.to_stop.pop(0)
        if not plan.armed:
            plan.armed = True
            self._clock.call_later(plan.delay_ms, lambda: self._tell_self(Proceed(plan)))

    def _stopped_for_plan(self, child: Child, plan: Plan) -> None:
        plan.to_stop.remove(child)
        child.stop_by = None
        child.state = State.RESTARTING  # again: it may have come up between the wish that it stop and its end
        if child.spec.restart is Restart.TEMPORARY:
            plan.to_start.remove(child)
            self.retire(child)
        self._pursue(child.group, plan)

    def proceed(self, command: Proceed) -> None:
        """Start the members of a plan, one after the other."""
        for child in self.children.values():
            if child.group.plan is command.plan:
                self._start_next(child.group, command.plan)
                return

    def _start_next(self, group: Group, plan: Plan) -> None:
        while plan.to_start:
            child = plan.to_start.pop(0)
            if child.state is State.RESTARTING and child.alive() is None:
                child.restarts += 1
                plan.starting = child
                self.launch(child)
                return
        group.plan = None

    def _resume_plan(self, child: Child) -> None:
        plan = child.group.plan
        if plan is not None and plan.starting is child:
            plan.starting = None
            self._start_next(child.group, plan)

    # Looking

    def request_look(self) -> None:
        """Have the supervisor look soon. One look at most waits, however far a manual clock is moved at once."""
        if not self._look_waits:
            self._look_waits = True
            self._post(Look())

    def look(self) -> None:
        """End the epoch of every child that hangs, would not stop, or vanished without a word.

        A child hangs if the same message is in hand beyond the deadline at two looks in a row: one look alone
        would blame everybody after the whole process was stopped for a while.
        """
        self._look_waits = False
        now = self._clock.monotonic_ms()
        for child in tuple(self.children.values()):
            incarnation = child.alive()
            if incarnation is None:
                continue
            if child.stop_by is not None:
                if now >= child.stop_by:
                    incarnation.end("stop", "not stopped in time", Fate.KEEP, outside=True, abandoned=True)
            elif not self.look_for_loss(incarnation):
                self._look_for_hang(child, incarnation, now)

    def look_for_loss(self, incarnation: Incarnation) -> bool:
        """End the epoch and return True if a thread of `incarnation` ended without a word."""
        lost = incarnation.lost_thread()
        if lost is None or not incarnation.end("vanish", f"thread {lost} vanished", Fate.BLAME, outside=True):
            return False
        logger.error("%s: thread %s vanished", incarnation, lost)
        return True

    def _look_for_hang(self, child: Child, incarnation: Incarnation, now: int) -> None:
        seat = incarnation.seat
        if child.state is not State.UP:
            phase, since, limit = "start", child.launched_at, child.spec.start_deadline_ms
        elif seat.source is not None:
            phase, since, limit = "hang", seat.taken_at, child.spec.handler_deadline_ms
        else:
            child.suspected = None
            return
        sign = (child.epoch, since)
        if now - since < limit:
            child.suspected = None
        elif child.suspected != sign:
            child.suspected = sign
        else:
            text = f"hung: {'starting' if phase == 'start' else 'in one handler'} for {now - since} ms"
            logger.error("%s %s", incarnation, text)
            incarnation.end(phase, text, Fate.BLAME, outside=True, abandoned=True)


def _is_released(child: Child) -> bool:
    return child.is_stood_in and not child.in_care


class Supervisor(Actor):
    """Hands its messages to the books. `beats` grows with each, for the guardian to see."""

    def __init__(self, context: Context, supervision: Supervision) -> None:
        super().__init__(context)
        self._supervision = supervision
        self.beats = 0

    def handle(self, message: object) -> None:
        self.beats += 1
        match message:
            case Down():
                self._supervision.down(message)
            case Up():
                self._supervision.up(message)
            case Launch():
                self._supervision.due(message)
            case Look():
                self._supervision.look()
            case Proceed():
                self._supervision.proceed(message)
            case Release():
                self._supervision.release(message)
            case _:
                raise TypeError(f"the supervisor knows no {type(message).__name__}")
