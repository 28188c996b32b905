"""Figures as people write them, and the tables of what is stored, owned, running and tested."""

import io
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console

from bot.app.snapshot import Snapshot, SymbolView
from bot.cli.tables import (
    duration,
    klines_table,
    money,
    one_line,
    percent,
    price,
    quantity,
    quote_asset,
    reconcile_table,
    report_table,
    signed,
    status_table,
    trades_table,
    verdict,
    wallet_table,
)
from bot.domain.order import Side, Trade
from bot.domain.position import Position
from bot.research.report import RunReport, SymbolOutcome
from bot.supervision import ActorStatus, Depth
from tests.support.builders import MINUTE_MS, NOON, a_kline

FEE = Decimal("0.001")


def a_trade(number=0, **changes) -> Trade:
    values = {
        "symbol": "BTCUSDT",
        "side": Side.BUY,
        "time": NOON + number * 1000,
        "price": Decimal("39123.45"),
        "quantity": Decimal("0.02556"),
        "quote_quantity": Decimal("999.995382"),
        "commission": Decimal("0.00002556"),
        "commission_asset": "BTC",
        "close": Decimal("39123.45"),
        "order_id": number,
        "client_order_id": f"x{number}",
        "mode": "demo",
        "bot_id": "bot",
        "reason": "fell 1.20 % from 39598.63 to 39123.45",
    }
    return Trade(**(values | changes))


def a_report(equity="9600", last_close="120") -> RunReport:
    trades = (a_trade(), a_trade(1, side=Side.SELL))
    outcome = SymbolOutcome("BTCUSDT", "USDT", Decimal("100"), Decimal(last_close), Decimal("0.5"))
    return RunReport(44_000, 3, (outcome,), Decimal(10_000), Decimal(9_000), Decimal(equity), {"CASH": 12}, trades)


def a_snapshot() -> Snapshot:
    view = SymbolView(
        "BTCUSDT", Decimal("39000"), None, Position(Decimal("0.1"), Decimal(1), Decimal(-4000)), NOON, True, 9
    )
    actor = ActorStatus("feed/BTCUSDT", "feed", "quarantined", 6, 5, 83_000, Depth(must=3), "[red]boom\nx", 0, None, 0)
    return Snapshot("demo", 77, (view,), Decimal(6000), Decimal(10_000), (actor,), skipped=(("CASH", 2),))


def printed(renderable, width=80) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    console.print(renderable)
    lines = console.file.getvalue().splitlines()
    assert all(len(line.rstrip()) <= width for line in lines)
    return lines


def row(lines, start) -> list[str]:
    return next(line for line in lines if line.startswith(start)).removeprefix(start).split()


@pytest.mark.parametrize(
    ("amount", "written", "with_sign"),
    [
        ("1234567.891", "1,234,567.89", "+1,234,567.89"),
        ("-3", "-3.00", "-3.00"),
        ("0", "0.00", "0.00"),
        ("-0.001", "0.00", "0.00"),
        ("0.001", "0.00", "0.00"),
        ("123456789012345678901234567890.12", "123,456,789,012,345,678,901,234,567,890.12", None),
    ],
)
def test_money_has_two_decimals_and_thousands(amount, written, with_sign):
    assert money(Decimal(amount)) == written
    assert signed(Decimal(amount)) == (with_sign or f"+{written}")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("29123.456", "29,123.46"),
        ("100", "100.00"),
        ("1.2", "1.2000"),
        ("0.1610", "0.16100"),
        ("0.08123", "0.08123"),
        ("0.00001234", "0.00001234"),
        ("0", "0.00"),
    ],
)
def test_a_price_has_digits_that_tell_it_from_the_next(value, written):
    assert price(Decimal(value)) == written


def test_a_price_that_is_not_known_is_a_dash():
    assert price(None) == "-"


@pytest.mark.parametrize(
    ("value", "written"), [("0.50000000", "0.5"), ("12332.655", "12,332.655"), ("1E-8", "0.00000001"), ("100", "100")]
)
def test_a_quantity_loses_no_digit_and_shows_no_idle_zero(value, written):
    assert quantity(Decimal(value)) == written


def test_a_share_has_a_sign_and_none_exists_of_nothing():
    assert percent(Decimal("-12"), Decimal(10_000)) == "-0.12 %"
    assert percent(Decimal(1), Decimal(3)) == "+33.33 %"
    assert percent(Decimal(1), Decimal(0)) == ""


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(8, "8 s"), (83, "1 min 23 s"), (3_600, "1 h"), (11_100, "3 h 5 min"), (187_200, "2 d 4 h")],
)
def test_durations_have_two_units_at_most(seconds, written):
    assert duration(seconds) == written


def test_text_of_others_becomes_one_printable_line():
    assert one_line("a\n\tb\x1b[31m  c") == "a b [31m c"


def test_the_quote_asset_is_what_all_symbols_end_in():
    assert quote_asset(["BTCUSDT", "ETHUSDT"]) == "USDT"
    assert quote_asset(["ETHBTC"]) == "BTC"
    assert quote_asset(["BTCUSDT", "ETHBTC"]) == ""
    assert quote_asset([]) == ""


def test_klines_are_streamed_and_the_newest_shown():
    klines = (a_kline("39123.45", open_time=NOON + i * MINUTE_MS, is_closed=i % 2 == 0) for i in range(1_000))

    lines = printed(klines_table(klines, last=3))

    assert lines[0].startswith("last 3 of 1,000 klines of 1m, 2021-05-20 04:37 to 2021-05-20 04:39 UTC")
    assert [line.split()[-1] for line in lines[2:-1]] == ["open", "yes", "open"]
    assert lines[-2].split()[:4] == ["BTCUSDT", "05-20", "04:39", "39,123.45"]
    assert lines[-1] == "these are the last 3; --json prints all 1,000"


