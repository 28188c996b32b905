"""Decides which parameters a request may carry and in what form: exact codes and texts, nothing unknown, nothing twice.

Source: Binance, general information and errors -1100 to -1131.
"""

import re
from collections.abc import Sequence
from decimal import Decimal
from urllib.parse import unquote_plus

from bot.simulator.amounts import decimals
from bot.simulator.errors import ApiError, illegal, missing, not_valid, too_precise

DECIMAL = r"^([0-9]{1,20})(\.[0-9]{1,20})?$"
INTEGER = r"^[0-9]{1,20}$"
CLIENT_ORDER_ID = r"^[a-zA-Z0-9-_]{1,36}$"
SYMBOL = r"^[\w\-._&&[^a-z]]{1,50}$"  # Java's syntax: no lower-case ASCII letter
LONGEST_LONG = 2**63 - 1
MICROSECONDS_FROM = 10**14


def parse_form(raw: str) -> dict[str, str]:
    """Return names and values of a query string or form body, percent-decoded.

    Raises ApiError -1101 for a name that stands in it twice, -1100 for bytes that are not UTF-8.
    """
    values: dict[str, str] = {}
    for pair in raw.split("&"):
        if not pair:
            continue
        name, _, value = pair.partition("=")
        try:
            name, value = unquote_plus(name, errors="strict"), unquote_plus(value, errors="strict")
        except UnicodeDecodeError:
            raise illegal(name, "UTF-8") from None
        if name in values:
            raise ApiError(-1101, "Duplicate values for a parameter detected.")
        values[name] = value
    return values


def is_symbol(text: str) -> bool:
    """Tell whether `text` has a symbol's form: word characters, `-`, `.`; no lower-case ASCII letter; 1 to 50."""
    return 1 <= len(text) <= 50 and all((c.isalnum() or c in "_-.") and not "a" <= c <= "z" for c in text)


class Params:
    """The parameters of one request, read one by one; `finish` refuses those that nobody read."""

    def __init__(self, values: dict[str, str]) -> None:
        self.values = values
        self._read: set[str] = set()

    def text(self, name: str) -> str | None:
        """Return a parameter as it was sent; None if it was not. Raises ApiError -1105 if it is empty."""
        self._read.add(name)
        value = self.values.get(name)
        if value == "":
            raise ApiError(-1105, f"Parameter '{name}' was empty.")
        return value

    def required(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            raise missing(name)
        return value

    def is_sent(self, name: str) -> bool:
        return name in self.values

    def symbol(self, name: str = "symbol") -> str | None:
        value = self.text(name)
        if value is not None and not is_symbol(value):
            raise illegal(name, SYMBOL)
        return value

    def required_symbol(self) -> str:
        value = self.symbol()
        if value is None:
            raise missing("symbol")
        return value

    def matching(self, name: str, pattern: str) -> str | None:
        value = self.text(name)
        if value is not None and not re.fullmatch(pattern[1:-1], value, re.ASCII):
            raise illegal(name, pattern)
        return value

    def integer(self, name: str) -> int | None:
        """Return a LONG. Raises ApiError -1100 for anything but digits, -1108 beyond 63 bits."""
        value = self.matching(name, INTEGER)
        if value is None:
            return None
        if int(value) > LONGEST_LONG:
            raise ApiError(-1108, f"Parameter '{name}' overflowed.")
        return int(value)

    def limit(self, default: int, maximum: int) -> int:
        """Return `limit`; above the maximum it is cut. Raises ApiError -1130 for 0."""
        value = self.integer("limit")
        if value is None:
            return default
        if value == 0:
            raise not_valid("limit")
        return min(value, maximum)

    def decimal(self, name: str) -> Decimal | None:
        """Return a DECIMAL: digits and at most one point. Its decimals are checked later, by `check_precision`."""
        value = self.matching(name, DECIMAL)
        return None if value is None else Decimal(value)

    def boolean(self, name: str) -> bool | None:
        value = self.text(name)
        if value is not None and value not in ("true", "false"):
            raise not_valid(name)
        return None if value is None else value == "true"

    def one_of(self, name: str, allowed: Sequence[str], error: ApiError) -> str | None:
        value = self.text(name)
        if value is not None and value not in allowed:
            raise error
        return value

    def ignore(self, *names: str) -> None:
        """Mark parameters as known that others look at."""
        self._read.update(names)

    def finish(self) -> None:
        """Raise ApiError if a parameter was sent that the endpoint does not know."""
        known = [name for name in self.values if name in self._read]
        if len(known) < len(self.values):
            if not self._read:
                raise ApiError(-1101, f"Too many parameters; expected '0' and received '{len(self.values)}'.")
            raise ApiError(
                -1104,
                f"Not all sent parameters were read; read '{len(known)}' parameter(s) "
                f"but was sent '{len(self.values)}'.",
            )


def check_precision(name: str, value: Decimal | None, places: int) -> None:
    """Raise ApiError -1111 if an amount was written with more decimals than its asset has (`places`)."""
    if value is not None and decimals(value) > places:
        raise too_precise(name)


def time_param(params: Params, name: str) -> int | None:
    """Read a time in ms; microseconds are taken too. Source: Binance, general information on endpoints."""
    value = params.integer(name)
    return value // 1000 if value is not None and value >= MICROSECONDS_FROM else value
