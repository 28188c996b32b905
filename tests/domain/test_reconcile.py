"""The book beside the account: what is explained is booked once, what is missing is found, foreign coins stay so."""

from decimal import Decimal
from itertools import count

import msgspec
import pytest
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bot.domain.account import AccountOrder, AccountTrade
from bot.domain.book import third_asset_commissions
from bot.domain.findings import (
    Accepted,
    CommissionTaken,
    ForeignChange,
    ForeignLock,
    LateFill,
    Unexplained,
    UnknownOrder,
)
from bot.domain.findings import TestnetReset as Reset
from bot.domain.ledger import Ledger
from bot.domain.order import OrderStatus, Side
from bot.domain.reconcile import AccountView, BookView, reconcile
from tests.support.builders import NOON, a_fill, rules_of

SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT")
RULES = {symbol: rules_of(symbol) for symbol in SYMBOLS}
PREFIX = "bh-abc123-"


def decimals(amounts):
    return {name: Decimal(amount) for name, amount in amounts.items()}


def a_book(positions=None, cash="1000", accepted=None, fills=(), **changes):
    """A book that knows its fills' orders; `accepted` is foreign coins by asset."""
    names = {fill.client_order_id for fill in fills} | changes.pop("known", set())
    if accepted is not None and not isinstance(accepted, Accepted):
        accepted = Accepted(foreign=decimals(accepted))
    return BookView(
        positions=dict.fromkeys(SYMBOLS, Decimal(0)) | decimals(positions or {}),
        cash=Decimal(cash),
        quote_asset="USDT",
        rules=RULES,
        order_prefix=PREFIX,
        accepted=accepted,
        orders={(fill.symbol, fill.order_id): fill.client_order_id for fill in fills},
        order_ids=dict.fromkeys(names, 0) | changes.pop("order_ids", {}),
        fills=frozenset((fill.client_order_id, fill.trade_id) for fill in fills),
        commissions=third_asset_commissions(fills, RULES),
        **changes,
    )


def an_account(balances, locked=None, **changes):
    locked = locked or {}
    both = {asset: (Decimal(free), Decimal(locked.get(asset, 0))) for asset, free in balances.items()}
    return AccountView(both, **changes)


def a_trade(fill):
    return AccountTrade(
        trade_id=fill.trade_id,
        order_id=fill.order_id,
        symbol=fill.symbol,
        price=fill.price,
        quantity=fill.quantity,
        quote_quantity=fill.quote_quantity,
        commission=fill.commission,
        commission_asset=fill.commission_asset,
        is_buyer=fill.side is Side.BUY,
        time=fill.time,
    )


def an_order(order_id, name, symbol="BTCUSDT", side="BUY"):
    return AccountOrder(
        order_id=order_id,
        client_order_id=name,
        symbol=symbol,
        side=Side(side),
        status=OrderStatus.FILLED,
        quantity=Decimal(1),
        executed_quantity=Decimal(1),
        quote_quantity=Decimal(100),
        time=NOON,
    )


def kinds(look):
    return [type(finding) for finding in look.findings]


def test_a_book_that_is_covered_says_nothing_and_the_rest_is_foreign():
    look = reconcile(a_book({"BTCUSDT": "1"}), an_account({"BTC": "3", "USDT": "1500", "SHIB": "7", "DOGE": "0"}))
    assert (look.findings, look.stops) == ((), {})
    assert look.accepted.foreign == decimals({"BTC": "2", "USDT": "500", "SHIB": "7"})
    again = reconcile(a_book({"BTCUSDT": "1"}, accepted=look.accepted), an_account({"BTC": "1", "USDT": "1000"}))
    assert kinds(again) == [ForeignChange] * 3
    assert again.accepted.foreign == {}


def test_a_surplus_is_never_the_bots():
    look = reconcile(a_book({"BTCUSDT": "1"}, accepted={}), an_account({"BTC": "5", "USDT": "9000"}))
    assert kinds(look) == [ForeignChange, ForeignChange]
    assert (look.adjustments(NOON), look.stops) == ((), {})
    change = look.findings[0]
    assert (change.asset, change.before, change.after) == ("BTC", 0, 4)
    assert "4 by deposits" in change.line