def test_a_table_of_all_trades_says_nothing_of_more():
    trades = [a_trade(number) for number in range(3)]

    assert "--json" not in "".join(printed(trades_table(trades, last=3)))
    assert printed(trades_table(trades, last=2))[-1] == "these are the last 2; --json prints all 3"


def test_trades_show_fee_and_reason_and_obey_no_markup():
    charged = (("BNB", Decimal("0.001")), ("BTC", Decimal("0.00002")))
    trades = [a_trade(0), a_trade(1, side=Side.SELL, reason="[red]rose[/red]", commissions=charged)]

    lines = printed(trades_table(trades), width=120)

    assert lines[0].startswith("2 trades, 2021-05-19 12:00 to 2021-05-19 12:00 UTC")
    assert lines[2].split()[:7] == ["05-19", "12:00:00", "BUY", "BTCUSDT", "0.02556", "39,123.45", "0.00002556"]
    assert lines[2].rstrip().endswith("fell 1.20 % from 39598.63 to 39123.45")
    assert lines[3].rstrip().endswith("0.001 BNB + 0.00002 BTC [red]rose[/red]")


def test_a_trade_is_one_line_at_80_columns():
    assert len(printed(trades_table([a_trade(i) for i in range(5)]))) == 2 + 5


def test_nothing_stored_is_said():
    assert printed(klines_table([])) == ["no klines are stored"]
    assert printed(trades_table([])) == ["no trades are stored"]
    assert printed(wallet_table(Snapshot("none", None, (), Decimal(0), Decimal(0)))) == ["no book is kept here yet"]


def test_the_wallet_adds_up_to_the_equity():
    lines = printed(wallet_table(a_snapshot()))

    assert row(lines, "BTCUSDT") == ["0.1", "39,000.00", "3,900.00", "-100.00"]
    assert row(lines, "cash") == ["6,000.00"]
    assert row(lines, "equity") == ["9,900.00", "-100.00"]
    assert lines[-1] == "began with 10,000.00, so far -1.00 %"


def test_status_shows_symbols_actors_and_their_errors_literally():
    lines = printed(status_table(a_snapshot().as_json()))

    assert lines[0] == "the demo bot runs as process 77"
    assert "refused CASH 2" in lines
    assert row(lines, "BTCUSDT") == ["39,000.00", "0.1", "2021-05-19", "12:00:00"]
    assert row(lines, "feed/BTCUSDT ") == ["quarantined", "5", "3", "1", "min", "23", "s"]
    assert lines[-1] == "feed/BTCUSDT: [red]boom x"


def test_status_tells_of_dead_letters_and_of_trouble():
    status = {**a_snapshot().as_json(), "dead_letters": [{"number": 1}], "trouble": "bridge is down: boom"}
    status["halted"] = "by hand"
    status["stopped"] = {"BTCUSDT": "BTCUSDT: coins are missing", "": "cash is missing"}
    lines = printed(status_table(status))
    assert lines[1] == "UNWELL: bridge is down: boom"
    assert lines[2] == "HALTED, no order leaves: by hand"
    assert lines[3] == "STOPPED, no order of it leaves: BTCUSDT: coins are missing"
    assert lines[4] == "STOPPED, no order of it leaves: all entries: cash is missing"
    assert lines[5].endswith("dead letters 1")


def test_a_missing_asset_is_said_at_80_columns():
    row = {"asset": "BTC", "symbol": "BTCUSDT", "book": "12.01621377", "free": "12.00000377", "locked": "0"}
    found = {"assets": [{**row, "beside": "-10.01621", "unknown": False}]}
    lines = printed(reconcile_table({**found, "findings": [], "adjustments": [], "freed": []}, {}, Path("data")))
    assert lines[2].endswith("  MISSING")


def test_status_needs_only_the_contracts_keys():
    status = {
        "mode": "paper",
        "running": False,
        "pid": None,
        "actors": [],
        "symbols": {"BTCUSDT": {"price": None, "position": "0", "last_kline_ms": None}},
        "equity": "10000",
    }

    lines = printed(status_table(status))

    assert lines[:2] == ["the paper bot is not running", "equity 10,000.00"]
    assert row(lines, "BTCUSDT") == ["-", "0", "none"]


def test_a_report_sets_the_rule_beside_buy_and_hold():
    lines = printed(report_table(a_report(), FEE))

    assert row(lines, "trades") == ["2", "(BUY", "1,", "SELL", "1)"]
    assert row(lines, "refused CASH") == ["12"]
    assert row(lines, "equity") == ["9,600.00", "11,988.00"]
    assert row(lines, "P/L  ") == ["-400.00", "+1,988.00"]
    assert row(lines, "fees paid") == ["2.00", "10.00"]
    assert lines[-1] == "The rule lost 400.00 USDT and ended 2,388.00 USDT behind buy-and-hold."


def test_the_verdict_is_honest_either_way():
    assert verdict(a_report("10100", "90"), FEE).startswith(
        "The rule made 100.00 USDT and ended 1,109.00 USDT ahead of"
    )
    assert verdict(a_report("10000", "90"), FEE).startswith("The rule neither made nor lost money and ended 1,009.00")
    assert verdict(a_report("9990", "100"), FEE) == "The rule lost 10.00 USDT and ended level with buy-and-hold."
