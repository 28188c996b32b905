"""PublisherActor: puts what is stored on the broker's topics, at the broker's pace; nobody ever waits for it."""

from collections import deque
from collections.abc import Callable

import msgspec

from bot.actors.cells import Cell, PublisherMemory
from bot.actors.notices import Notices
from bot.domain.throttle import Throttle
from bot.messages import LogEntry, Publish, Watch
from bot.ports import Link, LinkState, Outbox, Publisher, StoreError
from bot.supervision import Actor, Context


class PublisherSettings(msgspec.Struct, frozen=True):
    """`window` entries at most are with the broker, unacknowledged. Times in ms.

    `patience_ms`: how long a broker may be away before it is told.
    """

    batch: int = 1_000
    window: int = 10_000
    poll_ms: int = 50
    watch_ms: int = 1_000
    patience_ms: int = 2_000
    stop_ms: int = 2_000


class _Flying(msgspec.Struct, frozen=True):
    """An entry that is with the broker: its offset there, its place in the outbox."""

    offset: int
    place: int
    entry: LogEntry


class PublisherActor(Actor):
    """Takes Publish; gives Notices of a broker that goes away, comes back, or of klines that had to go.

    It reads the outbox in order and forgets of it what the broker acknowledged, no more. So an entry may be published
    again by another incarnation or process, behind or between those of the first; the first time that each is seen,
    all are in order. What the broker has in the order in which it is to be read is the publisher's business.
    """

    def __init__(
        self,
        context: Context,
        settings: PublisherSettings,
        memory: Cell[PublisherMemory],
        outbox: Outbox,
        connect: Callable[[], Publisher],
        hold: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`connect` makes a new publisher that has taken nothing; it must not wait for the broker.

        `hold` says why nothing may be published, "" while that is not known yet, None if it may.
        """
        super().__init__(context)
        self._notices = Notices(context, Throttle(1, 60_000), "error")
        self._settings = settings
        self._cell = memory
        self._outbox = outbox
        self._publisher = connect()
        self._hold = hold
        self._offset = self._publisher.taken
        self._flying: deque[_Flying] = deque()
        self._read = 0
        self._is_armed = False
        self._dropped: int | None = None  # as last told
        self._told_down = False
        self._waited = 0
        self._back_ms: int | None = None
        self._handlers: dict[type, Callable[..., None]] = {Publish: self._on_publish, Watch: self._on_watch}

    def started(self) -> None:
        # Whoever hung or crashed must not keep a connection.
        self.context.on_epoch_end(lambda: self._publisher.close(0))
        self._on_publish(Publish())
        self._on_watch(Watch())

    def handle(self, message: object) -> None:
        self._handlers[type(message)](message)

    def stopped(self) -> None:
        self._work()
        is_up = self._publisher.state().link is Link.UP
        self._publisher.close(self._settings.stop_ms / 1000 if is_up else 0)
        self._release()

    def _on_publish(self, publish: Publish) -> None:
        if publish.is_timer:
            self._is_armed = False
        try:
            self._work()
        except StoreError as error:
            self._notices.complain(f"what is to be published cannot be read: {error}")
        if not self._is_armed and (self._flying or self._read < self._outbox.newest):
            self._is_armed = True
            self.context.after(self._settings.poll_ms, Publish(is_timer=True))

    def _work(self) -> None:
        self._publisher.poll()
        self._release()
        self._resend()
        self._send()

    def _release(self) -> None:
        """Let the outbox forget what the broker has."""
        delivered, flying, place, count = self._publisher.delivered, self._flying, 0, 0
        while flying and flying[0].offset <= delivered:
            place = flying.popleft().place
            count += 1
        if count:
            self._outbox.delivered(place)
            self._remember(published=self._cell.value.published + count)

    def _resend(self) -> None:
        """Give the publisher again what it gave back."""
        taken = self._publisher.taken
        if taken < self._offset:
            again = [one.entry for one in self._flying if one.offset > taken]
            self._publisher.publish(self._offset, again)

    def _send(self) -> None:
        settings = self._settings
        if self._hold() is not None:
            return
        while (
            self._read < self._outbox.newest
            and len(self._flying) < settings.window
            and self._publisher.taken == self._offset
        ):
            newest = self._outbox.newest
            rows = self._outbox.read(self._read, settings.batch)
            if not rows:
                self._read = newest
                return
            for place, entry in rows:
                self._offset += 1
                self._flying.append(_Flying(self._offset, place, entry))
            self._read = rows[-1][0]
            self._publisher.publish(self._offset, [entry for _, entry in rows])

    # The broker

    def _on_watch(self, _: Watch) -> None:
        self.context.after(self._settings.watch_ms, Watch())
        self._publisher.poll()
        state, memory, now = self._publisher.state(), self._cell.value, self.context.clock.now_ms()
        held = self._hold()
        if held:
            state = LinkState(Link.REFUSED, held)
        is_up = state.link is Link.UP
        if (state.link.value, state.reason) != (memory.link, memory.reason):
            self._remember(link=state.link.value, reason=state.reason)
        if not is_up and memory.down_ms is None:
            self._remember(down_ms=now)
        elif not is_up and not self._told_down and now - (memory.down_ms or now) >= self._settings.patience_ms:
            self._told_down = True
            self._notices.tell(
                "error", f"nothing is published, it waits on disk: {state.reason or 'no broker answers'}"
            )
        try:
            if is_up and memory.down_ms is not None:
                self._on_back(now, memory.down_ms)
            self._waited = self._outbox.state().depth
            self._see_caught_up(now)
            self._see_dropped()
        except StoreError as error:
            self._notices.complain(f"what is to be published cannot be read: {error}")

    def _on_back(self, now: int, down_ms: int) -> None:
        if self._told_down:
            text = f"the broker is back after {(now - down_ms) / 1000:.0f} s: {self._waited} entries waited"
            self._notices.tell("info", text)
            outages = self._cell.value.outages + 1
            self._remember(outages=outages, outage_ms=now - down_ms, waited=self._waited, caught_up_ms=None)
            self._back_ms = now
        self._told_down = False
        self._remember(down_ms=None)

    def _see_caught_up(self, now: int) -> None:
        if self._back_ms is not None and not self._flying and self._read >= self._outbox.newest:
            self._remember(caught_up_ms=now - self._back_ms)
            self._back_ms = None
            self._notices.tell("info", "all that waited for the broker is published")

    def _see_dropped(self) -> None:
        state = self._outbox.state()
        told = self._dropped if self._dropped is not None else state.dropped
        if state.dropped == told or self._notices.complain(
            f"the outbox is full ({state.bytes // 1_000_000} MB): the {state.dropped - told} oldest open klines in it "
            "will not be published, closed ones and trades will; mend the broker, or raise kafka.outbox_bytes"
        ):
            self._dropped = state.dropped

    def _remember(self, **changes: object) -> None:
        value = msgspec.structs.replace(self._cell.value, **changes)
        self.context.run_fenced(lambda: setattr(self._cell, "value", value))