@pytest.mark.parametrize("status_known", [True, False], ids=["by the book's order id", "by the exchange's order"])
def test_a_late_fill_of_an_own_order_is_booked_first(status_known):
    name = f"{PREFIX}1"
    first = a_fill("SELL", "0.4", client_order_id=name, trade_id=1, order_id=7)
    late = a_fill("SELL", "0.6", client_order_id=name, trade_id=2, order_id=7, commission="0.5")
    book = a_book({"BTCUSDT": "1"}, accepted={}, fills=[first])
    account = an_account({"BTC": "0.4", "USDT": "1059.5"}, trades=(a_trade(first), a_trade(late)))
    if not status_known:
        book = msgspec.structs.replace(book, orders={})
        account = msgspec.structs.replace(account, orders=(an_order(7, name),))
    look = reconcile(book, account)
    assert [(f.fill, type(f)) for f in look.findings] == [(late, LateFill)]
    assert name in look.findings[0].line
    assert look.accepted == Accepted(last_trade_ids={"BTCUSDT": 2})


def test_coins_sold_by_hand_stop_their_symbol_with_the_cause():
    by_hand = a_fill("SELL", "0.7", client_order_id="web_1", trade_id=9, order_id=99)
    book = a_book({"BTCUSDT": "1", "ETHUSDT": "2"}, accepted={"BTC": "0.5"})
    account = an_account({"BTC": "0.8", "ETH": "2", "USDT": "1070"}, trades=(a_trade(by_hand),))
    look = reconcile(book, account)
    found = next(f for f in look.findings if isinstance(f, Unexplained))
    assert (found.symbol, found.asset, found.expected, found.actual) == ("BTCUSDT", "BTC", 1, Decimal("0.8"))
    assert found.line == (
        "BTCUSDT: the account holds 0.8 BTC, 0.2 less than the bot's 1, and orders that are not the bot's took 0.7 of "
        "it; see: reconcile BTCUSDT"
    )
    assert look.stops == {"BTCUSDT": found.line}
    # Until it is accepted, each look says so again, with its cause.
    again = reconcile(msgspec.structs.replace(book, accepted=look.accepted), account)
    assert again.stops == look.stops
    (adjustment,), accepted = look.accept(NOON)
    assert (adjustment.symbol, adjustment.quantity, adjustment.quote) == ("BTCUSDT", Decimal("-0.2"), 0)
    after = a_book({"BTCUSDT": "0.8", "ETHUSDT": "2"}, accepted=accepted)
    assert reconcile(after, msgspec.structs.replace(account, trades=())).findings == ()


def test_missing_quote_stops_all_entries():
    look = reconcile(a_book({"BTCUSDT": "1"}, accepted={}), an_account({"BTC": "1", "USDT": "999.99"}))
    (found,) = look.findings
    assert (found.symbol, found.asset, list(look.stops)) == ("", "USDT", [""])
    assert found.line.startswith("all entries: the account holds 999.99 USDT, 0.01 less than the bot's 1000")
    (adjustment,), _ = look.accept(NOON)
    assert (adjustment.symbol, adjustment.quantity, adjustment.quote) == ("", 0, Decimal("-0.01"))


def test_one_symbol_can_be_accepted_alone():
    book = a_book({"BTCUSDT": "1", "ETHUSDT": "2"}, accepted=Accepted(last_trade_ids={"BTCUSDT": 1, "ETHUSDT": 1}))
    trades = tuple(
        a_trade(a_fill("SELL", "1", symbol=symbol, client_order_id="web", trade_id=5)) for symbol in SYMBOLS[:2]
    )
    look = reconcile(book, an_account({"BTC": "0", "ETH": "1", "USDT": "1200"}, trades=trades))
    made, accepted = look.accept(NOON, ("ETHUSDT",))
    assert [(a.symbol, a.quantity) for a in made] == [("ETHUSDT", -1)]
    assert accepted.last_trade_ids == {"BTCUSDT": 1, "ETHUSDT": 5}
    assert look.accept(NOON)[1].last_trade_ids == {"BTCUSDT": 5, "ETHUSDT": 5}
    assert look.accepted.last_trade_ids == {"BTCUSDT": 1, "ETHUSDT": 1}


