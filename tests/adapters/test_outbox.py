"""The outbox: what is stored is to be published, in order, over SIGKILL, within its bound."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.actors.persistence import confirm, settle
from bot.adapters.sqlite import SqliteOutbox, outbox_state
from bot.domain.kline import Kline
from bot.domain.order import Trade, trade_of
from bot.messages import Decision
from bot.ports import StoreError
from bot.supervision import ActorStarted
from tests.support.builders import MINUTE_MS, NOON, a_decision, a_fill, a_kline, an_intent
from tests.support.doubles import MemoryStore

PLENTY = 10**9


def a_trade(order_id="bh-1"):
    return trade_of(an_intent(client_order_id=order_id), [a_fill(client_order_id=order_id)], "test", "bot")


def open_klines(count, first=0):
    return [
        a_kline("1", open_time=NOON, event_time=NOON + number, is_closed=False)
        for number in range(first, first + count)
    ]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "outbox.db"


def entries(outbox, after=0):
    return [entry for _, entry in outbox.read(after, 10_000)]


def test_what_is_not_stored_is_not_to_be_published(path):
    with SqliteOutbox(path, PLENTY) as outbox:
        kline, trade = a_kline(), a_trade()
        outbox.add(2, [kline, trade], NOON)
        assert (entries(outbox), outbox.newest) == ([], 0)
        outbox.confirm()
        assert entries(outbox) == [kline, trade]
        assert outbox.newest == 2


def test_the_next_process_finds_what_was_stored_and_what_may_not_have_been(path):
    first, second = open_klines(1), [a_decision(), a_kline(), a_trade(), ActorStarted("bridge", 1, "bridge", NOON)]
    with SqliteOutbox(path, PLENTY) as outbox:
        outbox.add(1, first, NOON)
        outbox.confirm()
        outbox.add(5, second, NOON)
    with SqliteOutbox(path, PLENTY) as outbox:
        assert entries(outbox) == first
        assert outbox.unconfirmed() == second
        outbox.confirm()
        assert outbox.unconfirmed() == []
        assert entries(outbox) == [*first, *second[1:]], "a decision has no topic"


def test_what_the_broker_has_is_gone_and_places_are_never_used_again(path):
    with SqliteOutbox(path, PLENTY) as outbox:
        outbox.add(3, open_klines(3), NOON)
        outbox.confirm()
        outbox.delivered(2)
        assert [place for place, _ in outbox.read(0, 10)] == [3]
        outbox.delivered(3)
        assert outbox.state().depth == outbox.state().bytes == 0
    with SqliteOutbox(path, PLENTY) as outbox:
        outbox.add(1, [a_kline()], NOON)
        assert outbox.read(0, 10) == []
        assert len(outbox.unconfirmed()) == 1
        outbox.confirm()
        assert [place for place, _ in outbox.read(0, 10)] == [4]


def test_entries_of_the_log_that_come_again_are_left_out(path):
    with SqliteOutbox(path, PLENTY) as outbox:
        a, b, c = open_klines(3)
        outbox.add(2, [a, b], NOON)
        outbox.add(2, [a, b], NOON)
        outbox.add(3, [a, b, c], NOON)
        outbox.add(3, [c], NOON)
        outbox.confirm()
        assert entries(outbox) == [a, b, c]


def test_entries_of_a_kind_are_read_and_forgotten_by_themselves_each_in_order(path):
    with SqliteOutbox(path, PLENTY) as outbox:
        a, b, c = open_klines(3)
        first, second = a_trade("bh-1"), a_trade("bh-2")
        outbox.add(5, [a, first, b, second, c], NOON)
        outbox.confirm()
        assert outbox.read(0, 10, Trade) == [(2, first), (4, second)]
        outbox.delivered(4, Trade)
        assert entries(outbox) == [a, b, c]
        assert [entry for _, entry in outbox.read(0, 2, Kline)] == [a, b]
        outbox.delivered(3, Kline)
        assert (entries(outbox), outbox.depth) == ([c], 1)
        outbox.add(6, [a_trade("bh-3")], NOON)
        outbox.confirm()
        outbox.delivered(100, Kline)
        assert entries(outbox) == [a_trade("bh-3")]
        assert outbox.state().bytes > 0
        outbox.delivered(100)
        assert (outbox.depth, outbox.state().bytes) == (0, 0)


def test_of_closed_klines_only_open_ones_wait_no_longer_than_for_the_store(path):
    with SqliteOutbox(path, PLENTY, (Kline, Trade), closed_only=True) as outbox:
        all_of_them = [*open_klines(2), a_kline(), a_trade(), a_decision()]
        outbox.add(5, all_of_them, NOON)
        assert outbox.unconfirmed() == all_of_them
        assert outbox.depth == 2
        outbox.confirm()
        assert entries(outbox) == [a_kline(), a_trade()]
        assert (outbox.state().depth, outbox.state().dropped) == (2, 0)


def test_what_a_dead_process_gave_to_one_outbox_only_comes_into_the_other_and_the_store(tmp_path):
    a, b, c, d = open_klines(4)
    with SqliteOutbox(tmp_path / "1.db", PLENTY) as first, SqliteOutbox(tmp_path / "2.db", PLENTY) as second:
        for outbox in (first, second):
            outbox.add(2, [a, b], NOON)
        second.confirm()
        first.add(4, [c, d], NOON)
    store = MemoryStore()
    with SqliteOutbox(tmp_path / "1.db", PLENTY) as first, SqliteOutbox(tmp_path / "2.db", PLENTY) as second:
        store.is_failing = True
        with pytest.raises(StoreError):
            settle(store, [first, second], NOON)
        assert (entries(first), entries(second)) == ([], [a, b])
        store.is_failing = False
        settle(store, [first, second], NOON)
        assert entries(first) == [a, b, c, d]
        assert list(dict.fromkeys(entries(second))) == [a, b, c, d]
        assert list(store.klines.values()) == [a, b, c, d]
        assert first.unconfirmed() == second.unconfirmed() == []
        first.add(1, [a_kline()], NOON)
        first.confirm()
        assert entries(first)[-1] == a_kline(), "the log of this process begins anew"


def test_the_first_outbox_is_confirmed_last_so_it_has_all_that_may_have_to_be_made_whole(tmp_path):
    a, b = open_klines(2)
    with SqliteOutbox(tmp_path / "1.db", PLENTY) as first, SqliteOutbox(tmp_path / "2.db", PLENTY) as second:
        for outbox in (first, second):
            outbox.add(2, [a, b], NOON)
        second.close()
        with pytest.raises(StoreError):
            confirm([first, second])
        assert first.unconfirmed() == [a, b]


def test_a_full_outbox_lets_the_oldest_open_klines_go_and_nothing_else(path):
    with SqliteOutbox(path, 60_000) as outbox:
        kept = [a_kline(), a_trade(), ActorStarted("bridge", 1, "bridge", NOON)]
        outbox.add(3, kept, NOON)
        outbox.confirm()
        klines = open_klines(2_000)
        for at in range(0, 2_000, 100):
            outbox.add(3 + at + 100, klines[at : at + 100], NOON)
            outbox.confirm()
        state = outbox.state()
        assert state.bytes <= 60_000
        left = entries(outbox)
        assert left[:3] == kept
        assert left[3:] == klines[2_000 - len(left[3:]) :]
        assert state.dropped == 2_000 - len(left[3:]) > 1_000
        assert state.depth == len(left)
    with SqliteOutbox(path, 60_000) as outbox:
        assert outbox.state() == state
        closed = [a_kline(open_time=NOON + number * MINUTE_MS) for number in range(500)]
        outbox.add(500, closed, NOON)
        outbox.confirm()
        assert outbox.state().bytes > 60_000
        assert entries(outbox) == [*kept, *closed], "closed klines stay, whatever the bound"


def test_its_state_tells_how_much_waits_and_since_when(path):
    assert outbox_state(path) is None
    with SqliteOutbox(path, PLENTY) as outbox:
        assert outbox.state().oldest_ms is None
        outbox.add(1, open_klines(1), NOON)
        outbox.confirm()
        outbox.add(2, open_klines(1, 1), NOON + 500)
        outbox.confirm()
        assert (outbox.state().depth, outbox.state().oldest_ms) == (2, NOON)
        assert outbox_state(path) == outbox.state()
        outbox.delivered(1)
        assert outbox.state().oldest_ms == NOON + 500
    assert outbox_state(path).depth == 1


def test_an_entry_that_this_program_does_not_know_is_named(path):
    with SqliteOutbox(path, PLENTY) as outbox:
        outbox.add(1, [a_kline()], NOON)
        outbox.confirm()
        with outbox._database.writing() as connection:
            connection.execute("UPDATE outbox SET type = 'Sequel'")
        with pytest.raises(StoreError, match="holds a Sequel that this program cannot read"):
            outbox.read(0, 10)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["open", "closed", "trade", "decision", "confirm", "deliver", "reopen"]), max_size=40))
def test_it_is_a_queue_whatever_happens(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("outbox") / "outbox.db"
    outbox, offset, number = SqliteOutbox(path, PLENTY), 0, 0
    added, stored = [], []
    for step in steps:
        if step == "confirm":
            outbox.confirm()
            stored += [entry for entry in added if not isinstance(entry, Decision)]
            added = []
        elif step == "deliver":
            rows = outbox.read(0, 2)
            if rows:
                outbox.delivered(rows[-1][0])
                del stored[: len(rows)]
        elif step == "reopen":
            outbox.close()
            outbox, offset = SqliteOutbox(path, PLENTY), 0
        else:
            number += 1
            entry = {
                "open": lambda n: open_klines(1, n)[0],
                "closed": lambda n: a_kline(open_time=NOON + n * MINUTE_MS),
                "trade": lambda n: a_trade(f"bh-{n}"),
                "decision": lambda n: a_decision(),
            }[step](number)
            offset += 1
            outbox.add(offset, [entry], NOON)
            added.append(entry)
        assert entries(outbox) == stored
        assert outbox.unconfirmed() == added
        waiting = [entry for entry in added if not isinstance(entry, Decision)]
        assert outbox.state().depth == len(stored) + len(waiting)
    outbox.close()
