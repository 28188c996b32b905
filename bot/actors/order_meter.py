"""Measures one symbol's orders: how many left, and how long after the kline that decided them had come."""

import itertools
import time
from collections.abc import Callable

from bot.domain.kline import Kline
from bot.domain.metrics import Distribution
from bot.domain.order import OrderIntent

FRAMES = 32
"""So many of the last frames are known; a live order is of one of the last ten seconds."""


class OrderMeter:
    """`came` is for the threads that read klines, `left` for the trader's, the rest for any; none takes a lock.

    Times are ns by `now_ns`, which never goes back.
    """

    def __init__(self, now_ns: Callable[[], int] = time.perf_counter_ns) -> None:
        self._now_ns = now_ns
        self._frames: list[tuple[int, int, int]] = [(0, 0, 0)] * FRAMES
        # Two connections may be read while one replaces the other: each gets places of its own from it.
        self._places = itertools.count()
        self.sent = 0
        self.latency = Distribution()

    def came(self, kline: Kline, received_ns: int) -> None:
        """A kline's frame was whole at `received_ns`."""
        self._frames[next(self._places) % FRAMES] = (kline.open_time, kline.event_time, received_ns)

    def left(self, intent: OrderIntent, is_of_kline: bool) -> None:
        """An order's bytes have left; `is_of_kline` if its kline decided it, and no command of a person.

        Of a kline that REST or a log brought there is no frame: nothing is measured. One that is older than all frames
        known waited at least as long as the oldest of them, and counts as that.
        """
        now = self._now_ns()
        self.sent += 1
        if not is_of_kline:
            return
        wanted, received = (intent.open_time, intent.event_time), 0
        for open_time, event_time, ns in self._frames:
            if event_time == wanted[1] and open_time == wanted[0] and (not received or ns < received):
                received = ns
        if not received and wanted < min(self._frames)[:2]:
            received = min(ns for _, _, ns in self._frames)
        if received:
            self.latency = self.latency.with_one((now - received) / 1e9)
