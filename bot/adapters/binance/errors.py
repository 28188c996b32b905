"""What a failed call means: every documented error as a row of one table.

Decided by HTTP status and code first, by the text only where one code has several meanings. What the table does not
name is taken as unknown: asking once too often costs a request, sending an order twice costs money.
Source: Binance, errors; HTTP return codes.
"""

import re
from enum import StrEnum

from bot.ports import Consequence, OrderInDoubt, OrderNotSent, OrderRejected


class Reaction(StrEnum):
    """What the caller has to do."""

    NOT_SENT = "NOT_SENT"  # the request never left: nothing happened
    ASK = "ASK"  # it may have been executed: ask before anything else; a read may simply be repeated
    WAIT = "WAIT"  # a limit: refused before it was looked at; nothing may be sent for a while
    RESYNC = "RESYNC"  # our clock differs: not executed; measure it, try once more
    RETRY = "RETRY"  # not executed; the same may work later
    REFRESH_FILTERS = "REFRESH_FILTERS"  # not executed: it broke a rule of the symbol that we know wrongly
    STOP_REQUEST = "STOP_REQUEST"  # not executed, and never will be: the request itself is wrong
    STOP_SYMBOL = "STOP_SYMBOL"  # not executed: this account cannot trade this symbol
    HALT = "HALT"  # keys, permissions or the account are wrong: a human is needed


class CallFailed(Exception):
    """A call brought no usable answer. The text is one line without secrets; `code` is 0 where none was given."""

    def __init__(self, reaction: Reaction, text: str, code: int = 0, status: int = 0) -> None:
        super().__init__(text)
        self.reaction = reaction
        self.code = code
        self.status = status


UNKNOWN_ORDER = -2013
ARCHIVED_ORDER = -2026
BAD_SYMBOL = -1121
ILLEGAL_CHARACTERS = -1100
TOO_MANY_REQUESTS = -1003
SERVER_BUSY = -1008
TOO_MANY_ORDERS = -1015

_BY_REACTION: dict[Reaction, tuple[int, ...]] = {
    # -2011, -2021, -2022: a cancel that failed finds its order final, mostly; which end it had has to be asked.
    Reaction.ASK: (-1000, -1001, -1006, -1007, SERVER_BUSY, -1016, -2011, -2021, -2022),
    Reaction.WAIT: (TOO_MANY_REQUESTS, TOO_MANY_ORDERS, -1033, -1034, -1035),
    Reaction.RESYNC: (-1021,),
    Reaction.RETRY: (-1112, UNKNOWN_ORDER, -2016, -2036, -2042, -2043),
    Reaction.REFRESH_FILTERS: (-1013, -1111),
    Reaction.STOP_SYMBOL: (BAD_SYMBOL,),
    # -2015 is also seen while an address is banned for a time; a halt is right then too, and its hint says so.
    Reaction.HALT: (-1002, -1022, -2014, -2015),
    Reaction.STOP_REQUEST: (
        *(-1010, -1014, -1020, -1099, ILLEGAL_CHARACTERS, -1101, -1102, -1103, -1104, -1105, -1106, -1108, -1114),
        *(-1115, -1116, -1117, -1118, -1119, -1120, -1122, -1125, -1127, -1128, -1130, -1131, -1134, -1135, -1136),
        *(-1139, -1145, -1151, -1152, -1153, -1155, -1158, -1160, -1161, -1165, -1166, -1168, -1194, -1196, -1197),
        *(-1198, -1199, -1210, -1211, -1220, -1221, -1222, -1223, -1224, -1225),
        *range(-1191, -1168),  # FIX only
        *(-2010, ARCHIVED_ORDER, -2035, -2038, -2039),
    ),
}
CODES = {code: reaction for reaction, codes in _BY_REACTION.items() for code in codes}

# These codes say several things; where the text is listed it decides. Most are the matching engine's refusals.
CODES_WITH_TEXTS = frozenset({-1010, -1013, -2010, -2011, -2038})
TEXTS = {
    # An order with this id is open: ours, sent before. It is the one to ask about.
    "Duplicate order sent.": Reaction.ASK,
    "This symbol does not allow the specified self-trade prevention mode.": Reaction.STOP_REQUEST,
    "Market is closed.": Reaction.REFRESH_FILTERS,
    "This order type is not possible in this trading phase.": Reaction.REFRESH_FILTERS,
    "Limit orders require GTC for this phase.": Reaction.REFRESH_FILTERS,
    "Order book liquidity is less than `LOT_SIZE` filter minimum quantity.": Reaction.RETRY,
    "Order book liquidity is less than `MARKET_LOT_SIZE` filter minimum quantity.": Reaction.RETRY,
    "Order book liquidity is less than symbol minimum quantity.": Reaction.RETRY,
    "Order book liquidity is too low for this pegged order.": Reaction.RETRY,
    "Market orders are not supported for this symbol.": Reaction.STOP_SYMBOL,
    "This symbol is not permitted for this account.": Reaction.STOP_SYMBOL,
    "This symbol is restricted for this account.": Reaction.STOP_SYMBOL,
    "This action is disabled on this account.": Reaction.HALT,
    "This account may not place or cancel orders.": Reaction.HALT,
    "Rest API trading is not enabled.": Reaction.HALT,
    "WebSocket API trading is not enabled.": Reaction.HALT,
}

