"""TraderActor: given these messages, then these messages; no thread."""

from decimal import Decimal

import msgspec
import pytest

from bot.actors import addresses
from bot.actors.cells import Cell, Pending, TraderMemory
from bot.actors.trader import FLATTEN_ATTEMPTS, TraderActor, TraderSettings
from bot.adapters.paper import PaperExchange
from bot.domain.decision import Decision
from bot.domain.order import OrderReport, OrderStatus, Side
from bot.domain.order_id import client_order_id
from bot.domain.risk import RiskLimits
from bot.domain.scalping import Scalping
from bot.domain.sizing import SizingParameters
from bot.gateway import OrderGateway
from bot.messages import (
    Compare,
    Flatten,
    Freed,
    Mark,
    Notice,
    OrderEnded,
    OrderProposal,
    ProposalTimeout,
    Reserved,
    ResolveOrders,
    Skipped,
    Taken,
    Trade,
)
from bot.ports import OrderInDoubt
from bot.supervision.testing import ManualClock, RecordingContext
from tests.support.builders import (
    MINUTE_MS,
    NOON,
    a_decision,
    a_fill,
    a_kline,
    an_adjustment,
    an_intent,
    klines_of,
    rules_of,
)
from tests.support.doubles import Crash, MemoryStore, NoHalt, ScriptedExchange

BTC = addresses.trader("BTCUSDT")
RULES = {"BTCUSDT": rules_of()}
DEFAULTS = {"symbol": "BTCUSDT", "mode": "test", "bot_id": "bot", "limits": RiskLimits()}


class Bench:
    """One trader with a recording context; `restart` makes its next incarnation, `new_process` the next process's."""

    def __init__(self, journal, exchange=None, **settings):
        self.clock = ManualClock(NOON)
        self.journal = journal
        self.exchange = exchange or ScriptedExchange(self.clock, RULES)
        self.store = MemoryStore()
        self.halt = NoHalt()
        self.settings = TraderSettings(**(DEFAULTS | settings))
        self.epoch = 0
        self.new_process()

    def new_process(self):
        self.cell = Cell(TraderMemory())
        self.gateway = OrderGateway(self.exchange, self.journal, self.halt)
        self.restart()

    def restart(self):
        self.epoch += 1
        self.context = RecordingContext(BTC, self.clock, self.epoch)
        strategy = Scalping(Decimal("0.01"), Decimal("0.01"))
        self.actor = TraderActor(
            self.context,
            self.settings,
            RULES["BTCUSDT"],
            strategy,
            self.gateway,
            self.journal,
            self.store,
            self.cell,
            self.clock.now_ms,
        )
        self.actor.started()

    def take(self, *messages):
        for message in messages:
            self.actor.handle(message)

    def told(self, to=addresses.PORTFOLIO):
        sent = self.context.sent_to(to)
        self.context.sent = [(a, m) for a, m in self.context.sent if a != to]
        return sent

    def trades(self):
        return [message for message in self.told(addresses.BRIDGE) if isinstance(message, Trade)]

    def done_with(self):
        return [message.kline for message in self.told(addresses.BRIDGE) if isinstance(message, Taken)]

    def decisions(self):
        """The decisions told to the bridge since the last look."""
        told = [m.decision if isinstance(m, Taken) else m for m in self.told(addresses.BRIDGE)]
        return [decision for decision in told if isinstance(decision, Decision)]

    def ends(self):
        return [message for message in self.told() if isinstance(message, OrderEnded)]

    def ring(self, ms):
        self.clock.advance(ms)
        due, self.context.due = self.context.due, []
        self.take(*due)

    @property
    def memory(self):
        return self.cell.value

    def buy(self, quantity="1"):
        """A drop that is bought; returns the proposal."""
        self.take(*klines_of("100", "98"))
        proposal = self.told()[-1]
        self.take(reserved(proposal, quantity))
        return proposal


def reserved(proposal, quantity="1", quote="98"):
    return Reserved(proposal.client_order_id, Decimal(quantity), Decimal(quote))


@pytest.fixture
def bench(journal):
    return Bench(journal)


# Signals


def test_the_first_message_only_sets_the_previous_close(bench):
    (first,) = klines_of("100")
    bench.take(first)
    assert bench.told() == [Mark("BTCUSDT", Decimal(100), first.event_time)]
    assert (bench.memory.close, bench.memory.previous_close, bench.memory.taken) == (Decimal(100), None, 1)


def test_a_drop_is_proposed_with_the_id_of_its_decision(bench):
    first, drop = klines_of("100", "99")
    bench.take(first, drop)
    _, proposal = bench.told()
    order_id = client_order_id("bot", "test", "BTCUSDT", "BUY", drop.open_time, drop.event_time)
    assert (proposal.client_order_id, proposal.signal.side, proposal.close) == (order_id, Side.BUY, Decimal(99))
    assert bench.context.armed == [(5_000, ProposalTimeout(order_id))]


