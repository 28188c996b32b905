"""KafkaBridgeActor and PersistenceActor: what was not written is never acknowledged, whoever restarts when."""

import tempfile
from collections import deque
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.actors import addresses
from bot.actors.kafka_bridge import BATCH, KafkaBridgeActor
from bot.actors.persistence import PersistenceActor, PersistenceSettings
from bot.adapters.local_log import LocalLog
from bot.domain.order import trade_of
from bot.messages import LogEntries, ReplayLog, Stored
from bot.ports import LogFull
from bot.supervision import ActorFailed, ActorRestarted, DeadLetter
from bot.supervision.testing import ManualClock, RecordingContext
from tests.support.builders import MINUTE_MS, NOON, a_decision, a_fill, a_kline, an_intent, klines_of
from tests.support.doubles import MemoryStore

BRIDGE, PERSISTENCE = addresses.BRIDGE, addresses.PERSISTENCE


def a_trade(order_id="bh-1"):
    return trade_of(an_intent(client_order_id=order_id), [a_fill(client_order_id=order_id)], "test", "bot")


def a_failure(epoch=1):
    return ActorFailed("trader/BTCUSDT", epoch, "handle", "Kline", "ValueError", NOON)


def a_bridge(log=None, epoch=1):
    context = RecordingContext(BRIDGE, ManualClock(NOON), epoch)
    actor = KafkaBridgeActor(context, log or LocalLog())
    actor.started()
    return actor, context


def batches(context):
    sent = context.sent_to(PERSISTENCE)
    context.sent.clear()
    return sent


def test_an_entry_goes_to_persistence_and_the_next_ones_wait_for_it():
    actor, context = a_bridge()
    a, b, c = klines_of("1", "2", "3")
    trade = a_trade()
    actor.handle(a)
    assert batches(context) == [LogEntries(1, (a,))]
    for entry in (b, trade, c):
        actor.handle(entry)
    assert batches(context) == []
    actor.handle(Stored(1))
    assert batches(context) == [LogEntries(4, (b, trade, c))]


def test_only_what_is_stored_is_released():
    log = LocalLog()
    actor, _ = a_bridge(log)
    for kline in klines_of("1", "2"):
        actor.handle(kline)
    assert (log.depth, log.released) == (2, 0)
    actor.handle(Stored(1))
    assert (log.depth, log.released) == (1, 1)
    actor.handle(Stored(1))
    assert (log.depth, log.released) == (1, 1)


def test_a_new_incarnation_of_either_has_all_that_is_not_stored_sent_again():
    log = LocalLog()
    actor, context = a_bridge(log)
    a, b = klines_of("1", "2")
    actor.handle(a)
    actor.handle(b)
    batches(context)
    actor.handle(ReplayLog())
    assert batches(context) == [LogEntries(2, (a, b))]
    _, context = a_bridge(log, epoch=2)
    assert batches(context) == [LogEntries(2, (a, b))]


def test_while_persistence_takes_nothing_the_log_keeps_it():
    log = LocalLog()
    actor, context = a_bridge(log)
    context.refusing.add(PERSISTENCE)
    a, b = klines_of("1", "2")
    actor.handle(a)
    context.refusing.clear()
    actor.handle(b)
    assert batches(context) == [LogEntries(2, (a, b))]


def test_a_backlog_goes_in_batches_and_at_a_stop_all_of_it_goes():
    log = LocalLog()
    actor, context = a_bridge(log)
    many = [a_kline("1", open_time=NOON + i * MINUTE_MS) for i in range(2 * BATCH + 5)]
    for kline in many:
        actor.handle(kline)
    batches(context)
    actor.handle(Stored(1))
    (batch,) = batches(context)
    assert (batch.upto, len(batch.entries)) == (BATCH + 1, BATCH)
    actor.stopped()
    rest = batches(context)
    assert [b.upto for b in rest] == [2 * BATCH + 1, 2 * BATCH + 5]
    assert [k for b in (batch, *rest) for k in b.entries] == many[1:]


def test_events_about_actors_are_log_entries_like_others():
    actor, context = a_bridge()
    kline, *events = [
        a_kline(),
        a_failure(),
        ActorRestarted("trader/BTCUSDT", 2, 1, 105, NOON),
        DeadLetter("trader/BTCUSDT", "Kline", "ValueError", 2, NOON, 1),
    ]
    actor.handle(kline)
    for event in events:
        actor.handle(event)
    actor.handle(Stored(1))
    assert batches(context) == [LogEntries(1, (kline,)), LogEntries(4, tuple(events))]


