"""What every order journal keeps: intents before their orders, the first end of each, nothing lost by SIGKILL."""

import random
import signal
import subprocess
import sys
import threading
from decimal import Decimal
from itertools import count
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.adapters.sqlite import SqliteJournal
from bot.domain.order import Fill, OrderIntent, OrderReport, OrderStatus, Side
from bot.ports import StoreError
from tests.support.builders import NOON, a_fill, an_adjustment, an_intent

ROOT = Path(__file__).parents[2]
JOURNALS = [pytest.param(lambda directory: SqliteJournal(directory / "orders.db"), id="sqlite")]
FINAL = [status for status in OrderStatus if status.is_final]
NOT_FINAL = [status for status in OrderStatus if not status.is_final]


@pytest.fixture(params=JOURNALS)
def open_journal(request, tmp_path):
    """Opens the one journal of this test; called again, as a process that starts anew would."""
    opened = []

    def open_one():
        for journal in opened:
            journal.close()
        opened.append(request.param(tmp_path))
        return opened[-1]

    yield open_one
    for journal in opened:
        journal.close()


@pytest.fixture
def journal(open_journal):
    return open_journal()


def a_report(client_order_id="bh-1", *fills, status=OrderStatus.FILLED, symbol="BTCUSDT", detail=""):
    return OrderReport(client_order_id, 1, symbol, status, fills, detail)


def ids(orders):
    return [order.intent.client_order_id for order in orders]


# The port


def test_an_empty_journal_knows_nothing(journal):
    assert journal.entry("bh-1") is None
    assert journal.unresolved() == []
    assert list(journal.settled()) == []
    assert journal.get_note("cash") is None


def test_an_intent_is_recorded_once(journal):
    first = an_intent(quantity="1")
    assert journal.record(first) is True
    assert journal.record(first) is False
    assert journal.record(an_intent(quantity="2")) is False
    (entry,) = journal.unresolved()
    assert (entry.intent, entry.status, entry.fills) == (first, OrderStatus.RECORDED, ())


def test_a_limit_price_is_kept_to_the_last_decimal(journal):
    limited = msgspec.structs.replace(an_intent(), limit_price=Decimal("0.00000001"))
    journal.record(limited)
    journal.settle(a_report())
    assert journal.entry("bh-1").intent == limited


def test_a_settled_order_has_its_end_and_its_fills_in_their_order(journal):
    journal.record(an_intent())
    fills = a_fill(trade_id=9, quantity="0.3"), a_fill(trade_id=4, quantity="0.7")
    journal.settle(a_report("bh-1", *fills))
    entry = journal.entry("bh-1")
    assert (entry.intent, entry.status, entry.fills) == (an_intent(), OrderStatus.FILLED, fills)
    assert journal.unresolved() == []
    assert list(journal.settled()) == [entry]


@pytest.mark.parametrize("status", FINAL)
def test_every_final_status_ends_an_order(journal, status):
    journal.record(an_intent())
    journal.settle(a_report(status=status, detail="the exchange's words"))
    assert journal.entry("bh-1").status is status
    assert journal.unresolved() == []


@pytest.mark.parametrize("status", NOT_FINAL)
def test_an_order_that_goes_on_cannot_be_settled(journal, status):
    journal.record(an_intent())
    with pytest.raises(ValueError, match=status.value):
        journal.settle(a_report(status=status))
    assert ids(journal.unresolved()) == ["bh-1"]


def test_the_first_settlement_stands(journal):
    journal.record(an_intent())
    journal.settle(a_report("bh-1", a_fill(trade_id=1)))
    settled = journal.entry("bh-1")
    journal.settle(a_report("bh-1", a_fill(trade_id=1)))
    journal.settle(a_report("bh-1", a_fill(trade_id=2), status=OrderStatus.EXPIRED))
    journal.settle(a_report("bh-1", status=OrderStatus.NOT_PLACED))
    assert journal.entry("bh-1") == settled
    assert journal.record(an_intent()) is False


