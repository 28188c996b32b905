"""Paper money's exchange: every legal order fills at once, at the deciding kline's close."""

import threading
from collections.abc import Mapping, Sequence
from decimal import Decimal

from bot.domain.filters import SymbolRules
from bot.domain.order import OrderIntent, OrderReport, OrderStatus
from bot.domain.sizing import SizingParameters, paper_fill
from bot.ports import ConfigurationRefused, Leave, OrderInDoubt, OrderRejected, at_once
from bot.supervision import Clock


class PaperExchange:
    """Fills by the contract's rule for paper and replay, and remembers what it filled in this process. Thread-safe.

    Order and trade ids are the same number; they count up from `next_trade_id`.
    """

    def __init__(
        self, rules: Mapping[str, SymbolRules], parameters: SizingParameters, clock: Clock, next_trade_id: int
    ) -> None:
        self._rules = dict(rules)
        self._parameters = parameters
        self._clock = clock
        self._next_trade_id = next_trade_id
        self._reports: dict[str, OrderReport] = {}
        self._lock = threading.Lock()

    def rules(self, symbols: Sequence[str]) -> dict[str, SymbolRules]:
        """Return the rules given at the start. Raises ConfigurationRefused naming a symbol that was not among them."""
        unknown = [symbol for symbol in symbols if symbol not in self._rules]
        if unknown:
            raise ConfigurationRefused(f"no trading rules for {', '.join(unknown)}: give them with --filters FILE")
        return {symbol: self._rules[symbol] for symbol in symbols}

    def now_ms(self) -> int:
        """Return the clock's time."""
        return self._clock.now_ms()

    def free_balance(self, asset: str) -> Decimal:
        """Raise ConfigurationRefused: paper money lies in the bot's own wallet, no exchange holds any."""
        raise ConfigurationRefused(f"paper money has no {asset} at an exchange: read the bot's wallet")

    def place(self, intent: OrderIntent, leave: Leave = at_once) -> OrderReport:
        """Fill the order at `intent.close` with the contract's slippage and commission, at the kline's event_time.

        Raises OrderRejected for an order that the rules forbid, OrderInDoubt for an id that was filled before: a
        real exchange would execute it a second time, which is never meant.
        """
        leave(lambda: None)
        rules = self._rules.get(intent.symbol)
        if rules is None:
            raise OrderRejected(-1121, "Invalid symbol.")
        broken = rules.broken_by(intent.quantity, intent.close, is_limit=intent.limit_price is not None)
        if broken is not None:
            raise OrderRejected(-1013, f"Filter failure: {broken}")
        with self._lock:
            if intent.client_order_id in self._reports:
                raise OrderInDoubt(f"{intent.client_order_id} was filled before: ask for it")
            trade_id = self._next_trade_id
            self._next_trade_id += 1
            fill = paper_fill(
                intent.client_order_id,
                trade_id,
                rules,
                intent.side,
                intent.quantity,
                intent.close,
                intent.event_time,
                self._parameters,
            )
            report = OrderReport(intent.client_order_id, trade_id, intent.symbol, OrderStatus.FILLED, (fill,))
            self._reports[intent.client_order_id] = report
        return report

    def find(self, intent: OrderIntent) -> OrderReport | None:
        """Return what became of an order in this process, None if it was not placed in it."""
        with self._lock:
            return self._reports.get(intent.client_order_id)

    @property
    def acceptance_window_ms(self) -> int:
        """0: an order is filled or refused before `place` returns."""
        return 0
