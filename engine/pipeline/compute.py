"""The compute thread: batches in, outcomes out, bounded on both sides."""

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from penstock.engine.pipeline.batcher import Batch
from penstock.engine.pipeline.scorer import Outcome
from penstock.schemas.errors import AccessRefusedError, PenstockError, UnavailableError
from penstock.schemas.records import Records
from penstock.schemas.waits import WaitKind

retry_first_s, retry_max_s = 0.1, 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """Why a partition stands still while the others go on."""

    kind: WaitKind
    reason: str
    someone_must_act: bool = False  # it will not pass by itself
    stopped: bool = False  # until the next start, or until another worker owns it


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A batch and what became of it: an outcome, or partitions of it that must wait."""

    batch: Batch
    outcome: Outcome | None
    busy_s: float
    waiting: Mapping[int, Held] = field(default_factory=dict)
    """Partitions that cannot be computed now, each with why: then nothing of the batch was computed."""


Score = Callable[[Records], Outcome]
"""Every record's outcome; raises UnavailableError to be given the same records again later."""


class Compute(Protocol):
    """Where batches are computed; the polling thread's view of it."""

    @property
    def queued_rows(self) -> int:
        """Rows handed over and not yet collected."""

    @property
    def waiting(self) -> Mapping[int, Held]:
        """Partitions that still cannot be computed, each with why; those not in it any more can be given again."""

    def let_go(self, partitions: Sequence[int]) -> None:
        """These are not ours any more: try nothing of them again."""

    def has_room(self) -> bool:
        """Whether another batch may be handed over."""

    def submit(self, batch: Batch) -> None:
        """Hand over; only when has_room() is true. Never waits."""

    def collect(self, timeout_s: float) -> Finished | None:
        """The next finished batch in the order handed over, waiting at most this long for it. Raises what must stop the worker,
        also where it came of work that is not wanted any more."""

    def forget(self) -> None:
        """What is handed over is not wanted any more: give up what has not begun."""


