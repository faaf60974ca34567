"""What the workers of a group say of themselves: the newest of each, and when to say it."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from penstock.engine.clock import Clock
from penstock.engine.scaling.report_message import Report, decode_status, encode_status
from penstock.engine.telemetry.worker_status import WorkerState, WorkerStatus
from penstock.schemas.errors import RecordError
from penstock.schemas.log_codes import LogCode

logger = logging.getLogger("penstock.scaling")

_faults_named_max = 100
_apart_ms = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Capacity:
    """What one worker with the model in force can do. `measured`: seen saturated; else a guess from busy time."""

    records_per_s: float
    measured: bool
    model_digest: str
    explained_ratio: float


@dataclass(frozen=True, slots=True)
class _Heard:
    report: Report
    received_ms: int  # by our clock, as is
    alive_ms: int  # when the worker was surely there


class ReportBook:
    """The newest report of every worker of one group. Not thread-safe.

    Reports outlive their workers on purpose: with none running, the last ones still say what a worker can do. How fresh one
    is goes by when it was heard, since a worker's clock may be an hour off; the order is the topic's.
    """

    def __init__(self, *, group: str, fresh_s: float = 30.0, workers_max: int = 10_000) -> None:
        self._group = group
        self._fresh_ms = fresh_s * 1000
        self._workers_max = workers_max
        self._heard: dict[str, _Heard] = {}
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
        except RecordError as error:
            self._pass_over(error.detail)
            return
        if report.group != self._group:
            return
        known = self._heard.pop(report.worker, None)
        alive_ms = known.alive_ms if known is not None else 0
        if abs(now_ms - report.at_ms) <= self._fresh_ms:
            alive_ms = min(report.at_ms, now_ms)
        elif (
            known is not None
            and now_ms - known.received_ms >= _apart_ms
            and report.at_ms != known.report.at_ms
        ):
            alive_ms = now_ms  # its clock is off; those read from the topic's beginning come closer together
        self._heard[report.worker] = _Heard(report, now_ms, alive_ms)
        if len(self._heard) > self._workers_max:
            del self._heard[min(self._heard, key=lambda worker: self._heard[worker].received_ms)]

    def _pass_over(self, why: str) -> None:
        self.unreadable += 1
        if why not in self._faults and len(self._faults) < _faults_named_max:
            self._faults.add(why)
            logger.warning(
                "a message on the status topic is passed over: %s",
                why,
                extra=LogCode.REPORT_PASSED_OVER.extra,
            )

    def fresh(self, *, now_ms: int) -> list[Report]:
        """Of workers that report, and are not on their way out."""
        return [
            heard.report
            for heard in self._heard.values()
            if now_ms - heard.alive_ms <= self._fresh_ms and heard.report.state in ("starting", "running")
        ]

    def capacity(self, *, now_ms: int) -> Capacity | None:
        """What one worker can do with the model in force: the 20th percentile of what its workers saw while saturated,
        else of what they guess; of another model nothing counts. None when nobody knows."""
        fresh = self.fresh(now_ms=now_ms)
        digest = self._digest(fresh)
        share = _explained_ratio(fresh)
        alike = [heard.report for heard in self._heard.values() if heard.report.model_digest == digest]
        if share is None:
            share = alike[-1].explained_ratio if alike else 0.0
        reporting = [report for report in fresh if report.model_digest == digest]
        for reports in (reporting, alike):
            if measured := sorted(filter(None, (_measured(report, share) for report in reports))):
                rate = measured[(len(measured) - 1) // 5]
                return Capacity(records_per_s=rate, measured=True, model_digest=digest, explained_ratio=share)
        guessing = [report for report in alike if report.capacity_records_per_s > 0]
        for reports in (reporting, guessing[-1:]):
            if guesses := sorted(filter(None, (report.capacity_records_per_s for report in reports))):
                return Capacity(
                    records_per_s=guesses[(len(guesses) - 1) // 5],
                    measured=False, model_digest=digest, explained_ratio=share,
                )  # fmt: skip
        return None

    def startup_s(self, *, now_ms: int) -> float:
        """The slowest start of those that report, else of the last that reported one; 0 when unknown."""
        fresh = [report.startup_s for report in self.fresh(now_ms=now_ms)]
        if any(fresh):
            return max(fresh)
        started = [heard.report.startup_s for heard in self._heard.values() if heard.report.startup_s > 0]
        return started[-1] if started else 0.0

    def rebalance_s(self, *, now_ms: int) -> float:
        """The longest that one of those that report was without partitions lately; 0 when unknown."""
        return max((report.rebalance_s for report in self.fresh(now_ms=now_ms)), default=0.0)

    def records_per_offset(self, *, now_ms: int) -> float:
        """Records in an offset, by those that report; 1 when unknown."""
        told = [report for report in self.fresh(now_ms=now_ms) if report.finished_records_per_s > 0]
        finished = sum(report.finished_records_per_s for report in told)
        passed = sum(report.finished_records_per_s / max(report.records_per_offset, 1e-3) for report in told)
        return finished / passed if passed else 1.0

    def positions(self, topic: str, *, now_ms: int) -> dict[int, int]:
        """The furthest finished position of each partition, by those that report."""
        found: dict[int, int] = {}
        for report in self.fresh(now_ms=now_ms):
            for position in report.positions:
                if position.topic == topic:
                    found[position.partition] = max(position.offset, found.get(position.partition, 0))
        return found

    def _digest(self, fresh: Sequence[Report]) -> str:
        """The model of most who report, else of the last who had one."""
        counts = Counter(report.model_digest for report in fresh if report.model_digest)
        if counts:
            return counts.most_common(1)[0][0]
        named = [heard.report.model_digest for heard in self._heard.values() if heard.report.model_digest]
        return named[-1] if named else ""


def _explained_ratio(reports: Sequence[Report]) -> float | None:
    finished = sum(report.finished_records_per_s for report in reports)
    if not finished:
        return None
    return min(
        sum(report.explained_ratio * report.finished_records_per_s for report in reports) / finished, 1.0
    )


def _measured(report: Report, share: float) -> float | None:
    """Records per second of which this share is explained, as far as the worker saw it; None where it did not."""
    predict, explain = report.predict_records_per_s, report.explain_records_per_s
    if predict > 0 and explain > 0:
        return 1.0 / ((1.0 - share) / predict + share / explain)
    if predict > 0 and share < 0.05:
        return predict
    if explain > 0 and share > 0.95:
        return explain
    if report.capacity_measured and abs(report.explained_ratio - share) < 0.15:
        return report.capacity_records_per_s
    return None


class Reporter:
    """Sends a worker's status now and then: at every change of state or partitions, and else every `every_s`.

    Promises: a worker that has stopped leaves nothing under its own name.
    """

    def __init__(
        self, send: Callable[[str, bytes | None], None], *, clock: Clock, every_s: float = 5.0
    ) -> None:
        """`send` gets the key and the message, None to delete what stands under the key; it must not wait."""
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
        payload = encode_status(status)
        self._send(status.worker, payload)
        if status.state is WorkerState.STOPPED:
            # What a worker with this model can do is kept, once for all of them; the worker's own report is not.
            digest = status.model.digest if status.model else ""
            self._send(f"{status.group}:{digest}", payload)
            self._send(status.worker, None)
