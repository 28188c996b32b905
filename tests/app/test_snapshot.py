"""What is to be seen of a bot: every decided message is counted, by symbol and in all."""

import io
from decimal import Decimal

import msgspec
from rich.console import Console

from bot.actors.portfolio import START_CASH_NOTE
from bot.actors.supervisor import Memories
from bot.adapters.sqlite import SqliteJournal, SqliteStore
from bot.app.data_directory import DataDirectory, Identity
from bot.app.snapshot import stored_snapshot, take_snapshot
from bot.app.trading import RULES_NOTE, encode_rules
from bot.cli.run import _state
from bot.cli.tables import status_table
from tests.support.builders import an_intent, rules_of

SYMBOLS = ("BTCUSDT", "ETHUSDT")


def a_snapshot():
    memories = Memories(SYMBOLS)
    for symbol, counts in zip(SYMBOLS, ({"FIRST": 1, "HOLD": 7, "CASH": 1}, {"FIRST": 1, "BUY": 1}), strict=True):
        cell = memories.traders[symbol]
        cell.value = msgspec.structs.replace(cell.value, decisions=counts, close=Decimal(100))
    return take_snapshot("demo", SYMBOLS, memories, (), 0)


def printed(status):
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(status_table(status))
    return console.export_text().splitlines()


def test_status_counts_decisions_of_each_symbol_and_of_all():
    status = a_snapshot().as_json()
    assert status["symbols"]["BTCUSDT"]["decisions"] == {"FIRST": 1, "HOLD": 7, "CASH": 1}
    assert status["decisions"] == {"HOLD": 7, "FIRST": 2, "CASH": 1, "BUY": 1}
    assert status["decided"] == 11


def test_status_and_the_log_show_them_to_people():
    assert "decided HOLD 7, FIRST 2, CASH 1, BUY 1" in printed(a_snapshot().as_json())
    assert _state(a_snapshot())["decisions"] == {"HOLD": 7, "FIRST": 2, "CASH": 1, "BUY": 1}


def test_an_order_of_unknown_fate_is_shown_as_that_with_the_money_it_holds():
    memories = Memories(SYMBOLS)
    cell, doubt = memories.traders["ETHUSDT"], an_intent(quantity="10", symbol="ETHUSDT", client_order_id="bh-7")
    doubt = msgspec.structs.replace(doubt, quote_reserved=Decimal("1000.5"))
    cell.value = msgspec.structs.replace(cell.value, doubts=(doubt,))
    status = take_snapshot("live", SYMBOLS, memories, (), 0).as_json()
    shown = {"client_order_id": "bh-7", "side": "BUY", "quantity": "10", "reserved": "1000.5"}
    assert [view["unknown"] for view in status["symbols"].values()] == [[], [shown]]
    assert "UNKNOWN, the exchange is asked: BUY 10 ETHUSDT, bh-7, 1,000.50 stay reserved" in printed(status)


def test_an_order_of_unknown_fate_is_shown_while_no_bot_runs(tmp_path):
    directory = DataDirectory(tmp_path)
    directory.claim(Identity("live", "com", "a", "b"))
    directory.release()
    SqliteStore(directory.history).close()
    journal = SqliteJournal(directory.orders)
    journal.set_note(START_CASH_NOTE, "500")
    journal.set_note(RULES_NOTE, encode_rules({"BTCUSDT": rules_of()}))
    journal.record(an_intent(client_order_id="bh-8"))
    journal.close()
    status = stored_snapshot(directory).as_json()
    (shown,) = status["symbols"]["BTCUSDT"]["unknown"]
    assert shown["client_order_id"] == "bh-8"
    assert any(line.startswith("UNKNOWN, the next run asks the exchange: BUY 1 BTCUSDT") for line in printed(status))
