"""What is to be seen of a bot: every decided message is counted, by symbol and in all."""

import io
from decimal import Decimal

import msgspec
from rich.console import Console

from bot.actors.supervisor import Memories
from bot.app.snapshot import take_snapshot
from bot.cli.run import _state
from bot.cli.tables import status_table

SYMBOLS = ("BTCUSDT", "ETHUSDT")


def a_snapshot():
    memories = Memories(SYMBOLS)
    for symbol, counts in zip(SYMBOLS, ({"FIRST": 1, "HOLD": 7, "CASH": 1}, {"FIRST": 1, "BUY": 1}), strict=True):
        cell = memories.traders[symbol]
        cell.value = msgspec.structs.replace(cell.value, decisions=counts, close=Decimal(100))
    return take_snapshot("demo", SYMBOLS, memories, (), 0)


def test_status_counts_decisions_of_each_symbol_and_of_all():
    status = a_snapshot().as_json()
    assert status["symbols"]["BTCUSDT"]["decisions"] == {"FIRST": 1, "HOLD": 7, "CASH": 1}
    assert status["decisions"] == {"HOLD": 7, "FIRST": 2, "CASH": 1, "BUY": 1}
    assert status["decided"] == 11


def test_status_and_the_log_show_them_to_people():
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(status_table(a_snapshot().as_json()))
    assert "decided HOLD 7, FIRST 2, CASH 1, BUY 1" in console.export_text()
    assert _state(a_snapshot())["decisions"] == {"HOLD": 7, "FIRST": 2, "CASH": 1, "BUY": 1}
