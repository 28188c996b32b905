"""Orders through the filters, over real sockets: of those that leave the exchange may refuse none for a filter.

    python -m benchmarks.filters [--orders 100000] [--profiles com us]

The simulated exchange is a process of its own, without limits of rate, and enforces the exchangeInfo that was recorded
of each exchange while its prices move. Each order is sized in a random situation: equity, position, fraction (often
near the least notional), MARKET or LIMIT IOC with some slippage, a close beside the book; what is known of the market
is what MarketWatch asked a moment ago. It leaves as the bot's orders do: journal, gate, signed request, loopback.

Some of what was held back is sent all the same, past the checks: an exchange that took all of that would judge nothing.
"""

import argparse
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

import requests
from rich.console import Console
from rich.table import Table

from benchmarks.unlimited_exchange import unlimited_exchange
from bot.actors.cells import AccountMemory, Cell
from bot.adapters.binance import BinanceExchange
from bot.adapters.sqlite import SqliteJournal
from bot.app.market_watch import MarketWatch
from bot.domain.filters import Refusal, SymbolRules
from bot.domain.ledger import Ledger
from bot.domain.money import ZERO, floor_to_step
from bot.domain.order import OrderIntent, OrderStatus, Side
from bot.domain.position import Position
from bot.domain.risk import RiskLimits
from bot.domain.sizing import SizingParameters, size_order
from bot.domain.strategy import Signal
from bot.gateway import OrderGateway, Settled, Unsettled
from bot.ports import ExchangeError, OrderRejected, at_once
from bot.supervision import SystemClock

T = TypeVar("T")
RECORDED = Path(__file__).parents[1] / "tests" / "data"
SYMBOLS = ("BTCUSDT", "ETHUSDT", "DOGEUSDT", "LTCUSDT")
ASSETS = ("USDT", *(symbol.removesuffix("USDT") for symbol in SYMBOLS))
RICH = "100000000000"
WORKERS = 4
TICK_S = 0.5
PAST_THE_CHECKS = 20
"""Of so many that are held back one is sent."""
FILTER_CODES = ("-1013", "-1111", "Filter failure")


class Always:
    """The fence of an epoch that does not end, and a switch that halts nothing."""

    def run_fenced(self, effect: Callable[[], T]) -> T:
        return effect()

    def refusal(self, symbol: str, side: Side) -> str | None:
        return None

    def stop_symbol(self, symbol: str, reason: str) -> None:
        raise AssertionError(f"{symbol} is stopped: {reason}")

    def free_symbol(self, symbol: str) -> bool:
        return False

    def stopped_symbols(self) -> dict[str, str]:
        return {}


class Run:
    """All orders of one profile; several threads send them."""

    def __init__(self, ends: dict[str, str], folder: Path) -> None:
        self._clock = SystemClock()
        self.exchange = BinanceExchange(ends["rest_url"], self._clock, ends["api_key"], ends["api_secret"])
        for asset in ASSETS:
            answer = requests.post(ends["rest_url"] + "/sim/balance", json={"asset": asset, "free": RICH}, timeout=10)
            answer.raise_for_status()
        self.rules = self.exchange.rules(SYMBOLS)
        self._balances = Cell(AccountMemory())
        limits = RiskLimits()
        watched = (self.exchange, self.rules, SYMBOLS, self._balances, self._clock)
        self._market = MarketWatch(*watched, self.rules.update, limits)
        self._journal = SqliteJournal(folder / "orders.db")
        self._always = Always()
        self._gateway = OrderGateway(self.exchange, self._journal, self._always)
        self._lock = threading.Lock()
        self.sent: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.held_back: Counter[str] = Counter()
        self.past_the_checks: Counter[str] = Counter()
        self._numbers = iter(range(10**9))

    def close(self) -> None:
        self._journal.close()

    def tick(self) -> None:
        self._market.tick()
        self._journal.fold()

    def wait_for_prices(self) -> None:
        end = time.monotonic() + 30
        while not all(self._market.view(symbol).ask and self._market.view(symbol).average_price for symbol in SYMBOLS):
            self.tick()
            if time.monotonic() > end:
                raise SystemExit("the market's prices are not known within 30 s")

    def send(self, orders: int, seed: int) -> None:
        """Have so many orders leave, whatever number is held back."""
        rng, left = random.Random(seed), orders
        while left:
            left -= self._one(rng)

    def _one(self, rng: random.Random) -> bool:
        symbol = rng.choice(SYMBOLS)
        rules, view = self.rules[symbol], self._market.view(symbol)
        # The run's own orders now and then leave nobody on one side of the book.
        middle = view.mid_price(self._clock.now_ms(), 60_000) or view.average_price
        tick = rules.price_filter.tick_size
        close = floor_to_step(middle * Decimal(rng.randint(9_700, 10_300)) / 10_000, tick)
        ledger, parameters = a_situation(rng, rules, close)
        side, sell_all = rng.choice(((Side.BUY, False), (Side.SELL, False), (Side.SELL, True)))
        now = self._clock.now_ms()
        signal = Signal(side, "a random one", sell_all=sell_all)
        sized = size_order(ledger, symbol, signal, close, now, parameters, view, now)
        with self._lock:
            name = f"bh-{next(self._numbers)}"
        if isinstance(sized, Refusal):
            is_control = self._hold_back(rng, sized)
            if is_control:
                self._send_past_the_checks(self._intent(name, rules, side, blind_quantity(ledger, rules, side), close))
            return False
        outcome = self._gateway.submit(
            self._intent(name, rules, side, sized.quantity, close, sized.limit_price), self._always
        )
        with self._lock:
            self.sent[kind_of(outcome)] += 1
            if isinstance(outcome, Unsettled) or outcome.status is OrderStatus.REJECTED:
                self.refused[outcome.detail] += 1
        return True

    def _hold_back(self, rng: random.Random, refusal: Refusal) -> bool:
        with self._lock:
            self.held_back[refusal.name] += 1
        return refusal.name in ("LOT_SIZE", "MIN_NOTIONAL", "NOTIONAL") and rng.randrange(PAST_THE_CHECKS) == 0

    def _send_past_the_checks(self, intent: OrderIntent) -> None:
        try:
            self.exchange.place(intent, at_once)
            word = "taken"
        except OrderRejected as error:
            word = "refused for a filter" if is_filter(str(error)) else "refused otherwise"
        except ExchangeError:
            word = "not answered"
        with self._lock:
            self.past_the_checks[word] += 1

    @staticmethod
    def _intent(
        name: str, rules: SymbolRules, side: Side, quantity: Decimal, close: Decimal, limit: Decimal | None = None
    ) -> OrderIntent:
        return OrderIntent(name, rules.symbol, side, quantity, close, 0, 0, "a test of filters", ZERO, limit)

    @property
    def refused_for_a_filter(self) -> int:
        return sum(count for detail, count in self.refused.items() if is_filter(detail))