class ComputeThread:
    """One thread that runs `score` on each batch in turn.

    Promises: order is kept, every batch that was submitted and not forgotten is collected once, an unexpected exception,
    whatever the thread was at, ends it and is raised by `collect` as `error_of(exception)`. A partition of whose records
    something remote is needed that cannot be had now is named, and for what was read of it that is asked again, at growing
    intervals, between other batches.
    """

    def __init__(
        self,
        score: Score,
        *,
        batches_max: int,
        monotonic_s: Callable[[], float],
        error_of: Callable[[BaseException], PenstockError],
        require: Callable[[Records], object],
        on_retry: Callable[[], None] = lambda: None,
    ) -> None:
        """`require` raises UnavailableError where `score` would, and neither computes nor counts anything. `on_retry` is told, on
        this thread, each time records must wait for something remote."""
        self._score = score
        self._require = require
        self._monotonic_s = monotonic_s
        self._error_of = error_of
        self._on_retry = on_retry
        self._batches_max = batches_max
        self._todo: queue.SimpleQueue[tuple[int, Batch] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[int, Finished] | PenstockError] = queue.SimpleQueue()
        self._batches = 0
        self._rows = 0
        self._wanted = 0  # handed-over batches of an older number are not wanted any more
        self._lock = threading.Lock()
        self._trials: dict[int, _Trial] = {}  # guarded by the lock
        self._thread = threading.Thread(target=self._run, name="compute", daemon=True)
        self._thread.start()

    @property
    def queued_rows(self) -> int:
        return self._rows

    @property
    def waiting(self) -> Mapping[int, Held]:
        with self._lock:
            return {partition: trial.held for partition, trial in self._trials.items()}

    def let_go(self, partitions: Sequence[int]) -> None:
        with self._lock:
            for partition in partitions:
                self._trials.pop(partition, None)

    def has_room(self) -> bool:
        return self._batches < self._batches_max

    def submit(self, batch: Batch) -> None:
        self._batches += 1
        self._rows += batch.rows
        self._todo.put((self._wanted, batch))

    def collect(self, timeout_s: float) -> Finished | None:
        while True:
            try:
                done = self._done.get(timeout=timeout_s) if timeout_s > 0 else self._done.get_nowait()
            except queue.Empty:
                return None
            if isinstance(done, PenstockError):
                raise done
            wanted, finished = done
            if wanted == self._wanted:
                self._batches -= 1
                self._rows -= finished.batch.rows
                return finished

    def forget(self) -> None:
        self._wanted += 1
        self._batches = self._rows = 0

    def close(self, timeout_s: float) -> None:
        """Stop after the batch in hand; idempotent."""
        self.forget()
        self._todo.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001  the worker's one broad catch: it ends the worker, counted
            self._done.put(self._error_of(error))

    def _work(self) -> None:
        while True:
            try:
                work = self._todo.get(timeout=self._trial_wait_s())
            except queue.Empty:
                self._try_again()
                continue
            if work is None:
                return
            wanted, batch = work
            if wanted != self._wanted:
                continue
            self._done.put((wanted, self._compute(batch, wanted)))
            if self._trials:
                self._try_again()

    def _compute(self, batch: Batch, wanted: int) -> Finished:
        records = Records.join([poll.records for poll in batch.polls])
        away: UnavailableError | None = None
        while True:
            began_s = self._monotonic_s()
            try:
                outcome = self._score(records)
            except UnavailableError as error:
                # What can be had again already delays nothing, once: a second time it is waited for, whatever is answered.
                waiting = self._parted(records, wanted, missed=away)
                if waiting or wanted != self._wanted:
                    return Finished(batch=batch, outcome=None, busy_s=0.0, waiting=waiting)
                away = error
                continue
            return Finished(batch=batch, outcome=outcome, busy_s=self._monotonic_s() - began_s)

    def _parted(
        self, records: Records, wanted: int, *, missed: UnavailableError | None
    ) -> Mapping[int, Held]:
        """Which partitions cannot be computed now; what was read of them is kept, to be asked about again. With `missed`, all of
        them: by what is asked they could be, and could not."""
        self._on_retry()
        waiting: dict[int, Held] = {}
        for partition in np.unique(records.partitions).tolist():
            if wanted != self._wanted:
                return waiting
            part = records.take(np.flatnonzero(records.partitions == partition))
            held = self._needs(part) or (None if missed is None else _held(missed))
            if held is not None:
                waiting[partition] = held
                due_s = self._monotonic_s() + retry_first_s
                with self._lock:
                    if wanted != self._wanted:  # forgotten meanwhile, and perhaps let go as well
                        return waiting
                    self._trials[partition] = _Trial(
                        records=part, held=held, due_s=due_s, wait_s=retry_first_s
                    )
        return waiting

    def _needs(self, records: Records) -> Held | None:
        try:
            self._require(records)
        except UnavailableError as error:
            return _held(error)
        return None

    def _trial_wait_s(self) -> float | None:
        with self._lock:
            due_s = min((trial.due_s for trial in self._trials.values()), default=None)
        return None if due_s is None else max(due_s - self._monotonic_s(), 0.0)

    def _try_again(self) -> None:
        now_s = self._monotonic_s()
        with self._lock:
            due = {partition: trial for partition, trial in self._trials.items() if trial.due_s <= now_s}
        for partition, trial in due.items():
            self._on_retry()
            held = self._needs(trial.records)
            with self._lock:
                if self._trials.get(partition) is not trial:
                    continue  # let go meanwhile
                if held is None:
                    del self._trials[partition]
                else:
                    trial.held = held
                    trial.wait_s = min(trial.wait_s * 2, retry_max_s)
                    trial.due_s = self._monotonic_s() + trial.wait_s


@dataclass(kw_only=True, slots=True)
class _Trial:
    records: Records
    held: Held
    due_s: float
    wait_s: float


def _held(error: UnavailableError) -> Held:
    return Held(
        kind=WaitKind.REGISTRY,  # nobody else is asked by this thread
        reason=str(error),
        someone_must_act=isinstance(error, AccessRefusedError),
    )
