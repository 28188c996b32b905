"""Frames of the kline stream and of the account's: what is valid is read to the last digit, no more is believed."""

import socket
from decimal import Decimal

import msgspec
import pytest
import websocket
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.adapters.binance.sockets import FrameSocket
from bot.adapters.binance.stream import BadFrame, BinanceKlineConnection, decode_frame
from bot.adapters.binance.user_stream import BadEvent, BinanceAccountConnection, decode_event
from bot.domain.kline import Kline
from bot.messages import BalanceMoved, BalancesReported, ExecutionReported
from bot.ports import ShutdownAnnounced, StreamClosed
from bot.supervision.testing import ManualClock
from tests.fuzz.garbage import CASES, cases, nearly, written
from tests.fuzz.judge import INVALID, VALID, read, verdict

pytestmark = pytest.mark.timeout(7200)
INT64 = range(-(2**63), 2**63)


def a_frame(random):
    """A kline as the exchange sends it, raw or combined, open or closed."""
    open_time = 1_621_425_600_000 + 60_000 * random.randrange(1000)
    event_time = open_time + random.randrange(62_000)
    price = f"{random.randrange(1, 10**12)}.{random.randrange(10**8):08}"
    candle = {"t": open_time, "T": open_time + 59_999, "s": "BTCUSDT", "i": "1m", "f": 100, "L": 200, "n": 100}
    candle |= {"o": price, "c": price, "h": price, "l": price, "x": random.random() < 0.3}
    candle |= {"v": "3.18402000", "q": "203810.11231000", "V": "1.5", "Q": "96085.01", "B": "0"}
    event = {"e": "kline", "E": event_time, "s": "BTCUSDT", "k": candle}
    return {"stream": "btcusdt@kline_1m", "data": event} if random.random() < 0.3 else event


OTHERS = (
    {"e": "serverShutdown", "E": 1770123456789},
    {"stream": "!serverShutdown", "data": {"e": "serverShutdown", "E": 1770123456789}},
    {"result": None, "id": 1},
    {"error": {"code": 2, "msg": "Invalid request"}, "id": "a"},
    {"e": "trade", "E": 1, "s": "BTCUSDT", "p": "1", "q": "2", "T": 3, "m": True},
)


def assert_one_line(error):
    text = str(error)
    assert text
    assert "\n" not in text
    assert len(text) < 1_200  # 160 characters as they came, each perhaps as \\ufffd


def assert_shutdown(data):
    assert b"serverShutdown" in data


def judge_frame(data):
    """Decode one frame; its judge's word decides. What is raised beyond the documented fails the test."""
    sort, event = verdict(data)
    kline = None
    try:
        kline = decode_frame(data)
    except BadFrame as error:
        assert_one_line(error)
    except ShutdownAnnounced:
        assert_shutdown(data)
    assert sort != VALID or kline is not None, "a valid kline is lost"
    if kline is None:
        return None
    assert sort != INVALID, f"believed: {kline}"
    numbers = (kline.open, kline.high, kline.low, kline.close, kline.volume, kline.quote_volume)
    assert all(number.is_finite() and number >= 0 for number in numbers)
    assert min(numbers[:4]) > 0
    assert 0 <= kline.open_time <= kline.close_time < 10**14
    if sort == VALID:
        candle = event["k"]
        assert numbers == tuple(Decimal(candle[key]) for key in "ohlcvq")
        assert (kline.open_time, kline.close_time) == (candle["t"], candle["T"])
        assert (kline.symbol, kline.interval, kline.is_closed) == (candle["s"], candle["i"], candle["x"])
        assert kline.event_time == (candle["T"] if candle["x"] else event["E"] - (event["E"] == candle["T"]))
    return kline


def test_no_kline_frame_is_lost_or_believed_wrongly():
    seen = {}
    for number, random in cases(0.35, "frames"):
        document = a_frame(random) if random.random() < 0.9 else random.choice(OTHERS)
        data = nearly(document, random)
        try:
            kline = judge_frame(data)
        except Exception as error:
            raise AssertionError(f"case {number}: {data[:2000]!r}") from error
        sort = verdict(data)[0], isinstance(kline, Kline)
        seen[sort] = seen.get(sort, 0) + 1
    # The frames reach both ends.
    assert seen.get((VALID, True), 0) > 100, seen
    assert seen.get((INVALID, False), 0) > 100, seen


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("eEsktTixochlvq"), inner, max_size=8),
    max_leaves=20,
)


