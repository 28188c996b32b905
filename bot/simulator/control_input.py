"""Decides what may stand in the body of a control request: readers for its fields, and one clear line for a bad one."""

from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from bot.simulator.amounts import decimals

MOST_DECIMALS = 8
LONGEST_AMOUNT = 15  # digits before the point


class ControlError(ValueError):
    """Control input that cannot be taken; the text is one clear line."""


# Takes a value of JSON and returns it as it is used. Raises ControlError with what it must be.
Reader = Callable[[Any], Any]


def read_fields(values: Mapping[str, Any], readers: Mapping[str, Reader], owner: str) -> dict[str, Any]:
    """Return `values` as their readers return them. Raises ControlError for a field that is unknown or bad."""
    fields = {}
    for name, value in values.items():
        reader = readers.get(name)
        if reader is None:
            raise ControlError(f"{name!r} is not a field of {owner}; it takes {', '.join(readers)}")
        try:
            fields[name] = reader(value)
        except ControlError as error:
            raise ControlError(f"{name} {error}, not {value!r}") from None
    return fields


def whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ControlError("must be a whole number")
    return value


def duration(value: Any) -> int:
    if whole(value) < 0:
        raise ControlError("must not be negative")
    return int(value)


def string(value: Any) -> str:
    if not isinstance(value, str):
        raise ControlError("must be a string")
    return value


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ControlError("must be true or false")
    return value


def texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ControlError("must be an array of strings")
    return tuple(value)


def text_sets(value: Any) -> list[list[str]]:
    if not isinstance(value, list) or not all(isinstance(group, list) for group in value):
        raise ControlError("must be an array of arrays of strings")
    return [list(texts(group)) for group in value]


def one_of(*allowed: str) -> Reader:
    """Return a reader that takes these texts only."""

    def read(value: Any) -> str:
        if value not in allowed:
            raise ControlError(f"must be one of {', '.join(allowed)}")
        return str(value)

    return read


def asset(value: Any) -> str:
    if not isinstance(value, str) or not value.isascii() or not value.isalnum() or value != value.upper():
        raise ControlError("must be upper-case letters and digits")
    return value


def number(value: Any) -> Decimal:
    """Return a JSON string or number as a finite Decimal."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise ControlError("must be a number")
    try:
        read = Decimal(value)
    except InvalidOperation:
        raise ControlError("must be a number") from None
    if not read.is_finite():
        raise ControlError("must be a number")
    return read


def amount(value: Any) -> Decimal:
    """Return a quantity of an asset, or a price."""
    read = number(value)
    if read < 0 or decimals(read) > MOST_DECIMALS or read.adjusted() > LONGEST_AMOUNT:
        raise ControlError(f"must be at least 0 and have at most {MOST_DECIMALS} decimals")
    return read


def positive(value: Any) -> Decimal:
    read = number(value)
    if read <= 0 or decimals(read) > MOST_DECIMALS or read.adjusted() > LONGEST_AMOUNT:
        raise ControlError(f"must be above 0 and have at most {MOST_DECIMALS} decimals")
    return read


def fraction(value: Any) -> Decimal:
    read = number(value)
    if not 0 <= read < 1:
        raise ControlError("must be at least 0 and below 1")
    return read


def levels(value: Any) -> list[list[Decimal]]:
    """Return [price, quantity] pairs."""
    if not isinstance(value, list) or not all(isinstance(level, list) and len(level) == 2 for level in value):
        raise ControlError("must be an array of [price, quantity] pairs")
    return [[positive(price), positive(quantity)] for price, quantity in value]
