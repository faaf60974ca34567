"""The laws that are compared: Penstock's own, and its rivals with every setting a user might try."""

import itertools

import numpy as np

from penstock.engine.scaling.flow import Flow, Stalls
from penstock.engine.scaling.forecast import Arrivals
from penstock.engine.scaling.lag import Movement, PartitionLag
from penstock.engine.scaling.planner import Bounds, required
from penstock.engine.scaling.snapshot import Snapshot
from penstock.engine.scaling.steadier import Steadier
from penstock_bench.scaling.autoscaler import Array, Behaviour, sync_s
from penstock_bench.scaling.loads import capacity_records_per_s, partitions
from penstock_bench.scaling.plant import View, objective_s


class Penstock:
    """The product's own law on what the product's scaler would see. One setting: the objective."""

    name = "penstock"
    behaviour = Behaviour(
        down_window_s=np.array([60.0]), up_share=4.0, up_pods=8, down_share=0.5, down_period_s=60.0
    )

    def __init__(
        self,
        *,
        capacity_error: float = 1.0,
        capacity_records_per_s: float = capacity_records_per_s,
        partitions: int = partitions,
        replicas_max: int = partitions,
    ) -> None:
        """`capacity_error`: capacity as measured over capacity as it is."""
        self.settings = ["max_age_s 30"]
        self._bounds = Bounds(max_age_s=objective_s, min_replicas=1, max_replicas=replicas_max)
        self._arrivals = Arrivals()
        self._steadier = Steadier(self._bounds)
        self._capacity = capacity_records_per_s * capacity_error
        self._told = 1
        self._owners: list[int] = []
        self._changed_s = -1e9
        self._flow, self._stalls = Flow(), Stalls()

    def look(self, view: View) -> None:
        """As Policy asks."""
        self._arrivals.add(dict(enumerate(view.end.astype(int).tolist())), now_s=float(view.second))
        owners = view.owners[0].tolist()
        if owners != self._owners:
            self._owners, self._changed_s = owners, float(view.second)
        backlog = np.maximum(view.end - view.position[0], 0.0)
        lags = [
            PartitionLag(
                partition=partition, committed=int(end) - int(waiting), end=int(end), lag_records=int(waiting),
                lag_seconds=None, owner=str(owner), movement=Movement.BEHIND,
            )
            for partition, (end, waiting, owner) in enumerate(zip(view.end, backlog, owners, strict=True))
        ]  # fmt: skip
        self._flow.add(lags, now_s=float(view.second))
        busy = self._flow.busy(lags, capacity_offsets_per_s=self._capacity)
        left_out = self._stalls.look(lags, busy, now_s=float(view.second))
        helped = np.ones(len(lags), dtype=bool)
        helped[list(left_out)] = False
        horizon_s = view.startup_s + view.rebalance_s + sync_s
        snapshot = Snapshot(
            arrivals=self._arrivals.ahead(horizon_s), arrivals_now=self._arrivals.now(), backlog=backlog,
            owners=np.array(np.unique(owners, return_inverse=True)[1]), oldest_age_s=float(view.waited_s[0].max(where=helped, initial=0.0)),
            capacity_records_per_s=self._capacity, startup_s=view.startup_s, rebalance_s=view.rebalance_s,
            horizon_s=horizon_s, replicas_now=int(view.replicas[0]), starting=int(view.replicas[0] - view.ready[0]),
            watched_s=self._arrivals.watched_s(now_s=float(view.second)), left_out=left_out,
            quiet=view.second - self._changed_s >= 3 * view.rebalance_s,
            finished_records_per_s=self._flow.rates()[1],
        )  # fmt: skip
        plan = self._steadier.decide(required(snapshot, self._bounds), snapshot, now_s=float(view.second))
        self._told = plan.published

    def value(self, view: View) -> Array:
        """As Policy asks."""
        return np.array([float(self._told)])


class KedaKafka:
    """KEDA's `kafka` trigger: committed lag over lagThreshold, capped at the partitions."""

    name = "keda kafka"

    def __init__(self) -> None:
        grid = list(
            itertools.product((10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120), (60.0, 300.0, 900.0))
        )
        self.settings = [f"lagThreshold {threshold}, window {window:g} s" for threshold, window in grid]
        self._threshold = np.array([threshold for threshold, _ in grid], dtype=float)
        self.behaviour = Behaviour(down_window_s=np.array([window for _, window in grid]))

    def look(self, view: View) -> None:
        """As Policy asks."""

    def value(self, view: View) -> Array:
        """As Policy asks."""
        lag = (view.end - view.committed).sum(axis=1)
        return np.asarray(np.minimum(lag / self._threshold, partitions))