@settings(max_examples=max(100, CASES // 200), deadline=None, database=None)
@given(st.randoms(use_true_random=False), st.lists(st.tuples(st.sampled_from("eEsktTixochlvq"), JSON), max_size=3))
def test_any_value_at_any_key_of_a_frame(random, changes):
    frame = a_frame(random)
    event = frame.get("data", frame)
    for key, value in changes:
        place = event if key in event else event["k"]
        if isinstance(place, dict):
            place[key] = value
    judge_frame(msgspec.json.encode(frame))


@settings(max_examples=max(100, CASES // 200), deadline=None, database=None)
@given(st.binary(max_size=300))
def test_any_bytes(data):
    judge_frame(data)
    judge_event(data)


# The bytes of a websocket, below its frames.


def a_websocket_frame(payload, random):
    """A frame of the websocket protocol that is nearly one: bits, opcode, mask and length may all be wrong."""
    head = random.choice((0x81, 0x81, 0x81, 0x01, 0x80, 0x82, 0x88, 0x89, 0x8A, 0x83, 0xC1, 0xFF, 0x00))
    length = random.choice((len(payload),) * 6 + (0, 1, 125, 126, 127, 2**63, 2**64 - 1))
    size = (
        bytes([length])
        if length < 126
        else b"\x7e%s" % length.to_bytes(2)
        if length < 2**16
        else b"\x7f%s" % length.to_bytes(8)
    )
    if random.random() < 0.05:
        size = bytes([size[0] | 0x80]) + size[1:]
    return bytes([head]) + size + payload


def test_no_bytes_of_a_websocket_do_harm():
    complaints = []
    for number, random in cases(0.01, "websocket"):
        payloads = [nearly(a_frame(random), random) for _ in range(random.randrange(1, 4))]
        data = b"".join(a_websocket_frame(payload, random) for payload in payloads)
        if random.random() < 0.1:
            data = random.randbytes(random.randrange(60))
        ours, theirs = socket.socketpair()
        client = websocket.WebSocket(skip_utf8_validation=True)
        client.sock, client.connected = ours, True
        client.settimeout(2)
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        if number % 2:
            stream = BinanceKlineConnection(FrameSocket(client), "BTCUSDT", complaints.append)
        else:
            stream = BinanceAccountConnection(FrameSocket(client), ManualClock(), complaints.append)
        try:
            assert_ends(stream)
        except Exception as error:
            raise AssertionError(f"case {number}: {data[:2000]!r}") from error
        finally:
            theirs.close()
            ours.close()
    assert len(complaints) > 10
    for complaint in complaints:
        assert_one_line(complaint)


def assert_ends(stream):
    """What was sent is read to its end, which is the connection's."""
    for _ in range(1000):
        try:
            stream.receive()
        except ShutdownAnnounced:
            continue
        except StreamClosed as error:
            assert_one_line(error)
            return
    raise AssertionError("it never ends")


# The account's stream.

EXECUTION = {"e": "executionReport", "E": 1499405658658, "s": "ETHBTC", "c": "bh-1-2", "S": "BUY", "o": "LIMIT"}
EXECUTION |= {"f": "GTC", "q": "1.00000000", "p": "0.10264410", "P": "0.00000000", "F": "0.00000000", "g": -1, "C": ""}
EXECUTION |= {"x": "TRADE", "X": "FILLED", "r": "NONE", "i": 4293153, "l": "1.00000000", "z": "1.00000000"}
EXECUTION |= {"L": "0.10264410", "n": "0.001", "N": "BNB", "T": 1499405658657, "t": 77, "v": 3, "I": 8641984, "w": True}
ACCOUNT_EVENTS = (
    EXECUTION,
    {**EXECUTION, "x": "NEW", "X": "NEW", "l": "0.00000000", "z": "0.00000000", "n": "0", "N": None, "t": -1},
    {"e": "outboundAccountPosition", "E": 1564034571105, "u": 1, "B": [{"a": "ETH", "f": "10000.0", "l": "0.0"}] * 2},
    {"e": "balanceUpdate", "E": 1573200697110, "a": "BTC", "d": "-100.00000000", "T": 1573200697068},
    {"e": "listenKeyExpired", "E": 1699596037418, "listenKey": "x" * 60},
    {"id": "1", "status": 200, "result": {"subscriptionId": 0}, "rateLimits": []},
    {"id": "1", "status": 400, "error": {"code": -1022, "msg": "Signature for this request is not valid."}},
)


def judge_event(data):
    """Decode one frame of the account's stream; what comes must stand in the frame and be storable."""
    try:
        event = decode_event(data)
    except BadEvent as error:
        assert_one_line(error)
        return None
    except StreamClosed as error:
        assert_one_line(error)
        return None
    if isinstance(event, ExecutionReported):
        assert event.order_id in INT64
        assert event.executed_quantity.is_finite()
        assert event.executed_quantity >= 0
        if event.fill is not None:
            fill = event.fill
            assert fill.quantity > 0
            assert fill.trade_id in INT64
            assert all(v.is_finite() and v >= 0 for v in (fill.price, fill.quote_quantity, fill.commission))
            assert f"{fill.quantity:f}" in data.decode("utf-8", "replace")
    elif isinstance(event, BalancesReported):
        for asset, free, locked in event.balances:
            assert asset in data.decode("utf-8", "replace") or b"\\" in data
            assert free.is_finite()
            assert free >= 0
            assert locked.is_finite()
            assert locked >= 0
    elif isinstance(event, BalanceMoved):
        assert event.delta.is_finite()
    return event


def test_no_event_of_the_account_does_harm():
    kinds = set()
    for number, random in cases(0.15, "account"):
        event = random.choice(ACCOUNT_EVENTS)
        wrapped = random.choice((event, {"subscriptionId": 0, "event": event}, {"stream": "k", "data": event}))
        data = nearly(wrapped, random)
        try:
            kinds.add(type(judge_event(data)))
        except Exception as error:
            raise AssertionError(f"case {number}: {data[:2000]!r}") from error
    assert kinds >= {ExecutionReported, BalancesReported, BalanceMoved}


@pytest.mark.parametrize("event", ACCOUNT_EVENTS[:4])
def test_an_event_with_more_to_it_is_the_same_event(event):
    more = {"zzz": [1], **dict(reversed(event.items())), "W": "new"}
    assert decode_event(written(more).encode()) == decode_event(written(event).encode()) is not None


def test_the_judge_agrees_with_what_is_written_of_klines():
    random = next(cases(1, "judge"))[1]
    frame = a_frame(random)
    assert verdict(written(frame).encode())[0] == VALID
    for bad in (b'{"e":"kline"}', b"[]", b"", b"\xff", b'{"e":"kline","E":NaN}'):
        assert verdict(bad)[0] == INVALID
    assert read(b'{"a": 1.50}') == {"a": Decimal("1.50")}
