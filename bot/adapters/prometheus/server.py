"""Serves samples at /metrics in the form that Prometheus reads, on threads of its own."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from bot.domain.metrics import BOUNDS_S, METRICS, Distribution, Kind, Sample

PREFIX = "bulkhead_"


class _Samples(Collector):
    def __init__(self, take: Callable[[], Sequence[Sample]], common: tuple[tuple[str, str], ...]) -> None:
        self._take = take
        self._names, self._values = zip(*common, strict=True)

    def describe(self) -> Iterable[Metric]:
        """Nothing: a registry would otherwise collect once to learn the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        by_name: dict[str, list[Sample]] = {}
        for sample in self._take():
            by_name.setdefault(sample.metric.name, []).append(sample)
        for name, samples in by_name.items():
            yield self._family(name, samples)

    def _family(self, name: str, samples: Sequence[Sample]) -> Metric:
        metric, labels = METRICS[name], (*self._names, *METRICS[name].labels)
        head = (PREFIX + name, metric.text)
        if metric.kind is Kind.DISTRIBUTION:
            histogram = HistogramMetricFamily(*head, labels=labels)
            for sample in samples:
                if isinstance(sample.value, Distribution):
                    histogram.add_metric((*self._values, *sample.labels), _buckets(sample.value), sample.value.total)
            return histogram
        family = (CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily)(*head, labels=labels)
        for sample in samples:
            if not isinstance(sample.value, Distribution):
                family.add_metric((*self._values, *sample.labels), sample.value)
        return family


def _buckets(distribution: Distribution) -> list[tuple[str, float]]:
    """Return the buckets as Prometheus counts them: each with all that is smaller."""
    rows, count = [], 0
    for bound, here in zip((*map(repr, BOUNDS_S), "+Inf"), distribution.counts, strict=True):
        count += here
        rows.append((bound, float(count)))
    return rows


class MetricsServer:
    """Serves what `take` returns at each scrape, every sample with the labels `common` (name, value) too."""

    def __init__(
        self, host: str, port: int, take: Callable[[], Sequence[Sample]], common: tuple[tuple[str, str], ...]
    ) -> None:
        """Listen from now on. Raises OSError where the address cannot be had."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Samples(take, common))
        ProcessCollector(registry=registry)
        self._server, self._thread = start_http_server(port, host, registry)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