class KedaTime:
    """A time lag (Burrow, kafka-lag-exporter) as a metric of type Value: ratio times the ready pods."""

    name = "time lag"

    def __init__(self) -> None:
        grid = list(itertools.product((1.0, 2.0, 4.0, 8.0, 15.0), (60.0, 300.0, 900.0)))
        self.settings = [f"target {target:g} s, window {window:g} s" for target, window in grid]
        self._target = np.array([target for target, _ in grid])
        self.behaviour = Behaviour(down_window_s=np.array([window for _, window in grid]))

    def look(self, view: View) -> None:
        """As Policy asks."""

    def value(self, view: View) -> Array:
        """As Policy asks."""
        return np.asarray(
            np.minimum(view.waited_s.max(axis=1) / self._target * np.maximum(view.ready, 1), partitions)
        )


class Flink:
    """Flink's autoscaler: rate over utilisation, and the backlog within a catch-up time; the true rate is given to it."""

    name = "flink"

    def __init__(self) -> None:
        grid = list(itertools.product((0.6, 0.7, 0.8), (60.0, 300.0, 1800.0), (300.0, 900.0)))
        self.settings = [f"utilisation {u:g}, catch-up {c:g} s, down after {d:g} s" for u, c, d in grid]
        self._u, self._catch_up = np.array([u for u, _, _ in grid]), np.array([c for _, c, _ in grid])
        self.behaviour = Behaviour(down_window_s=np.array([d for _, _, d in grid]))
        self._ends: list[tuple[int, float]] = []

    def look(self, view: View) -> None:
        """As Policy asks."""
        self._ends = [
            *(point for point in self._ends if point[0] >= view.second - 60),
            (view.second, float(view.end.sum())),
        ]

    def value(self, view: View) -> Array:
        """As Policy asks."""
        (first_s, first), (last_s, last) = self._ends[0], self._ends[-1]
        rate = (last - first) / max(last_s - first_s, 1)
        lag = (view.end - view.position).sum(axis=1)
        target = (
            lag / self._catch_up + rate * view.startup_s / self._catch_up * (lag > 30 * rate) + rate / self._u
        )
        busy = rate / (capacity_records_per_s * np.maximum(view.replicas, 1))
        inside = (np.abs(busy - self._u) <= 0.3 * self._u) & (lag < 30 * rate)
        return np.minimum(np.where(inside, view.replicas, target / capacity_records_per_s), partitions)


class PaloAlto:
    """Beam on Flink at Palo Alto Networks: growth and the time that the backlog takes; down only when neither is left."""

    name = "backlog time"

    def __init__(self) -> None:
        grid = list(itertools.product((10.0, 30.0, 120.0), (0.5, 0.7, 0.85), (300.0, 900.0)))
        self.settings = [f"up at {u:g} s, down under {c:g} busy, window {d:g} s" for u, c, d in grid]
        self._up, self._low = np.array([u for u, _, _ in grid]), np.array([c for _, c, _ in grid])
        self.behaviour = Behaviour(down_window_s=np.array([d for _, _, d in grid]))
        self._points: list[tuple[int, float, Array]] = []

    def look(self, view: View) -> None:
        """As Policy asks."""
        point = (view.second, float(view.end.sum()), view.position.sum(axis=1))
        self._points = [*(p for p in self._points if p[0] >= view.second - 60), point]

    def value(self, view: View) -> Array:
        """As Policy asks."""
        first, last = self._points[0], self._points[-1]
        took = max(last[0] - first[0], 1)
        arriving, done = (last[1] - first[1]) / took, np.maximum((last[2] - first[2]) / took, 1e-9)
        backlog, n = last[1] - last[2], np.maximum(view.replicas, 1).astype(float)
        seconds, growth = backlog / done, arriving - done
        busy = done / (capacity_records_per_s * n)
        up = (seconds > self._up) | (busy > 0.9)
        wanted_up = n * np.maximum(growth + done, done) / done + n * np.minimum(seconds, 600) / 60
        down = (busy < self._low) & (growth <= 0.02 * done) & (seconds < 10)
        return np.minimum(np.where(up, wanted_up, np.where(down, n * busy / self._low, n)), partitions)


rivals = (KedaKafka, KedaTime, Flink, PaloAlto)