@pytest.mark.parametrize(
    ("status", "order_id", "never_left", "is_no_order"),
    [
        (OrderStatus.NOT_PLACED, 0, True, True),
        (OrderStatus.NOT_PLACED, 0, False, False),
        (OrderStatus.REJECTED, 0, False, True),
        (OrderStatus.REJECTED, 9, False, False),
        (OrderStatus.FILLED, 9, False, False),
    ],
)
def test_of_some_orders_it_is_certain_that_they_never_were(open_journal, status, order_id, never_left, is_no_order):
    journal = open_journal()
    journal.record(an_intent())
    assert not journal.entry("bh-1").is_no_order
    journal.settle(OrderReport("bh-1", order_id, "BTCUSDT", status), never_left)
    journal.settle(OrderReport("bh-1", 0, "BTCUSDT", OrderStatus.NOT_PLACED), never_left=True)
    for opened in (journal, open_journal()):
        assert opened.entry("bh-1").is_no_order is is_no_order
        assert [entry.is_no_order for entry in opened.settled()] == [is_no_order]


def test_an_order_that_was_never_recorded_cannot_be_settled(journal):
    with pytest.raises(StoreError, match="bh-1 was never recorded"):
        journal.settle(a_report("bh-1", a_fill()))
    assert journal.entry("bh-1") is None


def test_a_fill_belongs_to_one_order_and_a_settlement_is_whole_or_not_at_all(journal):
    for name in ("bh-1", "bh-2"):
        journal.record(an_intent(client_order_id=name))
    journal.settle(a_report("bh-1", a_fill(trade_id=5)))
    new, taken = a_fill(trade_id=6, client_order_id="bh-2"), a_fill(trade_id=5, client_order_id="bh-2")
    with pytest.raises(StoreError, match="fill 5 of BTCUSDT is journaled already"):
        journal.settle(a_report("bh-2", new, taken))
    assert (journal.entry("bh-2").status, journal.entry("bh-2").fills) == (OrderStatus.RECORDED, ())
    with pytest.raises(ValueError, match="fills of other orders"):
        journal.settle(a_report("bh-2", a_fill(trade_id=7)))
    journal.settle(a_report("bh-2", new))
    assert journal.entry("bh-2").fills == (new,)


def test_trade_ids_that_start_over_are_other_fills(journal):
    """A reset of the testnet starts a symbol's trade ids over; the executions then have other times."""
    fills = [a_fill(trade_id=5), a_fill(trade_id=5, client_order_id="bh-2", time=NOON + 1)]
    for fill in fills:
        journal.record(an_intent(client_order_id=fill.client_order_id))
        journal.settle(a_report(fill.client_order_id, fill))
    assert [order.fills for order in journal.settled()] == [(fills[0],), (fills[1],)]


@pytest.mark.parametrize("status", FINAL)
def test_a_late_fill_amends_a_settled_order_once(open_journal, status):
    journal = open_journal()
    journal.record(an_intent())
    first = a_fill(trade_id=4, quantity="0.3")
    journal.settle(a_report("bh-1", first, status=status))
    late = a_fill(trade_id=2, quantity="0.2"), a_fill(trade_id=9, quantity="0.5")
    assert journal.amend("bh-1", late[:1]) == late[:1]
    assert journal.amend("bh-1", [*late, first, late[1]]) == late[1:]
    assert journal.amend("bh-1", late) == journal.amend("bh-1", ()) == ()
    again = open_journal()
    assert (again.entry("bh-1").status, again.entry("bh-1").fills) == (status, (first, *late))
    assert [order.fills for order in again.settled("BTCUSDT")] == [(first, *late)]


def test_an_amendment_is_whole_or_not_at_all(journal):
    for name in ("bh-1", "bh-2", "bh-3"):
        journal.record(an_intent(client_order_id=name))
    for name in ("bh-1", "bh-2"):
        journal.settle(a_report(name, *([a_fill(trade_id=5)] if name == "bh-1" else [])))
    new, taken = a_fill(trade_id=6, client_order_id="bh-2"), a_fill(trade_id=5, client_order_id="bh-2")
    with pytest.raises(StoreError, match="fill 5 of BTCUSDT is journaled already"):
        journal.amend("bh-2", [new, taken])
    assert journal.entry("bh-2").fills == ()
    with pytest.raises(ValueError, match="fills of other orders"):
        journal.amend("bh-2", [a_fill()])
    for name in ("bh-3", "bh-4"):
        with pytest.raises(StoreError, match=f"order {name} has not ended in the journal"):
            journal.amend(name, [a_fill(client_order_id=name)])


