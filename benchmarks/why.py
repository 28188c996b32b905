"""How long `why` takes on a store of a million messages: any symbol and moment, any order.

    python -m benchmarks.why [--messages 1000000] [--questions 200]

Beside the answer itself, the whole command is timed, interpreter and imports included. Times depend on the machine and
on what else it does: the load stands beside them, and the CPU time of this process, by which the limit is judged.
"""

import argparse
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bot.actors.portfolio import START_CASH_NOTE
from bot.adapters.sqlite import SqliteJournal, SqliteStore
from bot.app.data_directory import DataDirectory, Identity
from bot.app.trading import RULES_NOTE, encode_rules
from bot.app.why import why_moment, why_order
from bot.domain.decision import Decision, Run
from bot.domain.filters import SymbolRules, default_rules
from bot.domain.kline import Kline
from bot.domain.order import Fill, OrderIntent, OrderReport, OrderStatus, Side, trade_of
from bot.domain.order_id import client_order_id
from bot.domain.position import Position
from bot.domain.strategy import Thresholds
from bot.supervision import ActorFailed, ActorRestarted

SYMBOLS = ("BTCUSDT", "ETHUSDT", "DOGEUSDT")
START, MINUTE_MS = 1_795_000_000_000 // 60_000 * 60_000, 60_000
PER_CANDLE = 30
ORDER_EVERY, REFUSAL_EVERY, FAILURE_EVERY = 100, 150, 5_000
LIMIT_MS = 200.0
BOT_ID, MODE = "bench", "demo"


