"""What is measured of a bot: money that is never counted in halves, and labels whose number is bounded."""

from decimal import Decimal

import msgspec
import pytest

from bot.actors.cells import PortfolioMemory
from bot.actors.supervisor import Memories
from bot.adapters.sqlite import SqliteJournal
from bot.app.measuring import MOST_ACTORS, Measures
from bot.app.metering import NOTE_EVERY_MS, PEAK_NOTE, Metering, peak_profit
from bot.app.snapshot import OutboxView, take_snapshot
from bot.config import load_settings
from bot.domain.ledger import TradingDay
from bot.domain.risk import DAY_MS
from bot.ports import OutboxState, StoreError
from bot.supervision import ActorStatus
from bot.supervision.testing import ManualClock
from bot.supervision.tree import Depth
from tests.support.builders import NOON, a_position

SYMBOLS = ("BTCUSDT", "ETHUSDT")
NO_DAY = TradingDay()


def an_actor(name, state="running", restarts=0, waiting=0):
    kind = name.partition("/")[0]
    return ActorStatus(name, kind, state, 1, restarts, 5_000, Depth(stream=waiting), "", 0, None, 0)


class Bench:
    def __init__(self, peak="0", **symbols_of_other_runs):
        self.clock = ManualClock(NOON)
        self.memories = Memories(SYMBOLS)
        self.actors = ()
        self.outboxes, self.lags = {}, {}
        self.is_unreadable = False
        idle = {symbol: Decimal(price) for symbol, price in symbols_of_other_runs.items()}
        weights = {"trading": 42}
        self.measures = Measures(
            self.snapshot, self.memories, self.clock, lambda: weights, lambda: self.lags, idle, Decimal(peak)
        )
        self.book("1000", BTCUSDT="0", ETHUSDT="0")

    def snapshot(self):
        if self.is_unreadable:
            raise StoreError("history.db cannot be read")
        taken = take_snapshot("demo", SYMBOLS, self.memories, self.actors, 7)
        return msgspec.structs.replace(taken, **self.outboxes)

    def book(self, cash, day=NO_DAY, **positions):
        held = {symbol: Decimal(quantity) for symbol, quantity in positions.items()}
        self.memories.portfolio.value = PortfolioMemory(
            cash=Decimal(cash), start_cash=Decimal(1000), day=day, positions=held
        )

    def close(self, symbol, price):
        cell = self.memories.traders[symbol]
        cell.value = msgspec.structs.replace(cell.value, close=Decimal(price))

    def read(self):
        """The values now, by name and labels."""
        return {(one.metric.name, *one.labels): one.value for one in self.measures.samples()}


def test_equity_and_drawdown_go_by_the_portfolio_s_book():
    bench = Bench()
    bench.close("BTCUSDT", "100")
    bench.book("900", BTCUSDT="1", ETHUSDT="0")
    assert (bench.read()["equity",], bench.read()["drawdown_ratio",]) == (1000, 0)
    bench.close("BTCUSDT", "200")
    assert bench.read()["equity",] == 1100
    bench.close("BTCUSDT", "90")
    seen = bench.read()
    assert seen["equity",] == 990
    assert seen["drawdown_ratio",] == pytest.approx(0.1)
    assert seen["cash",] == 900


def test_a_fill_that_only_its_trader_has_booked_is_no_peak():
    bench = Bench()
    bench.close("BTCUSDT", "100")
    cell = bench.memories.traders["BTCUSDT"]
    cell.value = msgspec.structs.replace(cell.value, position=a_position("5"))
    assert bench.read()["equity",] == 1000
    bench.book("500", BTCUSDT="5", ETHUSDT="0")
    seen = bench.read()
    assert (seen["equity",], seen["drawdown_ratio",]) == (1000, 0)


def test_a_peak_between_two_readings_counts():
    bench = Bench()
    bench.close("BTCUSDT", "100")
    bench.book("0", BTCUSDT="10", ETHUSDT="0")
    bench.close("BTCUSDT", "200")
    bench.measures.look()
    bench.close("BTCUSDT", "150")
    assert bench.read()["drawdown_ratio",] == 0.25


def test_what_this_run_does_not_trade_is_worth_its_last_close():
    bench = Bench(DOGEUSDT="0.5")
    bench.book("900", BTCUSDT="0", DOGEUSDT="100")
    assert bench.read()["equity",] == 950


