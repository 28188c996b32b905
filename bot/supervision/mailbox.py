"""Decides which message an actor gets next: lanes, bounds, and one reader at a time, the holder of the epoch.

The mailbox belongs to the name and outlives incarnations; each incarnation reads from a seat of its own. A writer
takes the mailbox's lock once a message. The reader moves all that waits to its seat under one lock and then works
it off without any, looking at the head and removing it only when it is done: what an incarnation leaves, in hand or
not yet begun, is therefore still there for the next one, in order.
"""

import enum
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import pykka

from .errors import MailboxFull
from .lanes import CONTROL, MUST, STREAM, Lane, LaneTable
from .seat import Order, Parcel, Seat
from .settle import Gauge
from .spec import LaneBounds


class Fate(enum.Enum):
    """What becomes of the message in hand when an epoch ends: tried again, tried again and counted, done."""

    KEEP = "keep"
    BLAME = "blame"
    DONE = "done"


class Vacated:
    """What an ended epoch left in hand: the message's type, the asker to be answered, the message given up."""

    __slots__ = ("asked", "message_type", "poison")

    def __init__(self) -> None:
        self.message_type = ""
        self.asked: pykka.Future[Any] | None = None
        self.poison: Parcel | None = None


class Mailbox:
    """Messages waiting for a name, whichever incarnation reads them next."""

    def __init__(self, lanes: LaneTable, bounds: LaneBounds, gauge: Gauge | None) -> None:
        self.lanes = lanes
        self.control: deque[object] = deque()
        self.blocked = 0  # senders that wait for room
        self.refused = 0
        # Held while an effect of the name runs, whichever epoch it belongs to. Re-entrant, since an effect may tell.
        self.effects = threading.RLock()
        self._bounds = bounds
        self._gauge = gauge
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._queue: deque[object] = deque()
        self._must_in = 0  # waiting in the lane = came in - taken by the seat
        self._stream_in = 0
        self._accepting = True
        self._closed = False
        self._quiet = True  # nothing waits, nothing is in hand
        self._nobody = Seat(self, 0, time.monotonic_ns)
        self._seat = self._nobody

    # Writers

    def offer(self, message: object, lane: Lane) -> bool | None:
        """Take `message` without waiting: True taken, False refused, None if it is MUST and that lane is full."""
        with self._lock:
            if not self._accepting:
                self.refused += 1
                return False
            if lane is MUST:
                if self._must_in - self._seat.must_out >= self._bounds.must:
                    return None
                self._must_in += 1
                self._queue.append(message)
            elif lane is STREAM:
                if self._stream_in - self._seat.stream_out >= self._bounds.stream:
                    self.refused += 1
                    return False
                self._stream_in += 1
                self._queue.append(message)
            else:
                self.control.append(message)
            if self._quiet:
                self._stir()
            return True

    def put(self, message: object, lane: Lane) -> bool:
        """Take `message`, waiting for room in a full must lane; False if it is refused. Raises MailboxFull."""
        taken = self.offer(message, lane)
        if taken is None:
            deadline = self.patience()
            while taken is None:
                self.wait_for_room(deadline)
                taken = self.offer(message, lane)
        return taken

    def patience(self) -> float:
        """Return until when, on `time.monotonic`, a sender that comes now waits for room."""
        return time.monotonic() + self._bounds.put_timeout_ms / 1000

    def wait_for_room(self, deadline: float) -> None:
        """Wait until the must lane has room or takes nothing more. Raises MailboxFull at `deadline`."""
        with self._lock:
            # Counted before the lane is looked at again: the reader, which takes without a lock, looks at the count
            # after it took, so one of the two sees the other.
            self.blocked += 1
            try:
                while self._accepting and self._must_in - self._seat.must_out >= self._bounds.must:
                    wait_s = deadline - time.monotonic()
                    if wait_s <= 0:
                        raise MailboxFull(f"{self._bounds.must} messages wait in the must lane")
                    self._room.wait(wait_s)
            finally:
                self.blocked -= 1

    def offer_to(self, seat: Seat, message: object) -> bool:
        """Put `message` into the control lane if `seat` is still the one that reads; it ends with that epoch."""
        with self._lock:
            if self._seat is not seat:
                return False
            self.control.append(Parcel(message, CONTROL, timed=True))
            if self._quiet:
                self._stir()
            return True

    def request_stop(self, seat: Seat, drain: bool) -> None:
        """Have the reader stop: after what waits now if `drain`, else after the message in hand."""
        with self._lock:
            if self._seat is not seat:
                return
            (self._queue if drain else self.control).append(Parcel(Order.STOP, CONTROL, timed=True))
            if self._quiet:
                self._stir()

    def _stir(self) -> None:
        self._quiet = False
        if self._gauge is not None:
            self._gauge.rise()
        seat = self._seat
        if seat.asleep:
            seat.asleep = False
            seat.wake.release()

    # The reader

    def fetch_control(self, seat: Seat) -> None:
        """Move the control lane to `seat`, behind what it has of it."""
        with self._lock:
            if self._seat is seat:
                seat.urgent.extend(self.control)
                self.control.clear()

    def refill(self, seat: Seat) -> None:
        """Move all that waits to `seat`, which has nothing left, or sleep until something may have come."""
        with self._lock:
            if self._seat is not seat:
                return
            if self.control or self._queue:
                seat.urgent, self.control = self.control, seat.urgent
                seat.batch, self._queue = self._queue, seat.batch
                return
            if not self._quiet:
                self._quiet = True
                if self._gauge is not None:
                    self._gauge.fall()
            seat.asleep = True
        seat.done_at = seat.monotonic_ms()
        seat.wake.acquire()

    def make_room(self) -> None:
        """Wake the senders that wait for the must lane."""
        with self._lock:
            self._room.notify_all()

    # Those who end and begin epochs

    def sit(self, epoch: int, monotonic_ms: Callable[[], int]) -> Seat:
        """Return the seat of a new epoch. Raises RuntimeError while another one lasts or after `close`."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the mailbox is closed")
            if self._seat is not self._nobody:
                raise RuntimeError(f"epoch {self._seat.epoch} is not over")
            self._seat = Seat(self, epoch, monotonic_ms)
            return self._seat

    def doom(self, seat: Seat, order: Order) -> bool:
        """Have the next message that `seat` takes end so; False if the epoch is over or a doom is pending."""
        with self._lock:
            if self._seat is not seat or seat.doom is not None:
                return False
            seat.doom = order
            return True

    def vacate(self, seat: Seat, fate: Fate, attempts: int) -> Vacated | None:
        """End the epoch of `seat` and take back what it had; None if it was over already.

        The message in hand goes first to the next epoch, at most until it was blamed `attempts` times. One that
        was asked is answered instead of blamed, and one that was timed ends with its epoch.
        """
        with self._lock:
            if self._seat is not seat:
                return None
            seat.over = True
            self._seat = self._nobody
            left = Vacated()
            # The reader may go on meanwhile, so the copies are looked at, not the seat: a message that it finishes
            # just now is either gone or tried again, never lost.
            source = seat.source
            urgent, batch = seat.urgent.copy(), seat.batch.copy()
            mine = urgent if source is seat.urgent else batch if source is seat.batch else None
            suspect: Parcel | None = None
            if mine and mine[0] is seat.item:
                suspect = self._judge(mine.popleft(), fate, attempts, left)
            urgent.extend(self.control)
            batch.extend(self._queue)
            self.control = deque(item for item in urgent if not _ends_with_epoch(item))
            self._queue = deque(item for item in batch if not _ends_with_epoch(item))
            if suspect is not None:
                self.control.appendleft(suspect)
            waiting = [self._lane_of(item) for items in (self.control, self._queue) for item in items]
            self._must_in = waiting.count(MUST)
            self._stream_in = waiting.count(STREAM)
            if seat.asleep:
                seat.asleep = False
                seat.wake.release()
            if not waiting and not self._quiet:
                self._quiet = True
                if self._gauge is not None:
                    self._gauge.fall()
            return left

    def _judge(self, item: object, fate: Fate, attempts: int, left: Vacated) -> Parcel | None:
        parcel = item if isinstance(item, Parcel) else Parcel(item, self.lanes[item.__class__])
        left.message_type = type(parcel.message).__name__
        if fate is Fate.DONE or parcel.timed:
            return None
        if fate is Fate.KEEP:
            return parcel
        if parcel.reply is not None:
            left.asked = parcel.reply
            return None
        blamed = Parcel(parcel.message, parcel.lane, attempts=parcel.attempts + 1)
        if blamed.attempts < attempts:
            return blamed
        left.poison = blamed
        return None

    def _lane_of(self, item: object) -> Lane:
        return item.lane if isinstance(item, Parcel) else self.lanes[item.__class__]

    def park(self) -> None:
        """Refuse messages but keep those that wait, which no longer count as unsettled."""
        with self._lock:
            if self._accepting and not self._quiet and self._gauge is not None:
                self._gauge.fall()
            self._accepting = False
            self._room.notify_all()

    def unpark(self) -> None:
        """Take messages again."""
        with self._lock:
            if not self._accepting and not self._quiet and self._gauge is not None:
                self._gauge.rise()
            self._accepting = True

    def close(self) -> list[Parcel]:
        """Refuse messages for ever and return those that waited. No epoch may last."""
        with self._lock:
            if self._accepting and not self._quiet and self._gauge is not None:
                self._gauge.fall()
            self._accepting = False
            self._closed = True
            self._quiet = True
            items = [*self.control, *self._queue]
            self.control.clear()
            self._queue.clear()
            self._must_in = self._stream_in = 0
            self._room.notify_all()
        return [item if isinstance(item, Parcel) else Parcel(item, self._lane_of(item)) for item in items]

    def waiting(self) -> tuple[int, int, int]:
        """Return how many messages wait in the control, must and stream lane; one in hand is not counted."""
        with self._lock:
            seat = self._seat
            urgent = seat.urgent.copy()
            if urgent and seat.source is seat.urgent:
                urgent.popleft()
            control = len(urgent) + len(self.control)
            for items in (urgent, self.control):
                if items and self._lane_of(items[0]) is not CONTROL:
                    control -= 1  # a suspect goes first from there, but counts in its own lane
            return control, self._must_in - seat.must_out, self._stream_in - seat.stream_out


def _ends_with_epoch(item: object) -> bool:
    return item.__class__ is Parcel and item.timed
