"""What a frame of the kline stream says, and that none can do harm."""

import json
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.adapters.binance.stream import BadFrame, decode_frame
from bot.domain.kline import Kline
from bot.ports import ShutdownAnnounced

OPEN_TIME, CLOSE_TIME, EVENT_TIME = 1795556940000, 1795556999999, 1795556961569


def a_frame(*, E=EVENT_TIME, s="BTCUSDT", e="kline", **changes):  # noqa: N803 - the exchange's name
    candle = {"t": OPEN_TIME, "T": CLOSE_TIME, "s": "BTCUSDT", "i": "1m", "f": 4101, "L": 4139, "n": 39, "x": False}
    candle |= {"o": "64010.01000000", "c": "64012.50000000", "h": "64020.00000000", "l": "64008.40000000"}
    candle |= {"v": "3.18402000", "q": "203810.11231000", "V": "1.5", "Q": "96085.01", "B": "0"}
    return {"e": e, "E": E, "s": s, "k": candle | changes}


def decoded(frame):
    return decode_frame(json.dumps(frame).encode())


def test_an_open_kline_keeps_every_number_to_the_last_decimal():
    assert decoded(a_frame()) == Kline(
        symbol="BTCUSDT",
        interval="1m",
        open_time=OPEN_TIME,
        close_time=CLOSE_TIME,
        event_time=EVENT_TIME,
        open=Decimal("64010.01"),
        high=Decimal("64020"),
        low=Decimal("64008.4"),
        close=Decimal("64012.5"),
        volume=Decimal("3.18402"),
        quote_volume=Decimal("203810.11231"),
        is_closed=False,
        received_event_time=EVENT_TIME,
    )


def test_a_closed_kline_happened_at_its_close_time_whatever_the_stream_says():
    kline = decoded(a_frame(x=True, E=CLOSE_TIME + 37))
    assert (kline.is_closed, kline.event_time, kline.received_event_time) == (True, CLOSE_TIME, CLOSE_TIME + 37)


def test_no_open_kline_has_the_event_time_of_the_closed_one():
    """A reader of the topic that drops what it has seen by (symbol, open_time, event_time) must see both."""
    kline = decoded(a_frame(E=CLOSE_TIME))
    assert (kline.event_time, kline.received_event_time) == (CLOSE_TIME - 1, CLOSE_TIME)
    later = decoded(a_frame(E=CLOSE_TIME + 1))
    assert (later.event_time, later.received_event_time) == (CLOSE_TIME + 1, CLOSE_TIME + 1)


def test_a_combined_frame_is_the_same_kline():
    assert decoded({"stream": "btcusdt@kline_1m", "data": a_frame()}) == decoded(a_frame())


def test_a_candle_without_trades_is_a_kline():
    assert decoded(a_frame(v="0.00000000", q="0.00000000", n=0, f=-1, L=-1)).volume == 0


@pytest.mark.parametrize(
    "frame",
    [
        {"result": None, "id": 1},
        {"result": ["btcusdt@kline_1m"], "id": "a"},
        {"e": "trade", "E": 1, "s": "BTCUSDT", "p": "1"},
        {"e": "depthUpdate", "E": "odd", "s": 5, "k": [1], "u": 160},
        {"stream": "x", "data": {"e": "executionReport", "E": 1, "k": 3}},
    ],
)
def test_replies_and_other_events_are_no_klines(frame):
    assert decoded(frame) is None


@pytest.mark.parametrize(
    "frame",
    [
        {"e": "serverShutdown", "E": 1770123456789},
        {"stream": "!serverShutdown", "data": {"e": "serverShutdown", "E": 1770123456789}},
    ],
)
def test_a_shutdown_notice_is_told(frame):
    with pytest.raises(ShutdownAnnounced, match="server shutdown announced"):
        decoded(frame)