def test_a_store_that_is_far_behind_is_told_of_once_and_so_is_that_it_caught_up(tmp_path):
    in_memory = BATCH * 5 // 2
    log = LocalLog(tmp_path, memory_entries=in_memory)
    actor, context = a_bridge(log)
    many = [a_kline("1", open_time=NOON + i * MINUTE_MS) for i in range(BATCH * 13 // 2)]
    for kline in many[:in_memory]:
        actor.handle(kline)
    assert context.sent_to(addresses.MONITOR) == []
    for kline in many[in_memory:]:
        actor.handle(kline)
    (begun,) = context.sent_to(addresses.MONITOR)
    assert (begun.source, begun.level) == ("bridge", "error")
    assert f"{in_memory + 1} entries wait" in begun.text

    actor, context = a_bridge(log, epoch=2)
    for upto in range(BATCH, 6 * BATCH, BATCH):
        actor.handle(Stored(upto))
    assert log.spilled_bytes == 0
    assert context.sent_to(addresses.MONITOR) == [], "its forerunner told, and much waits still"
    while log.depth:
        actor.handle(Stored(context.sent_to(PERSISTENCE)[-1].upto))
    (caught_up,) = context.sent_to(addresses.MONITOR)
    assert (caught_up.level, "caught up" in caught_up.text) == ("info", True)
    assert [k for b in context.sent_to(PERSISTENCE) for k in b.entries] == many
    log.close()


def test_at_a_stop_no_more_is_handed_over_than_fits_in_memory_and_the_rest_is_told(tmp_path):
    log = LocalLog(tmp_path, memory_entries=10)
    actor, context = a_bridge(log)
    klines = klines_of(*range(1, 38))
    for kline in klines:
        actor.handle(kline)
    actor.stopped()
    handed = [k for b in context.sent_to(PERSISTENCE) for k in b.entries]
    assert handed == klines[:10]
    notice = context.sent_to(addresses.MONITOR)[-1]
    assert (notice.level, notice.text.startswith("27 entries ")) == ("warning", True)
    log.close()


def test_a_stop_with_nothing_left_is_not_worth_a_word():
    actor, context = a_bridge()
    for kline in klines_of("1", "2"):
        actor.handle(kline)
    actor.stopped()
    assert context.sent_to(addresses.MONITOR) == []


def test_a_full_log_fails_the_bridge_and_nothing_is_left_out():
    log = LocalLog(memory_entries=2)
    actor, _ = a_bridge(log)
    a, b, c = klines_of("1", "2", "3")
    actor.handle(a)
    actor.handle(b)
    with pytest.raises(LogFull):
        actor.handle(c)
    assert log.read(0, 10) == (2, (a, b))


class Chain:
    """Both actors over one log and store; messages are handed over when the test says so. Memory holds four entries."""

    def __init__(self, path):
        self.clock = ManualClock(NOON)
        self.log, self.store = LocalLog(Path(path), memory_entries=4), MemoryStore()
        self.boxes = {BRIDGE: deque(), PERSISTENCE: deque()}
        self.epochs = dict.fromkeys(self.boxes, 0)
        self.contexts, self.actors = {}, {}
        for address in self.boxes:
            self.restart(address)

    def restart(self, address):
        if address in self.contexts:
            self.contexts[address].end_epoch()
        self.epochs[address] += 1
        context = self.contexts[address] = RecordingContext(address, self.clock, self.epochs[address])
        if address == BRIDGE:
            actor = KafkaBridgeActor(context, self.log)
        else:
            settings = PersistenceSettings(batch_items=5)
            actor = PersistenceActor(context, settings, self.store, lambda: 10**12, self.clock.now_ms)
        self.actors[address] = actor
        actor.started()
        self.post(context)

    def post(self, context):
        for to, message in context.sent:
            if to in self.boxes:
                # The control lane overtakes: Stored and ReplayLog.
                (self.boxes[to].appendleft if isinstance(message, Stored | ReplayLog) else self.boxes[to].append)(
                    message
                )
        context.sent.clear()

    def step(self, address):
        context, box = self.contexts[address], self.boxes[address]
        due, context.due = context.due, []
        for message in due:
            self.actors[address].handle(message)
        if box:
            self.actors[address].handle(box.popleft())
        self.post(context)

    def settle(self):
        for _ in range(400):
            self.clock.advance(500)
            for address in self.boxes:
                self.step(address)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.just("kline"),
            st.just("trade"),
            st.just("event"),
            st.just("time"),
            st.booleans(),
            st.sampled_from([("step", BRIDGE), ("step", PERSISTENCE), ("restart", BRIDGE), ("restart", PERSISTENCE)]),
        ),
        max_size=60,
    )
)
def test_whatever_happens_everything_is_stored_and_nothing_released_before_it_was(events):
    with tempfile.TemporaryDirectory() as path:
        chain = Chain(path)
        try:
            check_nothing_is_lost(chain, events)
        finally:
            chain.log.close()


