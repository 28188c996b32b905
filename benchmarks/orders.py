"""From the frame that triggers a trade to its order: the bot beside two plain scripts, over loopback, in one run.

    python -m benchmarks.orders [--orders N] [--subjects plain stock bot]

This process is the exchange: bare sockets, one thread. It stamps the moment before it sends a frame and the moment
at which the order's first bytes are here; both ways over loopback are the same for all. The subjects are processes:

* plain: one thread, websocket-client, msgspec, the rule, a signed order over a kept-alive http.client connection;
* stock: the same, but python-binance's create_order;
* bot: `python -m bot.main run --mode testnet`, with all its actors, checks and the durable journal.

3 symbols trade by turns; alone, or with 97 others beside that have an update a second each. Burst: the candles of 100
symbols close at once, and the last of them trades. The subjects take turns too, a few orders each, so that the ratios
hold on a machine that does other things; times do not. Its tails are the machine's then: `chrt -f 5 python -m ...` (by
root) keeps the others out.
"""

import argparse
import base64
import hashlib
import json
import os
import platform
import random
import re
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

from rich.console import Console
from rich.table import Table

from benchmarks.plain_bots import KEY, SECRET
from bot.adapters.sqlite import SqliteJournal
from bot.domain.order import Fill, OrderIntent, OrderReport, OrderStatus, Side

ROOT = Path(__file__).parents[1]
SUBJECTS = ("plain", "stock", "bot")
FEW = ("BTCUSDT", "ETHUSDT", "DOGEUSDT")
MANY = (*FEW, *(f"C{number:02}USDT" for number in range(97)))
PRICE, DROP = 100.0, 0.97
ROUNDS, WARM_UP = 6, 3
Found = tuple[str, str, list[float | None]]
MINUTE_MS = 60_000
GAP_S = (0.015, 0.025)
"""Between an order's end and the next frame."""


