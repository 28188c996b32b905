"""What SQLite's store adds to a history of klines and trades (test_history.py): why, actors, processes, errors."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from bot.adapters.sqlite import SqliteStore
from bot.adapters.sqlite import store as sqlite_store
from bot.domain.decision import Run
from bot.domain.order import Side, Trade
from bot.ports import StoreError
from bot.supervision import ActorFailed, ActorQuarantined, ActorRestarted, ActorStarted
from tests.support.builders import MINUTE_MS, NOON, a_decision, a_kline, klines_of, mixed_klines

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path):
    with SqliteStore(tmp_path / "history.db") as store:
        yield store


def a_trade(client_order_id="bh-1", symbol="BTCUSDT", time=NOON, **changes):
    values = {
        "symbol": symbol,
        "side": Side.BUY,
        "time": time,
        "price": Decimal("100.5"),
        "quantity": Decimal("0.00001"),
        "quote_quantity": Decimal("0.001005"),
        "commission": Decimal("1E-8"),
        "commission_asset": "BTC",
        "close": Decimal("100.5"),
        "order_id": 7,
        "client_order_id": client_order_id,
        "mode": "paper",
        "bot_id": "bulkhead",
        "reason": "fell 1.20 % from 101.7 to 100.5",
    }
    return Trade(**(values | changes))


# What more it stores than klines and trades


def test_an_empty_store_has_nothing(store):
    assert store.last_klines("BTCUSDT", 5) == []
    assert store.traded("BTCUSDT") == {}
    assert store.prune(NOON, 0) == 0
    store.write([], [])


def test_open_times_are_compared_as_numbers(store):
    early, late = a_kline("1", open_time=999, close_time=1_000), a_kline("2", open_time=1_000, close_time=1_001)
    store.write([late, early], [])
    assert store.last_klines("BTCUSDT", 2) == [early, late]


def test_pruning_takes_old_unclosed_klines_only(store):
    def candle(minute):
        start = NOON + minute * MINUTE_MS
        return [a_kline(str(n + 1), open_time=start, event_time=start + n, is_closed=False) for n in range(5)]

    closed = klines_of("1", "2", "3")
    store.write([*candle(0), *candle(1), *candle(2), *closed], [a_trade()])
    assert store.prune(NOON + 2 * MINUTE_MS, 0) == 10
    assert store.last_klines("BTCUSDT", 100) == [*closed[:2], *candle(2), closed[2]]
    assert store.prune(NOON + 2 * MINUTE_MS, 0) == 0
    assert store.traded("BTCUSDT") == {"bh-1": a_trade().quantity}


def rows_of(directory, query):
    with closing(sqlite3.connect(directory / "history.db")) as connection:
        return connection.execute(query).fetchall()


def test_a_message_has_one_decision_and_an_event_is_stored_once(store, tmp_path):
    event, later = ActorFailed("trader/BTCUSDT", 1, "handle", "Kline", "ValueError: a\nb", NOON), NOON + 1
    store.write([], [], [a_decision("CASH"), a_decision("DROPPED")], [event, event])
    store.write([], [], [a_decision("STALE"), a_decision("GAP", a_kline("1", symbol="ETHUSDT"))], [event])
    store.write(
        [], [], [], [ActorRestarted("trader/BTCUSDT", 2, 1, 105, later), ActorQuarantined("feed/X", "why", later)]
    )
    assert rows_of(tmp_path, "SELECT symbol, name FROM decisions") == [("BTCUSDT", "CASH"), ("ETHUSDT", "GAP")]
    assert rows_of(tmp_path, "SELECT name, event, detail FROM actor_events ORDER BY time, name") == [
        ("trader/BTCUSDT", "ActorFailed", "epoch 1 in handle Kline: ValueError: a b"),
        ("feed/X", "ActorQuarantined", "why"),
        ("trader/BTCUSDT", "ActorRestarted", "epoch 2, restart 1, down for 105 ms"),
    ]


def test_pruning_takes_decisions_of_old_open_klines_unless_they_came_of_a_signal(store, tmp_path):
    def opened(minute):
        start = NOON + minute * MINUTE_MS
        return a_kline("1", open_time=start, event_time=start + 7, is_closed=False)

    decisions = [
        a_decision("GAP", opened(0)),
        a_decision("CASH", opened(1), client_order_id="bh-1"),
        a_decision("STALE", a_kline("1")),
        a_decision("STALE", opened(5)),
    ]
    events = [ActorStarted("monitor", 1, "monitor", NOON + n) for n in range(3)]
    store.write([opened(0)], [], decisions, events)
    assert store.prune(NOON + 2 * MINUTE_MS, NOON + 2) == 1
    assert rows_of(tmp_path, "SELECT name, is_closed FROM decisions") == [("STALE", 1), ("CASH", 0), ("STALE", 0)]
    assert rows_of(tmp_path, "SELECT time FROM actor_events") == [(NOON + 2,)]


# What the command line reads of SQLite


def test_tables_keys_and_attributes_are_the_contracts(tmp_path):
    """Section 3, read by plain SQL as another program would."""
    with SqliteStore(tmp_path / "history.db") as store:
        update = a_kline(
            "1E-8", event_time=NOON + 2_000, is_closed=False, received_event_time=NOON + 2_001, volume=Decimal("1E+2")
        )
        closed = a_kline("2.50", event_time=NOON + 59_999, quote_volume=None)
        store.write([update, closed], [a_trade(commissions=(("BTC", Decimal("1E-8")), ("BNB", Decimal("0.10"))))])
    connection = sqlite3.connect(tmp_path / "history.db")
    connection.row_factory = sqlite3.Row
    first, second = [dict(r) for r in connection.execute("SELECT * FROM Crypto_Table ORDER BY symbol, kline_key")]
    (trade,) = [dict(row) for row in connection.execute("SELECT * FROM Crypto_Trades")]
    connection.close()
    assert first == {
        "symbol": "BTCUSDT",
        "kline_key": f"1m#{NOON}#{NOON + 2_000}",
        "interval": "1m",
        "open_time": NOON,
        "close_time": NOON + 59_999,
        "event_time": NOON + 2_000,
        **dict.fromkeys(("open", "high", "low", "close", "quote_volume"), "0.00000001"),
        "volume": "100",
        "is_closed": 0,
        "received_event_time": NOON + 2_001,
    }
    assert second["kline_key"] == f"1m#{NOON}#closed"
    assert (second["close"], second["quote_volume"], second["is_closed"]) == ("2.5", None, 1)
    assert trade == {
        "symbol": "BTCUSDT",
        "client_order_id": "bh-1",
        "side": "BUY",
        "close": "100.5",
        "sale_price": "100.5",
        "quantity": "0.00001",
        "volume": "0.001005",
        "commission": "0.00000001",
        "commission_asset": "BTC",
        "ticker": "BTCUSDT",
        "order_id": 7,
        "time": NOON,
        "mode": "paper",
        "bot_id": "bulkhead",
        "reason": "fell 1.20 % from 101.7 to 100.5",
        "commissions": '[["BTC","0.00000001"],["BNB","0.1"]]',
    }


@pytest.mark.parametrize("rows_a_slice", [1, 3, 7, 10_000])
def test_klines_are_merged_filtered_and_read_in_slices(store, monkeypatch, rows_a_slice):
    monkeypatch.setattr(sqlite_store, "_SLICE", rows_a_slice)
    every = mixed_klines()
    store.write(random.Random(5).sample(every, len(every)), [])
    later = NOON + 2 * MINUTE_MS
    assert list(store.klines()) == every
    assert list(store.klines("ETHUSDT")) == [k for k in every if k.symbol == "ETHUSDT"]
    assert list(store.klines(interval="3m")) == [k for k in every if k.interval == "3m"]
    assert list(store.klines(since=later)) == [k for k in every if k.open_time >= later]
    chosen = [k for k in every if k.open_time >= later and k.interval == "1m" and k.symbol == "BTCUSDT"]
    assert list(store.klines("BTCUSDT", "1m", later)) == chosen
    assert list(store.klines("BTCUSDT", "1m", later, 4)) == chosen[-4:]
    assert list(store.klines(limit=7)) == every[-7:]
    assert list(store.klines(limit=0)) == []
    assert list(store.klines(limit=10_000)) == every
    assert list(store.klines("NONE")) == []


def test_counts_and_symbols(store):
    assert (store.symbols(), store.kline_count()) == ([], 0)
    store.write(mixed_klines(), [])
    assert store.symbols() == ["BTCUSDT", "ETHUSDT"]
    assert (store.kline_count(), store.kline_count("BTCUSDT"), store.kline_count("X")) == (60, 30, 0)


def test_a_slow_reader_holds_nothing_open(store, tmp_path, monkeypatch):
    """Else a pager left open would keep the log of a running bot from ever starting over."""
    monkeypatch.setattr(sqlite_store, "_SLICE", 2)
    klines = klines_of("1", "2", "3", "4", "5")
    store.write(klines, [])
    rows = store.klines()
    assert next(rows) == klines[0]
    connection = sqlite3.connect(tmp_path / "history.db")
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    connection.close()
    assert not busy
    assert list(rows) == klines[1:]


def test_pruning_gives_the_write_lock_back_after_each_slice(store, monkeypatch):
    monkeypatch.setattr(sqlite_store, "_PRUNE_SLICE", 3)
    store.write([a_kline(event_time=NOON + n, is_closed=False) for n in range(10)], [])
    statements = []
    store._database._writer.set_trace_callback(statements.append)
    assert store.prune(NOON + 1, 0) == 10
    assert statements.count("COMMIT") == 4 + 2, "four slices of klines, a look at decisions, a look at events"
    assert store.kline_count() == 0


@pytest.mark.parametrize("closed_only", [False, True])
def test_the_last_klines_are_found_without_reading_the_others(store, closed_only):
    """Counted in steps of SQLite's machine, which do not depend on the computer."""

    def steps(write):
        store.write(write, [])
        return last_klines_steps(store, closed_only)

    few = steps(klines_of(*range(1, 100)))
    assert steps(klines_of(*range(1, 5_000))) < 2 * few


