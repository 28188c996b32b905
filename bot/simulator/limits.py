"""Decides when a client has asked too much: weights and orders in clock-aligned windows, 429, then a ban with 418.

Source: Binance, limits.
"""

from dataclasses import dataclass, field

from bot.simulator.errors import TEXTS, ApiError, banned
from bot.simulator.faults import Faults
from bot.simulator.profiles import Profile

MINUTE_MS = 60_000
DAY_MS = 86_400_000


@dataclass
class Window:
    """A count that returns to 0 at each multiple of `length_ms` on the clock (ms, UTC)."""

    length_ms: int
    limit: int
    _count: int = field(default=0, init=False)
    _start: int = field(default=-1, init=False)

    def count(self, now_ms: int) -> int:
        start = now_ms // self.length_ms
        if start != self._start:
            self._start, self._count = start, 0
        return self._count

    def add(self, now_ms: int, amount: int) -> None:
        self._count = max(0, self.count(now_ms) + amount)

    def seconds_left(self, now_ms: int) -> int:
        """Return whole seconds to the window's end, rounded up."""
        return -(-(self.length_ms - now_ms % self.length_ms) // 1000)


@dataclass
class _Client:
    weight: Window
    raw: Window
    connections: Window
    strikes: Window
    banned_until: int = 0
    bans: int = 0
    blocked_until: int = 0
    first_ban_ms: int = 0


class RequestLimits:
    """What each address has used. Times in ms by the exchange's clock."""

    def __init__(self, profile: Profile, faults: Faults) -> None:
        self._profile = profile
        self._faults = faults
        self._clients: dict[str, _Client] = {}

    def admit(self, address: str, weight: int, now_ms: int) -> None:
        """Charge a request before it is looked at. Raises ApiError -1003 with status 429, or 418 after going on."""
        client = self._client(address)
        self._order_faults(client, now_ms)
        self._check_ban(client, now_ms)
        client.raw.add(now_ms, 1)
        client.weight.add(now_ms, weight)
        if now_ms < client.blocked_until:
            self._strike(client, now_ms, -(-(client.blocked_until - now_ms) // 1000), TEXTS[-1003])
        if client.raw.count(now_ms) > client.raw.limit:
            self._strike(
                client,
                now_ms,
                client.raw.seconds_left(now_ms),
                f"Too many requests; current limit is {client.raw.limit} requests per 5 MINUTE.",
            )
        if client.weight.count(now_ms) > client.weight.limit:
            self._strike(
                client,
                now_ms,
                client.weight.seconds_left(now_ms),
                f"Too much request weight used; current limit is {client.weight.limit} request weight per 1 MINUTE. "
                "Please use WebSocket Streams for live updates to avoid polling the API.",
            )

    def admit_connection(self, address: str, now_ms: int) -> None:
        """Count a websocket connection attempt. Raises ApiError -1003 beyond 300 in 5 minutes."""
        client = self._client(address)
        self._check_ban(client, now_ms)
        client.connections.add(now_ms, 1)
        if client.connections.count(now_ms) > client.connections.limit:
            raise ApiError(-1003, "Too many connection attempts.", 429, client.connections.seconds_left(now_ms))

    def refund(self, address: str, weight: int, now_ms: int) -> None:
        """Give back what a successful order was charged."""
        self._client(address).weight.add(now_ms, -weight)

    def used_weight(self, address: str, now_ms: int) -> int:
        return self._client(address).weight.count(now_ms)

    def seconds_left(self, now_ms: int) -> int:
        """Return whole seconds to the end of the minute in which weights are counted."""
        return Window(MINUTE_MS, 0).seconds_left(now_ms)

    def _client(self, address: str) -> _Client:
        client = self._clients.get(address)
        if client is None:
            profile = self._profile
            client = self._clients[address] = _Client(
                Window(MINUTE_MS, profile.weight_per_minute),
                Window(5 * MINUTE_MS, profile.raw_per_5_minutes),
                Window(5 * MINUTE_MS, profile.connections_per_5_minutes),
                Window(MINUTE_MS, profile.strikes_before_ban),
            )
        return client

    def _check_ban(self, client: _Client, now_ms: int) -> None:
        if now_ms < client.banned_until:
            raise ApiError(-1003, banned(client.banned_until), 418, -(-(client.banned_until - now_ms) // 1000))

    def _order_faults(self, client: _Client, now_ms: int) -> None:
        """Let this client be over the limit, or banned, if a fault waits for the next request."""
        fault = self._faults.take("rate_limit")
        if fault is not None:
            client.blocked_until = now_ms + (fault.ms or 1000 * self.seconds_left(now_ms))
            client.strikes.add(now_ms, -client.strikes.limit)
            client.strikes.limit = fault.strikes or self._profile.strikes_before_ban
            client.first_ban_ms = fault.ban_ms or self._profile.first_ban_ms
        fault = self._faults.take("ban")
        if fault is not None:
            client.first_ban_ms = fault.ms or self._profile.first_ban_ms
            self._ban(client, now_ms)

    def _ban(self, client: _Client, now_ms: int) -> None:
        """Ban a client, each time for twice as long."""
        first = client.first_ban_ms or self._profile.first_ban_ms
        client.banned_until = now_ms + min(first * 2**client.bans, self._profile.longest_ban_ms)
        client.bans += 1

    def _strike(self, client: _Client, now_ms: int, seconds: int, message: str) -> None:
        client.strikes.add(now_ms, 1)
        if client.strikes.count(now_ms) > client.strikes.limit:
            self._ban(client, now_ms)
            self._check_ban(client, now_ms)
        raise ApiError(-1003, message, 429, seconds)


class OrderLimits:
    """The account's unfilled orders. A first fill gives back 1 as a taker and 5 as a maker; a cancel nothing."""

    MAKER_CREDIT = 5

    def __init__(self, profile: Profile) -> None:
        self._sends_retry_after = profile.order_limit_sends_retry_after
        self.ten_seconds = Window(10_000, profile.orders_per_10_seconds)
        self.day = Window(DAY_MS, profile.orders_per_day)

    def check(self, now_ms: int) -> None:
        """Raise ApiError -1015 if one more order would be too many."""
        for window, text in ((self.day, "1 DAY"), (self.ten_seconds, "10 SECOND")):
            if window.count(now_ms) >= window.limit:
                seconds = window.seconds_left(now_ms) if self._sends_retry_after else None
                message = f"Too many new orders; current limit is {window.limit} orders per {text}."
                raise ApiError(-1015, message, 429, seconds)

    def placed(self, now_ms: int, is_filled: bool) -> None:
        """Count an accepted order; `is_filled`: at least in part, at once."""
        for window in (self.ten_seconds, self.day):
            window.add(now_ms, 1)
            if is_filled:
                window.add(now_ms, -1)

    def filled_as_maker(self, now_ms: int) -> None:
        for window in (self.ten_seconds, self.day):
            window.add(now_ms, -self.MAKER_CREDIT)
