"""What became of one message, and why: exactly one decision for each, under exactly one name.

What then became of an order is the order's own story; the client order id joins the two.
"""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum

import msgspec

from bot.domain.kline import Kline
from bot.domain.money import plain
from bot.domain.strategy import Thresholds


class Decided(StrEnum):
    """The names of decisions that a trader and the gate of its orders give.

    BUY and SELL: an order was made. HOLD: no signal, or a SELL without a position. A signal that the portfolio refuses
    carries the name of the refusal (`domain/sizing.py`, `domain/filters.py`), such as CASH or LOT_SIZE. ADJUSTED: the
    book was corrected meanwhile, and holds less than the order would sell.
    """

    FIRST = "FIRST"
    HOLD = "HOLD"
    OPEN_KLINE = "OPEN_KLINE"
    GAP = "GAP"
    STALE = "STALE"
    DROPPED = "DROPPED"
    QUARANTINED = "QUARANTINED"
    BUY = "BUY"
    SELL = "SELL"
    IN_DOUBT = "IN_DOUBT"
    NO_ANSWER = "NO_ANSWER"
    HALTED = "HALTED"
    ADJUSTED = "ADJUSTED"
    NOT_JOURNALED = "NOT_JOURNALED"


DERIVED = frozenset({Decided.HOLD, Decided.OPEN_KLINE})
"""Names that follow from the stored messages and the run's settings alone: counted, never stored."""
UNKNOWN = "UNKNOWN"
"""No decision's name, but what is said where none is stored and none follows."""


class Decision(msgspec.Struct, frozen=True):
    """What a trader did with the message (symbol, open_time, is_closed, event_time), all times in ms UTC.

    `previous_close` is the close before it that counted, `position` (base asset) what was held when it came, both
    None where a restart forgot it; `reason` is one line. `client_order_id` is the signal's, also where it was refused;
    empty where there was no signal. `time` is when it was decided, by the clock of this machine.
    """

    symbol: str
    open_time: int
    event_time: int
    is_closed: bool
    name: str
    reason: str
    close: Decimal
    previous_close: Decimal | None
    thresholds: Thresholds | None
    position: Decimal | None
    client_order_id: str
    time: int


def is_same_message(kline: Kline, last: Kline) -> bool:
    """Return whether two klines of one symbol are the same message: told again, it is no new one."""
    return (kline.open_time, kline.is_closed, kline.event_time) == (last.open_time, last.is_closed, last.event_time)


def one_more(counts: Mapping[str, int], name: str) -> dict[str, int]:
    """Return the counts with one more under `name`; the given ones stay as they are."""
    return {**counts, name: counts.get(name, 0) + 1}


def derived(kline: Kline, thresholds: Thresholds | None, position: Decimal, only_closed: bool) -> tuple[str, str]:
    """Return the name and the reason of a decision that was not stored, as they follow from what it was made of.

    `thresholds` are what the kline's close was measured against, `position` what was held when it came.
    """
    if only_closed and not kline.is_closed:
        return Decided.OPEN_KLINE.value, "only closed candles count, and this one was still open"
    if thresholds is None:
        return Decided.HOLD.value, "the strategy gave no signal"
    buy, sell, close = thresholds.buy, thresholds.sell, kline.close
    if buy is not None and close <= buy:
        return UNKNOWN, f"{plain(close)} is at or below {plain(buy)}, but no decision is stored"
    if sell is not None and close >= sell:
        bound = f"{plain(close)} is at or above {plain(sell)}"
        if position > 0:
            return UNKNOWN, f"{bound} and {plain(position)} was held, but no decision is stored"
        return Decided.HOLD.value, f"{bound}, but nothing was held that could be sold"
    bounds = [f"above {plain(buy)} (buys at or below)"] if buy is not None else []
    bounds += [f"below {plain(sell)} (sells at or above)"] if sell is not None else []
    return Decided.HOLD.value, f"{plain(close)} is {' and '.join(bounds) or 'measured against nothing'}"


class Run(msgspec.Struct, frozen=True):
    """What a process traded by from `start_time` (ms UTC) on, as far as its decisions follow from it.

    `strategy` is an import path, `parameters` its keyword arguments; `only_closed`: open klines never counted.
    """

    start_time: int
    mode: str
    strategy: str
    parameters: dict[str, Decimal]
    only_closed: bool