def test_looks_within_one_state_do_not_see_what_is_written_meanwhile(store, tmp_path):
    a, b = klines_of("1", "2")
    store.write([a], [])
    reader = SqliteStore.read_only(tmp_path / "history.db")
    with reader.one_state():
        assert reader.kline_count() == 1
        store.write([b], [])
        assert (reader.kline_count(), reader.last_klines("BTCUSDT", 5)) == (1, [a])
    assert reader.kline_count() == 2


LOOKS = {
    "span": lambda store, key: store.span("BTCUSDT"),
    "kline_at": lambda store, key: store.kline_at("BTCUSDT", key[2]),
    "klines_before": lambda store, key: store.klines_before("BTCUSDT", key, 3),
    "klines_before, closed": lambda store, key: store.klines_before("BTCUSDT", key, 3, True),
    "klines_from": lambda store, key: store.klines_from("BTCUSDT", key, 3),
    "decision_at": lambda store, key: store.reasons.decision_at("BTCUSDT", key[2]),
    "decision_of": lambda store, key: store.reasons.decision_of("bh-50"),
    "decisions_before": lambda store, key: store.reasons.decisions_before("BTCUSDT", key, 3),
    "decisions_from": lambda store, key: store.reasons.decisions_from("BTCUSDT", key, 3),
    "position_before": lambda store, key: store.reasons.position_before("BTCUSDT", key),
    "position_from": lambda store, key: store.reasons.position_from("BTCUSDT", key),
    "events": lambda store, key: store.reasons.events(["trader/BTCUSDT"], key[2] - 60_000, key[2] + 60_000),
    "run_at": lambda store, key: store.reasons.run_at(key[2]),
}


