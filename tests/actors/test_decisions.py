"""Every message a trader takes or drops ends in one decision, under one name: told with the message, and counted."""

from decimal import Decimal

import pytest

from bot.actors.addresses import BRIDGE
from bot.domain.order import Side
from bot.domain.strategy import Thresholds
from bot.messages import Skipped, Taken
from bot.ports import StoreError
from tests.actors.test_trader import Bench, reserved
from tests.support.builders import MINUTE_MS, NOON, a_kline, klines_of
from tests.support.doubles import Crash

PAIR = ("100", "98")


@pytest.fixture
def bench(journal):
    return Bench(journal)


def names(bench):
    return [decision.name for decision in bench.decisions()]


def counts(bench):
    return dict(bench.memory.decisions)


def the_last(bench):
    decisions = bench.decisions()
    return decisions[-1]


def test_the_first_message_and_those_without_a_signal(bench):
    klines = klines_of("100", "100.5", "99.6")
    bench.take(*klines)
    told = bench.told(BRIDGE)
    assert [taken.kline for taken in told] == klines
    first, *others = [taken.decision for taken in told]
    assert (first.name, others) == ("FIRST", [None, None]), "what follows from what is stored is not stored again"
    assert (first.previous_close, first.thresholds, first.client_order_id) == (None, None, "")
    assert counts(bench) == {"FIRST": 1, "HOLD": 2}


def test_a_rise_without_a_position_holds(bench):
    bench.take(*klines_of("100", "110"))
    assert counts(bench) == {"FIRST": 1, "HOLD": 1}


def test_an_order_is_decided_with_what_it_was_measured_against(bench):
    proposal = bench.buy()
    assert counts(bench) == {"FIRST": 1, "BUY": 1}
    decision = the_last(bench)
    assert (decision.name, decision.client_order_id) == ("BUY", proposal.client_order_id)
    assert (decision.close, decision.previous_close) == (Decimal(98), Decimal(100))
    assert decision.thresholds == Thresholds(Decimal(99), Decimal(101))
    assert decision.position == 0, "what was held when the message came"
    assert decision.reason == "fell 2.00 % from 100 to 98"
    assert (decision.open_time, decision.event_time) == (NOON + MINUTE_MS, proposal.event_time)


def test_what_waits_for_an_order_is_decided_behind_it(bench):
    bench.take(*klines_of(*PAIR, "97.9", "97.8"))
    assert counts(bench) == {"FIRST": 1}
    bench.take(reserved(bench.told()[-1]))
    assert counts(bench) == {"FIRST": 1, "BUY": 1, "HOLD": 2}
    assert [taken.kline.close for taken in bench.told(BRIDGE) if isinstance(taken, Taken)] == [
        Decimal(close) for close in (*PAIR, "97.9", "97.8")
    ]


@pytest.mark.parametrize("name", ["CASH", "ANY_NAME_OF_THE_PORTFOLIO"])
def test_a_refusal_of_the_portfolio_is_the_decision(bench, name):
    bench.take(*klines_of(*PAIR))
    proposal = bench.told()[-1]
    answer = Skipped(proposal.client_order_id, "BTCUSDT", Side.BUY, name, "only 5 USDT free", proposal.event_time)
    bench.take(answer, answer)
    assert counts(bench) == {"FIRST": 1, name: 1}
    decision = the_last(bench)
    assert (decision.name, decision.client_order_id) == (name, proposal.client_order_id)
    assert decision.reason == "BUY refused: only 5 USDT free (fell 2.00 % from 100 to 98)"


@pytest.mark.parametrize("step", ["reject", "not_sent", "partial", "unfinished", "lost_no_reply"])
def test_what_becomes_of_an_order_is_not_the_decisions_matter(bench, step):
    bench.exchange.plan.append(step)
    bench.buy()
    for _ in range(6):
        bench.ring(1_000)
    assert names(bench) == ["FIRST", "BUY"]
    assert counts(bench) == {"FIRST": 1, "BUY": 1}


def test_no_answer_in_time(bench):
    bench.take(*klines_of(*PAIR))
    bench.ring(5_000)
    assert counts(bench) == {"FIRST": 1, "NO_ANSWER": 1}
    assert "within 5000 ms" in the_last(bench).reason


def test_in_doubt(bench):
    bench.exchange.plan.append("executed_no_reply")
    bench.exchange.is_away = True
    first = bench.buy()
    bench.take(a_kline("90", open_time=NOON + 2 * MINUTE_MS))
    assert counts(bench) == {"FIRST": 1, "BUY": 1, "IN_DOUBT": 1}
    assert first.client_order_id in the_last(bench).reason


def test_halted(bench):
    bench.halt.reason = "by hand"
    bench.buy()
    assert counts(bench) == {"FIRST": 1, "HALTED": 1}
    assert the_last(bench).reason == "BUY refused: halted: by hand (fell 2.00 % from 100 to 98)"


