"""The REST adapter against scripted replies: what each becomes for the caller, and that no key is ever shown."""

import json
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from decimal import Decimal

import msgspec
import pytest

from bot.adapters.binance import BinanceExchange, BinanceMarketHistory
from bot.domain.order import OrderIntent, OrderStatus, Side
from bot.ports import (
    ConfigurationRefused,
    ExchangeError,
    ExchangeUnavailable,
    OrderInDoubt,
    OrderNotSent,
    OrderRejected,
)
from bot.supervision.testing import ManualClock
from tests.adapters.servers import CUT, HANG, Wire, http_reply, http_server, reply
from tests.support.builders import symbol_info

KEY, SECRET = "k" * 63 + "Z", "s" * 63 + "Y"
TIME, ORDER, TRADES = "/api/v3/time", "/api/v3/order", "/api/v3/myTrades"
KLINES, INFO, ACCOUNT = "/api/v3/klines", "/api/v3/exchangeInfo", "/api/v3/account"
NOW = 1_795_557_016_000
PATIENT = {"connect_timeout_ms": 60_000, "read_timeout_ms": 60_000}

INTENT = OrderIntent(
    client_order_id="bk-3f9a",
    symbol="BTCUSDT",
    side=Side.BUY,
    quantity=Decimal("0.00833000"),
    close=Decimal("60010"),
    open_time=NOW - 60_000,
    event_time=NOW,
    reason="test",
)
FILLS = [
    {
        "price": "60008.00000000",
        "qty": "0.00500000",
        "commission": "0.00000500",
        "commissionAsset": "BTC",
        "tradeId": 5,
    },
    {"price": "60013.00000000", "qty": "0.00333000", "commission": "0.00001", "commissionAsset": "BNB", "tradeId": 6},
]


class MovableClock(ManualClock):
    """A clock that stands still but for a jump of its monotonic time that a test sets."""

    jump_ms = 0

    def monotonic_ms(self):
        return super().monotonic_ms() + self.jump_ms


@pytest.fixture
def clock():
    return MovableClock()


@pytest.fixture
def server():
    with http_server() as script:
        script.on(TIME, reply(f'{{"serverTime":{NOW}}}'))
        yield script


@pytest.fixture
def exchange(server, clock):
    return BinanceExchange(server.url, clock, KEY, SECRET, **PATIENT)


@pytest.fixture
def history(server, clock):
    return BinanceMarketHistory(server.url, clock, **PATIENT)


def order_reply(**changes):
    order = {"symbol": "BTCUSDT", "orderId": 4281765, "orderListId": -1, "clientOrderId": "bk-3f9a"}
    order |= {"transactTime": NOW + 9, "executedQty": "0.00833000", "status": "FILLED", "fills": FILLS}
    order |= {"price": "0.00000000", "origQty": "0.00833000", "cummulativeQuoteQty": "499.88329000"}
    return reply(json.dumps(order | changes))


def trades_reply(*fills, order_id=4281765):
    return reply(
        json.dumps(
            [
                {k: v for k, v in f.items() if k != "tradeId"}
                | {"id": f["tradeId"], "orderId": order_id, "time": NOW + 11, "symbol": "BTCUSDT"}
                for f in fills
            ]
        )
    )


def refusal(code, message="no", status=400, **headers):
    return reply(json.dumps({"code": code, "msg": message}), status, **headers)


def measure_clock(exchange):
    """Have the exchange's clock measured, by one who waits so short a time that it may take some attempts."""
    while True:
        with suppress(ExchangeUnavailable):
            return exchange.now_ms()


