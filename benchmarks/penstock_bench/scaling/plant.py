"""The plant: partitions, workers that start and take partitions over, commits, and an autoscaler; many settings at once."""

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from penstock_bench.scaling.autoscaler import Array, Autoscaler, Behaviour, sync_s
from penstock_bench.scaling.loads import Load

objective_s: Final = 30.0
look_s: Final = 5
_bins: Final = np.concatenate([np.arange(0.0, 120.0, 1.0), np.arange(120.0, 7210.0, 10.0), [np.inf]])


@dataclass(frozen=True, kw_only=True)
class View:
    """What can be seen from outside at one moment, for settings (k) and partitions (p)."""

    second: int
    end: Array  # (p,) records so far
    committed: Array  # (k, p)
    position: Array  # (k, p) finished, in whole batches
    waited_s: Array  # (k, p) of the oldest unfinished record
    owners: NDArray[np.int64]  # (k, p)
    replicas: NDArray[np.int64]  # (k,) asked for
    ready: NDArray[np.int64]  # (k,) at work
    startup_s: float
    rebalance_s: float


class Policy(Protocol):
    """A scaling law in several settings; `behaviour` is what it sets of the autoscaler."""

    name: str
    settings: list[str]
    behaviour: Behaviour

    def look(self, view: View) -> None:
        """Called every few seconds."""

    def value(self, view: View) -> Array:
        """(k,) replicas wanted, not rounded: the metric over its target. NaN where there is none."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Of one load under one policy: one value for each setting."""

    violation_min: Array
    late_share: Array
    p99_age_s: Array
    replica_min: Array
    changes: Array  # rebalances: how often the members of the group changed
    paused_s: Array  # partitions times seconds
    replicas: NDArray[np.int64]  # (k, looks)
    ages: Array  # (k, looks): the oldest