def test_an_order_that_could_not_be_journaled(bench):
    def fail(intent):
        raise StoreError("orders.db: the disk is full")

    bench.take(*klines_of(*PAIR))
    proposal = bench.told()[-1]
    bench.journal.record = fail
    bench.take(reserved(proposal))
    assert counts(bench) == {"FIRST": 1, "NOT_JOURNALED": 1}
    assert bench.exchange.placed == []


def test_a_gap(journal):
    bench = Bench(journal, max_gap_ms=2 * MINUTE_MS)
    bench.take(a_kline("100"), a_kline("90", open_time=NOON + 9 * MINUTE_MS))
    assert counts(bench) == {"FIRST": 1, "GAP": 1}
    decision = the_last(bench)
    assert (decision.previous_close, decision.thresholds) == (Decimal(100), Thresholds(Decimal(99), Decimal(101)))
    assert decision.reason == "540000 ms behind the last message, more than 120000: only sets the price"


def test_stale_when_taken_and_stale_when_its_money_came(journal):
    bench = Bench(journal, max_age_ms=10_000)
    first, drop, again = klines_of(*PAIR, "96")
    bench.clock.advance(drop.event_time - NOON)
    bench.take(first, drop)
    proposal = bench.told()[-1]
    bench.clock.advance(10_001)
    bench.take(reserved(proposal))
    assert counts(bench) == {"STALE": 2}
    stale, called_off = bench.decisions()
    assert (stale.client_order_id, called_off.client_order_id) == ("", proposal.client_order_id)
    bench.clock.advance(60_000)
    bench.take(again)
    assert counts(bench) == {"STALE": 3}


def test_open_klines_where_only_closed_ones_count(journal):
    bench = Bench(journal, only_closed=True)
    bench.take(a_kline("100"), a_kline("50", open_time=NOON + MINUTE_MS, is_closed=False, event_time=NOON + MINUTE_MS))
    assert counts(bench) == {"FIRST": 1, "OPEN_KLINE": 1}
    assert names(bench) == ["FIRST"], "it follows from the stored message"


def test_in_care_the_strategy_is_not_asked(journal):
    bench = Bench(journal, in_care=True)
    bench.take(*klines_of("100", "99.9"))
    assert counts(bench) == {"QUARANTINED": 2}


def test_a_late_message_is_dropped_and_one_told_again_is_no_new_message(bench):
    older, last = klines_of("100", "99.5")
    late = a_kline("99", open_time=NOON - MINUTE_MS)
    bench.take(older, last, last, late)
    assert counts(bench) == {"FIRST": 1, "HOLD": 1, "DROPPED": 1}
    assert bench.memory.dropped == 2
    decision = the_last(bench)
    assert (decision.name, decision.open_time) == ("DROPPED", late.open_time)
    assert late not in [taken.kline for taken in bench.told(BRIDGE) if isinstance(taken, Taken)]


def test_what_was_saved_and_not_told_is_told_by_the_next_incarnation(bench):
    first, drop = klines_of(*PAIR)
    bench.context.full.add(BRIDGE)
    with pytest.raises(Exception, match="bridge"):
        bench.take(first)
    bench.restart()
    bench.take(first, drop)
    assert names(bench) == ["FIRST"]
    bench.take(reserved(bench.told()[-1]))
    assert names(bench) == ["BUY"]
    assert counts(bench) == {"FIRST": 1, "BUY": 1}


def test_nothing_is_told_of_a_message_that_was_not_counted_yet(bench):
    """Taken anew it may be decided otherwise: here the order in doubt is settled meanwhile."""

    def die(effect):
        raise Crash("before it was saved")

    bench.exchange.plan.append("executed_no_reply")
    bench.exchange.is_away = True
    bench.buy()
    bench.told(BRIDGE)
    drop = a_kline("96", open_time=NOON + 2 * MINUTE_MS)
    bench.context.run_fenced = die
    with pytest.raises(Crash):
        bench.take(drop)
    assert bench.decisions() == []
    bench.exchange.is_away = False
    bench.restart()
    assert names(bench) == ["BUY"], "told once more, as nobody knows that it was told"
    bench.take(drop)
    bench.take(reserved(bench.told()[-1]))
    assert names(bench) == ["BUY"], "and not IN_DOUBT, as the first one would have had it"
    assert counts(bench) == {"FIRST": 1, "BUY": 2}


def test_a_message_whose_handler_died_is_counted_once(bench):
    first, drop = klines_of(*PAIR)
    bench.take(first, drop)
    proposal = bench.told()[-1]
    bench.exchange.faults.countdown = 0
    with pytest.raises(BaseException, match="place, before"):
        bench.take(reserved(proposal))
    bench.restart()
    bench.take(reserved(proposal))
    assert counts(bench) == {"FIRST": 1, "BUY": 1}


def test_a_message_that_comes_again_after_a_kill_carries_the_decision_of_its_order(bench):
    first, drop = klines_of(*PAIR)
    bench.store.write([first], [])
    proposal = bench.buy()
    bench.new_process()
    bench.take(drop)
    decision = the_last(bench)
    assert (decision.name, decision.client_order_id) == ("BUY", proposal.client_order_id)
    assert (decision.previous_close, decision.position) == (None, None), "the journal does not know them"
    assert counts(bench) == {"BUY": 1}
