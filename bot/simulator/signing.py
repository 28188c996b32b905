"""Decides whether a signed request is genuine and in time: HMAC over the bytes as received, the rule of recvWindow.

Source: Binance, request security; timing security.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from bot.simulator.errors import ApiError, missing
from bot.simulator.params import Params

DEFAULT_RECV_WINDOW = Decimal(5000)
LONGEST_RECV_WINDOW = Decimal(60000)
AHEAD_MS = 1000
MICROSECONDS_FROM = 10**15
RECV_WINDOW = r"^[0-9]{1,20}(\.[0-9]{1,3})?$"
_KEY_FORM = re.compile(r"[A-Za-z0-9]{64}")
_SIGNATURE_PAIR = re.compile(rb"(?:^|&)signature=[^&]*")


@dataclass(frozen=True)
class Timing:
    """When a request says it was signed (ms, may carry microseconds as a fraction) and how long it is good for (ms)."""

    timestamp: Decimal
    recv_window: Decimal


def signature(secret: str, payload: bytes) -> str:
    """Return the HMAC-SHA256 of `payload` in lower-case hex."""
    return hmac.new(secret.encode(), payload, hashlib.sha256).hexdigest()


def unsigned(part: bytes) -> bytes:
    """Return a query string or body without its `signature=` pair, all else byte for byte."""
    return _SIGNATURE_PAIR.sub(b"", part, count=1).removeprefix(b"&")


def check_key(sent: str | None, known: str) -> None:
    """Raise ApiError -2014 for a missing or malformed API key, -2015 for one that is not known."""
    if sent is None or not _KEY_FORM.fullmatch(sent):
        raise ApiError(-2014, "API-key format invalid.")
    if not hmac.compare_digest(sent, known):
        raise ApiError(-2015, "Invalid API-key, IP, or permissions for action.")


def sorted_payload(values: Mapping[str, str]) -> bytes:
    """Return what the WebSocket API signs: all parameters but the signature, by name, not percent-encoded."""
    pairs = sorted((name, value) for name, value in values.items() if name != "signature")
    return "&".join(f"{name}={value}" for name, value in pairs).encode("utf-8", "surrogatepass")


def check_signature(secret: str, payload: bytes, sent: str) -> None:
    """Raise ApiError -1022 unless `sent` signs `payload`, in hex of either case."""
    expected = signature(secret, payload)
    if not hmac.compare_digest(sent.lower().encode("utf-8", "surrogatepass"), expected.encode()):
        raise ApiError(-1022, "Signature for this request is not valid.")


def read_timing(params: Params, fractional: bool) -> Timing:
    """Read `timestamp` and `recvWindow`; `fractional`: microseconds and decimals of the window are allowed.

    Raises ApiError -1102, -1100, or -1131 for a window above 60000.
    """
    window_text = params.matching("recvWindow", RECV_WINDOW if fractional else r"^[0-9]{1,20}$")
    stamp = params.integer("timestamp")
    if stamp is None:
        raise missing("timestamp")
    window = Decimal(window_text) if window_text is not None else DEFAULT_RECV_WINDOW
    if window > LONGEST_RECV_WINDOW:
        raise ApiError(-1131, "recvWindow must be less than 60000")
    is_micro = fractional and stamp >= MICROSECONDS_FROM
    return Timing(Decimal(stamp) / 1000 if is_micro else Decimal(stamp), window)


def check_timing(timing: Timing, now_ms: int) -> None:
    """Raise ApiError -1021 unless timestamp < now + 1000 and now - timestamp <= recvWindow."""
    if timing.timestamp >= now_ms + AHEAD_MS:
        raise ApiError(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")
    if now_ms - timing.timestamp > timing.recv_window:
        raise ApiError(-1021, "Timestamp for this request is outside of the recvWindow.")
