"""The contract's trading semantics over history, in one loop without actors."""

from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from bot.domain.filters import Refusal, SymbolRules
from bot.domain.kline import Kline, is_newer
from bot.domain.ledger import Ledger
from bot.domain.order import OrderIntent, Side, Trade, trade_of
from bot.domain.order_id import client_order_id
from bot.domain.risk import exit_signal
from bot.domain.sizing import SizingParameters, paper_fill, size_order
from bot.domain.strategy import Signal, Strategy
from bot.research.files import Series, merged
from bot.research.report import EquityPoint, RunReport, SymbolOutcome

MODE = "backtest"


def run_backtest(
    series: Sequence[Series],
    rules: Mapping[str, SymbolRules],
    strategy: Strategy,
    parameters: SizingParameters,
    cash: Decimal,
    curve_points: int = 0,
) -> RunReport:
    """Trade every symbol of `series` with one wallet of `cash` (quote asset) and return the outcome.

    `rules` holds every symbol. With `curve_points` the report carries about that many points of the equity curve.
    """
    ledger = Ledger(cash, {s.symbol: rules[s.symbol] for s in series}, parameters.limits.max_daily_loss)
    states: dict[str, Any] = {s.symbol: strategy.initial() for s in series}
    last: dict[str, Kline] = {}
    first_close: dict[str, Decimal] = {}
    skipped: Counter[str] = Counter()
    trades: list[Trade] = []
    curve: list[EquityPoint] = []
    bars, late = 0, 0
    stride = max(1, sum(len(s.rows) for s in series) // curve_points) if curve_points else 0
    for one, row in merged(series):
        symbol, kline = one.symbol, row.kline(one.symbol, one.interval)
        if not is_newer(kline, last.get(symbol)):
            late += 1
            continue
        bars += 1
        last[symbol] = kline
        first_close.setdefault(symbol, kline.close)
        ledger.mark(symbol, kline.close, kline.event_time)
        position = ledger.positions[symbol]
        exit_first = exit_signal(parameters.limits, position, kline)
        states[symbol], signal = strategy.decide(states[symbol], kline, position)
        signal = exit_first or signal
        if signal is not None and (signal.side is Side.BUY or position.quantity > 0):
            trade = _trade(ledger, kline, signal, parameters, len(trades) + 1)
            if isinstance(trade, Refusal):
                skipped[trade.name] += 1
            else:
                trades.append(trade)
        if stride and bars % stride == 0:
            curve.append(EquityPoint(kline.event_time, ledger.equity()))
    outcomes = tuple(
        SymbolOutcome(
            symbol=s.symbol,
            quote_asset=rules[s.symbol].quote_asset,
            first_close=first_close[s.symbol],
            last_close=last[s.symbol].close,
            position=ledger.positions[s.symbol].quantity,
        )
        for s in series
    )
    return RunReport(
        bars=bars,
        dropped=late + sum(s.dropped for s in series),
        symbols=outcomes,
        start_cash=cash,
        cash=ledger.cash,
        equity=ledger.equity(),
        skipped=skipped,
        trades=tuple(trades),
        curve=tuple(curve),
    )


def _trade(
    ledger: Ledger, kline: Kline, signal: Signal, parameters: SizingParameters, trade_id: int
) -> Trade | Refusal:
    sized = size_order(ledger, kline.symbol, signal, kline.close, kline.event_time, parameters)
    if isinstance(sized, Refusal):
        return sized
    intent = OrderIntent(
        client_order_id=client_order_id("backtest", MODE, kline.symbol, signal.side, kline.open_time, kline.event_time),
        symbol=kline.symbol,
        side=signal.side,
        quantity=sized.quantity,
        close=kline.close,
        open_time=kline.open_time,
        event_time=kline.event_time,
        reason=signal.reason,
    )
    fill = paper_fill(
        intent.client_order_id,
        trade_id,
        ledger.rules[kline.symbol],
        signal.side,
        sized.quantity,
        kline.close,
        kline.event_time,
        parameters,
    )
    ledger.book(fill, kline.event_time)
    trade = trade_of(intent, [fill], MODE, "backtest")
    if trade is None:
        raise AssertionError("a paper fill always makes a trade")
    return trade