class TestPlace:
    def test_the_order_as_sent(self, server, exchange):
        server.on(ORDER, order_reply())
        exchange.place(INTENT)
        (sent,) = server.to(ORDER)
        assert sent["quantity"] == "0.00833"
        assert sent["recvWindow"] == "3000"
        assert (sent["type"], sent["side"], sent["newOrderRespType"]) == ("MARKET", "BUY", "FULL")
        assert sent["newClientOrderId"] == "bk-3f9a"
        assert abs(int(sent["timestamp"]) - NOW) < 2000, "signed by the exchange's clock, not by ours"

    def test_a_bounded_order_is_limit_ioc(self, server, exchange):
        server.on(ORDER, order_reply(status="EXPIRED", executedQty="0.005", fills=FILLS[:1], type="LIMIT"))
        report = exchange.place(msgspec.structs.replace(INTENT, limit_price=Decimal("60010.10")))
        (sent,) = server.to(ORDER)
        assert (sent["type"], sent["timeInForce"], sent["price"]) == ("LIMIT", "IOC", "60010.1")
        assert (report.status, len(report.fills)) == (OrderStatus.EXPIRED, 1)

    def test_fields_that_older_replies_lack(self, server, exchange):
        order = json.loads(order_reply()[2])
        del order["transactTime"]
        server.on(ORDER, reply(json.dumps(order)))
        report = exchange.place(INTENT)
        assert (report.status, report.detail, report.fills[0].time) == (OrderStatus.FILLED, "", 0)

    def test_the_window_on_the_wire_is_the_one_that_was_set(self, server, clock):
        exchange = BinanceExchange(server.url, clock, KEY, SECRET, recv_window_ms=1234, **PATIENT)
        server.on(ORDER, order_reply()).on(ACCOUNT, reply('{"balances":[]}'))
        exchange.place(INTENT)
        exchange.free_balance("BTC")
        assert {sent["recvWindow"] for sent in server.to(ORDER) + server.to(ACCOUNT)} == {"1234"}

    def test_a_small_quantity_leaves_without_an_exponent(self, server, exchange):
        server.on(ORDER, order_reply(executedQty="0.00000001", fills=[{**FILLS[0], "qty": "0.00000001"}]))
        tiny = OrderIntent("bk-3f9a", "BTCUSDT", Side.SELL, Decimal("1E-8"), Decimal(1), 0, 0, "")
        exchange.place(tiny)
        assert server.to(ORDER)[0]["quantity"] == "0.00000001"

    def test_every_fill_is_booked_as_reported(self, server, exchange):
        server.on(ORDER, order_reply())
        report = exchange.place(INTENT)
        assert (report.status, report.order_id, report.symbol) == (OrderStatus.FILLED, 4281765, "BTCUSDT")
        first, second = report.fills
        assert (first.price, first.quantity, first.quote_quantity) == (
            Decimal("60008"),
            Decimal("0.005"),
            Decimal("300.04"),
        )
        assert (first.trade_id, first.order_id, first.time) == (5, 4281765, NOW + 9)
        assert (second.commission, second.commission_asset) == (Decimal("0.00001"), "BNB")

    @pytest.mark.parametrize("status", ["EXPIRED", "CANCELED", "EXPIRED_IN_MATCH"])
    def test_a_partial_fill_of_a_final_order_counts(self, server, exchange, status):
        server.on(ORDER, order_reply(status=status, executedQty="0.005", fills=FILLS[:1], expiryReason="WHY"))
        report = exchange.place(INTENT)
        assert (report.status, len(report.fills), report.detail) == (OrderStatus(status), 1, "WHY")

    @pytest.mark.parametrize(
        "changes",
        [
            {"status": "NEW", "executedQty": "0", "fills": []},
            {"status": "PARTIALLY_FILLED", "executedQty": "0.005", "fills": FILLS[:1]},
            {"status": "SOMETHING_NEW"},
            {"status": "NOT_PLACED"},
            {"fills": FILLS[:1]},
            {"fills": []},
            {"clientOrderId": "another"},
            {"symbol": "ETHUSDT"},
            {"executedQty": "NaN"},
            {"fills": [{**FILLS[0], "price": "-1"}, FILLS[1]]},
            {"orderId": "4281765"},
        ],
    )
    def test_a_reply_that_does_not_settle_the_order_leaves_it_in_doubt(self, server, exchange, changes):
        server.on(ORDER, order_reply(**changes))
        with pytest.raises(OrderInDoubt):
            exchange.place(INTENT)

    @pytest.mark.parametrize(
        "answer",
        [
            CUT,
            reply(""),
            reply("<html>ok</html>"),
            reply("[]"),
            reply("[" * 5000),
            reply("<html>no</html>", 403),
            reply("<html>no</html>", 404),
            reply("", 302, Location="http://127.0.0.1:1/"),
            reply("<html>bad gateway</html>", 502),
            reply("", 500),
            reply('"text"', 503),
            reply(b"\xff\xfe", 503),
            refusal(-1000, status=500),
            refusal(-1001, status=503),
            refusal(-1006, status=504),
            refusal(-1007, status=504),
            refusal(-1007, status=400),
            refusal(-1008, status=503),
            refusal(-1013, status=500),
            refusal(-2010, "Duplicate order sent."),
            refusal(-9999, "a code of tomorrow"),
        ],
        ids=repr,
    )
    def test_whatever_may_have_been_executed_is_in_doubt_and_sent_once(self, server, exchange, answer):
        server.on(ORDER, answer)
        with pytest.raises(OrderInDoubt):
            exchange.place(INTENT)
        assert len(server.to(ORDER)) == 1

    def test_no_reply_in_time_is_in_doubt(self, server, clock):
        exchange = BinanceExchange(server.url, clock, KEY, SECRET, read_timeout_ms=150)
        measure_clock(exchange)
        server.on(ORDER, HANG)
        with pytest.raises(OrderInDoubt, match="no reply within 150 ms"):
            exchange.place(INTENT)

    @pytest.mark.parametrize(
        ("code", "message", "said"),
        [
            (-1013, "Filter failure: LOT_SIZE", "Filter failure: LOT_SIZE"),
            (-1100, "Illegal characters found", "Illegal characters"),
            (-1111, "Parameter 'quantity' has too much precision.", "precision"),
            (-1112, "No orders on book for symbol.", "No orders"),
            (-1121, "Invalid symbol.", "Invalid symbol"),
            (-2010, "Account has insufficient balance for requested action.", "insufficient balance"),
            (-2010, "Market is closed.", "closed"),
            (-2010, "This action is disabled on this account.", "disabled"),
            (-2014, "API-key format invalid.", "copy it again"),
            (-2015, "Invalid API-key, IP, or permissions for action.", "check BOT_API_KEY"),
            (-1022, "Signature for this request is not valid.", "BOT_API_SECRET is not the secret"),
        ],
    )
    def test_a_refusal_for_good_carries_its_code(self, server, exchange, code, message, said):
        server.on(ORDER, refusal(code, message))
        with pytest.raises(OrderRejected, match=said) as rejected:
            exchange.place(INTENT)
        assert rejected.value.code == code

    def test_nobody_listening_means_not_sent(self, clock):
        wire = Wire(lambda _: http_reply(f'{{"serverTime":{NOW}}}'.encode()))
        exchange = BinanceExchange(f"http://127.0.0.1:{wire.port}", clock, KEY, SECRET, **PATIENT)
        exchange.now_ms()
        wire.close()
        with pytest.raises(OrderNotSent, match="Connection refused"):
            exchange.place(INTENT)

    def test_orders_take_connections_that_were_opened_ahead(self, clock):
        with closing(Wire(lambda _: http_reply(f'{{"serverTime":{NOW}}}'.encode()))) as wire:
            exchange = BinanceExchange(f"http://127.0.0.1:{wire.port}", clock, KEY, SECRET, **PATIENT)
            exchange.warm(2)
            with pytest.raises(OrderInDoubt):  # it knows nothing but the time
                exchange.place(INTENT)
            assert len(wire.received) == 2
        with pytest.raises(ExchangeUnavailable, match="cannot reach"):
            exchange.warm(2)

    @pytest.mark.parametrize("answer", [CUT, reply("", 503), refusal(-1003, status=429)], ids=repr)
    def test_without_the_exchanges_clock_nothing_is_signed_or_sent(self, server, exchange, answer):
        server.on(TIME, answer)
        with pytest.raises(OrderNotSent):
            exchange.place(INTENT)
        assert server.to(ORDER) == []

    def test_a_wrong_clock_is_measured_again_and_the_order_sent_once_more(self, server, exchange):
        server.on(TIME, reply('{"serverTime":1}'), reply('{"serverTime":1}'), reply(f'{{"serverTime":{NOW}}}'))
        server.on(ORDER, refusal(-1021, "Timestamp for this request is outside of the recvWindow."), order_reply())
        assert exchange.place(INTENT).status is OrderStatus.FILLED
        wrong, right = (int(sent["timestamp"]) for sent in server.to(ORDER))
        assert abs(wrong) < 2000
        assert abs(right - NOW) < 2000

    def test_a_clock_that_stays_wrong_is_tried_twice_and_was_not_executed(self, server, exchange):
        server.on(ORDER, refusal(-1021, "Timestamp for this request is outside of the recvWindow."))
        with pytest.raises(OrderNotSent, match="recvWindow"):
            exchange.place(INTENT)
        assert len(server.to(ORDER)) == 2

    def test_doubt_about_the_second_try_is_doubt(self, server, exchange):
        server.on(ORDER, refusal(-1021, "Timestamp"), CUT)
        with pytest.raises(OrderInDoubt):
            exchange.place(INTENT)


