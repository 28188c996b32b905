"""What a journal of orders adds up to: folded once, then kept as orders end and fills come late."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal

from bot.domain.adjustment import Adjustment
from bot.domain.filters import SymbolRules
from bot.domain.money import ZERO, add
from bot.domain.order import Fill, OrderIntent
from bot.domain.position import Position, quote_change


def third_asset_commissions(fills: Iterable[Fill], rules: Mapping[str, SymbolRules]) -> dict[str, Decimal]:
    """Return what the fills paid as commission in assets that are neither base nor quote of their symbol."""
    paid: dict[str, Decimal] = defaultdict(lambda: ZERO)
    for fill in fills:
        symbol = rules[fill.symbol]
        if fill.commission_asset not in (symbol.base_asset, symbol.quote_asset):
            paid[fill.commission_asset] = add(paid[fill.commission_asset], fill.commission)
    return dict(paid)


class Book:
    """Positions, cash and all that tells whose an order or execution is. `rules` has every symbol ever held.

    `order_ids`: the exchange's id (0: never told) of every order by its client order id, but of those that certainly
    became none; `orders`: the client order id by (symbol, the exchange's id); `fills`: (client order id, trade id);
    `newest_trade_ids` by symbol; `commissions` in third assets. Quantities and cash are sums: the order in which orders
    are added does not matter, nor how often. Each call costs what is new.
    """

    def __init__(self, start_cash: Decimal, rules: Mapping[str, SymbolRules]) -> None:
        self.cash = start_cash
        self.positions: dict[str, Position] = dict.fromkeys(rules, Position())
        self.order_ids: dict[str, int] = {}
        self.orders: dict[tuple[str, int], str] = {}
        self.fills: set[tuple[str, int]] = set()
        self.newest_trade_ids: dict[str, int] = {}
        self.commissions: dict[str, Decimal] = {}
        self._rules = rules
        self._adjusted: set[str] = set()

    def take(self, intent: OrderIntent, order_id: int | None, fills: Iterable[Fill]) -> bool:
        """Add an order that ended, or what came late to it; return whether it brought fills that were not there.

        Raises KeyError where a fill is of a symbol without rules.
        """
        name = intent.client_order_id
        self.order_ids[name] = order_id or 0
        new = [fill for fill in fills if (name, fill.trade_id) not in self.fills]
        for fill in new:
            rules = self._rules[fill.symbol]
            self.fills.add((name, fill.trade_id))
            self.orders[fill.symbol, fill.order_id] = name
            self.positions[fill.symbol] = self.positions[fill.symbol].after(fill, rules)
            self.cash = add(self.cash, quote_change(fill, rules.quote_asset))
            self.newest_trade_ids[fill.symbol] = max(fill.trade_id, self.newest_trade_ids.get(fill.symbol, 0))
        for asset, paid in third_asset_commissions(new, self._rules).items():
            self.commissions[asset] = add(self.commissions.get(asset, ZERO), paid)
        return bool(new)

    def adjust(self, adjustment: Adjustment) -> bool:
        """Add a correction, once; return whether it was not there."""
        if adjustment.adjustment_id in self._adjusted:
            return False
        self._adjusted.add(adjustment.adjustment_id)
        if adjustment.symbol:
            self.positions[adjustment.symbol] = self.positions[adjustment.symbol].adjusted(adjustment)
        self.cash = add(self.cash, adjustment.quote)
        return True
