"""What a worker says of itself at one moment: the values of /status, of its report, and of the probes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from penstock.engine.telemetry.balance import Balance
from penstock.engine.telemetry.events import Happened
from penstock.schemas.waits import WaitKind


class WorkerState(StrEnum):
    """Where a worker is in its life."""

    STARTING = "starting"  # settings, model and topics are being proved
    WARMING = "warming"  # the model runs at every bucket size
    JOINING = "joining"  # warmed; waits for the group to give it partitions
    RUNNING = "running"
    DRAINING = "draining"  # asked to stop; finishes what is in flight
    STOPPED = "stopped"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Yes or no, and why in words."""

    ok: bool
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelIdentity:
    """Which model is loaded, and where it runs."""

    name: str
    version: str
    digest: str
    device: str
    runtime: str = "onnxruntime"
    runtime_reason: str = ""  # why that one, in a sentence


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """How far one owned partition is: the next offset to commit, and the age of what comes next."""

    partition: int
    offset: int
    oldest_timestamp_ms: int  # of the oldest unfinished record; -1 when nothing is unfinished


@dataclass(frozen=True, kw_only=True, slots=True)
class KafkaStatus:
    """Whether the cluster answers."""

    address: str
    reachable: bool
    answer_age_s: float
    fault: str = ""  # why not, in the client's words
    lost_at_ms: int | None = None  # since when it does not answer


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """What stands still, since when, and for what."""

    partition: int | None  # None: the whole worker
    kind: WaitKind
    since_ms: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerStatus:
    """A worker's own report at one moment."""

    worker: str
    group: str
    topic: str
    at_ms: int
    state: WorkerState
    model: ModelIdentity | None
    startup_s: float  # process start to ready; 0 until then
    capacity_records_per_s: float  # with the present mix of work; 0 while unknown
    finished_records_per_s: float  # over the last minute
    busy_ratio: float  # share of the last minute
    in_flight_batches: int
    records: int  # finished since the start
    explained: int = 0  # of those, predicted with an explanation
    unexplained: Mapping[str, int] = field(default_factory=dict)  # of those, predicted without one, by why
    assigned: tuple[int, ...] = ()
    positions: tuple[Position, ...] = ()
    kafka: KafkaStatus | None = None  # None until it was first asked
    waits_for: tuple[Wait, ...] = ()
    events: tuple[Happened, ...] = ()  # the newest, oldest first
    capacity_measured: bool = False  # seen while saturated; else estimated from busy time
    predict_records_per_s: float = 0.0  # finished without an explanation while saturated; 0 when never seen
    explain_records_per_s: float = 0.0  # with one
    explained_ratio: float = 0.0  # over the last minute
    records_per_offset: float = (
        1.0  # less where compaction, markers or aborted records lie between the records
    )
    rebalance_s: float = (
        0.0  # longest lately without partitions between two assignments; 0 when there was none
    )
    balance: Balance | None = None  # None until the loop has begun

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)
