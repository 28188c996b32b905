"""Bars a second over history: the backtest's loop, and the replay through the real actors; the same trades, in one run.

    python -m benchmarks.replay [--bars 10000]

Times depend on the machine and on what else it does: quote the ratio, or the load beside the times.
"""

import argparse
import logging
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog
from rich.console import Console
from rich.table import Table

from bot.app.data_directory import DataDirectory
from bot.app.replay import ReplayPlan, run_replay
from bot.app.trading import offline_rules
from bot.domain.scalping import Scalping
from bot.domain.sizing import SizingParameters
from bot.research.backtest import run_backtest
from bot.research.files import read_series

SYMBOL = "BTCUSDT"
ROUNDS = 3
CASH = Decimal(10_000)
START, MINUTE_MS = 1_621_425_600_000, 60_000

T = TypeVar("T")


def make_up(path: Path, bars: int) -> None:
    """Write a random walk of minutes, most of which trade nothing and about one in a hundred does."""
    rng, price = random.Random(20210519), 40_000.0
    with path.open("w") as file:
        for n in range(bars):
            price = max(100.0, price * (1 + rng.gauss(0, 0.004)))
            close, opened = f"{price:.2f}", START + n * MINUTE_MS
            file.write(f"{opened},{close},{close},{close},{close},1,{opened + MINUTE_MS - 1},1,1,1,1,0\n")


def timed(work: Callable[[], T]) -> tuple[float, T]:
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bars", type=int, default=10_000, help="how many klines (default: %(default)s)")
    bars = parser.parse_args().bars
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    sys.setswitchinterval(0.0005)  # as the bot has it
    console = Console(width=None if sys.stdout.isatty() else 120)
    begun = time.monotonic()
    strategy, sizing = Scalping(Decimal("0.01"), Decimal("0.01")), SizingParameters()
    rules = offline_rules([SYMBOL], None)
    reads, backtests, replays = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / f"{SYMBOL}-1m-made-up.csv"
        make_up(path, bars)
        for n in range(ROUNDS):
            seconds, series = timed(lambda: read_series([path]))
            reads.append(seconds)
            plan = ReplayPlan(series, rules, strategy, sizing, CASH, "bench")
            seconds, tested = timed(partial(run_backtest, series, rules, strategy, sizing, CASH))
            backtests.append(seconds)
            directory = DataDirectory(folder / f"run-{n}")
            seconds, replayed = timed(partial(run_replay, plan, directory))
            replays.append(seconds)
            if replayed.as_json() != tested.as_json() or tested.bars != bars:
                sys.exit("the replay's outcome is not that of the backtest")
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    title = f"{bars} made-up klines, {len(tested.trades)} trades\nPython {platform.python_version()}, "
    table = Table(title=f"{title}{os.cpu_count()} cores, load {load}", title_justify="left")
    table.add_column("")
    for column in ("bars/s", "times the replay's"):
        table.add_column(column, justify="right")
    slowest = statistics.median(replays)
    for what, times in (
        ("read the file", reads),
        ("backtest", backtests),
        ("replay: real actors, journal and store in files, in lock step", replays),
    ):
        seconds = statistics.median(times)
        table.add_row(what, f"{bars / seconds:,.0f}", f"{slowest / seconds:.1f}")
    console.print(table)
    console.print(f"medians of {ROUNDS}; {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