class TestPause:
    @pytest.mark.parametrize(
        ("answer", "pause_ms"),
        [
            (refusal(-1003, "Too much request weight used.", 429, Retry_After="7"), 7000),
            (refusal(-1003, "Way too much; IP banned until 1.", 418, Retry_After="120"), 120_000),
            (refusal(-1003, "Too much request weight used.", 429), 60_000),
            (refusal(-1003, "Too much request weight used.", 429, Retry_After="soon"), 60_000),
            (refusal(-1003, "Too many requests queued.", 400), 60_000),
        ],
        ids=repr,
    )
    def test_a_limit_stops_every_call_until_it_is_over(self, server, exchange, clock, answer, pause_ms):
        server.on(ORDER, answer, order_reply())
        with pytest.raises(OrderNotSent):
            exchange.place(INTENT)
        before = len(server.requests)
        clock.jump_ms += pause_ms - 1000
        with pytest.raises(OrderNotSent, match="pausing"):
            exchange.place(INTENT)
        for read in (
            lambda: exchange.find(INTENT),
            lambda: exchange.free_balance("BTC"),
            lambda: exchange.rules(["BTCUSDT"]),
            lambda: exchange.closed_klines("BTCUSDT", "1m", 0),
        ):
            with pytest.raises(ExchangeUnavailable, match="pausing"):
                read()
        assert len(server.requests) == before
        clock.jump_ms += 1001
        assert exchange.place(INTENT).status is OrderStatus.FILLED

    def test_too_many_orders_wait_for_their_window_and_questions_go_on(self, server, exchange, clock):
        exchange.now_ms()
        clock.jump_ms += 10_000 - exchange.now_ms() % 10_000 + 4_000  # 4 s into a window
        server.on(ORDER, refusal(-1015, "Too many new orders; current limit is 100 orders per 10 SECOND.", 429))
        server.on(ACCOUNT, reply('{"balances":[]}'))
        with pytest.raises(OrderNotSent):
            exchange.place(INTENT)
        with pytest.raises(OrderNotSent, match=r"pausing (6\.0|5\.\d) s"):
            exchange.place(INTENT)
        assert len(server.to(ORDER)) == 1
        assert exchange.free_balance("BTC") == 0
        server.on(ORDER, order_reply())
        clock.jump_ms += 6_000
        assert exchange.place(INTENT).status is OrderStatus.FILLED

    def test_an_overloaded_exchange_is_asked_about_orders_and_gets_exits_only(self, server, exchange, clock):
        busy = refusal(-1008, "Server is currently overloaded with other requests.", 503)
        server.on(ORDER, busy, order_reply())
        with pytest.raises(OrderInDoubt):
            exchange.place(INTENT)
        with pytest.raises(OrderNotSent, match="pausing"):
            exchange.place(INTENT)
        with pytest.raises(ExchangeUnavailable, match="pausing"):
            exchange.free_balance("BTC")
        server.on(TRADES, trades_reply(*FILLS))
        assert exchange.find(INTENT).status is OrderStatus.FILLED
        assert exchange.place(msgspec.structs.replace(INTENT, side=Side.SELL)).status is OrderStatus.FILLED
        clock.jump_ms += 60_000
        assert exchange.place(INTENT).status is OrderStatus.FILLED

    def test_a_firewall_is_left_alone_for_minutes(self, server, exchange, clock):
        server.on(ACCOUNT, reply("<html>forbidden</html>", 403), reply('{"balances":[]}'))
        for _ in range(2):
            with pytest.raises(ExchangeUnavailable):
                exchange.free_balance("BTC")
        assert len(server.to(ACCOUNT)) == 1
        clock.jump_ms += 120_000
        assert exchange.free_balance("BTC") == 0


