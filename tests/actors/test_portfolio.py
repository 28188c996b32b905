"""PortfolioActor: given these messages, then these messages; the money is spent once and the books survive."""

from decimal import Decimal

import msgspec
import pytest

from bot.actors import addresses
from bot.actors.cells import Cell, PortfolioMemory, TraderMemory
from bot.actors.portfolio import DAY_NOTE, START_CASH_NOTE, PortfolioActor
from bot.domain.market import MarketView
from bot.domain.order import OrderReport, OrderStatus, Side
from bot.domain.risk import DAY_MS, RiskLimits
from bot.domain.sizing import SizingParameters
from bot.domain.strategy import Signal
from bot.messages import (
    DiskSpace,
    Halt,
    Mark,
    OrderEnded,
    OrderProposal,
    Reserved,
    RulesChanged,
    Skipped,
    Taken,
)
from bot.supervision.testing import ManualClock, RecordingContext
from tests.support.builders import NOON, a_fill, a_kline, an_adjustment, an_intent, klines_of, rules_of

SYMBOLS = ("BTCUSDT", "ETHUSDT")
BTC, ETH = (addresses.trader(symbol) for symbol in SYMBOLS)


class Bench:
    def __init__(self, journal, sizing=None, cash="10000"):
        self.journal = journal
        self.sizing = sizing or SizingParameters(fraction=Decimal("0.6"))
        self.stored, self.market, self.halts = {}, {}, []
        self.epoch = 0
        journal.set_note(START_CASH_NOTE, cash)
        self.new_process()

    def new_process(self):
        self.cell = Cell(PortfolioMemory())
        self.traders = {symbol: Cell(TraderMemory()) for symbol in SYMBOLS}
        self.restart()

    def restart(self):
        self.epoch += 1
        self.context = RecordingContext(addresses.PORTFOLIO, ManualClock(NOON), self.epoch)
        rules = {symbol: rules_of(symbol) for symbol in SYMBOLS}
        args = (rules, self.journal, self.cell, self.traders, self.stored.get, self.market.get, self.halts.append)
        self.actor = PortfolioActor(self.context, self.sizing, *args)
        self.actor.started()

    def take(self, *messages):
        for message in messages:
            self.actor.handle(message)

    def told(self, to):
        sent = self.context.sent_to(to)
        self.context.sent = [(a, m) for a, m in self.context.sent if a != to]
        return sent

    def filled(self, *args, **changes):
        return settled_order(self.journal, *args, **changes)

    @property
    def wallet(self):
        return self.cell.value


def settled_order(journal, order_id, side="BUY", quantity="60", *, symbol="BTCUSDT", number=1):
    """Journal an order that was sent and filled; return the end that its trader tells."""
    intent = an_intent(side, quantity, symbol=symbol, client_order_id=order_id)
    journal.record(intent)
    ids = {"client_order_id": order_id, "trade_id": number, "order_id": number}
    fill = a_fill(side, quantity, symbol=symbol, commission="0.06", **ids)
    journal.settle(OrderReport(order_id, number, symbol, OrderStatus.FILLED, (fill,)))
    return OrderEnded(order_id, symbol, "FILLED", (fill,), intent.event_time)


def a_proposal(order_id="bh-1", symbol="BTCUSDT", side="BUY", close="100", event_time=NOON, **changes):
    return OrderProposal(order_id, symbol, Signal(Side(side), "a test", **changes), Decimal(close), event_time)


@pytest.fixture
def bench(journal):
    return Bench(journal)


def test_two_proposals_at_once_never_spend_the_same_dollar(bench):
    bench.take(a_proposal("bh-1"), a_proposal("bh-2", "ETHUSDT"))
    (first,), (second,) = bench.told(BTC), bench.told(ETH)
    assert first == Reserved("bh-1", Decimal("60.00000"), Decimal(6000))
    assert second == Reserved("bh-2", Decimal("40.00000"), Decimal(4000)), "what is left, not 60 per cent again"
    bench.take(a_proposal("bh-3"))
    (third,) = bench.told(BTC)
    assert (type(third), third.name) == (Skipped, "CASH")
    assert bench.told(addresses.MONITOR) == [third]
    assert (bench.wallet.cash, bench.wallet.free_cash) == (Decimal(10_000), Decimal(0))


def test_the_same_proposal_twice_is_one_reservation(bench):
    bench.take(a_proposal(), a_proposal())
    first, second = bench.told(BTC)
    assert first == second
    assert bench.wallet.free_cash == Decimal(4000)


