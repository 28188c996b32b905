"""What survives a SIGKILL: keys, orders, fills, balances, ids, candles, and about the price."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bot.simulator import Endpoints, SimulatorError
from bot.simulator.journal import FILE_NAME
from bot.supervision.testing import ManualClock
from tests.simulator.support import NOW, ORDER, Desk, LiveClient, write_klines

ROOT = Path(__file__).parents[2]
CHILD = """
import json, sys, threading
from pathlib import Path
from bot.simulator import SimulatedExchange, SimulatorConfig
e = SimulatedExchange(SimulatorConfig(data_dir=Path(sys.argv[1]), symbols=("BTCUSDT",), interval_ms=50)).start()
print(json.dumps([e.rest_url, e.ws_url, e.ws_api_url, e.api_key, e.api_secret]), flush=True)
threading.Event().wait()
"""


class Child:
    def __init__(self, data_dir: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(data_dir)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.client = LiveClient(Endpoints(*json.loads(self.process.stdout.readline())))

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    children: list[Child] = []

    def make() -> Child:
        children.append(Child(tmp_path))
        return children[-1]

    yield make
    for child in children:
        if child.process.poll() is None:
            child.kill()


def test_books_survive_sigkill(start: Any) -> None:
    child = start()
    client = child.client
    for number in range(5):
        answer = client.order(quoteOrderQty="500", newClientOrderId=f"id-{number}")
        assert answer.status == 200
    client.limit(quantity="0.001", price="40000", newClientOrderId="resting")
    client.order(quantity="0.000001")
    client.order(quantity="0.001", newClientOrderId="id-0")
    before = client.state()
    rows = client.get("/api/v3/klines", symbol="BTCUSDT", interval="1m", limit=1000).json
    price = Decimal(client.get("/api/v3/ticker/price", symbol="BTCUSDT").json["price"])
    child.kill()

    child = start()
    after = child.client.state()
    assert (child.client.key, child.client.secret) == (client.key, client.secret)
    assert after["orders"] == before["orders"]
    assert after["fills"] == before["fills"]
    assert after["balances"] == before["balances"]
    assert after["reused_client_order_ids"] == before["reused_client_order_ids"] == 1
    assert after["requests"][ORDER] == before["requests"][ORDER]
    now = Decimal(child.client.get("/api/v3/ticker/price", symbol="BTCUSDT").json["price"])
    assert abs(now / price - 1) < Decimal("0.3")
    again = {r[0]: r for r in child.client.get("/api/v3/klines", symbol="BTCUSDT", interval="1m", limit=1000).json}
    shared = [row for row in rows[:-1] if row[0] in again]
    assert len(shared) >= 900
    assert all(again[row[0]] == row for row in shared)
    assert child.client.order(quantity="0.001", newClientOrderId="resting").msg == "Duplicate order sent."
    cancelled = child.client.signed("DELETE", ORDER, symbol="BTCUSDT", origClientOrderId="resting")
    assert cancelled.json["status"] == "CANCELED"
    newest = child.client.order(quantity="0.001").json
    assert newest["orderId"] > max(order["orderId"] for order in before["orders"])
    assert newest["fills"][0]["tradeId"] > max(fill["id"] for fill in before["fills"])


def test_every_answered_order_is_there_after_a_kill_in_the_middle(start: Any) -> None:
    answered: list[str] = []
    for round_ in range(3):
        child = start()
        for number in range(8):
            client_id = f"r{round_}-{number}"
            if child.client.order(quoteOrderQty="20", newClientOrderId=client_id).status == 200:
                answered.append(client_id)
        child.kill()
    child = start()
    state = child.client.state()
    assert [o["clientOrderId"] for o in state["orders"]] == answered
    assert len(answered) == 24
    spent = sum(Decimal(fill["quoteQty"]) for fill in state["fills"])
    assert Decimal(state["balances"]["USDT"]["free"]) == 10000 - spent


def test_two_exchanges_never_share_books(tmp_path: Path) -> None:
    desk = Desk(data_dir=tmp_path)
    with pytest.raises(SimulatorError, match="another simulated exchange is using it"):
        Desk(data_dir=tmp_path)
    desk.exchange.close()
    Desk(data_dir=tmp_path).exchange.close()


def test_books_belong_to_a_profile(tmp_path: Path) -> None:
    Desk(data_dir=tmp_path).exchange.close()
    with pytest.raises(SimulatorError, match="its books are of profile com, not us"):
        Desk("us", data_dir=tmp_path)


def test_the_secret_is_not_readable_by_others(tmp_path: Path) -> None:
    Desk(data_dir=tmp_path).exchange.close()
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o077 == 0


def test_a_file_that_is_no_database_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("hello, this is not a database" * 100)
    with pytest.raises(SimulatorError, match="the books cannot be opened"):
        Desk(data_dir=tmp_path)


def test_candles_of_every_interval_are_not_contradicted(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    desk = Desk(data_dir=tmp_path, clock=clock)
    for _ in range(30):
        clock.advance(20_000)
        desk.exchange.advance("BTCUSDT", True)

    def rows(of: Desk, interval: str) -> dict[int, list[object]]:
        answer = of.get("/api/v3/klines", symbol="BTCUSDT", interval=interval, limit=1000).json
        return {row[0]: row for row in answer}

    intervals = ("1m", "3m", "15m", "1h", "1d", "1M")
    before = {interval: rows(desk, interval) for interval in intervals}
    desk.exchange.flush()
    desk.exchange.journal.close()
    clock.advance(5_000)
    again = Desk(data_dir=tmp_path, clock=clock)
    for interval in intervals:
        assert rows(again, interval) == before[interval]
    clock.advance(3_600_000)
    again.exchange.advance("BTCUSDT", True)
    for interval in intervals:
        after = rows(again, interval)
        old = list(before[interval].values())
        assert all(after[row[0]] == row for row in old[:-1] if row[0] in after)
        opens = sorted(after)
        assert len(opens) >= 70
        if interval in ("1m", "3m"):
            assert len({b - a for a, b in pairwise(opens)}) == 1
    again.exchange.close()


def test_a_tape_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    files = (write_klines(tmp_path / "BTCUSDT-1m-x.csv", ["100", "101", "102", "103"]),)
    data = tmp_path / "data"
    desk = Desk(files=files, step=True, data_dir=data)
    for _ in range(2):
        desk.exchange.next_step()
    desk.order(quantity="1")
    desk.exchange.journal.close()
    desk.clock.advance(120_000)
    again = Desk(files=files, step=True, data_dir=data, clock=desk.clock)
    assert again.exchange.markets["BTCUSDT"].price == 101
    served = again.exchange.next_step()
    assert served is not None
    assert served[2].close == 102
    rows = again.get("/api/v3/klines", symbol="BTCUSDT", interval="1m", limit=1000).json
    assert [float(row[4]) for row in rows[-3:]] == [101, 101, 102] or [float(row[4]) for row in rows[-2:]] == [101, 102]
    assert all(a[6] + 1 == b[0] for a, b in pairwise(rows))
    assert again.balance("BTC")[0] == Decimal("0.999")
    again.exchange.close()


def test_another_market_in_the_same_directory_keeps_the_books_only(tmp_path: Path) -> None:
    data = tmp_path / "data"
    desk = Desk(data_dir=data)
    desk.order(quantity="0.001")
    desk.exchange.close()
    files = (write_klines(tmp_path / "BTCUSDT-1m-x.csv", ["100", "101"]),)
    again = Desk(files=files, step=True, data_dir=data)
    rows = again.get("/api/v3/klines", symbol="BTCUSDT", interval="1m", limit=1000).json
    assert Decimal(rows[-1][4]) == 100
    assert again.balance("BTC")[0] == Decimal("0.000999")
    again.exchange.close()


def test_a_disk_without_room_for_its_books_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = sqlite3.connect

    def on_a_small_disk(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = opened(*arguments, **options)
        connection.execute("PRAGMA max_page_count = 30")
        return connection

    monkeypatch.setattr(sqlite3, "connect", on_a_small_disk)
    with pytest.raises(SimulatorError, match=r"^.*cannot be written \(database or disk is full\); free space"):
        Desk(data_dir=tmp_path)


def test_an_order_that_cannot_be_written_is_answered_with_an_unknown_error(tmp_path: Path) -> None:
    desk = Desk(data_dir=tmp_path)
    desk.exchange.journal._connection.execute("PRAGMA query_only = ON")  # type: ignore[union-attr]
    with pytest.raises(sqlite3.Error):
        desk.order(quantity="0.001")
    desk.exchange.journal._connection.execute("PRAGMA query_only = OFF")  # type: ignore[union-attr]
    desk.exchange.close()
    again = Desk(data_dir=tmp_path)
    assert len(again.exchange.state()["orders"]) == 1
    again.exchange.close()