class Exchange:
    """Answers what a bot asks, sends klines when told to, and says when an order's first bytes were here.

    Whoever shares a selector is served whenever one of them is.
    """

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._selector = selector
        self._selector.register(self._listener, selectors.EVENT_READ, self)
        self._unread: dict[socket.socket, bytes] = {}
        self._streams: dict[str, tuple[socket.socket, bool]] = {}
        self._numbers = 0
        self._ahead_ms = 0
        self._event_time: dict[str, int] = {}
        self._candle: dict[str, int] = {}
        self.close_of: dict[str, float] = {}
        self.ordered_at = 0
        self.orders = 0

    def close(self) -> None:
        for connection in (*self._unread, self._listener):
            self._selector.unregister(connection)
            connection.close()

    def has_streams(self, symbols: tuple[str, ...]) -> bool:
        return all(symbol in self._streams for symbol in symbols)

    def serve(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Serve for some time, or until a condition holds; return whether it does."""
        end = time.perf_counter() + seconds
        while not until():
            left = end - time.perf_counter()
            if left <= 0:
                return False
            for key, _ in self._selector.select(left):
                key.data._ready(key.fileobj)
        return True

    def next_minute(self) -> None:
        """Let the market's clock, which the klines show, jump to the next minute's begin."""
        now = self._market_ms()
        self._ahead_ms += MINUTE_MS - now % MINUTE_MS

    def push(self, symbol: str, close: float) -> int:
        """Send an update of the running candle; return the moment before it left, ns."""
        self.close_candle(symbol, self.close_of.get(symbol, close))
        now = self._event_time[symbol] = max(self._event_time.get(symbol, 0) + 1, self._market_ms())
        return self._send(symbol, close, self._candle[symbol], now, is_closed=False)

    def close_candle(self, symbol: str, close: float) -> int:
        """Send the end of a candle whose minute is over; return the moment before it left, ns, 0 if none is."""
        begin, now = self._market_ms() // MINUTE_MS * MINUTE_MS, 0
        while self._candle.setdefault(symbol, begin) < begin:
            now = self._send(symbol, close, self._candle[symbol], self._candle[symbol] + MINUTE_MS, is_closed=True)
            self._candle[symbol] += MINUTE_MS
        return now

    def _market_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self._ahead_ms

    def _send(self, symbol: str, close: float, begin: int, now: int, is_closed: bool) -> int:
        self.close_of[symbol] = close
        price = f"{close:.8f}"
        kline: dict[str, Any] = {"t": begin, "T": begin + MINUTE_MS - 1, "s": symbol, "i": "1m", "f": 1, "L": 2}
        kline |= {"o": price, "c": price, "h": price, "l": price, "v": "3.18402", "n": 2, "x": is_closed}
        kline |= {"q": "318.402", "V": "1.5011", "Q": "150.11", "B": "0"}
        event: dict[str, Any] = {"e": "kline", "E": now, "s": symbol, "k": kline}
        connection, is_combined = self._streams[symbol]
        text = json.dumps({"stream": f"{symbol.lower()}@kline_1m", "data": event} if is_combined else event).encode()
        frame = b"\x81" + bytes([126]) + len(text).to_bytes(2, "big") + text
        sent = time.perf_counter_ns()
        connection.sendall(frame)
        return sent

    def _ready(self, at: Any) -> None:
        if at is self._listener:
            connection, _ = self._listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._unread[connection] = b""
            self._selector.register(connection, selectors.EVENT_READ, self)
            return
        try:
            piece = at.recv(65536)
        except OSError:
            piece = b""
        now = time.perf_counter_ns()
        if not piece:
            self._selector.unregister(at)
            del self._unread[at]
            self._streams = {name: kept for name, kept in self._streams.items() if kept[0] is not at}
            at.close()
            return
        if any(connection is at for connection, _ in self._streams.values()):
            return  # pongs
        before = self._unread[at]
        if not before and piece.startswith(b"POST /api/v3/order"):
            self.ordered_at = now
        self._unread[at] = self._answer(at, before + piece)

    def _answer(self, connection: socket.socket, data: bytes) -> bytes:
        """Answer a request that is complete; return what is unread."""
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            return data
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        size = int(length[1]) if length else 0
        if len(rest) < size:
            return data
        method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
        key = re.search(rb"(?i)sec-websocket-key: *(\S+)", head)
        if key:
            self._upgrade(connection, target, key[1].decode())
            return b""
        path, _, query = target.partition("?")
        values = {name: value[0] for name, value in parse_qs(f"{query}&{rest[:size].decode()}").items()}
        status, reply = self._reply(method, path, values)
        body = json.dumps(reply).encode()
        headers = "X-MBX-USED-WEIGHT-1M: 1\r\nX-MBX-ORDER-COUNT-10S: 0\r\nX-MBX-ORDER-COUNT-1D: 0"
        kind = "Content-Type: application/json;charset=UTF-8"
        connection.sendall(
            f"HTTP/1.1 {status}\r\n{kind}\r\n{headers}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )
        return rest[size:]

    def _upgrade(self, connection: socket.socket, target: str, key: str) -> None:
        accept = base64.b64encode(hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()).decode()
        connection.sendall(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )
        for name in re.findall(r"([a-z0-9]+)@kline", unquote(target)):
            self._streams[name.upper()] = (connection, target.startswith("/stream"))

    def _reply(self, method: str, path: str, values: dict[str, str]) -> tuple[str, Any]:
        match (method, path.rpartition("v3/")[2]):
            case ("POST", "order"):
                return "200 OK", self._order(values)
            case (_, "time"):
                return "200 OK", {"serverTime": time.time_ns() // 1_000_000}
            case (_, "exchangeInfo"):
                return "200 OK", {"symbols": [symbol_info(s) for s in json.loads(values["symbols"])]}
            case (_, "account"):
                return "200 OK", {
                    "uid": 1,
                    "canTrade": True,
                    "balances": [
                        {"asset": asset, "free": "100000", "locked": "0"}
                        for asset in ("USDT", *(symbol.removesuffix("USDT") for symbol in MANY))
                    ],
                }
            case (_, "avgPrice"):
                return "200 OK", {"mins": 5, "price": f"{self.close_of.get(values['symbol'], PRICE):.8f}"}
            case (_, "ticker/bookTicker"):
                names = json.loads(values["symbols"]) if "symbols" in values else [values["symbol"]]
                rows = [{"symbol": s, "price": f"{self.close_of.get(s, PRICE):.8f}"} for s in names]
                return "200 OK", [{**row, "bidPrice": row["price"], "askPrice": row["price"]} for row in rows]
            case (_, "klines" | "openOrders" | "allOrders" | "myTrades"):
                return "200 OK", []
            case ("GET", "order"):
                return "400 Bad", {"code": -2013, "msg": "Order does not exist."}
        if path.endswith("apiRestrictions"):
            return "200 OK", {"enableWithdrawals": False, "enableReading": True, "enableSpotAndMarginTrading": True}
        return "404 Not Found", {}

    def _order(self, values: dict[str, str]) -> dict[str, Any]:
        self.orders += 1
        self._numbers += 1
        symbol, quantity = values["symbol"], values["quantity"]
        price = f"{self.close_of[symbol]:.8f}"
        fee = {"commission": "0", "commissionAsset": symbol.removesuffix("USDT")}
        return {
            "symbol": symbol,
            "orderId": self._numbers,
            "clientOrderId": values.get("newClientOrderId", ""),
            "transactTime": time.time_ns() // 1_000_000,
            "executedQty": quantity,
            "status": "FILLED",
            "fills": [{"price": price, "qty": quantity, "tradeId": self._numbers, **fee}],
        }


def symbol_info(symbol: str) -> dict[str, Any]:
    lot = {"minQty": "0.00001", "maxQty": "9000", "stepSize": "0.00001"}
    return {
        "symbol": symbol,
        "status": "TRADING",
        "baseAsset": symbol.removesuffix("USDT"),
        "quoteAsset": "USDT",
        **dict.fromkeys(("baseAssetPrecision", "quoteAssetPrecision", "quotePrecision"), 8),
        **dict.fromkeys(("baseCommissionPrecision", "quoteCommissionPrecision"), 8),
        "orderTypes": ["LIMIT", "MARKET"],
        "isSpotTradingAllowed": True,
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000", "tickSize": "0.01"},
            {"filterType": "LOT_SIZE", **lot},
            {"filterType": "NOTIONAL", "minNotional": "5", "applyMinToMarket": True, "maxNotional": "9000000"}
            | {"applyMaxToMarket": False, "avgPriceMins": 0},
        ],
    }


@contextmanager
def subject(kind: str, symbols: tuple[str, ...], exchange: Exchange) -> Iterator[None]:
    """Run a subject as a process until the block is left."""
    rest, ws = f"http://127.0.0.1:{exchange.port}", f"ws://127.0.0.1:{exchange.port}"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.plain_bots", kind, rest, ws, *symbols]
        settings = {name: value for name, value in os.environ.items() if not name.startswith("BOT_")}
        if kind == "bot":
            command = [sys.executable, "-m", "bot.main", "run", "--mode", "testnet", "--data-dir", f"{folder}/data"]
            settings |= {"BOT_EXCHANGE__REST_URL": rest, "BOT_EXCHANGE__WS_URL": ws, "BOT_SYMBOLS": ",".join(symbols)}
            settings |= {"BOT_API_KEY": KEY, "BOT_API_SECRET": SECRET, "BOT_FRACTION": "0.005"}
        with open(f"{folder}/said", "wb") as said:
            process = subprocess.Popen(
                command, cwd=ROOT, env=settings, stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )
            try:
                ready = exchange.serve(60, lambda: exchange.has_streams(symbols) or process.poll() is not None)
                if not ready or process.poll() is not None:
                    raise SystemExit(f"{kind} did not start:\n{Path(said.name).read_text()[-3000:]}")
                exchange.serve(2)
                yield
            finally:
                process.terminate()
                exchange.serve(15, lambda: process.poll() is not None)
                process.kill()
                process.wait()


def moved(exchange: Exchange, symbol: str) -> float:
    """Return a price at which a symbol trades."""
    return PRICE * DROP if exchange.close_of[symbol] == PRICE else PRICE


def until_ordered(exchange: Exchange, push: Callable[[], int]) -> float | None:
    """Return the time from a frame to its order's first bytes, us; None if there is none within a second."""
    orders = exchange.orders
    sent = push()
    if not exchange.serve(1, lambda: exchange.orders > orders):
        return None
    return (exchange.ordered_at - sent) / 1000


def measure(exchange: Exchange, symbols: tuple[str, ...], orders: int, rng: random.Random) -> list[float | None]:
    """Trade the few symbols by turns while each of the others has an update a second."""
    times: list[float | None] = []
    others = [s for s in symbols if s not in FEW]
    updates, due = 0, time.perf_counter()
    for number in range(orders + WARM_UP):
        symbol = FEW[number % len(FEW)]
        if exchange.close_candle(symbol, exchange.close_of[symbol]):
            exchange.serve(0.02)
        times.append(until_ordered(exchange, partial(exchange.push, symbol, moved(exchange, symbol))))
        end = time.perf_counter() + rng.uniform(*GAP_S)
        while others and due < end:
            exchange.serve(due - time.perf_counter())
            exchange.push(others[updates % len(others)], PRICE)
            updates, due = updates + 1, due + 1 / len(others)
        exchange.serve(end - time.perf_counter())
    return times[WARM_UP:]


def measure_bursts(exchange: Exchange, bursts: int) -> list[float | None]:
    """Close the candles of all symbols at once; return how long the order of the last one took, which alone trades."""
    times = []
    for _ in range(bursts):
        exchange.next_minute()
        for symbol in MANY[1:]:
            exchange.close_candle(symbol, exchange.close_of[symbol])
        times.append(until_ordered(exchange, partial(exchange.close_candle, FEW[0], moved(exchange, FEW[0]))))
        exchange.serve(0.25)
    return times


def measure_scene(kinds: Sequence[str], symbols: tuple[str, ...], orders: int, bursts: int) -> Iterator[Found]:
    """Measure the subjects by turns, so that what else the machine does meets them all; the others idle meanwhile."""
    rng = random.Random(1)
    with selectors.DefaultSelector() as selector, ExitStack() as stack:
        exchanges = {kind: stack.enter_context(closing(Exchange(selector))) for kind in kinds}
        for kind, exchange in exchanges.items():
            stack.enter_context(subject(kind, symbols, exchange))
            for symbol in symbols:
                exchange.push(symbol, PRICE)
            exchange.serve(0.5)
            measure(exchange, symbols, 20, rng)
        for _ in range(ROUNDS):
            for kind, exchange in exchanges.items():
                yield f"{len(symbols)} symbols", kind, measure(exchange, symbols, orders // ROUNDS, rng)
                if bursts:
                    yield "burst of 100", kind, measure_bursts(exchange, bursts // ROUNDS)


def measure_journal(count: int) -> tuple[list[float], list[float]]:
    """Return what recording an intent and settling its order take, us, one at a time as the bot does them."""
    record, settle = [], []
    with tempfile.TemporaryDirectory() as folder, SqliteJournal(Path(folder) / "orders.db") as journal:
        for number in range(count):
            name = f"bh-{number}"
            price, half = Decimal(100), Decimal("0.5")
            intent = OrderIntent(name, "BTCUSDT", Side.BUY, half, price, 0, number, "fell", Decimal(50))
            amounts = (price, half, Decimal(50), Decimal(0))
            fill = Fill(name, number, number, "BTCUSDT", Side.BUY, *amounts, "BTC", number)
            report = OrderReport(name, number, "BTCUSDT", OrderStatus.FILLED, (fill,))
            began = time.perf_counter_ns()
            journal.record(intent)
            recorded = time.perf_counter_ns()
            journal.settle(report)
            settle.append((time.perf_counter_ns() - recorded) / 1000)
            record.append((recorded - began) / 1000)
    return record, settle


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, round(len(values) * share))]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="from a frame to its order, in microseconds")
    parser.add_argument("--orders", type=int, default=300, help="orders a subject and scene (default 300)")
    parser.add_argument("--bursts", type=int, default=60, help="bursts a subject (default 60)")
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    options = parser.parse_args(arguments)
    load = os.getloadavg()[0]
    found: dict[tuple[str, str], list[float | None]] = {}
    for symbols, bursts in ((FEW, 0), (MANY, options.bursts)):
        for scene, kind, times in measure_scene(options.subjects, symbols, options.orders, bursts):
            found.setdefault((scene, kind), []).extend(times)
    report(found, load)
    for name, took in zip(("an intent recorded", "its order settled"), measure_journal(2000), strict=True):
        print(f"journal, {name}: median {statistics.median(took):.0f}, p99 {percentile(took, 0.99):.0f} us")
    return 0


