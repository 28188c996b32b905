"""AccountActor: what the exchange says of the account, by its own stream and against the book."""

from collections.abc import Callable

import msgspec

from bot.actors import addresses
from bot.actors.cells import AccountMemory, Cell
from bot.actors.line import Line
from bot.domain.money import ZERO, add
from bot.domain.order import Fill, OrderReport, OrderStatus
from bot.messages import (
    BalanceMoved,
    BalancesReported,
    Compare,
    Compared,
    Connect,
    ConnectionEnded,
    ConnectionOpened,
    ExecutionReported,
    Freed,
    Notice,
    OrderEnded,
    ResolveOrders,
    SymbolStopped,
)
from bot.ports import AccountConnection, AccountStream, HaltSwitch, StreamClosed
from bot.supervision import Actor, Context, Timer

KEPT_ORDERS = 1_000
"""How many unfinished orders' steps are kept; an older one's end is asked for instead."""


class AccountSettings(msgspec.Struct, frozen=True):
    """`prefix` marks this bot's client order ids; `symbols` are those that it trades. Times in ms.

    The book is compared with the account at the start, every `every_ms`, and `soon_ms` after a sign of a difference.
    """

    prefix: str
    symbols: tuple[str, ...]
    every_ms: int = 300_000
    soon_ms: int = 2_000
    min_backoff_ms: int = 250
    max_backoff_ms: int = 10_000


