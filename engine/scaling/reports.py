"""A worker's report as a message on the status topic, and back."""

import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import fastavro

from penstock.engine.clock import Clock
from penstock.engine.codec.contracts import contract
from penstock.engine.codec.framing import single_object_header_bytes, single_object_prefix
from penstock.engine.telemetry.status import WorkerState, WorkerStatus
from penstock.schemas.errors import RecordError
from penstock.schemas.reasons import Reason, Stage

logger = logging.getLogger("penstock.scaling")

report_bytes_max = 1 << 20
number_max = 1e12
"""No rate and no time in a report is larger: what is, nobody measured."""
ahead_max_ms = 300_000
"""How far another machine's clock may be ahead of ours; a report of later than that would be the newest for ever."""

_numbers = ("startup_s", "capacity_records_per_s", "finished_records_per_s", "busy_ratio")
_faults_named_max = 100

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
    positions: tuple[ReportedPosition, ...]


def encode_status(status: WorkerStatus) -> bytes:
    """The message of a status, in Avro's single-object encoding. Its key on the compacted topic is the worker's name."""
    prefix, schema = _contract()
    out = io.BytesIO()
    out.write(prefix)
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
            "positions": positions,
        },
    )
    return out.getvalue()


def decode_status(payload: bytes) -> Report:
    """The report in a message. Raises RecordError for a message that is none."""
    prefix, schema = _contract()
    if len(payload) > report_bytes_max or not payload.startswith(prefix):
        raise _no_report(Reason.BAD_FRAMING, "the message does not begin like a worker status")
    stream = io.BytesIO(payload)
    stream.seek(single_object_header_bytes)
    try:
        found: Any = fastavro.schemaless_reader(stream, schema, None)
    except (EOFError, ValueError, IndexError, KeyError, OverflowError, MemoryError) as error:
        raise _no_report(Reason.CORRUPT, "the message is no worker status of version 1") from error
    if stream.tell() != len(payload):
        raise _no_report(Reason.TRAILING_BYTES, "the message goes on behind the worker status")
    for name in _numbers:
        if not 0 <= found[name] <= number_max:  # NaN is neither
            raise _no_report(
                Reason.CORRUPT,
                f"{name} of worker {_shown(found['worker'])} is {found[name]}, which cannot be",
            )
    positions = tuple(ReportedPosition(**position) for position in found.pop("positions"))
    return Report(**found, positions=positions)


def _shown(name: str) -> str:
    return ascii(name[:100])


@cache
def _contract() -> tuple[bytes, Any]:
    schema = contract("worker_status")
    return single_object_prefix(schema), fastavro.parse_schema(schema)


def _no_report(reason: Reason, detail: str) -> RecordError:
    return RecordError(stage=Stage.DECODE, reason=reason, detail=detail)


class ReportBook:
    """The newest report of every worker of one group. Not thread-safe.

    Reports outlive their workers on purpose: with none running, the last ones still say what a worker can do.
    """

    def __init__(self, *, group: str, fresh_s: float = 30.0, workers_max: int = 10_000) -> None:
        self._group = group
        self._fresh_ms = fresh_s * 1000
        self._workers_max = workers_max
        self._reports: dict[str, Report] = {}
        self._faults: set[str] = set()
        self.unreadable = 0

    def read(self, value: bytes | None, *, now_ms: int) -> None:
        """Take in one message of the status topic; one of another group is passed over.

        Anybody who may write to the topic may have written it: what cannot be read or cannot be true is counted, named
        in the log once, and passed over too.
        """
        if value is None:
            return
        try:
            report = decode_status(value)
            if report.at_ms > now_ms + ahead_max_ms:
                raise _no_report(
                    Reason.CORRUPT,
                    f"worker {_shown(report.worker)} reports from the future, at_ms {report.at_ms}",
                )
        except RecordError as error:
            self._pass_over(error.detail)
            return
        known = self._reports.get(report.worker)
        if report.group != self._group or (known is not None and known.at_ms > report.at_ms):
            return
        self._reports[report.worker] = report
        if len(self._reports) > self._workers_max:
            del self._reports[min(self._reports, key=lambda worker: self._reports[worker].at_ms)]

    def _pass_over(self, why: str) -> None:
        self.unreadable += 1
        if why not in self._faults and len(self._faults) < _faults_named_max:
            self._faults.add(why)
            logger.warning("a message on the status topic is passed over: %s", why)

    def fresh(self, *, now_ms: int) -> list[Report]:
        """Of workers that report, and are not on their way out."""
        return [
            report
            for report in self._reports.values()
            if now_ms - report.at_ms <= self._fresh_ms and report.state in ("starting", "running")
        ]

    def capacity_records_per_s(self, *, now_ms: int) -> float | None:
        """What one worker can do: the 20th percentile of those that report, else the last that was ever reported."""
        known = sorted(
            report.capacity_records_per_s
            for report in self.fresh(now_ms=now_ms)
            if report.capacity_records_per_s > 0
        )
        if known:
            return known[(len(known) - 1) // 5]
        measured = [report for report in self._reports.values() if report.capacity_records_per_s > 0]
        if not measured:
            return None
        return max(measured, key=lambda report: report.at_ms).capacity_records_per_s

    def startup_s(self, *, now_ms: int) -> float:
        """The slowest start of those that report, else of the last that reported one; 0 when unknown."""
        fresh = [report.startup_s for report in self.fresh(now_ms=now_ms)]
        if any(fresh):
            return max(fresh)
        started = [report for report in self._reports.values() if report.startup_s > 0]
        return max(started, key=lambda report: report.at_ms).startup_s if started else 0.0


class Reporter:
    """Sends a worker's status now and then: at every change of state or partitions, and else every `every_s`."""

    def __init__(self, send: Callable[[str, bytes], None], *, clock: Clock, every_s: float = 5.0) -> None:
        """`send` gets the worker's name and the message; it must not wait."""
        self._send = send
        self._clock = clock
        self._every_s = every_s
        self._due_s = clock.monotonic_s()
        self._said: tuple[WorkerState, tuple[int, ...]] | None = None

    def __call__(self, status: WorkerStatus) -> None:
        """The status is this; send it if it is time."""
        now_s, says = self._clock.monotonic_s(), (status.state, status.assigned)
        if now_s < self._due_s and says == self._said:
            return
        self._due_s, self._said = now_s + self._every_s, says
        self._send(status.worker, encode_status(status))
