"""Decides where a name's messages go, and remembers who watches whom and what was refused."""

import threading
from typing import Any

import pykka

from .address import Address
from .errors import NotRunning
from .events import Terminated
from .lanes import CONTROL, LaneTable
from .mailbox import Mailbox
from .seat import Parcel, Seat
from .timers import Clock


class Directory:
    """Names and their mailboxes. A `tell` is one look-up here and one put there, whoever is dead."""

    def __init__(self, clock: Clock, lanes: LaneTable) -> None:
        self.clock = clock
        self.lanes = lanes
        self.boxes: dict[Address, Mailbox] = {}
        self._lock = threading.Lock()
        self._watchers: dict[Address, list[tuple[Mailbox, Seat]]] = {}
        self._unknown = 0
        self._refused_effects = 0

    def tell(self, to: Address, message: object) -> bool:
        """Leave `message` for `to`; False if it is refused. Raises MailboxFull."""
        mailbox = self.boxes.get(to)
        if mailbox is None:
            return self.miss()
        lane = self.lanes[message.__class__]
        taken = mailbox.offer(message, lane)
        return mailbox.put(message, lane) if taken is None else taken

    def ask(self, to: Address, message: object, timeout_s: float) -> Any:
        """Return what the handler returns for `message`.

        Raises what the handler raised, NotRunning if the name takes no messages, pykka.Timeout after `timeout_s`.
        """
        mailbox = self.boxes.get(to)
        reply: pykka.ThreadingFuture[Any] = pykka.ThreadingFuture()
        lane = self.lanes[message.__class__]
        if mailbox is None or not mailbox.put(Parcel(message, lane, reply), lane):
            raise NotRunning(str(to))
        return reply.get(timeout=timeout_s)

    def miss(self) -> bool:
        """Count a message to a name that nobody has; return False."""
        with self._lock:
            self._unknown += 1
        return False

    def refuse_effect(self) -> None:
        """Count something that an incarnation tried after its epoch."""
        with self._lock:
            self._refused_effects += 1

    @property
    def refused_effects(self) -> int:
        """How often an incarnation tried something after its epoch."""
        return self._refused_effects

    @property
    def undelivered(self) -> int:
        """How many messages were refused by their names."""
        return self._unknown + sum(box.refused for box in tuple(self.boxes.values()))

    def watch(self, watched: Address, mailbox: Mailbox, seat: Seat) -> None:
        """Have `mailbox` told of each end of an incarnation of `watched` while the epoch of `seat` lasts."""
        with self._lock:
            known = watched in self.boxes
            if known:
                watchers = [pair for pair in self._watchers.get(watched, ()) if not pair[1].over]
                self._watchers[watched] = [*watchers, (mailbox, seat)]
        if not known:
            mailbox.offer(Terminated(str(watched), 0, "unknown"), CONTROL)

    def announce(self, watched: Address, epoch: int, reason: str) -> None:
        """Tell those who watch `watched` that its incarnation `epoch` ended."""
        with self._lock:
            watchers = [pair for pair in self._watchers.get(watched, ()) if not pair[1].over]
            if watchers or watched in self._watchers:
                self._watchers[watched] = watchers
        for mailbox, _ in watchers:
            mailbox.offer(Terminated(str(watched), epoch, reason), CONTROL)
