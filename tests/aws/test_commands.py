"""`check`, `klines` and `trades` where the store is DynamoDB, and what a month of it costs."""

import json
from decimal import Decimal

import pytest

from bot.adapters.sqlite import SqliteStore
from bot.app.data_directory import REBUILT, DataDirectory, Identity
from bot.app.dynamodb_cost import month_of
from bot.cli.parser import main
from bot.supervision import SystemClock
from tests.aws.servers import REGION
from tests.aws.tables import made, open_history
from tests.contract.test_store import a_trade
from tests.support.builders import MINUTE_MS, a_kline, klines_of

pytestmark = pytest.mark.usefixtures("aws_credentials")
A_BOOK = Identity("demo", "simulated", "paper", "bulkhead")


@pytest.fixture
def settings(dynalite, table_prefix, tmp_path, monkeypatch):
    """The bot's settings for the store, as variables."""
    monkeypatch.chdir(tmp_path)
    values = {"STORE": "dynamodb", "AWS__REGION": REGION, "AWS__ENDPOINT_URL": dynalite.url}
    for name, value in (values | {"AWS__TABLE_PREFIX": table_prefix}).items():
        monkeypatch.setenv(f"BOT_{name}", value)


@pytest.fixture
def history(settings, dynalite, table_prefix):
    with made(open_history(dynalite.url, table_prefix, SystemClock())) as history:
        yield history


def checked(capsys, *flags):
    status = main(["check", *flags])
    return status, [line for line in capsys.readouterr().out.splitlines() if "table" in line or "month" in line]


def test_tables_are_verified_and_made_when_asked(capsys, settings, table_prefix):
    klines = f"table {table_prefix}Crypto_Table"
    status, lines = checked(capsys)
    assert status == 1
    assert lines[0].startswith(f"wrong {klines}: there is no table {table_prefix}Crypto_Table")
    assert lines[1].startswith(f"wrong table {table_prefix}Crypto_Trades: ")
    status, lines = checked(capsys, "--create")
    assert (status, lines[0].startswith(f"ok    {klines}: made, ")) == (0, True)
    status, lines = checked(capsys)
    assert status == 0
    assert lines[2] == "ok    tables' book: nobody's yet, the first run makes them its own"
    assert "at most 1.55 items of " in lines[3]
    assert "closed klines only" in lines[4]


def test_tables_of_another_book_are_wrong(capsys, history):
    history.tables.belong_to("live", "com", "uid 7", "bulkhead")
    status, lines = checked(capsys)
    assert (status, lines[2]) == (
        1,
        "wrong tables' book: belong to another run (mode is 'live', not 'demo'): set another aws.table_prefix",
    )


def test_credentials_and_region_have_a_line(capsys, settings, monkeypatch):
    assert main(["check"]) == 1
    assert "ok    aws credentials: from env, at http" in capsys.readouterr().out
    monkeypatch.setenv("BOT_AWS__REGION", "")
    assert main(["check"]) == 1
    assert "wrong aws credentials: no AWS region is known: set aws.region" in capsys.readouterr().out


def test_too_few_provisioned_units_are_told(capsys, settings, monkeypatch):
    monkeypatch.setenv("BOT_AWS__BILLING", "provisioned")
    monkeypatch.setenv("BOT_AWS__WRITE_UNITS", "1")
    main(["check"])
    assert "wrong aws.write_units: 1 are too few: 2 are needed" in capsys.readouterr().out
    monkeypatch.setenv("BOT_AWS__WRITE_UNITS", "2")
    main(["check"])
    assert "ok    aws.write_units: 2, 2 are needed" in capsys.readouterr().out


def test_there_is_nothing_to_make_for_sqlite(capsys, settings, monkeypatch):
    monkeypatch.setenv("BOT_STORE", "sqlite")
    assert main(["check", "--create"]) == 2
    assert 'set store = "dynamodb"' in capsys.readouterr().err


