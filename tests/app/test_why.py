"""`why` says of any message and any order what the actors did, from the files alone."""

import json
from collections import Counter
from decimal import Decimal
from itertools import pairwise

import pytest

from bot.adapters.sqlite import SqliteJournal, SqliteStore
from bot.app.data_directory import DataDirectory, Identity
from bot.app.replay import ReplayPlan, run_replay
from bot.app.trading import RULES_NOTE, encode_rules, offline_rules
from bot.app.why import WhyError, why_moment, why_order
from bot.domain.decision import Run
from bot.domain.order import OrderReport, OrderStatus, trade_of
from bot.domain.order_id import client_order_id
from bot.domain.scalping import Scalping
from bot.domain.sizing import SizingParameters
from bot.domain.strategy import Thresholds
from bot.research.files import read_series
from bot.supervision import ActorFailed, ActorRestarted
from tests.app.test_replay import a_file
from tests.support.builders import MINUTE_MS, NOON, a_decision, a_fill, a_kline, an_intent, klines_of, rules_of

DAY_MS = 86_400_000
RULE = {"buy_drop": Decimal("0.01"), "sell_rise": Decimal("0.01")}


def a_run(start_time=NOON - 1_000, *, mode="demo", only_closed=False, **parameters):
    values = RULE | {name: Decimal(value) for name, value in parameters.items()}
    return Run(start_time, mode, "bot.domain.scalping:Scalping", values, only_closed)


def opened(close, after_ms, minute=0):
    start = NOON + minute * MINUTE_MS
    return a_kline(close, open_time=start, event_time=start + after_ms, is_closed=False)


@pytest.fixture
def book(tmp_path):
    """A claimed directory with its store and journal, as a bot that ran has it."""

    class Book:
        directory = DataDirectory(tmp_path)

        def why(self, time=None, symbol="BTCUSDT"):
            return why_moment(self.directory, symbol, time)

        def order(self, order_id):
            return why_order(self.directory, order_id)

    book = Book()
    book.directory.claim(Identity(mode="demo", exchange="simulated", account="paper", bot_id="bot"))
    with SqliteStore(book.directory.history) as book.store, SqliteJournal(book.directory.orders) as book.journal:
        book.journal.set_note(RULES_NOTE, encode_rules({"BTCUSDT": rules_of()}))
        yield book
    book.directory.release()


def names(answer):
    return [step.decision for step in answer.steps]


def closes(answer):
    return [str(step.close) for step in answer.steps]


def test_every_message_of_a_replay_is_explained_as_it_was_decided(tmp_path):
    moves = [Decimal(100), *(Decimal(m) for m in ("98.9", "97.8", "99", "100.2", "100.1", "98", "96", "95.9", "97"))]
    series = read_series([a_file(tmp_path, "BTCUSDT", moves)])
    rules = offline_rules(["BTCUSDT"], None)
    run = a_run(0, mode="replay")
    plan = ReplayPlan(
        series, rules, Scalping(**RULE), SizingParameters(max_exposure=Decimal("0.15")), Decimal(10_000), "bot", run=run
    )
    directory = DataDirectory(tmp_path / "data")
    report = run_replay(plan, directory)
    steps = [why_moment(directory, "BTCUSDT", NOON + (n + 1) * MINUTE_MS - 1).step for n in range(len(moves))]
    assert [step.close for step in steps] == moves
    said = Counter(step.decision for step in steps)
    made = Counter(trade.side.value for trade in report.trades)
    assert said == {"FIRST": 1, "HOLD": said["HOLD"], **made, **report.skipped}
    assert (made.total() > 3, len(report.skipped) > 0, said["HOLD"]) == (True, True, 2)
    for before, step in pairwise(steps):
        assert step.previous_close == before.close
        assert step.thresholds == Thresholds(before.close * Decimal("0.99"), before.close * Decimal("1.01"))
    for trade in report.trades:
        answer = why_moment(directory, "BTCUSDT", trade.time)
        assert (answer.trade, answer.order.status) == (trade, OrderStatus.FILLED)
        assert why_order(directory, trade.client_order_id).steps == answer.steps
    positions = [step.position for step in steps]
    assert (positions[0], positions[-1] > 0) == (0, True)


def test_five_messages_are_shown_around_the_last_one_before_the_moment(book):
    book.store.record_run(a_run())
    klines = [opened(str(100 + n), 1_000 * n) for n in range(1, 9)]
    book.store.write([*klines, a_kline("109")], [], [a_decision("FIRST", klines[0], previous_close=None)])
    answer = book.why(NOON + 4_900)
    assert (closes(answer), answer.index) == (["102", "103", "104", "105", "106"], 2)
    assert answer.step.event_time == NOON + 4_000
    assert (closes(book.why(NOON + 1_000)), book.why(NOON + 1_000).index) == (["101", "102", "103"], 0)
    at_the_end = book.why(NOON + MINUTE_MS)
    assert (closes(at_the_end), at_the_end.index) == (["107", "108", "109"], 2)
    assert book.why().steps == at_the_end.steps


