"""A kline connection over real sockets."""

import json
import select
import socket
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress

import pytest

from bot.adapters.binance import BinanceMarketStream, sockets
from bot.ports import ShutdownAnnounced, StreamClosed
from bot.supervision.testing import ManualClock
from tests.adapters.servers import CLOSE, PING, PONG, TEXT, websocket_server
from tests.adapters.test_frames import a_frame
from tests.support.ports import unused_port


@pytest.fixture
def server():
    with websocket_server() as (url, peers):
        yield url, peers


@pytest.fixture
def complaints():
    return []


@pytest.fixture
def opened(server, complaints):
    """A connection of BTCUSDT and the server's end of it."""
    url, peers = server
    connection = a_stream(url, complaints.append).connect(["BTCUSDT"], "1m")
    yield connection, peers.get(timeout=60)
    connection.close()


def a_stream(url, on_bad_frame=print, **settings):
    return BinanceMarketStream(url, on_bad_frame, ManualClock(), **{"connect_timeout_ms": 60_000} | settings)


def text_of(**changes):
    return json.dumps(a_frame(**changes))


def test_one_combined_stream_of_all_symbols(server, complaints):
    url, peers = server
    connection = a_stream(url, complaints.append).connect(["BTCUSDT", "币USDT"], "1m")
    peer = peers.get(timeout=60)
    assert peer.path == "/stream?streams=btcusdt@kline_1m/%E5%B8%81usdt@kline_1m"
    peer.send(json.dumps({"stream": "btcusdt@kline_1m", "data": a_frame(c="7")}))
    peer.send(text_of(c="8"))
    assert [connection.receive().close for _ in range(2)] == [7, 8], "wrapped or not"
    peer.send("garbage")
    assert connection.receive() is None
    assert complaints[0].startswith("BTCUSDT and 1 more: frame refused")
    connection.close()


def test_a_storm_of_garbage_is_few_lines_that_say_how_many_more(server, complaints):
    url, peers = server
    clock = ManualClock()
    connection = BinanceMarketStream(url, complaints.append, clock).connect(["BTCUSDT"], "1m")
    peer = peers.get(timeout=60)
    for _ in range(500):
        peer.send("garbage")
        assert connection.receive() is None
    assert (connection.bad_frames, len(complaints)) == (500, 10)
    clock.advance(10_000)
    peer.send("garbage")
    connection.receive()
    assert complaints[10].endswith("(490 more before it)")
    connection.close()


def test_a_ping_is_answered_with_its_own_payload(opened):
    connection, peer = opened
    peer.send(b"1795556961569", PING)
    assert connection.receive() is None
    assert peer.receive() == (PONG, b"1795556961569")


def test_a_kline_in_pieces_with_a_ping_between_is_one_kline(opened):
    connection, peer = opened
    text = text_of(c="8")
    peer.send(text[:50], TEXT, fin=False)
    peer.send(b"x", PING)
    peer.send(text[50:], 0)
    assert connection.receive() is None
    assert connection.receive().close == 8


def test_garbage_is_counted_and_said_in_one_line_and_loses_no_kline(opened, complaints):
    connection, peer = opened
    for frame in ("garbage\n" * 100, b"\xff\xfe", text_of(c="NaN"), text_of(c="9")):
        peer.send(frame)
    assert [connection.receive() for _ in range(3)] == [None, None, None]
    assert connection.receive().close == 9
    assert connection.bad_frames == len(complaints) == 3
    assert all(line.startswith("BTCUSDT: frame refused: ") and "\n" not in line for line in complaints)
    assert max(map(len, complaints)) < 300
    assert "not a plain decimal in range at `$.k.c`" in complaints[2]


def test_a_shutdown_notice_is_told_and_klines_still_come(opened):
    connection, peer = opened
    peer.send('{"e":"serverShutdown","E":1770123456789}')
    peer.send(text_of(c="7"))
    with pytest.raises(ShutdownAnnounced):
        connection.receive()
    assert connection.receive().close == 7


@pytest.mark.parametrize("end", ["cut", "close"])
def test_an_end_by_the_server_has_its_reason(opened, end):
    connection, peer = opened
    if end == "cut":
        peer.cut()
        reason = "connection lost"
    else:
        peer.send((1008).to_bytes(2, "big") + b"Too many messages", CLOSE)
        reason = "closed by the exchange: 1008 Too many messages"
    with pytest.raises(StreamClosed, match=reason):
        connection.receive()
    with pytest.raises(StreamClosed):
        connection.receive()


