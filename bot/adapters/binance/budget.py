"""How much may still be asked of one host: one count for all who ask it, exits before entries.

Windows are fixed and begin at whole multiples of their length on the exchange's clock. An own count is kept of what
leaves; the counts that the exchange sends with its replies correct it, as they also hold what others of this address
or account have used. Source: Binance, limits.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from bot.adapters.binance.errors import CallFailed, Hold, Reaction
from bot.domain.order import Side
from bot.supervision import Clock


class Priority(IntEnum):
    """Who is refused last; the value is the share of a limit, in percent, up to which a request may fill it.

    No one gets the last percents: they are for what the exchange counts into a window that we saw end.
    """

    EXIT = 95
    QUESTION = 90
    ENTRY = 80
    REST = 60


def order_priority(side: Side) -> Priority:
    """Return the place of an order, and of what it cannot do without, in the budget."""
    return Priority.EXIT if side is Side.SELL else Priority.ENTRY


class RateLimit(msgspec.Struct, frozen=True):
    """At most `limit` of a kind in `number` times `interval`, in the words of exchangeInfo."""

    kind: str
    interval: str
    number: int
    limit: int


DEFAULT_LIMITS = (
    RateLimit("REQUEST_WEIGHT", "MINUTE", 1, 6000),
    RateLimit("ORDERS", "SECOND", 10, 100),
    RateLimit("ORDERS", "DAY", 1, 200_000),
    RateLimit("RAW_REQUESTS", "MINUTE", 5, 300_000),
)
"""What both exchanges allow; in force until exchangeInfo was read."""

LONGEST_BAN_MS = 3 * 86_400_000
"""Source: Binance, limits. No pause that is kept is heeded for longer."""

_UNITS_MS = {"SECOND": 1000, "MINUTE": 60_000, "HOUR": 3_600_000, "DAY": 86_400_000}
_HEADERS = {"REQUEST_WEIGHT": "x-mbx-used-weight", "ORDERS": "x-mbx-order-count", "RAW_REQUESTS": ""}
_NAMES = {"REQUEST_WEIGHT": "request weight", "ORDERS": "orders", "RAW_REQUESTS": "requests"}


def limits_of(info: Mapping[str, object]) -> list[RateLimit]:
    """Return the limits that an exchangeInfo reply names; what cannot be read, or is of no known kind, is left out."""
    rows = info.get("rateLimits")
    limits = []
    for row in rows if isinstance(rows, list) else ():
        match row:
            case {
                "rateLimitType": str(kind),
                "interval": str(interval),
                "intervalNum": int(number),
                "limit": int(limit),
            }:
                if kind in _NAMES and interval in _UNITS_MS and number > 0 and limit > 0:
                    limits.append(RateLimit(kind, interval, number, limit))
    return limits


class _Window:
    """One limit's count. `admitted` and `answered` only grow; their difference is in flight."""

    def __init__(self, limit: RateLimit) -> None:
        self.kind = limit.kind
        self.limit = limit.limit
        self.interval_ms = limit.number * _UNITS_MS[limit.interval]
        self.text = f"{limit.limit} {_NAMES[self.kind]} in {limit.number} {limit.interval.lower()}"
        prefix = _HEADERS[self.kind]
        self.header = prefix and f"{prefix}-{limit.number}{limit.interval[0].lower()}"
        self.number = 0
        self.count = 0
        self.admitted = 0
        self.answered = 0
        self.told_at = 0  # what was admitted before the newest request whose reply corrected the count

    def amount(self, weight: int, is_order: bool) -> int:
        if self.kind == "REQUEST_WEIGHT":
            return weight
        return 1 if self.kind == "RAW_REQUESTS" or is_order else 0

    def turn(self, now_ms: int) -> None:
        number = now_ms // self.interval_ms
        if number > self.number:
            # What is still under way may be counted by the exchange after its window's edge.
            self.count = self.admitted - self.answered
        # A smaller one: our clock was corrected. The count stays until the next edge.
        self.number = number


class Ticket(msgspec.Struct):
    """The right to send one request; given back with what came of it.

    Of each window that counts it: how much of it, and the window's number and counts before.
    """

    marks: tuple[tuple[_Window, int, int, int, int], ...]


class Pauses(Protocol):
    """What a host told this machine to wait for, over restarts: since when, until when (ms UTC here), and why."""

    def pause(self, host: str) -> tuple[int, int, str] | None: ...

    def keep_pause(self, host: str, since_ms: int, until_ms: int, reason: str) -> None: ...