def test_a_hold_says_between_what_it_lay_and_that_nothing_was_held(book):
    book.store.record_run(a_run())
    book.store.write(klines_of("100", "100.5", "102"), [], [a_decision("FIRST", klines_of("100")[0])])
    step = book.why(NOON + 2 * MINUTE_MS).step
    assert (step.decision, step.reason) == (
        "HOLD",
        "100.5 is above 99 (buys at or below) and below 101 (sells at or above)",
    )
    step = book.why(NOON + 3 * MINUTE_MS).step
    assert (step.decision, step.change_percent) == ("HOLD", Decimal("1.4925"))
    assert step.reason == "102 is at or above 101.505, but nothing was held that could be sold"


def test_thresholds_are_those_of_the_run_that_took_the_message(book):
    a, b, c = klines_of("100", "99.5", "99.4")
    book.store.record_run(a_run(NOON))
    book.store.record_run(a_run(c.event_time - 1_000, buy_drop="0.05", sell_rise="0.2"))
    book.store.write([a, b, c], [])
    assert book.why(b.event_time).step.thresholds == Thresholds(Decimal("99"), Decimal("101"))
    answer = book.why(c.event_time)
    assert answer.step.thresholds == Thresholds(Decimal("94.525"), Decimal("119.4"))
    assert answer.starts == (c.event_time - 1_000,)


def test_where_only_closed_klines_count_open_ones_are_shown_and_compared_with_nothing(book):
    book.store.record_run(a_run(only_closed=True))
    first, drop = klines_of("100", "99.5")
    book.store.write([first, opened("50", 5_000, minute=1), drop], [])
    answer = book.why(drop.event_time)
    assert names(answer)[1:] == ["OPEN_KLINE", "HOLD"]
    assert answer.step.previous_close == 100


def test_a_refusal_is_found_by_time_and_by_its_id_also_once_its_open_kline_is_gone(book):
    book.store.record_run(a_run())
    first, drop = a_kline("100"), opened("98", 700, minute=1)
    refusal = a_decision("CASH", drop, client_order_id="bh-no", reason="BUY refused: only 5 USDT free")
    book.store.write([first, drop, a_kline("98.1", open_time=NOON + MINUTE_MS)], [], [refusal])
    for _ in range(2):
        for answer in (book.order("bh-no"), book.why(drop.event_time)):
            step = answer.step
            assert (step.decision, step.reason, step.close) == ("CASH", "BUY refused: only 5 USDT free", Decimal(98))
            assert (step.client_order_id, answer.order) == ("bh-no", None)
        book.store.prune(NOON + 5 * MINUTE_MS, 0)


def test_an_order_comes_with_its_fills_and_its_trade(book):
    book.store.record_run(a_run())
    first, drop = klines_of("100", "98")
    intent = an_intent(client_order_id="bh-1", kline=drop, close="98")
    fills = tuple(a_fill("BUY", "0.5", "98", client_order_id="bh-1", trade_id=n, commission="0.0005") for n in (1, 2))
    book.journal.record(intent)
    decision = a_decision("BUY", drop, client_order_id="bh-1", time=drop.event_time + 3)
    trade = trade_of(intent, fills, "demo", "bot")
    book.store.write([first, drop], [trade], [decision])
    assert book.order("bh-1").order.status is OrderStatus.RECORDED, "its fate may be unknown still"
    book.journal.settle(OrderReport("bh-1", 7, "BTCUSDT", OrderStatus.FILLED, fills))
    after = a_kline("98.5", open_time=NOON + 2 * MINUTE_MS)
    book.store.write([after], [])
    answer = book.order("bh-1")
    assert (answer.order.fills, answer.trade) == (fills, trade)
    assert [step.position for step in answer.steps][1:] == [0, Decimal("0.999")], "held once it was bought"
    told = json.loads(json.dumps(answer.as_json()))
    assert (told["order"]["status"], told["order"]["fills"][1]["commission"]) == ("FILLED", "0.0005")
    assert (told["message"]["decision"], told["order"]["trade"]["quantity"]) == ("BUY", "1")


