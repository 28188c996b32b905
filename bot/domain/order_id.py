"""Client order ids: the same decision always carries the same id. Source: contract, section 5."""

import hashlib
from functools import lru_cache

_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"


@lru_cache(maxsize=64)
def order_prefix(bot_id: str, mode: str) -> str:
    """Return the 10 characters that mark every order of this bot in this mode."""
    return f"bh-{_digest(bot_id, mode)[:6]}-"


def client_order_id(bot_id: str, mode: str, symbol: str, side: str, open_time: int, event_time: int) -> str:
    """Return the id of the order that one decision makes: 32 characters of `[a-z0-9-]`.

    Times are ms since the epoch. Ids of one bot sort by `event_time`, which stands first after the prefix in
    nine digits of base 36 (enough until the year 5188).

    Raises ValueError for a time before the epoch.
    """
    if event_time < 0:
        raise ValueError(f"event_time {event_time} lies before 1970")
    return f"{order_prefix(bot_id, mode)}{_base36(event_time, 9)}-{_digest(symbol, side, str(open_time))[:12]}"


def attempt_order_id(bot_id: str, mode: str, symbol: str, attempt: int) -> str:
    """Return the id of an order that no kline decided; `attempt` counts those of the symbol and is stored before."""
    return f"{order_prefix(bot_id, mode)}{_base36(attempt, 9)}-{_digest(symbol, 'attempt', str(attempt))[:12]}"


def _digest(*parts: str) -> str:
    data = "\x1f".join(parts).encode()
    return _base36(int.from_bytes(hashlib.sha256(data).digest()[:12], "big"), 19)


def _base36(number: int, width: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _BASE36[digit] + digits
    return digits.rjust(width, "0")