def simulate(
    load: Load, policy: Policy, *, commit_s: int = 5, batch: int = 50, start: int | None = None
) -> Outcome:
    """One run in steps of a second."""
    settings = len(policy.settings)
    seconds = len(load.arrivals)
    partitions, capacity_records_per_s = load.partitions, load.capacity_records_per_s
    rng = np.random.default_rng([load.seed, 7])
    startup = rng.uniform(*load.startup_s, size=4096)
    arrived = np.vstack([np.zeros(partitions), np.cumsum(load.arrivals, axis=0)])
    by_partition = np.ascontiguousarray(arrived.T)
    first = (
        max(int(np.ceil(load.arrivals[:60].sum() / 60 / (0.8 * capacity_records_per_s))), 1)
        if start is None
        else start
    )
    world = _World(settings, first, partitions)
    finished = np.zeros((settings, partitions))
    committed = np.zeros_like(finished)
    scaler = Autoscaler(policy.behaviour, settings, replicas_max=partitions)
    wanted = np.full(settings, first)
    late = np.zeros(settings)
    histogram = np.zeros((settings, len(_bins)))
    bad_minutes = np.zeros((settings, seconds // 60 + 1), dtype=bool)
    replica_s = np.zeros(settings)
    looks = seconds // look_s
    seen_replicas, seen_ages = np.zeros((settings, looks), np.int64), np.zeros((settings, looks))
    before = finished.copy()
    ages = np.zeros_like(finished)
    for second in range(seconds):
        for changed in np.flatnonzero(world.scale(wanted, second, startup, second, load.pods_max)).tolist():
            world.rebalance(changed, second, load.rebalance_s, rng)
        waiting = arrived[second + 1] - finished
        waiting = np.where(world.free_at > second, 0.0, waiting)
        if load.stuck[1] <= second < load.stuck[2]:
            waiting[:, load.stuck[0]] = 0.0
        finished += waiting * world.served_share(waiting, capacity_records_per_s)
        replica_s += wanted
        if second % commit_s == 0:
            committed = np.floor(finished / batch) * batch
        if second % look_s:
            continue
        ages = _ages(by_partition, finished, second)
        served = finished - before
        before = finished.copy()
        late += (served * (ages > objective_s)).sum(axis=1)
        bins = np.searchsorted(_bins, ages, side="right") - 1
        for k in range(settings):
            histogram[k] += np.bincount(bins[k], weights=served[k], minlength=len(_bins))
        bad_minutes[:, second // 60] |= ages.max(axis=1) > objective_s
        place = min(second // look_s, looks - 1)
        seen_replicas[:, place], seen_ages[:, place] = wanted, ages.max(axis=1)
        view = View(
            second=second, end=arrived[second + 1], committed=committed, position=np.floor(finished / batch) * batch,
            waited_s=ages, owners=world.owners, replicas=wanted, ready=world.ready_now(second),
            startup_s=load.startup_s[1], rebalance_s=load.rebalance_s,
        )  # fmt: skip
        policy.look(view)
        if second % sync_s == 0 and not load.blind[0] <= second < load.blind[1]:
            wanted = scaler.sync(policy.value(view), wanted, second)
    total = np.maximum(finished.sum(axis=1), 1.0)
    shares = np.cumsum(histogram, axis=1) / np.maximum(histogram.sum(axis=1, keepdims=True), 1.0)
    return Outcome(
        violation_min=bad_minutes.sum(axis=1).astype(float), late_share=late / total,
        p99_age_s=np.array([_bins[min(int(np.searchsorted(row, 0.99)), len(_bins) - 2)] for row in shares]),
        replica_min=replica_s / 60, changes=world.changes.astype(float), paused_s=world.paused_s,
        replicas=seen_replicas, ages=seen_ages,
    )  # fmt: skip


def _ages(arrived: Array, finished: Array, second: int) -> Array:
    """(k, p): how long the oldest unfinished record has waited; the second in which it came, from the arrivals (p, seconds) cumulated."""
    ages = np.zeros_like(finished)
    for p in range(finished.shape[1]):
        came = arrived[p, : second + 2].searchsorted(finished[:, p] + 1e-6, side="right") - 1
        ages[:, p] = np.maximum(second - came, 0.0)
    return ages


class _World:
    """Pods by ordinal, and who has which partition; for each setting."""

    def __init__(self, settings: int, first: int, partitions: int) -> None:
        self._partitions = partitions
        self.ready_at = np.full((settings, partitions), np.inf)
        self.ready_at[:, :first] = -1.0
        self.owners = np.tile(np.arange(partitions) % first, (settings, 1)).astype(np.int64)
        self.free_at = np.zeros((settings, partitions))
        self.changes = np.zeros(settings, dtype=np.int64)
        self.paused_s = np.zeros(settings)
        self._members = self.ready_at < 0  # of the group, when it last had any
        self._rows = np.arange(settings)[:, None] * partitions

    def scale(
        self, wanted: NDArray[np.int64], second: int, startup: Array, salt: int, pods_max: int
    ) -> NDArray[np.bool_]:
        """Start and end pods; where the members are others than before."""
        ordinals = np.arange(self._partitions)
        asked = ordinals < np.minimum(wanted, pods_max)[:, None]
        new = asked & np.isinf(self.ready_at)
        if new.any():
            delays = startup[(salt * 31 + np.arange(new.size)) % len(startup)].reshape(new.shape)
            self.ready_at = np.where(new, second + delays, self.ready_at)
        self.ready_at[~asked] = np.inf
        at_work = self.ready_at <= second
        changed: NDArray[np.bool_] = (at_work != self._members).any(axis=1) & at_work.any(axis=1)
        self._members[changed] = at_work[changed]
        return changed

    def ready_now(self, second: int) -> NDArray[np.int64]:
        return np.asarray((self.ready_at <= second).sum(axis=1), dtype=np.int64)

    def rebalance(self, k: int, second: int, pause_s: float, rng: np.random.Generator) -> None:
        """By count, moving as few as can be; which ones, chance decides."""
        members = np.flatnonzero(self._members[k]).tolist()
        held: dict[int, list[int]] = {ordinal: [] for ordinal in members}
        orphans: list[int] = []
        owned = self.owners[k].tolist()
        for partition in rng.permutation(self._partitions).tolist():
            held.get(owned[partition], orphans).append(partition)
        base, more = divmod(self._partitions, len(members))
        counts = {ordinal: len(its) for ordinal, its in held.items()}
        for number, ordinal in enumerate(sorted(members, key=counts.__getitem__, reverse=True)):
            share = base + (number < more)
            if counts[ordinal] > share:
                orphans += held[ordinal][share:]
                counts[ordinal] = share
        owners = self.owners[k].copy()
        for number, ordinal in enumerate(sorted(members, key=counts.__getitem__, reverse=True)):
            lacking = base + (number < more) - counts[ordinal]
            if lacking > 0:
                owners[orphans[-lacking:]] = ordinal
                del orphans[-lacking:]
        moved = owners != self.owners[k]
        self.free_at[k, moved] = second + pause_s
        self.paused_s[k] += pause_s * moved.sum()
        self.owners[k] = owners
        self.changes[k] += 1

    def served_share(self, waiting: Array, capacity_records_per_s: float) -> Array:
        """Of what waits in each partition, what its owner gets done in a second."""
        places = self.owners + self._rows
        asked = np.bincount(places.ravel(), weights=waiting.ravel(), minlength=self.owners.size)
        share = np.minimum(1.0, capacity_records_per_s / np.maximum(asked, 1e-9))
        return np.asarray(share[places])
