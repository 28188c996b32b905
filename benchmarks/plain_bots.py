"""What people write instead of a bot: one thread that reads, decides and orders, and keeps nothing.

    python -m benchmarks.plain_bots plain|stock REST_URL WS_URL SYMBOL...

`plain` signs its orders itself and sends them over a kept-alive http.client connection; `stock` calls
python-binance's create_order.
"""

import hashlib
import hmac
import http.client
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from urllib.parse import urlencode, urlsplit

import msgspec
import websocket

KEY, SECRET = "k" * 64, "s" * 64
BUY_FACTOR, SELL_FACTOR = Decimal("0.99"), Decimal("1.01")
QUANTITY = "0.5"


class Candle(msgspec.Struct, gc=False):
    c: str
    x: bool


class Event(msgspec.Struct, gc=False):
    s: str
    k: Candle


class Frame(msgspec.Struct, gc=False):
    data: Event


def plain(rest_url: str) -> Callable[[str, str], None]:
    parts = urlsplit(rest_url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    connection.connect()
    signing = hmac.new(SECRET.encode(), digestmod=hashlib.sha256)
    headers = {"X-MBX-APIKEY": KEY, "Content-Type": "application/x-www-form-urlencoded"}
    decoder = msgspec.json.Decoder()

    def order(symbol: str, side: str) -> None:
        form = urlencode(
            {
                "symbol": symbol,
                "side": side,
                "type": "MARKET",
                "quantity": QUANTITY,
                "recvWindow": "3000",
                "timestamp": time.time_ns() // 1_000_000,
            }
        )
        signature = signing.copy()
        signature.update(form.encode())
        connection.request("POST", "/api/v3/order", f"{form}&signature={signature.hexdigest()}", headers)
        assert decoder.decode(connection.getresponse().read())["status"] == "FILLED"

    return order


def stock(rest_url: str) -> Callable[[str, str], None]:
    from binance.client import Client

    client = Client(KEY, SECRET, ping=False)
    client.API_URL = f"{rest_url}/api"
    client.get_server_time()

    def order(symbol: str, side: str) -> None:
        assert client.create_order(symbol=symbol, side=side, type="MARKET", quantity=QUANTITY)["status"] == "FILLED"

    return order


def main(kind: str, rest_url: str, ws_url: str, *symbols: str) -> None:
    order = {"plain": plain, "stock": stock}[kind](rest_url)
    streams = "/".join(f"{symbol.lower()}@kline_1m" for symbol in symbols)
    stream = websocket.create_connection(f"{ws_url}/stream?streams={streams}", timeout=60, skip_utf8_validation=True)
    decoder = msgspec.json.Decoder(Frame)
    last: dict[str, Decimal] = {}
    holds: set[str] = set()
    while True:
        event = decoder.decode(stream.recv()).data
        close, previous = Decimal(event.k.c), last.get(event.s)
        last[event.s] = close
        if previous is not None and close <= previous * BUY_FACTOR:
            order(event.s, "BUY")
            holds.add(event.s)
        elif previous is not None and event.s in holds and close >= previous * SELL_FACTOR:
            order(event.s, "SELL")
            holds.discard(event.s)


if __name__ == "__main__":
    main(*sys.argv[1:])
