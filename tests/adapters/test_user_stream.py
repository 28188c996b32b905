"""The account's own stream: frames of the documentation, and the strict simulated exchange over real sockets."""

import dataclasses
import json
from decimal import Decimal

import pytest

from bot.adapters.binance import BinanceAccountStream
from bot.adapters.binance.client import RestClient
from bot.adapters.binance.errors import CallFailed
from bot.adapters.binance.sockets import FrameSocket
from bot.adapters.binance.user_stream import RENEW_MS, BadEvent, decode_event
from bot.domain.order import Fill, Side
from bot.messages import BalanceMoved, BalancesReported, ExecutionReported
from bot.ports import StreamClosed
from bot.simulator import SimulatedExchange, SimulatorConfig
from bot.simulator.profiles import PROFILES
from bot.supervision import SystemClock
from bot.supervision.testing import ManualClock
from tests.adapters.test_against_simulator import Simulator
from tests.support.ports import unused_port

TRADE = {
    "e": "executionReport",
    "E": 1795557016730,
    "s": "BTCUSDT",
    "c": "bk-3f9a",
    "S": "BUY",
    "o": "MARKET",
    "f": "GTC",
    "q": "0.00833000",
    "p": "0.00000000",
    "P": "0.00000000",
    "F": "0.00000000",
    "g": -1,
    "C": "",
    "x": "TRADE",
    "X": "FILLED",
    "r": "NONE",
    "i": 4281765,
    "l": "0.00333000",
    "z": "0.00833000",
    "L": "60013.00000000",
    "n": "0.00000333",
    "N": "BTC",
    "T": 1795557016720,
    "t": 913552,
    "I": 9923451,
    "w": False,
    "m": False,
    "M": True,
    "O": 1795557016720,
    "Z": "499.88329000",
    "Y": "199.84329000",
    "Q": "0.00000000",
    "W": 1795557016720,
    "V": "EXPIRE_MAKER",
}
FILL = Fill(
    "bk-3f9a",
    4281765,
    913552,
    "BTCUSDT",
    Side.BUY,
    Decimal(60013),
    Decimal("0.00333"),
    Decimal("199.84329"),
    Decimal("0.00000333"),
    "BTC",
    1795557016720,
)


def decoded(event, form="event"):
    frame = event if form == "raw" else {form: event, "subscriptionId": 0}
    return decode_event(json.dumps(frame).encode())


@pytest.mark.parametrize("form", ["event", "data", "raw"])
def test_an_execution_in_each_of_the_three_forms(form):
    report = decoded(TRADE, form)
    assert report == ExecutionReported(
        "BTCUSDT", "bk-3f9a", 4281765, Side.BUY, "FILLED", Decimal("0.00833"), FILL, 1795557016720
    )


def test_the_step_that_executed_nothing_has_no_fill():
    report = decoded({**TRADE, "x": "NEW", "X": "NEW", "l": "0.00000000", "t": -1, "n": "0", "N": None, "z": "0"})
    assert (report.fill, report.executed_quantity) == (None, 0)


def test_a_cancelled_order_keeps_its_own_id():
    report = decoded({**TRADE, "x": "CANCELED", "X": "CANCELED", "c": "the-cancel", "C": "bk-3f9a", "t": -1})
    assert report.client_order_id == "bk-3f9a"


def test_why_an_order_expired_is_told():
    assert decoded({**TRADE, "X": "EXPIRED", "eR": "INSUFFICIENT_LIQUIDITY"}).detail == "INSUFFICIENT_LIQUIDITY"


def test_balances_and_transfers():
    position = {"e": "outboundAccountPosition", "E": 5, "u": 4, "B": [{"a": "BTC", "f": "1.5", "l": "0.25"}]}
    assert decoded(position) == BalancesReported((("BTC", Decimal("1.5"), Decimal("0.25")),), 5)
    moved = {"e": "balanceUpdate", "E": 6, "a": "BTC", "d": "-100.00000000", "T": 7}
    assert decoded(moved) == BalanceMoved("BTC", Decimal(-100), 7)