def check_nothing_is_lost(chain, events):
    klines, trades, told = 0, set(), 0
    for number, event in enumerate(events):
        if event == "kline":
            klines += 1
            chain.boxes[BRIDGE].append(a_kline("1", open_time=NOON + number * MINUTE_MS))
        elif event == "trade":
            trades.add(f"bh-{number}")
            chain.boxes[BRIDGE].append(a_trade(f"bh-{number}"))
        elif event == "event":
            told += 1
            chain.boxes[BRIDGE].append(a_failure(number))
        elif event == "time":
            chain.clock.advance(300)
        elif isinstance(event, bool):
            chain.store.is_failing = event
        elif event[0] == "step":
            chain.step(event[1])
        else:
            chain.restart(event[1])
        assert chain.log.released <= len(chain.store.klines) + len(chain.store.trades) + told
    chain.store.is_failing = False
    chain.settle()
    assert len(chain.store.klines) == klines
    assert set(chain.store.trades) == trades
    assert (chain.log.released, chain.log.depth) == (klines + len(trades) + told, 0)


# Persistence alone


class Keeper:
    def __init__(self, free=10**12, **changes):
        self.clock = ManualClock(NOON)
        self.store = MemoryStore()
        self.free = free
        self.changes = changes
        self.epoch = 0
        self.restart()

    def restart(self):
        self.epoch += 1
        self.context = RecordingContext(PERSISTENCE, self.clock, self.epoch)
        settings = PersistenceSettings(**self.changes)
        self.actor = PersistenceActor(self.context, settings, self.store, lambda: self.free, self.clock.now_ms)
        self.actor.started()

    def told(self, to):
        sent = self.context.sent_to(to)
        self.context.sent = [(a, m) for a, m in self.context.sent if a != to]
        return sent

    def ring(self, ms):
        self.clock.advance(ms)
        due, self.context.due = self.context.due, []
        for message in due:
            self.actor.handle(message)


@pytest.fixture
def keeper():
    return Keeper(batch_items=3)


def test_a_start_asks_for_what_is_not_stored(keeper):
    assert keeper.told(BRIDGE) == [ReplayLog()]


def test_what_comes_alone_is_written_at_once_and_what_comes_soon_after_waits_for_more(keeper):
    keeper.told(BRIDGE)
    a, b, c, d = klines_of("1", "2", "3", "4")
    keeper.actor.handle(LogEntries(1, (a,)))
    assert (keeper.store.writes, keeper.told(BRIDGE)) == ([1], [Stored(1)])
    keeper.ring(50)
    keeper.actor.handle(LogEntries(2, (b,)))
    keeper.ring(149)
    assert (keeper.store.writes, keeper.told(BRIDGE)) == ([1], [])
    keeper.actor.handle(LogEntries(3, (c,)))
    keeper.ring(1)
    assert (keeper.store.writes, keeper.told(BRIDGE)) == ([1, 2], [Stored(3)])
    keeper.ring(200)
    keeper.actor.handle(LogEntries(4, (d,)))
    assert (keeper.store.writes, keeper.told(BRIDGE)) == ([1, 2, 1], [Stored(4)])


def test_a_batch_is_written_once_it_is_large_enough(keeper):
    keeper.told(BRIDGE)
    keeper.actor.handle(LogEntries(3, (*klines_of("1", "2"), a_trade())))
    assert (keeper.store.writes, keeper.told(BRIDGE)) == ([3], [Stored(3)])
    assert (len(keeper.store.klines), len(keeper.store.trades)) == (2, 1)


def test_a_store_that_fails_gets_it_again_and_nothing_is_acknowledged_meanwhile(keeper):
    keeper.told(BRIDGE)
    keeper.store.is_failing = True
    keeper.actor.handle(LogEntries(3, tuple(klines_of("1", "2", "3"))))
    keeper.actor.handle(LogEntries(4, (a_trade(),)))
    for _ in range(3):
        keeper.ring(1_000)
    assert keeper.told(BRIDGE) == []
    (notice,) = keeper.told(addresses.MONITOR)
    assert (notice.level, "disk is full" in notice.text) == ("error", True)
    keeper.store.is_failing = False
    keeper.ring(1_000)
    assert keeper.told(BRIDGE) == [Stored(4)]
    assert [n.level for n in keeper.told(addresses.MONITOR)] == ["info"]
    assert (len(keeper.store.klines), len(keeper.store.trades)) == (3, 1)


