"""What was seen of an engine at one moment. Counters grow from the start of their worker."""

from dataclasses import dataclass

from penstock.schemas.waits import WaitKind


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerSample:
    """One worker's own counters, in seconds and records."""

    name: str
    settled: float
    rejected: float
    busy_s: float
    infer_s: float
    explain_s: float
    deliver_s: float
    deliveries: float
    rebalances: float
    ahead: float = 0.0  # records stamped far ahead of our clock
    ahead_s: float = 0.0  # by how much, together


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionSample:
    """One partition; NaN is not known."""

    partition: int
    owner: str
    end: float  # offset
    age_s: float  # of the oldest unfinished record; negative when its time stamp lies ahead of our clock
    waits: frozenset[WaitKind] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """All of it at one moment."""

    at_s: float
    workers: tuple[WorkerSample, ...]
    partitions: tuple[PartitionSample, ...]