def test_an_adjustment_is_stored_once_and_outlives_the_process(open_journal):
    journal = open_journal()
    assert journal.adjustments() == []
    later, earlier = an_adjustment("0.00000001", price="45123.45", time=NOON + 5), an_adjustment(adjustment_id="adj-2")
    cash = an_adjustment("0", symbol="", quote="-12.50", adjustment_id="adj-3")
    assert [journal.adjust(one) for one in (later, earlier, cash, later)] == [True, True, True, False]
    assert journal.adjust(an_adjustment("-7")) is False, "another content under a known id changes nothing"
    assert journal.adjustments() == open_journal().adjustments() == [later, earlier, cash]


def test_trade_ids_are_counted_by_each_symbol(journal):
    fills = [a_fill(trade_id=5), a_fill(trade_id=5, symbol="ETHUSDT", client_order_id="bh-2")]
    for fill in fills:
        journal.record(an_intent(symbol=fill.symbol, client_order_id=fill.client_order_id))
        journal.settle(a_report(fill.client_order_id, fill, symbol=fill.symbol))
    assert [order.fills for order in journal.settled()] == [(fills[0],), (fills[1],)]


def test_what_changed_since_a_mark_is_given_once(open_journal):
    journal = open_journal()
    for number in range(4):
        journal.record(an_intent(client_order_id=f"bh-{number}"))
    fill = a_fill(client_order_id="bh-0")
    journal.settle(a_report("bh-0", fill))
    mark, ended = journal.changes(0)
    assert (ids(ended), ended[0].fills) == (["bh-0"], (fill,))
    assert journal.changes(mark) == (mark, [])
    journal.settle(a_report("bh-2"))
    late = a_fill(client_order_id="bh-0", trade_id=2)
    journal.amend("bh-0", [late])
    mark, changed = journal.changes(mark)
    assert {entry.intent.client_order_id: entry.fills for entry in changed} == {"bh-2": (), "bh-0": (fill, late)}
    assert journal.changes(mark)[1] == []
    journal.settle(a_report("bh-1"))
    again = open_journal()
    mark, ended = again.changes(0)
    assert ids(ended) == ["bh-0", "bh-1", "bh-2"]
    assert again.changes(mark)[1] == []


def test_orders_come_in_the_order_in_which_they_were_recorded(journal):
    names = ["bh-5", "bh-1", "bh-9", "bh-3", "bh-7", "bh-2"]
    for n, name in enumerate(names):
        journal.record(an_intent(client_order_id=name, symbol="ETHUSDT" if n % 2 else "BTCUSDT"))
    assert ids(journal.unresolved()) == names
    for name in ("bh-3", "bh-5", "bh-1"):
        journal.settle(a_report(name, status=OrderStatus.REJECTED))
    assert ids(journal.settled()) == ["bh-5", "bh-1", "bh-3"]
    assert ids(journal.settled("ETHUSDT")) == ["bh-1", "bh-3"]
    assert ids(journal.unresolved()) == ["bh-9", "bh-7", "bh-2"]
    assert ids(journal.unresolved("BTCUSDT")) == ["bh-9", "bh-7"]
    assert ids(journal.unresolved("DOGEUSDT")) == ids(journal.settled("DOGEUSDT")) == []


def test_the_last_value_of_a_note_stands(journal):
    journal.set_note("cash", "10000")
    journal.set_note("cash", "9000.5")
    journal.set_note("day", "")
    assert (journal.get_note("cash"), journal.get_note("day"), journal.get_note("Cash")) == ("9000.5", "", None)


def test_a_journal_opened_again_has_all(open_journal):
    journal = open_journal()
    for name in ("bh-1", "bh-2"):
        journal.record(an_intent(client_order_id=name))
    journal.settle(a_report("bh-1", a_fill()))
    journal.set_note("cash", "10000")
    again = open_journal()
    assert [order.fills for order in again.settled()] == [(a_fill(),)]
    assert ids(again.unresolved()) == ["bh-2"]
    assert again.get_note("cash") == "10000"
    assert again.record(an_intent(client_order_id="bh-1")) is False


