"""The judge: section 1 of the contract a second time, for history, with fractions and plain loops.

Written from contract.md alone; it imports nothing of `bot` and must never do so. Slow on purpose:
nothing is kept that can be computed again. Where the contract leaves a choice, a comment beginning
`Reading:` says which one was made.
"""

from fractions import Fraction
from math import gcd, lcm


def run(
    series,
    rules,
    cash,
    fee,
    fraction,
    sell_fraction,
    buy_drop,
    sell_rise,
    max_exposure,
    slippage,
    stop_loss=None,
    take_profit=None,
    cooldown_s=0,
):
    """Return the object of `backtest --json`, its numbers as Fraction.

    `series` is a list of (symbol, rows), a row (open_time, close_time, close) with times in ms; `rules` is an object of
    Binance's exchangeInfo ("symbols": [...]). Fractions and money may be text, int or Decimal.
    """
    cash, fee, fraction, sell_fraction = Fraction(cash), Fraction(fee), Fraction(fraction), Fraction(sell_fraction)
    buy_drop, sell_rise = Fraction(buy_drop), Fraction(sell_rise)
    max_exposure, slippage = Fraction(max_exposure), Fraction(slippage)
    entries = {entry["symbol"]: entry for entry in rules["symbols"]}
    symbols, messages, dropped = messages_of(series)

    positions = {symbol: Fraction(0) for symbol in symbols}
    averages = {}  # what the coins held cost, each symbol's
    last_close = {}
    previous_close = {}
    last_open_time = {}
    last_trade_time = {}
    trades, skipped, bars = [], {}, 0

    def equity_now():
        return cash + sum(positions[s] * last_close[s] for s in symbols if s in last_close)

    for symbol, open_time, close_time, c in messages:
        if symbol in last_open_time and open_time <= last_open_time[symbol]:
            dropped += 1
            continue
        bars += 1
        last_open_time[symbol] = open_time
        p = previous_close.get(symbol)
        previous_close[symbol] = last_close[symbol] = c
        limits = Limits(entries[symbol])
        held = positions[symbol]

        side, sell_all = None, False
        average = averages.get(symbol)
        if held > 0 and (
            (stop_loss is not None and c <= average * (1 - Fraction(stop_loss)))
            or (take_profit is not None and c >= average * (1 + Fraction(take_profit)))
        ):
            side, sell_all = "SELL", True
        elif p is not None and c <= p * (1 - buy_drop):
            side = "BUY"
        elif p is not None and held > 0 and c >= p * (1 + sell_rise):
            side = "SELL"
        if side is None:
            continue

        if side == "BUY":
            # Reading: a trade of the same symbol; at exactly `cooldown` seconds the pause is over; the name is ours.
            if symbol in last_trade_time and close_time - last_trade_time[symbol] < cooldown_s * 1000:
                skipped["COOLDOWN"] = skipped.get("COOLDOWN", 0) + 1
                continue
            equity = equity_now()
            wish = fraction * equity
            exposure_left = max_exposure * equity - held * c
            quantity = limits.floor(min(wish, cash, exposure_left) / (c * (1 + slippage)))
            broken = limits.broken(quantity, c)
            if broken is not None:
                if cash < wish and cash <= exposure_left:
                    broken = "CASH"
                elif exposure_left < wish and exposure_left < cash:
                    # Reading: "the smallest" is smaller than both others.
                    broken = "EXPOSURE"
        else:
            quantity = limits.floor(held if sell_all else sell_fraction * held)
            broken = limits.broken(quantity, c)
        if broken is not None:
            skipped[broken] = skipped.get(broken, 0) + 1
            continue

        if side == "BUY":
            price = c * (1 + slippage)
            quote = quantity * price
            commission, asset = ceil8(quantity * fee), entries[symbol]["baseAsset"]
            # Reading: the coins held count as held (after commission), the new ones as bought (before it).
            averages[symbol] = ((average * held if held else 0) + quote) / (held + quantity)
            positions[symbol] = held + quantity - commission
            cash -= quote
        else:
            price = c * (1 - slippage)
            quote = quantity * price
            commission, asset = ceil8(quote * fee), entries[symbol]["quoteAsset"]
            positions[symbol] = held - quantity
            cash += quote - commission
        last_trade_time[symbol] = close_time
        trades.append(
            {
                "symbol": symbol,
                "side": side,
                "time": close_time,
                "price": written_price(quote / quantity),
                "quantity": quantity,
                "quote_quantity": quote,
                "commission": commission,
                "commission_asset": asset,
            }
        )
    return {
        "bars": bars,
        "dropped": dropped,
        "symbols": symbols,
        "cash": cash,
        "positions": positions,
        "equity": equity_now(),
        "skipped": skipped,
        "trades": trades,
    }


def messages_of(series):
    """Return (symbols as first given, messages in their order, rows dropped for an open_time given before)."""
    symbols, messages, dropped = [], [], 0
    seen = set()
    for symbol, rows in series:
        if symbol not in symbols:
            symbols.append(symbol)
        for open_time, close_time, close in rows:
            if (symbol, open_time) in seen:
                dropped += 1
            else:
                seen.add((symbol, open_time))
                messages.append((symbol, open_time, close_time, Fraction(close)))
    messages.sort(key=lambda m: (m[2], symbols.index(m[0]), m[1]))
    return symbols, messages, dropped


class Limits:
    """LOT_SIZE, MARKET_LOT_SIZE, MIN_NOTIONAL and NOTIONAL of one symbol, read from its exchangeInfo."""

    def __init__(self, entry):
        filters = {f["filterType"]: f for f in entry["filters"]}
        lots = [filters[name] for name in ("LOT_SIZE", "MARKET_LOT_SIZE") if name in filters]
        self.steps = [Fraction(f["stepSize"]) for f in lots if Fraction(f["stepSize"]) != 0]
        self.min_qty = max(Fraction(f["minQty"]) for f in lots)
        maxima = [Fraction(f["maxQty"]) for f in lots if Fraction(f["maxQty"]) != 0]
        self.max_qty = min(maxima) if maxima else None
        self.notional_name = "NOTIONAL" if "NOTIONAL" in filters else "MIN_NOTIONAL"
        self.min_notional = max(
            [Fraction(filters[n]["minNotional"]) for n in ("MIN_NOTIONAL", "NOTIONAL") if n in filters], default=0
        )

    def floor(self, quantity):
        """The largest multiple of every step that is not above `quantity`, nor above the smaller maxQty."""
        if self.max_qty is not None:
            quantity = min(quantity, self.max_qty)
        step = self.steps[0]
        for other in self.steps[1:]:
            step = Fraction(lcm(step.numerator, other.numerator), gcd(step.denominator, other.denominator))
        return quantity // step * step

    def broken(self, quantity, close):
        if quantity <= 0 or quantity < self.min_qty or any(quantity % step for step in self.steps):
            return "LOT_SIZE"
        if self.max_qty is not None and quantity > self.max_qty:
            return "LOT_SIZE"
        if quantity * close < self.min_notional:
            return self.notional_name
        return None


def ceil8(amount):
    return Fraction(-((-amount * 10**8) // 1), 10**8)


def written_price(price):
    """Half even to 8 decimals where it does not end."""
    denominator = price.denominator
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    return price if denominator == 1 else Fraction(round(price * 10**8), 10**8)