def messages(count: int) -> Iterator[tuple[int, Kline]]:
    """Yield numbered klines of three symbols as a live feed sends them: every two seconds, the last one closed."""
    rng, prices = random.Random(6), dict.fromkeys(SYMBOLS, 40_000.0)
    for number in range(count):
        candle, place = divmod(number // len(SYMBOLS), PER_CANDLE)
        symbol, opened = SYMBOLS[number % len(SYMBOLS)], START + candle * MINUTE_MS
        prices[symbol] = max(100.0, prices[symbol] * (1 + rng.gauss(0, 0.0005)))
        close, is_closed = Decimal(f"{prices[symbol]:.2f}"), place == PER_CANDLE - 1
        closes = opened + MINUTE_MS - 1
        event_time = closes if is_closed else opened + 2_000 * (place + 1)
        one = Decimal(1)
        yield number, Kline(symbol, "1m", opened, closes, event_time, close, close, close, close, one, close, is_closed)


def build(directory: DataDirectory, count: int) -> list[str]:
    """Fill a data directory; return the ids of its orders and refused signals."""
    directory.claim(Identity(mode=MODE, exchange="simulated", account="paper", bot_id=BOT_ID))
    rules = {symbol: rule for symbol in SYMBOLS if (rule := default_rules(symbol)) is not None}
    ids, positions = [], dict.fromkeys(SYMBOLS, Position())
    with SqliteStore(directory.history) as store, SqliteJournal(directory.orders) as journal:
        journal.set_note(START_CASH_NOTE, "10000")
        journal.set_note(RULES_NOTE, encode_rules(rules))
        scalping = {"buy_drop": Decimal("0.01"), "sell_rise": Decimal("0.01")}
        store.record_run(Run(START - 5_000, MODE, "bot.domain.scalping:Scalping", scalping, only_closed=False))
        numbered = messages(count)
        while batch := list(islice(numbered, 5_000)):
            decisions, trades, events = [], [], []
            for number, kline in batch:
                if number % ORDER_EVERY == 0 or number % REFUSAL_EVERY == 0:
                    is_order, position = number % ORDER_EVERY == 0, positions[kline.symbol]
                    side = Side.SELL if position.quantity > 0 else Side.BUY
                    decision = decided(kline, side, side.value if is_order else "CASH", position)
                    decisions.append(decision)
                    ids.append(decision.client_order_id)
                    if is_order:
                        fill = ordered(journal, rules[kline.symbol], kline, side, decision, number)
                        positions[kline.symbol] = position.after(fill, rules[kline.symbol])
                        trades.append(trade_of(intent_of(kline, side, decision), [fill], MODE, BOT_ID))
                if number % FAILURE_EVERY == 0:
                    name = f"trader/{kline.symbol}"
                    events += [
                        ActorFailed(name, number, "handle", "Kline", "ValueError: bench", kline.event_time),
                        ActorRestarted(name, number + 1, number, 110, kline.event_time + 110),
                    ]
            store.write([kline for _, kline in batch], [t for t in trades if t is not None], decisions, events)
    directory.release()
    return ids


def decided(kline: Kline, side: Side, name: str, position: Position) -> Decision:
    return Decision(
        symbol=kline.symbol,
        open_time=kline.open_time,
        event_time=kline.event_time,
        is_closed=kline.is_closed,
        name=name,
        reason="fell 1.00 % from 40000 to 39600",
        close=kline.close,
        previous_close=kline.close,
        thresholds=Thresholds(kline.close, kline.close),
        position=position.quantity,
        client_order_id=client_order_id(BOT_ID, MODE, kline.symbol, side, kline.open_time, kline.event_time),
        time=kline.event_time + 3,
    )


def intent_of(kline: Kline, side: Side, decision: Decision) -> OrderIntent:
    return OrderIntent(
        decision.client_order_id,
        kline.symbol,
        side,
        Decimal("0.01"),
        kline.close,
        kline.open_time,
        kline.event_time,
        decision.reason,
    )


def ordered(
    journal: SqliteJournal, rules: SymbolRules, kline: Kline, side: Side, decision: Decision, number: int
) -> Fill:
    intent, order_id = intent_of(kline, side, decision), decision.client_order_id
    journal.record(intent)
    asset = rules.base_asset if side is Side.BUY else rules.quote_asset
    quote, fee, at = kline.close * intent.quantity, Decimal("0.00001"), kline.event_time
    fill = Fill(order_id, number, number, kline.symbol, side, kline.close, intent.quantity, quote, fee, asset, at)
    journal.settle(OrderReport(order_id, number, kline.symbol, OrderStatus.FILLED, (fill,)))
    return fill


def percentiles(times_ms: Iterable[float]) -> tuple[float, float, float]:
    ordered_times = sorted(times_ms)
    return ordered_times[len(ordered_times) // 2], ordered_times[len(ordered_times) * 99 // 100], ordered_times[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000_000, help="how many to store (default: %(default)s)")
    parser.add_argument("--questions", type=int, default=200, help="how many of each kind (default: %(default)s)")
    arguments = parser.parse_args()
    console, rng = Console(width=None if sys.stdout.isatty() else 120), random.Random(7)
    with tempfile.TemporaryDirectory() as name:
        directory = DataDirectory(Path(name) / "data")
        begun = time.perf_counter()
        ids = build(directory, arguments.messages)
        built = time.perf_counter() - begun
        candles = arguments.messages // len(SYMBOLS) // PER_CANDLE
        moments = [
            (rng.choice(SYMBOLS), START + rng.randrange(2_000, candles * MINUTE_MS)) for _ in range(arguments.questions)
        ]
        rows: dict[str, list[float]] = {"SYMBOL TIME": [], "CLIENT_ORDER_ID": [], "the whole command": []}
        cpu_ms: list[float] = []
        for symbol, moment in moments:
            begun, cpu = time.perf_counter(), time.process_time()
            why_moment(directory, symbol, moment).as_json()
            cpu_ms.append((time.process_time() - cpu) * 1000)
            rows["SYMBOL TIME"].append((time.perf_counter() - begun) * 1000)
        for order_id in rng.sample(ids, arguments.questions):
            begun, cpu = time.perf_counter(), time.process_time()
            why_order(directory, order_id).as_json()
            cpu_ms.append((time.process_time() - cpu) * 1000)
            rows["CLIENT_ORDER_ID"].append((time.perf_counter() - begun) * 1000)
        for symbol, moment in moments[:10]:
            command = ["-m", "bot.main", "why", symbol, str(moment), "--json", "--data-dir", str(directory.path)]
            begun = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
            rows["the whole command"].append((time.perf_counter() - begun) * 1000)
        size = sum(path.stat().st_size for path in directory.path.glob("*.db")) / 1e6
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    title = f"{arguments.messages:,} messages, {len(ids):,} signals, {size:,.0f} MB, stored in {built:.0f} s\n"
    table = Table(title=f"{title}Python {platform.python_version()}, {os.cpu_count()} cores, load {load}")
    table.add_column("why")
    for column in ("questions", "median ms", "p99 ms", "worst ms"):
        table.add_column(column, justify="right")
    for what, times in rows.items():
        table.add_row(what, str(len(times)), *(f"{value:.1f}" for value in percentiles(times)))
    console.print(table)
    median, _, worst = percentiles(cpu_ms)
    console.print(f"CPU time of an answer: median {median:.1f} ms, worst {worst:.1f} ms")
    if worst > LIMIT_MS:
        sys.exit(f"{worst:.0f} ms is more than the {LIMIT_MS:.0f} ms that an answer may take")


if __name__ == "__main__":
    main()