def test_the_end_of_an_order_is_booked_once_and_frees_the_rest(bench):
    bench.take(a_proposal())
    ended = bench.filled("bh-1", quantity="50")
    bench.take(ended, ended)
    assert (bench.wallet.cash, bench.wallet.free_cash) == (Decimal(5000), Decimal(5000))
    bench.restart()
    bench.take(ended)
    assert (bench.wallet.cash, bench.wallet.free_cash) == (Decimal(5000), Decimal(5000))


def test_an_order_that_was_never_placed_frees_its_money(bench):
    bench.take(a_proposal(), OrderEnded("bh-1", "BTCUSDT", "NOT_PLACED", (), 0))
    assert bench.wallet.free_cash == Decimal(10_000)


def test_the_budget_follows_the_equity_at_this_moment(bench):
    bench.take(bench.filled("bh-1"))
    bench.take(Mark("BTCUSDT", Decimal(200), NOON), a_proposal("bh-2", "ETHUSDT"))
    # 4000 cash and 59.94 at 200; six tenths of it is more than the cash.
    assert bench.told(ETH)[0].quote_reserved == Decimal(4000)
    bench.take(OrderEnded("bh-2", "ETHUSDT", "NOT_PLACED", (), 0))
    bench.take(Mark("BTCUSDT", Decimal(10), NOON), a_proposal("bh-3", "ETHUSDT"))
    assert bench.told(ETH)[0].quantity == Decimal("27.59640")


def test_a_sale_needs_no_money_and_takes_the_whole_position(bench):
    bench.take(bench.filled("bh-1"), a_proposal("bh-2", side="SELL", close="110"))
    assert bench.told(BTC) == [Reserved("bh-2", Decimal("59.94000"), Decimal(0))]


# Restart


def test_a_reservation_whose_answer_is_on_the_way_survives_the_actor(bench):
    """The trader has not journaled it yet: only the portfolio's own memory knows that the money is not free."""
    bench.take(a_proposal("bh-1"))
    bench.restart()
    assert bench.wallet.free_cash == Decimal(4000)
    bench.take(a_proposal("bh-2", "ETHUSDT"))
    assert bench.told(ETH)[0].quote_reserved == Decimal(4000)
    bench.take(a_proposal("bh-1"))
    assert bench.told(BTC)[0].quote_reserved == Decimal(6000), "the proposal made again gets the same answer"


def test_an_intent_of_unknown_fate_keeps_its_money_over_the_process(bench):
    intent = an_intent(client_order_id="bh-1", quantity="60")
    bench.journal.record(msgspec.structs.replace(intent, quote_reserved=Decimal(6000)))
    bench.new_process()
    assert (bench.wallet.cash, bench.wallet.free_cash) == (Decimal(10_000), Decimal(4000))


def test_a_reservation_whose_order_has_ended_meanwhile_is_not_kept(bench):
    bench.take(a_proposal("bh-1"))
    bench.filled("bh-1", quantity="50")
    bench.restart()
    assert (bench.wallet.cash, bench.wallet.free_cash) == (Decimal(5000), Decimal(5000))


def test_an_order_that_is_settled_between_two_looks_is_neither_lost_nor_booked_twice(bench):
    bench.take(a_proposal("bh-1"))
    journal, ended = bench.journal, []

    class Racing:
        """Settles between the first and the second look, whichever comes first."""

        def __getattr__(self, name):
            found = getattr(journal, name)
            if name not in {"settled", "unresolved"}:
                return found

            def look(*args):
                seen = found(*args)
                if not ended:
                    ended.append(settled_order(journal, "bh-1", quantity="50"))
                return seen

            return look

    bench.journal = Racing()
    bench.restart()
    bench.take(*ended)
    assert (bench.wallet.cash, bench.wallet.free_cash) == (Decimal(5000), Decimal(5000))


def test_a_process_rebuilds_cash_positions_and_marks(bench):
    bench.filled("bh-1")
    bench.filled("bh-2", "SELL", "9", number=2)
    bench.stored["BTCUSDT"] = a_kline("150")
    bench.new_process()
    # 10000 - 6000 + 900 - 0.06 of commission; 60 - 0.06 - 9 coins.
    assert bench.wallet.cash == Decimal("4899.94")
    bench.take(a_proposal("bh-3", "ETHUSDT"))
    assert bench.told(ETH)[0].quote_reserved == Decimal("4899.94").quantize(Decimal("0.001"), "ROUND_DOWN")
    bench.take(a_proposal("bh-4", side="SELL", close="150"))
    assert bench.told(BTC)[0].quantity == Decimal("50.94000")