class TestFind:
    def test_there_is_none(self, server, exchange):
        server.on(ORDER, refusal(-2013, "Order does not exist."))
        assert exchange.find(INTENT) is None
        assert server.to(ORDER)[0]["origClientOrderId"] == "bk-3f9a"

    def test_a_final_order_comes_with_all_its_fills(self, server, exchange):
        server.on(ORDER, order_reply(fills=[])).on(TRADES, trades_reply(*FILLS))
        report = exchange.find(INTENT)
        assert [(f.trade_id, f.time, f.commission_asset) for f in report.fills] == [
            (5, NOW + 11, "BTC"),
            (6, NOW + 11, "BNB"),
        ]
        assert report.fills[1].quote_quantity == Decimal("60013") * Decimal("0.00333")
        assert server.to(TRADES)[0]["orderId"] == "4281765"

    def test_more_fills_than_a_page(self, server, exchange):
        many = [{**FILLS[0], "qty": "0.00001", "tradeId": i} for i in range(1000)]
        server.on(ORDER, order_reply(executedQty="0.01001", fills=[]))
        server.on(TRADES, trades_reply(*many), trades_reply({**FILLS[0], "qty": "0.00001", "tradeId": 1000}))
        assert len(exchange.find(INTENT).fills) == 1001
        assert server.to(TRADES)[1]["fromId"] == "1000"

    def test_fills_that_cannot_all_be_seen_yet_are_no_answer(self, server, exchange):
        server.on(ORDER, order_reply(fills=[])).on(TRADES, trades_reply(FILLS[0]))
        with pytest.raises(ExchangeUnavailable, match="not all fills"):
            exchange.find(INTENT)

    @pytest.mark.parametrize("status", ["NEW", "PARTIALLY_FILLED"])
    def test_an_order_that_goes_on_comes_with_its_status_alone(self, server, exchange, status):
        server.on(ORDER, order_reply(status=status))
        report = exchange.find(INTENT)
        assert (report.status, report.fills) == (OrderStatus(status), ())

    def test_an_unfilled_final_order_needs_no_second_question(self, server, exchange):
        server.on(ORDER, order_reply(status="EXPIRED", executedQty="0.00000000", fills=[]))
        assert exchange.find(INTENT).fills == ()
        assert server.to(TRADES) == []

    def test_an_archived_order_ended_unfilled(self, server, exchange):
        server.on(ORDER, refusal(-2026, "Order was canceled or expired ... archived."))
        assert exchange.find(INTENT).status is OrderStatus.EXPIRED

    @pytest.mark.parametrize(
        "answer",
        [
            CUT,
            reply("<html>", 502),
            reply(""),
            order_reply(clientOrderId="other"),
            order_reply(status="PENDING_NEW"),
            order_reply(executedQty="1e5"),
            refusal(-1007, status=504),
            refusal(-1121, "Invalid symbol."),
            refusal(-1021, "Timestamp"),
        ],
        ids=repr,
    )
    def test_anything_else_is_asked_again(self, server, exchange, answer):
        server.on(ORDER, answer)
        with pytest.raises(ExchangeUnavailable):
            exchange.find(INTENT)

    def test_trades_that_cannot_be_read_are_asked_again(self, server, exchange):
        server.on(ORDER, order_reply(fills=[])).on(TRADES, refusal(-2013, "Order does not exist."))
        with pytest.raises(ExchangeUnavailable):
            exchange.find(INTENT)

    def test_a_wrong_key_is_no_passing_failure(self, server, exchange):
        server.on(ORDER, refusal(-2015, "Invalid API-key, IP, or permissions for action.", 401))
        with pytest.raises(ConfigurationRefused, match="check BOT_API_KEY"):
            exchange.find(INTENT)


