"""The paper exchange: fills of paper and replay, by the contract's rule."""

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from bot.adapters.paper import PaperExchange
from bot.domain.order import OrderIntent, OrderStatus, Side
from bot.domain.sizing import SizingParameters
from bot.ports import ConfigurationRefused, OrderInDoubt, OrderRejected
from bot.supervision.testing import ManualClock
from tests.support.builders import NOON, rules_of


def an_intent(name="a", *, side=Side.BUY, quantity="2", close="100", symbol="BTCUSDT"):
    return OrderIntent(name, symbol, side, Decimal(quantity), Decimal(close), NOON, NOON + 59_999, "test")


@pytest.fixture
def paper():
    parameters = SizingParameters(slippage=Decimal("0.01"), fee=Decimal("0.001"))
    return PaperExchange({"BTCUSDT": rules_of()}, parameters, ManualClock(NOON + 61_000), next_trade_id=41)


def test_a_buy_fills_at_once_above_the_close_and_pays_in_coins(paper):
    report = paper.place(an_intent())
    (fill,) = report.fills
    assert (report.status, report.order_id, fill.trade_id) == (OrderStatus.FILLED, 41, 41)
    assert (fill.price, fill.quote_quantity) == (Decimal(101), Decimal(202))
    assert (fill.commission, fill.commission_asset) == (Decimal("0.002"), "BTC")
    assert fill.time == NOON + 59_999


def test_a_sell_fills_below_the_close_and_pays_in_money(paper):
    (fill,) = paper.place(an_intent(side=Side.SELL)).fills
    assert (fill.price, fill.commission, fill.commission_asset) == (Decimal(99), Decimal("0.198"), "USDT")


def test_find_knows_what_was_filled_here_and_nothing_else(paper):
    report = paper.place(an_intent())
    assert paper.find(an_intent()) == report
    assert paper.find(an_intent("b")) is None


def test_an_id_is_never_filled_twice(paper):
    paper.place(an_intent())
    with pytest.raises(OrderInDoubt):
        paper.place(an_intent())
    assert paper.place(an_intent("b")).order_id == 42


@pytest.mark.parametrize(
    ("intent", "code", "text"),
    [
        (an_intent(quantity="0.000001"), -1013, "LOT_SIZE"),
        (an_intent(quantity="0.00001"), -1013, "MIN_NOTIONAL"),
        (an_intent(symbol="ETHUSDT"), -1121, "Invalid symbol"),
    ],
)
def test_what_an_exchange_would_refuse_is_refused(paper, intent, code, text):
    with pytest.raises(OrderRejected, match=text) as rejected:
        paper.place(intent)
    assert rejected.value.code == code
    assert paper.find(intent) is None


def test_ids_are_unique_over_threads(paper):
    with ThreadPoolExecutor(8) as pool:
        reports = list(pool.map(lambda i: paper.place(an_intent(f"o{i}")), range(400)))
    assert sorted(r.order_id for r in reports) == list(range(41, 441))


def test_rules_clock_and_window(paper):
    assert paper.rules(["BTCUSDT"]) == {"BTCUSDT": rules_of()}
    with pytest.raises(ConfigurationRefused, match="ETHUSDT"):
        paper.rules(["BTCUSDT", "ETHUSDT"])
    assert (paper.now_ms(), paper.acceptance_window_ms) == (NOON + 61_000, 0)
    with pytest.raises(ConfigurationRefused, match="wallet"):
        paper.free_balance("USDT")
