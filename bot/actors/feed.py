"""FeedActor: one symbol's klines, each exactly once and in order, from its stream and, where any is missing, REST."""

from collections import deque
from collections.abc import Callable

import msgspec

from bot.actors import addresses
from bot.actors.cells import Cell, FeedMemory
from bot.actors.limits import BackfillGate
from bot.actors.notices import Notices
from bot.domain.kline import Kline, implausible, is_newer, leaves_gap, next_close
from bot.domain.throttle import Throttle
from bot.messages import Backfilled, CatchUp, StreamDown, StreamUp, Subscribe, Suspect, Watch
from bot.ports import ExchangeError, MarketHistory
from bot.supervision import Actor, Address, Context

LONGEST_LOOK_MS = 300_000
LOOKS = 2
"""So often a gap that REST does not fill is asked about again, since REST may be a moment behind the stream."""


class FeedSettings(msgspec.Struct, frozen=True):
    """Times in ms. `grace_ms`: how long after its time a closed kline may still come by the stream."""

    symbol: str
    interval: str
    grace_ms: int = 10_000
    min_backoff_ms: int = 250
    max_backoff_ms: int = 10_000
    watch_ms: int = 2_000
    held_bound: int = 5_000


class FeedActor(Actor):
    """Takes Kline (from its stream's reader, or injected), StreamUp, StreamDown, Backfilled; passes klines to the
    trader of its symbol.

    A closed kline is missing where the next one, of stream or REST, does not follow the last one passed on, and where
    the exchange's clock says that one is due: at StreamUp at once, later with some grace. REST is asked for it, and
    live klines are held back until it answers, so that what went missing comes first. It does not matter why one is
    missing: a cut, a garbled frame, no room in this feed's mailbox or in the trader's.

    Of a symbol without trades the exchange may send nothing, so that its closed klines are asked for by REST, one
    question a candle (3 of 6,000 weight a minute). If REST has trades of which the stream said nothing, the stream is
    told.
    """

    def __init__(
        self,
        context: Context,
        settings: FeedSettings,
        memory: Cell[FeedMemory],
        stream: Address | None,
        history: MarketHistory | None,
        gate: BackfillGate,
        last_stored: Callable[[], Kline | None],
        exchange_now_ms: Callable[[], int],
    ) -> None:
        """`stream` and `history` are None where klines are injected: then none can be missing."""
        super().__init__(context)
        self._notices = Notices(context, Throttle(3, 10_000))
        self._settings = settings
        self._cell = memory
        self._stream = stream
        self._history = history
        self._gate = gate
        self._last_stored = last_stored
        self._exchange_now_ms = exchange_now_ms
        self._is_behind = False  # something is missing: live klines wait in `_held`
        self._held: list[Kline] = []
        self._failures = 0
        self._looks = 0  # how often the gap before the first held kline was asked about again
        self._is_look = False  # asked because a kline was due
        self._vain_looks = 0
        self._look_again_ms = 0
        self._threads = 0
        self._handlers: dict[type, Callable[..., None]] = {
            Kline: self._on_kline,
            StreamUp: self._on_up,
            StreamDown: self._on_down,
            Backfilled: self._on_backfilled,
            CatchUp: self._on_catch_up,
            Watch: self._on_watch,
        }

    def started(self) -> None:
        if self._cell.value.last is None:
            self._remember(last=self._last_stored())
        self._remember(connected=False)
        if self._stream is not None:
            self.context.tell(self._stream, Subscribe(self._settings.symbol))
            self.context.after(self._settings.watch_ms, Watch())

    def handle(self, message: object) -> None:
        self._handlers[type(message)](message)

    # The stream

    def _on_up(self, _: StreamUp) -> None:
        self._remember(connected=True)
        if not self._is_behind and self._is_due(0):
            self._catch_up()

    def _on_down(self, _: StreamDown) -> None:
        self._remember(connected=False)

    def _on_watch(self, _: Watch) -> None:
        self.context.after(self._settings.watch_ms, Watch())
        is_time = self.context.clock.monotonic_ms() >= self._look_again_ms
        if is_time and not self._is_behind and self._is_due(self._settings.grace_ms):
            self._is_look = True
            self._catch_up()

    def _is_due(self, grace_ms: int) -> bool:
        last = self._cell.value.last
        return last is not None and self._history is not None and self._exchange_now_ms() > next_close(last) + grace_ms

    # Klines

    def _on_kline(self, kline: Kline) -> None:
        if not self._is_believed(kline):
            return
        if not self._is_behind:
            self._take(kline)
        elif len(self._held) < self._settings.held_bound:
            self._held.append(kline)
        else:
            # What it leaves out will be missing before the next one.
            self._held.clear()
            self._notices.complain("missed klines take too long to come: live ones are dropped until then")

    def _is_believed(self, kline: Kline) -> bool:
        memory, settings = self._cell.value, self._settings
        mine = kline.symbol == settings.symbol and kline.interval == settings.interval
        wrong = None
        if mine and is_newer(kline, memory.last):
            if self._stream is not None:
                wrong = implausible(kline, memory.last, self._exchange_now_ms())
            if wrong is None:
                return True
        self._remember(dropped=memory.dropped + 1)
        if wrong is not None:
            self._notices.complain(f"a kline of {kline.symbol} is not believed: {wrong}")
        elif mine and self._stream is not None and memory.last is not None:
            ahead_ms = memory.last.open_time - self._exchange_now_ms()
            if ahead_ms > kline.close_time - kline.open_time:
                what = f"klines of {kline.symbol} are dropped until then"
                self._notices.complain(f"the last one taken begins {ahead_ms // 1000} s in the future: {what}")
        return False

    def _take(self, kline: Kline) -> None:
        """Pass a live kline on, unless one is missing before it."""
        last = self._cell.value.last
        if last is not None and self._history is not None and leaves_gap(kline, last):
            self._held.append(kline)
            self._catch_up()
        else:
            self._pass_on(kline)

    def _pass_on(self, kline: Kline) -> bool:
        """Give a kline to the trader; False where it has no room."""
        memory = self._cell.value
        if not is_newer(kline, memory.last):
            self._remember(dropped=memory.dropped + 1)
            return True
        if not self.context.tell(addresses.trader(kline.symbol), kline):
            self._refuse(kline)
            return False
        self._remember(last=kline, passed=memory.passed + 1)
        return True

    def _refuse(self, kline: Kline) -> None:
        if self._stream is None:
            raise RuntimeError("an injected kline was not passed on: trader has no room")
        self._remember(refused=self._cell.value.refused + 1)
        self._notices.complain("trader has no room: closed klines are fetched later")
        if kline.is_closed and self._history is not None and self._cell.value.last is not None:
            self._is_behind = True
            self._held.clear()
            self._try_later()

    # What is missing

    def _catch_up(self) -> None:
        self._is_behind = True
        self._ask()

    def _on_catch_up(self, _: CatchUp) -> None:
        if self._is_behind:
            self._ask()

    def _try_later(self) -> None:
        settings = self._settings
        self.context.after(min(settings.max_backoff_ms, settings.min_backoff_ms << min(self._failures, 20)), CatchUp())
        self._failures += 1

    def _ask(self) -> None:
        history, last, settings, context = self._history, self._cell.value.last, self._settings, self.context
        assert history is not None
        assert last is not None
        start = last.open_time + 1 if last.is_closed else last.open_time

        def fetch() -> None:
            with self._gate.entered(context.is_current) as is_entered:
                if not is_entered:
                    return
                try:
                    klines = tuple(history.closed_klines(settings.symbol, settings.interval, start))
                    message = Backfilled(settings.symbol, context.epoch, klines)
                except ExchangeError as error:
                    message = Backfilled(settings.symbol, context.epoch, (), error=str(error))
            if context.is_current():
                context.tell(context.address, message)

        self._threads += 1
        context.spawn_thread(f"history-{self._threads}", fetch)

    def _on_backfilled(self, backfilled: Backfilled) -> None:
        if not self._is_behind or backfilled.epoch != self.context.epoch:
            return
        if backfilled.error:
            self._notices.complain(f"klines missed by {self._settings.symbol} not fetched yet: {backfilled.error}")
            self._try_later()
            return
        before = self._cell.value.last
        for kline in backfilled.klines:
            if self._is_gap_before(kline) and self._asks_again(kline):
                return
            if not self._pass_on(kline):
                return
        held = deque(self._held)
        if held and self._is_gap_before(held[0]):
            if self._asks_again(held[0]):
                return
            first = held.popleft()
            if not self._pass_on(first) and first.is_closed:
                return
        self._is_behind = False
        self._looks = self._failures = 0
        self._held.clear()
        self._end_look(before, backfilled.klines)
        while held:
            kline = held.popleft()
            if self._is_behind:
                self._held.append(kline)
            elif self._is_believed(kline):
                self._take(kline)

    def _is_gap_before(self, kline: Kline) -> bool:
        last = self._cell.value.last
        return last is not None and is_newer(kline, last) and leaves_gap(kline, last)

    def _asks_again(self, kline: Kline) -> bool:
        """Ask again for what is missing before a kline; False where that is done: the exchange itself has none."""
        if self._looks < LOOKS:
            self._looks += 1
            self._try_later()
            return True
        self._notices.complain(f"the exchange has no kline of {kline.symbol} just before that of {kline.open_time}")
        return False

    def _end_look(self, before: Kline | None, klines: tuple[Kline, ...]) -> None:
        """Ask less and less often for what is due and not to be had; tell the stream of trades that it left out."""
        if self._is_due(self._settings.grace_ms):
            wait_ms = min(LONGEST_LOOK_MS, self._settings.grace_ms << min(self._vain_looks, 20))
            self._look_again_ms = self.context.clock.monotonic_ms() + wait_ms
            self._vain_looks += 1
        else:
            self._vain_looks = 0
        # Of the candle that `before` was of only the last update may be missing: that proves nothing.
        is_left_out = before is not None and any(k.open_time > before.open_time and k.volume for k in klines)
        if is_left_out and self._is_look and self._cell.value.connected and self._stream is not None:
            self.context.tell(self._stream, Suspect(self._settings.symbol))
        self._is_look = False

    def _remember(self, **changes: object) -> None:
        value = msgspec.structs.replace(self._cell.value, **changes)
        self.context.run_fenced(lambda: setattr(self._cell, "value", value))