def a_row(open_time, close="7.5", **changes):
    row = [open_time, "7", "8", "6", close, "2.5", open_time + 59_999, "18.75", 3, "1", "7", "0"]
    for index, value in changes.items():
        row[int(index[1:])] = value
    return row


class TestKlines:
    def test_the_unfinished_last_one_is_left_out(self, server, history):
        start = NOW // 60_000 * 60_000 - 120_000
        server.on(KLINES, reply(json.dumps([a_row(start + i * 60_000) for i in range(3)])))
        klines = history.closed_klines("BTCUSDT", "1m", start)
        assert [k.open_time for k in klines] == [start, start + 60_000]
        assert all(k.is_closed and k.event_time == k.close_time and k.received_event_time is None for k in klines)
        assert (klines[0].close, klines[0].quote_volume, klines[0].symbol) == (
            Decimal("7.5"),
            Decimal("18.75"),
            "BTCUSDT",
        )

    def test_a_kline_that_closes_while_we_ask_was_still_open_in_its_row(self, server, history):
        start = NOW // 60_000 * 60_000
        history.now_ms()
        server.on(TIME, reply(f'{{"serverTime":{start + 59_999}}}'), reply(f'{{"serverTime":{start + 60_001}}}'))
        server.on(KLINES, reply(json.dumps([a_row(start)])))
        assert history.closed_klines("BTCUSDT", "1m", start) == []
        assert len(history.closed_klines("BTCUSDT", "1m", start)) == 1

    def test_more_than_a_page(self, server, history):
        pages = [[a_row(i * 60_000) for i in range(1000)], [a_row(i * 60_000) for i in range(1000, 1500)]]
        server.on(KLINES, *(reply(json.dumps(page)) for page in pages))
        assert len(history.closed_klines("BTCUSDT", "1m", 0)) == 1500
        assert [sent["startTime"] for sent in server.to(KLINES)] == ["0", str(999 * 60_000 + 1)]

    @pytest.mark.parametrize(
        "rows",
        [
            [a_row(0), a_row(0)],
            [a_row(60_000), a_row(0)],
            [a_row(0, "NaN")],
            [a_row(0, "0")],
            [a_row(0, _1=7.5)],
            [a_row(0, _6=10**15)],
            [a_row(0)[:11]],
            {"code": 0},
        ],
        ids=repr,
    )
    def test_rows_that_cannot_be_believed(self, server, history, rows):
        server.on(KLINES, reply(json.dumps(rows)))
        with pytest.raises(ExchangeUnavailable):
            history.closed_klines("BTCUSDT", "1m", 0)


