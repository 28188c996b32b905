"""The adapter against the strict simulated exchange, over real sockets: what live will run."""

import itertools
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import msgspec
import pytest
import requests

from bot.adapters.binance import BinanceExchange, BinanceMarketHistory, BinanceMarketStream
from bot.domain.kline import is_newer
from bot.domain.order import OrderIntent, OrderStatus, Side
from bot.ports import (
    ConfigurationRefused,
    ExchangeUnavailable,
    OrderInDoubt,
    OrderNotSent,
    OrderRejected,
    ShutdownAnnounced,
    StreamClosed,
)
from bot.simulator import SimulatedExchange, SimulatorConfig
from bot.supervision import SystemClock
from tests.adapters.test_rest import measure_clock

MINUTE_MS, DAY_MS = 60_000, 86_400_000
SYMBOLS = ("BTCUSDT", "ETHUSDT", "DOGEUSDT")
PATIENT = {"connect_timeout_ms": 60_000, "read_timeout_ms": 60_000}


class Simulator:
    """A running simulated exchange and its control interface."""

    def __init__(self, ends):
        self.ends = ends
        self._numbers = itertools.count()

    def exchange(self, secret=None, **settings):
        ends, settings = self.ends, {"recv_window_ms": 60_000, **PATIENT, **settings}
        return BinanceExchange(ends.rest_url, SystemClock(), ends.api_key, secret or ends.api_secret, **settings)

    def post(self, to, **values):
        answer = requests.post(self.ends.rest_url + to, json=values, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def fault(self, kind, **values):
        self.post("/sim/fault", kind=kind, **values)

    def orders_by_id(self):
        """How many orders of each client order id were executed."""
        state = requests.get(self.ends.rest_url + "/sim/state", timeout=60).json()
        return Counter(order["clientOrderId"] for order in state["orders"] if "reject" not in order)

    def requests(self):
        """How often each path was asked."""
        return Counter(requests.get(self.ends.rest_url + "/sim/state", timeout=60).json()["requests"])

    def intent(self, quantity="0.001", side=Side.BUY, symbol="BTCUSDT"):
        name = f"test-{next(self._numbers)}"
        return OrderIntent(name, symbol, side, Decimal(quantity), Decimal(1), 0, 0, "test")


@pytest.fixture(scope="module", params=["com", "us"])
def simulator(request):
    running = SimulatedExchange(SimulatorConfig(profile=request.param, interval_ms=50, seed=7))
    try:
        yield Simulator(running.start())
    finally:
        running.stop()


@pytest.fixture
def exchange(simulator):
    return simulator.exchange()


@pytest.fixture
def complaints():
    return []


@pytest.fixture
def connect(simulator, complaints):
    opened = []

    def connect(*symbols):
        stream = BinanceMarketStream(simulator.ends.ws_url, complaints.append, SystemClock(), 60_000, 60_000)
        connection = stream.connect(symbols or SYMBOLS[:1], "1m")
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        connection.close()


def take(connection, count):
    klines = []
    while len(klines) < count:
        if (kline := connection.receive()) is not None:
            klines.append(kline)
    return klines


class TestStream:
    @pytest.mark.parametrize("symbol", SYMBOLS)
    def test_each_symbols_klines_come_in_order(self, connect, complaints, symbol):
        klines = take(connect(symbol), 5)
        assert {(k.symbol, k.interval) for k in klines} == {(symbol, "1m")}
        assert all(is_newer(later, earlier) for earlier, later in itertools.pairwise(klines))
        assert complaints == []

    def test_all_symbols_share_a_connection(self, connect):
        assert {kline.symbol for kline in take(connect(*SYMBOLS), 3 * len(SYMBOLS))} == set(SYMBOLS)

    def test_a_garbage_frame_costs_nothing_but_itself(self, simulator, connect, complaints):
        connection = connect()
        take(connection, 1)
        simulator.fault("ws_frame", text='{"e":"kline","E":1,"s":"BTCUSDT","k":{"o":"NaN"}}')
        while not complaints:
            take(connection, 1)
        take(connection, 4)
        assert connection.bad_frames == len(complaints) == 1

    def test_a_shutdown_notice(self, simulator, connect):
        connection = connect()
        take(connection, 1)
        simulator.fault("ws_frame", text='{"e":"serverShutdown","E":1770123456789}')
        with pytest.raises(ShutdownAnnounced, match="server shutdown announced"):
            take(connection, 10_000)
        assert len(take(connection, 1)) == 1

    def test_a_cut(self, simulator, connect):
        connection = connect()
        take(connection, 1)
        simulator.fault("ws_cut")
        with pytest.raises(StreamClosed):
            take(connection, 10_000)
        assert len(take(connect(), 1)) == 1

    def test_a_silent_connection(self, simulator, connect):
        connection = connect()
        take(connection, 1)
        simulator.fault("ws_silent", ms=60_000)
        connection._socket.expect_every(400)
        with pytest.raises(StreamClosed, match="silent"):
            take(connection, 10_000)


def assert_measured(exchange, skew_ms):
    """The exchange's clock is that of this machine and the skew, but for the time that measuring it took."""
    before = SystemClock().now_ms()
    measured = exchange.now_ms() - skew_ms
    after = SystemClock().now_ms()
    took = after - before + 5
    assert before - took <= measured <= after + took


class TestHistory:
    def test_all_closed_klines_and_no_open_one(self, simulator):
        history = BinanceMarketHistory(simulator.ends.rest_url, SystemClock(), **PATIENT)
        start = (history.now_ms() // MINUTE_MS - 1000) * MINUTE_MS
        klines = history.closed_klines("ETHUSDT", "1m", start + 1)
        after = history.now_ms()
        assert [k.open_time for k in klines[:2]] == [start + MINUTE_MS, start + 2 * MINUTE_MS]
        assert {b.open_time - a.open_time for a, b in itertools.pairwise(klines)} == {MINUTE_MS}
        assert 999 <= len(klines) <= 1000
        assert all(k.is_closed and k.close_time < after for k in klines)

    def test_rules(self, simulator, exchange):
        rules = exchange.rules(SYMBOLS)
        assert set(rules) == set(SYMBOLS)
        assert rules["BTCUSDT"].base_asset == "BTC"
        with pytest.raises(ConfigurationRefused, match="NOUSDT: no such symbol"):
            exchange.rules(["BTCUSDT", "NOUSDT"])

    def test_the_clock(self, exchange):
        assert_measured(exchange, 0)


class TestOrders:
    def test_buy_and_sell_to_the_last_decimal(self, simulator, exchange):
        coins, money = exchange.free_balance("BTC"), exchange.free_balance("USDT")
        bought = exchange.place(simulator.intent("0.012"))
        assert bought.status is OrderStatus.FILLED
        assert sum(f.quantity for f in bought.fills) == Decimal("0.012")
        coins += sum(f.quantity - f.commission for f in bought.fills)
        money -= sum(f.quote_quantity for f in bought.fills)
        assert (exchange.free_balance("BTC"), exchange.free_balance("USDT")) == (coins, money)
        sold = exchange.place(simulator.intent("0.011", Side.SELL))
        money += sum(f.quote_quantity - f.commission for f in sold.fills)
        assert exchange.free_balance("USDT") == money

    def test_what_is_found_is_what_was_placed(self, simulator, exchange):
        intent = simulator.intent("5000", symbol="DOGEUSDT")
        placed = exchange.place(intent)
        assert exchange.find(intent) == placed
        assert exchange.find(simulator.intent()) is None

    @pytest.mark.parametrize(("quantity", "code"), [("0.0000001", -1013), ("0.00001", -1013), ("5", -2010)])
    def test_refusals(self, simulator, exchange, quantity, code):
        with pytest.raises(OrderRejected) as rejected:
            exchange.place(simulator.intent(quantity))
        assert rejected.value.code == code

    def test_a_wrong_secret(self, simulator):
        exchange = simulator.exchange(secret="0" * 64)
        with pytest.raises(OrderRejected, match="BOT_API_SECRET is not the secret"):
            exchange.place(simulator.intent())
        with pytest.raises(ConfigurationRefused, match="BOT_API_SECRET is not the secret"):
            exchange.free_balance("USDT")

    def test_a_partial_fill_that_expired(self, simulator, exchange):
        simulator.fault("partial_fill", fraction="0.5")
        intent = simulator.intent("0.004")
        report = exchange.place(intent)
        assert report.status is OrderStatus.EXPIRED
        assert sum(f.quantity for f in report.fills) == Decimal("0.002")
        assert exchange.find(intent) == report

    def test_traders_at_once_get_their_own_fills(self, simulator, exchange):
        intents = [simulator.intent("100", symbol="DOGEUSDT") for _ in range(24)]
        with ThreadPoolExecutor(8) as pool:
            reports = list(pool.map(exchange.place, intents))
        assert [r.client_order_id for r in reports] == [i.client_order_id for i in intents]
        assert len({r.order_id for r in reports}) == len(intents)


class TestAccount:
    def test_trades_and_orders_are_those_placed(self, simulator, exchange):
        start = exchange.now_ms()
        intent = simulator.intent("0.003")
        placed = exchange.place(intent)
        trades = exchange.trades_since("BTCUSDT", from_id=placed.fills[0].trade_id)
        shown = [(t.trade_id, t.order_id, t.price, t.quantity, t.commission, t.commission_asset) for t in trades]
        assert shown == [
            (f.trade_id, f.order_id, f.price, f.quantity, f.commission, f.commission_asset) for f in placed.fills
        ]
        assert all(t.is_buyer and t.symbol == "BTCUSDT" for t in trades)
        assert exchange.trades_since("BTCUSDT", start_time=start - DAY_MS)[-len(trades) :] == trades
        order = exchange.order_by_id("BTCUSDT", placed.order_id)
        assert (order.client_order_id, order.status, order.side) == (
            intent.client_order_id,
            OrderStatus.FILLED,
            Side.BUY,
        )
        assert order.quote_quantity == sum(f.quote_quantity for f in placed.fills)
        assert order in exchange.orders_since("BTCUSDT", start - 3 * DAY_MS)
        assert order not in exchange.open_orders("BTCUSDT")
        assert exchange.order_by_id("BTCUSDT", 10**9) is None
        assert exchange.can_trade()

    def test_a_bound_that_the_book_does_not_reach_fills_nothing(self, simulator, exchange):
        intent = msgspec.structs.replace(simulator.intent("0.003"), limit_price=Decimal("50000"))
        report = exchange.place(intent)
        assert (report.status, report.fills) == (OrderStatus.EXPIRED, ())
        assert exchange.find(intent) == report

    def test_a_bound_beyond_the_book_fills(self, simulator, exchange):
        intent = msgspec.structs.replace(simulator.intent("0.003"), limit_price=Decimal("90000"))
        report = exchange.place(intent)
        assert report.status is OrderStatus.FILLED
        assert all(f.price <= Decimal("90000") for f in report.fills)


class TestDoubt:
    @pytest.mark.parametrize("kind", ["order_executed_no_reply", "order_executed_5xx"])
    def test_an_order_whose_reply_was_lost_is_found_and_was_sent_once(self, simulator, exchange, kind):
        intent = simulator.intent("0.002")
        simulator.fault(kind)
        with pytest.raises(OrderInDoubt):
            exchange.place(intent)
        report = exchange.find(intent)
        assert report.status is OrderStatus.FILLED
        assert sum(f.quantity for f in report.fills) == Decimal("0.002")
        assert simulator.orders_by_id()[intent.client_order_id] == 1

    def test_an_order_that_was_lost_is_not_found(self, simulator, exchange):
        intent = simulator.intent("0.002")
        simulator.fault("order_lost_no_reply")
        with pytest.raises(OrderInDoubt):
            exchange.place(intent)
        assert exchange.find(intent) is None
        assert simulator.orders_by_id()[intent.client_order_id] == 0

    def test_a_reply_that_comes_too_late(self, simulator):
        exchange = simulator.exchange(read_timeout_ms=200)
        measure_clock(exchange)
        intent = simulator.intent("0.002")
        simulator.fault("delay", ms=60_000, path="/api/v3/order")
        with pytest.raises(OrderInDoubt, match="no reply within 200 ms"):
            exchange.place(intent)

    def test_html_instead_of_an_answer(self, simulator, exchange):
        simulator.fault("reply", status=502, body="<html>Bad Gateway</html>", headers={}, path="/api/v3/order")
        with pytest.raises(OrderInDoubt, match="HTTP 502"):
            exchange.place(simulator.intent())

    def test_a_limit_ends_all_calls_of_this_client(self, simulator, exchange):
        body = '{"code":-1003,"msg":"Too much request weight used."}'
        simulator.fault("reply", status=429, body=body, headers={"Retry-After": "30"}, path="/api/v3/order")
        with pytest.raises(OrderNotSent, match="Too much request weight"):
            exchange.place(simulator.intent())
        with pytest.raises(ExchangeUnavailable, match=r"pausing (30|2\d)\."):
            exchange.free_balance("USDT")

    @pytest.mark.parametrize("skew_ms", [-70_000, 70_000])
    def test_a_clock_that_jumped_is_measured_again(self, simulator, exchange, skew_ms):
        exchange.now_ms()
        simulator.fault("clock_skew", ms=skew_ms)
        try:
            assert exchange.place(simulator.intent()).status is OrderStatus.FILLED
            assert abs(exchange.now_ms() - SystemClock().now_ms() - skew_ms) < abs(skew_ms) / 2
        finally:
            simulator.fault("clock_skew", ms=0)


def test_the_exchange_never_saw_a_second_order_of_one_id(simulator):
    """Runs last: over everything above."""
    assert max(simulator.orders_by_id().values(), default=1) == 1
