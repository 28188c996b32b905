"""The metrics of a running bot: who measures them, and who is given them, as the settings have it."""

from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING

from bot.actors.metrics import MetricsSettings
from bot.actors.stream import shards
from bot.actors.supervisor import MetricsParts
from bot.app.measuring import MOST_ACTORS, Measures
from bot.config import ConfigError, Settings
from bot.domain.metrics import METRICS, Metric, Point, Series
from bot.domain.money import plain
from bot.domain.order import Side
from bot.ports import MetricSink, OrderJournal, StoreError
from bot.supervision import Clock

if TYPE_CHECKING:
    from bot.adapters.prometheus import MetricsServer

PEAK_NOTE = "peak_profit"
"""Under which the journal keeps the most that the book ever brought, in the quote asset."""
NOTE_EVERY_MS = 60_000

FREE_SERIES, SERIES_CENTS = 10, 30
"""What AWS keeps for nothing, and what each series more costs a month. Source: Amazon CloudWatch pricing."""


def common_labels(settings: Settings) -> tuple[tuple[str, str], ...]:
    """Return what stands in every series, as (name, value)."""
    return (("bot_id", settings.bot_id), ("mode", settings.mode.value))


def peak_profit(journal: OrderJournal) -> Decimal:
    """Return the most that the book brought as far as its journal knows. Raises StoreError."""
    return Decimal(journal.get_note(PEAK_NOTE) or "0")


class Metering:
    """Measures a bot for CloudWatch and Prometheus, as far as they are wanted."""

    def __init__(self, settings: Settings, measures: Measures, journal: OrderJournal, clock: Clock) -> None:
        """Listen for Prometheus from now on. Raises ConfigError where the address cannot be had."""
        self._measures = measures
        self._journal = journal
        self._clock = clock
        self._noted, self._noted_ms = measures.peak_profit, clock.monotonic_ms()
        common = common_labels(settings)
        self._series = Series(common, settings.cloudwatch.detail == "full")
        interval = MetricsSettings(settings.cloudwatch.interval * 1000)
        self.parts = MetricsParts(self._look, self._points, _sink(settings), interval)
        self._server: MetricsServer | None = None
        if settings.metrics.port:
            self._server = listen(settings, measures)

    def close(self) -> None:
        """Serve no more."""
        if self._server is not None:
            self._server.close()

    def _look(self) -> None:
        self._measures.look()
        peak, now = self._measures.peak_profit, self._clock.monotonic_ms()
        if peak != self._noted and now - self._noted_ms >= NOTE_EVERY_MS:
            with suppress(StoreError):  # it is told by those who write what cannot be read off again
                self._journal.set_note(PEAK_NOTE, plain(peak))
                self._noted = peak
            self._noted_ms = now

    def _points(self, now_ms: int) -> list[Point]:
        return self._series.points(self._measures.samples(), now_ms)


def listen(settings: Settings, measures: Measures | None = None) -> "MetricsServer":
    """Serve metrics where the settings say, or, without `measures`, only show that it can be done.

    Raises ConfigError.
    """
    # Imported only now: whoever is not scraped starts without it.
    from bot.adapters.prometheus import MetricsServer

    host, port = settings.metrics.host, settings.metrics.port
    try:
        return MetricsServer(host, port, measures.samples if measures else list, common_labels(settings))
    except OSError as error:
        raise ConfigError(
            f"metrics.port: cannot listen on {host}:{port}: {error.strerror or error}; "
            "name another metrics.port or metrics.host, or 0 for none"
        ) from None


def _sink(settings: Settings) -> MetricSink | None:
    if not settings.cloudwatch.namespace:
        return None
    # Imported only now, as above.
    from bot.adapters.cloudwatch import CloudWatch

    return CloudWatch(settings.cloudwatch.namespace, settings.aws.region, settings.aws.endpoint_url)


def try_cloudwatch(settings: Settings, now_ms: int) -> str:
    """Put a point that changes no sum, and say in a line where, and what a month costs. Raises PointsNotTaken."""
    sink = _sink(settings)
    assert sink is not None
    metric = METRICS["klines_received"]
    sink.put([Point(metric.name, metric.unit, common_labels(settings), now_ms, (0.0,), (1,))])
    series = expected_series(settings)
    cents = max(0, series - FREE_SERIES) * SERIES_CENTS
    cost = f"{cents / 100:.2f} dollars a month" if cents else "within the ten that are free"
    about = "about " if settings.cloudwatch.detail == "full" else ""
    return f"takes metrics in {settings.cloudwatch.namespace}, {about}{series} series, {cost}"


def expected_series(settings: Settings) -> int:
    """Return how many series CloudWatch will be given; what has a label of reasons is guessed."""
    outboxes = (settings.store == "dynamodb") + bool(settings.kafka.bootstrap_servers)
    symbols = len(settings.symbols)
    actors = 2 * symbols + len(shards(settings.symbols)) + 8
    values = {
        "symbol": symbols,
        "side": len(Side),
        "actor": actors if actors <= MOST_ACTORS else 11,
        "outbox": outboxes,
        "topic": int(settings.market_data.source == "kafka"),
        "host": 2,
        "reason": 5,
        "status": 2,
    }

    def count(metric: Metric) -> int:
        number = 1
        for label in metric.labels:
            number *= values[label]
        return number

    basic = sum(metric.is_basic and count(metric) > 0 for metric in METRICS.values())
    if settings.cloudwatch.detail == "basic":
        return basic
    return basic + sum(count(metric) for metric in METRICS.values() if metric.labels or not metric.is_basic)
