"""What a stalled consumer costs: real actors, messages at full speed, the process's memory as their number grows.

    python -m benchmarks.memory trader|persistence|must [--messages 5000000] [--json]

trader: klines for traders that never finish one, told outright and by a feed with a busy stream. persistence:
klines for the bridge while the store takes nothing, then while it takes all. must: trades for a consumer that never
finishes one. Each ends by letting the consumer go on, and fails unless what was accepted arrives whole and in order.
"""

import argparse
import json
import os
import random
import tempfile
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from bot.actors import addresses
from bot.actors.cells import Cell, FeedMemory, StreamMemory
from bot.actors.feed import FeedActor, FeedSettings
from bot.actors.kafka_bridge import KafkaBridgeActor
from bot.actors.limits import BackfillGate, ConnectionBudget
from bot.actors.persistence import PersistenceActor, PersistenceSettings
from bot.actors.stream import StreamActor, StreamSettings
from bot.actors.supervisor import LANES
from bot.adapters.local_log import LocalLog
from bot.domain.kline import Kline, is_newer
from bot.domain.order import Side, Trade
from bot.messages import Notice
from bot.ports import StreamClosed
from bot.supervision import (
    Actor,
    ActorFailed,
    ActorSystem,
    Address,
    ChildSpec,
    Context,
    DeadLetter,
    LaneBounds,
    MailboxFull,
    SystemClock,
)

SYMBOL, OTHER = "BTCUSDT", "ETHUSDT"
MINUTE_MS = 60_000
UPDATES_A_CANDLE = 100
NEVER_MS = 3_600_000
"""The deadline of a handler that is meant to stall: it must not count as hung."""
PAUSE_S = 0.001


