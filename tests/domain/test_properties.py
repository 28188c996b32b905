"""What holds for every filter, price and sequence of events; judged with fractions."""

import threading
from collections import Counter
from decimal import Context, Decimal, Inexact, InvalidOperation, Rounded, setcontext
from fractions import Fraction

import msgspec
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from bot.domain.adjustment import Adjustment
from bot.domain.exchange_info import rules_from_exchange_info
from bot.domain.filters import Refusal
from bot.domain.kline import is_newer
from bot.domain.ledger import Ledger, Reservation
from bot.domain.money import add, multiply
from bot.domain.order import OrderIntent, Side, trade_of
from bot.domain.order_id import client_order_id
from bot.domain.risk import RiskLimits, exit_signal
from bot.domain.scalping import Scalping
from bot.domain.sizing import SizingParameters, paper_fill, size_order
from bot.domain.strategy import Signal
from tests.support.builders import (
    MINUTE_MS,
    NOON,
    a_fill,
    a_kline,
    a_ledger,
    a_position,
    an_adjustment,
    exchange_info,
    klines_of,
    rules_of,
    symbol_info,
)


def written(digits, exponent):
    return f"{Decimal(digits).scaleb(exponent):f}"


STEPS = st.sampled_from(["0.00003", "0.00002", "0.00001", "1", "0.001", "7", "0.5", "0.00000001", "100"]) | st.builds(
    written, st.integers(1, 99), st.integers(-8, 2)
)
PRICES = st.builds(lambda d, e: Decimal(d).scaleb(e), st.integers(1, 10**10), st.integers(-18, 6))
MONEY = st.builds(lambda d, e: Decimal(d).scaleb(e), st.integers(0, 10**12), st.integers(-12, 4))
SHARES = st.builds(lambda n: Decimal(n).scaleb(-6), st.integers(1, 10**6)) | st.just(Decimal(1))
FEES = st.sampled_from([Decimal(f) for f in ("0.001", "0", "0.00075", "0.99", "0.123456789")])


@st.composite
def lots(draw, steps=STEPS):
    """(minQty, maxQty, stepSize): mostly sane, sometimes off the step, zero, or a maxQty below minQty."""
    step = Decimal(draw(steps))
    unit = (step or Decimal("0.00001")) * draw(st.sampled_from([Decimal(1), Decimal(1), Decimal("0.7")]))
    least = unit * draw(st.sampled_from([1, 1, 0, 3, 50]))
    most = unit * draw(st.sampled_from([10**6, 10**6, 0, 1000, 40, 2, Decimal("0.5")]))
    return tuple(f"{value:f}" for value in (least, most, step))


@st.composite
def sizing_case(draw):
    lot, market_lot = draw(lots()), draw(st.none() | lots(st.just("0")) | lots() | lots(st.just("0.00002")))
    notional = draw(st.sampled_from([{}, {"MIN_NOTIONAL": "10"}, {"NOTIONAL": "0.00000001"}, {"NOTIONAL": "5"}]))
    info = symbol_info(lot=lot, market_lot=market_lot, **notional)
    close = draw(PRICES | st.sampled_from([Decimal("45123.45"), Decimal("0.31415")]))
    # Near to what the filters ask for, or far from it: both sides of every bound.
    in_steps = st.integers(0, 10**6).map(lambda n: multiply(Decimal(lot[2]), Decimal(n)))
    cash = draw(MONEY | in_steps.map(lambda quantity: multiply(close, quantity)))
    position = draw(st.just(Decimal(0)) | MONEY | in_steps | in_steps.map(lambda quantity: quantity + Decimal("1E-9")))
    parameters = SizingParameters(
        fraction=draw(SHARES),
        sell_fraction=draw(SHARES),
        max_exposure=draw(SHARES | st.sampled_from([Decimal(1), Decimal(3)])),
        slippage=draw(st.sampled_from([Decimal(0), Decimal("0.0005"), Decimal("0.99")])),
        fee=draw(FEES),
    )
    return info, close, cash, position, draw(st.sampled_from([Decimal(0), Decimal("0.5")])), parameters