CONSEQUENCES = {
    Reaction.REFRESH_FILTERS: Consequence.REFRESH_RULES,
    Reaction.STOP_SYMBOL: Consequence.STOP_SYMBOL,
    Reaction.HALT: Consequence.HALT,
}

REGION_BLOCKED = (
    "HTTP 451: the exchange blocks this machine's region; use binance.us: set market_data.profile = us "
    "(and exchange.profile = us to trade)"
)

HINTS = {
    -1002: "the key may not do this: allow reading and spot trading for it",
    -1022: "the signature is wrong: BOT_API_SECRET is not the secret of BOT_API_KEY",
    -2014: "BOT_API_KEY has not the form of a key: copy it again",
    -2015: "the key is unknown here, or its IP list or permissions forbid this: check BOT_API_KEY, profile, mode; "
    "if it worked before, this address may be banned for a time: wait some minutes",
}

_MINUTE_MS = 60_000
_UNITS_MS = {"SECOND": 1000, "MINUTE": _MINUTE_MS, "HOUR": 60 * _MINUTE_MS, "DAY": 1440 * _MINUTE_MS}
_BANNED = re.compile(r"banned until (\d{13})")
_WINDOW = re.compile(r"orders per (\d{1,4}) (SECOND|MINUTE|HOUR|DAY)")


class Hold(StrEnum):
    """What may not leave after a reply."""

    ORDERS = "orders"  # the account's order count is used up; questions are free
    ENTRIES = "entries"  # the exchange is overloaded: only exits and questions go on
    ALL = "everything"


def order_error(failed: CallFailed) -> OrderNotSent | OrderInDoubt | OrderRejected:
    """Return what a failed order becomes for its caller."""
    if failed.reaction in (Reaction.NOT_SENT, Reaction.WAIT, Reaction.RESYNC):
        return OrderNotSent(str(failed))
    if failed.reaction is Reaction.ASK:
        return OrderInDoubt(str(failed))
    return OrderRejected(failed.code, str(failed), CONSEQUENCES.get(failed.reaction, Consequence.NOTHING))


def reaction_to(status: int, code: int, message: str) -> Reaction:
    """Return the reaction to a reply that is no success; `code` is 0 where the body had none."""
    if status in (418, 429):
        return Reaction.WAIT
    if status == 451:
        return Reaction.HALT
    if status >= 500:
        return Reaction.ASK
    if code in CODES_WITH_TEXTS and message in TEXTS:
        return TEXTS[message]
    return CODES.get(code, Reaction.ASK)


def hold_after(status: int, code: int, message: str, retry_after: str | None, now_ms: int) -> tuple[Hold, int] | None:
    """Return what may not leave after a reply, and for how long in ms; None for no hold.

    `retry_after` is the header, in seconds; `now_ms` the exchange's clock. Where the header is missing: an order count
    returns to 0 at the end of its clock-aligned window, which the text names, a ban's text names its end, a
    weight returns within a minute, and a firewall's 403 (it has no JSON) asks for minutes.
    """
    given = int(retry_after) * 1000 if retry_after and retry_after.isascii() and retry_after.isdigit() else None
    if status == 418:
        named = _BANNED.search(message)
        told = max(int(named[1]) - now_ms, 0) if named else 2 * _MINUTE_MS
        return Hold.ALL, told if given is None else given
    if code == TOO_MANY_ORDERS:
        named = _WINDOW.search(message)
        window_ms = int(named[1]) * _UNITS_MS[named[2]] if named else 10_000
        return Hold.ORDERS, (window_ms or 10_000) - now_ms % (window_ms or 10_000) if given is None else given
    if status == 429 or CODES.get(code) is Reaction.WAIT:
        return Hold.ALL, _MINUTE_MS if given is None else given
    if status == 403 and code == 0:
        return Hold.ALL, _MINUTE_MS * 2 if given is None else given
    if code == SERVER_BUSY:
        return Hold.ENTRIES, _MINUTE_MS if given is None else given
    return None


_MAY_BE_SECRET = re.compile(r"[A-Za-z0-9]{40,}")


def without_secrets(text: str) -> str:
    """Return what an exchange said without what it may have echoed: keys, signatures and listen keys are long."""
    return _MAY_BE_SECRET.sub("***", text)


def describe(status: int, code: int, message: str) -> str:
    """Return one line for a reply that is no success, with the fix where there is one."""
    if status == 451:
        return REGION_BLOCKED
    if code == 0:
        return f"HTTP {status} without a reason"
    text = without_secrets(" ".join(message.split()))[:200]
    hint = HINTS.get(code)
    return f"{text} ({hint})" if hint else text
