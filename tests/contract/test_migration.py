"""Every schema version ever written opens with all its rows; a newer one is refused, an unfinished step undone."""

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from bot.adapters.sqlite import SqliteJournal, SqliteStore
from bot.adapters.sqlite import journal as sqlite_journal
from bot.adapters.sqlite import store as sqlite_store
from bot.adapters.sqlite.database import Database
from bot.domain.order import OrderStatus
from bot.ports import StoreError
from tests.contract.test_store import a_trade
from tests.support.builders import MINUTE_MS, NOON, a_fill, a_kline, an_intent

# Version 1 as it was first released. These texts are never changed: files like that exist.
HISTORY_1 = """
CREATE TABLE Crypto_Table (
    symbol TEXT NOT NULL, kline_key TEXT NOT NULL, interval TEXT NOT NULL, open_time INTEGER NOT NULL,
    close_time INTEGER NOT NULL, event_time INTEGER NOT NULL, open TEXT NOT NULL, high TEXT NOT NULL,
    low TEXT NOT NULL, close TEXT NOT NULL, volume TEXT NOT NULL, quote_volume TEXT, is_closed INTEGER NOT NULL,
    received_event_time INTEGER, PRIMARY KEY (symbol, kline_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX klines_in_message_order ON Crypto_Table (symbol, open_time, is_closed, event_time, kline_key);
CREATE INDEX closed_klines_in_message_order
ON Crypto_Table (symbol, open_time, event_time, kline_key) WHERE is_closed = 1;
CREATE INDEX klines_to_prune ON Crypto_Table (open_time) WHERE is_closed = 0;
CREATE TABLE Crypto_Trades (
    symbol TEXT NOT NULL, client_order_id TEXT NOT NULL, side TEXT NOT NULL, close TEXT NOT NULL,
    sale_price TEXT NOT NULL, quantity TEXT NOT NULL, volume TEXT NOT NULL, commission TEXT NOT NULL,
    commission_asset TEXT NOT NULL, ticker TEXT NOT NULL, order_id INTEGER NOT NULL, time INTEGER NOT NULL,
    mode TEXT NOT NULL, bot_id TEXT NOT NULL, reason TEXT NOT NULL, commissions TEXT NOT NULL,
    PRIMARY KEY (symbol, client_order_id)
) STRICT, WITHOUT ROWID;
INSERT INTO Crypto_Table VALUES
('BTCUSDT', '1m#1621425600000#1621425602000', '1m', 1621425600000, 1621425659999, 1621425602000,
 '1.5', '1.5', '1.5', '1.5', '1', '1.5', 0, 1621425602001),
('BTCUSDT', '1m#1621425600000#closed', '1m', 1621425600000, 1621425659999, 1621425659999,
 '0.00000001', '0.00000001', '0.00000001', '0.00000001', '1', NULL, 1, NULL),
('ETHUSDT', '1m#1621425660000#closed', '1m', 1621425660000, 1621425719999, 1621425719999,
 '2500', '2500', '2500', '2500', '1', '2500', 1, NULL);
INSERT INTO Crypto_Trades VALUES
('BTCUSDT', 'bh-1', 'BUY', '100.5', '100.5', '0.00001', '0.001005', '0.00000001', 'BTC', 'BTCUSDT', 7, 1621425600000,
 'paper', 'bulkhead', 'fell 1.20 % from 101.7 to 100.5', '[]');
PRAGMA user_version = 1;
"""
ORDERS_1 = """
CREATE TABLE intents (
    recorded INTEGER PRIMARY KEY, client_order_id TEXT NOT NULL UNIQUE, symbol TEXT NOT NULL, side TEXT NOT NULL,
    quantity TEXT NOT NULL, close TEXT NOT NULL, open_time INTEGER NOT NULL, event_time INTEGER NOT NULL,
    reason TEXT NOT NULL, quote_reserved TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'RECORDED', order_id INTEGER,
    detail TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX intents_of_a_symbol ON intents (symbol, recorded);
CREATE INDEX unresolved_intents ON intents (recorded) WHERE status = 'RECORDED';
CREATE TABLE fills (
    symbol TEXT NOT NULL, trade_id INTEGER NOT NULL, client_order_id TEXT NOT NULL, position INTEGER NOT NULL,
    order_id INTEGER NOT NULL, side TEXT NOT NULL, price TEXT NOT NULL, quantity TEXT NOT NULL,
    quote_quantity TEXT NOT NULL, commission TEXT NOT NULL, commission_asset TEXT NOT NULL, time INTEGER NOT NULL,
    PRIMARY KEY (symbol, trade_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX fills_of_an_order ON fills (client_order_id, position);
CREATE TABLE notes (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO intents VALUES
(1, 'bh-2', 'BTCUSDT', 'BUY', '1', '100', 1621425600000, 1621425659999, 'a test', '0', 'FILLED', 1, ''),
(2, 'bh-1', 'BTCUSDT', 'BUY', '1', '100', 1621425600000, 1621425659999, 'a test', '0', 'RECORDED', NULL, '');
INSERT INTO fills VALUES
('BTCUSDT', 1, 'bh-2', 0, 1, 'BUY', '100', '1', '100', '0', 'BTC', 1621425600000);
INSERT INTO notes VALUES ('cash', '10000');
PRAGMA user_version = 1;
"""