@settings(max_examples=600)
@given(sizing_case(), st.sampled_from([Side.BUY, Side.SELL]), st.booleans())
def test_an_order_that_leaves_sizing_is_legal_affordable_and_as_large_as_may_be(case, side, sell_all):
    info, close, cash, position, reserved, p = case
    rules = rules_from_exchange_info(exchange_info(info), ["BTCUSDT"])["BTCUSDT"]
    ledger = a_ledger(cash, rules)
    ledger.positions["BTCUSDT"] = a_position(position)
    ledger.mark("BTCUSDT", close, NOON)
    ledger.reserve("a", Reservation("BTCUSDT", Side.BUY, Decimal(1), multiply(cash, reserved)))
    outcome = size_order(ledger, "BTCUSDT", Signal(side, "t", sell_all=sell_all), close, NOON, p)

    filters = {f["filterType"]: f for f in info["filters"]}
    lots = [filters[n] for n in ("LOT_SIZE", "MARKET_LOT_SIZE") if n in filters]
    least = [Fraction(filters[n]["minNotional"]) for n in ("MIN_NOTIONAL", "NOTIONAL") if n in filters]
    c, held = Fraction(close), Fraction(position)
    equity, free = Fraction(cash) + held * c, Fraction(cash) * (1 - Fraction(reserved))
    wish, exposure = Fraction(p.fraction) * equity, Fraction(p.max_exposure) * equity - held * c
    if side is Side.BUY:
        most = max(0, min(wish, free, exposure) / (c * (1 + Fraction(p.slippage))))
    else:
        most = held * (1 if sell_all else Fraction(p.sell_fraction))
    most = min([most] + [Fraction(lot["maxQty"]) for lot in lots if Fraction(lot["maxQty"])])

    def is_legal(quantity):
        return (
            quantity > 0
            and all(quantity >= Fraction(lot["minQty"]) for lot in lots)
            and all(quantity % Fraction(lot["stepSize"]) == 0 for lot in lots if Fraction(lot["stepSize"]))
            and all(quantity * c >= bound for bound in least)
        )

    step = Fraction(rules.step_size)
    if isinstance(outcome, Refusal):
        event(f"{side} refused {outcome.name}")
        assert not is_legal(most // step * step)
        if outcome.name == "CASH":
            assert side is Side.BUY
            assert free < wish
            assert free <= exposure
        elif outcome.name == "EXPOSURE":
            assert side is Side.BUY
            assert exposure < min(wish, free)
        else:
            assert outcome.name in ("LOT_SIZE", "NOTIONAL" if "NOTIONAL" in filters else "MIN_NOTIONAL")
    else:
        event(f"{side} sized")
        quantity = Fraction(outcome.quantity)
        assert is_legal(quantity)
        assert quantity <= most < quantity + step
        paid = quantity * c * (1 + Fraction(p.slippage)) if side is Side.BUY else 0
        assert outcome.quote_reserved == paid
        assert paid <= free or side is Side.SELL


SYMBOLS = ("BTCUSDT", "ETHUSDT")
AMOUNTS = st.builds(lambda d, e: Decimal(d).scaleb(e), st.integers(1, 10**14), st.integers(-16, 0))
FILLS = st.builds(
    lambda symbol, side, quantity, price, commission, asset, trade_id, order: msgspec.structs.replace(
        a_fill(
            side,
            symbol=symbol,
            commission=commission,
            commission_asset={"base": symbol.removesuffix("USDT"), "quote": "USDT", "other": "BNB"}[asset],
            trade_id=trade_id,
            client_order_id=order,
        ),
        price=price,
        quantity=quantity,
        quote_quantity=multiply(price, quantity),
    ),
    st.sampled_from(SYMBOLS),
    st.sampled_from(["BUY", "SELL"]),
    AMOUNTS,
    AMOUNTS,
    st.sampled_from(["0", "0.00000001", "0.12345678"]),
    st.sampled_from(["base", "quote", "other"]),
    st.integers(1, 12),
    st.sampled_from("abc"),
)
ADJUSTMENTS = st.builds(
    lambda symbol, quantity, quote, name: an_adjustment(
        quantity if symbol else "0", quote=quote, price="3", symbol=symbol, adjustment_id=name
    ),
    st.sampled_from(["", *SYMBOLS]),
    st.sampled_from(["0", "-1.5", "-0.00000001", "2.25"]),
    st.sampled_from(["0", "-12.5", "-0.00000001"]),
    st.sampled_from("xyz"),
)
EVENTS = st.one_of(
    FILLS,
    ADJUSTMENTS,
    st.tuples(st.just("reserve"), st.sampled_from("abc"), AMOUNTS),
    st.tuples(st.just("release"), st.sampled_from("abc")),
    st.tuples(st.just("mark"), st.sampled_from(SYMBOLS), AMOUNTS),
)


def replayed(events):
    ledger = a_ledger("10000", rules_of("BTCUSDT"), rules_of("ETHUSDT"))
    for one in events:
        if isinstance(one, tuple):
            what, name, *amount = one
            if what == "reserve":
                ledger.reserve(name, Reservation("BTCUSDT", Side.BUY, Decimal(1), amount[0]))
            elif what == "release":
                ledger.release(name)
            else:
                ledger.mark(name, amount[0], NOON)
        elif isinstance(one, Adjustment):
            ledger.adjust(one)
        else:
            ledger.book(one, NOON)
    return ledger


@settings(max_examples=200)
@given(st.lists(EVENTS, max_size=25))
def test_money_and_coins_are_conserved_to_the_last_decimal(events):
    ledger = replayed(events)
    cash, coins, closes, reserved, seen, alone = Fraction(10000), Counter(), {}, {}, set(), Fraction(0)
    for one in events:
        if isinstance(one, tuple):
            what, name, *amount = one
            if what == "reserve":
                reserved.setdefault(name, Fraction(amount[0]))
            elif what == "release":
                reserved.pop(name, None)
            else:
                closes[name] = Fraction(amount[0])
        elif isinstance(one, Adjustment):
            if one.adjustment_id not in seen:
                seen.add(one.adjustment_id)
                coins[one.symbol] += Fraction(one.quantity)
                cash += Fraction(one.quote)
                alone += Fraction(0 if one.symbol else one.quote)
        elif (one.client_order_id, one.trade_id) not in seen:
            seen.add((one.client_order_id, one.trade_id))
            sign = 1 if one.side is Side.BUY else -1
            change = -sign * Fraction(one.price) * Fraction(one.quantity)
            coins[one.symbol] += sign * Fraction(one.quantity)
            if one.commission_asset == "USDT":
                change -= Fraction(one.commission)
            elif one.commission_asset != "BNB":
                coins[one.symbol] -= Fraction(one.commission)
            cash += change
            if one.client_order_id in reserved and change < 0:
                reserved[one.client_order_id] = max(Fraction(0), reserved[one.client_order_id] + change)
    assert Fraction(ledger.cash) == cash
    assert {s: Fraction(ledger.positions[s].quantity) for s in SYMBOLS} == {s: coins[s] for s in SYMBOLS}
    assert Fraction(ledger.free_cash()) == cash - sum(reserved.values())
    assert Fraction(ledger.equity()) == cash + sum(coins[s] * close for s, close in closes.items())
    net = sum(Fraction(ledger.positions[s].net_quote) for s in SYMBOLS)
    assert 10000 + net + alone == cash


@given(st.lists(FILLS, min_size=1, max_size=15), st.data())
def test_a_fill_told_again_changes_nothing(fills, data):
    again = list(fills)
    for _ in range(data.draw(st.integers(1, 4))):
        index = data.draw(st.integers(0, len(again) - 1))
        again.insert(data.draw(st.integers(index + 1, len(again))), again[index])
    once, twice = replayed(fills), replayed(again)
    assert (once.cash, once.positions, once.last_trade_time) == (twice.cash, twice.positions, twice.last_trade_time)


@given(
    st.lists(FILLS, max_size=12, unique_by=lambda f: (f.client_order_id, f.trade_id)).flatmap(
        lambda f: st.tuples(st.just(f), st.permutations(f))
    )
)
def test_fills_in_any_order_leave_the_same_money_and_coins(orders):
    """Two sources (reply, user stream) may tell them in any order; only an average price may depend on it."""
    one, other = (replayed(fills) for fills in orders)
    assert one.cash == other.cash
    for symbol in SYMBOLS:
        assert one.positions[symbol].quantity == other.positions[symbol].quantity
        assert one.positions[symbol].net_quote == other.positions[symbol].net_quote


def traded(messages, parameters, cash="10000"):
    """All messages through the whole domain, as every engine does it; what came out, reasons included."""
    rules = {"BTCUSDT": rules_of("BTCUSDT"), "DOGEUSDT": rules_of("DOGEUSDT", step="1", min_qty="1")}
    ledger = Ledger(Decimal(cash), rules, parameters.limits.max_daily_loss)
    rule = Scalping(buy_drop=Decimal("0.01"), sell_rise=Decimal("0.01"))
    states, last, trades, refusals = {}, {}, [], []
    for kline in messages:
        symbol = kline.symbol
        if not is_newer(kline, last.get(symbol)):
            continue
        last[symbol] = kline
        ledger.mark(symbol, kline.close, kline.event_time)
        position = ledger.positions[symbol]
        exit_first = exit_signal(parameters.limits, position, kline)
        states[symbol], signal = rule.decide(states.get(symbol, rule.initial()), kline, position)
        signal = exit_first or signal
        if signal is None:
            continue
        outcome = size_order(ledger, symbol, signal, kline.close, kline.event_time, parameters)
        if isinstance(outcome, Refusal):
            refusals.append(outcome)
            continue
        decision = client_order_id("b", "paper", symbol, signal.side, kline.open_time, kline.event_time)
        intent = OrderIntent(
            client_order_id=decision,
            symbol=symbol,
            side=signal.side,
            quantity=outcome.quantity,
            close=kline.close,
            open_time=kline.open_time,
            event_time=kline.event_time,
            reason=signal.reason,
            quote_reserved=outcome.quote_reserved,
        )
        ledger.reserve(decision, Reservation(symbol, signal.side, outcome.quantity, outcome.quote_reserved))
        fill = paper_fill(
            decision,
            len(trades) + 1,
            rules[symbol],
            signal.side,
            outcome.quantity,
            kline.close,
            kline.event_time,
            parameters,
        )
        assert ledger.free_cash() >= 0
        ledger.book(fill, kline.event_time)
        ledger.release(decision)
        assert ledger.free_cash() == ledger.cash
        trades.append(trade_of(intent, [fill], "paper", "b"))
    return trades, refusals, ledger.cash, ledger.positions, ledger.equity(), ledger.day


@st.composite
def walks(draw):
    """Messages of two symbols, several a candle, with closes of many digits that move by about a threshold."""
    prices = {"BTCUSDT": Decimal("45123.12345678"), "DOGEUSDT": Decimal("0.31234567891234567")}
    messages = []
    for i in range(draw(st.integers(2, 25))):
        symbol = draw(st.sampled_from(sorted(prices)))
        move = draw(st.sampled_from([Decimal(m) for m in ("0.99", "1.01", "0.97", "1.03", "1", "0.9901")]))
        prices[symbol] = (
            prices[symbol] if len(prices[symbol].as_tuple().digits) > 36 else multiply(prices[symbol], move)
        )
        candle = NOON + i // 3 * MINUTE_MS
        is_closed = i % 3 == 2
        event_time = candle + MINUTE_MS - 1 if is_closed else candle + i % 3 * 2000
        messages.append(
            a_kline(prices[symbol], symbol=symbol, open_time=candle, event_time=event_time, is_closed=is_closed)
        )
    return messages


RUNS = st.builds(
    SizingParameters,
    fraction=st.sampled_from([Decimal("0.3"), Decimal("0.123456789")]),
    sell_fraction=st.sampled_from([Decimal(1), Decimal("0.5")]),
    slippage=st.sampled_from([Decimal(0), Decimal("0.000512345")]),
    fee=FEES,
    limits=st.builds(
        RiskLimits,
        stop_loss=st.none() | st.just(Decimal("0.01")),
        take_profit=st.none() | st.just(Decimal("0.02")),
        cooldown_ms=st.sampled_from([0, MINUTE_MS]),
        max_daily_loss=st.none() | st.just(Decimal("0.01")),
    ),
)


@given(walks(), RUNS)
def test_the_same_messages_always_make_the_same_trades(messages, parameters):
    first = traded(messages, parameters)
    event(f"{min(len(first[0]), 3)} trades or more")
    assert traded(messages, parameters) == first
    assert len({trade.client_order_id for trade in first[0]}) == len(first[0])


@given(walks(), RUNS, st.data())
def test_duplicates_and_late_messages_change_no_trade(messages, parameters, data):
    noisy = list(messages)
    for _ in range(data.draw(st.integers(1, 5))):
        index = data.draw(st.integers(0, len(noisy) - 1))
        changed = msgspec.structs.replace(noisy[index], close=Decimal(1))
        noisy.insert(data.draw(st.integers(index + 1, len(noisy))), changed)
    assert traded(noisy, parameters) == traded(messages, parameters)


def in_a_thread(context, work):
    outcome = []

    def run():
        setcontext(context)
        outcome.append(work())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return outcome[0] if outcome else None


@pytest.mark.parametrize(
    "context",
    [
        Context(prec=2),
        Context(prec=5),
        Context(prec=5, traps=[Inexact, Rounded, InvalidOperation]),
        Context(prec=200, Emax=10, Emin=-10, traps=[]),
    ],
    ids=["2-digits", "5-digits", "5-digits-trapped", "small-exponents"],
)
@settings(max_examples=60)
@given(walks(), RUNS)
def test_a_threads_decimal_context_changes_nothing(context, messages, parameters):
    assert in_a_thread(context, lambda: traded(messages, parameters)) == traded(messages, parameters)


@pytest.mark.parametrize("prec", [5, 28, 200])
def test_the_ledger_is_exact_in_any_thread(prec):
    fill = msgspec.structs.replace(
        a_fill("BUY"), quote_quantity=Decimal("12345678901234567890.123456789012345678901234567890")
    )
    ledger = in_a_thread(Context(prec=prec), lambda: replayed([fill]))
    assert add(ledger.cash, fill.quote_quantity) == 10000


def test_thousands_of_trades_stay_exact():
    """Digits do not grow with the number of trades, so nothing ever comes near the bound where EXACT would raise."""
    closes = [Decimal("45123.12345678") * (Decimal("0.97") if i % 2 else Decimal(1)) for i in range(4000)]
    parameters = SizingParameters(slippage=Decimal("0.000512345"), sell_fraction=Decimal("0.987654321"))
    trades, _, cash, positions, _, _ = traded(klines_of(*closes), parameters)
    assert len(trades) > 2000
    exact = Fraction(10000)
    for trade in trades:
        sign = 1 if trade.side is Side.SELL else -1
        exact += sign * Fraction(trade.quote_quantity)
        exact -= Fraction(trade.commission) if trade.side is Side.SELL else 0
    assert Fraction(cash) == exact
    assert len(cash.as_tuple().digits) < 40
    assert positions["BTCUSDT"].quantity >= 0
