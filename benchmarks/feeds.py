"""Many symbols in one process: memory, threads, CPU and latency of a bot that listens, and its return from a cut.

    python -m benchmarks.feeds [--symbols 500] [--seconds 30] [--cuts 3]

The exchange is a process of its own on loopback and sends one update a second of every symbol. The bot is whole: feeds,
traders, bridge, store, over its ordinary connections; it trades nothing. Latency is measured from the moment a frame's
bytes are read to the moment its trader is done with it, decoding and two hops included. Times depend on the machine and
on what else it does: the load stands beside them.
"""

import argparse
import logging
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import requests
import structlog
import websocket
from rich.console import Console
from rich.table import Table

import bot.app.system as app
from benchmarks.unlimited_exchange import unlimited_exchange
from bot.actors.limits import ConnectionBudget
from bot.actors.trader import TraderActor
from bot.adapters.binance import stream
from bot.app.system import BotSystem
from bot.config import load_settings
from bot.domain.kline import Kline

UPDATE_MS = 1_000


class Latencies:
    """Notes when each update's frame was read and when its trader was done; wrapped round the real classes."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self._read_at: dict[tuple[str, int, int | None], float] = {}
        self._wrap()

    def _wrap(self) -> None:
        receive, handle = websocket.WebSocket.recv_data_frame, TraderActor.handle
        decode, local, read_at, waits = stream.decode_frame, threading.local(), self._read_at, self.waits

        def received(socket: Any, *arguments: Any, **more: Any) -> Any:
            frame = receive(socket, *arguments, **more)
            local.read = time.perf_counter()
            return frame

        def decoded(frame: bytes) -> Kline | None:
            kline = decode(frame)
            if kline is not None:
                read_at.setdefault((kline.symbol, kline.open_time, kline.received_event_time), local.read)
            return kline

        def handled(trader: Any, message: object) -> None:
            handle(trader, message)
            if isinstance(message, Kline):
                begun = read_at.pop((message.symbol, message.open_time, message.received_event_time), None)
                if begun is not None:
                    waits.append(time.perf_counter() - begun)

        websocket.WebSocket.recv_data_frame = received
        stream.decode_frame = decoded
        TraderActor.handle = handled  # type: ignore[method-assign]


def rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1_000_000


def await_klines(system: BotSystem, since_ms: int, patience_s: float) -> list[float]:
    """Wait until every symbol's trader has a kline made after `since_ms`; how long each took, in ms."""
    waits: dict[str, float] = {}
    traders, pause, end = system.memories.traders, threading.Event(), time.monotonic() + patience_s
    while len(waits) < len(traders):
        if time.monotonic() > end:
            sys.exit(f"{len(traders) - len(waits)} symbols have no kline after {patience_s:.0f} s")
        now = time.time_ns() / 1e6
        for symbol, cell in traders.items():
            last = cell.value.last
            if symbol not in waits and last is not None and (last.received_event_time or last.event_time) > since_ms:
                waits[symbol] = now - since_ms
        pause.wait(0.01)
    return list(waits.values())


def in_words(values: list[float], unit: str, digits: int = 0) -> str:
    cuts = statistics.quantiles(values, n=100)
    return f"p50 {cuts[49]:,.{digits}f}, p99 {cuts[98]:,.{digits}f}, max {max(values):,.{digits}f} {unit}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=500, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=30, help="how long to measure (default: %(default)s)")
    parser.add_argument("--cuts", type=int, default=3, help="of all connections at once (default: %(default)s)")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    sys.setswitchinterval(0.0005)  # as the bot has it
    console = Console(width=None if sys.stdout.isatty() else 120)
    symbols = tuple(f"S{number:03}USDT" for number in range(given.symbols))
    latencies = Latencies()
    app.ConnectionBudget = lambda clock: ConnectionBudget(clock, 1, 0)  # type: ignore[misc,assignment]
    with tempfile.TemporaryDirectory() as folder, unlimited_exchange(symbols, UPDATE_MS) as ends:
        variables = {
            "BOT_EXCHANGE__REST_URL": ends["rest_url"],
            "BOT_EXCHANGE__WS_URL": ends["ws_url"],
            "BOT_API_KEY": ends["api_key"],
            "BOT_API_SECRET": ends["api_secret"],
            "BOT_BUY_DROP": "0.99",
        }
        flags = {"mode": "testnet", "symbols": symbols, "data_dir": Path(folder) / "data"}
        bare_mb = rss_mb()
        system = BotSystem(load_settings(flags, environment=variables))
        begun = time.monotonic()
        system.start()
        try:
            started_s = time.monotonic() - begun
            await_klines(system, time.time_ns() // 1_000_000, 60)
            latencies.waits.clear()
            cpu, wall, pause = time.process_time(), time.monotonic(), threading.Event()
            pause.wait(given.seconds)
            cpu, wall = time.process_time() - cpu, time.monotonic() - wall
            waits, threads, memory_mb = list(latencies.waits), threading.active_count(), rss_mb()
            back: list[float] = []
            for _ in range(given.cuts):
                requests.post(f"{ends['rest_url']}/sim/fault", json={"kind": "ws_cut"}, timeout=5).raise_for_status()
                back += await_klines(system, time.time_ns() // 1_000_000, 60)
            streams = sum(actor.kind == "stream" for actor in system.snapshot().actors)
            depth = system.snapshot().log_depth
        finally:
            system.stop()
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    title = f"Python {platform.python_version()}, {os.cpu_count()} cores, load {load}"
    table = Table(title=title, title_justify="left", show_header=False)
    for what, value in (
        ("symbols, connections", f"{given.symbols}, {streams}"),
        ("updates a second", f"{len(waits) / wall:,.0f} over {wall:.0f} s"),
        ("memory of the process", f"{memory_mb:,.0f} MB, {bare_mb:,.0f} before the start"),
        ("threads", str(threads)),
        ("CPU of one core", f"{100 * cpu / wall:.0f} %, {1e6 * cpu / max(1, len(waits)):.0f} us an update"),
        ("frame read to trader done", in_words([1e3 * wait for wait in waits], "ms", 2)),
        ("start", f"{started_s:.1f} s"),
        (f"all back after each of {given.cuts} cuts of all", in_words(back, "ms") if back else "-"),
        ("waiting for the store at the end", str(depth)),
    ):
        table.add_row(what, value)
    console.print(table)


if __name__ == "__main__":
    main()
