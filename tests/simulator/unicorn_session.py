"""A session of unicorn-binance-websocket-api: streams, an order by the WebSocket API, its events. Prints `done`.

Run by test_foreign_clients.py in the environment that scripts/foreign makes; arguments: the three URLs, key, secret.
"""

import queue
import sys
from typing import Any

from unicorn_binance_websocket_api import BinanceWebSocketApiManager


def main(rest: str, streams: str, ws_api: str, key: str, secret: str) -> None:
    manager = BinanceWebSocketApiManager(
        exchange="binance.com",
        output_default="dict",
        warn_on_update=False,
        restful_base_uri=f"{rest}/",
        websocket_base_uri=f"{streams}/",
        websocket_api_base_uri=ws_api,
    )
    keys = {"api_key": key, "api_secret": secret}
    klines, events, replies = (queue.Queue[Any]() for _ in range(3))

    def into(channel: "queue.Queue[Any]") -> Any:
        return lambda stream_data, **_: channel.put(stream_data)

    try:
        manager.create_stream(["kline_1m"], ["btcusdt", "ethusdt"], process_stream_data=into(klines))
        seen: set[str] = set()
        while seen != {"BTCUSDT", "ETHUSDT"}:
            frame = klines.get(timeout=60)
            if "data" in frame:  # else the answer to its SUBSCRIBE
                seen.add(frame["data"]["s"])

        user = manager.create_stream("arr", "!userData", process_stream_data=into(events), **keys)
        api = manager.create_stream(api=True, process_stream_data=into(replies), **keys)
        assert manager.wait_till_stream_has_started(user)
        assert manager.wait_till_stream_has_started(api)
        _, placed = manager.api.spot.create_order(
            stream_id=api, order_type="MARKET", side="BUY", symbol="BTCUSDT", quantity=0.002, return_response=True
        )
        assert placed["result"]["status"] == "FILLED", placed
        told = []
        while not told or told[-1]["e"] != "outboundAccountPosition":
            frame = events.get(timeout=60)
            if "event" in frame:
                told.append(frame["event"])
        assert [told[0]["X"], told[-2]["X"]] == ["NEW", "FILLED"], told
        assert {event["i"] for event in told[:-1]} == {placed["result"]["orderId"]}
    finally:
        manager.stop_manager()
    print("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
