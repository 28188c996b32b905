"""Values for tests: each builder makes one thing that is legal and plain, and takes what the test is about as text."""

from decimal import Decimal

from bot.domain.adjustment import Adjustment
from bot.domain.decision import Decision
from bot.domain.exchange_info import rules_from_exchange_info
from bot.domain.filters import SymbolRules
from bot.domain.kline import Kline
from bot.domain.ledger import Ledger
from bot.domain.order import Fill, OrderIntent, Side
from bot.domain.position import Position
from bot.domain.strategy import Thresholds

MINUTE_MS = 60_000
NOON = 1_621_425_600_000  # 2021-05-19 12:00 UTC, ms


def a_kline(
    close="100",
    *,
    symbol="BTCUSDT",
    interval="1m",
    open_time=NOON,
    close_time=None,
    event_time=None,
    is_closed=True,
    **changes,
) -> Kline:
    """One update; closed by default, then its event_time is its close_time."""
    close_time = open_time + MINUTE_MS - 1 if close_time is None else close_time
    values = {
        "symbol": symbol,
        "interval": interval,
        "open_time": open_time,
        "close_time": close_time,
        "event_time": close_time if event_time is None else event_time,
        "is_closed": is_closed,
        **dict.fromkeys(("open", "high", "low", "close"), Decimal(close)),
        "volume": Decimal(1),
        "quote_volume": Decimal(close),
    }
    return Kline(**(values | changes))


def klines_of(*closes, symbol="BTCUSDT", start=NOON) -> list[Kline]:
    """Closed klines, one a minute."""
    return [a_kline(c, symbol=symbol, open_time=start + i * MINUTE_MS) for i, c in enumerate(closes)]


def mixed_klines() -> list[Kline]:
    """Two symbols, two intervals, open and closed, ties among them; in the order in which they must come back."""
    klines = [
        a_kline(
            str(minute + 1),
            symbol=symbol,
            interval=interval,
            open_time=NOON + minute * MINUTE_MS,
            event_time=NOON + minute * MINUTE_MS + second * 1000,
            is_closed=second == 59,
        )
        for minute in range(5)
        for second in (1, 2, 59)
        for symbol in ("BTCUSDT", "ETHUSDT")
        for interval in ("1m", "3m")
    ]
    assert klines == sorted(klines, key=lambda k: (k.open_time, k.is_closed, k.event_time))
    return klines


def a_decision(name="CASH", kline=None, **changes) -> Decision:
    """What was decided at a kline, one of 100 unless told."""
    kline = kline or a_kline("100")
    values = {
        "symbol": kline.symbol,
        "open_time": kline.open_time,
        "event_time": kline.event_time,
        "is_closed": kline.is_closed,
        "name": name,
        "reason": "a test",
        "close": kline.close,
        "previous_close": Decimal("102"),
        "thresholds": Thresholds(Decimal("100.98"), Decimal("103.02")),
        "position": Decimal("0"),
        "client_order_id": "",
        "time": kline.event_time + 5,
    }
    return Decision(**(values | changes))


def rules_of(
    symbol="BTCUSDT",
    *,
    step="0.00001",
    min_qty="0.00001",
    max_qty="9000",
    min_notional="10",
    notional_filter="MIN_NOTIONAL",
    max_notional="0",
    quote_asset="USDT",
) -> SymbolRules:
    return SymbolRules(
        symbol=symbol,
        base_asset=symbol.removesuffix(quote_asset),
        quote_asset=quote_asset,
        step_size=Decimal(step),
        min_qty=Decimal(min_qty),
        max_qty=Decimal(max_qty),
        min_notional=Decimal(min_notional),
        notional_filter=notional_filter,
        max_notional=Decimal(max_notional),
    )


def a_filter(name, **values) -> dict:
    return {"filterType": name, **values}


def symbol_info(
    symbol="BTCUSDT", *, lot=("0.00001", "9000", "0.00001"), market_lot=None, quote_asset="USDT", **notional
):
    """One symbol of exchangeInfo; lots are (minQty, maxQty, stepSize), e.g. `MIN_NOTIONAL="10"` adds that filter."""
    filters = [a_filter("PRICE_FILTER", minPrice="0.01", maxPrice="1000000", tickSize="0.01")]
    for name, values in (("LOT_SIZE", lot), ("MARKET_LOT_SIZE", market_lot)):
        if values is not None:
            filters.append(a_filter(name, **dict(zip(("minQty", "maxQty", "stepSize"), values, strict=True))))
    filters += [a_filter(name, minNotional=value) for name, value in notional.items()]
    return {
        "symbol": symbol,
        "status": "TRADING",
        "baseAsset": symbol.removesuffix(quote_asset),
        "quoteAsset": quote_asset,
        "filters": filters,
    }


def exchange_info(*symbols) -> dict:
    return {"timezone": "UTC", "symbols": list(symbols)}


def rules_by_info(**changes) -> SymbolRules:
    """The rules that exchangeInfo of one symbol gives."""
    symbol = changes.get("symbol", "BTCUSDT")
    return rules_from_exchange_info(exchange_info(symbol_info(**changes)), [symbol])[symbol]


def a_fill(
    side="BUY",
    quantity="1",
    price="100",
    *,
    symbol="BTCUSDT",
    commission="0",
    commission_asset=None,
    trade_id=1,
    order_id=1,
    client_order_id="bh-1",
    time=NOON,
) -> Fill:
    """One execution; the commission is in the base asset of a BUY, in the quote asset of a SELL, unless told."""
    price, quantity = Decimal(price), Decimal(quantity)
    return Fill(
        client_order_id=client_order_id,
        order_id=order_id,
        trade_id=trade_id,
        symbol=symbol,
        side=Side(side),
        price=price,
        quantity=quantity,
        quote_quantity=price * quantity,
        commission=Decimal(commission),
        commission_asset=commission_asset or (symbol.removesuffix("USDT") if side == "BUY" else "USDT"),
        time=time,
    )


def an_adjustment(
    quantity="-1", *, quote="0", price="0", symbol="BTCUSDT", adjustment_id="adj-1", time=NOON
) -> Adjustment:
    """A correction of the book: coins, cash, or both."""
    return Adjustment(
        adjustment_id=adjustment_id,
        symbol=symbol,
        quantity=Decimal(quantity),
        quote=Decimal(quote),
        reason="a test",
        time=time,
        price=Decimal(price),
    )


def an_intent(side="BUY", quantity="1", close="100", *, symbol="BTCUSDT", client_order_id="bh-1", kline=None):
    kline = kline or a_kline(close, symbol=symbol)
    return OrderIntent(
        client_order_id=client_order_id,
        symbol=symbol,
        side=Side(side),
        quantity=Decimal(quantity),
        close=Decimal(close),
        open_time=kline.open_time,
        event_time=kline.event_time,
        reason="a test",
    )


def a_position(quantity="1", average_price="100") -> Position:
    return Position(quantity=Decimal(quantity), average_price=Decimal(average_price))


def a_ledger(cash="10000", *rules, positions=None, marks=None, max_daily_loss=None) -> Ledger:
    """A ledger that already holds `positions` (symbol: quantity) and has seen `marks` (symbol: close)."""
    rules = rules or (rules_of(),)
    loss = None if max_daily_loss is None else Decimal(max_daily_loss)
    ledger = Ledger(Decimal(cash), {r.symbol: r for r in rules}, loss)
    for symbol, quantity in (positions or {}).items():
        ledger.positions[symbol] = a_position(quantity)
    for symbol, close in (marks or {}).items():
        ledger.mark(symbol, Decimal(close), NOON)
    return ledger
