"""Troubles that are armed for an actor and break out at a point of its code: wrapped round the real classes, for tests.

Each breaks out once. A hang lasts until the actor's epoch is over; then the thread wakes up and goes on as if nothing
had happened, so that the fence has something to refuse.
"""

import threading
from collections.abc import Callable
from typing import Any

from bot.actors.feed import FeedActor
from bot.actors.kafka_bridge import KafkaBridgeActor
from bot.actors.monitor import MonitorActor
from bot.actors.persistence import PersistenceActor
from bot.actors.portfolio import PortfolioActor
from bot.actors.stream import StreamActor
from bot.actors.trader import TraderActor
from bot.adapters.binance import BinanceExchange
from bot.adapters.sqlite import SqliteJournal
from bot.gateway import OrderGateway
from bot.supervision.incarnation import Incarnation

ACTORS = (FeedActor, KafkaBridgeActor, MonitorActor, PersistenceActor, PortfolioActor, StreamActor, TraderActor)

POINTS: dict[str, tuple[str, ...]] = {
    "start": ("raise", "exit"),
    "started": ("raise", "exit"),
    "before a tell": ("raise", "exit", "hang"),
    "after a tell": ("raise", "exit", "hang"),
    "in a thread": ("raise", "exit"),
    "before the intent": ("raise", "exit", "hang"),
    "in the call": ("hang",),
    "after the reply": ("raise", "exit", "hang"),
    "after the commit": ("raise", "exit", "hang"),
}
"""Where it may break out, and how. In the call: the order's bytes have not left, and leave once the thread wakes up."""

ORDER_POINTS = ("before the intent", "in the call", "after the reply", "after the commit")


class Sabotaged(Exception):
    """What was armed broke out."""


class Saboteur:
    """Arms troubles by actor name and point, and hears the code pass by its points."""

    def __init__(self, patch: Callable[[object, str, Any], None]) -> None:
        """Wrap the classes; `patch` sets an attribute and takes it back after the test."""
        self.struck: list[tuple[str, str, str]] = []
        self._armed: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()
        self._fence = threading.local()
        self._wrap(patch)

    def arm(self, name: str, point: str, how: str) -> None:
        """Let it break out when that actor passes that point next."""
        assert how in POINTS[point]
        with self._lock:
            self._armed[name, point] = how

    def disarm(self) -> None:
        with self._lock:
            self._armed.clear()

    def _pass(self, context: Any, point: str) -> None:
        if not self._armed or context is None:
            return
        name = str(context.address)
        with self._lock:
            how = self._armed.pop((name, point), None)
            if how is None:
                return
            self.struck.append((context.address.kind, point, how))
        if how == "raise":
            raise Sabotaged(f"{name} {point}")
        if how == "exit":
            raise SystemExit(f"{name} {point}")
        over = threading.Event()
        context.on_epoch_end(over.set)
        over.wait()

    def _wrap(self, patch: Callable[[object, str, Any], None]) -> None:
        tell, submit, place = Incarnation.tell, OrderGateway.submit, BinanceExchange.place
        settle, fence = SqliteJournal.settle, self._fence

        def told(incarnation: Any, to: Any, message: object) -> bool:
            own = threading.current_thread() is incarnation.thread
            self._pass(incarnation, "before a tell" if own else "in a thread")
            taken = tell(incarnation, to, message)
            if own:
                self._pass(incarnation, "after a tell")
            return taken

        def submitted(gateway: Any, intent: Any, context: Any, **options: Any) -> Any:
            self._pass(context, "before the intent")
            fence.context = context
            try:
                return submit(gateway, intent, context, **options)
            finally:
                fence.context = None

        def placed(exchange: Any, intent: Any, leave: Any) -> Any:
            def left(send: Any) -> None:
                leave(send)
                self._pass(fence.context, "in the call")

            report = place(exchange, intent, left)
            self._pass(fence.context, "after the reply")
            return report

        def settled(journal: Any, report: Any, *more: Any) -> None:
            settle(journal, report, *more)
            self._pass(getattr(fence, "context", None), "after the commit")

        patch(Incarnation, "tell", told)
        patch(OrderGateway, "submit", submitted)
        patch(BinanceExchange, "place", placed)
        patch(SqliteJournal, "settle", settled)
        for actor in ACTORS:
            patch(actor, "started", self._start_of(actor.started))

    def _start_of(self, started: Callable[[Any], None]) -> Callable[[Any], None]:
        def start(actor: Any) -> None:
            self._pass(actor.context, "start")
            started(actor)
            self._pass(actor.context, "started")

        return start