# Commissions in a third asset


def paid_in_bnb(amount, trade_id=1):
    return a_fill("BUY", "1", commission=amount, commission_asset="BNB", client_order_id=f"{PREFIX}{trade_id}")


def test_a_commission_comes_out_of_foreign_coins_first():
    book = a_book({"BTCUSDT": "1", "BNBUSDT": "2"}, "900", accepted={"BNB": "0.3"}, fills=[paid_in_bnb("0.1")])
    look = reconcile(book, an_account({"BTC": "1", "BNB": "2.2", "USDT": "900"}))
    assert kinds(look) == [ForeignChange]
    assert "-0.1 by the bot's commissions" in look.findings[0].line
    assert look.accepted == Accepted({"BNB": Decimal("0.2")}, {"BNB": Decimal("0.1")}, {})


def test_what_foreign_coins_do_not_cover_comes_out_of_the_position_once():
    fills = [paid_in_bnb("0.1")]
    book = a_book({"BTCUSDT": "1", "BNBUSDT": "2"}, "900", accepted={"BNB": "0.03"}, fills=fills)
    account = an_account({"BTC": "1", "BNB": "1.93", "USDT": "900"})
    look = reconcile(book, account)
    assert kinds(look) == [CommissionTaken, ForeignChange]
    (adjustment,) = look.adjustments(NOON)
    assert (adjustment.symbol, adjustment.quantity, adjustment.quote) == ("BNBUSDT", Decimal("-0.07"), 0)
    after = a_book({"BTCUSDT": "1", "BNBUSDT": "1.93"}, "900", accepted=look.accepted, fills=fills)
    assert reconcile(after, account).findings == ()
    # The same commission explains nothing more.
    short = reconcile(after, an_account({"BTC": "1", "BNB": "1.92", "USDT": "900"}))
    assert kinds(short) == [Unexplained]


def test_more_than_the_commission_is_unexplained_as_a_whole():
    book = a_book({"BTCUSDT": "1", "BNBUSDT": "2"}, "900", accepted={}, fills=[paid_in_bnb("0.1")])
    look = reconcile(book, an_account({"BTC": "1", "BNB": "1.89999999", "USDT": "900"}))
    assert kinds(look) == [Unexplained]
    assert look.adjustments(NOON) == ()
    assert look.accept(NOON)[1].commissions == {"BNB": Decimal("0.1")}


def test_there_is_no_other_tolerance():
    look = reconcile(a_book({"BTCUSDT": "1"}, accepted={}), an_account({"BTC": "0.99999999", "USDT": "1000"}))
    assert kinds(look) == [Unexplained]


# Unknown stays unknown


def test_a_symbol_with_an_order_of_unknown_fate_is_left_out():
    book = a_book({"BTCUSDT": "1", "ETHUSDT": "1"}, accepted={"BTC": "1"}, unresolved=frozenset({"BTCUSDT"}))
    mine = a_trade(a_fill("SELL", "1", client_order_id=f"{PREFIX}1", trade_id=5))
    look = reconcile(book, an_account({"BTC": "0", "ETH": "1", "USDT": "1", "BNB": "0"}, trades=(mine,)))
    assert look.findings == ()
    assert look.accepted == Accepted({"BTC": Decimal(1)})
    others = reconcile(book, an_account({"BTC": "0", "ETH": "0.5", "USDT": "1"}))
    assert [(type(f), f.symbol) for f in others.findings] == [(Unexplained, "ETHUSDT")]


# Other people's orders


