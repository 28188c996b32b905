"""What the adapter reads of an account and of prices: pages, windows, and what is missing."""

import json
from decimal import Decimal

import pytest

from bot.adapters.binance import BinanceExchange
from bot.domain.order import OrderStatus, Side
from bot.ports import ConfigurationRefused, ExchangeBusy, ExchangeUnavailable
from bot.supervision import SystemClock
from tests.adapters.servers import http_server, reply

NOW = 1_795_557_016_000
DAY_MS = 86_400_000
API = "/api/v3/"
RESTRICTIONS = "/sapi/v1/account/apiRestrictions"


@pytest.fixture
def server():
    with http_server() as script:
        script.on(API + "time", reply(f'{{"serverTime":{NOW}}}'))
        yield script


@pytest.fixture
def exchange(server):
    return BinanceExchange(
        server.url, SystemClock(), "k" * 64, "s" * 64, connect_timeout_ms=60_000, read_timeout_ms=60_000
    )


def an_order(number, **changes):
    order = {"symbol": "BTCUSDT", "orderId": number, "clientOrderId": f"web-{number}", "side": "SELL"}
    order |= {"status": "NEW", "origQty": "0.5", "executedQty": "0.1", "cummulativeQuoteQty": "6000.5", "time": NOW}
    return order | changes


def a_trade(number, **changes):
    trade = {"symbol": "BTCUSDT", "id": number, "orderId": 7, "price": "60000", "qty": "0.1", "quoteQty": "6000"}
    return trade | {"commission": "0.01", "commissionAsset": "BNB", "time": NOW, "isBuyer": True} | changes


def listed(items):
    return reply(json.dumps(items))


def test_open_orders_of_anybody(server, exchange):
    server.on(API + "openOrders", listed([an_order(3), an_order(4, cummulativeQuoteQty="-1", status="A_NEW_ONE")]))
    first, second = exchange.open_orders("BTCUSDT")
    assert (first.order_id, first.client_order_id, first.side, first.status) == (3, "web-3", Side.SELL, OrderStatus.NEW)
    assert (first.quantity, first.executed_quantity) == (Decimal("0.5"), Decimal("0.1"))
    assert first.quote_quantity == Decimal("6000.5")
    assert (second.quote_quantity, second.status) == (None, None)
    assert server.to(API + "openOrders")[0]["symbol"] == "BTCUSDT"


class TestOrdersSince:
    def test_asked_a_day_at_a_time(self, server, exchange):
        server.on(API + "allOrders", listed([an_order(1)]), listed([]), listed([an_order(2)]))
        start = NOW - 2 * DAY_MS - 5000
        assert [o.order_id for o in exchange.orders_since("BTCUSDT", start)] == [1, 2]
        spans = [(int(p["startTime"]) - start, int(p["endTime"]) - start + 1) for p in server.to(API + "allOrders")]
        assert spans == [(0, DAY_MS), (DAY_MS, 2 * DAY_MS), (2 * DAY_MS, 3 * DAY_MS)]

    def test_a_day_with_more_than_a_page(self, server, exchange):
        pages = [range(1000), range(1000, 2000), range(2000, 2001)]
        server.on(API + "allOrders", *(listed([an_order(i) for i in page]) for page in pages))
        orders = exchange.orders_since("BTCUSDT", NOW - 3 * DAY_MS)
        assert [o.order_id for o in orders] == list(range(2001))
        assert [p.get("orderId") for p in server.to(API + "allOrders")] == [None, "1000", "2000"]


class TestTradesSince:
    def test_from_an_id_on_over_pages(self, server, exchange):
        server.on(API + "myTrades", listed([a_trade(i) for i in range(5, 1005)]), listed([a_trade(1005)]))
        trades = exchange.trades_since("BTCUSDT", from_id=5)
        assert [t.trade_id for t in trades] == list(range(5, 1006))
        assert (trades[0].commission, trades[0].commission_asset) == (Decimal("0.01"), "BNB")
        assert (trades[0].quote_quantity, trades[0].is_buyer, trades[0].time) == (Decimal(6000), True, NOW)
        assert [p["fromId"] for p in server.to(API + "myTrades")] == ["5", "1005"]

    def test_from_a_time_on_then_by_id(self, server, exchange):
        """startTime and fromId together are refused by the exchange."""
        server.on(API + "myTrades", listed([a_trade(i) for i in range(1000)]), listed([]))
        assert len(exchange.trades_since("BTCUSDT", start_time=NOW)) == 1000
        asked = [{k: v for k, v in p.items() if k in ("startTime", "fromId")} for p in server.to(API + "myTrades")]
        assert asked == [{"startTime": str(NOW)}, {"fromId": "1000"}]

    @pytest.mark.parametrize("wrong", [{}, {"from_id": 1, "start_time": 1}])
    def test_one_beginning_is_given(self, exchange, wrong):
        with pytest.raises(ValueError, match="not both"):
            exchange.trades_since("BTCUSDT", **wrong)


