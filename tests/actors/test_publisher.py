"""PublisherActor and PersistenceActor over one outbox: what is stored is published, in order, whoever dies when."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.actors import addresses
from bot.actors.cells import Cell, PublisherMemory
from bot.actors.persistence import Outlet, PersistenceActor, PersistenceSettings, settle
from bot.actors.publisher import PublisherActor, PublisherSettings
from bot.adapters.sqlite import SqliteOutbox
from bot.messages import LogEntries, Publish
from bot.ports import Link, LinkState
from bot.supervision.testing import ManualClock, RecordingContext
from tests.support.builders import MINUTE_MS, NOON, a_kline
from tests.support.doubles import MemoryStore
from tests.support.dying import Died, Dying

SETTINGS = PublisherSettings(batch=3, window=8)


class Broker:
    """A topic in memory, and publishers to it. It acknowledges when told; what a publisher holds dies with it."""

    def __init__(self, room=100):
        self.topic, self.is_up, self.room, self.gives_back = [], True, room, False
        self.publishers = []

    def connect(self):
        self.publishers.append(BrokersPublisher(self))
        return self.publishers[-1]

    @property
    def firsts(self):
        """The topic as a reader sees it that drops what it has seen."""
        return list(dict.fromkeys(self.topic))


class BrokersPublisher:
    def __init__(self, broker):
        self.broker, self.taken, self.delivered, self.queue, self.is_closed = broker, 0, 0, [], False

    def publish(self, upto, entries):
        assert not self.is_closed
        if upto - len(entries) != self.taken:
            raise ValueError("not the next one")
        room = entries[: self.broker.room - len(self.queue)]
        self.queue += room
        self.taken += len(room)
        return self.taken

    def poll(self, timeout_s=0):
        if self.broker.gives_back:
            self.queue.clear()
            self.taken = self.delivered
        elif self.broker.is_up:
            self.broker.topic += self.queue
            self.delivered += len(self.queue)
            self.queue = []

    def state(self):
        return LinkState(Link.UP) if self.broker.is_up else LinkState(Link.AWAY, "127.0.0.1:9092 refuses")

    def close(self, timeout_s):
        self.poll()
        self.is_closed = True


class Desk:
    """The publisher over a real outbox; `store` puts entries there as persistence does."""

    def __init__(self, path, broker=None, **options):
        self.clock = ManualClock(NOON)
        self.broker = broker or Broker(**options)
        self.outbox = SqliteOutbox(path, 10**9)
        self.cell = Cell(PublisherMemory())
        self.stored, self.epoch = 0, 0
        self.restart()

    def restart(self):
        self.epoch += 1
        self.context = RecordingContext(addresses.PUBLISHER, self.clock, self.epoch)
        self.actor = PublisherActor(self.context, SETTINGS, self.cell, self.outbox, self.broker.connect)
        self.actor.started()

    def store(self, *entries):
        self.stored += len(entries)
        self.outbox.add(self.stored, entries, self.clock.now_ms())
        self.outbox.confirm()
        self.actor.handle(Publish())

    def wait(self, ms=50):
        self.clock.advance(ms)
        due, self.context.due = self.context.due, []
        for message in due:
            self.actor.handle(message)

    def said(self):
        return [notice.text for notice in self.context.sent_to(addresses.MONITOR)]


@pytest.fixture
def desk(tmp_path):
    made = Desk(tmp_path / "outbox.db")
    yield made
    made.outbox.close()


def klines(count, first=0):
    return [a_kline("1", open_time=NOON + number * MINUTE_MS) for number in range(first, first + count)]


def test_what_is_stored_is_published_at_once_and_forgotten_once_the_broker_has_it(desk):
    many = klines(20)
    desk.store(*many[:2])
    assert desk.broker.publishers[0].queue == many[:2]
    assert desk.outbox.state().depth == 2
    desk.wait()
    desk.store(*many[2:])
    for _ in range(6):
        desk.wait()
    assert desk.broker.topic == many
    assert desk.outbox.state().depth == 0
    assert desk.cell.value.published == 20
    assert desk.context.due == [] or all(not isinstance(m, Publish) for m in desk.context.due)


def test_while_the_broker_is_away_a_bounded_part_is_with_it_and_all_goes_in_order_afterwards(desk):
    desk.broker.is_up = False
    many = klines(50)
    for kline in many:
        desk.store(kline)
        desk.wait()
    assert len(desk.broker.publishers[0].queue) <= SETTINGS.window + SETTINGS.batch
    assert desk.outbox.state().depth == 50
    desk.broker.is_up = True
    for _ in range(20):
        desk.wait()
    assert desk.broker.topic == many
    assert desk.outbox.state().depth == 0


def test_what_the_broker_gave_back_goes_again_in_order(desk):
    desk.broker.gives_back = True
    many = klines(12)
    for kline in many:
        desk.store(kline)
        desk.wait()
    assert desk.broker.topic == []
    desk.broker.gives_back = False
    for _ in range(10):
        desk.wait()
    assert desk.broker.topic == many


def test_a_publisher_with_little_room_gets_all_bit_by_bit(tmp_path):
    desk = Desk(tmp_path / "outbox.db", room=2)
    many = klines(13)
    desk.store(*many)
    for _ in range(20):
        desk.wait()
    assert desk.broker.topic == many
    desk.outbox.close()


def test_a_new_incarnation_begins_with_what_is_not_acknowledged(desk):
    desk.broker.is_up = False
    many = klines(5)
    desk.store(*many[:4])
    desk.context.end_epoch()
    assert desk.broker.publishers[0].is_closed
    desk.restart()
    desk.broker.is_up = True
    desk.store(many[4])
    desk.wait()
    desk.wait()
    assert desk.broker.topic == many


def test_at_a_stop_the_rest_goes_if_there_is_a_broker(desk):
    many = klines(3)
    desk.store(*many)
    desk.actor.stopped()
    assert desk.broker.topic == many
    assert desk.outbox.state().depth == 0


def test_an_outage_is_told_once_and_so_is_its_end(desk):
    desk.wait(1_000)
    assert desk.said() == []
    assert desk.cell.value.link == "up"
    desk.broker.is_up = False
    for _ in range(5):
        desk.store(*klines(1, desk.stored))
        desk.wait(1_000)
    (line,) = desk.said()
    assert line == "nothing is published, it waits on disk: 127.0.0.1:9092 refuses"
    assert (desk.cell.value.link, desk.cell.value.down_ms) == ("away", NOON + 2_000)
    desk.broker.is_up = True
    for _ in range(3):
        desk.wait(1_000)
    assert desk.said()[1:] == [
        "the broker is back after 5 s: 5 entries waited",
        "all that waited for the broker is published",
    ]
    memory = desk.cell.value
    assert (memory.down_ms, memory.outages, memory.outage_ms) == (None, 1, 5_000)
    assert memory.caught_up_ms is not None


def test_while_it_is_held_nothing_is_published_and_the_reason_is_told(desk):
    held = "not ours"
    context = RecordingContext(addresses.PUBLISHER, desk.clock, 2)
    actor = PublisherActor(context, SETTINGS, desk.cell, desk.outbox, desk.broker.connect, lambda: held)
    desk.context.end_epoch()
    desk.context, desk.actor = context, actor
    actor.started()
    many = klines(3)
    desk.store(*many)
    for _ in range(4):
        desk.wait(1_000)
    assert desk.broker.topic == []
    assert (desk.cell.value.link, desk.cell.value.reason) == ("refused", "not ours")
    assert desk.said() == ["nothing is published, it waits on disk: not ours"]
    held = None
    actor.handle(Publish())
    desk.wait()
    assert desk.broker.topic == many


def test_open_klines_that_had_to_go_are_told(tmp_path):
    desk = Desk(tmp_path / "outbox.db")
    desk.outbox._max_bytes = 5_000
    desk.broker.is_up = False
    desk.wait(1_000)
    for number in range(100):
        desk.store(a_kline("1", event_time=NOON + number, is_closed=False))
    desk.wait(1_000)
    assert any("oldest open klines in it will not be published, closed ones and trades will" in t for t in desk.said())
    desk.outbox.close()


class Bot:
    """Persistence, its store and outbox, and the publisher, as one process that may die between any two writes."""

    def __init__(self, folder, rng):
        self.folder, self.rng = folder, rng
        self.store, self.broker, self.clock = MemoryStore(), Broker(), ManualClock(NOON)
        self.dies_in = None
        self.log, self.offset = [], 0
        self.launch()

    def launch(self):
        """Start on the files; what the log held is gone with the process, as it is."""
        self.outbox = Dying(SqliteOutbox(self.folder / "outbox.db", 10**9), self)
        settle(self.store, [self.outbox.real], self.clock.now_ms())
        self.offset = 0
        self.cell = Cell(PublisherMemory())
        context = RecordingContext(addresses.PERSISTENCE, self.clock)
        options = (PersistenceSettings(batch_items=1), Dying(self.store, self), lambda: 10**12, self.clock.now_ms)
        self.persistence = PersistenceActor(context, *options, [Outlet(self.outbox, addresses.PUBLISHER)])
        self.publisher_context = RecordingContext(addresses.PUBLISHER, self.clock)
        self.publisher = PublisherActor(self.publisher_context, SETTINGS, self.cell, self.outbox, self.broker.connect)
        self.publisher.started()

    def run(self, act):
        try:
            act()
        except Died:
            self.dies_in = None
            self.outbox.real.close()
            self.launch()

    def take(self, *entries):
        self.offset += len(entries)
        self.persistence.handle(LogEntries(self.offset, entries))
        self.publisher.handle(Publish())

    def tick(self):
        self.clock.advance(50)
        due, self.publisher_context.due = self.publisher_context.due, []
        for message in due:
            self.publisher.handle(message)


STEPS = ["take"] * 3 + ["die"] * 3 + ["tick", "tick", "down", "up"]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.sampled_from(STEPS), min_size=15, max_size=60))
def test_whenever_the_process_dies_readers_of_topic_and_store_see_the_same(tmp_path_factory, seed, steps):
    rng = random.Random(seed)
    bot = Bot(tmp_path_factory.mktemp("bot"), rng)
    number = 0
    for step in [*steps, "up", *["tick"] * 40]:
        if step == "take":
            batch = klines(rng.randrange(1, 4), number)
            number += len(batch)
            bot.run(lambda batch=batch: bot.take(*batch))
        elif step == "tick":
            bot.run(bot.tick)
        elif step == "die":
            bot.dies_in = rng.randrange(10)
        else:
            bot.broker.is_up = step == "up"
    stored = list(bot.store.klines.values())
    bot.outbox.real.close()
    assert bot.broker.firsts == sorted(stored, key=lambda kline: kline.open_time)
