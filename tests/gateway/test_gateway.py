"""OrderGateway: an intent is journaled before its order leaves, an order leaves once, and doubt ends in knowledge."""

import threading
from contextlib import contextmanager

import pytest

from bot.adapters.paper import PaperExchange
from bot.adapters.sqlite import SqliteJournal
from bot.app.data_directory import DataDirectory
from bot.domain.order import OrderReport, OrderStatus
from bot.domain.sizing import SizingParameters
from bot.gateway import OrderGateway, Settled, Unsettled
from bot.ports import (
    ConfigurationRefused,
    ExchangeUnavailable,
    OrderInDoubt,
    OrderNotSent,
    OrderRejected,
    StoreError,
)
from bot.supervision import Fenced
from bot.supervision.testing import ManualClock, RecordingContext
from tests.support.builders import NOON, a_fill, an_intent, rules_of
from tests.support.doubles import WINDOW_MS, Crash, NoHalt, ScriptedExchange

RULES = {"BTCUSDT": rules_of()}


class Bench:
    def __init__(self, journal, exchange=None, halt=None):
        self.clock = ManualClock(NOON)
        self.journal = journal
        self.exchange = exchange or ScriptedExchange(self.clock, RULES)
        self.halt = halt or NoHalt()
        self.fence = RecordingContext(clock=self.clock)
        self.new_process()

    def new_process(self):
        self.gateway = OrderGateway(self.exchange, self.journal, self.halt)

    def submit(self, *plan, **intent):
        self.exchange.plan.extend(plan)
        return self.gateway.submit(an_intent(**intent), self.fence)

    def status(self, order_id="bh-1"):
        return self.journal.entry(order_id).status


@pytest.fixture
def bench(tmp_path):
    with SqliteJournal(tmp_path / "orders.db") as journal:
        yield Bench(journal)


def test_an_order_is_journaled_sent_and_settled(bench):
    seen = []
    bench.exchange.on_place = lambda intent: seen.append(bench.status())
    outcome = bench.submit()
    assert seen == [OrderStatus.RECORDED]
    (report,) = bench.exchange.executed
    assert outcome == Settled(an_intent(), OrderStatus.FILLED, report.fills)
    assert (bench.status(), bench.journal.entry("bh-1").fills) == (OrderStatus.FILLED, report.fills)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OrderNotSent("no connection"), OrderStatus.NOT_PLACED),
        (OrderRejected(-2010, "Account has insufficient balance."), OrderStatus.REJECTED),
        (OrderInDoubt("the reply was lost"), OrderStatus.RECORDED),
        (ExchangeUnavailable("not named by the port for orders"), OrderStatus.RECORDED),
        (ConfigurationRefused("nor this one"), OrderStatus.RECORDED),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_answer_of_the_exchange_leads_to_one_status(bench, error, status):
    outcome = bench.submit(error)
    assert bench.status() is status
    if status is OrderStatus.RECORDED:
        assert outcome == Unsettled(an_intent(), str(error))
    else:
        assert (outcome.status, outcome.fills, outcome.detail) == (status, (), str(error))


@pytest.mark.parametrize("step", ["fill", "reject", "not_sent", "executed_no_reply", "lost_no_reply", "unfinished"])
def test_an_id_that_is_known_is_never_sent_again(bench, step):
    bench.submit(step)
    for ms in (0, WINDOW_MS + 1, 1):
        bench.clock.advance(ms)
        bench.submit()
        assert len(bench.exchange.placed) == 1
    bench.new_process()
    bench.submit()
    assert (len(bench.exchange.placed), len(bench.exchange.executed) <= 1) == (1, True)


def test_a_lost_reply_is_asked_for(bench):
    assert isinstance(bench.submit("executed_no_reply"), Unsettled)
    outcome = bench.gateway.resolve("bh-1")
    assert (outcome.status, outcome.fills) == (OrderStatus.FILLED, tuple(bench.exchange.fills))
    assert bench.status() is OrderStatus.FILLED


def test_there_is_none_counts_only_after_the_window(bench):
    bench.submit("lost_no_reply")
    bench.clock.advance(WINDOW_MS)
    assert isinstance(bench.gateway.resolve("bh-1"), Unsettled)
    bench.clock.advance(1)
    assert bench.gateway.resolve("bh-1").status is OrderStatus.NOT_PLACED
    assert bench.status() is OrderStatus.NOT_PLACED