def test_an_adjustment_is_booked_once_whether_told_or_read(bench):
    bench.filled("bh-1")
    bench.new_process()
    sold_by_hand = an_adjustment("-10", quote="-5")
    bench.journal.adjust(sold_by_hand)
    bench.take(sold_by_hand, sold_by_hand)
    assert bench.wallet.cash == Decimal(3995)
    bench.restart()
    bench.take(sold_by_hand, a_proposal("bh-2", side="SELL"))
    assert (bench.wallet.cash, bench.told(BTC)[0].quantity) == (Decimal(3995), Decimal("49.94000"))


def test_a_late_fill_of_an_ended_order_is_booked_whether_told_or_read(bench):
    ended = bench.filled("bh-1", quantity="50")
    bench.new_process()
    late = a_fill("BUY", "2", client_order_id="bh-1", trade_id=2)
    assert bench.journal.amend("bh-1", [late]) == (late,)
    bench.take(msgspec.structs.replace(ended, fills=(*ended.fills, late)))
    assert (bench.wallet.cash, bench.wallet.free_cash) == (Decimal(4800), Decimal(4800))
    bench.new_process()
    assert bench.wallet.cash == Decimal(4800)


def test_a_reset_of_the_testnet_may_count_trade_ids_anew(bench):
    bench.filled("bh-1", quantity="10")
    intent = an_intent("BUY", "10", client_order_id="bh-2")
    bench.journal.record(intent)
    fill = a_fill("BUY", "10", client_order_id="bh-2", time=NOON + 1)
    bench.journal.settle(OrderReport("bh-2", 1, "BTCUSDT", OrderStatus.FILLED, (fill,)))
    bench.new_process()
    assert bench.wallet.cash == Decimal(8000)


def test_new_rules_count_from_the_next_proposal(bench):
    bench.take(RulesChanged((rules_of("BTCUSDT", step="7"),)), a_proposal())
    assert bench.told(BTC)[0].quantity == Decimal(56)


def test_a_trader_knows_the_last_close_better_than_the_store(bench):
    bench.filled("bh-1")
    bench.stored["BTCUSDT"] = a_kline("1000000")
    bench.traders["BTCUSDT"].value = TraderMemory(close=Decimal(10))
    bench.restart()
    bench.take(a_proposal("bh-2", "ETHUSDT"))
    assert bench.told(ETH)[0].quantity == Decimal("27.59640")


def test_the_cooldown_goes_on_over_a_restart(journal):
    sizing = SizingParameters(limits=RiskLimits(cooldown_ms=60_000))
    bench = Bench(journal, sizing)
    traded_at = bench.filled("bh-1", quantity="1").event_time
    bench.new_process()
    bench.take(a_proposal("bh-2", event_time=traded_at + 59_999), a_proposal("bh-3", event_time=traded_at + 60_000))
    assert [getattr(m, "name", "reserved") for m in bench.told(BTC)] == ["COOLDOWN", "reserved"]


def test_a_journal_without_a_starting_cash_is_refused(journal):
    context = RecordingContext(addresses.PORTFOLIO)
    nothing = {}.get
    actor = PortfolioActor(
        context, SizingParameters(), {}, journal, Cell(PortfolioMemory()), {}, nothing, nothing, print
    )
    with pytest.raises(ValueError, match="starting cash"):
        actor.started()


# Limits


def test_without_disk_space_nothing_is_bought_and_everything_is_sold(bench):
    bench.take(bench.filled("bh-1", quantity="10"), DiskSpace(1, is_low=True))
    bench.take(a_proposal("bh-2"), a_proposal("bh-3", side="SELL"))
    refused, sold = bench.told(BTC)
    assert (refused.name, type(sold)) == ("DISK_LOW", Reserved)
    bench.restart()
    bench.take(a_proposal("bh-4"))
    assert bench.told(BTC)[0].name == "DISK_LOW", "a restart does not forget it"
    bench.take(DiskSpace(10**10, is_low=False), a_proposal("bh-5"))
    assert isinstance(bench.told(BTC)[0], Reserved)


