"""How a REST request leaves and what comes back: python-binance made safe for threads, pauses, the exchange's clock.

The only file that imports python-binance. Source: Binance, REST API, general information and timing security.
"""

import hashlib
import hmac
import re
import threading
from collections.abc import Callable, Mapping
from http.client import HTTPException
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import msgspec
from binance.client import Client

from bot.adapters.binance.budget import Budget, Priority
from bot.adapters.binance.connector import Connector, NotSent, cause
from bot.adapters.binance.errors import CallFailed, Reaction, describe, hold_after, reaction_to
from bot.adapters.binance.profiles import PROFILES
from bot.adapters.binance.replies import ErrorReply, ListenKeyReply, TimeReply, complaint
from bot.adapters.binance.session import Response, Session
from bot.ports import ConfigurationRefused, Leave, at_once
from bot.supervision import Clock

T = TypeVar("T")

SYNC_EVERY_MS = 300_000  # a machine's own drift is some 15 ms in that time
SYNC_AGAIN_MS = 10_000  # after a failed attempt, while the old measurement still serves


_errors = msgspec.json.Decoder(ErrorReply)
_decoders: dict[object, msgspec.json.Decoder[Any]] = {}
_building = threading.Lock()


def _decoder(shape: type[T]) -> msgspec.json.Decoder[T]:
    """Return the one decoder of a shape.

    Built by one thread at a time: msgspec 0.22 lets a second thread see a struct's half-built plan, and crashes.
    """
    decoder = _decoders.get(shape)
    if decoder is None:
        with _building:
            decoder = _decoders.setdefault(shape, msgspec.json.Decoder(shape))
    return decoder


_plain = re.compile(r"[A-Za-z0-9._~-]*").fullmatch


def _encoded(value: str) -> str:
    return value if _plain(value) else quote(value, "")


class _ThinClient(Client):  # type: ignore[misc]  # the library has no types
    """python-binance's client over a thin session, with signing prepared. Thread-safe.

    Its replies are the responses as received, whatever their status.
    """

    def __init__(
        self,
        connector: Connector,
        api_key: str,
        api_secret: str,
        recv_window_ms: int,
        exchange_now_ms: Callable[[], int],
    ) -> None:
        self._connector = connector
        self._recv_window = str(recv_window_ms)
        self._exchange_now_ms = exchange_now_ms
        self._hmac = hmac.new(api_secret.encode(), digestmod=hashlib.sha256)
        super().__init__(api_key or None, api_secret or None, ping=False)

    def _init_session(self) -> Session:
        return Session(self._connector, self._get_headers())

    def _get_request_kwargs(self, method: str, signed: bool, force_params: bool = False, **kwargs: Any) -> Any:
        """Return query or form. Unlike the library's own it signs what is sent, percent-encoded, and with our window.

        Source: Binance, request security: what is signed.
        """
        data: dict[str, str] = kwargs["data"]
        if signed:
            data |= {"recvWindow": self._recv_window, "timestamp": str(self._exchange_now_ms())}
        text = "&".join([f"{name}={_encoded(value)}" for name, value in data.items()])
        if signed:
            text = f"{text}&signature={self._hmac_signature(text)}"
        return {"params" if method == "get" else "data": text, "leave": kwargs["leave"]}

    def _hmac_signature(self, query_string: str) -> str:
        signature = self._hmac.copy()
        signature.update(query_string.encode())
        return signature.hexdigest()

    @staticmethod
    def _handle_response(response: Response) -> Response:
        return response


