"""The polling thread: poll, open, batch, hand over, collect, send, settle, commit; it never waits for work."""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from penstock.engine.clock import Clock
from penstock.engine.pipeline.batcher import Batcher, Poll
from penstock.engine.pipeline.compute import Compute, Finished, Held
from penstock.engine.pipeline.hooks import (
    Breaker,
    Pausing,
    PipelineHooks,
    Waiting,
    nothing_paused,
)
from penstock.engine.pipeline.ledger import Ledger
from penstock.engine.pipeline.offsets import bounds, delivery, places
from penstock.engine.pipeline.pacing import AbortBackoff, CommitPolicy, Pace, PipelineLimits, UnderWay, pace
from penstock.engine.pipeline.standstill import Standstill
from penstock.engine.ports import AssignmentListener, Sink, Source
from penstock.schemas.errors import AbortedError, TooManyRejectedError, UnavailableError
from penstock.schemas.records import Records
from penstock.schemas.waits import WaitKind


class Pipeline:
    """One worker's loop. All methods but `request_stop` belong to the polling thread.

    Promises: what is committed was delivered; after a revocation, a lost partition or an aborted delivery, every
    partition of the work that was dropped is read again from its first unfinished record.
    """

    def __init__(
        self,
        *,
        source: Callable[[AssignmentListener], Source],
        sink: Sink,
        compute: Compute,
        batcher: Batcher,
        breaker: Callable[[], Breaker],
        watcher: PipelineHooks,
        clock: Clock,
        commits: CommitPolicy,
        limits: PipelineLimits | None = None,
        pausing: Callable[[], Pausing] = lambda: nothing_paused,
    ) -> None:
        """`breaker`: makes a new limit on rejections, at the start and after each rewind, which replays records it had counted.
        `pausing`: which partitions an operator wants to stand still; asked each turn, so it does not wait."""
        self._sink = sink
        self._compute = compute
        self._batcher = batcher
        self._new_breaker = breaker
        self._breaker = breaker()
        self._watcher = watcher
        self._clock = clock
        self._commits = commits
        self._limits = limits or PipelineLimits()
        self._ledger = Ledger()
        self._generation = 0
        self._finished: deque[Finished] = deque()
        self._deliveries: deque[tuple[float, list[Finished]]] = deque()  # submitted at, oldest first
        self._polling = False
        self._seek_due: dict[int, int] = {}
        self._stalled_since_s: float | None = None
        self._backoff = AbortBackoff(self._limits)
        self._still = Standstill()
        self._hold_due: dict[int, Held] = {}  # as soon as nothing is on its way
        self._pausing = pausing
        self._stops = 0
        self._unfinished = 0
        self._source = source(self)

    def request_stop(self) -> None:
        """Drain and leave; asked a second time, leave without draining. Safe in a signal handler."""
        self._stops += 1

    def run(self, *, until: Callable[[], bool] = lambda: False) -> None:
        """Work until stopped or `until()`, then drain within the budget; `close` gives up what is left.

        Raises FencedError, ConfigError, TooManyRejectedError, UnavailableError (too many aborts), InvariantError; what was not
        delivered then is not committed either.
        """
        try:
            while not self._stops and not until():
                self.turn()
            self._watcher.draining()
            self._drain()
            self._commit()
        finally:
            self._unfinished = self._ledger.unfinished()
            self._forget()

    def close(self, timeout_s: float) -> None:
        """Give up what is still on its way, leave the group and release the clients."""
        self._sink.close(timeout_s / 2)
        self._source.close(timeout_s / 2)

    def turn(self) -> None:
        """One round; waits at most `idle_poll_s`, and only when there is nothing to do."""
        self._watcher.turn(ledger=self._ledger, waiting=self._waiting())
        pausing = self._pausing()
        if pausing or self._still.paused:
            self._pause(pausing)
        polled = self._poll()
        self._feed()
        now = self._pace()
        self._collect(wait=now.waits_for_compute and (now.quick or not polled), all_of_it=now.quick)
        self._deliver(wait=now.quick or not polled)
        if self._hold_due or self._still.holds:
            self._hold()
        if self._commits.is_due(self._clock.monotonic_s()):
            self._commit()

    def _pace(self) -> Pace:
        finished_rows = self._finished_rows()
        rows = self._batcher.rows + self._compute.queued_rows + finished_rows + self._submitted_rows()
        under_way = UnderWay(
            rows=rows,
            finished_rows=finished_rows,
            deliveries=len(self._deliveries),
            expected_s=self._batcher.expected_s(rows) if rows < self._limits.beside_records_min else math.inf,
            unfinished=self._ledger.unfinished(),
        )
        return pace(under_way, self._commits, self._limits)

    def _waiting(self) -> Waiting:
        return Waiting(
            batcher=self._batcher.rows,
            compute=self._compute.queued_rows,
            delivery=self._submitted_rows() + self._finished_rows(),
        )

    def _submitted_rows(self) -> int:
        if not self._deliveries:
            return 0
        return sum(finished.batch.rows for _, group in self._deliveries for finished in group)

    def _finished_rows(self) -> int:
        return sum(finished.batch.rows for finished in self._finished) if self._finished else 0

    @property
    def quiet(self) -> bool:
        """Nothing polled is unfinished."""
        return self._ledger.unfinished() == 0

    def _poll(self) -> bool:
        """Poll available records; returns whether there were any."""
        now_s = self._clock.monotonic_s()
        room = self._batcher.room if self._backoff.over(now_s) else 0
        if room <= 0:
            self._hold_back(now_s)
            return False
        self._stalled_since_s = None
        self._source.resume()
        records = self._poll_source(room, self._pace().poll_wait_s)
        return records is not None and len(records) > 0

    def _hold_back(self, now_s: float) -> None:
        if self._stalled_since_s is None:
            self._stalled_since_s = now_s
        if now_s - self._stalled_since_s < self._limits.stall_before_pause_s and self._backoff.over(now_s):
            return
        self._source.pause()
        # Keep polling: a consumer that stops polling loses its partitions. What arrives all the same is kept.
        self._poll_source(1, self._limits.busy_wait_s)

    def _poll_source(self, records_max: int, timeout_s: float) -> Records | None:
        self._polling = True
        records = self._source.poll(records_max, timeout_s)
        self._polling = False
        self._seek_if_due(records)
        return records

    def _seek_if_due(self, records: Records | None) -> None:
        """Open what was polled, unless a rebalance inside the poll dropped what came before it."""
        if not self._seek_due:
            if records is not None and len(records):
                self._open(records)
            return
        again, self._seek_due = self._seek_due, {}
        for partition, span in bounds(records) if records is not None else ():
            if partition in self._ledger.assigned():
                again.setdefault(partition, span[0])
        self._source.seek(again)

    def _open(self, records: Records) -> None:
        spans = tuple(
            self._ledger.open(
                partition=partition, first=first, next=last + 1, oldest_timestamp_ms=oldest_ms, records=count
            )
            for partition, (first, last, oldest_ms, count) in bounds(records)
        )
        self._batcher.add(Poll(records=records, spans=spans, polled_at_s=self._clock.monotonic_s()))

    def _feed(self) -> None:
        while not self._hold_due and self._compute.has_room():
            batch = self._batcher.take(
                now_s=self._clock.monotonic_s(),
                queued_rows=self._compute.queued_rows,
                generation=self._generation,
            )
            if batch is None:
                return
            self._compute.submit(batch)
            self._watcher.batch_closed(batch)

    def _collect(self, *, wait: bool, all_of_it: bool) -> None:
        """What the compute side has finished; `wait` for the first of it, or for `all_of_it`."""
        timeout_s = self._limits.busy_wait_s if wait and (all_of_it or not self._finished) else 0.0
        # What the sink cannot take yet stays with the compute side, so that its bound stops the polling.
        while self._finished_rows() < self._limits.delivery_records_max:
            finished = self._compute.collect(timeout_s if self._compute.queued_rows else 0.0)
            if finished is None:
                return
            if not all_of_it:
                timeout_s = 0.0
            self._accept(finished)
            self._feed()

    def _accept(self, finished: Finished) -> None:
        if finished.batch.generation != self._generation or self._hold_due:
            return  # batches after a partition that must wait are rewound with it
        if finished.waiting:
            self._hold_due = dict(finished.waiting)
            return
        assert finished.outcome is not None
        self._batcher.computed(finished.batch, took_s=finished.busy_s)
        self._finished.append(
            finished
        )  # one that reaches the limit is delivered all the same, letters included
        stops = self._breaker.observe(
            lambda: places(finished), finished.outcome.bad, finished.outcome.rejections
        )
        if stops:
            self._hold_due = {
                p: Held(kind=WaitKind.STOPPED, reason=why, stopped=True) for p, why in stops.items()
            }

    def _deliver(self, *, wait: bool) -> None:
        try:
            if self._deliveries:
                self._advance(self._pace().broker_wait_s if wait else 0.0)
            if not self._finished and not self._deliveries:
                self._sink.has_room()  # with nothing to send, too, it mends what an abort has left behind
            while self._finished and self._sink.has_room() and self._pace().sends:
                group = self._group()
                try:
                    membership = self._source.membership()
                except UnavailableError:  # not joined, or between generations: the next turn asks again
                    self._finished.extendleft(reversed(group))
                    self._clock.sleep(self._limits.busy_wait_s)
                    return
                self._deliveries.append((self._clock.monotonic_s(), group))
                self._sink.submit(delivery(group), membership)
                self._advance(self._pace().broker_wait_s)
        except AbortedError:
            self._after_abort()

    def _advance(self, timeout_s: float) -> None:
        self._settle(self._sink.advance(timeout_s))

    def _settle(self, deliveries: int) -> None:
        for _ in range(deliveries):
            submitted_at_s, group = self._deliveries.popleft()
            for finished in group:
                self._ledger.settle(finished.batch.spans)
            self._backoff.delivered()
            self._commits.delivered(self._clock.monotonic_s(), self._limits)
            self._watcher.delivered(group, took_s=self._clock.monotonic_s() - submitted_at_s)

    def _commit(self) -> None:
        """What is delivered and not committed yet, where the source commits."""
        if self._commits.take_commit():
            self._source.commit(self._ledger.positions())

    def _group(self) -> list[Finished]:
        """Finished batches that share the next transaction."""
        group = [self._finished.popleft()]
        rows = group[0].batch.rows
        while self._finished and rows + self._finished[0].batch.rows <= self._limits.delivery_records_max:
            group.append(self._finished.popleft())
            rows += group[-1].batch.rows
        return group

    def _after_abort(self) -> None:
        self._backoff.aborted(self._clock.monotonic_s())
        self._forget()
        self._watcher.rewound(cause="abort")
        self._read_again(self._ledger.rewind())

    def _read_again(self, positions: Mapping[int, int]) -> None:
        """Seek there. Inside a poll the seek waits until the poll returns, and the records that it returns are dropped."""
        if not self._polling:
            self._source.seek(positions)
            return
        for partition, offset in positions.items():
            self._seek_due[partition] = min(offset, self._seek_due.get(partition, offset))

    def _forget(self) -> None:
        """Discard all work in flight: its results belong to an older generation."""
        self._generation += 1
        self._compute.forget()
        self._batcher.clear()
        self._finished.clear()
        self._deliveries.clear()
        self._hold_due = {}  # found again when its records are read again; their dead letters may be among the dropped results
        self._breaker = self._new_breaker()

    def _hold(self) -> None:
        """Pause partitions that cannot go on and resume those that can again, without stopping the others.

        What is finished is delivered first; the rest in flight, of the others as well, is dropped and read again.
        """
        waiting = self._compute.waiting
        over = self._still.over(waiting.keys())
        due = bool(self._hold_due) and not self._finished and not self._deliveries
        if due:
            held_now = self._hold_due
            self._forget()
            again = self._ledger.rewind()
            ours = self._ledger.assigned()
            self._still.hold({p: held for p, held in held_now.items() if p in ours}, again)
            if (why := self._still.stopped(ours)) is not None:  # nothing is left to read
                self._watcher.holding(self._still.reasons)
                self._commit()
                raise TooManyRejectedError(why)
        if due or over:
            from_where = self._still.let_go(over)
            self._source.hold(self._still.partitions)
            self._source.seek(from_where)
        if due:
            self._read_again(again)
            self._watcher.rewound(cause="hold")
        changed = self._still.learn(waiting)
        if due or over or changed:
            self._watcher.holding(self._still.reasons)

    def _pause(self, pausing: Pausing) -> None:
        """Fetch nothing from partitions that an operator paused; what of them is in flight is finished as ever."""
        wanted = {p for p in self._ledger.assigned() if p in pausing}
        if wanted == self._still.paused:
            return
        self._still.paused = wanted
        self._source.hold(self._still.partitions)
        self._watcher.holding(self._still.reasons)

    def _drain(self) -> None:
        """Finish what the compute side has, deliver it, within the budget; a second stop request cuts it short."""
        deadline_s = self._clock.monotonic_s() + self._limits.drain_budget_s
        while self._compute.queued_rows or self._finished or self._deliveries:
            if self._clock.monotonic_s() >= deadline_s or self._stops > 1:
                return
            self._watcher.turn(ledger=self._ledger, waiting=self._waiting())
            timeout_s = self._limits.busy_wait_s if not self._finished and not self._deliveries else 0.0
            if (finished := self._compute.collect(timeout_s)) is not None:
                self._accept(finished)
            generation = self._generation
            self._deliver(wait=True)
            if generation != self._generation:  # aborted: the next owner of the partitions reads them again
                return

    def on_assigned(self, partitions: Sequence[int]) -> None:
        """As AssignmentListener asks."""
        self._ledger.assign(partitions)
        if pausing := self._pausing():  # before anything of them is fetched
            self._pause(pausing)
        self._watcher.rebalanced(assigned=self._ledger.assigned())

    def on_revoked(self, partitions: Sequence[int]) -> None:
        """As AssignmentListener asks: drain within the budget, then let go."""
        self._drain()
        self._give_up(partitions, cause="revoke")

    def on_lost(self, partitions: Sequence[int]) -> None:
        """As AssignmentListener asks."""
        self._give_up(partitions, cause="lost")

    def tell_stopped(self) -> None:
        """The loop has ended, and nobody starts it again."""
        self._watcher.stopped(unfinished=self._unfinished)

    def _give_up(self, partitions: Sequence[int], *, cause: str) -> None:
        """Drop what is not delivered yet, of the partitions that stay as well: a transaction is all or nothing."""
        if self._deliveries:
            self._settle(self._sink.abort())
        if cause == "revoke":
            self._commit()
        dropped = not self.quiet
        self._forget()
        self._ledger.revoke(partitions)
        self._compute.let_go(partitions)
        for partition in partitions:
            self._seek_due.pop(partition, None)
        self._still.forget(partitions)
        self._read_again(self._ledger.rewind())
        if dropped:
            self._watcher.rewound(cause=cause)
        self._watcher.rebalanced(assigned=self._ledger.assigned(), lost=cause == "lost")