class TestOrderById:
    def test_found(self, server, exchange):
        server.on(API + "order", reply(json.dumps(an_order(9))))
        assert exchange.order_by_id("BTCUSDT", 9).client_order_id == "web-9"

    @pytest.mark.parametrize("code", [-2013, -2026])
    def test_there_is_none(self, server, exchange, code):
        server.on(API + "order", reply(json.dumps({"code": code, "msg": "no"}), 400))
        assert exchange.order_by_id("BTCUSDT", 9) is None

    def test_another_one_is_no_answer(self, server, exchange):
        server.on(API + "order", reply(json.dumps(an_order(8))))
        with pytest.raises(ExchangeUnavailable, match="told of 8"):
            exchange.order_by_id("BTCUSDT", 9)


def test_average_price(server, exchange):
    server.on(API + "avgPrice", reply('{"mins":5,"price":"64010.12345678"}'))
    assert exchange.average_price("BTCUSDT") == Decimal("64010.12345678")


def test_book_prices(server, exchange):
    rows = [{"symbol": "BTCUSDT", "bidPrice": "1.5", "bidQty": "1", "askPrice": "1.6", "askQty": "1"}]
    server.on(API + "ticker/bookTicker", listed(rows))
    price = exchange.book_prices(["BTCUSDT"])["BTCUSDT"]
    assert (price.bid, price.ask) == (Decimal("1.5"), Decimal("1.6"))
    with pytest.raises(ExchangeUnavailable, match="left out ETHUSDT"):
        exchange.book_prices(["BTCUSDT", "ETHUSDT"])


@pytest.mark.parametrize("side", Side)
def test_a_price_that_an_order_waits_for_is_as_urgent_as_the_order(server, exchange, side):
    rows = [{"symbol": "BTCUSDT", "bidPrice": "1.5", "bidQty": "1", "askPrice": "1.6", "askQty": "1"}]
    server.on(API + "ticker/bookTicker", listed(rows))
    server.on(API + "avgPrice", reply('{"mins":5,"price":"1"}', X_MBX_USED_WEIGHT_1M="3700"))
    exchange.average_price("BTCUSDT")
    with pytest.raises(ExchangeBusy, match="request weight"):
        exchange.book_prices(["BTCUSDT"])
    assert exchange.book_prices(["BTCUSDT"], side)["BTCUSDT"].bid == Decimal("1.5")


class TestKey:
    @pytest.mark.parametrize("may", [True, False])
    def test_whether_it_may_withdraw(self, server, exchange, may):
        server.on(RESTRICTIONS, reply(json.dumps({"ipRestrict": False, "enableWithdrawals": may})))
        assert exchange.may_withdraw() is may
        assert "signature" in server.to(RESTRICTIONS)[0]

    def test_an_exchange_that_does_not_tell(self, exchange):
        assert exchange.may_withdraw() is None

    def test_a_passing_failure_is_no_answer(self, server, exchange):
        server.on(RESTRICTIONS, reply("", 503))
        with pytest.raises(ExchangeUnavailable):
            exchange.may_withdraw()

    def test_a_wrong_key(self, server, exchange):
        server.on(RESTRICTIONS, reply('{"code":-2015,"msg":"Invalid API-key, IP, or permissions for action."}', 401))
        with pytest.raises(ConfigurationRefused, match="banned for a time"):
            exchange.may_withdraw()

    @pytest.mark.parametrize("can", [True, False])
    def test_whether_the_account_may_trade(self, server, exchange, can):
        server.on(API + "account", reply(json.dumps({"canTrade": can, "balances": []})))
        assert exchange.can_trade() is can

    def test_permissions_come_with_any_answer_about_the_account_and_are_never_asked_for(self, server, exchange):
        assert exchange.permissions() is None
        server.on(API + "account", reply('{"balances":[],"permissions":["SPOT","TRD_GRP_004"]}'))
        assert exchange.balances() == {}
        assert exchange.permissions() == {"SPOT", "TRD_GRP_004"}
        server.on(API + "account", reply('{"balances":[]}'))
        assert exchange.can_trade()
        assert exchange.permissions() is None, "an exchange that does not tell"
        assert len(server.to(API + "account")) == 2


@pytest.mark.parametrize(
    ("path", "call"),
    [
        ("openOrders", lambda e: e.open_orders("BTCUSDT")),
        ("allOrders", lambda e: e.orders_since("BTCUSDT", NOW)),
        ("myTrades", lambda e: e.trades_since("BTCUSDT", from_id=0)),
        ("avgPrice", lambda e: e.average_price("BTCUSDT")),
        ("ticker/bookTicker", lambda e: e.book_prices(["BTCUSDT"])),
    ],
)
@pytest.mark.parametrize("body", ["", "<html>", "[{}]", '{"price":"NaN"}', "[[", '[{"symbol":1}]'])
def test_what_cannot_be_believed_is_no_answer(server, exchange, path, call, body):
    server.on(API + path, reply(body))
    with pytest.raises(ExchangeUnavailable, match="not understood"):
        call(exchange)