def test_after_a_restart_of_the_process_the_window_begins_at_the_first_question(bench):
    """When the request was signed is not known any more; it was before the process was there."""
    bench.submit("lost_no_reply")
    bench.new_process()
    bench.clock.advance(60_000)
    assert isinstance(bench.gateway.resolve("bh-1"), Unsettled)
    bench.clock.advance(WINDOW_MS + 1)
    assert bench.gateway.resolve("bh-1").status is OrderStatus.NOT_PLACED


def test_without_the_exchanges_clock_the_window_does_not_begin(bench):
    bench.exchange.is_away = True
    bench.submit("lost_no_reply")
    bench.clock.advance(60_000)
    assert bench.gateway.resolve("bh-1") == Unsettled(an_intent(), "away")
    bench.exchange.is_away = False
    assert isinstance(bench.gateway.resolve("bh-1"), Unsettled)
    bench.clock.advance(WINDOW_MS + 1)
    assert bench.gateway.resolve("bh-1").status is OrderStatus.NOT_PLACED


def test_an_order_that_arrives_between_the_clock_and_the_question_is_found(bench):
    bench.submit("late")
    bench.clock.advance(WINDOW_MS - 1_000)
    bench.exchange.deliver()
    bench.clock.advance(2_000)
    assert bench.gateway.resolve("bh-1").status is OrderStatus.FILLED


def test_an_order_that_is_not_final_stays_unsettled(bench):
    assert bench.submit("unfinished") == Unsettled(an_intent(), "the exchange says NEW")
    assert bench.status() is OrderStatus.RECORDED
    assert bench.gateway.resolve("bh-1").status is OrderStatus.FILLED


def test_what_is_settled_is_answered_from_the_journal(bench):
    bench.submit()
    bench.exchange.is_away = True
    assert bench.gateway.resolve("bh-1").status is OrderStatus.FILLED


def test_an_unknown_id_is_no_question(bench):
    assert bench.gateway.known("bh-9") is None
    with pytest.raises(KeyError):
        bench.gateway.resolve("bh-9")


def test_a_crash_before_the_order_left_settles_it_as_never_placed(bench):
    bench.exchange.faults.countdown = 0
    with pytest.raises(Crash):
        bench.submit()
    assert bench.status() is OrderStatus.NOT_PLACED
    assert bench.submit().status is OrderStatus.NOT_PLACED
    assert bench.exchange.executed == []


def test_a_crash_after_the_order_left_leaves_an_intent_to_ask_for(bench):
    bench.exchange.faults.countdown = 1
    with pytest.raises(Crash):
        bench.submit()
    assert bench.status() is OrderStatus.RECORDED
    assert bench.gateway.resolve("bh-1").status is OrderStatus.FILLED
    assert bench.submit().status is OrderStatus.FILLED
    assert len(bench.exchange.executed) == 1


# Who may not send


def test_a_fenced_caller_journals_and_sends_nothing(bench):
    bench.fence.end_epoch()
    with pytest.raises(Fenced):
        bench.submit()
    assert (bench.journal.entry("bh-1"), bench.exchange.placed) == (None, [])


def test_an_epoch_that_ends_behind_the_journal_sends_nothing(bench):
    record = bench.journal.record

    class EndsAfterwards:
        def __getattr__(self, name):
            return getattr(journal, name)

        def record(self, intent):
            recorded = record(intent)
            bench.fence.end_epoch()
            return recorded

    journal, bench.journal = bench.journal, EndsAfterwards()
    bench.new_process()
    with pytest.raises(Fenced):
        bench.submit()
    assert bench.exchange.placed == []
    assert bench.status() is OrderStatus.NOT_PLACED


def test_halted_orders_are_refused_and_journaled_until_the_switch_is_back(tmp_path):
    directory = DataDirectory(tmp_path)
    with SqliteJournal(directory.orders) as journal:
        bench = Bench(journal, halt=directory)
        directory.halt("I want to sleep")
        outcome = bench.submit()
        assert (outcome.status, outcome.detail) == (OrderStatus.NOT_PLACED, "halted: I want to sleep")
        assert (bench.status(), bench.exchange.placed) == (OrderStatus.NOT_PLACED, [])
        directory.resume()
        assert bench.submit().status is OrderStatus.NOT_PLACED, "that decision is over"
        assert bench.submit(client_order_id="bh-2").status is OrderStatus.FILLED


@contextmanager
def held(bench, intent, fence, at="on_left"):
    """A thread of an incarnation that was given up for hung stands just before or after its request left."""
    reached, go_on = threading.Event(), threading.Event()
    outcomes = []

    def stand(_):
        reached.set()
        assert go_on.wait(60)

    def submit():
        try:
            outcomes.append(bench.gateway.submit(intent, fence))
        except Fenced as fenced:
            outcomes.append(fenced)

    setattr(bench.exchange, at, stand)
    thread = threading.Thread(target=submit)
    thread.start()
    assert reached.wait(60)
    try:
        yield outcomes
    finally:
        go_on.set()
        thread.join(60)
        setattr(bench.exchange, at, lambda _: None)


