"""Says of a kline frame whether it can be believed: the protocol page read a second time, with the standard library.

It imports nothing of `bot`. Where the page leaves both readings open (a key given twice, 1.0 for a whole number, a lone
surrogate) the verdict is UNSURE, and either is right.
"""

import json
import re
from decimal import Decimal, InvalidOperation

VALID, INVALID, UNSURE = "valid", "invalid", "unsure"
NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?")


class Doubt(Exception):
    """Both readings are right."""


class Fraction(Decimal):
    """A number that was written with a point or an exponent."""


def _pairs(pairs):
    if len({key for key, _ in pairs}) < len(pairs):
        raise Doubt
    return dict(pairs)


def _fraction(token):
    try:
        return Fraction(token)
    except InvalidOperation:
        raise Doubt from None  # digits beyond what a number may have anywhere


def _refuse(token):
    raise ValueError(token)


def read(data):
    """The document, strictly. Raises ValueError, RecursionError, Doubt."""
    text = data.decode("utf-8", "replace")
    document = json.loads(
        text, object_pairs_hook=_pairs, parse_constant=_refuse, parse_float=_fraction, parse_int=Decimal
    )
    # Where it is no UTF-8 but no value that is read is touched, or an escape may be half a character.
    if "\ufffd" in text or "\\u" in text.lower():
        raise Doubt
    return document


def _whole(value):
    if isinstance(value, Fraction) and value == value.to_integral_value():
        raise Doubt
    return isinstance(value, Decimal) and not isinstance(value, Fraction)


def _time(value):
    return _whole(value) and 0 <= value < 10**14


def _name(value):
    if isinstance(value, str) and not value.isascii():
        raise Doubt
    return isinstance(value, str) and 1 <= len(value) <= 64


def _amount(value):
    return isinstance(value, str) and bool(NUMBER.fullmatch(value)) and value.isascii()


def _price(value):
    return _amount(value) and Decimal(value) > 0


CANDLE = {"t": _time, "T": _time, "s": _name, "i": _name, "x": lambda value: isinstance(value, bool)}
CANDLE |= dict.fromkeys("ochl", _price) | dict.fromkeys("vq", _amount)


def verdict(data):
    """(VALID, the event as a dict), or (INVALID, None), or (UNSURE, None)."""
    try:
        document = read(data)
        if not isinstance(document, dict):
            return INVALID, None
        event = document
        if document.get("e", "") == "":
            event = document.get("data")
            if {"E", "s", "k"} & set(document) and isinstance(event, dict):
                raise Doubt
        elif "data" in document:
            raise Doubt
        if not isinstance(event, dict) or event.get("e") != "kline":
            return INVALID, None
        candle = event.get("k")
        if not isinstance(candle, dict) or not _time(event.get("E")):
            return INVALID, None
        if not all(key in candle and is_right(candle[key]) for key, is_right in CANDLE.items()):
            return INVALID, None
        if event.get("s") != candle["s"] or candle["t"] > candle["T"]:
            return INVALID, None
    except Doubt:
        return UNSURE, None
    except (ValueError, RecursionError):
        return INVALID, None
    return VALID, event
