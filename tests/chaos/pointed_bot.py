"""The bot's own command line, in which SIGKILL strikes at a named point: `python -m tests.chaos.pointed_bot run ...`.

The points are wrapped round the real classes before the bot starts; nothing in it knows of them. One is armed by the
environment (BULKHEAD_POINT) from the start on, or at any time by the control socket: {"command": "arm", "point": ...}.
{"command": "done", "symbol": ..., "close_time": ...} tells whether a kline and all that came of it is done.
"""

import http.client
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

POINTS = (
    "kline, before it is passed on",
    "kline, passed on",
    "proposal, before it is told",
    "proposal, before it is sized",
    "proposal, answered",
    "intent, before it is stored",
    "intent, before its commit",
    "intent, stored",
    "request, before it is sent",
    "request, half of it sent",
    "request, written",
    "reply, before it is read",
    "reply, read",
    "settlement, before it is stored",
    "settlement, before its commit",
    "settlement, stored",
    "end, before it is booked",
    "end, booked",
    "trade, before the bridge is told",
    "trade, the bridge was told",
    "trade, before it is logged",
    "trade, logged",
    "store, before a trade is written",
    "store, before the commit",
    "store, written",
)
"""In the order in which a decision passes them."""

RECOVERY_POINTS = (
    "question, before it is asked",
    "question, answered",
    "settlement, before its commit",
    "settlement, stored",
)
"""Passed at a start that finds an order of unknown fate."""

MAY_LOSE = ("intent, stored", "request, before it is sent", "request, half of it sent", "request, written")
"""Where the intent is stored and it is not sure that the exchange got the whole request."""

NOWHERE = ""

_armed = [os.environ.get("BULKHEAD_POINT", NOWHERE)]
_within = threading.local()


def reach(point: str) -> None:
    if point != NOWHERE and point == _armed[0]:
        os.kill(os.getpid(), signal.SIGKILL)


def around(owner: type, name: str, before: str, after: str, when: Callable[..., bool] = lambda *_: True) -> None:
    """Make a method pass two points; `before` also names what a commit within it belongs to."""
    method = getattr(owner, name)
    what = before.partition(",")[0]

    def wrapped(self: Any, *arguments: Any, **more: Any) -> Any:
        if not when(*arguments):
            return method(self, *arguments, **more)
        reach(before)
        outer, _within.what = getattr(_within, "what", ""), what
        try:
            result = method(self, *arguments, **more)
        finally:
            _within.what = outer
        reach(after)
        return result

    setattr(owner, name, wrapped)


def wrap_actors() -> None:
    from bot.actors.feed import FeedActor
    from bot.actors.kafka_bridge import KafkaBridgeActor
    from bot.actors.portfolio import PortfolioActor
    from bot.actors.trader import TraderActor
    from bot.domain.order import Trade

    around(FeedActor, "_pass_on", "kline, before it is passed on", "kline, passed on")
    around(TraderActor, "_propose", "proposal, before it is told", NOWHERE)
    around(PortfolioActor, "_on_proposal", "proposal, before it is sized", "proposal, answered")
    around(PortfolioActor, "_on_ended", "end, before it is booked", "end, booked")
    around(TraderActor, "_tell_trade", "trade, before the bridge is told", "trade, the bridge was told")
    around(
        *(KafkaBridgeActor, "_on_entry", "trade, before it is logged", "trade, logged"),
        when=lambda entry: isinstance(entry, Trade),
    )


def wrap_databases() -> None:
    from bot.adapters.sqlite import SqliteJournal, SqliteStore, database

    around(SqliteJournal, "record", "intent, before it is stored", "intent, stored")
    around(SqliteJournal, "settle", "settlement, before it is stored", "settlement, stored")
    around(
        SqliteStore, "write", "store, before a trade is written", "store, written", when=lambda _, trades, *rest: trades
    )
    real = database._transaction

    @contextmanager
    def transaction(connection: Any) -> Iterator[None]:
        with real(connection):
            yield
            what = getattr(_within, "what", "")
            reach("store, before the commit" if what == "store" else f"{what}, before its commit")

    database._transaction = transaction


def wrap_requests() -> None:
    from bot.adapters.binance import BinanceExchange
    from bot.adapters.binance.client import _ThinClient

    around(BinanceExchange, "find", "question, before it is asked", "question, answered")
    send, begin = http.client.HTTPConnection.send, http.client.HTTPResponse.begin
    # Of one thread, as a request and its reply are.
    order = threading.local()

    def sent(connection: Any, data: Any) -> None:
        order.is_sent = isinstance(data, bytes) and data.startswith(b"POST /api/v3/order")
        if order.is_sent:
            reach("request, before it is sent")
            if _armed[0] == "request, half of it sent":
                connection.sock.sendall(data[: len(data) // 2])
                reach("request, half of it sent")
        send(connection, data)
        if order.is_sent:
            reach("request, written")

    def begun(response: Any) -> None:
        if getattr(order, "is_sent", False) and _armed[0] == "reply, before it is read":
            select.select([response.fp], [], [], 10)
            reach("reply, before it is read")
        begin(response)

    def handled(response: Any) -> Any:
        if order.is_sent:
            reach("reply, read")
        return response

    http.client.HTTPConnection.send = sent  # type: ignore[method-assign]
    http.client.HTTPResponse.begin = begun  # type: ignore[method-assign]
    _ThinClient._handle_response = staticmethod(handled)


def is_done(system: Any, symbol: str, close_time: int) -> bool:
    """Whether a kline, and all that came of it, is done, and known to whom it concerns."""

    def is_taken() -> bool:
        memory = system.memories.traders[symbol].value
        return (
            memory.last is not None
            and memory.last.event_time >= close_time
            and memory.pending is None
            and not memory.waiting
            and not any(cell.value.doubts for cell in system.memories.traders.values())
        )

    return is_taken() and system._system.wait_settled(0) and is_taken()


def is_stored(system: Any, symbol: str, close_time: int) -> bool:
    """Whether a kline that is done, and all before it, is stored: its trade and decision were told before it."""
    newest = system._store.last_klines(symbol, 1)
    return bool(newest) and newest[0].event_time >= close_time and system.snapshot().log_depth == 0


def wrap_control() -> None:
    from bot.app import system as app

    real, systems = app.ControlServer, []
    start = app.BotSystem.start

    def started(system: Any, **options: Any) -> None:
        systems.append(system)
        start(system, **options)

    def server(path: Any, handler: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Any:
        def handle(request: Mapping[str, Any]) -> Mapping[str, Any]:
            if request["command"] == "arm":
                _armed[0] = request["point"]
                return {}
            if request["command"] == "done":
                system = systems[-1]
                symbol, close_time = request["symbol"], request["close_time"]
                done = is_done(system, symbol, close_time)
                return {"done": done, "stored": done and is_stored(system, symbol, close_time)}
            return handler(request)

        return real(path, handle)

    app.BotSystem.start = started  # type: ignore[method-assign]
    app.ControlServer = server  # type: ignore[assignment,misc]


def main() -> int:
    from bot.cli.parser import main as command_line

    wrap_actors()
    wrap_databases()
    wrap_requests()
    wrap_control()
    return command_line(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
