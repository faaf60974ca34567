"""A pipeline whose source, sink and compute side do as a test tells them."""

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from penstock.engine.pipeline.batcher import Batch, Batcher, CostCurve
from penstock.engine.pipeline.compute import Finished, Held
from penstock.engine.pipeline.hooks import Pausing, Waiting
from penstock.engine.pipeline.pacing import CommitBySource, CommitInTransaction, PipelineLimits
from penstock.engine.pipeline.pipeline import Pipeline
from penstock.engine.pipeline.scorer import Outcome
from penstock.engine.ports import AssignmentListener, Delivery, Positions
from penstock.schemas.errors import PenstockError, UnavailableError
from penstock.schemas.records import Outgoing, Records, Rejection

rows_max = 8


def records(*places: tuple[int, int]) -> Records:
    """Records at these (partition, offset)."""
    return Records(
        topic="t",
        partitions=np.array([partition for partition, _ in places], np.int32),
        offsets=np.array([offset for _, offset in places], np.int64),
        timestamps_ms=np.zeros(len(places), np.int64),
        keys=[None] * len(places),
        values=[b"%d:%d" % place for place in places],
    )


class HandClock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic_s(self) -> float:
        self.now_s += 1e-5
        return self.now_s

    def wall_ms(self) -> int:
        return int(self.now_s * 1000)

    def sleep(self, duration_s: float) -> None:
        self.now_s += duration_s


class HandSource:
    """Polls return what is put into `coming`: records, or something that happens inside the poll, in turn."""

    def __init__(self, clock: HandClock) -> None:
        self.clock = clock
        self.listener: AssignmentListener | None = None
        self.coming: deque[Records | Callable[[], Records | None]] = deque()
        self.paused = False
        self.polls: list[tuple[int, float]] = []
        self.sought: list[dict[int, int]] = []
        self.committed: list[dict[int, int]] = []
        self.held: set[int] = set()
        self.joined = True
        self.closed = False

    def open(self, listener: AssignmentListener) -> "HandSource":
        self.listener = listener
        return self

    def poll(self, records_max: int, timeout_s: float) -> Records | None:
        self.polls.append((records_max, timeout_s))
        if self.paused or not self.coming:
            self.clock.sleep(timeout_s)
            return None
        next_ = self.coming.popleft()
        found = next_ if isinstance(next_, Records) else next_()
        assert found is None or len(found) <= records_max
        return found

    def fetches(self) -> bool:
        return not self.paused

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def hold(self, partitions: Collection[int]) -> None:
        self.held = set(partitions)

    def seek(self, positions: Positions) -> None:
        if positions:
            self.sought.append(dict(positions))

    def membership(self) -> object:
        if not self.joined:
            raise UnavailableError("not joined yet")
        return "member"

    def commit(self, positions: Positions) -> None:
        self.committed.append(dict(positions))

    def close(self, timeout_s: float) -> None:
        self.closed = True


class HandSink:
    """Completes what it was given when `answers` says so: a number of deliveries, or an error; 0 when it is empty."""

    def __init__(self, clock: HandClock) -> None:
        self.clock = clock
        self.room = 2
        self.pending: list[Delivery] = []
        self.delivered: list[Delivery] = []
        self.answers: deque[int | PenstockError] = deque()
        self.eager = True
        self.done_at_abort = 0
        self.aborts = self.closes = 0

    def has_room(self) -> bool:
        return len(self.pending) < self.room

    def submit(self, delivery: Delivery, membership: object) -> None:
        assert self.has_room()
        self.pending.append(delivery)

    def advance(self, timeout_s: float) -> int:
        answer = self.answers.popleft() if self.answers else len(self.pending) if self.eager else 0
        if isinstance(answer, PenstockError):
            self.pending.clear()
            raise answer
        if not answer:
            self.clock.sleep(timeout_s)
        return self._complete(answer)

    def abort(self) -> int:
        self.aborts += 1
        done = self._complete(min(self.done_at_abort, len(self.pending)))
        self.pending.clear()
        return done

    def close(self, timeout_s: float) -> None:
        self.closes += 1
        self.pending.clear()

    def _complete(self, count: int) -> int:
        self.delivered += self.pending[:count]
        del self.pending[:count]
        return count


