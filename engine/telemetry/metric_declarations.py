"""Metrics declared as a table in a class: made on a registry, written into docs/metrics.md, put out for a scrape."""

import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.samples import Exemplar

from penstock.schemas.errors import InvariantError

content_type = "text/plain; version=0.0.4; charset=utf-8"
openmetrics_type = "application/openmetrics-text; version=1.0.0; charset=utf-8"

Labels = Mapping[str, Sequence[str] | None]
"""Label name to its closed set of values; None where the values come from the deployment (a topic, a version)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A value among many, and what leads to it; a scrape in the OpenMetrics form carries it beside its bucket."""

    value: float
    labels: Mapping[str, str]
    at_s: float  # since 1970


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
        self._exemplars: dict[int, Exemplar] = {}
        self._lock = threading.Lock()
        registry.register(self)

    def observe_many(self, values: NDArray[np.float64], *, example: "Example | None" = None) -> None:
        """Count each value, shape (N,). `example`: one of them, and where it came from; its bucket shows the newest."""
        total = float(values.sum())
        if math.isnan(total):
            values = values[~np.isnan(values)]
            total = float(values.sum())
        if not len(values):
            return
        least, most = np.searchsorted(self._bounds, (values.min(), values.max()), side="left").tolist()
        counts: NDArray[np.int64] | int = len(values)
        if least != most:  # values of one batch are mostly near each other, and then none has to be looked up
            places = np.searchsorted(self._bounds, values, side="left")
            counts = np.bincount(places - least, minlength=most - least + 1)
        with self._lock:
            self._counts[least : most + 1] += counts
            self._sum += total
            if example is not None:
                place = int(np.searchsorted(self._bounds, example.value, side="left"))
                self._exemplars[place] = Exemplar(dict(example.labels), example.value, example.at_s)

    def collect(self) -> Iterable[Metric]:
        """The cumulative buckets, as a scrape wants them."""
        with self._lock:
            counts, total = self._counts.cumsum().tolist(), self._sum
            exemplars = dict(self._exemplars)
        bounds = [*map(bound_text, self._bounds.tolist()), "+Inf"]
        family = HistogramMetricFamily(self._name, self._documentation)
        buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = [
            (bound, counts[at], exemplars[at]) if at in exemplars else (bound, counts[at])
            for at, bound in enumerate(bounds)
        ]
        family.add_metric([], buckets=buckets, sum_value=total)
        yield family

    def describe(self) -> Iterable[Metric]:
        """The name, for the registry's check on duplicates."""
        return [HistogramMetricFamily(self._name, self._documentation)]


Made = TypeVar("Made", bound=Counter | Gauge | Histogram | ArrayHistogram)


@dataclass(frozen=True, kw_only=True)
class Declared(Generic[Made]):
    """One metric of a `MetricSet`: what docs/metrics.md says of it, and how it is made. An instance of the set has the metric
    itself under the attribute's name."""

    kind: type[Made]
    name: str
    help: str
    labels: Labels
    buckets: tuple[float, ...] = ()

    @property
    def kind_name(self) -> str:
        """As Prometheus names it."""
        return "histogram" if self.kind is ArrayHistogram else self.kind.__name__.lower()

    def made(self, registry: CollectorRegistry, buckets: tuple[float, ...] | None = None) -> Made:
        """The metric, on this registry; with other `buckets` than declared where the deployment has its own."""
        options: dict[str, Any] = {"registry": registry}
        if buckets or self.buckets:
            options["buckets"] = buckets or self.buckets
        if self.labels:
            options["labelnames"] = list(self.labels)
        made = self.kind(self.name.removesuffix("_total"), self.help, **options)
        if len(self.labels) == 1 and not isinstance(made, ArrayHistogram):
            ((label, values),) = self.labels.items()
            for value in values or ():
                made.labels(**{label: value})
        return made

    @overload
    def __get__(self, owner: None, kind: type) -> Self: ...
    @overload
    def __get__(self, owner: object, kind: type) -> Made: ...
    def __get__(self, owner: object | None, kind: type) -> Self | Made:
        if owner is None:
            return self
        raise InvariantError(f"{self.name} was asked for before its registry was given")


class MetricSet:
    """The metrics of one process, made on a registry: an attribute for each `Declared` of the class, under its name.

    Series whose labels are closed sets exist from the start.
    """

    def __init__(
        self, registry: CollectorRegistry, *, buckets: Mapping[str, tuple[float, ...]] | None = None
    ) -> None:
        """`buckets`: of histograms by name, in place of the declared ones."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series beside every counter
        self.registry = registry
        for attribute, one in vars(type(self)).items():
            if isinstance(one, Declared):
                vars(self)[attribute] = one.made(registry, (buckets or {}).get(one.name))

    @classmethod
    def declared(cls) -> tuple[Declared[Any], ...]:
        """What the class declares, in its order."""
        return tuple(one for one in vars(cls).values() if isinstance(one, Declared))


def counter(name: str, help: str, labels: Labels | None = None) -> Declared[Counter]:
    """A number that only grows; `name` ends in _total."""
    return Declared(kind=Counter, name=name, help=help, labels=labels or {})


def gauge(name: str, help: str, labels: Labels | None = None) -> Declared[Gauge]:
    """A number that goes up and down."""
    return Declared(kind=Gauge, name=name, help=help, labels=labels or {})


def histogram(
    name: str, help: str, buckets: tuple[float, ...], labels: Labels | None = None
) -> Declared[Histogram]:
    """Observations, one at a time, by upper bounds."""
    return Declared(kind=Histogram, name=name, help=help, labels=labels or {}, buckets=buckets)


def array_histogram(name: str, help: str, buckets: tuple[float, ...]) -> Declared[ArrayHistogram]:
    """Observations, a batch at a time, by upper bounds."""
    return Declared(kind=ArrayHistogram, name=name, help=help, labels={}, buckets=buckets)


def bound_text(value: float) -> str:
    """A bucket's bound as the exposition writes it."""
    return f"{value:.15g}" if value != int(value) else f"{value:.1f}"


def render_openmetrics(registry: CollectorRegistry) -> bytes:
    """The registry in the OpenMetrics form, with exemplars, up to its `# EOF`."""
    return bytes(openmetrics.generate_latest(registry))  # type: ignore[no-untyped-call]


def render(registry: CollectorRegistry) -> bytes:
    """The registry in the text format that Prometheus scrapes."""
    return bytes(generate_latest(registry))