def report(found: Mapping[tuple[str, str], list[float | None]], load: float) -> None:
    table = Table(title="frame to order, us")
    for column in ("scene", "subject", "median", "p90", "p99", "max", "of plain", "of stock", "orders", "missed"):
        table.add_column(column, justify="left" if column in ("scene", "subject") else "right")
    for scene in dict.fromkeys(scene for scene, _ in found):
        taken = {kind: [took for took in found[of, kind] if took is not None] for of, kind in found if of == scene}
        medians = {kind: statistics.median(times) for kind, times in taken.items() if times}
        for kind, median in medians.items():
            times = taken[kind]
            values = (median, percentile(times, 0.9), percentile(times, 0.99), max(times))
            ratios = [f"{median / medians[other]:.2f}" if other in medians else "" for other in ("plain", "stock")]
            missed = len(found[scene, kind]) - len(times)
            table.add_row(scene, kind, *(f"{value:.0f}" for value in values), *ratios, str(len(times)), str(missed))
        table.add_section()
    Console(width=120).print(table)
    loads = f"load {load:.1f} before and {os.getloadavg()[0]:.1f} after"
    print(f"missed: no order within 1 s; Python {platform.python_version()}, {os.cpu_count()} cores, {loads}")


if __name__ == "__main__":
    sys.exit(main())
