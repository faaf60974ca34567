"""A worker's report as a message on the status topic, and back."""

import io
from dataclasses import dataclass
from functools import cache
from typing import Any

import fastavro

from penstock.engine.codec.contracts import contract, older_contracts
from penstock.engine.codec.framing import single_object_header_bytes, single_object_prefix
from penstock.engine.telemetry.worker_status import WorkerState, WorkerStatus
from penstock.schemas.errors import RecordError
from penstock.schemas.reasons import Reason, Stage

report_bytes_max = 1 << 20
number_max = 1e12
"""No rate and no time in a report is larger: what is, nobody measured."""

_numbers = (
    "startup_s", "capacity_records_per_s", "finished_records_per_s", "busy_ratio", "predict_records_per_s",
    "explain_records_per_s", "explained_ratio", "records_per_offset", "rebalance_s",
)  # fmt: skip
_shares = ("explained_ratio", "records_per_offset")

_states = {
    WorkerState.STARTING: "starting",
    WorkerState.WARMING: "starting",
    WorkerState.JOINING: "starting",
    WorkerState.RUNNING: "running",
    WorkerState.DRAINING: "draining",
    WorkerState.STOPPED: "stopped",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportedPosition:
    """How far a worker is in one partition."""

    topic: str
    partition: int
    offset: int
    oldest_timestamp_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a worker said of itself; see schemas/worker_status.avsc."""

    worker: str
    group: str
    at_ms: int
    state: str
    model_digest: str
    startup_s: float
    capacity_records_per_s: float
    finished_records_per_s: float
    busy_ratio: float
    capacity_measured: bool
    predict_records_per_s: float
    explain_records_per_s: float
    explained_ratio: float
    records_per_offset: float
    rebalance_s: float
    positions: tuple[ReportedPosition, ...]


def encode_status(status: WorkerStatus) -> bytes:
    """The message of a status, in Avro's single-object encoding. Its key on the compacted topic is the worker's name."""
    schema, versions = _readers()
    out = io.BytesIO()
    out.write(next(iter(versions)))
    positions = [
        {
            "topic": status.topic,
            "partition": position.partition,
            "offset": position.offset,
            "oldest_timestamp_ms": position.oldest_timestamp_ms,
        }
        for position in status.positions
    ]
    fastavro.schemaless_writer(
        out,
        schema,
        {
            "worker": status.worker,
            "group": status.group,
            "at_ms": status.at_ms,
            "state": _states[status.state],
            "model_digest": status.model.digest if status.model else "",
            "startup_s": status.startup_s,
            "capacity_records_per_s": status.capacity_records_per_s,
            "finished_records_per_s": status.finished_records_per_s,
            "busy_ratio": status.busy_ratio,
            "capacity_measured": status.capacity_measured,
            "predict_records_per_s": status.predict_records_per_s,
            "explain_records_per_s": status.explain_records_per_s,
            "explained_ratio": status.explained_ratio,
            "records_per_offset": status.records_per_offset,
            "rebalance_s": status.rebalance_s,
            "positions": positions,
        },
    )
    return out.getvalue()


def decode_status(payload: bytes) -> Report:
    """The report in a message, by this version of the contract or an older one. Raises RecordError for one that is none."""
    reader, writers = _readers()
    writer = writers.get(payload[:single_object_header_bytes])
    if len(payload) > report_bytes_max or writer is None:
        raise no_report(Reason.BAD_FRAMING, "the message does not begin like a worker status")
    stream = io.BytesIO(payload)
    stream.seek(single_object_header_bytes)
    try:
        found: Any = fastavro.schemaless_reader(stream, writer, reader)
    except (EOFError, ValueError, IndexError, KeyError, OverflowError, MemoryError) as error:
        raise no_report(Reason.CORRUPT, "the message is no worker status of a version known here") from error
    if stream.tell() != len(payload):
        raise no_report(Reason.TRAILING_BYTES, "the message goes on behind the worker status")
    for name in _numbers:
        if not 0 <= found[name] <= (1.0 if name in _shares else number_max):  # NaN is neither
            raise no_report(
                Reason.CORRUPT, f"{name} of worker {shown(found['worker'])} is {found[name]}, which cannot be"
            )
    positions = tuple(ReportedPosition(**position) for position in found.pop("positions"))
    return Report(**found, positions=positions)


def shown(name: str) -> str:
    """A name from outside as it may stand in a log."""
    return ascii(name[:100])


def no_report(reason: Reason, detail: str) -> RecordError:
    """The message is none of ours."""
    return RecordError(stage=Stage.DECODE, reason=reason, detail=detail)


@cache
def _readers() -> tuple[Any, dict[bytes, Any]]:
    """The contract, and every version of it by what its messages begin with."""
    versions = [contract("worker_status"), *older_contracts("worker_status")]
    return fastavro.parse_schema(versions[0]), {
        single_object_prefix(version): fastavro.parse_schema(version) for version in versions
    }
