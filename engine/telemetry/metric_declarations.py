"""How metrics are declared: each is made on a registry and noted for docs/metrics.md at once."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.metrics_core import HistogramMetricFamily, Metric

Labels = Mapping[str, Sequence[str] | None]
"""Label name to its closed set of values; None where the values come from the deployment (a topic, a version)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Declared:
    """What docs/metrics.md says of one metric."""

    name: str
    kind: str
    help: str
    labels: Labels
    buckets: tuple[float, ...] = ()


class ArrayHistogram:
    """A classic Prometheus histogram that is given a batch at a time: one search per batch, no Python per value.

    Thread-safe. Values are seconds (or rows); NaN is left out, since it would poison the sum for ever.
    """

    def __init__(
        self, name: str, documentation: str, *, buckets: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = np.asarray(buckets, dtype=np.float64)
        self._counts = np.zeros(len(buckets) + 1, dtype=np.int64)
        self._sum = 0.0
        self._lock = threading.Lock()
        registry.register(self)

    def observe_many(self, values: NDArray[np.float64]) -> None:
        """Count each value, shape (N,)."""
        known = values[~np.isnan(values)]
        places = np.searchsorted(self._bounds, known, side="left")
        counts = np.bincount(places, minlength=len(self._counts))
        total = float(known.sum())
        with self._lock:
            self._counts += counts
            self._sum += total

    def collect(self) -> Iterable[Metric]:
        """The cumulative buckets, as a scrape wants them."""
        with self._lock:
            counts, total = self._counts.cumsum().tolist(), self._sum
        bounds = [*map(bound_text, self._bounds.tolist()), "+Inf"]
        family = HistogramMetricFamily(self._name, self._documentation)
        family.add_metric([], buckets=list(zip(bounds, counts, strict=True)), sum_value=total)
        yield family

    def describe(self) -> Iterable[Metric]:
        """The name, for the registry's check on duplicates."""
        return [HistogramMetricFamily(self._name, self._documentation)]


class Declarations:
    """Makes metrics on one registry and remembers what was declared; series of closed sets exist from the start."""

    def __init__(self, registry: CollectorRegistry) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series beside every counter
        self._registry = registry
        self.declared: list[Declared] = []

    def counter(self, name: str, help: str, labels: Labels | None = None) -> Counter:
        made = Counter(name.removesuffix("_total"), help, list(labels or ()), registry=self._registry)
        self._note(name, "counter", help, labels or {}, made)
        return made

    def gauge(self, name: str, help: str, labels: Labels | None = None) -> Gauge:
        made = Gauge(name, help, list(labels or ()), registry=self._registry)
        self._note(name, "gauge", help, labels or {}, made)
        return made

    def histogram(
        self, name: str, help: str, buckets: tuple[float, ...], labels: Labels | None = None
    ) -> Histogram:
        made = Histogram(name, help, list(labels or ()), buckets=buckets, registry=self._registry)
        self._note(name, "histogram", help, labels or {}, made, buckets)
        return made

    def array_histogram(self, name: str, help: str, buckets: tuple[float, ...]) -> ArrayHistogram:
        made = ArrayHistogram(name, help, buckets=buckets, registry=self._registry)
        self.declared.append(Declared(name=name, kind="histogram", help=help, labels={}, buckets=buckets))
        return made

    def _note(
        self,
        name: str,
        kind: str,
        help: str,
        labels: Labels,
        made: Counter | Gauge | Histogram,
        buckets: tuple[float, ...] = (),
    ) -> None:
        self.declared.append(Declared(name=name, kind=kind, help=help, labels=labels, buckets=buckets))
        if len(labels) == 1:
            ((label, values),) = labels.items()
            for value in values or ():
                made.labels(**{label: value})


def bound_text(value: float) -> str:
    """A bucket's bound as the exposition writes it."""
    return f"{value:.15g}" if value != int(value) else f"{value:.1f}"