def test_nothing_is_said_of_money_before_the_portfolio_has_started():
    bench = Bench(peak="100")
    bench.memories.portfolio.value = PortfolioMemory()
    assert not {name for name, *_ in bench.read()} & {"equity", "cash", "drawdown_ratio", "daily_loss_ratio"}
    bench.measures.look()
    assert bench.measures.peak_profit == 100


def test_a_start_with_a_position_is_no_loss_while_its_trader_is_still_on_its_way():
    bench = Bench(peak="0")
    bench.book("100", TradingDay(number=NOON // DAY_MS, start_equity=Decimal(1000)), BTCUSDT="9", ETHUSDT="0")
    assert not {name for name, *_ in bench.read()} & {"equity", "drawdown_ratio", "daily_loss_ratio"}
    bench.close("BTCUSDT", "100")
    seen = bench.read()
    assert (seen["equity",], seen["drawdown_ratio",], seen["daily_loss_ratio",]) == (1000, 0, 0)


def test_the_loss_of_a_day_is_of_that_day_alone():
    bench, today = Bench(), NOON // DAY_MS
    bench.book("950", TradingDay(number=today, start_equity=Decimal(1000)), BTCUSDT="0")
    assert bench.read()["daily_loss_ratio",] == 0.05
    bench.book("950", TradingDay(number=today, start_equity=Decimal(900)), BTCUSDT="0")
    assert bench.read()["daily_loss_ratio",] == 0
    bench.book("950", TradingDay(number=today - 1, start_equity=Decimal(1000)), BTCUSDT="0")
    assert bench.read()["daily_loss_ratio",] == 0


def test_files_that_cannot_be_read_are_no_health():
    bench = Bench()
    bench.is_unreadable = True
    assert bench.read() == {("healthy",): 0}


def test_actors_have_a_series_each_while_they_are_few_and_one_a_kind_when_not():
    bench = Bench()
    bench.actors = (an_actor("supervisor"), an_actor("trader/BTCUSDT", "quarantined", restarts=6, waiting=3))
    seen = bench.read()
    assert seen["actor_restarts", "trader/BTCUSDT"] == 6
    assert seen["actor_mailbox", "trader/BTCUSDT"] == 3
    assert seen["actors_quarantined",] == 1
    bench.actors += tuple(an_actor(f"trader/S{number}", restarts=1, waiting=number) for number in range(MOST_ACTORS))
    seen = bench.read()
    assert {labels[0] for name, *labels in seen if name == "actor_restarts"} == {"supervisor", "trader"}
    assert seen["actor_restarts", "trader"] == 6 + MOST_ACTORS
    assert seen["actor_mailbox", "trader"] == MOST_ACTORS - 1


def test_every_outbox_is_measured():
    bench = Bench()
    bench.outboxes = {
        "publishing": OutboxView(OutboxState(3, 900, NOON - 90_000, 2)),
        "archiving": OutboxView(OutboxState(0, 0, None)),
    }
    seen = bench.read()
    assert [seen["outbox_entries", name] for name in ("store", "kafka", "dynamodb")] == [7, 3, 0]
    assert [seen["outbox_age_seconds", name] for name in ("kafka", "dynamodb")] == [90, 0]
    assert seen["outbox_dropped", "kafka"] == 2


def test_what_a_bot_has_not_taken_of_a_topic_yet_is_measured():
    bench = Bench()
    assert not any(name == "kafka_lag" for name, *_ in bench.read())
    bench.lags = {"KafkaStreams": 12}
    assert bench.read()["kafka_lag", "KafkaStreams"] == 12


def test_a_feed_that_never_brought_a_kline_is_as_old_as_the_process():
    bench = Bench()
    bench.actors = (an_actor("supervisor"),)
    assert bench.read()["feed_age_seconds", "BTCUSDT"] == 5


def test_the_best_moment_of_a_book_outlives_the_process(tmp_path):
    bench = Bench()
    with SqliteJournal(tmp_path / "orders.db") as journal:
        metering = Metering(load_settings({}, environment={}), bench.measures, journal, bench.clock)
        bench.book("1500", BTCUSDT="0")
        metering.parts.look()
        assert journal.get_note(PEAK_NOTE) is None  # once a minute is enough
        bench.clock.advance(NOTE_EVERY_MS)
        metering.parts.look()
        after = Bench(peak=str(peak_profit(journal)))
        after.book("1200", BTCUSDT="0")
        assert after.read()["drawdown_ratio",] == 0.2
        metering.close()