@pytest.mark.parametrize(
    "frame",
    [
        {"code": 2, "msg": "Invalid request: too many parameters"},
        {"error": {"code": 2, "msg": "Invalid request"}, "id": 1},
        {},
        [],
        "kline",
        None,
        7,
        {"e": "kline"},
        {"e": "kline", "E": 1, "s": "BTCUSDT"},
        {"e": 5, "E": 1},
        {"stream": "x", "data": 7},
        {k: v for k, v in a_frame().items() if k != "E"},
        a_frame(s="ETHUSDT"),
        a_frame(T=OPEN_TIME - 1),
        a_frame(t=OPEN_TIME * 1000, T=CLOSE_TIME * 1000),
        a_frame(t=10**30),
        a_frame(x="true"),
        a_frame(i=""),
    ],
)
def test_what_is_no_frame_of_binances_is_refused(frame):
    with pytest.raises(BadFrame):
        decoded(frame)


BAD_NUMBERS = ["NaN", "sNaN", "Infinity", "-1", "+1", "1_000", " 1", "1 ", "1\n", "1e400", "1E3", "", ".5", "5.", "0x1"]
BAD_NUMBERS += ["١", "1,5", "9" * 21, "0." + "1" * 21, 1, 1.5, None, ["1"]]


@pytest.mark.parametrize("field", list("ohlcvq"))
@pytest.mark.parametrize("number", BAD_NUMBERS)
def test_only_plain_decimal_strings_are_numbers(field, number):
    with pytest.raises(BadFrame, match=rf"\.k\.{field}"):
        decoded(a_frame(**{field: number}))


@pytest.mark.parametrize("field", list("ohlc"))
@pytest.mark.parametrize("number", ["0", "0.00000000", "000"])
def test_a_price_of_nothing_is_refused(field, number):
    with pytest.raises(BadFrame):
        decoded(a_frame(**{field: number}))


def test_a_frame_that_is_not_utf8_is_refused():
    with pytest.raises(BadFrame):
        decode_frame(json.dumps(a_frame()).encode().replace(b"64010", b"64\xff10"))


@pytest.mark.parametrize("frame", [b"[" * 100_000, b'{"z":' * 20_000, b'{"data":' + b"[" * 5000])
def test_deep_nesting_is_refused(frame):
    with pytest.raises(BadFrame):
        decode_frame(frame)


def harmless(frame: bytes):
    """Decode; whatever comes out must be a believable kline, nothing, or one of the two announced exceptions."""
    try:
        kline = decode_frame(frame)
    except (BadFrame, ShutdownAnnounced):
        return
    if kline is not None:
        for price in (kline.open, kline.high, kline.low, kline.close):
            assert price.is_finite()
            assert price > 0
        assert kline.volume >= 0
        assert kline.volume.is_finite()
        assert 0 <= kline.open_time <= kline.close_time < 10**14


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from(["e", "E", "s", "k", "data", "stream", "result", "code", "msg", "error", "id", "extra"])
fields = st.sampled_from([*"tTsiohlcvqxnfLVQB", "extra"])
odd = json_values | st.floats() | st.sampled_from([*BAD_NUMBERS, "kline", "serverShutdown", "0", 10**20, -1])


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=300))
def test_fuzz_bytes(frame):
    harmless(frame)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(names, odd, max_size=6), st.dictionaries(fields, odd, max_size=4), st.booleans())
def test_fuzz_frames_with_odd_fields(outer, inner, is_combined):
    frame = a_frame(**inner) | outer
    harmless(json.dumps({"stream": "x", "data": frame} if is_combined else frame).encode())


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 400), st.integers(0, 400), st.binary(max_size=6))
def test_fuzz_frames_cut_and_overwritten(start, length, put):
    frame = json.dumps(a_frame()).encode()
    harmless(frame[:start] + put + frame[start + length :])


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.text(min_size=2, max_size=3), json_values, max_size=4),
    st.decimals("0.00000001", "99999999", places=8, allow_nan=False),
)
def test_unknown_fields_lose_no_valid_kline(unknown, close):
    text = format(close, "f")
    assert decoded(unknown | a_frame(c=text, **{"zz" + k: v for k, v in unknown.items()})).close == Decimal(text)