def test_a_rise_without_a_position_is_no_signal(bench):
    bench.take(*klines_of("100", "110"))
    assert [type(m) for m in bench.told()] == [Mark, Mark]


def test_duplicates_and_late_messages_change_nothing(bench):
    older, last = klines_of("100", "99.5")
    bench.take(older, last)
    bench.told()
    before = bench.memory
    bench.take(last, older, a_kline("50", open_time=last.open_time, is_closed=False, event_time=last.event_time + 1))
    assert bench.told() == []
    assert bench.memory.dropped == 3
    assert (bench.memory.last, bench.memory.close, bench.memory.taken) == (before.last, before.close, 2)


def test_open_klines_count_by_default_and_not_where_only_closed_ones_do(journal):
    klines = [
        a_kline("100"),
        a_kline("98", open_time=NOON + MINUTE_MS, is_closed=False, event_time=NOON + MINUTE_MS + 500),
        a_kline("99.9", open_time=NOON + MINUTE_MS),
    ]
    bench = Bench(journal)
    bench.take(*klines[:2])
    assert [type(m) for m in bench.told()] == [Mark, OrderProposal]
    bench = Bench(journal, only_closed=True)
    bench.take(*klines)
    assert bench.told() == [Mark("BTCUSDT", k.close, k.event_time) for k in (klines[0], klines[2])]
    assert (bench.memory.taken, bench.memory.previous_close) == (3, Decimal(100))


def test_a_kline_after_a_gap_only_sets_the_previous_close(journal):
    bench = Bench(journal, max_gap_ms=2 * MINUTE_MS)
    bench.take(a_kline("100"), a_kline("90", open_time=NOON + 2 * MINUTE_MS))
    assert isinstance(bench.told()[-1], OrderProposal), "exactly two intervals are no gap"
    bench = Bench(journal, max_gap_ms=2 * MINUTE_MS)
    after = a_kline("90", open_time=NOON + 2 * MINUTE_MS, event_time=NOON + 3 * MINUTE_MS)
    bench.take(a_kline("100"), after, a_kline("89.5", open_time=NOON + 3 * MINUTE_MS))
    assert [type(m) for m in bench.told()] == [Mark, Mark, Mark]
    assert (bench.memory.gaps, bench.memory.stale, bench.memory.close) == (1, 0, Decimal("89.5"))


def test_a_stale_kline_moves_the_previous_close_and_never_trades(journal):
    bench = Bench(journal, max_age_ms=10_000)
    first, drop, next_drop = klines_of("100", "90", "89")
    bench.clock.advance(drop.event_time + 10_001 - NOON)
    bench.take(first, drop)
    assert [type(m) for m in bench.told()] == [Mark, Mark]
    assert (bench.memory.stale, bench.memory.close) == (2, Decimal(90))
    bench.take(next_drop)
    assert isinstance(bench.told()[-1], OrderProposal), "89 is compared with the stale 90"


def test_a_kline_of_exactly_max_age_trades(journal):
    bench = Bench(journal, max_age_ms=10_000)
    first, drop = klines_of("100", "90")
    bench.clock.advance(drop.event_time + 10_000 - NOON)
    bench.take(first, drop)
    assert isinstance(bench.told()[-1], OrderProposal)


def test_an_exit_comes_before_the_strategy(journal):
    bench = Bench(journal, limits=RiskLimits(stop_loss=Decimal("0.05")))
    bench.buy()
    bench.told()
    bench.take(a_kline("93", open_time=NOON + 2 * MINUTE_MS))
    (proposal,) = bench.told()
    assert (proposal.signal.side, proposal.signal.sell_all) == (Side.SELL, True)
    assert proposal.signal.reason.startswith("stop loss")


def test_an_exit_does_not_follow_from_a_stale_kline(journal):
    bench = Bench(journal, limits=RiskLimits(stop_loss=Decimal("0.05")), max_age_ms=10_000)
    bench.buy()
    bench.told()
    bench.clock.advance(60 * MINUTE_MS)
    bench.take(a_kline("50", open_time=NOON + 2 * MINUTE_MS))
    assert [type(m) for m in bench.told()] == [Mark]


# An order's way


def test_an_order_is_journaled_before_it_is_sent_and_its_end_is_told_to_all(bench):
    seen = []
    bench.exchange.on_place = lambda intent: seen.append(bench.journal.entry(intent.client_order_id).status)
    proposal = bench.buy()
    assert seen == [OrderStatus.RECORDED]
    (report,) = bench.exchange.executed
    assert bench.told() == [
        OrderEnded(proposal.client_order_id, "BTCUSDT", "FILLED", report.fills, proposal.event_time)
    ]
    (trade,) = bench.trades()
    assert (trade.client_order_id, trade.side, trade.quantity) == (proposal.client_order_id, Side.BUY, Decimal(1))
    assert bench.told(addresses.MONITOR) == [trade]
    assert bench.memory.position.quantity == Decimal("0.999"), "commission is of the base asset"
    assert bench.memory.pending is None


