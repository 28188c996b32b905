"""Decides what an incarnation takes next from what its mailbox gave it, without a lock on the way."""

import enum
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pykka
from pykka import messages as pykka_messages

from .lanes import MUST, STREAM, Lane

if TYPE_CHECKING:
    from .mailbox import Mailbox


class Order(enum.Enum):
    """What a seat tells its actor instead of a message."""

    STOP = "stop"
    LEAVE = "leave"
    RAISE = "raise"
    EXIT = "exit"
    HANG = "hang"
    VANISH = "vanish"


class Parcel:
    """A message with something attached: an asker, its count of attempts, or that it ends with its epoch."""

    __slots__ = ("attempts", "lane", "message", "reply", "timed")

    def __init__(
        self,
        message: object,
        lane: Lane,
        reply: "pykka.Future[Any] | None" = None,
        attempts: int = 0,
        timed: bool = False,
    ) -> None:
        self.message = message
        self.lane = lane
        self.reply = reply
        self.attempts = attempts
        self.timed = timed


class Seat:
    """Where one incarnation reads; pykka takes it for the actor's inbox and for the envelope in hand as well."""

    __slots__ = (
        "asleep",
        "batch",
        "done_at",
        "doom",
        "doomed",
        "epoch",
        "item",
        "lanes",
        "mailbox",
        "message",
        "monotonic_ms",
        "must_out",
        "over",
        "reply",
        "reply_to",
        "source",
        "stream_out",
        "taken_at",
        "urgent",
        "wake",
    )

    def __init__(self, mailbox: "Mailbox", epoch: int, monotonic_ms: Callable[[], int]) -> None:
        self.mailbox = mailbox
        self.lanes = mailbox.lanes
        self.epoch = epoch
        self.monotonic_ms = monotonic_ms
        self.over = False
        self.urgent: deque[object] = deque()
        self.batch: deque[object] = deque()
        self.source: deque[object] | None = None  # the head of this one is in hand
        self.item: object = None
        self.must_out = 0
        self.stream_out = 0
        self.asleep = False
        self.wake = threading.Lock()
        self.wake.acquire()
        self.taken_at = 0
        self.done_at: int | None = None
        self.doom: Order | None = None
        self.doomed = False
        self.message: object = None
        self.reply: pykka.Future[Any] | None = None
        self.reply_to: pykka.Future[Any] | None = None  # for pykka, always None: askers are answered by the actor

    def get(self) -> "Seat":
        """Wait for the next message and return this seat with it; the previous one counts as done."""
        source = self.source
        if source:
            source.popleft()
        mailbox = self.mailbox
        while not self.over:
            if mailbox.control:
                mailbox.fetch_control(self)
            if self.urgent:
                source = self.urgent
            elif self.batch:
                source = self.batch
            else:
                self.source = None
                mailbox.refill(self)
                continue
            item = source[0]
            self.item = item
            self.taken_at = self.monotonic_ms()
            self.source = source
            if item.__class__ is Parcel:
                lane = item.lane
                self.message = item.message
                self.reply = item.reply
            else:
                lane = self.lanes[item.__class__]
                self.message = item
            if lane is MUST:
                self.must_out += 1
                if mailbox.blocked:
                    mailbox.make_room()
            elif lane is STREAM:
                self.stream_out += 1
            if self.doom is not None:
                self.message = self.doom
                self.doomed = True
            return self
        self.source = None
        self.message = Order.LEAVE
        return self

    def put(self, envelope: Any) -> None:
        """Take what came through pykka's own `ActorRef`: tell, ask or stop.

        Raises TypeError for a proxy's call, which would bypass supervision, and MailboxFull if the lane is full.
        """
        message = envelope.message
        if isinstance(message, pykka_messages.ProxyCall | pykka_messages.ProxyGetAttr | pykka_messages.ProxySetAttr):
            raise TypeError("supervised actors take messages only, no proxy calls")
        lane = self.lanes[message.__class__]
        if self.over or not self.mailbox.put(Parcel(message, lane, envelope.reply_to), lane):
            raise pykka.ActorDeadError("the actor's name takes no messages")

    def empty(self) -> bool:
        """Return True: pykka asks only before it ends, to drop what waits, and that belongs to the name."""
        return True