class TestRules:
    def info(self, *symbols):
        return reply(json.dumps({"symbols": [symbol_info(s, MIN_NOTIONAL="10") for s in symbols]}))

    def test_only_what_was_asked_for(self, server, history):
        server.on(INFO, self.info("BTCUSDT", "ETHUSDT"))
        assert set(history.rules(["BTCUSDT", "ETHUSDT"])) == {"BTCUSDT", "ETHUSDT"}
        assert server.to(INFO) == [{"symbols": '["BTCUSDT","ETHUSDT"]'}]

    def test_an_unknown_symbol_is_named(self, server, history):
        invalid = refusal(-1121, "Invalid symbol.")
        server.on(INFO, invalid, self.info("BTCUSDT"), invalid)
        with pytest.raises(ConfigurationRefused, match="NOUSDT: no such symbol"):
            history.rules(["BTCUSDT", "NOUSDT"])

    def test_a_symbol_left_out_of_the_reply(self, server, history):
        server.on(INFO, self.info("BTCUSDT"))
        with pytest.raises(ExchangeUnavailable, match="ETHUSDT"):
            history.rules(["BTCUSDT", "ETHUSDT"])

    def test_many_symbols_in_several_requests(self, server, history):
        names = [f"A{i}USDT" for i in range(150)]
        server.on(INFO, self.info(*names[:100]), self.info(*names[100:]))
        assert len(history.rules(names)) == 150

    def test_filters_that_cannot_be_used(self, server, history):
        server.on(INFO, reply('{"symbols":[{"symbol":"BTCUSDT","filters":[]}]}'))
        with pytest.raises(ExchangeUnavailable, match="reply not understood: BTCUSDT: no LOT_SIZE"):
            history.rules(["BTCUSDT"])