@pytest.mark.parametrize("look", LOOKS)
def test_what_why_asks_is_found_without_reading_the_rest(store, look):
    """Also counted in steps of SQLite's machine."""

    def steps(minutes):
        klines = klines_of(*range(1, minutes))
        decisions = [a_decision("CASH", kline, client_order_id=f"bh-{n}") for n, kline in enumerate(klines)]
        events = [ActorStarted("trader/BTCUSDT", n, "trader", kline.event_time) for n, kline in enumerate(klines)]
        store.write(klines, [], decisions, events)
        for kline in klines:
            store.record_run(Run(kline.event_time, "demo", "a:b", {}, only_closed=False))
        kline = klines[50]
        key = (kline.open_time, kline.is_closed, kline.event_time)
        return steps_of(store, lambda: LOOKS[look](store, key))

    few = steps(100)
    assert steps(3_000) < 2 * few


def last_klines_steps(store, closed_only):
    def look():
        assert len(store.last_klines("BTCUSDT", 10, closed_only)) == 10

    return steps_of(store, look)


def steps_of(store, look):
    steps = 0

    def step():
        nonlocal steps
        steps += 1

    opened = store._database._open_reader

    def open_counting():
        connection = opened()
        connection.set_progress_handler(step, 1)
        return connection

    store._database._open_reader = open_counting
    try:
        look()
    finally:
        store._database._open_reader = opened
    return steps


# Several processes

READER = """
import sys
from pathlib import Path
from bot.adapters.sqlite import SqliteStore

store, batch, total = SqliteStore.read_only(Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
seen = 0
while seen < total:
    klines, trades = store.kline_count(), store.trade_count()
    last = store.last_klines("BTCUSDT", batch)
    # Each transaction brings a whole batch of klines and one trade; the trades are counted a moment later.
    if klines % batch or klines < seen or trades < klines // batch or len(last) not in (0, batch):
        print("torn", klines, trades, len(last), seen)
        break
    seen = klines
print("end", seen, len(list(store.klines())), len(list(store.trades())))
"""