def test_what_a_hung_thread_has_not_sent_when_its_epoch_ends_never_leaves(bench):
    with held(bench, an_intent(), bench.fence, at="on_place") as outcomes:
        bench.fence.end_epoch()
        assert isinstance(bench.gateway.resolve("bh-1"), Unsettled)
    assert isinstance(outcomes[0], Fenced)
    assert (bench.exchange.placed, bench.status()) == ([], OrderStatus.NOT_PLACED)


def test_a_halt_holds_an_order_back_that_is_about_to_leave(bench):
    with held(bench, an_intent(), bench.fence, at="on_place") as outcomes:
        bench.halt.reason = "by hand"
    assert (outcomes[0].status, outcomes[0].detail) == (OrderStatus.NOT_PLACED, "halted: by hand")
    assert bench.exchange.placed == []


def test_what_a_hung_thread_has_sent_is_not_called_never_placed(bench):
    with held(bench, an_intent(), bench.fence) as outcomes:
        bench.fence.end_epoch()
        for _ in range(3):
            assert isinstance(bench.gateway.resolve("bh-1"), Unsettled)
            bench.clock.advance(60_000)
    assert outcomes[0].status is OrderStatus.FILLED
    assert bench.gateway.resolve("bh-1").status is OrderStatus.FILLED
    assert len(bench.exchange.executed) == 1


def test_the_window_of_a_hung_request_begins_when_it_has_ended(bench):
    bench.exchange.plan.append("lost_no_reply")
    with held(bench, an_intent(), bench.fence):
        bench.gateway.resolve("bh-1")
        bench.clock.advance(60_000)
    assert isinstance(bench.gateway.resolve("bh-1"), Unsettled)
    bench.clock.advance(WINDOW_MS + 1)
    assert bench.gateway.resolve("bh-1").status is OrderStatus.NOT_PLACED


def test_a_second_submit_of_an_order_that_is_leaving_sends_nothing(bench):
    with held(bench, an_intent(), bench.fence):
        bench.exchange.on_left = lambda _: None
        outcome = bench.gateway.submit(an_intent(), RecordingContext(clock=bench.clock))
        assert isinstance(outcome, Unsettled)
    assert len(bench.exchange.placed) == 1


# Paper


def test_paper_orders_are_settled_found_again_and_refused_by_the_rules(tmp_path):
    clock = ManualClock(NOON)
    exchange = PaperExchange(RULES, SizingParameters(), clock, next_trade_id=7)
    with SqliteJournal(tmp_path / "orders.db") as journal:
        gateway = OrderGateway(exchange, journal, NoHalt())
        fence = RecordingContext(clock=clock)
        filled = gateway.submit(an_intent(), fence)
        assert (filled.status, filled.fills[0].trade_id) == (OrderStatus.FILLED, 7)
        assert gateway.submit(an_intent(), fence) == filled
        refused = gateway.submit(an_intent(quantity="0.000001", client_order_id="bh-2"), fence)
        assert (refused.status, "LOT_SIZE" in refused.detail) == (OrderStatus.REJECTED, True)


def test_a_paper_order_that_the_last_process_did_not_settle_was_never_placed(tmp_path):
    clock = ManualClock(NOON)
    exchange = PaperExchange(RULES, SizingParameters(), clock, next_trade_id=1)
    with SqliteJournal(tmp_path / "orders.db") as journal:
        journal.record(an_intent())
        gateway = OrderGateway(exchange, journal, NoHalt())
        assert isinstance(gateway.resolve("bh-1"), Unsettled)
        clock.advance(1)
        assert gateway.resolve("bh-1").status is OrderStatus.NOT_PLACED


class FullDisk:
    """A journal whose disk is full: it reads and does not write."""

    def __init__(self, journal):
        self._journal = journal
        self.is_full = True

    def __getattr__(self, name):
        if self.is_full and name in ("record", "settle"):
            return self._refuse
        return getattr(self._journal, name)

    def _refuse(self, *_, **__):
        raise StoreError("orders.db: the disk is full")


def test_what_cannot_be_journaled_is_not_sent(bench):
    bench.gateway = OrderGateway(bench.exchange, FullDisk(bench.journal), bench.halt)
    outcome = bench.submit()
    assert (outcome.status, outcome.fills, bench.exchange.placed) == (OrderStatus.NOT_PLACED, (), [])
    assert "disk is full" in outcome.detail


