"""ArchiveActor over a real outbox: what is stored comes to the store elsewhere, in order, whoever dies or is away."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.actors import addresses
from bot.actors.archive import ArchiveActor, ArchiveSettings
from bot.actors.cells import ArchiveMemory, Cell
from bot.actors.persistence import Outlet, PersistenceActor, PersistenceSettings, settle
from bot.adapters.sqlite import SqliteOutbox
from bot.domain.kline import Kline
from bot.domain.order import Trade, trade_of
from bot.messages import LogEntries, Publish
from bot.ports import StoreBusy, StoreError
from bot.supervision import Fenced
from bot.supervision.testing import ManualClock, RecordingContext
from tests.support.builders import MINUTE_MS, NOON, a_fill, a_kline, an_intent
from tests.support.doubles import MemoryStore
from tests.support.dying import Died, Dying
from tests.support.remote_history import RemoteHistory

SETTINGS = ArchiveSettings(batch=40, least=5)
BUSY = StoreBusy("DynamoDB refuses more than its capacity")
NO_TABLE = StoreError("table Crypto_Table is missing; make it: python -m bot.main check --create")


def klines(count, first=0, symbol="BTCUSDT"):
    return [a_kline("1", symbol=symbol, open_time=NOON + n * MINUTE_MS) for n in range(first, first + count)]


def a_trade(number=1):
    order_id = f"bh-{number}"
    return trade_of(an_intent(client_order_id=order_id), [a_fill(client_order_id=order_id)], "test", "bot")


class Desk:
    """The archive over a real outbox; `store` puts entries there as persistence does."""

    def __init__(self, path, settings=SETTINGS, max_bytes=10**9, **options):
        self.settings, self.clock, self.remote = settings, ManualClock(NOON), RemoteHistory()
        self.outbox = SqliteOutbox(path, max_bytes, (Kline, Trade), **options)
        self.cell = Cell(ArchiveMemory())
        self.stored, self.epoch, self.told = 0, 0, []
        self.restart()

    def restart(self):
        self.epoch += 1
        self.context = RecordingContext(addresses.ARCHIVE, self.clock, self.epoch)
        args = (self.settings, self.cell, self.outbox, self.remote.connect, random.Random(1))
        self.actor = ArchiveActor(self.context, *args)
        self.actor.started()

    def store(self, *entries):
        self.stored += len(entries)
        self.outbox.add(self.stored, entries, self.clock.now_ms())
        self.outbox.confirm()
        self.actor.handle(Publish())
        self.handle_due()

    def wait(self, ms, step=50):
        for _ in range(0, ms, step):
            self.clock.advance(min(step, ms))
            self.handle_due()

    def handle_due(self):
        self.clock.advance(0)
        while self.context.due:
            self.actor.handle(self.context.due.pop(0))
            self.clock.advance(0)

    def said(self):
        return [notice.text for notice in self.context.sent_to(addresses.MONITOR)]


@pytest.fixture
def desk(tmp_path):
    made = Desk(tmp_path / "dynamodb.db")
    yield made
    made.outbox.close()


def test_a_single_kline_is_there_within_half_a_second_and_few_calls_take_many(desk):
    (kline,) = klines(1)
    desk.store(kline)
    desk.wait(300)
    assert desk.remote.written == []
    desk.wait(100)
    assert desk.remote.written == [kline]
    assert desk.outbox.state().depth == 0
    for number in range(30):
        desk.store(*klines(1, 1 + number))
        desk.wait(10, step=10)
    desk.wait(400)
    assert desk.remote.sizes == [1, 30], "what comes within the time goes in one call"


def test_a_full_batch_goes_at_once_and_a_backlog_without_a_pause(desk):
    many = klines(3 * SETTINGS.batch + 7)
    desk.store(*many[: SETTINGS.batch])
    assert desk.remote.written == many[: SETTINGS.batch]
    desk.store(*many[SETTINGS.batch :])
    assert desk.remote.written == many
    # Also where a smaller one has begun to wait.
    some, rest = klines(5, 500), klines(SETTINGS.batch - 5, 600)
    desk.store(*some)
    desk.wait(50)
    assert desk.remote.written == many
    desk.store(*rest)
    many += some + rest
    assert desk.remote.written == many
    assert max(desk.remote.sizes) == SETTINGS.batch
    assert desk.cell.value.archived == len(many)


def test_trades_go_before_the_klines_that_came_before_them(desk):
    many, trades = klines(10), [a_trade(1), a_trade(2)]
    desk.store(*many[:5], trades[0], *many[5:], trades[1])
    desk.wait(400)
    assert desk.remote.written == [*trades, *many]
    assert desk.remote.sizes == [2, 10]
    assert desk.outbox.state().depth == 0


def test_of_closed_klines_only_open_ones_are_not_even_kept(tmp_path):
    desk = Desk(tmp_path / "dynamodb.db", closed_only=True)
    closed = klines(2)
    desk.store(a_kline("1", event_time=NOON + 1, is_closed=False), *closed, a_trade())
    assert desk.outbox.state().depth == 3
    desk.wait(400)
    assert desk.remote.written == [a_trade(), *closed]
    desk.outbox.close()


def test_while_the_store_is_away_all_waits_on_disk_and_it_is_asked_ever_more_seldom(desk):
    desk.remote.trouble = BUSY
    asked = []
    desk.remote.on_write = lambda entries: asked.append((desk.clock.now_ms() - NOON, len(entries)))
    many = klines(300)
    for kline in many:
        desk.store(kline)
        desk.wait(1_000)
    pauses = [b - a for (a, _), (b, _) in pairwise(asked)]
    assert pauses[0] < 300
    assert 8_000 <= max(pauses) <= 10_200
    assert len(asked) < 50, "a store that is away is not flooded"
    assert asked[-1][1] == SETTINGS.least
    assert desk.outbox.state().depth == 300
    desk.remote.trouble = None
    desk.wait(11_000)
    assert desk.remote.written == many
    assert desk.outbox.state().depth == 0
    assert max(desk.remote.sizes) == SETTINGS.batch, "batches grow again"


def test_an_outage_is_told_once_and_so_is_its_end(desk):
    desk.store(*klines(1))
    desk.wait(1_000)
    assert desk.said() == []
    assert desk.cell.value.link == "up"
    desk.remote.trouble = BUSY
    for number in range(1, 11):
        desk.store(*klines(1, number))
        desk.wait(1_000)
    assert desk.said() == [f"DynamoDB takes nothing, all waits on disk: {BUSY}"]
    memory = desk.cell.value
    assert (memory.link, memory.reason, memory.outages) == ("away", str(BUSY), 0)
    assert memory.down_ms is not None
    desk.remote.trouble = None
    desk.wait(12_000)
    back, done = desk.said()[1:]
    assert back.startswith("DynamoDB takes again after ")
    assert back.endswith(" entries waited")
    assert done == "all that waited for DynamoDB is there"
    memory = desk.cell.value
    assert (memory.link, memory.reason, memory.down_ms, memory.outages) == ("up", "", None, 1)
    assert memory.outage_ms > 9_000
    assert memory.caught_up_ms is not None


def test_half_of_the_calls_throttled_is_no_outage(desk):
    rng = random.Random(7)

    def throttle(entries):
        desk.remote.trouble = BUSY if rng.random() < 0.5 else None

    desk.remote.on_write = throttle
    many = klines(200)
    for kline in many:
        desk.store(kline)
        desk.wait(100)
    desk.remote.trouble, desk.remote.on_write = None, lambda entries: None
    desk.wait(11_000)
    assert desk.remote.firsts == many
    assert desk.outbox.state().depth == 0


def test_a_missing_table_is_told_at_once_with_the_fix_and_its_coming_is_noticed(desk):
    desk.remote.trouble = NO_TABLE
    desk.store(*klines(3))
    desk.wait(5_000)
    assert desk.said() == [f"DynamoDB takes nothing, all waits on disk: {NO_TABLE}"]
    assert (desk.cell.value.link, desk.cell.value.reason) == ("refused", str(NO_TABLE))
    desk.wait(60_000)
    assert len([line for line in desk.said() if str(NO_TABLE) in line and "takes nothing" in line]) == 1
    desk.remote.trouble = None
    desk.wait(10_500)
    assert desk.remote.written == klines(3)


def test_where_klines_are_refused_trades_go_on_and_that_ends_nothing(desk):
    def refuse_klines(entries):
        if isinstance(entries[0], Kline):
            raise NO_TABLE

    desk.remote.on_write = refuse_klines
    desk.store(*klines(3))
    for number in range(12):
        desk.store(a_trade(number))
        desk.wait(5_000, step=500)
    assert len(desk.remote.written) > 8
    assert (desk.cell.value.link, desk.cell.value.outages) == ("refused", 0)
    assert desk.cell.value.archived == len(desk.remote.written)
    assert len([line for line in desk.said() if "takes" in line]) == 1
    desk.remote.on_write = lambda entries: None
    desk.wait(11_000)
    assert desk.outbox.depth == 0
    assert (desk.cell.value.link, desk.cell.value.outages) == ("up", 1)


def test_new_credentials_are_taken_by_a_new_connection_and_another_cause_is_told_too(desk):
    desk.store(*klines(1))
    desk.wait(500)
    (first,) = desk.remote.connections
    desk.remote.trouble = expired = StoreError("the security token is expired; renew the credentials")
    desk.store(*klines(1, 1))
    desk.wait(3_000)
    assert first.is_closed
    desk.remote.trouble = NO_TABLE
    desk.wait(11_000)
    assert [line.rpartition("disk: ")[2] for line in desk.said()] == [str(expired), str(NO_TABLE)]
    desk.remote.trouble = None
    desk.wait(11_000)
    assert desk.remote.written == klines(2)
    assert len(desk.remote.connections) == 2


def test_items_that_the_store_can_never_keep_stop_nothing_and_are_counted(desk):
    many = klines(5)
    desk.remote.cannot_keep = (many[2],)
    desk.store(*many)
    desk.wait(500)
    assert desk.remote.written == [*many[:2], *many[3:]]
    assert desk.outbox.state().depth == 0
    assert desk.cell.value.refused == 1
    (line,) = desk.said()
    assert line.startswith("1 items are kept in history.db only: an item of 500 KB")


def test_what_waits_too_long_or_takes_too_much_is_an_alarm_until_it_is_half_of_that(tmp_path):
    desk = Desk(tmp_path / "dynamodb.db")
    desk.remote.trouble = BUSY
    desk.store(*klines(100))
    desk.wait(59_000, step=500)
    assert not desk.cell.value.is_alarm
    desk.wait(4_000, step=500)
    assert desk.cell.value.is_alarm
    (alarm,) = [line for line in desk.said() if "the oldest for" in line]
    assert alarm == f"100 klines and trades (0.0 MB) wait for DynamoDB, the oldest for 60 s: {BUSY}"
    desk.remote.trouble = None
    desk.wait(12_000)
    assert not desk.cell.value.is_alarm
    assert desk.said()[-2:] == [
        "only 0 klines and trades wait for DynamoDB now",
        "all that waited for DynamoDB is there",
    ]
    desk.outbox.close()


def test_a_store_that_is_only_too_slow_is_an_alarm_too(tmp_path):
    desk = Desk(tmp_path / "dynamodb.db", ArchiveSettings(batch=40, alarm_bytes=10_000))

    def come_faster():
        desk.clock.advance(100)
        if desk.stored < 3_000:
            more = klines(2 * SETTINGS.batch, desk.stored)
            desk.stored += len(more)
            desk.outbox.add(desk.stored, more, desk.clock.now_ms())
            desk.outbox.confirm()

    desk.remote.after_write = come_faster
    desk.store(*klines(SETTINGS.batch, 9_000))
    assert any("it takes less than comes; give it more write units" in line for line in desk.said())
    desk.outbox.close()


def test_open_klines_that_had_to_go_are_told(tmp_path):
    desk = Desk(tmp_path / "dynamodb.db", max_bytes=5_000)
    desk.remote.trouble = BUSY
    desk.wait(1_000)
    for number in range(100):
        desk.store(a_kline("1", event_time=NOON + number, is_closed=False))
    desk.wait(1_000)
    assert any(
        "oldest open klines in it will not be in DynamoDB, closed ones and trades will" in t for t in desk.said()
    )
    assert desk.outbox.state().bytes <= 5_000
    desk.outbox.close()


def test_a_new_incarnation_begins_with_what_the_store_does_not_have(desk):
    many = klines(6)
    desk.store(*many[:2])
    desk.wait(400)
    desk.store(*many[2:5])
    (first,) = desk.remote.connections
    desk.context.end_epoch()
    assert first.is_closed
    desk.restart()
    desk.store(many[5])
    desk.wait(400)
    assert desk.remote.written == many


def test_one_that_hung_forgets_nothing_when_its_write_ends_after_all(desk):
    many = klines(3)
    desk.remote.after_write = desk.context.end_epoch
    desk.store(*many)
    with pytest.raises(Fenced):
        desk.wait(400)
    assert desk.remote.written == many
    assert desk.outbox.state().depth == 3, "who came after it does not know"
    desk.remote.after_write = lambda: None
    desk.restart()
    desk.wait(400)
    assert desk.outbox.state().depth == 0
    assert desk.remote.firsts == many


def test_at_a_stop_the_rest_goes_unless_the_store_is_away(desk):
    many = klines(100)
    desk.store(*many[:3])
    desk.actor.stopped()
    assert desk.remote.written == many[:3]
    assert desk.remote.connections[-1].is_closed
    desk.restart()
    desk.remote.trouble = BUSY
    desk.store(*many[3:6])
    desk.wait(400)
    asked = []
    desk.remote.on_write = asked.append
    desk.actor.stopped()
    assert asked == []
    assert desk.outbox.state().depth == 3


def test_a_stop_takes_no_longer_than_it_may(desk):
    desk.remote.trouble = BUSY
    desk.store(*klines(1_000))
    desk.wait(1_000)
    desk.context.end_epoch()
    desk.remote.trouble = None
    desk.remote.after_write = lambda: desk.clock.advance(500)
    desk.restart()
    desk.actor.stopped()
    assert len(desk.remote.written) == 3 * SETTINGS.batch
    assert desk.outbox.state().depth == 1_000 - 3 * SETTINGS.batch


class Bot:
    """Persistence with two outboxes, and the archive, as one process that may die between any two writes."""

    def __init__(self, folder):
        self.folder = folder
        self.store, self.remote, self.clock = MemoryStore(), RemoteHistory(), ManualClock(NOON)
        self.published = []
        self.dies_in = None
        self.launch()

    def launch(self):
        """Start on the files; what the log held is gone with the process, as it is."""
        self.files = [
            SqliteOutbox(self.folder / "outbox.db", 10**9),
            SqliteOutbox(self.folder / "dynamodb.db", 10**9, (Kline, Trade)),
        ]
        kafka, dynamodb = (Dying(file, self) for file in self.files)
        self.kafka, self.read = kafka, 0
        store = Dying(self.store, self)
        settle(store, [kafka, dynamodb], self.clock.now_ms())
        self.offset = 0
        context = RecordingContext(addresses.PERSISTENCE, self.clock)
        outlets = [Outlet(kafka, addresses.PUBLISHER), Outlet(dynamodb, addresses.ARCHIVE)]
        options = (PersistenceSettings(batch_items=1), store, lambda: 10**12, self.clock.now_ms)
        self.persistence = PersistenceActor(context, *options, outlets)
        self.context = RecordingContext(addresses.ARCHIVE, self.clock)
        connect = lambda: Dying(self.remote.connect(), self)  # noqa: E731
        self.archive = ArchiveActor(self.context, SETTINGS, Cell(ArchiveMemory()), dynamodb, connect, random.Random(1))
        self.archive.started()

    def run(self, act):
        while True:
            try:
                act()
                return
            except Died:
                self.dies_in = None
                for file in self.files:
                    file.close()
                act = self.launch

    def take(self, *entries):
        self.offset += len(entries)
        self.persistence.handle(LogEntries(self.offset, entries))
        self.archive.handle(Publish())

    def publish(self):
        for place, entry in self.kafka.read(self.read, 10_000):
            self.published.append(entry)
            self.read = place

    def tick(self):
        self.clock.advance(400)
        due, self.context.due = self.context.due, []
        for message in due:
            self.archive.handle(message)
        self.publish()


STEPS = ["take"] * 3 + ["die"] * 3 + ["tick", "tick", "away", "back"]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.sampled_from(STEPS), min_size=15, max_size=60))
def test_whenever_the_process_dies_all_stores_have_the_same(tmp_path_factory, seed, steps):
    rng = random.Random(seed)
    bot = Bot(tmp_path_factory.mktemp("bot"))
    number = 0
    for step in [*steps, "back", *["tick"] * 40]:
        if step == "take":
            batch = [*klines(rng.randrange(1, 4), number), *([a_trade(number)] if rng.random() < 0.5 else [])]
            number += len(batch)
            bot.run(lambda batch=batch: bot.take(*batch))
        elif step == "tick":
            bot.run(bot.tick)
        elif step == "die":
            bot.dies_in = rng.randrange(14)
        else:
            bot.remote.trouble = BUSY if step == "away" else None
    waiting = bot.files[1].state().depth
    for file in bot.files:
        file.close()
    assert waiting == 0
    assert bot.remote.store.klines == bot.store.klines
    assert bot.remote.store.trades == bot.store.trades
    for kind in (Kline, Trade):
        firsts = [entry for entry in bot.remote.firsts if isinstance(entry, kind)]
        assert firsts == list((bot.store.klines if kind is Kline else bot.store.trades).values())
    published = list(dict.fromkeys(bot.published))
    assert {entry for entry in published if isinstance(entry, Kline)} == set(bot.store.klines.values())
    assert [e for e in published if isinstance(e, Kline)] == sorted(
        bot.store.klines.values(), key=lambda k: k.open_time
    )