def rss_mb() -> float:
    """Return how much memory of this process is resident."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1_000_000


def closed_kline(number: int, symbol: str = SYMBOL) -> Kline:
    """The closed kline of one minute, none of its values shared with another."""
    price = Decimal(30_000_00 + number % 1_000_00) / 100
    return Kline(
        symbol=symbol,
        interval="1m",
        open_time=number * MINUTE_MS,
        close_time=number * MINUTE_MS + MINUTE_MS - 1,
        event_time=number * MINUTE_MS + MINUTE_MS - 1,
        open=price + 1,
        high=price + 2,
        low=price - 1,
        close=price,
        volume=price / 4,
        quote_volume=price * 4,
        is_closed=True,
    )


def trade(number: int) -> Trade:
    """One trade, none of its values shared with another."""
    amount = Decimal(number + 1) / 8
    return Trade(
        symbol=SYMBOL,
        side=Side.BUY,
        time=number,
        price=amount,
        quantity=amount + 1,
        quote_quantity=amount + 2,
        commission=amount + 3,
        commission_asset="BTC",
        close=amount,
        order_id=number,
        client_order_id=f"bh-{number}",
        mode="benchmark",
        bot_id="benchmark",
    )


class Meter:
    """Memory by number of messages, and how long the sender's tells took."""

    def __init__(self, messages: int) -> None:
        self.messages = messages
        self.warm_up = min(100_000, messages // 4)
        self.marks: dict[str, float] = {"start": rss_mb()}
        self._every = messages // 10
        # How many tells took so many tenths of a microsecond: no list, which would grow with the messages.
        self._tells: Counter[int] = Counter()
        self._warm = 0.0
        self._highest = 0.0
        self._began = time.perf_counter()
        self._seconds = 0.0

    def numbers(self) -> Iterator[int]:
        """Count the messages, marking the memory on the way."""
        for number in range(self.messages):
            yield number
            if number + 1 == self.warm_up:
                self._warm = self.mark("warm")
            elif (number + 1) % self._every == 0:
                self.mark(f"{number + 1:,}")
        self._seconds = time.perf_counter() - self._began

    def timed(self, number: int, tell: Callable[[], bool]) -> bool:
        """Tell, and note how long every sixteenth took once all is warm."""
        if number % 16 or number < self.warm_up:
            return tell()
        began = time.perf_counter_ns()
        is_taken = tell()
        self._tells[(time.perf_counter_ns() - began) // 100] += 1
        return is_taken

    def mark(self, name: str) -> float:
        """Note the memory under a name."""
        self.marks[name] = now = rss_mb()
        self.look()
        return now

    def look(self) -> None:
        """Have the memory of this moment count towards the highest."""
        if self._warm:
            self._highest = max(self._highest, rss_mb())

    def _tell_us(self, part: float) -> float:
        """Return what `part` percent of the tells did not exceed."""
        left = self._tells.total() * part / 100
        for tenths in sorted(self._tells):
            left -= self._tells[tenths]
            if left <= 0:
                break
        return (tenths + 1) / 10

    def result(self, consumer: str, **more: Any) -> dict[str, Any]:
        """Return all figures; `growth_mb` is from warm to the highest seen after that."""
        return {
            "consumer": consumer,
            "messages": self.messages,
            "per_second": round(self.messages / self._seconds),
            "tell_us": {f"p{part}": self._tell_us(part) for part in (50, 99, 99.9, 100)},
            "rss_mb": {name: round(mb, 1) for name, mb in self.marks.items()},
            "growth_mb": round(self._highest - self._warm, 1),
            **more,
        }


class Stalled(Actor):
    """Holds its first message in hand until it is let go on; then counts, and hands each message to `check`."""

    def __init__(self, context: Context, go_on: threading.Event, check: Callable[[Any], None]) -> None:
        super().__init__(context)
        self._go_on = go_on
        self._check = check
        self.handled = 0

    def handle(self, message: object) -> None:
        self._go_on.wait()
        self._check(message)
        self.handled += 1


class Notices(Actor):
    """A monitor that keeps what it is told by notice."""

    def __init__(self, context: Context, heard: list[Notice]) -> None:
        super().__init__(context)
        self._heard = heard

    def handle(self, message: object) -> None:
        if isinstance(message, Notice):
            self._heard.append(message)


class StallingStore:
    """A store that takes nothing until `go_on`, and then klines one minute after the other only."""

    def __init__(self, go_on: threading.Event) -> None:
        self.taken = 0
        self._go_on = go_on

    def write(self, klines: Sequence[Kline], trades: Sequence[Trade], *more: object) -> None:
        self._go_on.wait()
        for kline in klines:
            if kline != closed_kline(self.taken):
                raise AssertionError(f"kline {self.taken} is missing or another: {kline}")
            self.taken += 1

    def last_klines(self, symbol: str, count: int, closed_only: bool = False) -> list[Kline]:
        return []

    def trade_ids(self, symbol: str) -> set[str]:
        return set()

    def prune(self, before_ms: int, events_before_ms: int) -> int:
        return 0


class Market:
    """A stream of about 2,000 updates a second, and its history, which is asked again and again for what was missed."""

    def __init__(self) -> None:
        self.updates = 0
        self.questions = 0
        self._lock = threading.Lock()

    def connect(self, symbols: Sequence[str], interval: str) -> "Market.Connection":
        return Market.Connection(self)

    def closed_klines(self, symbol: str, interval: str, start_time: int) -> list[Kline]:
        with self._lock:
            self.questions += 1
            until = self.updates // UPDATES_A_CANDLE
        return [closed_kline(number) for number in range(-(-start_time // MINUTE_MS), until)]

    def next(self) -> Kline:
        with self._lock:
            number, update = divmod(self.updates, UPDATES_A_CANDLE)
            self.updates += 1
        kline = closed_kline(number)
        if update == UPDATES_A_CANDLE - 1:
            return kline
        return msgspec.structs.replace(kline, is_closed=False, event_time=kline.open_time + update)

    class Connection:
        def __init__(self, market: "Market") -> None:
            self._market = market
            self._closed = threading.Event()

        def receive(self) -> Kline | None:
            if self._closed.wait(0.0005):
                raise StreamClosed("closed")
            return self._market.next()

        def close(self) -> None:
            self._closed.set()


def wait_until(condition: Callable[[], bool], seconds: float, what: str, look: Callable[[], None]) -> None:
    """Wait for `condition`, looking at the memory meanwhile. Raises AssertionError after `seconds`."""
    pause, end = threading.Event(), time.monotonic() + seconds
    while not condition():
        look()
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        pause.wait(0.05)


def stalled_trader(messages: int, directory: Path) -> dict[str, Any]:
    """Flood a trader that never finishes a kline, while the feed of another one, stalled as well, does what it can."""
    go_on, failures, candles = threading.Event(), [], array("q")
    log, market, memory = LocalLog(directory), Market(), Cell(FeedMemory())
    taken: list[Kline | None] = [None]

    def check(kline: Kline) -> None:
        if not is_newer(kline, taken[0]):
            raise AssertionError(f"{kline} came after {taken[0]}")
        taken[0] = kline
        if kline.is_closed:
            candles.append(kline.open_time // MINUTE_MS)

    system = ActorSystem(SystemClock(), lanes=LANES, on_event=_keep(failures, ActorFailed))
    settings = FeedSettings(SYMBOL, "1m", min_backoff_ms=20, max_backoff_ms=40)
    store = StallingStore(go_on)
    store.write = lambda *items: None  # type: ignore[method-assign]  # this one is no bottleneck
    flooded: list[Stalled] = []
    home = addresses.stream(0)

    def feed(context: Context) -> FeedActor:
        return FeedActor(context, settings, memory, home, market, BackfillGate(), lambda: None, lambda: 0)

    def stream(context: Context) -> StreamActor:
        cell, budget = Cell(StreamMemory()), ConnectionBudget(context.clock)
        return StreamActor(context, StreamSettings(0, (SYMBOL,), "1m"), cell, market, budget, random.Random(), {})

    def other(context: Context) -> Stalled:
        flooded.append(Stalled(context, go_on, lambda kline: None))
        return flooded[-1]

    system.start(
        [
            *_keepers(log, store, []),
            ChildSpec(addresses.trader(SYMBOL), lambda c: Stalled(c, go_on, check), handler_deadline_ms=NEVER_MS),
            ChildSpec(addresses.trader(OTHER), other, handler_deadline_ms=NEVER_MS),
            ChildSpec(addresses.feed(SYMBOL), feed),
            ChildSpec(addresses.stream(0), stream),
        ]
    )
    meter, accepted, to = Meter(messages), 0, addresses.trader(OTHER)
    for number in meter.numbers():
        kline = closed_kline(number, OTHER)
        accepted += meter.timed(number, lambda kline=kline: system.tell(to, kline))
    # The flood may be over sooner than the feed has been refused more than once.
    wait_until(lambda: market.questions >= 10, 30, "the feed tries again and again", meter.look)
    meter.mark("feed was refused")
    streamed, questions = market.updates, market.questions
    go_on.set()
    wait_until(lambda: flooded[0].handled == accepted, 30, "the flooded trader has all it accepted", meter.look)
    behind = streamed // UPDATES_A_CANDLE
    wait_until(lambda: bool(candles) and candles[-1] > behind, 60, "the feed caught up", meter.look)
    abandoned = system.stop()
    meter.mark("went on")
    if list(candles) != list(range(candles[0], candles[0] + len(candles))):
        raise AssertionError("a candle is missing or came twice")
    return meter.result(
        "trader",
        accepted=accepted,
        refused=messages - accepted,
        streamed=streamed,
        questions=questions,
        candles=len(candles),
        failures=[str(failure) for failure in failures],
        abandoned=abandoned,
    )


def stalled_persistence(messages: int, directory: Path) -> dict[str, Any]:
    """Have the bridge take all messages while the store takes none, then let the store take them."""
    go_on, failures, heard = threading.Event(), [], []
    store, log = StallingStore(go_on), LocalLog(directory)
    system = ActorSystem(SystemClock(), lanes=LANES, on_event=_keep(failures, ActorFailed))
    system.start(_keepers(log, store, heard))
    meter, refused, pause = Meter(messages), 0, threading.Event()
    for number in meter.numbers():
        kline = closed_kline(number)
        while not meter.timed(number, lambda kline=kline: system.tell(addresses.BRIDGE, kline)):
            refused += 1  # as a feed is, which then gives way
            pause.wait(PAUSE_S)
    wait_until(lambda: log.depth == messages, 30, "the log has all", meter.look)
    spilled = meter.mark("all in the log") and log.spilled_bytes
    files = len(list(directory.iterdir()))
    began = time.perf_counter()
    go_on.set()
    wait_until(lambda: log.depth == 0, 60 + messages / 5_000, "all stored", meter.look)
    seconds = time.perf_counter() - began
    meter.mark("all stored")
    abandoned = system.stop()
    log.close()
    if store.taken != messages:
        raise AssertionError(f"{store.taken} of {messages} were stored")
    return meter.result(
        "persistence",
        refused=refused,
        spilled_mb=round(spilled / 1_000_000, 1),
        files=files,
        files_left=len(list(directory.iterdir())),
        stored_per_second=round(messages / seconds),
        notices=[notice.text for notice in heard],
        failures=[str(failure) for failure in failures],
        abandoned=abandoned,
    )


class Courier(Actor):
    """Passes every trade on to a consumer, as whoever may not drop it does."""

    def __init__(self, context: Context, to: Address) -> None:
        super().__init__(context)
        self._to = to

    def handle(self, message: object) -> None:
        self.context.tell(self._to, message)


def stalled_must(messages: int, directory: Path) -> dict[str, Any]:
    """Tell trades to a consumer that never finishes one; and let an actor that waits for room fail."""
    go_on, failures, letters = threading.Event(), [], []
    numbers = array("q")
    impatient, patient, courier = Address("consumer", "impatient"), Address("consumer", "patient"), Address("courier")
    waits_ms = 300

    def consumer(to: Address, timeout_ms: int, check: Callable[[Any], None]) -> ChildSpec:
        bounds = LaneBounds(must=1_000, put_timeout_ms=timeout_ms)
        return ChildSpec(to, lambda c: Stalled(c, go_on, check), handler_deadline_ms=NEVER_MS, lane_bounds=bounds)

    def on_event(event: object) -> None:
        _keep(failures, ActorFailed)(event)
        _keep(letters, DeadLetter)(event)

    system = ActorSystem(SystemClock(), lanes=LANES, on_event=on_event)
    system.start(
        [
            consumer(impatient, 0, lambda trade: numbers.append(trade.order_id)),
            consumer(patient, waits_ms, lambda trade: None),
            ChildSpec(courier, lambda c: Courier(c, patient)),
        ]
    )
    meter, accepted, refused = Meter(messages), [], 0

    def tell(number: int) -> bool:
        try:
            return system.tell(impatient, trade(number))
        except MailboxFull:
            return False

    for number in meter.numbers():
        if meter.timed(number, lambda number=number: tell(number)):
            accepted.append(number)
        else:
            refused += 1
    with suppress(MailboxFull):
        while system.tell(patient, trade(0)):
            pass
    began = time.monotonic()
    system.tell(courier, trade(1))
    wait_until(lambda: bool(failures), 30, "the courier fails", meter.look)
    waited_ms = round((time.monotonic() - began) * 1000)
    wait_until(lambda: bool(letters), 30, "the trade is given up", meter.look)
    meter.mark("courier failed")
    go_on.set()
    wait_until(lambda: len(numbers) == len(accepted), 30, "all that was accepted is handled", meter.look)
    abandoned = system.stop()
    meter.mark("went on")
    if list(numbers) != accepted:
        raise AssertionError("what was accepted came in another order")
    return meter.result(
        "must",
        accepted=len(accepted),
        refused=refused,
        courier_waited_ms=waited_ms,
        failures=[str(failure) for failure in failures],
        dead_letters=[str(letter) for letter in letters],
        abandoned=abandoned,
    )


def _keep(kept: list[Any], kind: type) -> Callable[[object], None]:
    return lambda event: kept.append(event) if isinstance(event, kind) else None


def _keepers(log: LocalLog, store: StallingStore, heard: list[Notice]) -> tuple[ChildSpec, ...]:
    """Monitor, persistence and bridge as a bot has them."""
    clock = SystemClock()
    return (
        ChildSpec(addresses.MONITOR, lambda c: Notices(c, heard)),
        ChildSpec(
            addresses.PERSISTENCE,
            lambda c: PersistenceActor(c, PersistenceSettings(), store, lambda: 10**12, clock.now_ms),
            handler_deadline_ms=NEVER_MS,
        ),
        ChildSpec(addresses.BRIDGE, lambda c: KafkaBridgeActor(c, log)),
    )


CONSUMERS = {"trader": stalled_trader, "persistence": stalled_persistence, "must": stalled_must}


def main() -> None:
    """Run one consumer's stall and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("consumer", choices=CONSUMERS)
    parser.add_argument("--messages", type=int, default=5_000_000)
    parser.add_argument("--json", action="store_true", help="one object on one line")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as path:
        result = CONSUMERS[options.consumer](options.messages, Path(path))
    print(json.dumps(result, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