def test_klines_and_trades_are_printed_as_of_sqlite(capsys, history, tmp_path, monkeypatch):
    now = SystemClock().now_ms() // MINUTE_MS * MINUTE_MS
    klines = [
        *klines_of("1", "2.50", start=now - 3 * MINUTE_MS),
        *(a_kline("3", open_time=now, event_time=now + n, is_closed=False) for n in range(2)),
        *klines_of("7", symbol="ETHUSDT", start=now),
    ]
    trades = [a_trade("bh-1", commissions=(("BTC", Decimal(1)), ("BNB", Decimal("0.10")))), a_trade("bh-2", "ETHUSDT")]
    directory = DataDirectory(tmp_path / "near")
    directory.claim(A_BOOK)
    directory.release()
    with SqliteStore(directory.history) as near:
        for store in (near, history):
            store.write(klines, trades)
    for command in (["klines"], ["trades"], ["klines", "--symbol", "ETHUSDT"], ["trades", "--symbol", "ETHUSDT"]):
        for flags in (["--json"], []):
            monkeypatch.setenv("BOT_STORE", "dynamodb")
            assert main([*command, *flags]) == 0, "no data directory is needed"
            far = capsys.readouterr().out
            monkeypatch.setenv("BOT_STORE", "sqlite")
            assert main([*command, *flags, "--data-dir", str(directory.path)]) == 0
            assert far == capsys.readouterr().out
            assert "BTCUSDT" in far or "--symbol" in command


@pytest.mark.parametrize("command", ["klines", "trades"])
def test_what_is_printed_of_another_bots_tables_is_said_to_be(capsys, history, tmp_path, monkeypatch, command):
    history.write(klines_of("1", start=SystemClock().now_ms()), [a_trade("bh-1")])
    directory = DataDirectory(tmp_path / "book")
    directory.claim(A_BOOK)
    directory.release()

    def said(*flags):
        assert main([command, "--json", *flags]) == 0
        told = capsys.readouterr()
        assert len(json.loads(told.out)) == 1, "it is printed all the same"
        return told.err

    assert said() == "", "the tables are nobody's yet"
    history.tables.belong_to("demo", "simulated", "paper", "bulkhead")
    assert said() == said("--data-dir", str(directory.path)) == ""
    monkeypatch.setenv("BOT_BOT_ID", "other")
    (line,) = said().splitlines()
    assert line.startswith(f"these are another bot's: the tables {history.tables.klines} and {history.tables.trades} ")
    assert "belong to another run (bot_id is 'bulkhead', not 'other'); if that is not meant, set " in line
    assert said("--data-dir", str(directory.path)) == "", "whose book the directory holds is written in it"


def test_a_directorys_book_is_compared_whole(capsys, history, tmp_path):
    history.tables.belong_to("live", "com@api.binance.com", "uid 7", "bulkhead")
    for account, differing in (("uid 8", "account is 'uid 7', not 'uid 8'"), ("uid 7", ""), (REBUILT, "")):
        directory = DataDirectory(tmp_path / account)
        directory.claim(Identity("live", "com@api.binance.com", account, "bulkhead"))
        directory.release()
        assert main(["klines", "--json", "--data-dir", str(directory.path)]) == 0
        err = capsys.readouterr().err
        assert (f"({differing})" in err) if differing else (err == "")


def test_missing_tables_are_one_line(capsys, settings):
    assert main(["klines", "--json"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("symbols", "closed_only", "writes", "on_demand", "provisioned"),
    [
        (3, False, 4_073_400, "2.55", "0.95"),
        (3, True, 131_400, "0.08", "0.47"),
        (500, False, 678_900_000, "424.31", "147.10"),
        (500, True, 21_900_000, "13.69", "4.74"),
    ],
)
def test_what_a_month_costs(symbols, closed_only, writes, on_demand, provisioned):
    """By hand: (30 updates and 1 close) * symbols / 60 s * 730 h, 0.625 USD a million; a fifth more is provisioned."""
    month = month_of(symbols, "1m", closed_only, 7)
    assert month.write_units == writes
    assert f"{month.on_demand:.2f}" == on_demand
    assert f"{month.provisioned:.2f}" == provisioned