@pytest.mark.parametrize(
    "event", [{"e": "listStatus", "l": "ALL_DONE", "c": "OCO"}, {"e": "externalLockUpdate"}, {"e": "new"}]
)
def test_other_events_are_of_no_interest(event):
    assert decoded(event) is None


@pytest.mark.parametrize("kind", ["serverShutdown", "eventStreamTerminated", "listenKeyExpired"])
def test_the_end_of_the_stream(kind):
    with pytest.raises(StreamClosed, match=kind):
        decoded({"e": kind, "E": 1})


def test_a_revoked_key_ends_the_stream_with_its_fix():
    frame = {
        "id": None,
        "status": 401,
        "error": {"code": -2015, "msg": "Invalid API-key, IP, or permissions for action."},
    }
    with pytest.raises(StreamClosed, match="check BOT_API_KEY"):
        decode_event(json.dumps(frame).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"l": "NaN"},
        {"z": "1_000"},
        {"L": "-1"},
        {"S": "HOLD"},
        {"i": "x"},
        {"n": "1e-5"},
        {"T": -1},
        {"s": ""},
        {"X": None},
    ],
    ids=str,
)
def test_what_cannot_be_believed_is_refused(change):
    with pytest.raises(BadEvent):
        decoded({**TRADE, **change})


@pytest.mark.parametrize("frame", [b"", b"garbage", b"[]", b"{}", b"\xff\xfe", b'{"event": 5}', b"[" * 100_000])
def test_garbage_is_refused(frame):
    with pytest.raises(BadEvent):
        decode_event(frame)


# Against the simulated exchange


def test_a_listen_key_is_renewed_and_one_that_ran_out_ends_the_stream():
    """Where the exchange does not know the signed stream. A frame comes with each ping, so nothing waits here."""
    us = dataclasses.replace(PROFILES["us"], subscribe_signature=False, listen_key_life_ms=1_000)
    config = SimulatorConfig(profile="us", interval_ms=50, seed=7, ping_every_ms=300)
    its_clock = ManualClock()
    running, complaints, clock = SimulatedExchange(config, clock=its_clock, profile=us), [], ManualClock(0)
    try:
        simulator = Simulator(running.start())
        stream = stream_of(simulator, complaints, listen_key_ws_url=simulator.ends.ws_url, renewal_clock=clock)
        connection = stream.connect()
        for _ in range(10):
            its_clock.advance(600)
            clock.advance(RENEW_MS)
            assert connection.receive() is None
        its_clock.advance(1_000)
        with pytest.raises(StreamClosed, match="listenKeyExpired"):
            drain(connection)
        again = stream.connect()
        assert again.receive() is None
        again.close()
    finally:
        running.stop()
    assert complaints == []


@pytest.fixture(scope="module", params=["com", "us"])
def simulator(request):
    running = SimulatedExchange(SimulatorConfig(profile=request.param, interval_ms=50, seed=7))
    try:
        yield Simulator(running.start())
    finally:
        running.stop()


def stream_of(simulator, complaints, secret=None, url=None, renewal_clock=None, **more):
    ends, clock = simulator.ends, SystemClock()
    client = RestClient(ends.rest_url, clock, ends.api_key, ends.api_secret, 60_000, 60_000, 60_000)
    client.now_ms()
    secret = secret or ends.api_secret
    return BinanceAccountStream(
        url or ends.ws_api_url, client, renewal_clock or clock, ends.api_key, secret, 60_000, complaints.append, **more
    )


@pytest.fixture
def opened(simulator):
    complaints = []
    connection = stream_of(simulator, complaints).connect()
    yield connection
    connection.close()
    assert complaints == []


def drain(connection):
    while True:
        connection.receive()


def told_of(connection, client_order_id):
    """All steps of an order, and the balances told after it."""
    steps = []
    while True:
        event = connection.receive()
        if isinstance(event, ExecutionReported) and event.client_order_id == client_order_id:
            steps.append(event)
        elif isinstance(event, BalancesReported) and steps and steps[-1].status in ("FILLED", "EXPIRED"):
            return steps, event