class AccountActor(Actor):
    """Takes ExecutionReported, BalancesReported, BalanceMoved, Compared; gives OrderReport, Adjustment, SymbolStopped.

    An order's end is told once all its executions were seen; if some were missed, its trader is told to ask. Whatever
    the stream tells may be known already, from the order's own reply or by asking: it counts once.

    A difference between book and account that nothing explains stops its symbol once two comparisons in a row have it:
    an order that is executed between two of the exchange's answers shows as one that the next comparison does not have.
    """

    def __init__(
        self,
        context: Context,
        settings: AccountSettings,
        memory: Cell[AccountMemory],
        stream: AccountStream | None,
        compare: Callable[[], Compared],
        stops: HaltSwitch,
    ) -> None:
        """`compare` asks the exchange and books what is explained; it blocks and never raises."""
        super().__init__(context)
        self._settings = settings
        self._cell = memory
        self._stream = stream
        self._compare = compare
        self._stops = stops
        self._suspected: frozenset[str] = frozenset()
        self._said: tuple[str, ...] = ()
        self._error = ""  # why the last comparison came to nothing
        self._is_comparing = False
        self._next: Timer | None = None
        self._is_soon = False
        self._line: Line[AccountConnection] | None = None
        self._backoff_ms = settings.min_backoff_ms
        self._fills: dict[str, dict[int, Fill]] = {}
        self._handlers: dict[type, Callable[..., None]] = {
            Connect: self._on_connect,
            ConnectionOpened: self._on_opened,
            ConnectionEnded: self._on_ended,
            ExecutionReported: self._on_execution,
            BalancesReported: self._on_balances,
            BalanceMoved: self._on_movement,
            Compare: self._on_compare,
            Compared: self._on_compared,
            Freed: self._on_freed,
        }

    def started(self) -> None:
        self._remember(is_up=False)
        # Before any trader takes its first kline; twice, so that what is missing stops its symbol at once.
        self._on_compared(self._compare())
        if self._suspected:
            self._on_compared(self._compare())
        if self._stream is not None:
            self.context.on_epoch_end(self._close)
            self._on_connect(Connect())

    def handle(self, message: object) -> None:
        self._handlers[type(message)](message)

    def stopped(self) -> None:
        self._close()

    def _on_connect(self, _: Connect) -> None:
        line = self._line = Line(self._cell.value.connections + 1)
        self._remember(connections=line.number)
        self.context.spawn_thread(f"reader-{line.number}", lambda: self._read(line))

    def _read(self, line: Line[AccountConnection]) -> None:
        """Read one connection to its end. Runs on a thread of its own and touches nothing but messages and its line."""
        tell, own = self.context.tell, self.context.address
        assert self._stream is not None
        try:
            connection = self._stream.connect()
        except StreamClosed as error:
            tell(own, ConnectionEnded(line.number, str(error)))
            return
        try:
            if line.opened(connection, self.context.clock.monotonic_ms()):
                tell(own, ConnectionOpened(line.number))
            while self.context.is_current() and not line.is_given_up:
                event = connection.receive()
                if event is not None:
                    tell(own, event)
        except StreamClosed as error:
            if self.context.is_current() and not line.is_given_up:
                tell(own, ConnectionEnded(line.number, str(error)))
        finally:
            connection.close()

    def _on_opened(self, opened: ConnectionOpened) -> None:
        if self._line is None or opened.connection != self._line.number:
            return
        self._backoff_ms = self._settings.min_backoff_ms
        self._remember(is_up=True)
        # What the stream told nobody while it was away: whose order's fate is unknown asks now, not at its next turn.
        self._ask_all()
        self._compare_in(self._settings.soon_ms)

    def _on_ended(self, ended: ConnectionEnded) -> None:
        if self._line is None or ended.connection != self._line.number:
            return
        self._line = None
        self._fills.clear()
        if self._cell.value.is_up or self._backoff_ms == self._settings.min_backoff_ms:
            self._notice("warning", f"the account's stream is down, orders are asked for instead: {ended.reason}")
        self._remember(is_up=False)
        self.context.after(self._backoff_ms, Connect())
        self._backoff_ms = min(self._settings.max_backoff_ms, 2 * self._backoff_ms)

    def _on_execution(self, event: ExecutionReported) -> None:
        order_id = event.client_order_id
        if not order_id.startswith(self._settings.prefix) or event.symbol not in self._settings.symbols:
            self._compare_in(self._settings.soon_ms)
            return
        fills = self._fills.setdefault(order_id, {})
        if event.fill is not None:
            fills[event.fill.trade_id] = event.fill
        status = _STATUSES.get(event.status)
        if status is None or not status.is_final:
            if len(self._fills) > KEPT_ORDERS:
                del self._fills[next(iter(self._fills))]
            return
        del self._fills[order_id]
        seen = ZERO
        for fill in fills.values():
            seen = add(seen, fill.quantity)
        trader = addresses.trader(event.symbol)
        if seen == event.executed_quantity:
            report = OrderReport(order_id, event.order_id, event.symbol, status, tuple(fills.values()), event.detail)
            self.context.tell(trader, report)
        else:
            self.context.tell(trader, ResolveOrders())

    def _on_balances(self, event: BalancesReported) -> None:
        known = {asset: (free, locked) for asset, free, locked in self._cell.value.balances}
        known |= {asset: (free, locked) for asset, free, locked in event.balances}
        self._remember(balances=tuple((asset, *both) for asset, both in sorted(known.items()) if any(both)))

    def _on_movement(self, event: BalanceMoved) -> None:
        self._notice("info", f"{event.delta:+f} {event.asset} came to or left the account by a transfer")
        self._compare_in(self._settings.soon_ms)

    def _compare_in(self, delay_ms: int) -> None:
        """Compare in a while, by one timer: a sign of a difference brings it forward, and never puts it off."""
        if self._next is not None and delay_ms < self._settings.every_ms and self._is_soon:
            return
        if self._next is not None:
            self._next.cancel()
        self._is_soon = delay_ms < self._settings.every_ms
        self._next = self.context.after(delay_ms, Compare())

    def _on_compare(self, asked: Compare) -> None:
        if asked.soon:
            self._compare_in(self._settings.soon_ms)
            return
        self._next, self._is_soon = None, False
        if self._is_comparing:
            self._compare_in(self._settings.soon_ms)
            return
        self._is_comparing = True

        def compare() -> None:
            compared = self._compare()
            if self.context.is_current():
                self.context.tell(self.context.address, compared)

        self.context.spawn_thread("comparer", compare)

    def _on_compared(self, compared: Compared) -> None:
        self._is_comparing = False
        for report in compared.reports:
            if report.symbol in self._settings.symbols:
                self.context.tell(addresses.trader(report.symbol), report)
            else:
                late = OrderEnded(report.client_order_id, report.symbol, report.status.value, report.fills, 0)
                self.context.tell(addresses.PORTFOLIO, late)
        for adjustment in compared.adjustments:
            self.context.tell(addresses.PORTFOLIO, adjustment)
            if adjustment.symbol in self._settings.symbols:
                self.context.tell(addresses.trader(adjustment.symbol), adjustment)
        for symbol in compared.freed:
            # Behind what was just told, and back from there.
            if symbol in self._settings.symbols:
                self.context.tell(addresses.trader(symbol), Freed(symbol))
            elif symbol:
                self._on_freed(Freed(symbol))
            else:
                self.context.tell(addresses.PORTFOLIO, Freed(symbol))
        is_new_error = compared.error != self._error
        self._error = compared.error
        if compared.error:
            if is_new_error:
                self._notice("warning", f"book and account are not compared yet: {compared.error}")
            self._compare_in(self._settings.soon_ms)
            return
        for line in compared.lines:
            if line not in self._said:
                self._notice("info", line)
        self._said = compared.lines
        stopped = self._stops.stopped_symbols()
        for symbol, reason in compared.stops:
            if symbol in self._suspected and symbol not in stopped:
                self._stop_symbol(symbol, reason)
        self._suspected = frozenset(symbol for symbol, _ in compared.stops)
        is_new = bool(self._suspected - stopped.keys())
        self._compare_in(self._settings.soon_ms if is_new else self._settings.every_ms)
        self._remember(compared_ms=self.context.clock.now_ms())

    def _on_freed(self, freed: Freed) -> None:
        if self._stops.free_symbol(freed.symbol):
            self._notice("info", f"{freed.symbol or 'entries'}: differences are accepted, orders may leave again")

    def _stop_symbol(self, symbol: str, reason: str) -> None:
        try:
            self._stops.stop_symbol(symbol, reason)
        except OSError as error:
            self._notice(
                "error", f"{symbol or 'entries'}: the stop holds only until this process ends: {error.strerror}"
            )
        name = addresses.trader(symbol) if symbol else self.context.address
        stopped = SymbolStopped(str(name), symbol, reason, self.context.clock.now_ms())
        self.context.tell(addresses.MONITOR, stopped)
        self.context.tell(addresses.BRIDGE, stopped)

    def _ask_all(self) -> None:
        for symbol in self._settings.symbols:
            self.context.tell(addresses.trader(symbol), ResolveOrders())

    def _close(self) -> None:
        if self._line is not None:
            self._line.give_up()

    def _remember(self, **changes: object) -> None:
        value = msgspec.structs.replace(self._cell.value, **changes)
        self.context.run_fenced(lambda: setattr(self._cell, "value", value))

    def _notice(self, level: str, text: str) -> None:
        notice = Notice(str(self.context.address), level, text, self.context.clock.now_ms())
        self.context.tell(addresses.MONITOR, notice)


_STATUSES = {
    status.value: status for status in OrderStatus if status not in (OrderStatus.RECORDED, OrderStatus.NOT_PLACED)
}