def a_situation(rng: random.Random, rules: SymbolRules, close: Decimal) -> tuple[Ledger, SizingParameters]:
    """Return a book and parameters: any amounts, and more often than not those near the least notional."""
    symbol = rules.symbol
    ledger = Ledger(Decimal(10 ** rng.randint(0, 7)) / 10, {symbol: rules})
    held = Decimal(rng.choice([0, 0, rng.randint(1, 10 ** rng.randint(1, 9))])) / 1000
    fraction = Decimal(rng.choice([1, rng.randint(1, 1000)])) / 1000
    if rng.random() < 0.6:
        held = Decimal(rng.randint(900, 1_150)) / 1000 * rules.min_notional / close
        fraction = min(Decimal(1), max(Decimal("0.000001"), held * close / ledger.cash).quantize(Decimal("1E-9")))
    ledger.positions[symbol] = Position(quantity=held)
    ledger.mark(symbol, close, 0)
    bps = rng.choice([None, Decimal(rng.randint(1, 3_000)) / 10])
    return ledger, SizingParameters(fraction=fraction, max_slippage_bps=bps)


def blind_quantity(ledger: Ledger, rules: SymbolRules, side: Side) -> Decimal:
    """Return what a bot without filters would order."""
    held = ledger.positions[rules.symbol].quantity
    wanted = ledger.cash / 1_000 / ledger.marks[rules.symbol] if side is Side.BUY else held
    return max(Decimal("0.00000001"), wanted.quantize(Decimal("1E-8")))


def kind_of(outcome: Settled | Unsettled) -> str:
    return "unknown" if isinstance(outcome, Unsettled) else outcome.status.value


def is_filter(detail: str) -> bool:
    return any(code in detail for code in FILTER_CODES)


def measure(profile: str, orders: int, folder: Path) -> tuple[Run, float]:
    """Send the orders of one profile; return what became of them, and how long that took in seconds."""
    info = RECORDED / f"exchange-info-{profile}.json"
    with unlimited_exchange(SYMBOLS, 200, seed=3, profile=profile, exchange_info=info) as ends:
        run = Run(ends, folder)
        run.wait_for_prices()
        began = time.monotonic()
        shares = [orders // WORKERS + (number < orders % WORKERS) for number in range(WORKERS)]
        workers = [
            threading.Thread(target=run.send, args=(share, number), daemon=True) for number, share in enumerate(shares)
        ]
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            run.tick()
            workers[0].join(TICK_S)
        took_s = time.monotonic() - began
        run.close()
    if sum(run.sent.values()) != orders:
        raise SystemExit(f"{profile}: a worker failed; {sum(run.sent.values())} orders of {orders} left")
    return run, took_s


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="orders through the filters of both exchanges, over real sockets")
    parser.add_argument("--orders", type=int, default=100_000, help="orders that leave, of all profiles together")
    parser.add_argument("--profiles", nargs="+", choices=("com", "us"), default=["com", "us"])
    options = parser.parse_args(arguments)
    table = Table(title="orders through the filters")
    for column in (
        "profile",
        "left",
        "became",
        "refused for a filter",
        "refused otherwise",
        "held back",
        "past checks",
    ):
        table.add_column(column)
    wrong = 0
    for profile in options.profiles:
        with tempfile.TemporaryDirectory() as folder:
            run, took_s = measure(profile, options.orders // len(options.profiles), Path(folder))
        others = sum(run.refused.values()) - run.refused_for_a_filter
        words = (run.sent, run.held_back, run.past_the_checks)
        became, held_back, past = ("\n".join(f"{n} {c}" for n, c in sorted(w.items())) for w in words)
        left = f"{sum(run.sent.values())}\n{sum(run.sent.values()) / took_s:.0f} a second"
        table.add_row(profile, left, became, str(run.refused_for_a_filter), str(others), held_back, past)
        wrong += run.refused_for_a_filter or not run.past_the_checks["refused for a filter"]
        for detail, count in run.refused.most_common(5):
            print(f"{profile}: {count} times: {detail}", file=sys.stderr)
    Console(width=130).print(table)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
