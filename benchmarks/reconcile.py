"""What a comparison of book and account costs the process that trades meanwhile, with many orders in the journal.

    python -m benchmarks.reconcile [--orders 10000]

The journal is read before anybody trades, as the bot does at its start. The account is one that agrees, so that all
that is measured is ours. A thread beside does what an order's path does: it sleeps, wakes and wants the interpreter;
how long it waits beyond its sleep is what an order would wait.
"""

import argparse
import gc
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path

from bot.adapters.sqlite import SqliteJournal
from bot.domain.account import AccountOrder, AccountTrade
from bot.domain.filters import SymbolRules
from bot.domain.order import Fill, OrderIntent, OrderReport, OrderStatus, Side
from bot.reconciler import Reconciler

SYMBOLS = ("BTCUSDT", "ETHUSDT", "DOGEUSDT")
CASH = Decimal(10**9)
SLEEP_S = 0.0002


class Agreeing:
    """An account that holds what the book says, asked for nothing else."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[Decimal, Decimal]] = {"USDT": (CASH, Decimal(0))}

    def balances(self) -> dict[str, tuple[Decimal, Decimal]]:
        return self.held

    def open_orders(self, symbol: str | None = None) -> list[AccountOrder]:
        return []

    def trades_since(self, symbol: str, **_: object) -> list[AccountTrade]:
        return []


def fill_journal(journal: SqliteJournal, orders: int) -> None:
    """Journal pairs of a BUY and a SELL that bring and cost nothing."""
    for number in range(orders):
        name, symbol = f"bh-{number}", SYMBOLS[number // 2 % len(SYMBOLS)]
        side = Side.SELL if number % 2 else Side.BUY
        journal.record(OrderIntent(name, symbol, side, Decimal(1), Decimal(100), 0, number, "fell"))
        amounts = (Decimal(100), Decimal(1), Decimal(100), Decimal(0))
        fill = Fill(name, number, number, symbol, side, *amounts, "USDT", number)
        journal.settle(OrderReport(name, number, symbol, OrderStatus.FILLED, (fill,)))


def measure(work: Callable[[], object]) -> str:
    """Run it once; return what it cost, and what a thread beside waited."""
    waits: list[float] = []
    ended, nobody = threading.Event(), threading.Lock()
    nobody.acquire()

    def wait() -> None:
        while not ended.is_set():
            began = time.perf_counter()
            nobody.acquire(timeout=SLEEP_S)
            waits.append(time.perf_counter() - began - SLEEP_S)

    beside = threading.Thread(target=wait)
    beside.start()
    cpu, wall = time.thread_time(), time.perf_counter()
    work()
    cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
    ended.set()
    beside.join()
    waits.sort()
    times = f"{cpu * 1e3:.1f} ms of CPU, {wall * 1e3:.1f} ms"
    return (
        f"{times}; a thread beside waits {waits[len(waits) // 2] * 1e6:.0f} us (median), {waits[-1] * 1e6:.0f} (most)"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="a comparison of book and account beside trading")
    parser.add_argument("--orders", type=int, default=10_000)
    options = parser.parse_args(arguments)
    sys.setswitchinterval(0.0005)
    zero = Decimal(0)
    step = (Decimal("0.00001"), Decimal("0.00001"), Decimal(9000), Decimal(10))
    rules = {symbol: SymbolRules(symbol, symbol.removesuffix("USDT"), "USDT", *step) for symbol in SYMBOLS}
    with tempfile.TemporaryDirectory() as folder, SqliteJournal(Path(folder) / "orders.db") as journal:
        fill_journal(journal, options.orders)
        reconciler = Reconciler(Agreeing(), journal, rules, SYMBOLS, "bh-", CASH, False, lambda: 0)
        gc.collect()
        gc.freeze()
        print(f"read ahead, before anybody trades: {measure(reconciler.read_ahead)}")
        for name in ("the first comparison", "later", "later", "later"):
            print(f"{name}: {measure(reconciler.compare)}")
        assert all(held == zero for held in reconciler.compare().book.positions.values())
    print(f"{options.orders} orders; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