def test_an_order_with_the_bots_mark_that_the_journal_lacks_stops_its_symbol():
    name = f"{PREFIX}strange"
    trade = a_trade(a_fill("BUY", "1", trade_id=5, order_id=50))
    account = an_account({"BTC": "1", "USDT": "1000"}, trades=(trade,), orders=(an_order(50, name),))
    look = reconcile(a_book(accepted={}), account)
    assert kinds(look) == [UnknownOrder, ForeignChange]
    assert name in look.stops["BTCUSDT"]
    assert look.accepted.last_trade_ids == {}, "asked for again until it is accepted"
    made, accepted = look.accept(NOON)
    assert made == (), "its coins stay foreign"
    assert accepted == Accepted({"BTC": Decimal(1)}, {}, {"BTCUSDT": 5})
    quiet = msgspec.structs.replace(account, trades=())
    assert reconcile(a_book(accepted=accepted), quiet).findings == ()


def test_another_order_under_the_id_of_one_of_the_bots_is_foreign_and_stops_its_symbol():
    """An id is free again once its order has ended; the exchange's own id tells the two apart."""
    own = a_fill("BUY", "1", trade_id=5, order_id=50, client_order_id=f"{PREFIX}1")
    twin = a_trade(a_fill("BUY", "2", trade_id=6, order_id=51))
    book = a_book({"BTCUSDT": "1"}, accepted={}, fills=(own,), order_ids={f"{PREFIX}1": 50})
    account = an_account({"BTC": "3", "USDT": "1000"}, trades=(twin,), orders=(an_order(51, f"{PREFIX}1"),))
    look = reconcile(book, account)
    assert kinds(look) == [UnknownOrder, ForeignChange]
    assert "order 51" in look.stops["BTCUSDT"]
    made, accepted = look.accept(NOON)
    assert (made, accepted.foreign) == ((), {"BTC": Decimal(2)})


def test_an_open_order_that_locks_the_bots_coins_is_reported():
    resting = an_order(77, "web_1", side="SELL")
    account = an_account({"BTC": "0.5", "USDT": "1000"}, {"BTC": "1"}, open_orders=(resting,))
    look = reconcile(a_book({"BTCUSDT": "1"}, accepted={"BTC": "0.5"}), account)
    (lock,) = look.findings
    assert (type(lock), lock.symbol, lock.locked, look.stops) == (ForeignLock, "BTCUSDT", Decimal("0.5"), {})
    assert "(77)" in lock.line
    covered = an_account({"BTC": "1", "USDT": "1000"}, {"BTC": "0.5"}, open_orders=(resting,))
    assert reconcile(a_book({"BTCUSDT": "1"}, accepted={"BTC": "0.5"}), covered).findings == ()


# The testnet's reset

OLD = a_fill("BUY", "1", client_order_id=f"{PREFIX}1", trade_id=500, order_id=40)
SEEN = Accepted(foreign=decimals({"BTC": "2"}), last_trade_ids={"BTCUSDT": 500})


def a_reset_account(**changes):
    values = {"denied": frozenset({f"{PREFIX}1"}), "newest_trade_ids": {}} | changes
    return an_account({"BTC": "1", "ETH": "100", "USDT": "10000"}, **values)


def test_after_a_reset_of_the_testnet_positions_are_gone_and_its_gifts_are_foreign():
    book = a_book({"BTCUSDT": "1"}, "900", accepted=SEEN, fills=[OLD], may_reset=True)
    look = reconcile(book, a_reset_account())
    (reset,) = look.findings
    assert (type(reset), reset.removed, reset.cash, look.stops) == (Reset, {"BTCUSDT": Decimal(1)}, 0, {})
    assert [(a.symbol, a.quantity, a.quote) for a in look.adjustments(NOON)] == [("BTCUSDT", -1, 0)]
    assert look.accepted.foreign == decimals({"BTC": "1", "ETH": "100", "USDT": "9100"})
    after = a_book({}, "900", accepted=look.accepted, fills=[OLD], may_reset=True)
    assert reconcile(after, a_reset_account()).findings == ()


