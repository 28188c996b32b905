"""Starting, stopping, and what cannot be started."""

import socket
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bot.simulator import Endpoints, SimulatedExchange, SimulatorConfig, SimulatorError
from tests.simulator.support import LiveClient, running, write_klines


def test_addresses_and_keys() -> None:
    with running(symbols=("BTCUSDT",)) as client:
        endpoints: Endpoints = client.endpoints
        address = endpoints.rest_url.removeprefix("http://")
        assert endpoints.ws_url == f"ws://{address}"
        assert endpoints.ws_api_url == f"ws://{address}/ws-api/v3"
        assert endpoints.api_secret not in repr(endpoints)
        assert len(endpoints.api_key) == len(endpoints.api_secret) == 64
        assert client.get("/ws-api/v3").status == 400  # no handshake


def test_it_starts_and_stops_quickly_with_clients_connected() -> None:
    others = set(threading.enumerate())
    exchange = SimulatedExchange(SimulatorConfig(seed=1))
    begun = time.monotonic()
    client = LiveClient(exchange.start())
    assert time.monotonic() - begun < 10  # 0.1 s alone
    sockets = [client.socket("/ws/btcusdt@kline_1m") for _ in range(3)]
    begun = time.monotonic()
    exchange.stop()
    assert time.monotonic() - begun < 10
    assert not [t for t in threading.enumerate() if t.name == "simulated-exchange" and t not in others]
    for each in sockets:
        each.raw.shutdown()
    exchange.stop()


def test_clients_are_told_that_it_closes() -> None:
    exchange = SimulatedExchange(SimulatorConfig(seed=1, step=True))
    socket_ = LiveClient(exchange.start()).socket("/ws")
    exchange.stop()
    opcode, data = socket_.raw.recv_data(control_frame=True)
    assert (opcode, int.from_bytes(data[:2])) == (8, 1001)
    socket_.raw.shutdown()


def test_it_can_be_started_again() -> None:
    exchange = SimulatedExchange(SimulatorConfig(seed=1, symbols=("BTCUSDT",)))
    for _ in range(2):
        assert LiveClient(exchange.start()).get("/api/v3/ping").json == {}
        with pytest.raises(SimulatorError, match="already running"):
            exchange.start()
        exchange.stop()


def test_a_taken_port_is_one_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SimulatorError, match=f"cannot listen on 127.0.0.1:{port}: ") as refused:
            SimulatedExchange(SimulatorConfig(port=port)).start()
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"profile": "de"}, "profile 'de' is not one of com, us"),
        ({"speed": Decimal(0)}, "speed must be above 0"),
        ({"speed": Decimal("NaN")}, "speed must be above 0"),
        ({"interval_ms": 0}, "interval_ms must be at least 1"),
        ({"symbols": ()}, "no symbols given"),
        ({"symbols": ("btcusdt",)}, "symbol 'btcusdt' is not upper-case"),
        ({"symbols": ("BTCXYZ",)}, "does not end with a quote asset"),
        ({"symbols": ("BTCUSDT", "BTCUSDT")}, "given twice"),
        ({"files": (Path("/nowhere/BTCUSDT-1m.csv"),)}, "/nowhere/BTCUSDT-1m.csv: cannot be read"),
        ({"data_dir": Path("/proc/nowhere")}, "the books cannot be opened"),
    ],
)
def test_what_cannot_be_started(config: dict[str, Any], line: str) -> None:
    with pytest.raises(SimulatorError) as refused:
        SimulatedExchange(SimulatorConfig(**config)).start()
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


def test_symbols_beside_files(tmp_path: Path) -> None:
    files = (write_klines(tmp_path / "LTCUSDT-1m.csv", ["100"]),)
    with running(files=files) as client:
        assert [p["symbol"] for p in client.get("/api/v3/ticker/price").json] == ["LTCUSDT"]
    with running(files=files, symbols=("BTCUSDT",)) as client:
        assert [p["symbol"] for p in client.get("/api/v3/ticker/price").json] == ["LTCUSDT", "BTCUSDT"]
