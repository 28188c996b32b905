"""The kept book says what a fold of the whole journal says, however what it is made of came."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from bot.domain.book import Book, third_asset_commissions
from bot.domain.position import Position, quote_change
from tests.support.builders import a_fill, an_adjustment, an_intent, rules_of

SYMBOLS = ("BTCUSDT", "ETHUSDT")
RULES = {symbol: rules_of(symbol) for symbol in SYMBOLS}
AMOUNTS = st.sampled_from(["1", "0.00000001", "2.5", "0.3"])
FILLS = st.builds(
    dict,
    side=st.sampled_from(["BUY", "SELL"]),
    quantity=AMOUNTS,
    price=st.sampled_from(["100", "0.01", "64000.5"]),
    commission=AMOUNTS,
    commission_asset=st.sampled_from([None, "BNB", "USDT"]),
)
ORDERS = st.lists(st.tuples(st.sampled_from(SYMBOLS), st.lists(FILLS, max_size=3)), max_size=6)
ADJUSTMENTS = st.lists(st.tuples(st.sampled_from(SYMBOLS), AMOUNTS), max_size=3)


@given(ORDERS, ADJUSTMENTS, st.data())
def test_pieces_in_any_order_and_more_than_once_add_up_to_the_whole(orders, adjustments, data):
    made = []
    for number, (symbol, fills) in enumerate(orders, start=1):
        name = f"bh-{number}"
        several = [
            a_fill(**fill, symbol=symbol, client_order_id=name, order_id=number, trade_id=10 * number + place)
            for place, fill in enumerate(fills)
        ]
        made.append((an_intent(client_order_id=name, symbol=symbol), number, several))
    corrections = [
        an_adjustment(f"-{amount}", symbol=symbol, quote="-1", adjustment_id=f"adj-{number}")
        for number, (symbol, amount) in enumerate(adjustments)
    ]
    book = Book(Decimal(1000), RULES)
    pieces = [(intent, number, fills[:upto]) for intent, number, fills in made for upto in range(len(fills) + 1)]
    for piece in data.draw(st.permutations([*pieces, *pieces[:3], *corrections, *corrections])):
        if isinstance(piece, tuple):
            book.take(*piece)
        else:
            book.adjust(piece)
    everything = [fill for _, _, fills in made for fill in fills]
    for symbol in SYMBOLS:
        own = [fill for fill in everything if fill.symbol == symbol]
        whole = Position().with_all(own, [one for one in corrections if one.symbol == symbol], RULES[symbol])
        assert book.positions[symbol].quantity == whole.quantity
        assert book.newest_trade_ids.get(symbol, 0) == max((fill.trade_id for fill in own), default=0)
    assert book.cash == 1000 + sum(quote_change(fill, "USDT") for fill in everything) - len(corrections)
    assert book.commissions == third_asset_commissions(everything, RULES)
    assert book.fills == {(fill.client_order_id, fill.trade_id) for fill in everything}
    assert book.orders == {(fill.symbol, fill.order_id): fill.client_order_id for fill in everything}
    assert book.order_ids == {intent.client_order_id: number for intent, number, _ in made}


def test_what_is_new_is_said():
    book, fills = Book(Decimal(0), RULES), (a_fill(trade_id=1), a_fill(trade_id=2))
    assert book.take(an_intent(), 1, fills[:1])
    assert not book.take(an_intent(), 1, fills[:1])
    assert book.take(an_intent(), 1, fills)
    assert (book.adjust(an_adjustment()), book.adjust(an_adjustment())) == (True, False)
