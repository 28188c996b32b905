"""Decides which faults wait to happen, and what a fault may say. Source: contract, section 7."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from bot.simulator.control_input import (
    ControlError,
    Reader,
    duration,
    flag,
    fraction,
    one_of,
    read_fields,
    string,
    whole,
)
from bot.simulator.errors import TEXTS


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
    order_status: str = ""
    closed: bool = False
    strikes: int | None = None
    ban_ms: int | None = None

    def fits(self, path: str | None, method: str | None) -> bool:
        """Tell whether a request to `path` is one that this fault is for."""
        return self.path in (None, path) and self.method in (None, method)


def _status(value: Any) -> int:
    if not 200 <= whole(value) <= 599:
        raise ControlError("must be an HTTP status, 200 to 599")
    return int(value)


def _path(value: Any) -> str:
    if not string(value).startswith("/"):
        raise ControlError("must begin with /")
    return str(value)


def _headers(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise ControlError("must be an object of strings")
    if any("\r" in text or "\n" in text for pair in value.items() for text in pair):
        raise ControlError("must not hold line breaks")
    return dict(value)


def _code(value: Any) -> int:
    if whole(value) not in TEXTS:
        raise ControlError("must be one of Binance's documented codes, such as -1007")
    return int(value)


def _strikes(value: Any) -> int:
    if whole(value) < 1:
        raise ControlError("must be at least 1")
    return int(value)


FINAL_STATUSES = ("EXPIRED", "EXPIRED_IN_MATCH", "CANCELED", "REJECTED")
_REQUEST: Mapping[str, Reader] = {"path": _path, "method": string}
# kind -> (fields that must be there, fields that may)
KINDS: Mapping[str, tuple[Mapping[str, Reader], Mapping[str, Reader]]] = {
    "order_executed_no_reply": ({}, {}),
    "order_lost_no_reply": ({}, {}),
    "order_executed_5xx": ({}, {"status": _status, "body": string}),
    "reply": ({"status": _status}, {"body": string, "headers": _headers, **_REQUEST}),
    "error": (
        {"code": _code},
        {
            **_REQUEST,
            "message": string,
            "executed": flag,
            "status": _status,
            "retry_after": duration,
        },
    ),
    "delay": ({"ms": duration}, _REQUEST),
    "waf": ({}, _REQUEST),
    "region": ({}, _REQUEST),
    "rate_limit": ({}, {"ms": duration, "strikes": _strikes, "ban_ms": duration}),
    "ban": ({}, {"ms": duration}),
    "order_status": ({"status": one_of(*FINAL_STATUSES)}, {"fraction": fraction}),
    "server_shutdown": ({}, {"ms": duration}),
    "ws_cut": ({}, {}),
    "ws_silent": ({"ms": duration}, {}),
    "ws_frame": ({"text": string}, {}),
    "clock_skew": ({"ms": whole}, {}),
    "partial_fill": ({"fraction": fraction}, {}),
    "ws_duplicate": ({}, {}),
    "ws_late": ({}, {}),
    "ws_gap": ({}, {"closed": flag}),
    "ws_api_lost_no_reply": ({}, {}),
    "ws_api_executed_no_reply": ({}, {}),
    "user_cut": ({}, {}),
    "user_silent": ({"ms": duration}, {}),
    "user_frame": ({"text": string}, {}),
    "user_duplicate": ({}, {}),
    "user_late": ({"ms": duration}, {}),
    "user_lost": ({}, {}),
}


def read_fault(values: Mapping[str, Any]) -> Fault:
    """Return the fault that a control request describes. Raises ControlError."""
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ControlError(f"kind {kind!r} is not one of {', '.join(KINDS)}")
    needed, optional = KINDS[kind]
    given = {name: value for name, value in values.items() if name != "kind"}
    fields = read_fields(given, {**needed, **optional, "count": whole}, kind)
    for name in needed:
        if name not in fields:
            raise ControlError(f"{kind} needs {name!r}")
    count = fields.pop("count", None if kind == "clock_skew" else 1)
    if count is not None and count < 1:
        raise ControlError(f"count must be at least 1, not {count}")
    if kind == "order_status":
        fields["order_status"] = fields.pop("status")
        if fields["order_status"] == "REJECTED" and fields.get("fraction"):
            raise ControlError("a REJECTED order has no fill: leave fraction out")
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