class TestClock:
    def test_measured_at_the_middle_of_the_quicker_of_two_questions(self, server, history, clock):
        assert abs(history.now_ms() - NOW) < 1000
        assert len(server.to(TIME)) == 2

    def test_not_asked_again_for_minutes_and_moves_meanwhile(self, server, history, clock):
        first = history.now_ms()
        clock.jump_ms += 299_000
        assert 299_000 <= history.now_ms() - first < 300_000
        assert len(server.to(TIME)) == 2
        clock.jump_ms += 2000
        history.now_ms()
        assert len(server.to(TIME)) == 4

    def test_an_old_measurement_serves_while_the_exchange_is_away(self, server, history, clock):
        history.now_ms()
        server.on(TIME, CUT)
        clock.jump_ms += 301_000
        assert abs(history.now_ms() - NOW - 301_000) < 1000
        asked = len(server.to(TIME))
        history.now_ms()
        assert len(server.to(TIME)) == asked

    def test_an_estimate_never_asks(self, server, history, clock):
        assert abs(history.estimated_now_ms() - clock.now_ms()) < 1000
        assert server.requests == []
        history.now_ms()
        assert abs(history.estimated_now_ms() - NOW) < 1000

    def test_reading_history_measures_the_clock(self, server, history):
        server.on(KLINES, reply("[]"))
        history.closed_klines("BTCUSDT", "1m", 0)
        assert abs(history.estimated_now_ms() - NOW) < 1000

    def test_never_measured(self, server, history):
        server.on(TIME, CUT)
        with pytest.raises(ExchangeUnavailable):
            history.now_ms()

    def test_the_window_in_which_a_request_may_be_accepted(self, server, clock):
        assert BinanceExchange(server.url, clock, KEY, SECRET, recv_window_ms=2500).acceptance_window_ms == 3500


def test_free_balance(server, exchange):
    balances = [
        {"asset": "BTC", "free": "0.10000000", "locked": "5"},
        {"asset": "USDT", "free": "10000", "locked": "0"},
    ]
    server.on(ACCOUNT, reply(json.dumps({"balances": balances})))
    assert exchange.free_balance("BTC") == Decimal("0.1")
    assert exchange.free_balance("DOGE") == 0


def test_a_blocked_region_names_the_fix(server, history):
    server.on(KLINES, reply("", 451))
    with pytest.raises(ConfigurationRefused, match=r"451.*region.*market_data\.profile = us"):
        history.closed_klines("BTCUSDT", "1m", 0)


@pytest.fixture
def hasty_threads():
    """Threads that change places after nearly every instruction."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def test_threads_never_get_one_anothers_reply(server, exchange, hasty_threads):
    server.on("/api/v3/avgPrice", lambda params: reply(json.dumps({"price": params["symbol"]})))

    def own_replies(price):
        return all(exchange.average_price(price) == Decimal(price) for _ in range(40))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(own_replies, [f"1{i}" for i in range(8)]))


@pytest.mark.parametrize("name", ["BOT_API_KEY", "BOT_API_SECRET"])
@pytest.mark.parametrize("bad", [KEY + "\n", KEY + " x", "clé" + KEY, "\x00" + KEY])
def test_a_key_that_no_header_can_carry_is_refused_unseen(clock, name, bad):
    keys = {"BOT_API_KEY": KEY, "BOT_API_SECRET": SECRET, name: bad}
    with pytest.raises(ConfigurationRefused, match=name) as refused:
        BinanceExchange("http://127.0.0.1:1", clock, *keys.values())
    assert KEY not in str(refused.value)


def test_a_missing_key(clock):
    with pytest.raises(ConfigurationRefused, match="BOT_API_KEY and BOT_API_SECRET"):
        BinanceExchange("http://127.0.0.1:1", clock, "", "")


@pytest.mark.parametrize("url", ["127.0.0.1:80", "http://127.0.0.1/api", "ws://127.0.0.1", ""])
def test_an_address_that_is_none(clock, url):
    with pytest.raises(ConfigurationRefused, match="scheme, host and port only"):
        BinanceMarketHistory(url, clock)


@pytest.mark.parametrize("answer", [CUT, refusal(-1022, "Signature"), reply("<html>", 502), reply("[]")], ids=repr)
def test_no_key_in_errors_reprs_and_logs(server, exchange, answer, caplog):
    caplog.set_level(0)
    server.on(ORDER, answer).on(ACCOUNT, answer)
    errors = []
    for call in (lambda: exchange.place(INTENT), lambda: exchange.find(INTENT), lambda: exchange.free_balance("BTC")):
        with pytest.raises(ExchangeError) as raised:
            call()
        errors += traceback.format_exception(raised.value)
    assert "signature=" not in "".join(errors)
    shown = [repr(exchange), repr(vars(exchange)), *errors, *(record.getMessage() for record in caplog.records)]
    assert KEY not in "".join(shown)
    assert SECRET not in "".join(shown)