def test_a_broken_websocket_frame_ends_the_stream(opened):
    connection, peer = opened
    peer.send(b"x" * 10, opcode=3)
    with pytest.raises(StreamClosed, match="connection lost"):
        connection.receive()


def test_silence_ends_the_stream_and_a_ping_is_no_silence(server, complaints):
    url, peers = server
    connection = a_stream(url, complaints.append, silence_ms=200).connect(["BTCUSDT"], "1m")
    peers.get(timeout=60).send(b"", PING)
    assert connection.receive() is None
    with pytest.raises(StreamClosed, match=r"silent: neither data nor ping for 0\.2 s"):
        connection.receive()


def test_close_from_another_thread_ends_a_waiting_read_at_once(opened):
    connection, peer = opened

    def read():
        while True:
            connection.receive()

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        peer.send(b"", PING)
        assert peer.receive() == (PONG, b"")
        wait([reading], timeout=0.05)  # by now it waits for the next frame
        connection.close()
        with pytest.raises(StreamClosed, match="closed by us"):
            reading.result(30)
    connection.close()


def test_closing_while_klines_pour_in_never_raises_anything_else(server, complaints):
    url, peers = server
    stream = a_stream(url, complaints.append)
    for _ in range(20):
        connection = stream.connect(["BTCUSDT"], "1m")
        peer = peers.get(timeout=60)
        flowing = threading.Event()

        def pour(peer=peer, flowing=flowing):
            try:
                while True:
                    peer.send(text_of())
                    flowing.set()
            except OSError:
                return

        def read(connection=connection):
            while True:
                connection.receive()

        with ThreadPoolExecutor(2) as pool:
            pool.submit(pour)
            reading = pool.submit(read)
            assert flowing.wait(60)
            connection.close()
            assert isinstance(reading.exception(30), StreamClosed)
    assert complaints == []


def test_a_blocked_region_names_the_fix():
    with (
        websocket_server(status=451) as (url, _),
        pytest.raises(StreamClosed, match=r"451.*blocks.*region.*market_data\.profile = us"),
    ):
        a_stream(url, print).connect(["BTCUSDT"], "1m")


def test_a_refused_handshake_names_its_status():
    with websocket_server(status=503) as (url, _), pytest.raises(StreamClosed, match="refused the stream: HTTP 503"):
        a_stream(url, print).connect(["BTCUSDT"], "1m")


@pytest.mark.parametrize(
    "url",
    [f"ws://127.0.0.1:{unused_port()}", "ws://no.such.host.invalid", "nonsense"],
    ids=["nobody listens", "no such host", "nonsense"],
)
def test_an_address_without_a_server_is_one_clear_line(url):
    with pytest.raises(StreamClosed, match=f"cannot connect to {url}: ") as closed:
        a_stream(url, print).connect(["BTCUSDT"], "1m")
    assert "\n" not in str(closed.value)


def test_a_handshake_that_comes_byte_by_byte_is_not_waited_for_for_ever(monkeypatch):
    # The limit alone is short: each byte comes well within the time-out of a read, whatever the machine does.
    monkeypatch.setattr(sockets, "CONNECT_STEPS", 0.02)
    hung_up = threading.Event()

    def dribble(listener):
        peer, _ = listener.accept()
        with peer, suppress(OSError):
            peer.sendall(b"HTTP/1.1 101 Switching Protocols\r\nX: ")
            for _ in range(400):
                peer.sendall(b"x")
                if select.select([peer], [], [], 0.02)[0] and not peer.recv(65536):
                    hung_up.set()
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=dribble, args=(listener,), daemon=True)
        server.start()
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(StreamClosed, match=r"^cannot connect to ws://[\d.:]+: no handshake within 0\.1 s$"):
            a_stream(url, connect_timeout_ms=5_000).connect(["BTCUSDT"], "1m")
        server.join(30)
    assert hung_up.is_set()


def test_a_name_that_is_looked_up_for_long_is_said_to_be_what_failed(monkeypatch):
    monkeypatch.setattr(sockets, "CONNECT_STEPS", 0.02)

    def slow(*_, **__):
        threading.Event().wait(0.5)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with pytest.raises(
        StreamClosed, match=r"^cannot connect to ws://host\.test: .*Temporary failure in name resolution"
    ):
        a_stream("ws://host.test", connect_timeout_ms=5_000).connect(["BTCUSDT"], "1m")