@pytest.mark.parametrize("is_flattened", [False, True])
def test_what_was_held_between_two_decisions_counts_orders_that_no_message_made(book, is_flattened):
    book.store.record_run(a_run())
    first, drop, hold, late = klines_of("100", "98", "98.1", "96")
    held = "0" if is_flattened else "0.999"

    def ordered(order_id, side, kline, quantity, commission, trade_id):
        book.journal.record(an_intent(side, client_order_id=order_id, kline=kline, close="98"))
        fill = a_fill(side, quantity, "98", client_order_id=order_id, trade_id=trade_id, commission=commission)
        book.journal.settle(OrderReport(order_id, trade_id, "BTCUSDT", OrderStatus.FILLED, (fill,)))

    ordered("bh-1", "BUY", drop, "1", "0.001", 1)
    if is_flattened:
        ordered("bh-flatten", "SELL", drop, "0.999", "0", 2)
    refused = a_decision("CASH", late, client_order_id="bh-2", position=Decimal(held))
    dropped = a_decision("DROPPED", a_kline("1", open_time=hold.open_time, is_closed=False), position=Decimal(7))
    book.store.write([first, drop, hold, late], [], [a_decision("BUY", drop, client_order_id="bh-1"), dropped, refused])
    assert book.why(hold.event_time).step.position == Decimal(held)


def test_an_order_of_before_decisions_were_stored_is_found_by_its_id_and_at_its_message(book):
    first, drop = klines_of("100", "98")
    order_id = client_order_id("bot", "demo", "BTCUSDT", "BUY", drop.open_time, drop.event_time)
    book.journal.record(an_intent(client_order_id=order_id, kline=drop, close="98"))
    book.store.write([first, drop], [])
    for answer in (book.order(order_id), book.why(drop.event_time)):
        assert (names(answer), answer.order.intent.client_order_id) == (["UNKNOWN", "BUY"], order_id)
    assert book.why(first.event_time).step.reason == "from before decisions were stored"


def test_an_order_whose_message_is_not_stored_is_shown_all_the_same(book):
    book.journal.record(an_intent(client_order_id="bh-1"))
    answer = book.order("bh-1")
    assert (answer.step, answer.steps, answer.order.intent.client_order_id) == (None, (), "bh-1")
    assert json.loads(json.dumps(answer.as_json()))["message"] is None


def test_what_follows_from_no_rule_is_not_made_up(book):
    book.store.record_run(a_run())
    book.store.write(klines_of("100", "98"), [])
    step = book.why().step
    assert (step.decision, step.reason) == ("UNKNOWN", "98 is at or below 99, but no decision is stored")


def test_old_messages_whose_open_klines_are_gone_are_compared_with_nothing(book):
    book.store.record_run(a_run(NOON - 10 * DAY_MS))
    start = NOON - 9 * DAY_MS
    book.store.write([*klines_of("100", "90", start=start), *klines_of("90", "90.1")], [])
    step = book.why(start + 2 * MINUTE_MS - 1).step
    assert (step.decision, step.previous_close, step.thresholds) == ("HOLD", None, None)
    assert "no longer stored" in step.reason
    assert book.why().step.previous_close == 90


def test_failures_of_the_actors_that_serve_the_symbol_are_told_within_a_minute(book):
    book.store.record_run(a_run(NOON - DAY_MS))
    klines = klines_of("100", "100.1")
    at = klines[0].event_time
    near = [
        ActorFailed("trader/BTCUSDT", 1, "handle", "Kline", "ValueError", at - 60_000),
        ActorRestarted("portfolio", 2, 1, 105, at + 60_000),
    ]
    far = [
        ActorFailed("trader/ETHUSDT", 1, "handle", "Kline", "ValueError", at),
        ActorFailed("feed/BTCUSDT", 1, "handle", "Kline", "ValueError", at - 60_001),
    ]
    book.store.write(klines, [], [], [*far, *near])
    answer = book.why(at)
    assert [(event.name, event.event) for event in answer.events] == [
        ("trader/BTCUSDT", "ActorFailed"),
        ("portfolio", "ActorRestarted"),
    ]


def test_a_gap_between_messages_is_marked(book):
    book.store.record_run(a_run())
    book.store.write([a_kline("100"), a_kline("100", open_time=NOON + 3 * MINUTE_MS)], [])
    first, second = book.why().steps
    assert (first.is_gap, second.is_gap, second.since_last_ms) == (False, True, 3 * MINUTE_MS)


def test_what_is_not_stored_is_refused_with_what_is(book):
    with pytest.raises(WhyError, match=r"no message of BTCUSDT is stored in .*; symbols stored: none yet"):
        book.why()
    book.store.write(klines_of("100", "101"), [])
    with pytest.raises(WhyError, match=r"no message of ETHUSDT is stored in .*; symbols stored: BTCUSDT"):
        book.why(symbol="ETHUSDT")
    span = "stored are 2021-05-19T12:00:59.999Z to 2021-05-19T12:01:59.999Z"
    for time in (NOON, NOON + 4 * MINUTE_MS):
        with pytest.raises(WhyError, match=span):
            book.why(time)
    assert book.why(NOON + 3 * MINUTE_MS).step.close == 101
    with pytest.raises(WhyError, match="no signal and no order bh-9 is stored"):
        book.order("bh-9")