def test_klines_wait_for_the_order_in_their_order(bench):
    klines = klines_of("100", "98", "97.5", "95", "96.5")
    bench.take(*klines)
    _, proposal = bench.told()
    assert bench.memory.waiting == tuple(klines[2:])
    bench.take(reserved(proposal))
    ended, mark, second = bench.told()
    assert (ended.client_order_id, mark.close, second.close) == (proposal.client_order_id, Decimal("97.5"), Decimal(95))
    assert bench.memory.waiting == (klines[4],), "the second order holds up the last kline"
    bench.take(reserved(second))
    assert [type(m) for m in bench.told()] == [OrderEnded, OrderProposal]
    assert len(bench.exchange.executed) == 2


def test_a_refusal_lets_the_next_kline_in(bench):
    klines = klines_of("100", "98", "97.9")
    bench.take(*klines)
    proposal = bench.told()[-1]
    bench.take(Skipped(proposal.client_order_id, "BTCUSDT", Side.BUY, "CASH", "", proposal.event_time))
    assert bench.told() == [Mark("BTCUSDT", Decimal("97.9"), klines[2].event_time)]
    assert (bench.memory.pending, bench.exchange.placed) == (None, [])


def test_the_refusal_of_another_decision_frees_nothing(bench):
    bench.take(*klines_of("100", "98"))
    bench.take(Skipped("bh-other", "BTCUSDT", Side.BUY, "CASH", "", NOON))
    assert bench.memory.pending is not None


def test_money_reserved_for_nobody_is_given_back(bench):
    bench.take(Reserved("bh-old", Decimal(1), Decimal(98)))
    assert bench.told() == [OrderEnded("bh-old", "BTCUSDT", "NOT_PLACED", (), 0)]
    assert bench.exchange.placed == []


def test_an_answer_that_comes_twice_sends_one_order(bench):
    proposal = bench.buy()
    bench.told()
    bench.take(reserved(proposal))
    assert (bench.told(), len(bench.exchange.placed)) == ([], 1)


def test_without_an_answer_the_trader_goes_on_and_a_late_one_is_given_back(bench):
    bench.take(*klines_of("100", "98", "97.9"))
    proposal = bench.told()[-1]
    bench.ring(4_999)
    assert bench.told() == []
    bench.ring(1)
    (skipped,) = bench.told(addresses.MONITOR)
    assert (skipped.name, skipped.client_order_id) == ("NO_ANSWER", proposal.client_order_id)
    released, mark = bench.told()
    assert (released.status, mark.close) == ("NOT_PLACED", Decimal("97.9"))
    bench.take(reserved(proposal))
    assert [m.status for m in bench.told()] == ["NOT_PLACED"]
    assert bench.exchange.placed == []


def test_the_time_out_of_an_answered_proposal_changes_nothing(bench):
    bench.buy()
    bench.told()
    bench.ring(6_000)
    assert bench.told() == []
    assert [m for m in bench.told(addresses.MONITOR) if isinstance(m, Skipped)] == []


@pytest.mark.parametrize(("step", "status"), [("reject", "REJECTED"), ("not_sent", "NOT_PLACED")])
def test_an_order_that_is_refused_ends_without_a_trade(bench, step, status):
    bench.exchange.plan.append(step)
    bench.buy()
    (ended,) = bench.told()
    assert (ended.status, ended.fills) == (status, ())
    assert bench.told(addresses.MONITOR) == [ended]
    assert bench.trades() == []
    assert bench.memory.position.quantity == 0


def test_a_partial_fill_is_what_the_exchange_says(bench):
    bench.exchange.plan.append("partial")
    bench.buy()
    assert bench.told()[0].status == "EXPIRED"
    assert bench.memory.position.quantity == Decimal("0.4995")
    assert bench.trades()[0].quantity == Decimal("0.5")


# Doubt


def test_while_the_fate_of_an_order_is_unknown_its_symbol_sends_none(bench):
    bench.exchange.plan.append("executed_no_reply")
    bench.exchange.is_away = True
    first = bench.buy()
    assert bench.told() == []
    (notice,) = bench.told(addresses.MONITOR)
    assert isinstance(notice, Notice)
    drop = a_kline("90", open_time=NOON + 2 * MINUTE_MS)
    bench.take(drop)
    assert bench.told() == [Mark("BTCUSDT", Decimal(90), drop.event_time)]
    (skipped,) = bench.told(addresses.MONITOR)
    assert (skipped.name, first.client_order_id in skipped.detail) == ("IN_DOUBT", True)
    bench.ring(1_000)
    assert bench.told() == [], "the exchange is still away"
    bench.exchange.is_away = False
    bench.ring(1_000)
    (ended,) = bench.told()
    assert (ended.client_order_id, ended.status) == (first.client_order_id, "FILLED")
    assert bench.memory.position.quantity == Decimal("0.999")
    assert bench.memory.doubts == ()
    bench.take(a_kline("80", open_time=NOON + 3 * MINUTE_MS))
    assert isinstance(bench.told()[-1], OrderProposal)
    assert len(bench.exchange.placed) == 1