@pytest.mark.parametrize("process", [False, True], ids=["actor", "process"])
def test_a_day_that_lost_too_much_buys_no_more_until_the_next_also_over_a_restart(journal, process):
    bench = Bench(journal, SizingParameters(limits=RiskLimits(max_daily_loss=Decimal("0.05"))))
    bench.take(Mark("BTCUSDT", Decimal(100), NOON), bench.filled("bh-1", quantity="50"))
    bench.take(Mark("BTCUSDT", Decimal(80), NOON + 1))
    bench.take(Mark("BTCUSDT", Decimal(120), NOON + 2))
    bench.stored["BTCUSDT"] = a_kline("100")
    (bench.new_process if process else bench.restart)()
    assert bench.journal.get_note(DAY_NOTE) is not None
    bench.take(a_proposal("bh-2", event_time=NOON + 3), a_proposal("bh-3", side="SELL", event_time=NOON + 3))
    refused, sold = bench.told(BTC)
    assert (refused.name, type(sold)) == ("DAILY_LOSS", Reserved)
    bench.take(OrderEnded("bh-3", "BTCUSDT", "NOT_PLACED", (), 0), a_proposal("bh-4", event_time=NOON + DAY_MS))
    assert isinstance(bench.told(BTC)[0], Reserved)


@pytest.mark.parametrize("capital", ["500", "20000"])
def test_capital_that_is_changed_within_a_day_is_neither_loss_nor_gain_of_that_day(journal, capital):
    bench = Bench(journal, SizingParameters(limits=RiskLimits(max_daily_loss=Decimal("0.05"))))
    bench.take(Mark("BTCUSDT", Decimal(100), NOON))
    bench.journal.set_note(START_CASH_NOTE, capital)
    bench.new_process()
    bench.take(a_proposal("bh-1", event_time=NOON + 1), OrderEnded("bh-1", "BTCUSDT", "NOT_PLACED", (), 0))
    assert isinstance(bench.told(BTC)[0], Reserved)
    # A tenth of the new capital is held, and loses more than half.
    held = Decimal(capital) / 1000
    bench.take(bench.filled("bh-2", quantity=str(held)), Mark("BTCUSDT", Decimal(45), NOON + 2))
    bench.take(a_proposal("bh-3", event_time=NOON + 3))
    assert bench.told(BTC)[-1].name == "DAILY_LOSS"


def test_a_day_that_was_noted_before_capital_was_kept_with_it_goes_on(journal):
    journal.set_note(DAY_NOTE, f'{{"number":{NOON // DAY_MS},"start_equity":"20000","lost":false}}')
    bench = Bench(journal, SizingParameters(limits=RiskLimits(max_daily_loss=Decimal("0.05"))))
    bench.take(Mark("BTCUSDT", Decimal(100), NOON))
    assert bench.cell.value.day.lost


def test_a_fenced_incarnation_gives_no_money(bench):
    bench.context.end_epoch()
    with pytest.raises(Exception, match="is over"):
        bench.take(a_proposal())
    assert bench.wallet.free_cash == Decimal(10_000)


# An exchange


MIDDLE = {"bid": Decimal(99), "ask": Decimal(101), "average_price": Decimal(100), "as_of_ms": NOON}


def an_exchange_bench(journal, *, bps=None, **limits):
    sizing = SizingParameters(limits=RiskLimits(**limits), max_slippage_bps=None if bps is None else Decimal(bps))
    bench = Bench(journal, sizing)
    bench.market["BTCUSDT"] = MarketView(**MIDDLE)
    return bench


def test_a_limit_price_goes_with_the_money_and_outlives_the_actor_and_the_process(journal):
    bench = an_exchange_bench(journal, bps=100)
    bench.take(a_proposal())
    (first,) = bench.told(BTC)
    assert first == Reserved("bh-1", Decimal(10), Decimal(1010), Decimal(101))
    bench.restart()
    bench.take(a_proposal())
    assert bench.told(BTC) == [first]
    intent = msgspec.structs.replace(an_intent(quantity="10"), quote_reserved=Decimal(1010), limit_price=Decimal(101))
    journal.record(intent)
    bench.new_process()
    assert bench.wallet.free_cash == Decimal(8990)
    bench.take(a_proposal())
    assert bench.told(BTC) == [first]


def test_a_book_that_is_too_old_by_the_bots_clock_stops_entries(journal):
    bench = an_exchange_bench(journal, max_price_deviation=Decimal("0.05"))
    bench.context.clock.advance(15_000)
    bench.take(a_proposal("bh-1"))
    bench.context.clock.advance(1)
    bench.take(a_proposal("bh-2"))
    sent, refused = bench.told(BTC)
    assert (type(sent), refused.name) == (Reserved, "PRICE")


