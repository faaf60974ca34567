"""What is shown of an engine: two looks at it, and what happened between them."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from penstock.engine.console.reasons import FeatureShare
from penstock.engine.hints.causes import Hints
from penstock.engine.pages.documents.hints import hints_told
from penstock.engine.watch.hinting import Hinting
from penstock.engine.watch.look import Outline, PartitionSeen, Seen, WorkerSeen

window_s: Final = 10.0
"""Rates and latencies are of so long."""
compute_stages: Final = ("decode", "infer", "explain", "encode")


@dataclass(frozen=True, kw_only=True, slots=True)
class Newest:
    """A prediction, and its reasons, strongest first."""

    headline: str
    reasons: tuple[FeatureShare, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """One moment as it is drawn. None: not known."""

    title: str
    read: int | None
    predicted: int
    rejected: int
    skipped: int = 0
    in_flight: int
    dropped: int = 0
    rate_per_s: float | None
    p50_s: float | None
    p99_s: float | None
    objective_s: float | None = None
    stages: Mapping[str, float] | None = None
    """Share of one core's time by stage, and `idle`; of all workers together they are 1."""
    partitions: tuple[PartitionSeen, ...] = ()
    workers: tuple[WorkerSeen, ...] = ()
    newest: tuple[Newest, ...] = ()
    notes: tuple[str, ...] = ()
    hints: Hints = field(default_factory=Hints)

    @property
    def missing(self) -> int | None:
        """Records that were read and are nowhere; 0 when all is well."""
        if self.read is None:
            return None
        return self.read - self.predicted - self.rejected - self.skipped - self.in_flight - self.dropped

    def as_dict(self) -> dict[str, Any]:
        """For a program; times in seconds, null is not known."""
        return {
            "read": self.read,
            "predicted": self.predicted,
            "rejected": self.rejected,
            "skipped": self.skipped,
            "in_flight": self.in_flight,
            "dropped": self.dropped,
            "missing": self.missing,
            "records_per_s": self.rate_per_s,
            "p50_s": self.p50_s,
            "p99_s": self.p99_s,
            "objective_s": self.objective_s,
            "stages": dict(self.stages) if self.stages is not None else None,
            "partitions": [
                {
                    "topic": each.topic, "partition": each.partition, "owner": each.owner,
                    "lag_records": _known(each.records), "lag_seconds": _known(each.age_s),
                }
                for each in self.partitions
            ],
            "workers": [{"slot": each.slot, "worker": each.name, "state": each.state} for each in self.workers],
            "newest": [
                {
                    "headline": each.headline,
                    "reasons": [
                        {"feature": r.feature, "value": r.value, "attribution": _known(r.attribution)} for r in each.reasons
                    ],
                }
                for each in self.newest
            ],
            "notes": list(self.notes),
            "hints": hints_told(self.hints, workers=bool(self.workers)),
        }  # fmt: skip


class Frames:
    """Looks to frames; keeps those of the last `window_s`."""

    def __init__(self) -> None:
        self._looks: deque[Seen] = deque(maxlen=64)
        self._hinting = Hinting()

    def add(self, seen: Seen) -> Frame:
        """The frame of this look."""
        self._looks.append(seen)
        while len(self._looks) > 2 and seen.at_s - self._looks[1].at_s >= window_s:
            self._looks.popleft()
        return replace(frame(self._looks[0], seen), hints=self._hinting.add(seen))


def frame(before: Seen, now: Seen) -> Frame:
    """What is so now, and what happened since `before`. A worker that began anew meanwhile counts from its beginning."""
    passed_s = now.at_s - before.at_s
    earlier = {worker.slot: _done(worker) for worker in before.workers}
    settled = sum(_grown(_done(worker), earlier.get(worker.slot, 0)) for worker in now.workers)
    ages = {bound: _grown(count, before.ages.get(bound, 0.0)) for bound, count in now.ages.items()}
    reads = [worker.read for worker in now.workers if worker.read is not None]
    notes = [
        f"worker {worker.slot or worker.name}: {worker.state}"
        for worker in now.workers
        if worker.state != "running"
    ]
    notes += dict.fromkeys(worker.kafka_fault for worker in now.workers if worker.kafka_fault)
    notes += dict.fromkeys(wait for worker in now.workers for wait in worker.waits)
    return Frame(
        title=f"{now.group} on {now.topic}" if now.group else "no worker has said who it is yet",
        read=sum(reads) if reads else None,
        predicted=sum(worker.predicted for worker in now.workers),
        rejected=sum(worker.rejected for worker in now.workers),
        skipped=sum(worker.skipped for worker in now.workers),
        in_flight=sum(worker.in_flight for worker in now.workers),
        dropped=sum(worker.dropped for worker in now.workers),
        rate_per_s=settled / passed_s if passed_s > 0 and reads else None,
        p50_s=quantile(0.5, ages),
        p99_s=quantile(0.99, ages),
        objective_s=now.objective_s,
        stages=_stages(before, now, passed_s),
        partitions=tuple(sorted(now.partitions, key=_urgency)),
        workers=now.workers,
        newest=tuple(Newest(headline=_headline(each), reasons=each.reasons) for each in now.newest),
        notes=tuple(notes),
    )  # fmt: skip


def quantile(share: float, cumulative: Mapping[float, float]) -> float | None:
    """The age that this share of the records is at or below, straight between bounds; None without records, infinity beyond the last bound."""
    bounds = sorted(cumulative)
    total = cumulative[bounds[-1]] if bounds else 0.0
    if total <= 0:
        return None
    wanted, low, below = share * total, 0.0, 0.0
    for bound in bounds:
        count = cumulative[bound]
        if count >= wanted:
            if math.isinf(bound):
                return math.inf
            return low + (bound - low) * ((wanted - below) / (count - below) if count > below else 1.0)
        low, below = bound, count
    return math.inf


def _stages(before: Seen, now: Seen, passed_s: float) -> Mapping[str, float] | None:
    whole_s = passed_s * max(len(now.workers), 1)
    if whole_s <= 0 or not now.stage_s:
        return None
    shares = {
        stage: _grown(now.stage_s.get(stage, 0.0), before.stage_s.get(stage, 0.0)) / whole_s
        for stage in compute_stages
    }
    busy = sum(shares.values())
    if busy > 1:  # a batch that began before the window ended in it
        shares = {stage: share / busy for stage, share in shares.items()}
    return {**shares, "idle": max(1.0 - busy, 0.0)}


def _done(worker: WorkerSeen) -> int:
    return worker.predicted + worker.rejected + worker.skipped


def _grown(now: float, before: float) -> float:
    return now - before if now >= before else now


def _urgency(each: PartitionSeen) -> tuple[float, str, int]:
    return (-math.inf if math.isnan(each.age_s) else -each.age_s, each.topic, each.partition)


def _headline(each: Outline) -> str:
    words = [each.place, each.label or each.outcome]
    if each.score is not None:
        words.append(f"{each.score:.3g}")
    return "  ".join(words)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