def test_an_order_counts_as_never_placed_only_once_it_can_no_longer_be_accepted(bench):
    bench.exchange.plan.append("lost_no_reply")
    bench.buy()
    bench.ring(1_000)
    bench.ring(1_000)
    bench.ring(1_000)
    bench.ring(1_000)
    assert bench.told() == [], "at four seconds the window is not over yet"
    bench.ring(1_000)
    (ended,) = bench.told()
    assert (ended.status, bench.memory.position.quantity) == ("NOT_PLACED", 0)


def test_a_request_that_arrives_late_is_found(bench):
    bench.exchange.plan.append("late")
    bench.buy()
    bench.ring(1_000)
    bench.exchange.deliver()
    bench.ring(1_000)
    assert [m.status for m in bench.told()] == ["FILLED"]


def test_a_stop_asks_once_more_about_an_order_whose_reply_came_too_late(bench):
    bench.exchange.plan.append("executed_no_reply")
    first = bench.buy()
    bench.told()
    bench.actor.stopped()
    (ended,) = bench.told()
    assert (ended.client_order_id, ended.status) == (first.client_order_id, "FILLED")
    assert bench.memory.doubts == ()
    assert [entry.status for entry in bench.journal.settled()] == ["FILLED"]


def test_an_unfinished_order_is_in_doubt_until_it_is_final(bench):
    bench.exchange.plan.append("unfinished")
    bench.buy()
    assert bench.told() == []
    bench.ring(1_000)
    assert [m.status for m in bench.told()] == ["FILLED"]


# Restart of the actor


def test_a_proposal_without_an_answer_is_made_again(bench):
    bench.take(*klines_of("100", "98", "97"))
    first = bench.told()[-1]
    bench.restart()
    (again,) = bench.told()
    assert again == first
    bench.take(reserved(again))
    assert len(bench.exchange.executed) == 1
    assert [type(m) for m in bench.told()] == [OrderEnded, OrderProposal], "what waited is taken"


def test_a_kline_that_is_taken_again_after_a_crash_is_the_same_decision(bench):
    first, drop = klines_of("100", "98")
    bench.take(first)
    bench.context.full.add(addresses.PORTFOLIO)
    with pytest.raises(Exception, match="portfolio"):
        bench.take(drop)
    bench.restart()
    bench.take(drop)
    assert [type(m) for m in bench.told()] == [OrderProposal]


def test_an_order_settled_but_not_told_is_told_by_the_next_incarnation(bench):
    bench.take(*klines_of("100", "98"))
    proposal = bench.told()[-1]
    bench.context.full.add(addresses.PORTFOLIO)
    with pytest.raises(Exception, match="portfolio"):
        bench.take(reserved(proposal))
    assert bench.journal.entry(proposal.client_order_id).status is OrderStatus.FILLED
    bench.restart()
    bench.take(reserved(proposal))
    assert {m.client_order_id for m in bench.ends()} == {proposal.client_order_id}
    assert bench.trades()
    assert (bench.memory.position.quantity, len(bench.exchange.placed)) == (Decimal("0.999"), 1)


def test_a_doubt_that_ended_but_was_not_told_is_told_by_the_next_incarnation(bench):
    """Its question was a timer's, which ends with the epoch: nothing but the memory knows that it must be told."""
    bench.exchange.plan.append("executed_no_reply")
    proposal = bench.buy()
    bench.context.full.add(addresses.PORTFOLIO)
    with pytest.raises(Exception, match="portfolio"):
        bench.ring(1_000)
    bench.restart()
    assert [m.client_order_id for m in bench.told()] == [proposal.client_order_id]
    assert (bench.memory.position.quantity, bench.memory.doubts) == (Decimal("0.999"), ())


@pytest.mark.parametrize(("point", "executed"), [("place, before", 0), ("place, executed", 1)])
def test_a_crash_inside_the_exchange_leaves_one_order_or_none(bench, point, executed):
    bench.take(*klines_of("100", "98"))
    proposal = bench.told()[-1]
    faults = bench.exchange.faults
    faults.countdown = ["place, before", "place, executed"].index(point)
    with pytest.raises(Crash):
        bench.take(reserved(proposal))
    bench.restart()
    bench.take(reserved(proposal))
    for _ in range(6):
        bench.ring(1_000)
    assert len(bench.exchange.executed) == executed
    assert len(bench.exchange.placed) == executed
    assert bench.ends()[-1].status == ("FILLED" if executed else "NOT_PLACED")
    assert bench.memory.position.quantity == (Decimal("0.999") if executed else 0)
    assert bench.context.state == "running"


def test_an_actor_is_recovering_until_it_knows_the_fate_of_its_orders(bench):
    bench.exchange.plan.append("executed_no_reply")
    bench.buy()
    bench.exchange.is_away = True
    bench.restart()
    assert bench.context.state == "recovering"
    bench.exchange.is_away = False
    bench.ring(1_000)
    assert bench.context.state == "running"