class RestClient:
    """Asks one REST host within its budget, from any number of threads."""

    def __init__(
        self,
        rest_url: str,
        clock: Clock,
        api_key: str = "",
        api_secret: str = "",
        recv_window_ms: int = 3000,
        connect_timeout_ms: int = 2000,
        read_timeout_ms: int = 5000,
        profile: str = "com",
        budget: Budget | None = None,
    ) -> None:
        rest_url = rest_url.rstrip("/")
        parts = urlsplit(rest_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path or parts.query:
            raise ConfigurationRefused(f"{rest_url!r} is no REST address: give scheme, host and port only")
        for name, value in (("BOT_API_KEY", api_key), ("BOT_API_SECRET", api_secret)):
            # Refused here without showing it: the HTTP library would print a header that it cannot send.
            if not value.isascii() or any(c.isspace() or not c.isprintable() for c in value):
                raise ConfigurationRefused(f"{name} holds a blank, a line break or an odd character: copy it again")
        self._rest_url = rest_url
        self._clock = clock
        self._read_timeout_ms = read_timeout_ms
        connector = Connector(rest_url, connect_timeout_ms, read_timeout_ms)
        self._client = _ThinClient(connector, api_key, api_secret, recv_window_ms, self.estimate_ms)
        self._profile = PROFILES[profile]
        self.budget = budget or Budget(clock)
        self._ahead_ms: int | None = None
        self._sync_due = 0

    def __repr__(self) -> str:
        return f"RestClient({self._rest_url!r})"

    def get(
        self,
        path: str,
        params: Mapping[str, str],
        shape: type[T],
        signed: bool = False,
        priority: Priority = Priority.REST,
    ) -> T:
        """Return a GET's reply, decoded once into `shape`. Raises CallFailed."""
        return self._ask("get", path, params, shape, signed, priority)

    def post_order(self, params: Mapping[str, str], shape: type[T], priority: Priority, leave: Leave) -> T:
        """Send a signed order; return its reply decoded into `shape`. Raises CallFailed, and what `leave` does."""
        return self._ask("post", "order", params, shape, True, priority, leave)

    def new_listen_key(self) -> str:
        """Return the key of the account's stream, where the exchange has no other way to it. Raises CallFailed."""
        return self._ask("post", "userDataStream", {}, ListenKeyReply, False, Priority.REST).listenKey

    def keep_listen_key(self, key: str) -> None:
        """Give a listenKey another hour. Raises CallFailed."""
        self._ask("put", "userDataStream", {"listenKey": key}, dict, False, Priority.REST)

    def spend(self, weight: int) -> None:
        """Count what is about to leave to the same host by another way than this. Raises CallFailed if it may not."""
        self.budget.settle(self.budget.admit(self.estimate_ms(), weight, Priority.QUESTION), None)

    def heed(self, status: int, code: int, message: str, retry_after: str | None) -> None:
        """Let nothing leave for as long as a refusal says; `retry_after` is in seconds."""
        held = hold_after(status, code, message, retry_after, self.estimate_ms())
        if held:
            self.budget.hold(*held, f"HTTP {status}")

    def server_time(self, priority: Priority = Priority.REST) -> int:
        """Return the exchange's clock as it says itself. Raises CallFailed."""
        return self._ask("get", "time", {}, TimeReply, False, priority).serverTime

    def now_ms(self, priority: Priority = Priority.REST) -> int:
        """Return the exchange's clock as measured, without a request while the measurement is young.

        An order does not wait for a new measurement: it takes one of up to twice that age.

        Raises CallFailed if there is no measurement at all.
        """
        patience = SYNC_EVERY_MS if priority in (Priority.EXIT, Priority.ENTRY) else 0
        if self._ahead_ms is None:
            self._sync(priority)
        elif self._clock.monotonic_ms() >= self._sync_due + patience:
            try:
                self._sync(priority)
            except CallFailed:
                self._sync_due = self._clock.monotonic_ms() - patience + SYNC_AGAIN_MS
        return self.estimate_ms()

    def warm(self, connections: int) -> None:
        """Have connections ready before they are needed. Raises CallFailed."""
        try:
            self._client.session.warm(connections)
        except NotSent as error:
            raise CallFailed(Reaction.NOT_SENT, f"cannot reach {self._rest_url}: {error}") from None

    def estimate_ms(self) -> int:
        """Return the exchange's clock as last measured, the machine's own before that; never asks."""
        if self._ahead_ms is None:
            return self._clock.now_ms()
        # On the monotonic clock, so that a step of the machine's own clock moves neither signatures nor deadlines.
        return self._clock.monotonic_ms() + self._ahead_ms

    def _sync(self, priority: Priority) -> None:
        """Measure the exchange's clock: serverTime - (sent + received) / 2. Raises CallFailed.

        The better of two: the first request also pays for opening the connection, which is no part of the way back.
        """
        measured = []
        for _ in range(2):
            sent = self._clock.monotonic_ms()
            server_time = self.server_time(priority)
            received = self._clock.monotonic_ms()
            measured.append((received - sent, server_time - (sent + received) // 2))
        self._ahead_ms = min(measured)[1]
        self._sync_due = self._clock.monotonic_ms() + SYNC_EVERY_MS

    def _ask(
        self,
        verb: str,
        path: str,
        params: Mapping[str, str],
        shape: type[T],
        signed: bool,
        priority: Priority,
        leave: Leave = at_once,
    ) -> T:
        if signed:
            try:
                self.now_ms(priority)
            except CallFailed as failed:
                # The clock could not be read, so that nothing was signed or sent.
                reaction = Reaction.NOT_SENT if failed.reaction is Reaction.ASK else failed.reaction
                raise CallFailed(reaction, f"no clock: {failed}", failed.code) from None
        try:
            body = self._send(verb, path, params, signed, priority, leave)
        except CallFailed as failed:
            if not signed or failed.reaction is not Reaction.RESYNC:
                raise
            try:
                self._sync(priority)
            except CallFailed:
                raise failed from None
            body = self._send(verb, path, params, signed, priority, leave)  # a refusal for its time was not executed
        try:
            return _decoder(shape).decode(body)
        except (ValueError, RecursionError) as error:
            raise CallFailed(Reaction.ASK, f"{path}: reply not understood: {complaint(error)}") from None

    def _send(
        self, verb: str, path: str, params: Mapping[str, str], signed: bool, priority: Priority, leave: Leave
    ) -> bytes:
        method = verb.upper()
        weight = self._profile.weight(method, path, params)
        try:
            ticket = self.budget.admit(
                self.estimate_ms(), weight, priority, is_order=(method, path) == ("POST", "order")
            )
        except CallFailed as failed:
            raise CallFailed(failed.reaction, f"{path}: {failed}") from None
        headers: Mapping[str, str] | None = None
        url = self._rest_url + (path if path.startswith("/") else f"/api/v3/{path}")
        try:
            response: Response = self._client._request(verb, url, signed, data=dict(params), leave=leave)
            headers = response.headers
        except NotSent as error:
            raise CallFailed(Reaction.NOT_SENT, f"cannot reach {self._rest_url}: {error}") from None
        except TimeoutError:
            raise CallFailed(Reaction.ASK, f"{path}: no reply within {self._read_timeout_ms} ms") from None
        except (OSError, HTTPException, ValueError) as error:
            raise CallFailed(Reaction.ASK, f"{path}: connection lost: {cause(error)}") from None
        finally:
            self.budget.settle(ticket, headers)
        body = response.content
        if not 200 <= response.status_code < 300:
            raise self._refusal(path, response.status_code, body, headers)
        return body

    def _refusal(self, path: str, status: int, body: bytes, headers: Mapping[str, str]) -> CallFailed:
        try:
            reply = _errors.decode(body)
        except (ValueError, RecursionError):
            reply = ErrorReply(code=0)  # HTML of a firewall or a gateway, or nothing
        code, message = reply.code, reply.msg
        self.heed(status, code, message, headers.get("retry-after"))
        return CallFailed(
            reaction_to(status, code, message), f"{path}: {describe(status, code, message)}", code, status
        )