def write_golden(path, text):
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"PRAGMA journal_mode = WAL; {text}")


def look(path, query):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def version_of(path):
    return look(path, "PRAGMA user_version")[0][0]


def check_history(store):
    update = a_kline("1.5", event_time=NOON + 2_000, received_event_time=NOON + 2_001, is_closed=False)
    ether = a_kline("2500", symbol="ETHUSDT", open_time=NOON + MINUTE_MS)
    assert list(store.klines()) == [update, a_kline("0.00000001", quote_volume=None), ether]
    assert list(store.trades()) == [a_trade()]


def check_orders(journal):
    (settled,), (unresolved,) = journal.settled(), journal.unresolved()
    fill = a_fill(client_order_id="bh-2")
    assert (settled.intent, settled.fills) == (an_intent(client_order_id="bh-2"), (fill,))
    assert (settled.status, settled.order_id) == (OrderStatus.FILLED, 1)
    assert unresolved.intent == an_intent()
    assert journal.get_note("cash") == "10000"


FILES = [
    pytest.param(SqliteStore, sqlite_store, HISTORY_1, check_history, id="history"),
    pytest.param(SqliteJournal, sqlite_journal, ORDERS_1, check_orders, id="orders"),
]
TO_2 = (
    "ALTER TABLE {table} ADD COLUMN colour TEXT NOT NULL DEFAULT 'grey'",
    "UPDATE {table} SET colour = symbol",
)
MORE = [
    pytest.param(sqlite_store, HISTORY_1, "Crypto_Trades", id="history"),
    pytest.param(sqlite_journal, ORDERS_1, "intents", id="orders"),
]


@pytest.mark.parametrize(("opened", "module", "golden", "check"), FILES)
def test_a_file_of_version_1_opens_with_all_its_rows(tmp_path, opened, module, golden, check):
    path = tmp_path / "golden.db"
    write_golden(path, golden)
    with opened(path) as database:
        check(database)
    check(opened.read_only(path))
    assert version_of(path) == len(module.MIGRATIONS)


@pytest.mark.parametrize(("opened", "module", "golden", "check"), FILES)
def test_a_released_migration_is_never_changed(tmp_path, opened, module, golden, check):
    """A new file's first step makes exactly the schema that version 1 files have."""

    def schema(path):
        rows = look(path, "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")
        return [(kind, name, "".join(sql.split())) for kind, name, sql in rows]

    write_golden(tmp_path / "golden.db", golden)
    Database(tmp_path / "new.db", module.MIGRATIONS[:1]).close()
    assert schema(tmp_path / "new.db") == schema(tmp_path / "golden.db")