def test_a_fenced_incarnation_sends_nothing_and_leaves_no_trace(bench):
    bench.take(*klines_of("100", "98"))
    proposal = bench.told()[-1]
    before = bench.memory
    bench.context.end_epoch()
    with pytest.raises(Exception, match="is over"):
        bench.take(reserved(proposal))
    assert (bench.exchange.placed, bench.journal.entry(proposal.client_order_id)) == ([], None)
    assert bench.memory is before


def test_a_kline_is_told_to_the_bridge_once_its_order_is_done(bench):
    first, drop, after = klines_of("100", "98", "98")
    bench.take(first, drop, after)
    assert bench.done_with() == [first], "what is stored counts as taken: not before it is"
    bench.take(reserved(bench.told()[-1]))
    assert bench.done_with() == [drop, after]


def test_a_kline_whose_decision_was_refused_is_told_to_the_bridge(bench):
    first, drop = klines_of("100", "98")
    bench.take(first, drop)
    proposal = bench.told()[-1]
    bench.take(Skipped(proposal.client_order_id, "BTCUSDT", Side.BUY, "CASH", "none left", drop.event_time))
    assert bench.done_with() == [first, drop]


def test_every_kline_that_counts_or_not_is_stored_but_none_that_is_dropped(journal):
    bench = Bench(journal, only_closed=True, max_gap_ms=MINUTE_MS)
    opened = a_kline("99", open_time=NOON, is_closed=False, event_time=NOON + 5)
    closed, late = a_kline("98"), a_kline("97", open_time=NOON + 5 * MINUTE_MS)
    bench.take(opened, closed, opened, late)
    assert bench.done_with() == [opened, closed, late]


def test_an_incarnation_that_died_before_it_told_the_bridge_leaves_that_to_the_next(bench):
    first, drop = klines_of("100", "98")
    bench.take(first, drop)
    bench.restart()
    assert bench.done_with() == []
    bench.take(reserved(bench.told()[-1]))
    assert bench.done_with() == [drop]


# Restart of the process


def test_the_last_close_comes_from_the_store(bench):
    first, drop = klines_of("100", "98")
    bench.store.write([first], [])
    bench.new_process()
    assert (bench.memory.close, bench.memory.last) == (Decimal(100), first)
    bench.take(drop)
    assert isinstance(bench.told()[-1], OrderProposal)


def test_the_last_closed_kline_gives_the_close_where_only_closed_ones_count(journal):
    first = a_kline("100")
    opened = a_kline("90", open_time=NOON + MINUTE_MS, is_closed=False, event_time=NOON + MINUTE_MS + 5)
    bench = Bench(journal, only_closed=True)
    bench.store.write([first, opened], [])
    bench.new_process()
    assert (bench.memory.close, bench.memory.last) == (Decimal(100), opened)


@pytest.mark.parametrize("is_closed", [True, False])
def test_a_decision_that_the_store_does_not_have_yet_is_remembered_from_the_journal(bench, is_closed):
    first = a_kline("100")
    event_time = NOON + 2 * MINUTE_MS - 1 if is_closed else NOON + MINUTE_MS + 700
    drop = a_kline("98", open_time=NOON + MINUTE_MS, is_closed=is_closed, event_time=event_time)
    bench.store.write([first], [])
    bench.take(first, drop)
    bench.take(reserved(bench.told()[-1]))
    bench.new_process()
    assert bench.memory.close == Decimal(98)
    bench.told()
    bench.take(drop)
    assert (bench.told(), bench.done_with()) == ([], [drop]), "decided before, not stored yet"
    bench.take(drop)
    assert (bench.done_with(), bench.memory.dropped) == ([], 1)
    bench.take(a_kline("99", open_time=NOON + MINUTE_MS, is_closed=True))
    assert (bench.memory.dropped == 2) is is_closed
    assert len(bench.exchange.placed) == 1


def test_a_process_that_died_between_a_kline_and_its_intent_has_not_taken_it(bench):
    first, drop = klines_of("100", "98")
    bench.take(first, drop)
    bench.store.write(bench.done_with(), [])
    bench.new_process()
    assert bench.memory.last == first
    bench.told()
    bench.take(drop)
    assert isinstance(bench.told()[-1], OrderProposal)


def test_what_an_exit_sold_is_not_decided_again_by_the_next_process(journal):
    """Without the position the same message would be a drop to buy."""
    bench = Bench(journal, limits=RiskLimits(stop_loss=Decimal("0.01")))
    bench.buy()
    bench.store.write(bench.done_with(), [])
    crash = a_kline("90", open_time=NOON + 2 * MINUTE_MS)
    bench.take(crash)
    sale = bench.told()[-1]
    assert sale.signal.side is Side.SELL
    bench.take(reserved(sale, "0.999", "0"))
    bench.new_process()
    bench.told()
    bench.take(crash)
    assert (bench.told(), bench.done_with()) == ([], [crash])
    assert len(bench.exchange.placed) == 2