TIMES = st.integers(0, 2**62)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
DECIMALS = st.builds(
    lambda sign, digits, exponent: Decimal((sign, digits, exponent)),
    st.integers(0, 1),
    st.lists(st.integers(0, 9), min_size=1, max_size=40).map(tuple),
    st.integers(-60, 50),
)
FRESH = count()


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_intents_and_fills_come_back_to_the_last_digit(journal, data):
    name, side, symbol = f"bh-{next(FRESH)}", data.draw(st.sampled_from(Side)), f"S{next(FRESH)}"
    intent = OrderIntent(
        client_order_id=name,
        symbol=symbol,
        side=side,
        quantity=data.draw(DECIMALS),
        close=data.draw(DECIMALS),
        open_time=data.draw(TIMES),
        event_time=data.draw(TIMES),
        reason=data.draw(TEXTS),
        quote_reserved=data.draw(DECIMALS),
    )
    fills = tuple(
        Fill(
            client_order_id=name,
            order_id=data.draw(TIMES),
            trade_id=trade_id,
            symbol=symbol,
            side=side,
            price=data.draw(DECIMALS),
            quantity=data.draw(DECIMALS),
            quote_quantity=data.draw(DECIMALS),
            commission=data.draw(DECIMALS),
            commission_asset=data.draw(TEXTS),
            time=data.draw(TIMES),
        )
        for trade_id in data.draw(st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=3))
    )
    assert journal.record(intent)
    assert journal.entry(name).intent == intent
    journal.settle(OrderReport(name, data.draw(TIMES), symbol, OrderStatus.FILLED, fills, data.draw(TEXTS)))
    assert (journal.entry(name).intent, journal.entry(name).fills) == (intent, fills)


