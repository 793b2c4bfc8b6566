"""Metrics as values: their definitions, and counters and histograms in memory. Needs no library to count.

A counter belongs to the one thread that counts; another one may read it at any time. It costs less than a microsecond,
while a metric of prometheus-client takes a lock each time, and agents would need that library.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate

__all__ = [
    "OTHER",
    "Buckets",
    "Counter",
    "Family",
    "Histogram",
    "Kind",
    "LabelLimit",
    "Metric",
    "Source",
    "gauge",
]


OTHER = "other"


class Kind(StrEnum):
    """The types of metrics, as Prometheus names them."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Metric:
    """The definition of a metric. Its name ends with its unit, and that of a counter with `_total`."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Buckets:
    """The values of a histogram for one set of labels: (upper bound, number of values up to it), and their sum."""

    counts: Sequence[tuple[float, int]]
    sum: float


@dataclass(frozen=True)
class Family:
    """A metric with its values by labels: numbers, or those of a histogram."""

    metric: Metric
    values: Mapping[tuple[str, ...], float | Buckets]


Source = Callable[[], Iterable[Family]]
"""Returns metrics as they are now. It is called by another thread than the one that counts."""


def gauge(metric: Metric, values: float | Mapping[tuple[str, ...], float]) -> Family:
    """Return a metric with its value, or its values by labels."""
    return Family(metric, values if isinstance(values, Mapping) else {(): values})


class LabelLimit:
    """Bounds the values of a label: the first `most` are kept, and all later ones are `other`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: set[str] = set()

    def __call__(self, value: str) -> str:
        """Return the value, or `other`."""
        if value in self._kept:
            return value
        if len(self._kept) >= self._most:
            return OTHER
        self._kept.add(value)
        return value


# design.md: "Metrics are counted without the library that exposes them"
class Counter:
    """A count for each set of labels. Those of `begins` are exposed as 0 before the first is counted."""

    def __init__(self, metric: Metric, begins: Iterable[tuple[str, ...]] = ()) -> None:
        self._metric = metric
        self._values: dict[tuple[str, ...], float] = dict.fromkeys(begins if metric.labels else [()], 0)

    def add(self, *labels: str, amount: float = 1) -> None:
        """Count for these labels."""
        self._values[labels] = self._values.get(labels, 0) + amount

    def family(self) -> Family:
        """Return the counts up to now."""
        return Family(self._metric, dict(self._values))


class Histogram:
    """How many values are up to each of the `bounds`, for each set of labels. Those of `begins` are exposed at once."""

    def __init__(self, metric: Metric, bounds: Sequence[float], begins: Iterable[tuple[str, ...]] = ()) -> None:
        self._metric = metric
        self._bounds = [*bounds, float("inf")]
        self._values: dict[tuple[str, ...], list[float]] = {
            labels: self._empty() for labels in (begins if metric.labels else [()])
        }

    def observe(self, value: float, *labels: str, count: int = 1) -> None:
        """Count a value, `count` times."""
        found = self._values.get(labels)
        if found is None:
            found = self._values.setdefault(labels, self._empty())
        found[bisect_left(self._bounds, value)] += count
        found[-1] += value * count

    def family(self) -> Family:
        """Return the values up to now."""
        return Family(self._metric, {labels: self._buckets(list(its)) for labels, its in dict(self._values).items()})

    def _empty(self) -> list[float]:
        return [0.0] * (len(self._bounds) + 1)  # the last is the sum

    def _buckets(self, values: list[float]) -> Buckets:
        counts = [int(count) for count in accumulate(values[:-1])]
        return Buckets(list(zip(self._bounds, counts, strict=True)), values[-1])