def test_position_and_trades_that_the_store_lacks_come_from_the_journal(bench):
    proposal = bench.buy()
    (trade,) = bench.trades()
    bench.new_process()
    assert bench.memory.position.quantity == Decimal("0.999")
    assert bench.trades() == [trade]
    bench.store.write([], [trade])
    bench.new_process()
    assert bench.trades() == []
    assert trade.client_order_id == proposal.client_order_id


def test_an_order_of_the_last_process_is_asked_for_before_anything_else(bench):
    bench.exchange.plan.append("executed_no_reply")
    proposal = bench.buy()
    bench.new_process()
    mark, ended = bench.told()
    # The store has not got the message that decided it, so the portfolio could not know that close.
    assert (mark.close, mark.event_time) == (proposal.close, proposal.event_time)
    assert ended.status == "FILLED"
    assert bench.memory.position.quantity == Decimal("0.999")
    bench.take(*klines_of("100", "98"))
    assert [m.client_order_id for m in bench.told() if isinstance(m, OrderProposal)] == []
    assert bench.exchange.placed == [proposal.client_order_id]


def test_an_order_that_is_settled_while_the_next_incarnation_starts_is_in_its_books(bench):
    """A thread whose epoch is over still learns its order's end, between two looks at the journal."""
    kline = klines_of("100", "98")[1]
    intent = an_intent(client_order_id="bh-late", kline=kline, close="98")
    bench.journal.record(intent)
    fill = a_fill("BUY", "1", "98", client_order_id="bh-late")
    settled, unresolved = bench.journal.settled, bench.journal.unresolved

    class Racing:
        def __getattr__(self, name):
            return getattr(bench_journal, name)

        def settle_now(self):
            bench_journal.settle(OrderReport("bh-late", 1, "BTCUSDT", OrderStatus.FILLED, (fill,)))

        def settled(self, symbol=None):
            found = settled(symbol)
            self.settle_now()
            return found

        def unresolved(self, symbol=None):
            found = unresolved(symbol)
            self.settle_now()
            return found

    bench_journal, bench.journal = bench.journal, Racing()
    bench.new_process()
    assert bench.memory.position.quantity == 1
    assert [m.client_order_id for m in bench.told() if isinstance(m, OrderEnded)] == ["bh-late"]


def test_an_adjustment_is_booked_once_whether_told_or_read(bench):
    bench.buy()
    later = {"time": bench.memory.last.event_time + 1}
    corrections = (
        an_adjustment("-0.4", **later),
        an_adjustment("0.1", price="90", adjustment_id="adj-2", **later),
    )
    for correction in corrections:
        bench.journal.adjust(correction)
    others = an_adjustment("-7", symbol="ETHUSDT", adjustment_id="adj-3")
    bench.journal.adjust(others)
    bench.take(*corrections, *corrections, others)
    assert bench.memory.position.quantity == Decimal("0.699")
    told = bench.memory.position
    bench.restart()
    bench.take(*corrections)
    assert bench.memory.position == told
    bench.new_process()
    assert bench.memory.position == told


def test_a_late_fill_is_in_the_position_of_the_next_incarnation(bench):
    intent = an_intent(client_order_id="bh-1", quantity="3")
    bench.journal.record(intent)
    bench.journal.settle(OrderReport("bh-1", 1, "BTCUSDT", OrderStatus.EXPIRED, (a_fill(),)))
    bench.journal.amend("bh-1", [a_fill("BUY", "2", "70", trade_id=2)])
    bench.restart()
    assert (bench.memory.position.quantity, bench.memory.position.average_price) == (3, 80)


def test_a_trade_whose_late_fill_the_store_lacks_is_told_by_the_next_process(bench):
    """Whoever dies between the journal's amendment and the store leaves the telling to the next one."""
    bench.buy()
    (trade,) = bench.trades()
    bench.store.write([], [trade])
    late = a_fill("BUY", "2", "70", client_order_id=trade.client_order_id, trade_id=2)
    bench.journal.amend(trade.client_order_id, [late])
    bench.new_process()
    (amended,) = bench.trades()
    assert (amended.client_order_id, amended.quantity) == (trade.client_order_id, Decimal(3))
    bench.store.write([], [amended])
    bench.new_process()
    assert bench.trades() == []


def test_coins_that_left_the_book_meanwhile_are_not_sold(bench):
    """The portfolio's answer goes before the correction, which was on its way when it sized the order."""
    bench.buy()
    bench.take(a_kline("110", open_time=NOON + 2 * MINUTE_MS))
    sale = bench.told()[-1]
    correction = an_adjustment("-0.5", time=bench.memory.last.event_time + 1)
    bench.journal.adjust(correction)
    bench.take(correction, Freed("BTCUSDT"))
    assert bench.told(addresses.ACCOUNT) == [Freed("BTCUSDT")]
    bench.take(reserved(sale, "0.999", "0"))
    assert len(bench.exchange.placed) == 1
    assert bench.decisions()[-1].name == "ADJUSTED"
    assert [ended.client_order_id for ended in bench.ends()] == [sale.client_order_id], "its money is free again"
    bench.take(a_kline("121", open_time=NOON + 3 * MINUTE_MS))
    bench.take(reserved(bench.told()[-1], "0.499", "0"))
    assert len(bench.exchange.placed) == 2


