"""The pipeline's watcher: turns what happens into metrics and into the worker's own report."""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from penstock.engine.clock import Clock
from penstock.engine.console.logs import lines_held_back
from penstock.engine.features.value_counts import ValueCounts
from penstock.engine.pages.worker.view import WorkerView
from penstock.engine.pipeline.batcher import Batch
from penstock.engine.pipeline.compute import Finished, Held
from penstock.engine.pipeline.hooks import Contact, Waiting
from penstock.engine.pipeline.ledger import Account, Ledger
from penstock.engine.telemetry.balance import Balance
from penstock.engine.telemetry.events import Event, EventLog
from penstock.engine.telemetry.metrics import Metrics
from penstock.engine.telemetry.status import StatusBoard
from penstock.engine.telemetry.tracing.keeping import Tracing
from penstock.engine.telemetry.worker_status import WorkerState, WorkerStatus
from penstock.engine.worker.input_state import InputState
from penstock.engine.worker.situation import Situation, assignment_text
from penstock.schemas.errors import InvariantError
from penstock.schemas.reading import Reading
from penstock.schemas.records import Records

gauges_every_s = 1.0
assigned_together_s = 0.5


class Observer:
    """Counts per batch, and refreshes the gauges once a second. Polling thread only."""

    def __init__(
        self,
        *,
        metrics: Metrics,
        board: StatusBoard,
        clock: Clock,
        topic: str,
        ends: Callable[[Iterable[int]], Mapping[int, int]],
        report: Callable[[WorkerStatus], None],
        on_rebalance: Callable[[], None],
        reference_records: Callable[[], int],
        events: EventLog,
        contact: Callable[[bool], Contact | None] = lambda _: None,
        reading: Callable[[], Reading] = Reading,
        member: Callable[[], bool | None] = lambda: None,
        beat: Callable[[], None] = lambda: None,
        values: ValueCounts | None = None,
        view: WorkerView | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        """`ends`: log end of partitions, as far as it is known without asking; `report`: gets the status every
        second; `reference_records`: how many took the slow decoder so far; `values`: what features
        lacked so far; `view`: what the pages show of this worker; `tracing`: chooses batches for traces; `contact`: what is known of the broker, and
        whether to ask who is in the group; `member`: whether the group counts us among its members, None where that is
        not known. None of them waits."""
        self._metrics = metrics
        self._observing = metrics.telemetry_seconds.labels(part="observe")
        self._board = board
        self._clock = clock
        self._topic = topic
        self._ends = ends
        self._report = report
        self._on_rebalance = on_rebalance
        self._reference_records = reference_records
        self._reference_counted = 0
        self._lines_held_counted = 0
        self._events = events
        self._contact = contact
        self._reading = reading
        self._input = InputState(metrics=metrics, events=events, topic=topic, clock=clock)
        self._member = member
        self._beat = beat
        self._situation = Situation(metrics=metrics, board=board, events=events, clock=clock)
        self._any_delivered = False
        self._began_s = clock.monotonic_s()
        self._values = values
        self._view = view
        self._tracing = tracing
        self._last_turn_s: float | None = None
        self._gauges_due_s = 0.0
        self._assigned: set[int] = set()
        self._newly: set[int] = set()  # assigned, and not told of yet
        self._newly_tell_s = 0.0
        self._positions: dict[int, int] = {}
        self._oldest_ms: dict[int, int] = {}
        self._predicted = self._rejected = self._skipped = self._read_counted = 0

    def turn(self, *, ledger: Ledger, waiting: Waiting) -> None:
        """The loop is alive."""
        now_s = self._clock.monotonic_s()
        if self._last_turn_s is not None:
            self._metrics.poll_gap_seconds.observe(now_s - self._last_turn_s)
        self._last_turn_s = now_s
        self._board.beat(in_flight_batches=ledger.unfinished())
        if self._view is not None:
            self._view.turned(waiting, now_s)
        if now_s >= self._gauges_due_s:
            self._gauges_due_s = now_s + gauges_every_s
            self._positions, self._oldest_ms = ledger.positions(), ledger.oldest_unfinished_ms()
            self._balance(ledger.account())
            self._refresh(waiting)
            self._took(now_s)

    def draining(self) -> None:
        """The worker was asked to stop."""
        self._events.note(Event.DRAINING, "asked to stop: finishing what is in flight")
        self._board.set_state(WorkerState.DRAINING)
        self._metrics.ready.set(0)

    def batch_closed(self, batch: Batch) -> None:
        """A batch was handed to the compute side."""
        waited_s = self._clock.monotonic_s() - batch.polls[0].polled_at_s
        self._metrics.count_closed(batch.reason, rows=batch.rows, waited_s=waited_s)

    def delivered(self, finished: Sequence[Finished], *, took_s: float) -> None:
        """These batches are acknowledged."""
        began_s, now_ms = self._clock.monotonic_s(), self._clock.wall_ms()
        if not self._any_delivered:
            self._tell_first(finished[0])
        self._metrics.count_delivery(took_s=took_s)
        for done in finished:
            assert done.outcome is not None
            self._metrics.count_batch(done.outcome, busy_s=done.busy_s)
            self._predicted += done.outcome.predicted
            self._rejected += len(done.outcome.rejections)
            self._skipped += done.outcome.skipped
            self._board.finished(
                rows=done.batch.rows,
                busy_s=done.busy_s,
                explained=done.outcome.explained,
                unexplained=done.outcome.unexplained,
            )
            if self._view is not None:
                self._view.delivered(done, took_s=took_s)
            if self._tracing is not None:
                self._tracing.delivered(done, took_s=took_s)
            if done.outcome.rejections:
                self._situation.rejected(done.outcome.rejections, _places(done))
        stamps = [poll.records.timestamps_ms for done in finished for poll in done.batch.polls]
        self._metrics.count_ages(
            np.concatenate(stamps), now_ms=now_ms, place=lambda index: _place_of(finished, index)
        )
        self._took(began_s)

    def rewound(self, *, cause: str) -> None:
        """Work in flight was dropped."""
        self._metrics.rewinds.labels(cause=cause).inc()
        self._board.interrupted()
        if cause == "abort":
            self._metrics.deliveries.labels(outcome="aborted").inc()

    def rebalanced(self, *, assigned: Sequence[int], lost: bool = False) -> None:
        """The assignment changed."""
        gone, new = self._assigned - set(assigned), set(assigned) - self._assigned
        if (
            gone or not self._newly
        ):  # partitions of one assignment come one after the other where each has to wait
            self._metrics.rebalances.inc()
        self._newly = (self._newly | new) - gone
        self._newly_tell_s = self._clock.monotonic_s() + assigned_together_s
        if gone and lost and self._made_anew():
            pass  # which has been told; nobody else has these partitions
        elif gone and lost:
            text = assignment_text("lost partitions", sorted(gone), self._topic, assigned)
            text += ": the group had gone on without this worker; what was in flight is read again by their next owner"
            self._events.note(Event.PARTITIONS_LOST, text, level=logging.WARNING)
        elif gone:
            text = assignment_text("gave back partitions", sorted(gone), self._topic, assigned)
            self._events.note(Event.REVOKED, text)
        self._situation.forget(sorted(gone))
        self._input.forget(gone)
        self._metrics.forget_lag(self._topic, gone)
        self._assigned = set(assigned)
        self._metrics.assigned_partitions.set(len(assigned))
        self._board.rebalanced(assigned)
        self._on_rebalance()
        self._gauges_due_s = 0.0

    def holding(self, held: Mapping[int, Held]) -> None:
        """Exactly these partitions stand still now."""
        self._situation.hold(held)

    def stopped(self, *, unfinished: int) -> None:
        """The loop has ended."""
        left = (
            f"{unfinished} polls unfinished, which will be read again" if unfinished else "nothing unfinished"
        )
        self._events.note(Event.STOPPED, f"stopped with {left}")

    def _made_anew(self) -> bool:
        """Whether the input topic is another one than at the last look, which is told first."""
        before = self._input.recreations
        self._situation.input_waits = self._input.look(self._reading())
        return self._input.recreations > before

    def _tell_first(self, done: Finished) -> None:
        self._any_delivered = True
        first = done.batch.spans[0]
        waited_s = self._clock.monotonic_s() - self._began_s
        self._events.note(
            Event.FIRST_RECORD,
            f"first record finished: partition {first.partition}, offset {first.first}, {waited_s:.1f} s after warming",
        )

    def _tell_assigned(self) -> None:
        """Partitions come one after the other where each waits for a predecessor's transaction: one line for them all."""
        if self._newly and self._clock.monotonic_s() >= self._newly_tell_s:
            text = assignment_text(
                "assigned partitions", sorted(self._newly), self._topic, sorted(self._assigned)
            )
            self._events.note(Event.ASSIGNED, text)
            self._newly = set()

    def _took(self, since_s: float) -> None:
        self._observing.inc(self._clock.monotonic_s() - since_s)

    def _balance(self, account: Account) -> None:
        self._board.balance(
            Balance(
                read=account.read, predicted=self._predicted, rejected=self._rejected, skipped=self._skipped,
                in_flight=account.in_flight, dropped=account.dropped,
            )
        )  # fmt: skip
        self._metrics.read.inc(account.read - self._read_counted)
        self._read_counted = account.read
        self._metrics.in_flight.set(account.in_flight)
        self._metrics.dropped.set(account.dropped)

    def _refresh(self, waiting: Waiting) -> None:
        self._beat()
        self._tell_assigned()
        in_hand = waiting.batcher + waiting.compute + waiting.delivery
        self._situation.input_waits = self._input.look(self._reading())
        contact = self._contact(self._situation.joining_long)
        self._situation.look(contact, member=self._member(), in_hand=in_hand)
        for queue in ("batcher", "compute", "delivery"):
            self._metrics.queue_rows.labels(queue=queue).set(getattr(waiting, queue))
        reference = self._reference_records()
        self._metrics.reference_decoded.inc(reference - self._reference_counted)
        self._reference_counted = reference
        held_back = lines_held_back()
        self._metrics.log_lines_held.inc(held_back - self._lines_held_counted)
        self._lines_held_counted = held_back
        if self._values is not None:
            self._metrics.count_values(self._values)
        now_ms = self._clock.wall_ms()
        self._board.positions(offsets=self._positions, oldest_ms=self._oldest_ms)
        ends = self._ends(self._assigned)
        still = self._situation.standing_still
        if self._situation.reachable:
            behind = (
                ends[p] - self._positions[p]
                for p in self._assigned & ends.keys() & self._positions.keys() - still
            )
            self._board.waiting(sum(behind) - in_hand)
        else:
            self._board.interrupted()
        status = self._board.status()
        self._show_capacity(status)
        self._metrics.startup_seconds.set(status.startup_s)
        self._metrics.ready.set(self._board.ready().ok)
        lags: dict[int, tuple[float, float]] = {}
        for partition in self._assigned:
            place = {"topic": self._topic, "partition": str(partition)}
            oldest_ms = self._oldest_ms.get(partition, -1)
            # What cannot be known is not 0: with the cluster away, before it has said where the partition ends, or while nothing
            # of it is fetched, when the end is an old one.
            known = self._situation.reachable and partition in ends and partition not in still
            idle_s = 0.0 if known else math.nan
            age_s = max(now_ms - oldest_ms, 0) / 1000 if oldest_ms >= 0 else idle_s
            self._metrics.lag_seconds.labels(**place).set(age_s)
            position = self._positions.get(partition)
            records = max(ends[partition] - position, 0) if known and position is not None else math.nan
            self._metrics.lag_records.labels(**place).set(records)
            lags[partition] = (records, age_s)
        if self._view is not None:
            self._view.lags(lags)
        self._report(status)

    def _show_capacity(self, status: WorkerStatus) -> None:
        self._metrics.capacity.set(status.capacity_records_per_s)
        self._metrics.capacity_measured.set(status.capacity_measured)
        for kind, rate in (
            ("predict", status.predict_records_per_s), ("explain", status.explain_records_per_s),
        ):  # fmt: skip
            self._metrics.saturated_rate.labels(kind=kind).set(rate)


def _place_of(finished: Sequence[Finished], index: int) -> tuple[int, int]:
    """Partition and offset of a record of these batches, counted through."""
    for done in finished:
        for poll in done.batch.polls:
            if index < len(poll.records):
                return int(poll.records.partitions[index]), int(poll.records.offsets[index])
            index -= len(poll.records)
    raise InvariantError("a record was asked for that is in none of the batches")


def _places(done: Finished) -> list[tuple[int, int]]:
    """(partition, offset) of each rejection of a batch."""
    assert done.outcome is not None
    records = Records.join([poll.records for poll in done.batch.polls])
    return [
        (int(records.partitions[rejection.index]), int(records.offsets[rejection.index]))
        for rejection in done.outcome.rejections
    ]
