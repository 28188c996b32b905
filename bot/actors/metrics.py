"""MetricsActor: gives CloudWatch a point of each series every minute; nobody waits for it, nor it for CloudWatch."""

from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from bot.actors import addresses
from bot.actors.cells import Cell, MetricsMemory
from bot.domain.metrics import Point
from bot.messages import Notice, PointsPut, Watch
from bot.ports import MetricSink, PointsNotTaken, PointsRefused
from bot.supervision import Actor, Context


class MetricsSettings(msgspec.Struct, frozen=True):
    """Times in ms. At most `most_waiting` points are kept for a sink that is away (4 MB); the oldest go first."""

    interval_ms: int = 60_000
    look_ms: int = 1_000
    most_waiting: int = 10_000
    batch: int = 1_000


class MetricsActor(Actor):
    """Takes Watch and PointsPut; gives a Notice when an outage begins and one when it is over.

    Points are made when a whole interval of the clock ends, so that no minute has two or none, and at the start, so
    that whatever is wrong is known at once. One thread at a time puts them: it may hang, this actor goes on.
    """

    def __init__(
        self,
        context: Context,
        settings: MetricsSettings,
        memory: Cell[MetricsMemory],
        look: Callable[[], None],
        take_points: Callable[[int], Sequence[Point]],
        sink: MetricSink | None,
    ) -> None:
        """`look` is called every `look_ms`, `take_points` makes the points of a time (ms UTC) where there is a sink."""
        super().__init__(context)
        self._settings = settings
        self._cell = memory
        self._look = look
        self._take_points = take_points
        self._sink = sink
        self._waiting: deque[Point] = deque()
        self._flying: list[Point] = []
        self._interval = -1
        self._may_try = False
        self._failed_ms: int | None = None
        self._dropped_before = 0
        self._handlers: dict[type, Callable[..., None]] = {Watch: self._on_watch, PointsPut: self._on_put}

    def started(self) -> None:
        # What the last incarnation had waiting went with it.
        self._remember(dropped=self._cell.value.dropped + self._cell.value.waiting, waiting=0)
        self._on_watch(Watch())

    def handle(self, message: object) -> None:
        self._handlers[type(message)](message)

    def _on_watch(self, _: Watch) -> None:
        self.context.after(self._settings.look_ms, Watch())
        self._look()
        now = self.context.clock.now_ms()
        interval = now // self._settings.interval_ms
        if self._sink is None or interval == self._interval:
            return
        self._interval = interval
        self._waiting += self._take_points(now)
        self._may_try = True
        self._drop()
        self._send()

    def _on_put(self, put: PointsPut) -> None:
        done = put.taken + put.refused
        self._waiting.extendleft(reversed(self._flying[done:]))
        self._flying = []
        memory = self._cell.value
        self._remember(taken=memory.taken + put.taken, dropped=memory.dropped + put.refused, error=put.error)
        self._drop()
        if put.taken or not put.error:
            self._tell_back()
        else:
            self._tell_failed(put)
        self._may_try = done > 0
        self._send()

    def _send(self) -> None:
        """Have the oldest points put, unless a thread is at it or the last try of this interval was in vain."""
        if self._sink is None or self._flying or not self._waiting or not self._may_try:
            return
        self._flying = [self._waiting.popleft() for _ in range(min(self._settings.batch, len(self._waiting)))]
        sink, points = self._sink, self._flying
        self.context.spawn_thread("put", lambda: self._put(sink, points))

    def _put(self, sink: MetricSink, points: Sequence[Point]) -> None:
        """Put points. Runs on a thread of its own, and tells what came of it."""
        try:
            put = PointsPut(taken=sink.put(points))
        except PointsRefused as error:
            put = PointsPut(refused=error.count, error=str(error))
        except PointsNotTaken as error:
            put = PointsPut(error=str(error))
        self.context.tell(self.context.address, put)

    def _drop(self) -> None:
        """Let go of the oldest points beyond what may wait."""
        dropped = 0
        while self._waiting and len(self._waiting) + len(self._flying) > self._settings.most_waiting:
            self._waiting.popleft()
            dropped += 1
        self._remember(dropped=self._cell.value.dropped + dropped, waiting=len(self._waiting) + len(self._flying))

    def _tell_failed(self, put: PointsPut) -> None:
        if self._failed_ms is not None:
            return
        self._failed_ms, self._dropped_before = (
            self.context.clock.monotonic_ms(),
            self._cell.value.dropped - put.refused,
        )
        what = f"{put.refused} points are lost" if put.refused else "points of metrics wait"
        self._notice("warning", f"{what}: {put.error}")

    def _tell_back(self) -> None:
        if self._failed_ms is None:
            return
        away_s = (self.context.clock.monotonic_ms() - self._failed_ms) // 1000
        dropped = self._cell.value.dropped - self._dropped_before
        self._failed_ms = None
        self._notice("info", f"metrics are taken again after {away_s} s; {dropped} points were lost")

    def _remember(self, **changes: object) -> None:
        value = msgspec.structs.replace(self._cell.value, **changes)
        self.context.run_fenced(lambda: setattr(self._cell, "value", value))

    def _notice(self, level: str, text: str) -> None:
        self.context.tell(addresses.MONITOR, Notice("metrics", level, text, self.context.clock.now_ms()))