def test_of_many_threads_with_one_id_one_records_it(journal):
    threads, orders = 6, 150
    wins = [[] for _ in range(threads)]
    start = threading.Barrier(threads)

    def trade(n):
        start.wait()
        for order in range(orders):
            name = f"bh-{order}"
            if journal.record(an_intent(client_order_id=name)):
                wins[n].append(name)
            # Threads see one another's orders and settle them twice; reads run beside the writes.
            journal.settle(a_report(name, a_fill(trade_id=order, client_order_id=name)))
            assert journal.entry(name).status is OrderStatus.FILLED

    workers = [threading.Thread(target=trade, args=(n,)) for n in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(name for names in wins for name in names) == sorted(f"bh-{order}" for order in range(orders))
    assert len(list(journal.settled())) == orders
    assert all(len(order.fills) == 1 for order in journal.settled())


# SQLite's journal


def test_details_and_the_exchanges_order_id_are_kept(tmp_path):
    with SqliteJournal(tmp_path / "orders.db") as journal:
        journal.record(an_intent())
        assert (journal.entry("bh-1").order_id, journal.entry("bh-1").detail) == (None, "")
        journal.settle(msgspec.structs.replace(a_report(detail="-2010: no money"), order_id=77))
        assert (journal.entry("bh-1").order_id, journal.entry("bh-1").detail) == (77, "-2010: no money")


SENDER = """
import os, sys, threading
from pathlib import Path
from bot.adapters.sqlite import SqliteJournal
from bot.domain.order import OrderReport, OrderStatus
from tests.support.builders import a_fill, an_intent

journal = SqliteJournal(Path(sys.argv[1]))

def trade(symbol):
    for n in range(1_000_000):
        name = f"{symbol}-{n}"
        assert journal.record(an_intent(client_order_id=name, symbol=symbol))
        os.write(1, f"recorded {name}\\n".encode())
        fill = a_fill(client_order_id=name, symbol=symbol, trade_id=n)
        journal.settle(OrderReport(name, n, symbol, OrderStatus.FILLED, (fill,)))
        os.write(1, f"settled {name}\\n".encode())

for symbol in ("BTCUSDT", "ETHUSDT", "DOGEUSDT"):
    threading.Thread(target=trade, args=(symbol,)).start()
"""


@pytest.mark.parametrize("seed", range(6))
def test_what_was_recorded_outlives_sigkill(tmp_path, seed):
    path = tmp_path / "orders.db"
    lines_before_the_kill = random.Random(seed).randrange(1, 4_000)
    command = [sys.executable, "-c", SENDER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as sender:
        said = [sender.stdout.readline() for _ in range(lines_before_the_kill)]
        sender.kill()
        said += sender.stdout.readlines()
    assert sender.returncode == -signal.SIGKILL
    words = [line.split() for line in said]
    recorded = {name for word, name in words if word == "recorded"}
    settled = {name for word, name in words if word == "settled"}

    reader = SqliteJournal.read_only(path)
    known = {order.intent.client_order_id: order for order in [*reader.settled(), *reader.unresolved()]}
    assert recorded <= known.keys()
    # Each thread may have been killed between a commit and its line.
    assert len(known) - len(recorded) <= 3
    assert all(known[name].status is OrderStatus.FILLED and len(known[name].fills) == 1 for name in settled)
    assert len(reader.unresolved()) <= 3

    with SqliteJournal(path) as again:
        assert again.record(an_intent(client_order_id=next(iter(recorded)))) is False
        assert len(again.settled()) + len(again.unresolved()) == len(known)
        assert again.record(an_intent(client_order_id="bh-next"))


def test_a_journal_can_be_read_while_and_after_its_writer_lives(tmp_path):
    path = tmp_path / "orders.db"

    def check_read_only():
        files = sorted(file.name for file in tmp_path.iterdir())
        reader = SqliteJournal.read_only(path)
        assert [order.fills for order in reader.settled()] == [(a_fill(),)]
        assert reader.get_note("cash") == "10000"
        with pytest.raises(StoreError, match="not open for writing"):
            reader.record(an_intent(client_order_id="bh-2"))
        assert sorted(file.name for file in tmp_path.iterdir()) == files

    with SqliteJournal(path) as journal:
        journal.record(an_intent())
        journal.settle(a_report("bh-1", a_fill()))
        journal.set_note("cash", "10000")
        check_read_only()
    check_read_only()
    assert [file.name for file in tmp_path.iterdir()] == ["orders.db"]


def test_the_orders_of_unknown_fate_are_found_without_reading_the_others(tmp_path):
    """Counted in steps of SQLite's machine, which do not depend on the computer."""
    with SqliteJournal(tmp_path / "orders.db") as journal:
        journal.record(an_intent(client_order_id="bh-open"))
        few = steps_to_unresolved(journal)
        for n in range(300):
            journal.record(an_intent(client_order_id=f"bh-{n}"))
            journal.settle(a_report(f"bh-{n}", status=OrderStatus.CANCELED))
        assert steps_to_unresolved(journal) < 2 * few


def steps_to_unresolved(journal):
    steps = 0

    def step():
        nonlocal steps
        steps += 1

    opened = journal._database._open_reader

    def open_counting():
        connection = opened()
        connection.set_progress_handler(step, 1)
        return connection

    journal._database._open_reader = open_counting
    try:
        assert ids(journal.unresolved()) == ids(journal.unresolved("BTCUSDT")) == ["bh-open"]
    finally:
        journal._database._open_reader = opened
    return steps


def test_no_order_waits_for_the_wal_to_be_folded_into_the_file(tmp_path):
    """That takes as long as the disk's sync does; `fold` pays for it, the WAL's new beginning included."""
    path = tmp_path / "orders.db"
    wal = path.with_name("orders.db-wal")

    def trade(numbers):
        for number in numbers:
            name = f"bh-{number}"
            journal.record(an_intent(client_order_id=name))
            journal.settle(a_report(name, a_fill(client_order_id=name, trade_id=number)))

    def generation():
        """What a WAL is known by: each time that it begins anew, another one."""
        return wal.read_bytes()[16:24]

    with SqliteJournal(path) as journal:
        assert journal.fold() is False, "there is nothing to fold"
        before, first = path.stat().st_mtime_ns, generation()
        trade(range(1_000))
        assert (path.stat().st_mtime_ns, generation()) == (before, first)
        assert wal.stat().st_size > 4_000 * 4_096
        with SqliteJournal.read_only(path) as reader, reader.one_state():
            assert len(reader.settled()) == 1_000
            trade(range(1_000, 1_001))
            assert journal.fold() is False, "somebody reads what was there before"
        assert journal.fold() is True
        assert path.stat().st_mtime_ns > before
        second, grown = generation(), wal.stat().st_size
        assert second != first, "the next order need not begin the WAL anew"
        trade(range(1_001, 1_100))
        assert (generation(), wal.stat().st_size) == (second, grown)
        assert len(journal.settled()) == 1_100