def test_after_a_reset_the_bot_keeps_what_it_bought_since_and_no_more_cash_than_there_is():
    new = a_fill("BUY", "0.5", client_order_id=f"{PREFIX}2", trade_id=3, order_id=2)
    late = a_fill("BUY", "0.25", client_order_id=f"{PREFIX}2", trade_id=4, order_id=2)
    # Another's order has the number that an order of ours had before.
    other = a_fill("BUY", "0.1", client_order_id="web_1", trade_id=2, order_id=40)
    book = a_book({"BTCUSDT": "1.5"}, "850", accepted=SEEN, fills=[OLD, new], may_reset=True)
    account = an_account(
        {"BTC": "1.85", "USDT": "400"},
        denied=frozenset({f"{PREFIX}1"}),
        newest_trade_ids={"BTCUSDT": 4},
        trades=tuple(map(a_trade, (new, late, other))),
        orders=(an_order(2, f"{PREFIX}2"),),
    )
    look = reconcile(book, account)
    assert kinds(look) == [LateFill, Reset]
    reset = look.findings[1]
    assert (reset.removed, reset.cash) == ({"BTCUSDT": Decimal(1)}, -425)
    assert look.accepted.foreign == {"BTC": Decimal("1.1")}
    assert look.accepted.last_trade_ids == {"BTCUSDT": 4}


@pytest.mark.parametrize(
    ("book", "account"),
    [
        ({"may_reset": False}, {}),
        ({}, {"denied": frozenset()}),
        ({}, {"newest_trade_ids": {"BTCUSDT": 500}}),
        ({"accepted": None}, {}),
    ],
    ids=["not a testnet", "the exchange knows our orders", "trade ids go on", "nothing seen before"],
)
def test_it_takes_all_signs_of_a_reset(book, account):
    values = {"accepted": SEEN, "may_reset": True} | book
    look = reconcile(a_book({"BTCUSDT": "3"}, "900", fills=[OLD], **values), a_reset_account(**account))
    assert Reset not in kinds(look)
    assert "BTCUSDT" in look.stops


def test_balances_as_they_were_are_no_reset():
    book = a_book({"BTCUSDT": "1"}, "900", accepted=SEEN, fills=[OLD], may_reset=True)
    same = an_account({"BTC": "3", "USDT": "900"}, denied=frozenset({f"{PREFIX}1"}))
    assert reconcile(book, same).findings == ()


# Any life of an account

AMOUNTS = st.sampled_from([Decimal(a) for a in ("0.001", "0.01", "0.3", "1", "2.5", "0.00000001")])
PRICE = {"BTCUSDT": Decimal(100), "ETHUSDT": Decimal(20), "BNBUSDT": Decimal(10)}
FEE = Decimal("0.001")


