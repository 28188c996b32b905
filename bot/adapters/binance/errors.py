"""What a failed call means: every documented error code as a row of one table.

Decided by HTTP status and code first, by the text only where one code has several meanings. What the table does not
name is taken as unknown: asking once too often costs a request, sending an order twice costs money.
Source: Binance, errors; HTTP return codes.
"""

from enum import StrEnum

from bot.ports import ExchangeError, OrderInDoubt, OrderNotSent


class Reaction(StrEnum):
    """What the caller has to do."""

    NOT_SENT = "NOT_SENT"  # the request never left: nothing happened
    ASK = "ASK"  # it may have been executed: ask before anything else; a read may simply be repeated
    WAIT = "WAIT"  # a limit: refused before it was looked at; nothing may be sent for a while
    RESYNC = "RESYNC"  # our clock differs: not executed; measure it, try once more
    LATER = "LATER"  # not executed; the same may work later
    STOP = "STOP"  # not executed, and never will be: the request itself is wrong
    HALT = "HALT"  # keys, permissions or the account are wrong: a human is needed


class CallFailed(Exception):
    """A call brought no usable answer. The text is one line without secrets; `code` is 0 where none was given."""

    def __init__(self, reaction: Reaction, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.reaction = reaction
        self.code = code


# What a failed order becomes for its caller. STOP, LATER and HALT are refusals: OrderRejected, which carries the code.
ORDER_ERRORS: dict[Reaction, type[ExchangeError]] = {
    Reaction.NOT_SENT: OrderNotSent,
    Reaction.WAIT: OrderNotSent,
    Reaction.RESYNC: OrderNotSent,
    Reaction.ASK: OrderInDoubt,
}

UNKNOWN_ORDER = -2013
ARCHIVED_ORDER = -2026
BAD_SYMBOL = -1121
ILLEGAL_CHARACTERS = -1100
TOO_MANY_REQUESTS = -1003
TOO_MANY_ORDERS = -1015

_BY_REACTION: dict[Reaction, tuple[int, ...]] = {
    Reaction.ASK: (-1000, -1001, -1006, -1007, -1008, -1016, -1034),
    Reaction.WAIT: (TOO_MANY_REQUESTS, TOO_MANY_ORDERS),
    Reaction.RESYNC: (-1021,),
    Reaction.LATER: (-1112, -2011, UNKNOWN_ORDER, -2016, -2021, -2022, -2043),
    Reaction.HALT: (-1002, -1022, -2014, -2015),
    Reaction.STOP: (
        *(-1010, -1013, -1014, -1020, -1099, ILLEGAL_CHARACTERS, -1101, -1102, -1103, -1104, -1105, -1106, -1108),
        *(-1111, -1114, -1115, -1116, -1117, -1118, -1119, -1120, BAD_SYMBOL, -1122, -1125, -1127, -1128, -1130),
        *(-1131, -1134, -1135, -1136, -1139, -1145, -1151, -1158, -1160, -1165, -1166, -1168, -1194, -1196, -1197),
        *(-1198, -1199, -1210, -1211, -1220, -1222, -1223, -1224, -1225),
        *(-2010, ARCHIVED_ORDER, -2035, -2036, -2038, -2039, -2042),
    ),
}
CODES = {code: reaction for reaction, codes in _BY_REACTION.items() for code in codes}

# The matching engine's refusals share these codes; where its text is listed it decides.
ENGINE_CODES = frozenset({-1010, -2010, -2011, -2038})
ENGINE_MESSAGES = {
    # An order with this id is open: ours, sent before. It is the one to ask about.
    "Duplicate order sent.": Reaction.ASK,
    "Market is closed.": Reaction.LATER,
    "This order type is not possible in this trading phase.": Reaction.LATER,
    "Order book liquidity is less than `LOT_SIZE` filter minimum quantity.": Reaction.LATER,
    "Order book liquidity is less than `MARKET_LOT_SIZE` filter minimum quantity.": Reaction.LATER,
    "Order book liquidity is less than symbol minimum quantity.": Reaction.LATER,
    "This action is disabled on this account.": Reaction.HALT,
    "This account may not place or cancel orders.": Reaction.HALT,
    "This symbol is not permitted for this account.": Reaction.HALT,
    "This symbol is restricted for this account.": Reaction.HALT,
    "Rest API trading is not enabled.": Reaction.HALT,
    "WebSocket API trading is not enabled.": Reaction.HALT,
}

REGION_BLOCKED = (
    "HTTP 451: the exchange blocks this machine's region; use binance.us: set market_data.profile = us "
    "(and exchange.profile = us to trade)"
)

HINTS = {
    -1002: "the key may not do this: allow reading and spot trading for it",
    -1022: "the signature is wrong: BOT_API_SECRET is not the secret of BOT_API_KEY",
    -2014: "BOT_API_KEY has not the form of a key: copy it again",
    -2015: "the key is unknown here, or its IP list or permissions forbid this: check BOT_API_KEY, profile, mode",
}


def reaction_to(status: int, code: int, message: str) -> Reaction:
    """Return the reaction to a reply that is no success; `code` is 0 where the body had none."""
    if status in (418, 429):
        return Reaction.WAIT
    if status == 451:
        return Reaction.HALT
    if status >= 500:
        return Reaction.ASK
    if code in ENGINE_CODES and message in ENGINE_MESSAGES:
        return ENGINE_MESSAGES[message]
    return CODES.get(code, Reaction.ASK)


def pause_ms(status: int, code: int, retry_after: str | None) -> int:
    """Return for how long nothing more may be sent after a reply, in ms; 0 for no pause.

    `retry_after` is the header, in seconds. Where it is missing: an order count returns to 0 within 10 s, a weight
    within a minute, and a firewall's 403 (it has no JSON) asks for minutes.
    """
    firewall = status == 403 and code == 0
    if not (status in (418, 429) or firewall or CODES.get(code) is Reaction.WAIT):
        return 0
    if retry_after is not None and retry_after.isascii() and retry_after.isdigit():
        return int(retry_after) * 1000
    if firewall:
        return 120_000
    return 10_000 if code == TOO_MANY_ORDERS else 60_000


def describe(status: int, code: int, message: str) -> str:
    """Return one line for a reply that is no success, with the fix where there is one."""
    if status == 451:
        return REGION_BLOCKED
    if code == 0:
        return f"HTTP {status} without a reason"
    text = " ".join(message.split())[:200]
    hint = HINTS.get(code)
    return f"{text} ({hint})" if hint else text