def test_the_same_batch_again_is_not_written_again(keeper):
    batch = LogEntries(3, tuple(klines_of("1", "2", "3")))
    keeper.actor.handle(batch)
    keeper.actor.handle(batch)
    assert keeper.store.writes == [3]


def test_what_is_sent_again_beside_something_new_is_written_once(keeper):
    keeper.told(BRIDGE)
    keeper.store.is_failing = True
    a, b, c, d = klines_of("1", "2", "3", "4")
    keeper.actor.handle(LogEntries(2, (a, b)))
    keeper.actor.handle(LogEntries(4, (a, b, c, d)))
    keeper.store.is_failing = False
    keeper.ring(1_000)
    assert (keeper.store.writes, keeper.told(BRIDGE)) == ([4], [Stored(4)])


def test_decisions_and_events_about_actors_are_stored_with_their_batch(keeper):
    keeper.told(BRIDGE)
    (a,) = klines_of("1")
    decision = a_decision("GAP", a)
    keeper.actor.handle(LogEntries(3, (a_failure(), a, decision)))
    keeper.ring(200)
    assert (keeper.store.writes, keeper.told(BRIDGE)) == ([3], [Stored(3)])
    keeper.actor.handle(LogEntries(5, (a_failure(2), a_failure(3))))
    keeper.ring(200)
    assert (keeper.store.writes, keeper.told(BRIDGE)) == ([3, 2], [Stored(5)])
    assert (list(keeper.store.decisions.values()), keeper.store.events) == (
        [decision],
        [a_failure(), a_failure(2), a_failure(3)],
    )
    keeper.store.is_failing = True
    keeper.actor.handle(LogEntries(7, (a_failure(4), *klines_of("2"))))
    keeper.ring(200)
    assert keeper.told(BRIDGE) == []


def test_nothing_new_is_not_acknowledged_again(keeper):
    keeper.told(BRIDGE)
    keeper.actor.handle(LogEntries(3, tuple(klines_of("1", "2", "3"))))
    assert keeper.told(BRIDGE) == [Stored(3)]
    keeper.actor.stopped()
    assert keeper.told(BRIDGE) == []


def test_a_stop_writes_what_waits(keeper):
    keeper.told(BRIDGE)
    keeper.actor.handle(LogEntries(1, tuple(klines_of("1"))))
    keeper.actor.stopped()
    assert keeper.store.writes == [1]


def test_a_fenced_incarnation_writes_nothing(keeper):
    keeper.context.end_epoch()
    with pytest.raises(Exception, match="is over"):
        keeper.actor.handle(LogEntries(3, tuple(klines_of("1", "2", "3"))))
    assert keeper.store.writes == []


def test_the_disk_is_told_of_when_it_crosses_the_limit_and_only_then():
    keeper = Keeper(free=500_000_000)
    assert [s.is_low for s in keeper.told(addresses.PORTFOLIO)] == [False]
    assert keeper.told(addresses.MONITOR) == []
    keeper.free -= 1
    for _ in range(3):
        keeper.ring(10_000)
    assert [s.is_low for s in keeper.told(addresses.PORTFOLIO)] == [True]
    assert [n.level for n in keeper.told(addresses.MONITOR)] == ["error"]
    keeper.free += 1
    for _ in range(3):
        keeper.ring(10_000)
    assert [s.is_low for s in keeper.told(addresses.PORTFOLIO)] == [False]
    assert [n.level for n in keeper.told(addresses.MONITOR)] == ["info"]


def test_space_that_came_back_while_nobody_looked_is_told_by_the_next_incarnation():
    keeper = Keeper(free=0)
    keeper.free = 10**12
    keeper.restart()
    assert [s.is_low for s in keeper.told(addresses.PORTFOLIO)] == [False]


def test_open_klines_are_pruned_at_the_start_and_each_hour():
    keeper = Keeper(keep_open_klines_ms=1_000)
    assert keeper.store.pruned == [NOON - 1_000]
    for _ in range(359):
        keeper.ring(10_000)
    assert len(keeper.store.pruned) == 1
    keeper.ring(10_000)
    assert keeper.store.pruned[1:] == [NOON + 3_600_000 - 1_000]


def test_amounts_reach_the_store_as_they_came():
    keeper = Keeper(batch_items=1)
    kline = a_kline("0.00000001", volume=Decimal("1E+3"))
    keeper.actor.handle(LogEntries(1, (kline,)))
    assert list(keeper.store.klines.values()) == [kline]
