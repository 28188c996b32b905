"""Decides what a refusal is: Binance's code, text and HTTP status. Source: Binance, errors."""

from typing import Any

_STATUS = {-1003: 429, -1015: 429, -1002: 401, -2014: 401, -2015: 401, -1000: 500, -1001: 503, -1006: 504, -1007: 504}


class SimulatorError(Exception):
    """The simulated exchange cannot be started or kept; the text is one clear line for the user."""


class ApiError(Exception):
    """A request that the exchange refuses: `code` and `message` as in the reply's body, `status` of HTTP."""

    def __init__(self, code: int, message: str, status: int | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(f"{code} {message}")
        self.code = code
        self.message = message
        self.status = status if status is not None else _STATUS.get(code, 400)
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        return {"code": self.code, "msg": self.message}


def filter_failure(filter_type: str) -> ApiError:
    return ApiError(-1013, f"Filter failure: {filter_type}")


def rejected(message: str) -> ApiError:
    """Return a refusal of a new order by the matching engine."""
    return ApiError(-2010, message)


def insufficient_balance() -> ApiError:
    return rejected("Account has insufficient balance for requested action.")


def unsupported(kind: str) -> ApiError:
    return rejected(f"{kind} orders are not supported for this symbol.")


def illegal(name: str, pattern: str) -> ApiError:
    return ApiError(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{pattern}'.")


def missing(name: str) -> ApiError:
    return ApiError(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")


def both_missing(one: str, other: str) -> ApiError:
    return ApiError(-1102, f"Param '{one}' or '{other}' must be sent, but both were empty/null!")


def not_required(name: str) -> ApiError:
    return ApiError(-1106, f"Parameter '{name}' sent when not required.")


def not_valid(name: str) -> ApiError:
    return ApiError(-1130, f"Data sent for parameter '{name}' is not valid.")


def bad_combination() -> ApiError:
    return ApiError(-1128, "Combination of optional parameters invalid.")


def too_precise(name: str) -> ApiError:
    return ApiError(-1111, f"Parameter '{name}' has too much precision.")
