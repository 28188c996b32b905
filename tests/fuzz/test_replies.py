"""REST replies: whatever comes, a call ends in an answer that is in the reply, or in an error of the port."""

import json
import socket
import threading
from contextlib import contextmanager, suppress
from decimal import Decimal

import pytest

from bot.adapters.binance import BinanceExchange
from bot.domain.kline import Kline
from bot.ports import ExchangeError, OrderInDoubt, OrderNotSent, OrderRejected
from bot.supervision.testing import ManualClock
from tests.fuzz.garbage import CASES, cases, nearly
from tests.support.builders import NOON, an_intent, exchange_info, symbol_info

pytestmark = pytest.mark.timeout(7200)
INT64 = range(-(2**63), 2**63)
INTENT = an_intent(quantity="1", client_order_id="bh-1-2")

ORDER = {"symbol": "BTCUSDT", "orderId": 28, "orderListId": -1, "clientOrderId": "bh-1-2", "transactTime": NOON}
ORDER |= {"price": "0.00000000", "origQty": "1.00000000", "executedQty": "1.00000000", "side": "BUY", "type": "MARKET"}
ORDER |= {"cummulativeQuoteQty": "100.00000000", "status": "FILLED", "timeInForce": "GTC", "time": NOON}
FILL = {"price": "100.00000000", "commission": "0.00050000", "commissionAsset": "BTC"}
PLACED = {
    **ORDER,
    "fills": [{**FILL, "qty": "0.60000000", "tradeId": 56}, {**FILL, "qty": "0.40000000", "tradeId": 57}],
}
TRADE = {**FILL, "symbol": "BTCUSDT", "id": 56, "orderId": 28, "qty": "1.00000000", "quoteQty": "100.00000000"}
TRADE |= {"time": NOON, "isBuyer": True, "isMaker": False, "isBestMatch": True}
ROW = [NOON, "1.0", "2.0", "0.5", "1.5", "10.0", NOON + 59_999, "15.0", 5, "1", "2", "0"]
ACCOUNT = {"makerCommission": 10, "canTrade": True, "accountType": "SPOT", "uid": 354937868, "permissions": ["SPOT"]}
ACCOUNT |= {
    "balances": [{"asset": "BTC", "free": "1.0", "locked": "0.0"}, {"asset": "USDT", "free": "9", "locked": "1"}]
}
INFO = exchange_info(symbol_info(MIN_NOTIONAL="10"))
INFO["rateLimits"] = [
    {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000},
    {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 100},
]
ERROR = {"code": -2010, "msg": "Account has insufficient balance for requested action."}
BOOK = [{"symbol": "BTCUSDT", "bidPrice": "99.0", "bidQty": "1", "askPrice": "101.0", "askQty": "1"}]

CALLS = {
    "place": (PLACED, lambda exchange: exchange.place(INTENT)),
    "find": (ORDER, lambda exchange: exchange.find(INTENT)),
    "balances": (ACCOUNT, lambda exchange: exchange.balances()),
    "free_balance": (ACCOUNT, lambda exchange: exchange.free_balance("BTC")),
    "can_trade": (ACCOUNT, lambda exchange: exchange.can_trade()),
    "uid": (ACCOUNT, lambda exchange: exchange.uid()),
    "may_withdraw": ({"enableWithdrawals": False, "ipRestrict": True}, lambda exchange: exchange.may_withdraw()),
    "open_orders": ([ORDER], lambda exchange: exchange.open_orders("BTCUSDT")),
    "orders_since": ([ORDER], lambda exchange: exchange.orders_since("BTCUSDT", NOON - 1000)),
    "order_by_id": (ORDER, lambda exchange: exchange.order_by_id("BTCUSDT", 28)),
    "trades_since": ([TRADE], lambda exchange: exchange.trades_since("BTCUSDT", from_id=1)),
    "average_price": ({"mins": 5, "price": "100.0", "closeTime": NOON}, lambda e: e.average_price("BTCUSDT")),
    "book_prices": (BOOK, lambda exchange: exchange.book_prices(["BTCUSDT"])),
    "rules": (INFO, lambda exchange: exchange.rules(["BTCUSDT"])),
    "closed_klines": ([ROW], lambda exchange: exchange.closed_klines("BTCUSDT", "1m", NOON - 60_000)),
}
# The same document answers what a call asks beside.
BESIDE = {"find": {"myTrades": [TRADE]}}


def an_exchange(answer):
    """An exchange whose replies are `answer(path)`, without a socket."""
    exchange = BinanceExchange("http://127.0.0.1:1", ManualClock(NOON), "k" * 64, "s" * 64)
    client = exchange._client

    def send(verb, path, *_):
        return b'{"serverTime": %d}' % (NOON + 600_000) if path == "time" else answer(path)

    client._send = send
    return exchange


def asked(call, exchange):
    """What a call gives; None where it ends in an error of the port, whose text is one line."""
    try:
        return call(exchange)
    except ExchangeError as error:
        assert_one_line(error)
        return None


def assert_one_line(error):
    assert "\n" not in str(error)
    assert len(str(error)) < 600


def amounts_of(value):
    """Every Decimal and every whole number in an answer."""
    if isinstance(value, Decimal | int):
        yield value
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from amounts_of(item)
    elif isinstance(value, dict):
        yield from amounts_of(list(value.values()))
    elif hasattr(value, "__struct_fields__"):
        yield from amounts_of([getattr(value, name) for name in value.__struct_fields__])