@pytest.mark.parametrize(("module", "golden", "table"), MORE)
def test_missing_steps_are_applied_in_order_and_once(tmp_path, module, golden, table):
    path = tmp_path / "golden.db"
    write_golden(path, golden)
    to_2 = [statement.format(table=table) for statement in TO_2]
    to_3 = [f"UPDATE {table} SET colour = colour || '!'"]
    steps = [module.MIGRATIONS[0], to_2, to_3]
    for known in (2, 3, 3):
        Database(path, steps[:known]).close()
        assert version_of(path) == known
        colours = {colour for (colour,) in look(path, f"SELECT colour FROM {table}")}
        assert colours == ({"BTCUSDT"} if known == 2 else {"BTCUSDT!"})
    Database(tmp_path / "new.db", steps).close()
    assert version_of(tmp_path / "new.db") == 3
    write_golden(tmp_path / "two steps.db", golden)
    Database(tmp_path / "two steps.db", steps).close()
    assert look(tmp_path / "two steps.db", f"SELECT DISTINCT colour FROM {table}") == [("BTCUSDT!",)]


@pytest.mark.parametrize(("opened", "module", "golden", "check"), FILES)
def test_a_newer_version_is_refused_with_both_named_and_left_alone(tmp_path, opened, module, golden, check):
    path = tmp_path / "golden.db"
    write_golden(path, golden.replace("user_version = 1", "user_version = 42"))
    before = path.read_bytes()
    for open_one in (opened, opened.read_only):
        with pytest.raises(StoreError) as error:
            open_one(path)
        assert str(error.value) == (
            f"{path} has schema version 42, this program knows versions up to {len(module.MIGRATIONS)}: "
            "use the newer program"
        )
    assert path.read_bytes() == before


@pytest.mark.parametrize(("opened", "module", "golden", "check"), FILES)
def test_a_reader_refuses_an_older_version_and_migrates_nothing(tmp_path, opened, module, golden, check):
    path = tmp_path / "golden.db"
    write_golden(path, golden)
    with pytest.raises(StoreError, match="version 1, this program reads 2: start the bot once"):
        Database(path, [*module.MIGRATIONS[:1], []], read_only=True)
    assert version_of(path) == 1


def test_a_step_that_fails_leaves_the_old_version(tmp_path):
    path = tmp_path / "golden.db"
    write_golden(path, HISTORY_1)
    bad = [TO_2[0].format(table="Crypto_Trades"), "UPDATE Crypto_Trades SET nowhere = 1"]
    with pytest.raises(StoreError, match="no such column: nowhere"):
        Database(path, [*sqlite_store.MIGRATIONS[:1], bad])
    assert version_of(path) == 1
    with SqliteStore(path) as store:
        check_history(store)


KILLED = """
import os, signal, sys
from pathlib import Path
from bot.adapters.sqlite.database import Database
from bot.adapters.sqlite import store

def steps(last):
    statements = [
        "CREATE TABLE more (n INTEGER)",
        # More than the page cache holds: some of it is in the WAL, uncommitted, when the kill comes.
        "INSERT INTO more WITH RECURSIVE c (n) AS "
        "(SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 300000) SELECT n FROM c",
        "DELETE FROM Crypto_Table",
        "DROP TABLE Crypto_Trades",
    ]
    for done, statement in enumerate(statements):
        if done == last:
            os.kill(os.getpid(), signal.SIGKILL)
        yield statement
    os.kill(os.getpid(), signal.SIGKILL)

Database(Path(sys.argv[1]), [*store.MIGRATIONS, steps(int(sys.argv[2]))])
"""


@pytest.mark.parametrize("statements_done", range(5))
def test_a_migration_that_was_killed_leaves_the_old_version_whole(tmp_path, statements_done):
    path = tmp_path / "golden.db"
    write_golden(path, HISTORY_1)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path), str(statements_done)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert version_of(path) == 1
    assert look(path, "SELECT count(*) FROM Crypto_Table") == [(3,)]
    with SqliteStore(path) as store:
        check_history(store)
    assert look(path, "SELECT count(*) FROM sqlite_master WHERE name = 'more'") == [(0,)]


def test_a_creation_that_was_killed_begins_again(tmp_path):
    path = tmp_path / "new.db"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path), "0"], check=False)
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(StoreError, match="version 0"):
        SqliteStore.read_only(path)
    with SqliteStore(path) as store:
        assert store.kline_count() == 0
