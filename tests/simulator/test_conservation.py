"""Nothing is made and nothing is lost: balances are the start plus the fills, to the last decimal, whatever is done."""

from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.simulator.depth import Depth
from bot.simulator.faults import read_fault
from tests.simulator.support import Desk

MODES = ("received", "bnb", "asset")
ASSETS = ("USDT", "BTC", "DOGE", "SOL")
RATES = (Decimal("0.001"), Decimal(0), Decimal("0.00075"))
SYMBOLS = ("BTCUSDT", "DOGEUSDT")
STEPS = {"BTCUSDT": Decimal("0.00001"), "DOGEUSDT": Decimal(1)}
TICKS = {"BTCUSDT": Decimal("0.01"), "DOGEUSDT": Decimal("0.00001")}

orders = st.fixed_dictionaries(
    {
        "symbol": st.sampled_from(SYMBOLS),
        "side": st.sampled_from(["BUY", "SELL"]),
        "kind": st.sampled_from(
            ["quantity", "quote", "GTC", "IOC", "FOK", "maker", "cancel", "move", "thin", "levels", "fees", "ending"]
        ),
        "worth": st.decimals(Decimal(1), Decimal(6000), places=2),
        "percent": st.integers(90, 110),
    }
)


def act(desk: Desk, action: dict[str, Any]) -> None:
    symbol, side = action["symbol"], action["side"]
    price = desk.exchange.markets[symbol].price
    quantity = f"{action['worth'] / price // STEPS[symbol] * STEPS[symbol]:f}"
    limit = f"{price * action['percent'] / 100 // TICKS[symbol] * TICKS[symbol]:f}"
    match action["kind"]:
        case "move":
            desk.clock.advance(1000)
            desk.set_price(symbol, limit)
        case "thin":
            desk.exchange.markets[symbol].book.release(is_thin=side == "BUY")
        case "levels":
            share = STEPS[symbol] * (1 + action["percent"] % 7)
            levels = [(price * (100 + n) / 100 // TICKS[symbol] * TICKS[symbol], share * n) for n in (1, 2, 3)]
            below = [(price * (100 - n) / 100 // TICKS[symbol] * TICKS[symbol], share * n) for n in (1, 2, 3)]
            desk.exchange.markets[symbol].book.set(Depth([[*level] for level in below], [[*level] for level in levels]))
        case "fees":
            chosen = desk.exchange.books.fees
            chosen.mode, chosen.asset = MODES[action["percent"] % 3], ASSETS[action["percent"] % 4]
            chosen.maker = chosen.taker = RATES[action["percent"] % 3]
        case "ending":
            status = ("EXPIRED", "EXPIRED_IN_MATCH", "CANCELED", "REJECTED")[action["percent"] % 4]
            part = "0" if status == "REJECTED" else f"0.{action['percent'] % 9}"
            fault = read_fault({"kind": "order_status", "status": status, "fraction": part})
            desk.exchange.faults.add(fault)
        case "cancel":
            desk.signed("DELETE", "/api/v3/openOrders", symbol=symbol)
        case "quantity":
            desk.order(symbol=symbol, side=side, quantity=quantity)
        case "quote":
            desk.order(symbol=symbol, side=side, quoteOrderQty=action["worth"])
        case "maker":
            desk.order(symbol=symbol, side=side, type="LIMIT_MAKER", quantity=quantity, price=limit)
        case force:
            desk.limit(symbol=symbol, side=side, quantity=quantity, price=limit, timeInForce=force)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(orders, min_size=1, max_size=25))
def test_balances_follow_from_fills(actions: list[dict[str, Any]]) -> None:
    desk = Desk(symbols=SYMBOLS)
    start = {"BNB": Decimal("0.01"), "SOL": Decimal("0.005")}
    for asset, amount in start.items():
        desk.exchange.books.set_free(asset, amount, 0)
    for action in actions:
        act(desk, action)
    expected = {"USDT": Decimal(10000), "BTC": Decimal(0), "DOGE": Decimal(0), **start}
    books = desk.exchange.books
    for fill in books.fills:
        base = fill.symbol.removesuffix("USDT")
        sign = 1 if fill.is_buyer else -1
        expected[base] += sign * fill.quantity
        expected["USDT"] -= sign * fill.quote
        expected[fill.commission_asset] -= fill.commission
        assert fill.quote == fill.price * fill.quantity
        received, asset = (fill.quantity, base) if fill.is_buyer else (fill.quote, "USDT")
        if fill.commission_asset == asset:
            assert any(0 <= fill.commission - received * rate < Decimal("1e-8") for rate in RATES)
    locked = dict.fromkeys(expected, Decimal(0))
    for order in books.open_orders():
        asset = "USDT" if order.is_buyer else order.symbol.removesuffix("USDT")
        locked[asset] += order.left * order.price if order.is_buyer else order.left
    for asset, balance in books.balances.items():
        assert balance.free + balance.locked == expected[asset]
        assert balance.locked == locked[asset]
        assert balance.free >= 0, asset
    for order in books.placements:
        fills = [fill for fill in books.fills if fill.order_id == order.order_id]
        assert order.executed == sum(fill.quantity for fill in fills)
        assert order.executed <= order.quantity
        assert (order.status == "FILLED") == (order.reject is None and order.executed == order.quantity)
    ids = [(fill.symbol, fill.trade_id) for fill in books.fills]
    assert len(set(ids)) == len(ids)
