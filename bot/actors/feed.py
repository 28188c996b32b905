"""FeedActor: one symbol's klines, each exactly once and in order, from a live stream and from REST where it broke."""

import threading
from collections.abc import Callable

import msgspec

from bot.actors import addresses
from bot.actors.cells import Cell, FeedMemory
from bot.domain.kline import Kline, implausible, is_newer
from bot.messages import Backfilled, Connect, Notice, StreamDown, StreamUp, Watch
from bot.ports import ExchangeError, KlineConnection, MarketHistory, MarketStream, StreamClosed
from bot.supervision import Actor, Context


class FeedSettings(msgspec.Struct, frozen=True):
    """`silence_ms`: how long a stream may bring no kline before it counts as dead; reconnects back off in bounds."""

    symbol: str
    interval: str
    silence_ms: int = 30_000
    min_backoff_ms: int = 250
    max_backoff_ms: int = 10_000
    watch_ms: int = 1_000
    held_bound: int = 5_000


class _Line:
    """One attempt at a stream. Given up while it was still being opened, it is closed as soon as it is open."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.is_given_up = False
        self._connection: KlineConnection | None = None
        self._lock = threading.Lock()

    def opened(self, connection: KlineConnection) -> bool:
        """Take the open connection; False if nobody wants it any more."""
        with self._lock:
            self._connection = connection
            return not self.is_given_up

    def give_up(self) -> None:
        with self._lock:
            self.is_given_up = True
            connection = self._connection
        if connection is not None:
            connection.close()


class FeedActor(Actor):
    """Takes Kline (from its reader thread, or injected), StreamUp, StreamDown, Backfilled; passes klines to the trader
    of its symbol.

    While a gap is being filled live klines are held back, so that what went missing comes first. Where the trader has
    no room, the stream is closed: what is not read is fetched when there is room again.
    """

    def __init__(
        self,
        context: Context,
        settings: FeedSettings,
        memory: Cell[FeedMemory],
        stream: MarketStream | None,
        history: MarketHistory | None,
        last_stored: Callable[[], Kline | None],
    ) -> None:
        super().__init__(context)
        self._settings = settings
        self._cell = memory
        self._stream = stream
        self._history = history
        self._last_stored = last_stored
        self._line: _Line | None = None
        self._backoff_ms = settings.min_backoff_ms
        self._filling = False
        self._held: list[Kline] = []
        self._heard_ms = 0
        self._handlers: dict[type, Callable[..., None]] = {
            Kline: self._on_kline,
            StreamUp: self._on_up,
            StreamDown: self._on_down,
            Backfilled: self._on_backfilled,
            Connect: self._on_connect,
            Watch: self._on_watch,
        }

    def started(self) -> None:
        if self._cell.value.last is None:
            self._remember(last=self._last_stored())
        self._remember(connected=False)
        if self._stream is not None:
            self.context.on_epoch_end(self._close)
            self._on_connect(Connect())
            self.context.after(self._settings.watch_ms, Watch())

    def handle(self, message: object) -> None:
        self._handlers[type(message)](message)

    def stopped(self) -> None:
        self._close()

    def _on_connect(self, _: Connect) -> None:
        if self._line is not None:
            return
        line = _Line(self._cell.value.connections + 1)
        self._remember(connections=line.number)
        self._line = line
        self.context.spawn_thread(f"reader-{line.number}", lambda: self._read(line))

    def _read(self, line: _Line) -> None:
        """Read one connection to its end. Runs on a thread of its own and touches nothing but messages and its line."""
        symbol, number = self._settings.symbol, line.number
        clock, tell = self.context.clock, self.context.tell
        assert self._stream is not None
        try:
            connection = self._stream.connect(symbol, self._settings.interval)
        except StreamClosed as error:
            tell(self.context.address, StreamDown(symbol, number, str(error), clock.now_ms()))
            return
        reason = "the feed stopped"
        try:
            if line.opened(connection):
                tell(self.context.address, StreamUp(symbol, number, clock.now_ms()))
            while self.context.is_current() and not line.is_given_up:
                kline = connection.receive()
                if kline is not None and not tell(self.context.address, kline):
                    reason = "no room for more klines"
                    break
        except StreamClosed as error:
            reason = str(error)
        finally:
            connection.close()
        if self.context.is_current() and not line.is_given_up:
            tell(self.context.address, StreamDown(symbol, number, reason, clock.now_ms()))

    def _on_up(self, up: StreamUp) -> None:
        line = self._line
        if line is None or up.connection != line.number:
            return
        self.context.tell(addresses.MONITOR, up)
        self._heard_ms = self.context.clock.monotonic_ms()
        last, history = self._cell.value.last, self._history
        if last is None or history is None:
            self._remember(connected=True, is_whole=True)
        else:
            self._remember(connected=True, is_whole=False)
            self._fill(history, last, line.number)

    def _on_down(self, down: StreamDown) -> None:
        if self._line is None or down.connection != self._line.number:
            return
        self._line.give_up()
        self._line = None
        self._filling = False
        self._held.clear()
        self._remember(connected=False)
        self.context.tell(addresses.MONITOR, down)
        self.context.after(self._backoff_ms, Connect())
        self._backoff_ms = min(self._settings.max_backoff_ms, self._backoff_ms * 2)

    def _fill(self, history: MarketHistory, last: Kline, number: int) -> None:
        self._filling = True
        settings = self._settings
        start = last.open_time + 1 if last.is_closed else last.open_time

        def fetch() -> None:
            try:
                klines = tuple(history.closed_klines(settings.symbol, settings.interval, start))
                message = Backfilled(settings.symbol, number, klines)
            except ExchangeError as error:
                message = Backfilled(settings.symbol, number, (), error=str(error))
            if self.context.is_current():
                self.context.tell(self.context.address, message)

        self.context.spawn_thread(f"history-{number}", fetch)

    def _on_backfilled(self, backfilled: Backfilled) -> None:
        if self._line is None or backfilled.connection != self._line.number or not self._filling:
            return
        if backfilled.error:
            self._notice("warning", f"klines missed by {self._settings.symbol} not fetched yet: {backfilled.error}")
            self._give_way("missed klines are not to be had")
            return
        self._filling = False
        held, self._held = self._held, []
        for kline in (*backfilled.klines, *held):
            if not self._pass_on(kline):
                return
        self._remember(is_whole=True)
        self._backoff_ms = self._settings.min_backoff_ms

    def _on_kline(self, kline: Kline) -> None:
        self._heard_ms = self.context.clock.monotonic_ms()
        if self._filling:
            if len(self._held) < self._settings.held_bound:
                self._held.append(kline)
            else:
                self._give_way("missed klines take too long to come")
        # Otherwise it came by a connection that was given up, and something before it has not been passed on: the next
        # connection fetches both.
        elif self._cell.value.is_whole and self._pass_on(kline) and self._line is not None:
            self._backoff_ms = self._settings.min_backoff_ms

    def _pass_on(self, kline: Kline) -> bool:
        """Give a kline to the trader; False where it has no room and the stream had to close."""
        memory = self._cell.value
        mine = kline.symbol == self._settings.symbol and kline.interval == self._settings.interval
        if not mine or not is_newer(kline, memory.last):
            self._remember(dropped=memory.dropped + 1)
            return True
        wrong = implausible(kline, memory.last, self.context.clock.now_ms()) if self._stream is not None else None
        if wrong is not None:
            self._remember(dropped=memory.dropped + 1)
            self._notice("warning", f"a kline of {kline.symbol} is not believed: {wrong}")
            return True
        if not self.context.tell(addresses.trader(kline.symbol), kline):
            self._give_way("trader has no room")
            return False
        self._remember(last=kline, passed=memory.passed + 1)
        return True

    def _give_way(self, reason: str) -> None:
        """End this connection, if there is one; the next one fetches what was not passed on."""
        if self._stream is None:
            raise RuntimeError(f"an injected kline was not passed on: {reason}")
        self._remember(is_whole=False)
        if self._line is not None:
            now = self.context.clock.now_ms()
            self._on_down(StreamDown(self._settings.symbol, self._line.number, reason, now))

    def _on_watch(self, _: Watch) -> None:
        self.context.after(self._settings.watch_ms, Watch())
        silent_ms = self.context.clock.monotonic_ms() - self._heard_ms
        if self._cell.value.connected and silent_ms > self._settings.silence_ms:
            self._give_way(f"no kline for {silent_ms // 1000} s")

    def _close(self) -> None:
        line = self._line
        if line is not None:
            line.give_up()

    def _remember(self, **changes: object) -> None:
        value = msgspec.structs.replace(self._cell.value, **changes)
        self.context.run_fenced(lambda: setattr(self._cell, "value", value))

    def _notice(self, level: str, text: str) -> None:
        notice = Notice(str(self.context.address), level, text, self.context.clock.now_ms())
        self.context.tell(addresses.MONITOR, notice)