class AccountLife(RuleBasedStateMachine):
    """One account on which the bot and its owner trade; `own` is what the bot's executions really brought."""

    def __init__(self):
        super().__init__()
        self.total = decimals({"BTC": "1", "ETH": "5", "BNB": "0.002", "USDT": "5000"})
        self.own = decimals({"BTC": "0", "ETH": "0", "BNB": "0", "USDT": "1000"})
        self.ledger = Ledger(Decimal(1000), RULES)
        self.accepted = None
        self.numbers = count(1)
        self.trades, self.orders = [], []
        self.booked, self.known, self.order_ids = [], set(), {}
        self.doubted = {}
        self.spent = Decimal(0)
        self.adjusted = set()

    def execute(self, symbol, side, quantity, name, commission_asset):
        base = symbol.removesuffix("USDT")
        quote = quantity * PRICE[symbol]
        received, amount = (base, quantity) if side == "BUY" else ("USDT", quote)
        paid = (amount * FEE).quantize(Decimal("1E-8"))
        if commission_asset == "BNB" and "BNB" not in (base, "USDT") and self.total["BNB"] >= paid:
            received = "BNB"
        number = next(self.numbers)
        fill = a_fill(
            side,
            quantity,
            PRICE[symbol],
            symbol=symbol,
            commission=paid,
            commission_asset=received,
            trade_id=number,
            order_id=self.orders[-1].order_id,
            client_order_id=name,
        )
        sign = 1 if side == "BUY" else -1
        changes = [(base, sign * quantity), ("USDT", -sign * quote), (received, -paid)]
        for asset, change in changes:
            self.total[asset] += change
        self.trades.append(a_trade(fill))
        return fill, changes

    def order(self, symbol, side, quantities, name, commission_asset):
        self.orders.append(an_order(next(self.numbers), name, symbol, side))
        fills = []
        for quantity in quantities:
            fill, changes = self.execute(symbol, side, quantity, name, commission_asset)
            fills.append(fill)
            if name.startswith(PREFIX):
                for asset, change in changes[:2]:
                    self.own[asset] += change
                if fill.commission_asset in (changes[0][0], "USDT"):
                    self.own[fill.commission_asset] -= fill.commission
                else:
                    self.spent += fill.commission
        return fills

    @rule(
        symbol=st.sampled_from(SYMBOLS),
        side=st.sampled_from(["BUY", "SELL"]),
        quantities=st.lists(AMOUNTS, min_size=1, max_size=3),
        told=st.integers(0, 3),
        asset=st.sampled_from(["", "BNB"]),
        doubted=st.booleans(),
    )
    def bot_order(self, symbol, side, quantities, told, asset, doubted):
        """Some fills are told at once, others late; or nothing is known of the order."""
        if symbol in self.doubted:
            return
        base, wanted = symbol.removesuffix("USDT"), sum(quantities)
        if side == "BUY":
            if wanted * PRICE[symbol] > min(self.own["USDT"], self.ledger.cash, self.total["USDT"]):
                return
        elif wanted > min(self.own[base], self.ledger.positions[symbol].quantity, self.total[base]):
            return
        name = f"{PREFIX}{next(self.numbers)}"
        self.known.add(name)
        fills = self.order(symbol, side, quantities, name, asset)
        if doubted and told == 0:
            self.doubted[symbol] = fills
            return
        self.order_ids[symbol, fills[0].order_id] = name
        for fill in fills[:told]:
            self.book(fill)

    def book(self, fill):
        assert self.ledger.book(fill, NOON), "explained twice"
        self.booked.append(fill)

    @precondition(lambda self: self.doubted)
    @rule(data=st.data())
    def resolve(self, data):
        fills = self.doubted.pop(data.draw(st.sampled_from(sorted(self.doubted))))
        self.order_ids[fills[0].symbol, fills[0].order_id] = fills[0].client_order_id
        for fill in fills:
            self.book(fill)

    def others(self, asset, honest):
        """How much the owner may move: his own coins, or the bot's too."""
        return self.total[asset] if not honest else max(Decimal(0), self.total[asset] - self.own[asset])

    @rule(
        symbol=st.sampled_from(SYMBOLS),
        side=st.sampled_from(["BUY", "SELL"]),
        quantity=AMOUNTS,
        asset=st.sampled_from(["", "BNB"]),
        honest=st.sampled_from([True, True, True, False]),
    )
    def foreign_order(self, symbol, side, quantity, asset, honest):
        base = symbol.removesuffix("USDT")
        gives, amount = ("USDT", quantity * PRICE[symbol]) if side == "BUY" else (base, quantity)
        # His own commission in BNB must be his too.
        asset = asset if self.others("BNB", honest) > amount else ""
        if amount <= self.others(gives, honest):
            self.order(symbol, side, [quantity], f"web_{next(self.numbers)}", asset)

    @rule(asset=st.sampled_from(["BTC", "ETH", "BNB", "USDT"]), amount=AMOUNTS)
    def deposit(self, asset, amount):
        # Little of it, so that commissions soon reach the bot's own.
        self.total[asset] += amount / 1000 if asset == "BNB" else amount

    @rule(
        asset=st.sampled_from(["BTC", "ETH", "BNB", "USDT"]),
        part=st.sampled_from([Decimal("0.1"), Decimal("0.5"), Decimal(1)]),
        honest=st.sampled_from([True, True, True, False]),
    )
    def withdrawal(self, asset, part, honest):
        self.total[asset] -= self.others(asset, honest) * part

    def views(self):
        last = self.accepted.last_trade_ids if self.accepted else {}
        book = BookView(
            positions={symbol: position.quantity for symbol, position in self.ledger.positions.items()},
            cash=self.ledger.cash,
            quote_asset="USDT",
            rules=RULES,
            order_prefix=PREFIX,
            accepted=self.accepted,
            unresolved=frozenset(self.doubted),
            orders=self.order_ids,
            order_ids=dict.fromkeys(self.known, 0),
            fills=frozenset((fill.client_order_id, fill.trade_id) for fill in self.booked),
            commissions=third_asset_commissions(self.booked, RULES),
        )
        trades = [t for t in self.trades if t.trade_id > last.get(t.symbol, 0)]
        # The pages of an answer may overlap; of old orders only the book knows whose they are.
        account = AccountView(
            {asset: (total, Decimal(0)) for asset, total in self.total.items()},
            orders=tuple(self.orders[-4:]),
            trades=(*trades, *trades[-3:]),
        )
        return book, account

    def buy_bnb(self):
        name = f"{PREFIX}{next(self.numbers)}"
        self.known.add(name)
        (fill,) = self.order("BNBUSDT", "BUY", [Decimal(1)], name, "")
        self.order_ids["BNBUSDT", fill.order_id] = name
        self.book(fill)

    @initialize()
    def first_look(self):
        self.look(accepts=False)
        self.buy_bnb()

    @rule(accepts=st.booleans())
    def look(self, accepts):
        book, account = self.views()
        look = reconcile(book, account)
        left_out = {s.removesuffix("USDT") for s in self.doubted} | ({"USDT", "BNB"} if self.doubted else set())
        # What must be found: coins that are missing and that no commission of the bot explains.
        expected, taken = {}, Decimal(0)
        for asset in self.total.keys() - left_out:
            missing = max(Decimal(0), self.own[asset]) - self.total[asset]
            if missing > (self.spent if asset == "BNB" else 0):
                expected[asset] = (self.own[asset], self.total[asset])
            elif missing > 0:
                taken = missing
        unexplained = [f for f in look.findings if isinstance(f, Unexplained)]
        assert {f.asset: (f.expected, f.actual) for f in unexplained} == expected
        assert len(unexplained) == len(expected)
        for finding in look.findings:
            event(type(finding).__name__)
            assert not isinstance(finding, Reset | UnknownOrder | ForeignLock)
            if isinstance(finding, LateFill):
                self.book(finding.fill)
        adjustments = look.adjustments(next(self.numbers))
        assert sum(-adjustment.quantity for adjustment in adjustments) == taken
        accepted = look.accepted
        if accepts:
            more, accepted = look.accept(next(self.numbers))
            adjustments += more
        for adjustment in adjustments:
            assert self.ledger.adjust(adjustment)
            asset = adjustment.symbol.removesuffix("USDT") or "USDT"
            self.own[asset] += adjustment.quantity + adjustment.quote
        self.accepted = accepted
        checked = self.total.keys() - left_out - (set() if accepts else expected.keys())
        if "BNB" in checked:
            self.spent = Decimal(0)
        for asset in checked:
            held = self.ledger.cash if asset == "USDT" else self.ledger.positions[f"{asset}USDT"].quantity
            assert held == self.own[asset]
            assert accepted.foreign.get(asset, 0) == self.total[asset] - held >= 0
        again = reconcile(*self.views())
        assert {f.asset for f in again.findings if isinstance(f, Unexplained)} == (set() if accepts else set(expected))
        assert all(isinstance(f, Unexplained) for f in again.findings)

    @invariant()
    def nobody_holds_less_than_nothing(self):
        assert all(total >= 0 for total in self.total.values())


AccountLife.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAnyLife = AccountLife.TestCase