def assert_usable(name, answer, data):
    for amount in amounts_of(answer):
        assert amount.is_finite() if isinstance(amount, Decimal) else amount in INT64
    if name in ("place", "find") and answer is not None:
        # A trade is booked only if it is this order's, and all of it.
        said = json.loads(data.decode("utf-8", "replace"), parse_int=str, parse_float=str)
        assert (said["symbol"], said["clientOrderId"]) == (INTENT.symbol, INTENT.client_order_id)
        if answer.status.is_final:
            assert sum(fill.quantity for fill in answer.fills) == Decimal(said["executedQty"])
        assert all(fill.price > 0 and fill.quantity > 0 and fill.commission >= 0 for fill in answer.fills)
    if name == "closed_klines":
        for kline in answer or []:
            assert isinstance(kline, Kline)
            assert min(kline.open, kline.high, kline.low, kline.close) > 0
        times = [kline.open_time for kline in answer or []]
        assert times == sorted(set(times))


def test_no_reply_does_harm():
    answered = set()
    names = list(CALLS)
    for number, random in cases(0.25, "replies"):
        name = names[number % len(names)]
        document, call = CALLS[name]
        data = nearly(document if random.random() < 0.95 else random.choice((ERROR, {}, [], PLACED, ACCOUNT)), random)
        beside = {path: nearly(other, random) for path, other in BESIDE.get(name, {}).items()}
        exchange = an_exchange(lambda path, data=data, beside=beside: beside.get(path, data))
        try:
            answer = asked(call, exchange)
            assert_usable(name, answer, data)
        except Exception as failed:
            raise AssertionError(f"case {number}, {name}: {data[:2000]!r} {beside!r}") from failed
        if answer is not None:
            answered.add(name)
    assert answered == set(CALLS)


# Over a socket: what is wrong may also be the HTTP.

STATUSES = (200, 200, 200, 400, 400, 401, 403, 404, 409, 418, 429, 451, 500, 502, 503, 504, 301, 100, 204, 999)
HEADS = (
    *(
        b"",
        b"Retry-After: x\r\n",
        b"Retry-After: -1\r\n",
        b"Retry-After: 99999999999999999999\r\n",
        b"Retry-After: 1\r\n",
    ),
    *(b"X-MBX-USED-WEIGHT-1M: NaN\r\n", b"X-MBX-USED-WEIGHT-1M: 9999999999999\r\n", b"X-MBX-USED-WEIGHT-1M: -5\r\n"),
    *(
        b"Content-Encoding: gzip\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Location: http://127.0.0.1:1/\r\n",
        b"A" * 70_000,
    ),
    *(b": \r\n", b"\xff\xfe: \xff\r\n", b"Content-Length: 5\r\n", b"Content-Length: x\r\n", b"Date: never\r\n"),
)


def raw_reply(body, random):
    """An HTTP reply that is nearly one."""
    head = b"HTTP/1.1 %d Word\r\nContent-Type: application/json\r\n" % random.choice(STATUSES)
    if random.random() < 0.4:
        head += random.choice(HEADS)
    length = len(body) + random.choice((0, 0, 0, 0, 0, -3, 10, 10**12))
    data = head + b"Content-Length: %d\r\n\r\n" % max(0, length) + body
    step = random.random()
    if step < 0.1:
        return data[: random.randrange(len(data) + 1)]
    if step < 0.15:
        return random.randbytes(random.randrange(300))
    return data


@contextmanager
def raw_server():
    """Yield (url, replies): each request is answered by the last of `replies`, then the connection is closed."""
    listener = socket.create_server(("127.0.0.1", 0))
    replies = []

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                connection.settimeout(2)
                head = b""
                while b"\r\n\r\n" not in head:
                    chunk = connection.recv(65_536)
                    if not chunk:
                        break
                    head += chunk
                if head.startswith(b"GET /api/v3/time"):
                    body = b'{"serverTime": %d}' % NOON
                    connection.sendall(
                        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
                    )
                elif head:
                    connection.sendall(replies[-1])

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", replies
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.mark.skipif(CASES < 1000, reason="a share of less than one")
def test_no_http_does_harm():
    with raw_server() as (url, replies):
        for number, random in cases(0.005, "http"):
            name = random.choice(("place", "find", "balances", "rules", "closed_klines", "may_withdraw"))
            document, call = CALLS[name]
            replies.append(raw_reply(nearly(random.choice((document, ERROR)), random), random))
            # Another for each case, since a limit that was answered makes it wait.
            exchange = BinanceExchange(url, ManualClock(NOON), "k" * 64, "s" * 64, read_timeout_ms=300)
            try:
                answer = asked(call, exchange)
                if name == "place":
                    assert_usable(name, answer, replies[-1].partition(b"\r\n\r\n")[2])
            except Exception as failed:
                raise AssertionError(f"case {number}, {name}: {replies[-1][:2000]!r}") from failed


@pytest.mark.parametrize("status", sorted(set(STATUSES) - {200, 100, 204}))
def test_an_order_whose_reply_is_no_success_ends_in_one_of_three_ways(status):
    with raw_server() as (url, replies):
        replies.append(b"HTTP/1.1 %d Word\r\nContent-Length: 6\r\n\r\n<html>" % status)
        exchange = BinanceExchange(url, ManualClock(NOON), "k" * 64, "s" * 64)
        with pytest.raises((OrderInDoubt, OrderNotSent, OrderRejected)):
            exchange.place(INTENT)