@pytest.mark.parametrize("another", [{"quantity": "1.5"}, {"quantity": "0.5", "side": "SELL"}], ids=str)
def test_what_an_order_cannot_have_executed_is_another_ones(bench, another):
    """A twin of this bot makes the same ids: its order must not be booked for one that was not found."""
    bench.submit("lost_no_reply")
    bench.clock.advance(WINDOW_MS + 1)
    assert bench.gateway.resolve("bh-1").status is OrderStatus.NOT_PLACED
    report = OrderReport("bh-1", 7, "BTCUSDT", OrderStatus.FILLED, (a_fill(order_id=7, **another),))
    assert (bench.gateway.take(report), bench.gateway.is_foreign(report)) == (None, True)
    assert bench.journal.entry("bh-1").fills == ()


def test_an_end_that_cannot_be_journaled_is_settled_later(bench):
    disk = FullDisk(bench.journal)
    disk.is_full = False
    bench.gateway = OrderGateway(bench.exchange, disk, bench.halt)
    bench.exchange.on_place = lambda _: setattr(disk, "is_full", True)
    assert isinstance(bench.submit(), Unsettled)
    assert isinstance(bench.gateway.resolve("bh-1"), Unsettled)
    disk.is_full = False
    outcome = bench.gateway.resolve("bh-1")
    assert (outcome.status, len(bench.exchange.placed)) == (OrderStatus.FILLED, 1)
    assert outcome.fills == tuple(bench.exchange.fills)


@pytest.mark.parametrize("step", ["not_sent", "reject", "halt"])
def test_whatever_comes_under_the_id_of_an_order_that_never_was_one_is_another_ones(bench, step):
    """A twin, that is a bot of the same bot_id on the same account, makes the same decisions under the same ids."""
    if step == "halt":
        bench.halt.halt("a test")
    outcome = bench.submit(*([step] if step != "halt" else []))
    assert outcome.status in (OrderStatus.NOT_PLACED, OrderStatus.REJECTED)
    bench.new_process()
    twins = OrderReport("bh-1", 77, "BTCUSDT", OrderStatus.FILLED, (a_fill(order_id=77),))
    assert (bench.gateway.take(twins), bench.gateway.is_foreign(twins)) == (None, True)
    assert bench.gateway.resolve("bh-1").fills == ()
    assert bench.journal.entry("bh-1").is_no_order


def test_an_order_that_was_not_found_may_still_have_been_one(bench):
    bench.submit("lost_no_reply")
    bench.clock.advance(WINDOW_MS + 1)
    assert bench.gateway.resolve("bh-1").status is OrderStatus.NOT_PLACED
    assert not bench.journal.entry("bh-1").is_no_order


def test_an_order_that_never_left_is_never_asked_for_though_that_could_not_be_journaled_at_first(tmp_path):
    with SqliteJournal(tmp_path / "orders.db") as journal:
        disk = FullDisk(journal)
        disk.is_full = False
        bench = Bench(disk)
        bench.exchange.on_left = lambda intent: setattr(disk, "is_full", True)
        assert isinstance(bench.submit("not_sent"), Unsettled)
        bench.exchange.place(an_intent(), lambda send: None)
        (twins,) = bench.exchange.executed
        assert (bench.gateway.take(twins), bench.gateway.is_foreign(twins)) == (None, True)
        assert isinstance(bench.gateway.resolve("bh-1"), Unsettled)
        disk.is_full = False
        assert bench.gateway.resolve("bh-1").status is OrderStatus.NOT_PLACED
        assert (bench.gateway.take(twins), bench.journal.entry("bh-1").fills) == (None, ())


def test_an_order_is_measured_the_moment_its_bytes_left_and_no_other(bench):
    left = []
    bench.gateway = OrderGateway(
        bench.exchange,
        bench.journal,
        bench.halt,
        on_left=lambda intent, is_of_kline: left.append((intent, is_of_kline)),
    )
    sent, refused = an_intent(client_order_id="bh-1"), an_intent(client_order_id="bh-2")
    bench.exchange.on_left = lambda intent: left.append("on its way")
    bench.gateway.submit(sent, bench.fence)
    bench.exchange.plan.append("reject")
    bench.gateway.submit(refused, bench.fence, passes_halt=True)
    bench.halt.reason = "for a test"
    bench.gateway.submit(an_intent(client_order_id="bh-3"), bench.fence)
    assert left == [(sent, True), "on its way", (refused, False), "on its way"]
