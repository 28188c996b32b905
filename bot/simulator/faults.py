"""Decides which faults wait to happen, and what a fault may say. Source: contract, section 7."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from bot.simulator.errors import TEXTS


class ControlError(ValueError):
    """Control input that cannot be taken; the text is one clear line."""


@dataclass
class Fault:
    """One kind of trouble, `count` times. `count` None: until it is replaced (clock_skew only)."""

    kind: str
    count: int | None
    ms: int = 0
    fraction: Decimal = Decimal(0)
    text: str = ""
    status: int = 0
    body: str = ""
    headers: Mapping[str, str] | None = None
    path: str | None = None
    method: str | None = None
    code: int = 0
    message: str | None = None
    executed: bool = False
    retry_after: int | None = None

    def fits(self, path: str | None, method: str | None) -> bool:
        """Tell whether a request to `path` is one that this fault is for."""
        return self.path in (None, path) and self.method in (None, method)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ControlError("must be a whole number")
    return value


def _duration(value: Any) -> int:
    if _whole(value) < 0:
        raise ControlError("must not be negative")
    return int(value)


def _status(value: Any) -> int:
    if not 200 <= _whole(value) <= 599:
        raise ControlError("must be an HTTP status, 200 to 599")
    return int(value)


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ControlError("must be a string")
    return value


def _path(value: Any) -> str:
    if not _string(value).startswith("/"):
        raise ControlError("must begin with /")
    return str(value)


def _headers(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise ControlError("must be an object of strings")
    if any("\r" in text or "\n" in text for pair in value.items() for text in pair):
        raise ControlError("must not hold line breaks")
    return dict(value)


def amount(value: Any) -> Decimal:
    """Return a JSON string or number as a finite Decimal. Raises ControlError."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise ControlError("must be a number")
    try:
        number = Decimal(value)
    except InvalidOperation:
        raise ControlError("must be a number") from None
    if not number.is_finite():
        raise ControlError("must be a number")
    return number


def _fraction(value: Any) -> Decimal:
    number = amount(value)
    if not 0 <= number < 1:
        raise ControlError("must be at least 0 and below 1")
    return number


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ControlError("must be true or false")
    return value


def _code(value: Any) -> int:
    if _whole(value) not in TEXTS:
        raise ControlError("must be one of Binance's documented codes, such as -1007")
    return int(value)


Reader = Callable[[Any], Any]
# kind -> (fields that must be there, fields that may)
KINDS: Mapping[str, tuple[Mapping[str, Reader], Mapping[str, Reader]]] = {
    "order_executed_no_reply": ({}, {}),
    "order_lost_no_reply": ({}, {}),
    "order_executed_5xx": ({}, {"status": _status, "body": _string}),
    "reply": ({"status": _status}, {"body": _string, "headers": _headers, "path": _path, "method": _string}),
    "error": (
        {"code": _code},
        {
            "message": _string,
            "path": _path,
            "method": _string,
            "executed": _flag,
            "status": _status,
            "retry_after": _duration,
        },
    ),
    "delay": ({"ms": _duration}, {"path": _path, "method": _string}),
    "ws_cut": ({}, {}),
    "ws_silent": ({"ms": _duration}, {}),
    "ws_frame": ({"text": _string}, {}),
    "clock_skew": ({"ms": _whole}, {}),
    "partial_fill": ({"fraction": _fraction}, {}),
    "ws_duplicate": ({}, {}),
    "ws_late": ({}, {}),
    "server_shutdown": ({}, {"ms": _duration}),
    "ws_api_lost_no_reply": ({}, {}),
    "ws_api_executed_no_reply": ({}, {}),
    "user_cut": ({}, {}),
    "user_silent": ({"ms": _duration}, {}),
    "user_frame": ({"text": _string}, {}),
    "user_duplicate": ({}, {}),
    "user_late": ({"ms": _duration}, {}),
    "user_lost": ({}, {}),
}


def read_fault(values: Mapping[str, Any]) -> Fault:
    """Return the fault that a control request describes. Raises ControlError."""
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ControlError(f"kind {kind!r} is not one of {', '.join(KINDS)}")
    needed, optional = KINDS[kind]
    readers = {**needed, **optional, "count": _whole}
    fields: dict[str, Any] = {}
    for name, value in values.items():
        if name == "kind":
            continue
        reader = readers.get(name)
        if reader is None:
            raise ControlError(f"{name!r} is not a field of {kind}; it takes {', '.join(readers)}")
        try:
            fields[name] = reader(value)
        except ControlError as error:
            raise ControlError(f"{name} {error}, not {value!r}") from None
    for name in needed:
        if name not in fields:
            raise ControlError(f"{kind} needs {name!r}")
    count = fields.pop("count", None if kind == "clock_skew" else 1)
    if count is not None and count < 1:
        raise ControlError(f"count must be at least 1, not {count}")
    return Fault(kind, count, **fields)


class Faults:
    """What waits to go wrong, oldest first."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Let `fault` wait. A clock skew replaces the one before; one of 0 ms without a count ends it."""
        if fault.kind == "clock_skew":
            self._waiting = [other for other in self._waiting if other.kind != "clock_skew"]
            if fault.ms == 0:
                return
        self._waiting.append(fault)

    def take(self, kind: str, path: str | None = None, method: str | None = None) -> Fault | None:
        """Return the oldest waiting fault of `kind` for this path and use it once; None if there is none."""
        fault = self.peek(kind, path, method)
        if fault is not None and fault.count is not None:
            fault.count -= 1
            if fault.count == 0:
                self._waiting.remove(fault)
        return fault

    def peek(self, kind: str, path: str | None = None, method: str | None = None) -> Fault | None:
        """Return the fault of `kind` that `take` would return, without using it."""
        return next((f for f in self._waiting if f.kind == kind and f.fits(path, method)), None)

    def skew_ms(self) -> int:
        """Return by how much the clock that the next request sees is wrong, and use it."""
        fault = self.take("clock_skew")
        return fault.ms if fault else 0
