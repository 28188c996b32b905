"""StreamActor: one websocket of some symbols' klines, kept open whatever becomes of it; its reader tells the feeds."""

import random
from collections.abc import Callable, Mapping, Sequence

import msgspec

from bot.actors import addresses
from bot.actors.cells import Cell, StreamMemory
from bot.actors.limits import ConnectionBudget
from bot.actors.line import Line
from bot.actors.notices import Notices
from bot.actors.order_meter import OrderMeter
from bot.domain.throttle import Throttle
from bot.messages import (
    Connect,
    ConnectionEnded,
    ConnectionEnding,
    ConnectionOpened,
    StreamDown,
    StreamUp,
    Subscribe,
    Suspect,
    Watch,
)
from bot.ports import KlineConnection, MarketStream, ShutdownAnnounced, StreamClosed
from bot.supervision import Actor, Context

CONNECTIONS = 8
"""So many symbols have a connection each, so that its failure touches one of them; more share as many connections."""

STREAMS_A_CONNECTION = 200
"""Of the 1,024 that the exchange allows: their names stand in the address, of which servers read 8 kB.

Source: Binance, WebSocket streams, connection rules.
"""

LIFE_MS = 85_800_000
"""A connection is replaced after 23 h 50 min, since the exchange ends it at 24 h. Source: as above."""

UPDATE_MS = 2_000
"""Between two updates of a kline that changes; those of `1s` come every 1,000 ms. Source: Binance, kline streams."""