def test_what_the_stream_tells_of_an_order_is_what_its_reply_told(simulator, opened):
    exchange, intent = simulator.exchange(), simulator.intent("0.01")
    report = exchange.place(intent)
    steps, balances = told_of(opened, intent.client_order_id)
    assert tuple(step.fill for step in steps if step.fill is not None) == report.fills
    assert (steps[-1].status, steps[-1].executed_quantity) == ("FILLED", Decimal("0.01"))
    account = exchange.balances()
    assert all(account[asset] == (free, locked) for asset, free, locked in balances.balances)


def test_an_order_whose_reply_was_lost_is_told_of(simulator, opened):
    simulator.fault("order_executed_no_reply")
    intent = simulator.intent()
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the reply became
        simulator.exchange().place(intent)
    steps, _ = told_of(opened, intent.client_order_id)
    assert steps[-1].status == "FILLED"


@pytest.mark.parametrize("met_by", ["a question", "the stream"])
def test_nothing_connects_while_the_exchange_has_said_to_wait(met_by):
    """A connection counts as requests do, and one too many during a ban makes it longer."""
    running = SimulatedExchange(SimulatorConfig(interval_ms=50, seed=7))
    try:
        simulator = Simulator(running.start())
        stream = stream_of(simulator, [])
        simulator.fault("ban", ms=60_000)
        if met_by == "a question":
            with pytest.raises(CallFailed):
                stream._client.server_time()
        else:
            with pytest.raises(StreamClosed):
                stream.connect()
        before = simulator.requests()
        with pytest.raises(StreamClosed, match=r"pausing .* s more after HTTP 418"):
            stream.connect()
        assert simulator.requests() == before
    finally:
        running.stop()


def test_a_transfer_is_told_of(simulator, opened):
    before = simulator.exchange().balances()["ETH"][0]
    simulator.post("/sim/balance", asset="ETH", free=str(before + 5))
    while not isinstance(event := opened.receive(), BalanceMoved):
        pass
    assert (event.asset, event.delta) == ("ETH", 5)


def test_a_wrong_secret_is_refused_with_its_fix_and_shows_nothing(simulator):
    with pytest.raises(StreamClosed) as refused:
        stream_of(simulator, [], secret="w" * 64).connect()
    assert "BOT_API_SECRET is not the secret of BOT_API_KEY" in str(refused.value)
    assert simulator.ends.api_key not in str(refused.value)


def test_nobody_there_is_one_line(simulator):
    with pytest.raises(StreamClosed, match="cannot connect to the account's stream: Connection refused"):
        stream_of(simulator, [], url=f"ws://127.0.0.1:{unused_port()}/ws-api/v3").connect()


def test_a_closed_connection_says_so(simulator, opened):
    opened.close()
    with pytest.raises(StreamClosed, match="closed by us"):
        opened.receive()


def test_the_keys_show_nowhere(simulator):
    ends = simulator.ends
    shown = repr(stream_of(simulator, []))
    assert ends.api_key not in shown
    assert ends.api_secret not in shown


@pytest.mark.parametrize("address", ["ws://127.0.0.1:{port}/ws/{key}", "wss://[::1/{key}", "nothing://{key}/{key}"])
def test_a_listen_key_in_an_address_is_in_no_error(address):
    key = "k9" * 32
    with pytest.raises(StreamClosed) as refused:
        FrameSocket.open(address.format(port=unused_port(), key=key), "the account's stream", 1_000)
    assert key not in str(refused.value)
    assert "the account's stream" in str(refused.value)


def test_a_storm_of_garbage_is_few_lines_that_say_how_many_more(simulator):
    clock, complaints = ManualClock(0), []
    connection = stream_of(simulator, complaints, renewal_clock=clock).connect()
    for _ in range(30):
        simulator.fault("user_frame", text="garbage")
        assert connection.receive() is None
    assert len(complaints) == 10
    clock.advance(10_000)
    simulator.fault("user_frame", text="garbage")
    connection.receive()
    assert complaints[10].endswith("(20 more before it)")
    connection.close()