@pytest.mark.parametrize("again", ["", "restart", "new_process"])
def test_orders_of_a_minute_of_event_time_are_counted_over_restarts(journal, again):
    bench = an_exchange_bench(journal, max_orders_per_minute=2)
    for n, order_id in enumerate(("bh-1", "bh-2")):
        kline = a_kline(open_time=NOON + n * 1_000 - 59_999)
        journal.record(an_intent(client_order_id=order_id, kline=kline, quantity="1"))
        bench.take(a_proposal(order_id, event_time=kline.event_time))
    if again:
        getattr(bench, again)()
    bench.told(BTC)
    for n, time in enumerate((NOON + 1_001, NOON + 59_999, NOON + 60_000, NOON + 60_001)):
        bench.take(a_proposal(f"bh-{n + 3}", event_time=time, close="100"))
    assert [getattr(m, "name", "sent") for m in bench.told(BTC)] == ["ORDER_RATE", "ORDER_RATE", "sent", "ORDER_RATE"]


def test_new_rules_outlive_the_actor(bench):
    bench.take(RulesChanged((rules_of("BTCUSDT", step="7"),)))
    bench.restart()
    bench.take(a_proposal())
    assert bench.told(BTC)[0].quantity == Decimal(56)


def test_a_market_that_closes_while_the_bot_runs_stops_its_symbol_alone(bench):
    bench.market = dict.fromkeys(SYMBOLS, MarketView())
    bench.restart()
    closed = msgspec.structs.replace(rules_of("BTCUSDT"), status="HALT")
    bench.take(RulesChanged((closed,)), a_proposal("bh-1"), a_proposal("bh-2", "ETHUSDT"))
    assert bench.told(BTC)[0].name == "MARKET_CLOSED"
    assert isinstance(bench.told(ETH)[0], Reserved)
    bench.take(RulesChanged((rules_of("BTCUSDT"),)), a_proposal("bh-3"))
    assert isinstance(bench.told(BTC)[0], Reserved)


# The kill switch


def test_the_kill_switch_is_a_message_that_overtakes_all_others(new_pump):
    """Between a proposal's answer and its order, and before every later one: nothing leaves."""
    pump = new_pump(symbols=SYMBOLS)
    for kline in klines_of("100", "98"):
        pump.kline(kline)
    pump.step(BTC)
    pump.step(BTC)
    assert pump.step(addresses.PORTFOLIO), "the first message's mark"
    pump.step(addresses.PORTFOLIO)
    assert [type(message) for message in pump.nodes[BTC].control] == [Reserved], "all but sent"
    pump.route(addresses.PORTFOLIO, Halt("a person said so"))
    pump.step(addresses.PORTFOLIO)
    for kline in klines_of("100", "98", "96", symbol="ETHUSDT"):
        pump.kline(kline)
    pump.run()
    assert pump.exchange.placed == []
    decided = [taken.decision.name for taken in pump.to_bridge if isinstance(taken, Taken) and taken.decision]
    assert decided == ["FIRST", "HALTED", "FIRST", "HALTED", "HALTED"]
    assert any(
        "halted, no order leaves until `resume`: a person said so" in getattr(m, "text", "") for m in pump.to_monitor
    )
    assert pump.wallet.value.free_cash == 10000, "what was set aside is free again"


def test_the_kill_switch_goes_before_what_waits(new_pump):
    pump = new_pump()
    for kline in klines_of("100", "98"):
        pump.kline(kline)
    pump.step(BTC)
    pump.step(BTC)
    pump.route(addresses.PORTFOLIO, Halt("now"))
    pump.step(addresses.PORTFOLIO)
    assert pump.halt.reason == "now", "two messages were before it"


def test_a_new_day_and_what_belongs_together_are_there_to_be_seen_at_once(journal):
    bench = Bench(journal)
    bench.take(Mark("BTCUSDT", Decimal(100), NOON))
    assert bench.cell.value.day.start_equity == Decimal(10000)
    fill = a_fill(client_order_id="bh-1")
    bench.take(OrderEnded("bh-1", "BTCUSDT", "FILLED", (fill,), NOON))
    memory = bench.cell.value
    assert memory.positions == {symbol: p.quantity for symbol, p in bench.actor._ledger.positions.items()}
    assert memory.positions["BTCUSDT"] > 0
    bench.take(Mark("BTCUSDT", Decimal(200), NOON + DAY_MS))
    assert bench.cell.value.day.number == (NOON + DAY_MS) // DAY_MS