class Budget:
    """The limits of one host. Thread-safe; nothing waits in it: who may not go is told when.

    `now_ms` is the exchange's clock throughout; holds run on the monotonic clock. `on_pause` is told of each hold of
    everything, in ms from now, and why.
    """

    def __init__(
        self,
        clock: Clock,
        limits: Iterable[RateLimit] = DEFAULT_LIMITS,
        on_pause: Callable[[int, str], None] = lambda *_: None,
    ) -> None:
        self._clock = clock
        self._on_pause = on_pause
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, str, int], _Window] = {}
        self._holds: dict[Hold, tuple[int, str]] = {}
        self.learn(limits)

    def learn(self, limits: Iterable[RateLimit]) -> None:
        """Take limits in place of those known so far."""
        with self._lock:
            for limit in limits:
                key = (limit.kind, limit.interval, limit.number)
                window, old = _Window(limit), self._windows.get(key)
                if old is None:
                    self._windows[key] = window
                elif old.limit != window.limit:
                    old.limit, old.text = window.limit, window.text

    def admit(self, now_ms: int, weight: int, priority: Priority, is_order: bool = False) -> Ticket:
        """Count a request that is about to leave. Raises CallFailed (WAIT), and counts nothing, if it may not."""
        with self._lock:
            if self._holds:
                self._refuse_held(priority, is_order)
            marks = []
            for window in self._windows.values():
                amount = window.amount(weight, is_order)
                if not amount:
                    continue
                window.turn(now_ms)
                if (window.count + amount) * 100 > window.limit * priority:
                    left_ms = window.interval_ms - now_ms % window.interval_ms
                    raise CallFailed(
                        Reaction.WAIT,
                        f"{window.count} of {window.text} are used: the rest is for "
                        f"{'nobody' if priority is Priority.EXIT else 'what is more urgent'}; "
                        f"{left_ms / 1000:.1f} s to the window's end",
                    )
                marks.append((window, amount, window.number, window.admitted, window.answered))
            for window, amount, *_ in marks:
                window.count += amount
                window.admitted += amount
            return Ticket(tuple(marks))

    def settle(self, ticket: Ticket, headers: Mapping[str, str] | None) -> None:
        """Say that a request ended; `headers` are its reply's, names in lower case, None where none came."""
        with self._lock:
            for window, amount, number, admitted, answered in ticket.marks:
                window.answered += amount
                told = headers.get(window.header, "") if headers and window.header else ""
                if number == window.number and told.isascii() and told.isdigit():
                    # The exchange may have counted, after this one, whatever was not answered when this one left.
                    most = int(told) + window.admitted - answered - amount
                    if admitted >= window.told_at:
                        window.count, window.told_at = most, admitted
                    else:
                        window.count = min(window.count, most)  # an older request says nothing newer of others

    def used_weight(self, now_ms: int) -> int:
        """Return the request weight that counts in the exchange's window of `now_ms`, the fullest where it has more."""
        with self._lock:
            return max(
                (
                    window.count if now_ms // window.interval_ms <= window.number else window.admitted - window.answered
                    for window in self._windows.values()
                    if window.kind == "REQUEST_WEIGHT"
                ),
                default=0,
            )

    def hold(self, hold: Hold, wait_ms: int, reason: str) -> None:
        """Let nothing of a kind leave for `wait_ms`; a longer hold of that kind stays."""
        with self._lock:
            until = self._clock.monotonic_ms() + wait_ms
            if until <= self._holds.get(hold, (0, ""))[0]:
                return
            self._holds[hold] = (until, reason)
        if hold is Hold.ALL:
            self._on_pause(wait_ms, reason)

    def _refuse_held(self, priority: Priority, is_order: bool) -> None:
        now = self._clock.monotonic_ms()
        for hold, (until, reason) in list(self._holds.items()):
            if until <= now:
                del self._holds[hold]
            elif (
                hold is Hold.ALL
                or (hold is Hold.ORDERS and is_order)
                or (hold is Hold.ENTRIES and priority <= Priority.ENTRY)
            ):
                raise CallFailed(Reaction.WAIT, f"pausing {(until - now) / 1000:.1f} s more after {reason}")


class Budgets:
    """One budget a host, so that market data and trading at the same one share it. Thread-safe.

    What a host said before this process began is heeded too, by `pauses`: who goes on asking is banned for longer.
    """

    def __init__(self, clock: Clock, pauses: Pauses | None = None) -> None:
        self._clock = clock
        self._pauses = pauses
        self._lock = threading.Lock()
        self._budgets: dict[str, Budget] = {}

    def of(self, rest_url: str) -> Budget:
        """Return the budget of an address: scheme, host and port."""
        address = rest_url.rstrip("/").lower()
        with self._lock:
            if address not in self._budgets:
                self._budgets[address] = self._new(urlsplit(address).netloc)
            return self._budgets[address]

    def _new(self, host: str) -> Budget:
        pauses, clock = self._pauses, self._clock
        if pauses is None:
            return Budget(clock)

        def keep(wait_ms: int, reason: str) -> None:
            pauses.keep_pause(host, clock.now_ms(), clock.now_ms() + wait_ms, reason)

        budget = Budget(clock, on_pause=keep)
        if kept := pauses.pause(host):
            since_ms, until_ms, reason = kept
            # Never for longer than was told, however wrong the clock is or was: exits wait too.
            left_ms = min(until_ms - clock.now_ms(), until_ms - since_ms, LONGEST_BAN_MS)
            if left_ms > 0:
                budget.hold(Hold.ALL, left_ms, reason)
        return budget
