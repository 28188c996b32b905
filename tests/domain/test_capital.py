"""capital: cash is at most capital + the bot's realised profit - the cost of its positions. Source: contract, Size."""

from decimal import Decimal
from fractions import Fraction

import msgspec
from hypothesis import event, given, settings
from hypothesis import strategies as st

from bot.domain.filters import Refusal
from bot.domain.ledger import Ledger, Reservation
from bot.domain.market import MarketView
from bot.domain.money import multiply
from bot.domain.order import Side
from bot.domain.sizing import SizingParameters, size_order
from bot.domain.strategy import Signal
from tests.support.builders import NOON, a_fill, an_adjustment, rules_of

SYMBOLS = ("BTCUSDT", "ETHUSDT")
RULES = {symbol: rules_of(symbol, step="0.001", min_qty="0.001", min_notional="1") for symbol in SYMBOLS}


class Accounts:
    """The cost of what is held by average price, and the profit of what was sold, in exact fractions."""

    def __init__(self):
        self.held = dict.fromkeys(SYMBOLS, Fraction(0))
        self.average = dict.fromkeys(SYMBOLS, Fraction(0))
        self.profit = Fraction(0)

    @property
    def cost(self):
        return sum(self.held[s] * self.average[s] for s in SYMBOLS)

    def take_away(self, symbol, quantity):
        self.profit -= quantity * self.average[symbol]
        self.held[symbol] -= quantity

    def fill(self, fill):
        symbol, quantity, quote = fill.symbol, Fraction(fill.quantity), Fraction(fill.quote_quantity)
        if fill.side is Side.BUY:
            held = self.held[symbol]
            self.average[symbol] = (held * self.average[symbol] + quote) / (held + quantity)
            self.held[symbol] += quantity
        else:
            self.take_away(symbol, quantity)
            self.profit += quote
        if fill.commission_asset == "USDT":
            self.profit -= Fraction(fill.commission)
        elif fill.commission_asset != "BNB":
            self.take_away(symbol, Fraction(fill.commission))


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(SYMBOLS),
        st.sampled_from(["BUY", "BUY", "SELL", "lost coins", "lost cash"]),
        st.integers(20, 300),  # the close
        st.sampled_from([Decimal(1), Decimal("0.5"), Decimal(0)]),  # how much of it fills
        st.sampled_from(["received", "BNB"]),  # what the commission is taken from
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=200)
@given(EVENTS, st.sampled_from(["50", "1000", "100000"]), st.none() | st.sampled_from([Decimal(10), Decimal(500)]))
def test_cash_never_exceeds_capital_and_profit_less_what_is_held(events, wallet, bps):
    """A wallet beyond the capital is not touched, whatever is traded, lost by hand and corrected."""
    capital = Decimal(1000)
    start = min(Decimal(wallet), capital)
    ledger, accounts = Ledger(start, RULES), Accounts()
    parameters = SizingParameters(fraction=Decimal("0.6"), max_slippage_bps=bps)
    for number, (symbol, what, whole_close, part, payer) in enumerate(events, start=1):
        close = Decimal(whole_close)
        ledger.mark(symbol, close, NOON)
        position = ledger.positions[symbol].quantity
        if what == "lost coins":
            ledger.adjust(an_adjustment(-multiply(position, part), symbol=symbol, adjustment_id=str(number)))
            accounts.take_away(symbol, Fraction(multiply(position, part)))
        elif what == "lost cash":
            lost = multiply(ledger.cash, Decimal("0.1"))
            ledger.adjust(an_adjustment("0", symbol="", quote=-lost, adjustment_id=str(number)))
            accounts.profit -= Fraction(lost)
        else:
            signal = Signal(Side(what), "a test")
            sized = size_order(ledger, symbol, signal, close, NOON, parameters, MarketView())
            if isinstance(sized, Refusal):
                event(sized.name)
                continue
            name = f"bh-{number}"
            ledger.reserve(name, Reservation(symbol, signal.side, sized.quantity, sized.quote_reserved))
            assert ledger.free_cash() >= 0
            quantity = multiply(sized.quantity, part)
            if quantity:
                received = symbol.removesuffix("USDT") if what == "BUY" else "USDT"
                asset = received if payer == "received" else payer
                amount = quantity if asset == symbol.removesuffix("USDT") else multiply(quantity, close)
                worst = close if sized.limit_price is None else sized.limit_price
                fill = a_fill(what, symbol=symbol, commission_asset=asset, trade_id=number, client_order_id=name)
                values = {"price": worst, "quantity": quantity, "quote_quantity": multiply(quantity, worst)}
                commission = multiply(amount, Decimal("0.001"))
                fill = msgspec.structs.replace(fill, commission=commission, **values)
                ledger.book(fill, NOON)
                accounts.fill(fill)
            ledger.release(name)
        bound = Fraction(capital) + accounts.profit - accounts.cost
        assert Fraction(ledger.cash) <= bound
        assert Fraction(ledger.cash) == Fraction(start) + accounts.profit - accounts.cost, "to the last decimal"
        for each, own in ledger.positions.items():
            assert own.quantity == accounts.held[each]
            if own.quantity:
                assert abs(Fraction(own.average_price) - accounts.average[each]) < Fraction(1, 10**40)
