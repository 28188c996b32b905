"""Decides what a refusal is: Binance's code, text and HTTP status. Source: Binance, errors."""

from collections.abc import Mapping
from typing import Any

# 400 for all others. Source: Binance, HTTP return codes; which 5xx goes with which code is not documented.
STATUSES: Mapping[int, int] = {
    -1000: 500, -1001: 503, -1002: 401, -1003: 429, -1006: 504, -1007: 504, -1008: 503, -1015: 429, -1016: 503,
    -2014: 401, -2015: 401, -2021: 409,
}  # fmt: skip
# Every documented code with one of its texts, blanks filled in. Left out: those of FIX only (-1169 to -1191).
TEXTS: Mapping[int, str] = {
    -1000: "An unknown error occurred while processing the request.",
    -1001: "Internal error; unable to process your request. Please try again.",
    -1002: "You are not authorized to execute this request.",
    -1003: "Too much request weight used; current limit is 6000 request weight per 1 MINUTE. "
    "Please use WebSocket Streams for live updates to avoid polling the API.",
    -1006: "An unexpected response was received from the message bus. Execution status unknown.",
    -1007: "Timeout waiting for response from backend server. Send status unknown; execution status unknown.",
    -1008: "Server is currently overloaded with other requests. Please try again in a few minutes.",
    -1010: "This action is disabled on this account.",
    -1013: "Filter failure: LOT_SIZE",
    -1014: "Unsupported order combination.",
    -1015: "Too many new orders; current limit is 100 orders per 10 SECOND.",
    -1016: "This service is no longer available.",
    -1020: "This operation is not supported.",
    -1021: "Timestamp for this request is outside of the recvWindow.",
    -1022: "Signature for this request is not valid.",
    -1033: "SenderCompId(49) is currently in use. Concurrent use of the same SenderCompId within one account "
    "is not allowed.",
    -1034: "Too many concurrent connections; current limit is '10'.",
    -1035: "Please send Logout<5> message to close the session.",
    -1099: "Not found, authenticated, or authorized",
    -1100: "Illegal characters found in parameter 'quantity'; legal range is '^([0-9]{1,20})(\\.[0-9]{1,20})?$'.",
    -1101: "Too many parameters; expected '0' and received '1'.",
    -1102: "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.",
    -1103: "An unknown parameter was sent.",
    -1104: "Not all sent parameters were read; read '8' parameter(s) but was sent '9'.",
    -1105: "Parameter 'quantity' was empty.",
    -1106: "Parameter 'timeInForce' sent when not required.",
    -1108: "Parameter 'orderId' overflowed.",
    -1111: "Parameter 'quantity' has too much precision.",
    -1112: "No orders on book for symbol.",
    -1114: "TimeInForce parameter sent when not required.",
    -1115: "Invalid timeInForce.",
    -1116: "Invalid orderType.",
    -1117: "Invalid side.",
    -1118: "New client order ID was empty.",
    -1119: "Original client order ID was empty.",
    -1120: "Invalid interval.",
    -1121: "Invalid symbol.",
    -1122: "Invalid symbolStatus.",
    -1125: "This listenKey does not exist.",
    -1127: "More than 24 hours between startTime and endTime.",
    -1128: "Combination of optional parameters invalid.",
    -1130: "Data sent for parameter 'limit' is not valid.",
    -1131: "recvWindow must be less than 60000",
    -1134: "strategyType was less than 1000000.",
    -1135: "Invalid JSON Request",
    -1136: "Invalid newOrderRespType.",
    -1139: "Invalid ticker type.",
    -1145: "Invalid cancelRestrictions",
    -1151: "Symbol is present multiple times in the list.",
    -1152: "Invalid `X-MBX-SBE` header; expected `<SCHEMA_ID>:<VERSION>`.",
    -1153: "Unsupported SBE schema ID or version specified in the `X-MBX-SBE` header.",
    -1155: "SBE is not enabled.",
    -1158: "Order type not supported in OCO.",
    -1160: "Parameter 'aboveIcebergQty' is not supported if `aboveTimeInForce`/`belowTimeInForce` is not GTC.",
    -1161: "Unable to encode the response in SBE schema '1'. Please use schema '3' or higher.",
    -1165: "A limit order in a buy OCO must be below.",
    -1166: "A limit order in a sell OCO must be above.",
    -1168: "At least one OCO order must be contingent.",
    -1194: "Invalid value for time unit; expected either MICROSECOND or MILLISECOND.",
    -1196: "A stop loss order in a buy OCO must be above.",
    -1197: "A stop loss order in a sell OCO must be below.",
    -1198: "A take profit order in a buy OCO must be below.",
    -1199: "A take profit order in a sell OCO must be above.",
    -1210: "Invalid pegPriceType.",
    -1211: "Invalid pegOffsetType.",
    -1220: "The symbol's status does not match the requested symbolStatus.",
    -1221: "Invalid/missing field(s) in SBE message.",
    -1222: "Working order in an OPO list must be a bid.",
    -1223: "Pending orders in an OPO list must be asks.",
    -1224: "Working order must include the 'quantity' tag.",
    -1225: "Pending orders should not include the 'quantity' tag.",
    -2010: "Account has insufficient balance for requested action.",
    -2011: "Unknown order sent.",
    -2013: "Order does not exist.",
    -2014: "API-key format invalid.",
    -2015: "Invalid API-key, IP, or permissions for action.",
    -2016: "No trading window could be found for the symbol. Try ticker/24hrs instead.",
    -2021: "Order cancel-replace partially failed.",
    -2022: "Order cancel-replace failed.",
    -2026: "Order was canceled or expired with no executed qty over 90 days ago and has been archived.",
    -2035: "User Data Stream subscription already active.",
    -2036: "User Data Stream subscription not active.",
    -2038: "The requested action would change no state; rejecting",
    -2039: "Client order ID is not correct for this order ID.",
    -2042: "Maximum subscription ID reached for this connection.",
    -2043: "This symbol doesn't have a reference price.",
}


class SimulatorError(Exception):
    """The simulated exchange cannot be started or kept; the text is one clear line for the user."""


class ApiError(Exception):
    """A request that the exchange refuses: `code` and `message` as in the reply's body, `status` of HTTP."""

    def __init__(self, code: int, message: str, status: int | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(f"{code} {message}")
        self.code = code
        self.message = message
        self.status = status if status is not None else STATUSES.get(code, 400)
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        return {"code": self.code, "msg": self.message}


def banned(until_ms: int) -> str:
    """Return the text of -1003 with status 418."""
    return (
        f"Way too much request weight used; IP banned until {until_ms}. "
        "Please use WebSocket Streams for live updates to avoid bans."
    )


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