class HandCompute:
    """Finishes a batch when there is `work` left to do; one that `takes_time` finishes for whoever waits for it."""

    batches_max = 3

    def __init__(self, clock: HandClock) -> None:
        self.clock = clock
        self.queue: deque[Batch] = deque()
        self.work = 10**6
        self.takes_time = False
        self.error: PenstockError | None = None
        self.waiting: dict[int, Held] = {}
        self.let_go_of: list[int] = []

    def let_go(self, partitions: Sequence[int]) -> None:
        self.let_go_of += partitions

    @property
    def queued_rows(self) -> int:
        return sum(batch.rows for batch in self.queue)

    def has_room(self) -> bool:
        return len(self.queue) < self.batches_max

    def submit(self, batch: Batch) -> None:
        self.queue.append(batch)

    def collect(self, timeout_s: float) -> Finished | None:
        if not self.queue or not self.work or (self.takes_time and timeout_s == 0):
            self.clock.sleep(timeout_s)
            return None
        self.work -= 1
        batch = self.queue.popleft()
        if self.error is not None:
            raise self.error
        found = Records.join([poll.records for poll in batch.polls])
        if waits := {p: held for p, held in self.waiting.items() if p in found.partitions}:
            return Finished(batch=batch, outcome=None, busy_s=0.0, waiting=waits)
        outcome = Outcome(
            outgoing=(Outgoing(topic="p", keys=found.keys, values=found.values, partitions=found.partitions),),
            predicted=len(found), explained=0, skipped=0, rejections=(), bad=np.zeros(len(found), np.bool_), stage_s={},
        )  # fmt: skip
        return Finished(batch=batch, outcome=outcome, busy_s=0.001)

    def forget(self) -> None:
        self.queue.clear()


class Watched:
    """A watcher and a breaker that note what they are told."""

    def __init__(self) -> None:
        self.waiting = Waiting(batcher=0, compute=0, delivery=0)
        self.causes: list[str] = []
        self.held: dict[int, Held] = {}
        self.stops: dict[int, str] = {}

    def turn(self, *, ledger: object, waiting: Waiting) -> None:
        self.waiting = waiting

    def draining(self) -> None: ...
    def batch_closed(self, batch: Batch) -> None: ...
    def delivered(self, finished: Sequence[Finished], *, took_s: float) -> None: ...
    def rebalanced(self, *, assigned: Sequence[int], lost: bool = False) -> None: ...
    def stopped(self, *, unfinished: int) -> None: ...

    def holding(self, held: Mapping[int, Held]) -> None:
        self.held = dict(held)

    def rewound(self, *, cause: str) -> None:
        self.causes.append(cause)

    def observe(self, places: object, bad: object, rejections: Sequence[Rejection]) -> Mapping[int, str]:
        stops, self.stops = self.stops, {}
        return stops


class Loop:
    """A pipeline with all its ends in hand; partitions 0 and 1 are assigned."""

    def __init__(self, *, commits_by_source: bool = False, **limits: float) -> None:
        self.clock = HandClock()
        self.source, self.sink = HandSource(self.clock), HandSink(self.clock)
        self.compute, self.watched = HandCompute(self.clock), Watched()
        self.asked = Pausing()  # what an operator wants to stand still
        self.pipeline = Pipeline(
            source=self.source.open,
            sink=self.sink,
            compute=self.compute,
            batcher=Batcher(rows_max=rows_max, latency_slo_s=0.05, cost=CostCurve([(1, 0.001)])),
            breaker=lambda: self.watched,
            watcher=self.watched,
            clock=self.clock,
            commits=CommitBySource() if commits_by_source else CommitInTransaction(),
            limits=PipelineLimits(**limits),  # type: ignore[arg-type]
            pausing=lambda: self.asked,
        )
        self.pipeline.on_assigned([0, 1])

    def turns(self, count: int) -> None:
        for _ in range(count):
            self.pipeline.turn()

    def delivered(self) -> list[bytes | None]:
        return [
            value for delivery in self.sink.delivered for out in delivery.outgoing for value in out.values
        ]
