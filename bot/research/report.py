"""What a run over history made: the contract's JSON object, and the figures that put it in proportion."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import msgspec

from bot.domain.money import ONE, ROUNDING, ZERO, plain, subtract
from bot.domain.order import Trade


class SymbolOutcome(msgspec.Struct, frozen=True):
    """A symbol of a run: its first and last close, and what is left of it (base asset)."""

    symbol: str
    quote_asset: str
    first_close: Decimal
    last_close: Decimal
    position: Decimal


class EquityPoint(msgspec.Struct, frozen=True):
    """The equity after the message at `time` (ms)."""

    time: int
    equity: Decimal


class RunReport(msgspec.Struct, frozen=True):
    """The outcome of a backtest or replay. `bars` counts messages taken, `dropped` those that were not newer.

    Amounts are in the quote asset that all symbols share; `start_cash` is what the run began with.
    """

    bars: int
    dropped: int
    symbols: tuple[SymbolOutcome, ...]
    start_cash: Decimal
    cash: Decimal
    equity: Decimal
    skipped: Mapping[str, int]
    trades: tuple[Trade, ...]
    curve: tuple[EquityPoint, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the contract's object (section 2): decimals as strings, times in ms."""
        return {
            "bars": self.bars,
            "dropped": self.dropped,
            "symbols": [outcome.symbol for outcome in self.symbols],
            "cash": plain(self.cash),
            "positions": {outcome.symbol: plain(outcome.position) for outcome in self.symbols},
            "equity": plain(self.equity),
            "skipped": dict(sorted(self.skipped.items())),
            "trades": [trade_json(trade) for trade in self.trades],
            "start_cash": plain(self.start_cash),
        }

    def commissions_in_quote(self) -> Decimal:
        """Return all commissions, those in a base asset valued at their trade's price; rounded for people."""
        return _sum(
            trade.commission
            if trade.commission_asset in {o.quote_asset for o in self.symbols}
            else ROUNDING.multiply(trade.commission, trade.price)
            for trade in self.trades
        )

    def buy_and_hold(self, fee: Decimal) -> Decimal:
        """Return the equity of who had bought every symbol for an equal share at its first close, fee paid once."""
        share = ROUNDING.divide(self.start_cash, Decimal(len(self.symbols)))
        kept = subtract(ONE, fee)
        return _sum(
            ROUNDING.divide(ROUNDING.multiply(ROUNDING.multiply(share, kept), outcome.last_close), outcome.first_close)
            for outcome in self.symbols
        )


def trade_json(trade: Trade) -> dict[str, Any]:
    """Return the contract's trade object (section 2)."""
    item: dict[str, Any] = {
        "symbol": trade.symbol,
        "side": trade.side.value,
        "time": trade.time,
        "price": plain(trade.price),
        "quantity": plain(trade.quantity),
        "quote_quantity": plain(trade.quote_quantity),
        "commission": plain(trade.commission),
        "commission_asset": trade.commission_asset,
    }
    if trade.commissions:
        item["commissions"] = {asset: plain(amount) for asset, amount in trade.commissions}
    return item


def _sum(amounts: Iterable[Decimal]) -> Decimal:
    total = ZERO
    for amount in amounts:
        total = ROUNDING.add(total, amount)
    return total
