"""An order by the WebSocket API's order.place beside the same order over HTTP, by turns in one run.

    python -m benchmarks.order_ways [--orders 300]

The simulated exchange is a process of its own on loopback. The clients are plain, one thread: `session` is the bot's
kept-alive HTTP session, `http.client` the plain script's connection, `order.place` a websocket of websocket-client, as
the bot's streams have. All sign in the same way, with the key's hash prepared. Left: from the decision to the moment at
which the request's bytes have left; replied: until its reply is there. Between two orders there is a pause, since an
order is seldom; `thread` is the CPU until the bytes have left.
"""

import argparse
import hashlib
import hmac
import http.client
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlencode, urlsplit

import msgspec
import websocket
from rich.console import Console
from rich.table import Table

from benchmarks.unlimited_exchange import unlimited_exchange
from bot.adapters.binance.connector import Connector
from bot.adapters.binance.session import FORM, Session

PAUSE_S = 0.02
WARM_UP = 10
Order = dict[str, str]
Left = Callable[[], None]
Client = Callable[[Order, Left], bytes]


class Signer:
    """HMAC SHA256 of what is sent, the key's part prepared."""

    def __init__(self, secret: str) -> None:
        self._prepared = hmac.new(secret.encode(), digestmod=hashlib.sha256)

    def __call__(self, text: str) -> str:
        signature = self._prepared.copy()
        signature.update(text.encode())
        return signature.hexdigest()


def by_session(exchange: dict[str, str], sign: Signer) -> Client:
    session = Session(Connector(exchange["rest_url"], 2_000, 5_000), {"X-MBX-APIKEY": exchange["api_key"]})
    session.warm(1)
    url = f"{exchange['rest_url']}/api/v3/order"

    def place(order: Order, left: Left) -> bytes:
        form = urlencode(order)

        def leave(send: Callable[[], None]) -> None:
            send()
            left()

        return session.post(url, f"{form}&signature={sign(form)}", leave).content

    return place


def by_http_client(exchange: dict[str, str], sign: Signer) -> Client:
    parts = urlsplit(exchange["rest_url"])
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    connection.connect()
    headers = {"X-MBX-APIKEY": exchange["api_key"], "Content-Type": FORM}

    def place(order: Order, left: Left) -> bytes:
        form = urlencode(order)
        connection.request("POST", "/api/v3/order", f"{form}&signature={sign(form)}", headers)
        left()
        return connection.getresponse().read()

    return place


def by_websocket(exchange: dict[str, str], sign: Signer) -> Client:
    socket = websocket.create_connection(exchange["ws_api_url"], timeout=5, skip_utf8_validation=True)
    key, encode = exchange["api_key"], msgspec.json.Encoder().encode

    def place(order: Order, left: Left) -> bytes:
        params = {"apiKey": key, **order}
        # Signed is what the names, in their order, stand for. Source: Binance, WebSocket API, request security.
        params["signature"] = sign("&".join([f"{name}={params[name]}" for name in sorted(params)]))
        socket.send(encode({"id": order["newClientOrderId"], "method": "order.place", "params": params}))
        left()
        return bytes(socket.recv(), "utf-8")

    return place


WAYS = {"session": by_session, "http.client": by_http_client, "order.place": by_websocket}


def measure(orders: int) -> dict[str, list[tuple[float, float, float]]]:
    """Return what each order took, us: until it had left, until its reply was there, and its CPU until it had left."""
    found: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
    with unlimited_exchange(("BTCUSDT",), interval_ms=1_000) as exchange:
        clients = [(way, make(exchange, Signer(exchange["api_secret"]))) for way, make in WAYS.items()]
        for number in range(orders + WARM_UP):
            clients = [*clients[1:], clients[0]]
            for way, place in clients:
                time.sleep(PAUSE_S)
                moments: list[tuple[int, int]] = []

                def stamp(moments: list[tuple[int, int]] = moments) -> None:
                    moments.append((time.perf_counter_ns(), time.thread_time_ns()))

                stamp()
                side, quantity = ("SELL", "0.001") if number % 2 else ("BUY", "0.0011")  # some goes as commission
                order = {"symbol": "BTCUSDT", "side": side, "type": "MARKET", "quantity": quantity}
                order |= {"newClientOrderId": f"{way.replace('.', '-')}-{number}"}
                order |= {"recvWindow": "3000", "timestamp": str(time.time_ns() // 1_000_000)}
                reply = place(order, stamp)
                stamp()
                if b'"FILLED"' not in reply:
                    raise SystemExit(f"{way}: {reply[:300].decode()}")
                (began, cpu), (left, cpu_left), (replied, _) = moments
                found[way].append(((left - began) / 1e3, (replied - began) / 1e3, (cpu_left - cpu) / 1e3))
    return {way: taken[WARM_UP:] for way, taken in found.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="an order by HTTP and by the WebSocket API")
    parser.add_argument("--orders", type=int, default=300, help="orders by each way (default 300)")
    found = measure(parser.parse_args(arguments).orders)
    table = Table(title="an order's way out, us (medians)")
    for column in ("way", "left", "of session", "thread", "of session", "replied", "of session", "p90 left", "orders"):
        table.add_column(column, justify="left" if column == "way" else "right")
    medians = {way: [statistics.median(column) for column in zip(*rows, strict=True)] for way, rows in found.items()}
    base = medians["session"]
    for way, (left, replied, cpu) in medians.items():
        p90 = statistics.quantiles([row[0] for row in found[way]], n=10)[-1]
        ratios = [f"{value / of:.2f}" for value, of in zip((left, replied, cpu), base, strict=True)]
        cells = (f"{left:.0f}", ratios[0], f"{cpu:.0f}", ratios[2], f"{replied:.0f}", ratios[1], f"{p90:.0f}")
        table.add_row(way, *cells, str(len(found[way])))
    Console(width=120).print(table)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
