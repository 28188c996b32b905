"""`why` takes times as people write them, prints one answer, and says in one line what it cannot answer."""

import json
from decimal import Decimal

import pytest

from bot.adapters.sqlite import SqliteJournal, SqliteStore
from bot.app.data_directory import DataDirectory, Identity
from bot.app.trading import RULES_NOTE, encode_rules
from bot.app.why import WhyError
from bot.cli.parser import main
from bot.cli.why import moment_ms
from bot.domain.decision import Run
from tests.support.builders import NOON, a_decision, klines_of, rules_of

NOW = NOON + 3_600_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", None),
        ("2021-05-19T12:00:00", NOON + 999),
        ("2021-05-19 12:00:00", NOON + 999),
        ("2021-05-19T12:00:00Z", NOON + 999),
        ("2021-05-19T14:00:00+02:00", NOON + 999),
        ("2021-05-19T12:00:00.250", NOON + 250),
        ("12:00:00", NOON + 999),
        ("12:00", NOON + 999),
        ("12:00:00.5", NOON + 500),
        (str(NOON), NOON),
    ],
)
def test_a_moment_may_be_written_in_several_ways(text, expected):
    assert moment_ms(text, NOW) == expected


@pytest.mark.parametrize(
    "text", ["", "yesterday", "25:00:00", "12:61", "2021-13-01", "12345", "9" * 30, "0001-01-01T00:00:00+14:00"]
)
def test_what_is_no_moment_is_refused_with_the_forms(text):
    with pytest.raises(WhyError, match="is no time: write now, 07:44:38") as error:
        moment_ms(text, NOW)
    assert "\n" not in str(error.value)


@pytest.fixture
def directory(tmp_path):
    directory = DataDirectory(tmp_path)
    directory.claim(Identity(mode="demo", exchange="simulated", account="paper", bot_id="bot"))
    with SqliteStore(directory.history) as store, SqliteJournal(directory.orders) as journal:
        journal.set_note(RULES_NOTE, encode_rules({"BTCUSDT": rules_of()}))
        parameters = {"buy_drop": Decimal("0.01"), "sell_rise": Decimal("0.01")}
        store.record_run(Run(NOON, "demo", "bot.domain.scalping:Scalping", parameters, only_closed=False))
        klines = klines_of("100", "98", "98.1")
        refusal = a_decision("CASH", klines[1], client_order_id="bh-no", reason="BUY refused: only 5 USDT free")
        store.write(klines, [], [refusal])
    directory.release()
    return str(tmp_path)


def test_it_is_shown_what_was_decided_and_why(directory, capsys):
    assert main(["why", "btcusdt", "2021-05-19T12:01:59", "--data-dir", directory]) == 0
    said = capsys.readouterr().out
    assert "BTCUSDT, message of 2021-05-19 12:01:59.999 UTC" in said
    assert next(line for line in said.splitlines() if line.startswith(">")).split()[-1] == "CASH"
    assert "CASH: BUY refused: only 5 USDT free" in said


def test_on_a_narrow_terminal_nothing_is_cut(directory, capsys, monkeypatch):
    wide = main(["why", "BTCUSDT", "now", "--data-dir", str(directory)]), capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "40")
    assert (main(["why", "BTCUSDT", "now", "--data-dir", str(directory)]), capsys.readouterr().out) == wide
    assert "…" not in wide[1]


def test_json_is_one_object(directory, capsys):
    assert main(["why", "bh-no", "--data-dir", directory, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["symbol"], told["message"]["decision"], len(told["messages"])) == ("BTCUSDT", "CASH", 3)
    assert told["run"]["parameters"] == {"buy_drop": "0.01", "sell_rise": "0.01"}


@pytest.mark.parametrize(
    "arguments", [["ETHUSDT", "now"], ["BTCUSDT", "2020-01-01"], ["BTCUSDT"], ["BTCUSDT", "noon"], ["bh-unknown"]]
)
def test_what_cannot_be_answered_is_one_line_and_bad_usage(directory, capsys, arguments):
    assert main(["why", *arguments, "--data-dir", directory]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
