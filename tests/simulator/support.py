"""What the tests of the simulated exchange share: a client without a socket, one with, and files of klines."""

import hashlib
import hmac
import http.client
import json
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, urlsplit

import websocket

from bot.simulator import Endpoints, SimulatedExchange, SimulatorConfig
from bot.simulator.depth import Depth
from bot.simulator.exchange import Exchange
from bot.simulator.profiles import PROFILES, Profile
from bot.simulator.rest import HttpRequest, RestApi
from bot.simulator.ws_api import Answer as WsAnswer
from bot.simulator.ws_api import Session, WsApi
from bot.supervision import Clock, SystemClock
from bot.supervision.testing import ManualClock

NOW = 1_700_000_005_000  # five seconds into a minute and into a 10 s window
ORDER = "/api/v3/order"
PATIENCE_S = 60


@dataclass
class Answer:
    status: int
    json: Any
    headers: dict[str, str]

    @property
    def code(self) -> int:
        return self.json["code"]

    @property
    def msg(self) -> str:
        return self.json["msg"]

    def code_is(self, code: int, beginning: str) -> bool:
        """Tell whether this is a refusal with `code` and a text that begins so."""
        return self.status != 200 and self.code == code and self.msg.startswith(beginning)

    @property
    def error(self) -> tuple[int, int, str]:
        return self.status, self.code, self.msg


def query_of(params: dict[str, Any]) -> str:
    return "&".join(f"{name}={quote(str(value), safe='-_.~')}" for name, value in params.items())


def sign(secret: str, payload: str) -> str:
    return hmac.new(secret.encode(), payload.encode(), hashlib.sha256).hexdigest()


def ws_signed(client: "Client", params: dict[str, Any]) -> dict[str, Any]:
    """Return the params of a request of the WebSocket API with key, time and signature."""
    params = {"apiKey": client.key, "timestamp": client.clock.now_ms(), **client.patience, **params}
    return params | {"signature": sign(client.secret, "&".join(f"{k}={params[k]}" for k in sorted(params)))}


class Client:
    """Signs and asks; where the bytes go is up to `_send`."""

    clock: Clock
    key: str
    secret: str
    patience: Mapping[str, Any] = {}

    def _send(self, method: str, path: str, query: str, body: str, headers: dict[str, str]) -> Answer:
        raise NotImplementedError

    def get(self, path: str, **params: Any) -> Answer:
        return self._send("GET", path, query_of(params), "", {})

    def signed(self, method: str, path: str, in_body: bool = False, **params: Any) -> Answer:
        params = {"timestamp": self.clock.now_ms(), **self.patience, **params}
        text = query_of(params)
        text += f"&signature={sign(self.secret, text)}"
        headers = {"x-mbx-apikey": self.key}
        if in_body:
            headers["content-type"] = "application/x-www-form-urlencoded"
        return self._send(method, path, "" if in_body else text, text if in_body else "", headers)

    def order(self, **params: Any) -> Answer:
        return self.signed("POST", ORDER, **{"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", **params})

    def limit(self, **params: Any) -> Answer:
        return self.order(**{"type": "LIMIT", "timeInForce": "GTC", **params})

    def balance(self, asset: str) -> tuple[Decimal, Decimal]:
        for balance in self.signed("GET", "/api/v3/account").json["balances"]:
            if balance["asset"] == asset:
                return Decimal(balance["free"]), Decimal(balance["locked"])
        raise KeyError(asset)