def test_a_report_of_another_order_under_a_known_id_is_not_booked_and_has_the_account_compared(bench):
    proposal = bench.buy()
    bench.told()
    before = bench.memory.position
    twin = a_fill("BUY", "5", client_order_id=proposal.client_order_id, order_id=99, trade_id=99)
    for order_id in (proposal.client_order_id, "bh-nobodys"):
        fill = msgspec.structs.replace(twin, client_order_id=order_id)
        bench.take(OrderReport(order_id, 99, "BTCUSDT", OrderStatus.FILLED, (fill,)))
        assert bench.told(addresses.ACCOUNT) == [Compare(soon=True)]
    assert (bench.memory.position, bench.told()) == (before, [])
    bench.restart()
    assert bench.memory.position == before


def test_a_decision_known_to_the_journal_is_never_made_again(bench):
    """The memory of a taken kline may be lost; the journal's is not."""
    first, drop = klines_of("100", "98")
    proposal = bench.buy()
    bench.told()
    signal = proposal.signal
    bench.cell.value = TraderMemory(
        is_warm=True,
        last=first,
        state=Decimal(100),
        close=Decimal(100),
        pending=Pending(drop, signal, proposal.client_order_id, a_decision("BUY", drop)),
    )
    bench.restart()
    assert [type(m) for m in bench.told()] == [Mark, OrderEnded]
    assert (len(bench.exchange.placed), bench.memory.pending) == (1, None)
    assert bench.memory.position.quantity == Decimal("0.999")


def test_paper_money_is_found_again_by_the_next_incarnation(journal):
    clock = ManualClock(NOON)
    exchange = PaperExchange(RULES, SizingParameters(), clock, next_trade_id=1)
    place = exchange.place

    def lost(intent, leave):
        place(intent, leave)
        raise OrderInDoubt("lost on the way")

    exchange.place = lost
    bench = Bench(journal, exchange)
    bench.buy()
    bench.take(ResolveOrders())
    assert [m.status for m in bench.told()] == ["FILLED"]
    assert isinstance(bench.trades()[0], Trade)


def test_the_halt_file_refuses_and_says_why(bench):
    bench.halt.reason = "by hand"
    bench.buy()
    (ended,) = bench.told()
    assert (ended.status, ended.detail) == ("NOT_PLACED", "halted: by hand")
    assert bench.exchange.placed == []


# Decisions that grew old before their order was journaled


def test_a_decision_that_waited_too_long_for_its_money_is_called_off(journal):
    bench = Bench(journal, max_age_ms=10_000)
    first, drop = klines_of("100", "98")
    bench.clock.advance(drop.event_time - NOON)
    bench.take(first, drop)
    proposal = bench.told()[-1]
    bench.clock.advance(10_001)
    bench.take(reserved(proposal))
    assert (bench.exchange.placed, bench.memory.pending) == ([], None)
    assert [end.status for end in bench.ends()] == ["NOT_PLACED"]
    assert [m.name for m in bench.told(addresses.MONITOR) if isinstance(m, Skipped)] == ["STALE"]


def test_a_new_incarnation_does_not_go_on_with_what_is_too_old(journal):
    bench = Bench(journal, max_age_ms=10_000)
    first, drop = klines_of("100", "98")
    bench.clock.advance(drop.event_time - NOON)
    bench.take(first, drop)
    assert bench.memory.pending is not None
    bench.clock.advance(60_000)
    bench.restart()
    assert bench.memory.pending is None
    assert not [m for m in bench.told() if isinstance(m, OrderProposal)]


def test_a_stand_in_makes_no_entry_that_was_decided_before(bench):
    bench.take(*klines_of("100", "98"))
    proposal = bench.told()[-1]
    bench.settings = TraderSettings(**DEFAULTS, in_care=True)
    bench.restart()
    bench.take(reserved(proposal))
    assert (bench.exchange.placed, bench.memory.pending) == ([], None)
    assert "QUARANTINED" in [m.name for m in bench.told(addresses.MONITOR) if isinstance(m, Skipped)]


# What the account's stream says


def test_the_stream_ends_a_doubt_and_its_order_counts_once(bench):
    bench.exchange.plan.append("executed_no_reply")
    proposal = bench.buy()
    bench.told()
    (report,) = bench.exchange.executed
    bench.take(report, report)
    assert [(end.client_order_id, end.status) for end in bench.ends()] == [(proposal.client_order_id, "FILLED")]
    assert (bench.memory.position.quantity, bench.memory.doubts) == (Decimal("0.999"), ())
    bench.ring(1_000)
    assert bench.ends() == []
    assert len(bench.trades()) == 1


