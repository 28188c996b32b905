"""What is measured of a running bot: the table of `domain/metrics.py`, filled from its snapshot and its cells.

No actor is asked, so it works while all of them hang.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal

from bot.actors.supervisor import Memories
from bot.app.health import trouble
from bot.app.snapshot import Snapshot
from bot.domain.metrics import METRICS, Distribution, Sample
from bot.domain.money import ZERO, add, multiply, subtract
from bot.domain.order import Side
from bot.domain.risk import DAY_MS
from bot.ports import StoreError
from bot.supervision import ActorStatus, Clock

MOST_ACTORS = 50
"""Beyond so many actors those of one kind share a label's value: a series each would cost more than it tells."""

USUAL_REFUSALS = ("-1013", "-2010")
"""A filter broken, an order refused: counted from 0 on, so that Prometheus sees the first one rise."""


class Measures:
    """Fills the table. Thread-safe.

    `weights` gives the request weight used by host, `lags` the klines on a topic that are not stored yet, by topic;
    `idle` are the last closes of symbols that the book holds and this run does not trade. `peak_profit` is the most
    that the book ever brought (quote asset), as far as is known.
    """

    def __init__(
        self,
        take_snapshot: Callable[[], Snapshot],
        memories: Memories,
        clock: Clock,
        weights: Callable[[], Mapping[str, int]],
        lags: Callable[[], Mapping[str, int]],
        idle: Mapping[str, Decimal],
        peak_profit: Decimal = ZERO,
    ) -> None:
        self._take_snapshot = take_snapshot
        self._memories = memories
        self._clock = clock
        self._weights = weights
        self._lags = lags
        self._idle = idle
        self.peak_profit = peak_profit

    def samples(self) -> list[Sample]:
        """Return every series that there is now. Only that the bot is not healthy where its files cannot be read."""
        try:
            snapshot = self._take_snapshot()
        except StoreError:
            return [_sample("healthy", 0)]
        now = self._clock.now_ms()
        return [
            *self._of_symbols(snapshot, now),
            *self._of_orders(),
            *self._of_money(now),
            *_of_actors(snapshot.actors),
            *_of_outboxes(snapshot, now),
            *(_sample("kafka_lag", lag, topic) for topic, lag in self._lags().items()),
            *(_sample("request_weight", weight, host) for host, weight in self._weights().items()),
            _sample("points_dropped", self._memories.metrics.value.dropped),
            _sample("halted", snapshot.halted is not None),
            _sample("symbols_stopped", sum(bool(symbol) for symbol, _ in snapshot.stopped)),
            _sample("healthy", trouble(snapshot, now) is None),
        ]

    def equity(self) -> Decimal | None:
        """Return cash and positions at the last closes.

        None before the portfolio has started, or the trader of a position that has not told its last close yet: without
        it, each start would look like a loss.

        Both are the portfolio's: a trader books an order's fills a moment before it, and what looks like a gain in
        between would stay the highest equity for ever.
        """
        portfolio = self._memories.portfolio.value
        if not portfolio.positions:
            return None
        total = portfolio.cash
        for symbol, quantity in portfolio.positions.items():
            trader = self._memories.traders.get(symbol)
            close = self._idle.get(symbol) if trader is None else trader.value.close
            if close is not None:
                total = add(total, multiply(quantity, close))
            elif trader is not None and quantity:
                return None
        return total

    def look(self) -> None:
        """Take notice of the equity, so that a peak between two readings of the metrics counts too."""
        equity = self.equity()
        if equity is not None:
            self.peak_profit = max(self.peak_profit, subtract(equity, self._memories.portfolio.value.start_cash))

    def _of_symbols(self, snapshot: Snapshot, now: int) -> Iterator[Sample]:
        equity = float(self.equity() or 0)
        uptime_ms = max((actor.uptime_ms for actor in snapshot.actors), default=0)
        for view in snapshot.symbols:
            yield _sample("position", view.position.quantity, view.symbol)
            if equity > 0:
                yield _sample("exposure_ratio", float(view.value) / equity, view.symbol)
            feed = self._memories.feeds.get(view.symbol)
            if feed is None:
                continue
            last_ms = view.last_kline_ms
            age_ms = uptime_ms if last_ms is None else max(0, now - last_ms)
            yield _sample("feed_age_seconds", age_ms / 1000, view.symbol)
            yield _sample("klines_received", feed.value.passed, view.symbol)
            yield _sample("klines_dropped", feed.value.dropped + feed.value.refused, view.symbol)

    def _of_orders(self) -> Iterator[Sample]:
        counts = dict(self._memories.monitor.value.counts)
        for symbol, meter in self._memories.orders.items():
            signals = self._memories.traders[symbol].value.signals
            for side in Side:
                yield _sample("signals", signals.get(side.value, 0), symbol, side.value)
                counts.setdefault(("orders_filled", symbol, side.value), 0)
            yield _sample("orders_sent", meter.sent, symbol)
            if meter.latency.count:
                yield _sample("tick_to_order_seconds", meter.latency, symbol)
        counts.setdefault(("dead_letters",), 0)
        for code in USUAL_REFUSALS:
            counts.setdefault(("orders_rejected", code), 0)
        for (name, *labels), count in counts.items():
            yield _sample(name, count, *labels)

    def _of_money(self, now: int) -> Iterator[Sample]:
        self.look()
        equity, portfolio = self.equity(), self._memories.portfolio.value
        if equity is None:
            return
        day, peak = portfolio.day, add(portfolio.start_cash, self.peak_profit)
        yield _sample("equity", equity)
        yield _sample("cash", portfolio.cash)
        yield _sample("drawdown_ratio", _loss(peak, equity))
        yield _sample("daily_loss_ratio", _loss(day.start_equity, equity) if day.number == now // DAY_MS else 0)


def _of_actors(actors: Sequence[ActorStatus]) -> Iterator[Sample]:
    are_few = len(actors) <= MOST_ACTORS
    restarts: Counter[str] = Counter()
    waiting: dict[str, int] = {}
    for actor in actors:
        label = actor.name if are_few else actor.kind
        restarts[label] += actor.restarts
        waiting[label] = max(waiting.get(label, 0), actor.mailbox.total)
    yield _sample("actors_quarantined", sum(actor.state == "quarantined" for actor in actors))
    yield from (_sample("actor_restarts", count, label) for label, count in restarts.items())
    yield from (_sample("actor_mailbox", depth, label) for label, depth in waiting.items())


def _of_outboxes(snapshot: Snapshot, now: int) -> Iterator[Sample]:
    yield _sample("outbox_entries", snapshot.log_depth, "store")
    for name, state in snapshot.outboxes.items():
        age_ms = 0 if state.oldest_ms is None else max(0, now - state.oldest_ms)
        yield _sample("outbox_entries", state.depth, name)
        yield _sample("outbox_age_seconds", age_ms / 1000, name)
        yield _sample("outbox_dropped", state.dropped, name)


def _loss(before: Decimal, now: Decimal) -> float:
    """Return the loss since `before` as a fraction of it; 0 where there is none."""
    return float(subtract(before, now)) / float(before) if before > 0 and now < before else 0.0


def _sample(name: str, value: float | Decimal | Distribution, *labels: str) -> Sample:
    metric = METRICS[name]
    assert len(labels) == len(metric.labels), name
    return Sample(metric, labels, value if isinstance(value, Distribution) else float(value))
