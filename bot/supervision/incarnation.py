"""Decides what belongs to one life of an actor: its epoch, its seat, its threads, and how that life ends."""

import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import pykka

from .address import Address
from .directory import Directory
from .errors import ActorCrashed, Fenced, describe
from .mailbox import Fate, Mailbox
from .seat import Parcel
from .timers import Clock, Timer

if TYPE_CHECKING:
    from .actor import Actor

T = TypeVar("T")
STATES = ("recovering", "running")

logger = logging.getLogger("supervision")


@dataclass(frozen=True, slots=True)
class Up:
    """Report: `started` returned."""

    address: Address
    epoch: int


@dataclass(frozen=True, slots=True)
class Down:
    """Report: an epoch ended; in order if `error` is None."""

    address: Address
    epoch: int
    phase: str
    message_type: str
    error: str | None
    time: int
    chaos: bool
    abandoned: bool
    poison: Any  # the Parcel given up, or None


class OwnedThread:
    """A thread that an actor owns; `finished` tells an end with a word from one without."""

    def __init__(self, thread: threading.Thread) -> None:
        self.thread = thread
        self.finished = False


class Incarnation:
    """The Context of a live actor, and the supervisor's handle on it."""

    def __init__(
        self,
        address: Address,
        epoch: int,
        mailbox: Mailbox,
        directory: Directory,
        report: Callable[[Up | Down], object],
        poison_attempts: int,
    ) -> None:
        self.address = address
        self.epoch = epoch
        self.clock: Clock = directory.clock
        self.mailbox = mailbox
        self.seat = mailbox.sit(epoch, directory.clock.monotonic_ms)
        self.state = "running"
        self.thread: threading.Thread | None = None
        self.owned: tuple[OwnedThread, ...] = ()
        self.ended = threading.Event()
        self.down: Down | None = None
        self._directory = directory
        self._boxes = directory.boxes
        self._lanes = directory.lanes
        self._report = report
        self._poison_attempts = poison_attempts
        self._actor: Actor | None = None
        self._effects = mailbox.effects
        self._closed = threading.Event()
        self._endings: list[Callable[[], None]] | None = []
        self._endings_lock = threading.Lock()

    # Context

    def tell(self, to: Address, message: object) -> bool:
        mailbox = self._boxes.get(to)
        if mailbox is None:
            self.check_fence()
            return self._directory.miss()
        lane = self._lanes[message.__class__]
        seat = self.seat
        with self._effects:
            if not seat.over:
                taken = mailbox.offer(message, lane)
                if taken is not None:
                    return taken
        deadline = mailbox.patience()
        while True:
            self.check_fence()
            # Not under the lock: an epoch can end while its actor waits here.
            mailbox.wait_for_room(deadline)
            with self._effects:
                if not seat.over:
                    taken = mailbox.offer(message, lane)
                    if taken is not None:
                        return taken

    def after(self, delay_ms: int, message: object) -> Timer:
        seat, mailbox = self.seat, self.mailbox
        self.check_fence()

        def ring() -> None:
            mailbox.offer_to(seat, message)

        return self.clock.call_later(delay_ms, ring)

    def is_current(self) -> bool:
        return not self.seat.over

    def check_fence(self) -> None:
        if self.seat.over:
            self._directory.refuse_effect()
            raise Fenced(f"epoch {self.epoch} of {self.address} is over")

    def run_fenced(self, effect: Callable[[], T]) -> T:
        with self._effects:
            self.check_fence()
            return effect()

    def spawn_thread(self, name: str, target: Callable[[], None]) -> threading.Thread:
        self.check_fence()
        thread = threading.Thread(target=lambda: self._run_owned(owned, target), name=f"{self.address}:{name}")
        thread.daemon = True
        owned = OwnedThread(thread)
        thread.start()
        with self._endings_lock:
            # Those that ended well are forgotten: an actor may start one thread a reconnect, for ever.
            self.owned = (*(one for one in self.owned if not one.finished), owned)
        return thread

    def _run_owned(self, owned: OwnedThread, target: Callable[[], None]) -> None:
        try:
            target()
        except BaseException as error:
            if self.end("thread", error, Fate.KEEP):
                logger.error("%s died in its thread %s", self, owned.thread.name, exc_info=error)
        owned.finished = True

    def watch(self, address: Address) -> None:
        self.check_fence()
        self._directory.watch(address, self.mailbox, self.seat)

    def on_epoch_end(self, action: Callable[[], None]) -> None:
        with self._endings_lock:
            if self._endings is not None:
                self._endings.append(action)
                return
        action()

    def set_state(self, state: str) -> None:
        if state not in STATES:
            raise ValueError(f"{state!r} is none of {STATES}")
        self.state = state

    # Life and death

    def __str__(self) -> str:
        return f"{self.address} (epoch {self.epoch})"

    def begin(self, factory: Callable[[Any], "Actor"], previous: "Incarnation | None") -> None:
        """Make the actor and launch it; runs on a thread of its own, since a factory may hang or raise."""
        if previous is not None:
            previous.await_end()
        if not self.is_current():
            return
        try:
            actor = factory(self)
            if actor.context is not self:
                raise TypeError("the factory returned an actor with another context")
            self._actor = actor
            if self.is_current():
                actor.launch()
        except BaseException as error:
            if self.end("start", error, Fate.KEEP):
                logger.error("%s was not made", self, exc_info=error)

    def lost_thread(self) -> str | None:
        """Return the name of a thread of this incarnation that ended without a word, if there is one."""
        if self.thread is not None and not self.thread.is_alive():
            return self.thread.name
        lost = (owned.thread.name for owned in self.owned if not owned.finished and not owned.thread.is_alive())
        return next(lost, None)

    def await_end(self) -> None:
        """Return when the epoch, which is over, has nothing going on any more.

        Its `on_epoch_end` actions get a second for it. An effect that runs is waited for, since nobody could say
        otherwise whether it will still happen.
        """
        self._closed.wait(1.0)
        with self._effects:
            pass

    def up(self) -> None:
        """Report that the actor has started."""
        self._report(Up(self.address, self.epoch))

    def end(
        self, phase: str, error: BaseException | str | None, fate: Fate, outside: bool = False, abandoned: bool = False
    ) -> bool:
        """End this epoch, once; False if it was over.

        No effect of it begins any more; for one that runs right now, and for the `on_epoch_end` actions, the next
        epoch waits. `error` None is an orderly end. `outside` says that the caller must not be held up by those
        actions.
        """
        chaos = self.seat.doomed
        left = self.mailbox.vacate(self.seat, Fate.KEEP if chaos else fate, self._poison_attempts)
        if left is None:
            return False
        if self._actor is not None:
            self._actor.leave()
        if left.asked is not None:
            answer_error(left.asked, error if isinstance(error, Exception) else ActorCrashed(f"{self}: {error!r}"))
        self.down = Down(
            address=self.address,
            epoch=self.epoch,
            phase=phase,
            message_type=left.message_type,
            error=None if error is None else describe(error),
            time=self.clock.now_ms(),
            chaos=chaos,
            abandoned=abandoned,
            poison=left.poison,
        )
        self.ended.set()
        self._report(self.down)
        if outside:
            threading.Thread(target=self._close, name=f"end of {self.address}", daemon=True).start()
        else:
            self._close()
        return True

    def _close(self) -> None:
        with self._endings_lock:
            actions, self._endings = self._endings or [], None
        for action in actions:
            try:
                action()
            except BaseException:
                logger.exception("an action at the end of an epoch failed: %s", self)
        self._closed.set()

    def answer(self, result: object) -> None:
        """Answer who asked the message in hand, if anybody."""
        reply, self.seat.reply = self.seat.reply, None
        if reply is not None:
            with contextlib.suppress(queue.Full):  # answered already, when the epoch ended
                reply.set(result)


def answer_error(reply: "pykka.Future[Any]", error: Exception) -> None:
    """Let the asker of `reply` have `error`, unless it was answered already."""
    with contextlib.suppress(queue.Full):
        reply.set_exception((type(error), error, error.__traceback__))


def drop(parcel: Parcel, reason: Exception) -> None:
    """Answer the asker of a message that nobody will handle, if it has one."""
    if parcel.reply is not None:
        answer_error(parcel.reply, reason)
