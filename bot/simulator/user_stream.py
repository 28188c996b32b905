"""Decides when the account's events reach those who listen: at once, or as the waiting faults will have it."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from bot.simulator.connections import TEXT, Connection, fall_silent, send_foreign
from bot.simulator.exchange import Exchange
from bot.simulator.user_events import Event

# A connection that listens, and how an event is written to it.
Receiver = tuple[Connection, Callable[[Event], str]]


class UserStream:
    """Sends events to all receivers that `sources` name at that moment. Belongs to the exchange's loop."""

    def __init__(self, exchange: Exchange, sources: Iterable[Callable[[], Iterable[Receiver]]]) -> None:
        self._exchange = exchange
        self._sources = tuple(sources)
        self._held: deque[tuple[float, list[Event]]] = deque()
        exchange.account_events.sink = self.publish

    def publish(self, events: list[Event]) -> None:
        """Send the events of one change, in order; behind those that are held back, if there are any."""
        if not self._receivers():
            return
        self._fire_faults()
        faults = self._exchange.faults
        chosen: list[Event] = []
        for event in events:
            if faults.take("user_lost"):
                continue
            chosen.append(event)
            if faults.take("user_duplicate"):
                chosen.append(event)
        loop = asyncio.get_running_loop()
        late = faults.take("user_late")
        now = loop.time()
        due = now + late.ms / 1000 if late is not None else now
        if self._held:
            due = max(due, self._held[-1][0])
        if due > now:
            self._held.append((due, chosen))
            loop.call_at(due, self._release)
        else:
            self._send(chosen)

    def fault_added(self) -> None:
        """Let a fault that waits for user data connections happen now, if there are any."""
        if any(not connection.is_silent for connection, _ in self._receivers()):
            self._fire_faults()

    def _receivers(self) -> list[Receiver]:
        return [receiver for source in self._sources for receiver in source()]

    def _release(self) -> None:
        self._send(self._held.popleft()[1])

    def _send(self, events: list[Event]) -> None:
        for connection, written in self._receivers():
            for event in events:
                connection.send(TEXT, written(event))

    def _fire_faults(self) -> None:
        """Let one of each waiting kind happen to all user data connections."""
        faults = self._exchange.faults
        connections = [connection for connection, _ in self._receivers()]
        foreign = faults.take("user_frame")
        if foreign is not None:
            send_foreign(connections, foreign)
        silent = faults.take("user_silent")
        if silent is not None:
            fall_silent(connections, silent)
        if faults.take("user_cut"):
            for connection in connections:
                connection.cut()