def test_what_the_reply_said_is_no_news_from_the_stream(bench):
    bench.buy()
    bench.told()
    assert len(bench.trades()) == 1
    bench.take(*bench.exchange.executed)
    assert (bench.told(), bench.trades()) == ([], [])
    assert bench.memory.position.quantity == Decimal("0.999")


def test_a_fill_that_comes_late_is_added_once(bench):
    bench.exchange.plan.append("lost_no_reply")
    proposal = bench.buy()
    for _ in range(6):
        bench.ring(1_000)
    assert [end.status for end in bench.ends()] == ["NOT_PLACED"], "not found, after the window"
    fill = a_fill(client_order_id=proposal.client_order_id, quantity="0.4", commission="0.001")
    late = OrderReport(proposal.client_order_id, 9, "BTCUSDT", OrderStatus.EXPIRED, (fill,))
    bench.take(late, late)
    assert bench.memory.position.quantity == Decimal("0.399")
    assert [trade.quantity for trade in bench.trades()] == [Decimal("0.4")]
    bench.restart()
    assert bench.memory.position.quantity == Decimal("0.399")


def test_a_fill_under_the_id_of_an_order_that_never_left_is_a_twins(bench):
    bench.exchange.plan.append("not_sent")
    proposal = bench.buy()
    assert [end.status for end in bench.ends()] == ["NOT_PLACED"]
    fill = a_fill(client_order_id=proposal.client_order_id, quantity="0.4", commission="0.001")
    for _ in range(2):
        bench.take(OrderReport(proposal.client_order_id, 9, "BTCUSDT", OrderStatus.FILLED, (fill,)))
        assert (bench.memory.position.quantity, bench.trades()) == (0, [])
        assert bench.told(addresses.ACCOUNT) == [Compare(soon=True)]
        bench.restart()


def test_an_order_that_the_journal_does_not_know_changes_nothing(bench):
    before = bench.memory
    bench.take(OrderReport("bh-other", 9, "BTCUSDT", OrderStatus.FILLED, (a_fill(client_order_id="bh-other"),)))
    assert (bench.memory, bench.told()) == (before, [])


def test_however_often_it_is_told_to_ask_one_timer_runs(bench):
    bench.exchange.plan.append("executed_no_reply")
    bench.exchange.is_away = True
    bench.buy()
    bench.take(ResolveOrders(), ResolveOrders())
    bench.clock.advance(1_000)
    assert bench.context.due == [ResolveOrders()]


# Selling all


def test_all_is_sold_by_command_even_while_halted(bench):
    bench.buy()
    bench.halt.reason = "by hand"
    bench.told()
    bench.take(Flatten())
    sale = bench.told()[-1]
    assert (sale.signal.side, sale.signal.sell_all) == (Side.SELL, True)
    bench.take(reserved(sale, "0.999", "0"))
    assert (bench.memory.position.quantity, bench.memory.is_flattening, bench.memory.flattened) == (0, False, 1)
    assert len(bench.exchange.placed) == 2


def test_selling_all_takes_as_many_orders_as_it_needs_each_with_a_name_of_its_own(bench):
    bench.buy()
    bench.take(Flatten())
    for quantity in ("0.5", "0.499"):
        bench.take(reserved(bench.told()[-1], quantity, "0"))
    assert (bench.memory.position.quantity, bench.memory.is_flattening, bench.memory.flattened) == (0, False, 1)
    assert len(set(bench.exchange.placed)) == 3


def test_dust_that_cannot_be_sold_ends_the_selling(bench):
    bench.buy()
    bench.take(Flatten())
    sale = bench.told()[-1]
    bench.take(Skipped(sale.client_order_id, "BTCUSDT", Side.SELL, "LOT_SIZE", "too little", sale.event_time))
    assert (bench.memory.is_flattening, bench.memory.pending, bench.memory.flattened) == (False, None, 1)


def test_nothing_held_is_nothing_to_sell(bench):
    bench.take(*klines_of("100"))
    bench.told()
    bench.take(Flatten())
    assert (bench.told(), bench.memory.is_flattening, bench.memory.flattened) == ([], False, 1)


def test_selling_all_is_given_up_after_some_orders_that_sold_nothing(bench):
    bench.buy()
    bench.exchange.plan.extend(["reject"] * 20)
    bench.take(Flatten())
    while bench.memory.pending is not None:
        bench.take(reserved(bench.told()[-1], "0.999", "0"))
    assert len(bench.exchange.placed) == 1 + FLATTEN_ATTEMPTS


def test_selling_all_waits_for_an_order_of_unknown_fate_and_outlives_the_incarnation(bench):
    bench.exchange.plan.append("executed_no_reply")
    bench.exchange.is_away = True
    bench.buy()
    bench.told()
    bench.take(Flatten())
    assert not [m for m in bench.told() if isinstance(m, OrderProposal)]
    bench.exchange.is_away = False
    bench.restart()
    assert isinstance(bench.told()[-1], OrderProposal)