WRITER = """
import os, signal, sys
from pathlib import Path
from bot.adapters.sqlite import SqliteStore
from tests.support.builders import klines_of
from tests.contract.test_store import a_trade

store = SqliteStore(Path(sys.argv[1]))
store.write(klines_of("1", "2", "3"), [a_trade()])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_another_process_reads_whole_transactions_while_a_thread_writes(store, tmp_path):
    batch, batches = 20, 150
    klines = klines_of(*range(1, batch * batches + 1))
    command = [sys.executable, "-c", READER, str(tmp_path / "history.db"), str(batch), str(batch * batches)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout.readline() == "ready\n"

        def write():
            for n in range(batches):
                store.write(klines[n * batch : (n + 1) * batch], [a_trade(f"bh-{n:03}")])

        writer = threading.Thread(target=write)
        writer.start()
        rest = reader.stdout.read()
        writer.join()
    assert rest == f"end {batch * batches} {batch * batches} {batches}\n"


def files_of(directory):
    return sorted(file.name for file in directory.iterdir())


def assert_read_only_reads(directory):
    before = files_of(directory)
    store = SqliteStore.read_only(directory / "history.db")
    assert store.last_klines("BTCUSDT", 5) == list(store.klines()) == klines_of("1", "2", "3")
    assert list(store.trades()) == [a_trade()]
    with pytest.raises(StoreError, match="not open for writing"):
        store.write(klines_of("1"), [])
    store.close()
    assert files_of(directory) == before


def test_a_database_can_be_read_while_its_writer_lives(store, tmp_path):
    store.write(klines_of("1", "2", "3"), [a_trade()])
    assert_read_only_reads(tmp_path)


def test_a_database_can_be_read_after_its_writer_closed_it(tmp_path):
    with SqliteStore(tmp_path / "history.db") as store:
        store.write(klines_of("1", "2", "3"), [a_trade()])
    assert files_of(tmp_path) == ["history.db"]
    assert_read_only_reads(tmp_path)


def test_a_database_can_be_read_after_its_writer_was_killed(tmp_path):
    killed = subprocess.run([sys.executable, "-c", WRITER, str(tmp_path / "history.db")], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert_read_only_reads(tmp_path)
    with SqliteStore(tmp_path / "history.db") as again:
        assert again.last_klines("BTCUSDT", 5) == klines_of("1", "2", "3")


# Errors


def one_line(error, *words):
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert str(word) in text


def test_reading_what_is_not_there_creates_nothing(tmp_path):
    with pytest.raises(StoreError) as error:
        SqliteStore.read_only(tmp_path / "history.db")
    one_line(error, tmp_path / "history.db", "start the bot first")
    assert files_of(tmp_path) == []


def test_a_directory_that_is_not_there_is_named(tmp_path):
    with pytest.raises(StoreError) as error:
        SqliteStore(tmp_path / "away" / "history.db")
    one_line(error, tmp_path / "away" / "history.db", "check that the directory exists")


@pytest.mark.parametrize("open_one", [SqliteStore, SqliteStore.read_only])
def test_a_file_of_another_kind_is_refused(tmp_path, open_one):
    (tmp_path / "history.db").write_text("open_time,open,high\n" * 1000)
    with pytest.raises(StoreError) as error:
        open_one(tmp_path / "history.db")
    one_line(error, tmp_path / "history.db", "move it away")


def test_a_damaged_file_is_named(tmp_path):
    with SqliteStore(tmp_path / "history.db") as store:
        store.write(klines_of(*range(1, 500)), [])
    data = bytearray((tmp_path / "history.db").read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    (tmp_path / "history.db").write_bytes(data)
    with pytest.raises(StoreError) as error:
        list(SqliteStore.read_only(tmp_path / "history.db").klines())
    one_line(error, tmp_path / "history.db", "damaged", "restore a copy")


def test_writing_beside_another_writer_says_who_is_in_the_way(store, tmp_path):
    store._database._writer.execute("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(tmp_path / "history.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError) as error:
        store.write(klines_of("1"), [])
    one_line(error, tmp_path / "history.db", "another process holds the write lock")
    assert store.kline_count() == 0, "a reader never waits"
    other.close()
    store.write(klines_of("1"), [])
    assert store.kline_count() == 1


def test_a_full_disk_is_named_and_nothing_is_half_written(store, tmp_path):
    store.write(klines_of("1"), [])
    store._database._writer.execute("PRAGMA max_page_count = 20")
    with pytest.raises(StoreError) as error:
        store.write(klines_of(*range(1, 5_000)), [a_trade()])
    one_line(error, tmp_path / "history.db", "free space")
    assert (store.kline_count(), store.trade_count()) == (1, 0)
    store._database._writer.execute("PRAGMA max_page_count = 100000")
    store.write(klines_of("1", "2"), [])
    assert store.kline_count() == 2, "the store goes on once there is room"


def test_a_closed_store_takes_nothing_and_still_reads(store, tmp_path):
    store.write(klines_of("1"), [])
    store.close()
    store.close()
    with pytest.raises(StoreError) as error:
        store.write(klines_of("2"), [])
    one_line(error, tmp_path / "history.db", "open it as a writer")
    assert store.kline_count() == 1