def shards(symbols: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return which symbols share a connection; their numbers differ by one at most."""
    count = max(min(len(symbols), CONNECTIONS), -(-len(symbols) // STREAMS_A_CONNECTION))
    return tuple(tuple(symbols[number::count]) for number in range(count))


class StreamSettings(msgspec.Struct, frozen=True):
    """`number` names the stream. Times in ms; `max_silence_ms` and `life_ms` as StreamActor has them.

    An exchange that is away is asked every 10 s on average by each stream, half of `max_backoff_ms`: by eight of them
    240 times in five minutes, just what the budget has.
    """

    number: int
    symbols: tuple[str, ...]
    interval: str
    update_ms: int = UPDATE_MS
    slack_ms: int = 1_000
    max_silence_ms: int = 30_000
    life_ms: int = LIFE_MS
    min_backoff_ms: int = 250
    max_backoff_ms: int = 20_000
    overlap_ms: int = 10_000
    settle_ms: int = 1_000
    watch_ms: int = 250


class _Line(Line[KlineConnection]):
    """`first_ms` and `heard_ms` (first and last kline; monotonic) are written by its reader alone."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.first_ms: int | None = None
        self.heard_ms = 0
        self.due_ms = 0  # when it is to be replaced


class StreamActor(Actor):
    """Takes Subscribe and Suspect from feeds; gives them Kline, StreamUp, StreamDown.

    A feed without room misses klines and fetches them later; the others of its connection do not wait for it.

    A connection that ended is opened again after a random wait, the longer the more attempts failed. One that is about
    to end (its age, the exchange's notice) is replaced without a break: the new one delivers before the old one is
    closed, and feeds drop what comes twice.

    Silence is counted from the last kline, not from pings, and over the whole connection, since the exchange sends
    only what changed. Two updates and some slack without a kline are suspicious; then a second connection is opened
    beside the first, so that the suspicion costs nothing. If only the new one brings klines, the old one was dead. If
    both do, or neither, the market is quiet: the next suspicion takes twice as long, up to `max_silence_ms`. Quiet
    symbols thus cost at most one connection in that time: at 30 s, of eight streams, 80 of the exchange's 300 in five
    minutes. What is left out of one symbol among many, its feed finds by REST, and tells by Suspect.
    """

    def __init__(
        self,
        context: Context,
        settings: StreamSettings,
        memory: Cell[StreamMemory],
        market: MarketStream,
        budget: ConnectionBudget,
        rng: random.Random,
        meters: Mapping[str, OrderMeter],
    ) -> None:
        super().__init__(context)
        self._notices = Notices(context, Throttle(3, 60_000))
        self._settings = settings
        self._cell = memory
        self._market = market
        self._budget = budget
        self._rng = rng
        self._meters = meters
        self._feeds = {symbol: addresses.feed(symbol) for symbol in settings.symbols}
        self._next: _Line | None = None  # being opened
        self._current: _Line | None = None
        self._old: _Line | None = None  # replaced, and still open
        self._wish = ""  # why the current line is to be replaced, or was while the old one is open
        self._is_doubt = False  # the wish is a suspicion
        self._is_armed = False
        self._failures = 0
        self._first_patience_ms = min(settings.max_silence_ms, 2 * settings.update_ms + settings.slack_ms)
        self._patience_ms = self._first_patience_ms
        self._handlers: dict[type, Callable[..., None]] = {
            Subscribe: self._on_subscribe,
            Suspect: self._on_suspect,
            Connect: self._on_connect,
            ConnectionOpened: self._on_opened,
            ConnectionEnding: self._on_ending,
            ConnectionEnded: self._on_ended,
            Watch: self._on_watch,
        }

    def started(self) -> None:
        if self._cell.value.is_up:
            self._say_down(self._cell.value.connections, "the stream was restarted")
        self.context.on_epoch_end(self._close)
        self._on_connect(Connect())
        self.context.after(self._settings.watch_ms, Watch())

    def handle(self, message: object) -> None:
        self._handlers[type(message)](message)

    def stopped(self) -> None:
        self._close()

    # The reader

    def _read(self, line: _Line) -> None:
        """Read one connection to its end. Runs on a thread of its own and touches nothing but messages and its line."""
        context, feeds, meters, number = self.context, self._feeds, self._meters, line.number
        tell, monotonic_ms, own = context.tell, context.clock.monotonic_ms, context.address
        no_room = Notices(context, Throttle(1, 10_000))
        try:
            connection = self._market.connect(self._settings.symbols, self._settings.interval)
        except StreamClosed as error:
            tell(own, ConnectionEnded(number, str(error)))
            return
        try:
            if line.opened(connection, monotonic_ms()):
                line.heard_ms = line.opened_ms
                tell(own, ConnectionOpened(number))
            while context.is_current() and not line.is_given_up:
                try:
                    kline = connection.receive()
                except ShutdownAnnounced as notice:
                    tell(own, ConnectionEnding(number, str(notice)))
                    continue
                if kline is None:
                    continue
                line.heard_ms = now = monotonic_ms()
                if line.first_ms is None:
                    line.first_ms = now
                meter = meters.get(kline.symbol)
                if meter is not None:
                    meter.came(kline, connection.received_ns)
                feed = feeds.get(kline.symbol)
                if feed is None:
                    no_room.complain(f"a kline of {kline.symbol} came, which nobody asked for")
                elif not tell(feed, kline):
                    no_room.complain(f"{feed} has no room: what it misses is fetched later")
        except StreamClosed as error:
            if context.is_current() and not line.is_given_up:
                tell(own, ConnectionEnded(number, str(error)))
        finally:
            connection.close()

    # Opening

    def _on_connect(self, _: Connect) -> None:
        self._is_armed = False
        is_wanted = self._current is None or (self._wish != "" and self._old is None)
        if self._next is not None or not is_wanted:
            return
        wait_ms = self._budget.claim()
        if wait_ms:
            self._notices.complain(f"as many connections as may be in five minutes: {wait_ms // 1000} s pause")
            self._arm(wait_ms)
            return
        line = self._next = _Line(self._cell.value.connections + 1)
        self._remember(connections=line.number)
        self.context.spawn_thread(f"reader-{line.number}", lambda: self._read(line))

    def _on_opened(self, opened: ConnectionOpened) -> None:
        line = self._next
        if line is None or opened.connection != line.number:
            return
        self._next = None
        life_ms = self._settings.life_ms
        line.due_ms = line.opened_ms + life_ms - self._rng.randrange(life_ms // 50 + 1)
        self._old, self._current = self._current, line
        if self._old is not None:
            self._notices.tell("info", f"connection {line.number} replaces {self._old.number}: {self._wish}")
        if self._old is None or self._is_doubt:
            self._say_up(line.number)
        if self._old is None:
            self._forget_wish()

    def _on_ended(self, ended: ConnectionEnded) -> None:
        number = ended.connection
        if self._old is not None and number == self._old.number:
            self._drop_old()
        elif self._next is not None and number == self._next.number:
            self._next = None
            self._failures += 1
            if self._current is None:
                self._notices.complain(ended.reason)
            elif self._is_doubt:
                # Silent, and no other is to be had: no line is a good one.
                self._lose_current(f"{self._wish}; {ended.reason}")
            self._arm_backoff()
        elif self._current is not None and number == self._current.number:
            self._failures = 0 if self._current.first_ms is not None else self._failures + 1
            if self._old is not None:
                self._current.give_up()
                self._current, self._old = self._old, None
            else:
                self._lose_current(ended.reason)
            self._arm_backoff()

    def _lose_current(self, reason: str) -> None:
        assert self._current is not None
        number = self._current.number
        self._current.give_up()
        self._current = None
        self._forget_wish()
        self._say_down(number, reason)

    def _arm_backoff(self) -> None:
        """Connect after a wait of full jitter: any up to a bound that doubles with each failure in a row."""
        settings = self._settings
        bound = min(settings.max_backoff_ms, settings.min_backoff_ms << min(self._failures, 20))
        self._arm(self._rng.randrange(bound + 1))

    def _arm(self, delay_ms: int) -> None:
        if not self._is_armed:
            self._is_armed = True
            self.context.after(delay_ms, Connect())

    # Replacing

    def _on_ending(self, ending: ConnectionEnding) -> None:
        if self._current is not None and ending.connection == self._current.number:
            self._replace(ending.reason)

    def _on_suspect(self, suspect: Suspect) -> None:
        current = self._current
        if current is not None and self._now() - current.opened_ms >= self._first_patience_ms:
            self._replace(f"REST knows of trades of {suspect.symbol}, of which nothing came")

    def _replace(self, reason: str, is_doubt: bool = False) -> None:
        """Open another line beside the current one, at most one a second."""
        if self._old is not None:
            self._drop_old()
        if self._current is None or self._wish:
            return
        self._wish, self._is_doubt = reason, is_doubt
        self._arm(max(0, self._current.opened_ms + 1_000 - self._now()))

    def _on_watch(self, _: Watch) -> None:
        self.context.after(self._settings.watch_ms, Watch())
        line, now = self._current, self._now()
        if line is None:
            return
        if self._old is not None:
            self._judge(line, self._old, now)
        elif not self._wish and now >= line.due_ms:
            self._replace("the exchange ends a connection at 24 h")
        elif not self._wish and now - line.heard_ms > self._patience_ms:
            self._replace(f"no kline for {(now - line.heard_ms) / 1000:.1f} s", is_doubt=True)

    def _judge(self, new: _Line, old: _Line, now: int) -> None:
        """Close the old line once the new one delivers, or once it had long enough for that."""
        delivers = new.first_ms is not None and now - new.first_ms >= self._settings.settle_ms
        if not delivers and now - new.opened_ms < self._settings.overlap_ms:
            return
        if self._is_doubt:
            was_dead = delivers and old.heard_ms < new.opened_ms
            longer = min(self._settings.max_silence_ms, 2 * self._patience_ms)
            self._patience_ms = self._first_patience_ms if was_dead else longer
        self._drop_old()

    def _drop_old(self) -> None:
        assert self._old is not None
        self._old.give_up()
        self._old = None
        self._forget_wish()

    def _forget_wish(self) -> None:
        self._wish, self._is_doubt = "", False

    def _close(self) -> None:
        for line in (self._next, self._current, self._old):
            if line is not None:
                line.give_up()

    # What others are told

    def _on_subscribe(self, subscribe: Subscribe) -> None:
        if self._current is not None:
            self.context.tell(self._feeds[subscribe.symbol], self._up(self._current.number))

    def _up(self, number: int) -> StreamUp:
        return StreamUp(str(self.context.address), number, self._settings.symbols, self.context.clock.now_ms())

    def _say_up(self, number: int) -> None:
        self._remember(is_up=True)
        self._tell_all(self._up(number))

    def _say_down(self, number: int, reason: str) -> None:
        self._remember(is_up=False)
        stream, now = str(self.context.address), self.context.clock.now_ms()
        self._tell_all(StreamDown(stream, number, self._settings.symbols, reason, now))

    def _tell_all(self, message: StreamUp | StreamDown) -> None:
        for feed in self._feeds.values():
            self.context.tell(feed, message)
        self.context.tell(addresses.MONITOR, message)

    def _remember(self, **changes: object) -> None:
        value = msgspec.structs.replace(self._cell.value, **changes)
        self.context.run_fenced(lambda: setattr(self._cell, "value", value))

    def _now(self) -> int:
        return self.context.clock.monotonic_ms()
