"""The text in which Prometheus reads metrics. The only module that imports prometheus_client."""

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as PrometheusFamily
from prometheus_client.registry import Collector

from broker.metrics.values import Buckets, Family, Kind, Source

__all__ = [
    "CONTENT_TYPE",
    "Exposition",
]


CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Exposition(Collector):
    """The metrics of these sources, and those of the process: its memory, time and descriptors."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    def __call__(self) -> bytes:
        """Return all metrics as they are now."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[PrometheusFamily]:
        """Return all metrics of the sources, as the library's registry asks for them."""
        for source in self._sources:
            yield from _families(source())


def _families(families: Iterable[Family]) -> Iterator[PrometheusFamily]:
    for family in families:
        yield _histogram(family) if family.metric.kind is Kind.HISTOGRAM else _numbers(family)


def _numbers(family: Family) -> PrometheusFamily:
    metric = family.metric
    kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    made = kind(metric.name, metric.help, labels=metric.labels)
    for labels, value in family.values.items():
        assert not isinstance(value, Buckets)
        made.add_metric(labels, value)
    return made


def _histogram(family: Family) -> PrometheusFamily:
    made = HistogramMetricFamily(family.metric.name, family.metric.help, labels=family.metric.labels)
    for labels, value in family.values.items():
        assert isinstance(value, Buckets)
        counts = [("+Inf" if bound == float("inf") else repr(bound), count) for bound, count in value.counts]
        made.add_metric(labels, counts, value.sum)
    return made