class Desk(Client):
    """An exchange without a socket or thread, on a clock that stands still."""

    def __init__(self, profile: str | Profile = "com", clock: ManualClock | None = None, **config: Any) -> None:
        chosen = PROFILES[profile] if isinstance(profile, str) else profile
        self.clock: ManualClock = clock or ManualClock(NOW)
        config = {"seed": 7, "profile": chosen.name, "symbols": ("BTCUSDT",), **config}
        self.exchange = Exchange(SimulatorConfig(**config), self.clock, chosen)
        self.rest = RestApi(self.exchange)
        self.key = self.exchange.api_key
        self.secret = self.exchange.api_secret
        self.ws_api = WsApi(self.exchange)
        self.session = Session("10.0.0.1", self.clock.now_ms())
        self.events: list[dict[str, Any]] = []
        self.exchange.account_events.sink = self.events.extend

    def ws_text(self, text: str) -> WsAnswer:
        return self.ws_api.respond(self.session, text)

    def ws(self, method: str, /, **params: Any) -> Any:
        """Ask the WebSocket API and return the first frame of its answer."""
        return json.loads(self.ws_text(json.dumps({"id": 1, "method": method, "params": params})).frames[0])

    def ws_signed(self, method: str, /, **params: Any) -> Any:
        return self.ws(method, **ws_signed(self, params))

    def _send(
        self, method: str, path: str, query: str, body: str, headers: dict[str, str], address: str = "10.0.0.1"
    ) -> Answer:
        request = HttpRequest(method, path, query.encode(), body.encode(), headers, address)
        self.last = self.rest.respond(request)
        is_json = self.last.content_type.startswith("application/json") and not self.last.is_cut
        return Answer(self.last.status, json.loads(self.last.body) if is_json else None, self.last.headers)

    def send(self, method: str, path: str, query: str = "", body: str = "", **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._send(method, path, query, body, named)

    def set_book(self, symbol: str = "BTCUSDT", *, bids: Any = (), asks: Any = ()) -> None:
        """Replace the book of this moment by the given (price, quantity) levels."""
        sides = [[[Decimal(p), Decimal(q)] for p, q in side] for side in (bids, asks)]
        self.exchange.markets[symbol].book.set(Depth(*sides), stays=False)

    def set_price(self, symbol: str, price: str) -> None:
        self.exchange.set_price(symbol, Decimal(price))
        self.exchange.advance(symbol, is_push=True)

    def give(self, asset: str, amount: str) -> None:
        self.exchange.books.balances[asset].free += Decimal(amount)


class LiveClient(Client):
    """Speaks HTTP to a started exchange, one connection a request. Patient: a busy machine stands still for seconds."""

    patience = MappingProxyType({"recvWindow": 60_000})

    def __init__(self, endpoints: Endpoints, clock: Clock | None = None) -> None:
        self.endpoints = endpoints
        self.clock = clock or SystemClock()
        self.key, self.secret = endpoints.api_key, endpoints.api_secret
        self._address = urlsplit(endpoints.rest_url).netloc

    def _send(self, method: str, path: str, query: str, body: str, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection(self._address, timeout=PATIENCE_S)
        try:
            connection.request(method, f"{path}?{query}" if query else path, body or None, headers)
            reply = connection.getresponse()
            text = reply.read()
            try:
                parsed = json.loads(text)
            except ValueError:
                parsed = text.decode()
            return Answer(reply.status, parsed, {k.lower(): v for k, v in reply.getheaders()})
        finally:
            connection.close()

    def control(self, path: str, /, **values: Any) -> Answer:
        return self._send("POST", f"/sim/{path}", "", json.dumps(values), {})

    def state(self) -> dict[str, Any]:
        return self.get("/sim/state").json

    def socket(self, path: str) -> "Socket":
        return Socket(websocket.create_connection(self.endpoints.ws_url + path, timeout=PATIENCE_S))

    def ws_api(self, query: str = "") -> "WsApiSocket":
        return WsApiSocket(self, websocket.create_connection(self.endpoints.ws_api_url + query, timeout=PATIENCE_S))

    def user_stream(self, query: str = "") -> "WsApiSocket":
        """Return a connection to the WebSocket API that is subscribed to the account."""
        socket = self.ws_api(query)
        assert socket.signed("userDataStream.subscribe.signature")["result"] == {"subscriptionId": 0}
        return socket


class Socket:
    """A websocket that hands out JSON frames."""

    def __init__(self, raw: websocket.WebSocket) -> None:
        self.raw = raw

    def read(self) -> Any:
        return json.loads(self.raw.recv())

    def drain(self, into: list[Any] | None = None) -> None:
        """Read until that raises."""
        while True:
            frame = self.read()
            if into is not None:
                into.append(frame)

    def klines_until(self, is_enough: Callable[[list[Any]], bool]) -> list[Any]:
        """Return kline events up to the one that makes them enough; how many wait to be read is a matter of chance."""
        events = [self.read_kline()]
        while not is_enough(events):
            assert len(events) < 100_000, "it never is enough"
            events.append(self.read_kline())
        return events

    def read_kline(self) -> Any:
        """Return the next kline event, bare or wrapped."""
        while True:
            frame = self.read()
            event = frame.get("data", frame)
            if event.get("e") == "kline":
                return event

    def ask(self, **message: Any) -> Any:
        """Send a control message and return its reply, klines in between left out."""
        return self.ask_text(json.dumps(message, separators=(",", ":")))

    def ask_text(self, text: str) -> Any:
        self.raw.send(text)
        while True:
            frame = self.read()
            if "result" in frame or "code" in frame:
                return frame

    def close(self) -> None:
        self.raw.close()


class WsApiSocket(Socket):
    """A connection to the WebSocket API: `ask` and `signed` return the reply, events that come meanwhile are kept."""

    def __init__(self, client: LiveClient, raw: websocket.WebSocket) -> None:
        super().__init__(raw)
        self._client = client
        self._kept: deque[Any] = deque()

    def post(self, method: str, params: dict[str, Any], request_id: Any = 1) -> None:
        self.raw.send(json.dumps({"id": request_id, "method": method, "params": params}))

    def request(self, method: str, /, **params: Any) -> Any:
        self.post(method, params)
        while "status" not in (frame := self.read()):
            self._kept.append(frame)
        return frame

    def signed(self, method: str, /, **params: Any) -> Any:
        return self.request(method, **ws_signed(self._client, params))

    def event(self) -> Any:
        """Return the next event of the account, bare."""
        frame = self._kept.popleft() if self._kept else self.read()
        assert list(frame) == ["subscriptionId", "event"], frame
        return frame["event"]

    def events_until(self, *wanted: str) -> list[Any]:
        """Return events up to the one of type `wanted`."""
        events = [self.event()]
        while events[-1]["e"] not in wanted:
            events.append(self.event())
        return events


@contextmanager
def running(
    profile: Profile | None = None, profile_name: str = "com", clock: ManualClock | None = None, **config: Any
) -> Any:
    """Start an exchange that updates often, yield a client, stop it.

    `clock` is for what is counted in windows or runs out: limits, listenKeys, candles. Updates, pings and faults go by
    the time of its loop whatever the clock.
    """
    exchange = SimulatedExchange(
        SimulatorConfig(**{"seed": 7, "interval_ms": 40, "profile": profile_name, **config}),
        clock=clock,
        profile=profile,
    )
    try:
        yield LiveClient(exchange.start(), clock)
    finally:
        exchange.stop()


def quick(**changes: Any) -> Profile:
    """Return binance.com's profile with other numbers."""
    return replace(PROFILES["com"], **changes)


def write_klines(path: Path, closes: list[str], first_open: int = 1_600_000_020_000, length: int = 60_000) -> Path:
    """Write a kline file in the archive's column order, one row per close."""
    rows = []
    for number, close in enumerate(closes):
        opened = first_open + number * length
        rows.append(f"{opened},{close},{close},{close},{close},2.5,{opened + length - 1},100.0,7,1.0,40.0,0")
    path.write_text("\n".join(rows) + "\n")
    return path
