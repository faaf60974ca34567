"""The compute thread: batches in, outcomes out, bounded on both sides."""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from penstock.engine.pipeline.batcher import Batch
from penstock.engine.pipeline.scorer import Outcome
from penstock.schemas.errors import PenstockError, UnavailableError
from penstock.schemas.records import Records

retry_first_s, retry_max_s = 0.1, 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A batch and what became of it: an outcome, or the error that must stop the worker."""

    batch: Batch
    outcome: Outcome | None
    error: PenstockError | None
    busy_s: float


Score = Callable[[Records], Outcome]
"""Every record's outcome; raises UnavailableError to be given the same records again later."""


class Compute(Protocol):
    """Where batches are computed; the polling thread's view of it."""

    @property
    def queued_rows(self) -> int:
        """Rows handed over and not yet collected."""

    def has_room(self) -> bool:
        """Whether another batch may be handed over."""

    def submit(self, batch: Batch) -> None:
        """Hand over; only when has_room() is true. Never waits."""

    def collect(self, timeout_s: float) -> Finished | None:
        """The next finished batch in the order handed over, waiting at most this long for it."""

    def forget(self) -> None:
        """What is handed over is not wanted any more: give up what has not begun, and retry nothing."""


class ComputeThread:
    """One thread that runs `score` on each batch in turn.

    Promises: order is kept, every batch that was submitted and not forgotten is collected once, an unexpected exception
    comes out as `error_of(exception)` and ends the thread.
    """

    def __init__(
        self,
        score: Score,
        *,
        batches_max: int,
        monotonic_s: Callable[[], float],
        error_of: Callable[[BaseException], PenstockError],
        on_retry: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_retry` is told, on this thread, each time a batch must wait for something remote."""
        self._score = score
        self._monotonic_s = monotonic_s
        self._error_of = error_of
        self._on_retry = on_retry
        self._batches_max = batches_max
        self._todo: queue.SimpleQueue[tuple[int, Batch] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[int, Finished]] = queue.SimpleQueue()
        self._batches = 0
        self._rows = 0
        self._wanted = 0  # handed-over batches of an older number are not wanted any more
        self._changed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="compute", daemon=True)
        self._thread.start()

    @property
    def queued_rows(self) -> int:
        return self._rows

    def has_room(self) -> bool:
        return self._batches < self._batches_max

    def submit(self, batch: Batch) -> None:
        self._batches += 1
        self._rows += batch.rows
        self._todo.put((self._wanted, batch))

    def collect(self, timeout_s: float) -> Finished | None:
        while True:
            try:
                wanted, finished = (
                    self._done.get(timeout=timeout_s) if timeout_s > 0 else self._done.get_nowait()
                )
            except queue.Empty:
                return None
            if wanted == self._wanted:
                self._batches -= 1
                self._rows -= finished.batch.rows
                return finished

    def forget(self) -> None:
        self._wanted += 1
        self._batches = self._rows = 0
        self._changed.set()

    def close(self, timeout_s: float) -> None:
        """Stop after the batch in hand; idempotent."""
        self.forget()
        self._todo.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (work := self._todo.get()) is not None:
            wanted, batch = work
            if wanted != self._wanted:
                continue
            finished = self._compute(wanted, batch)
            if finished is not None:
                self._done.put((wanted, finished))
                if finished.error is not None:
                    return

    def _compute(self, wanted: int, batch: Batch) -> Finished | None:
        records = Records.join([poll.records for poll in batch.polls])
        retry_s = retry_first_s
        while True:
            began_s = self._monotonic_s()
            try:
                outcome = self._score(records)
            except UnavailableError:
                self._on_retry()
                self._changed.clear()
                if wanted != self._wanted or (self._changed.wait(retry_s) and wanted != self._wanted):
                    return None
                retry_s = min(retry_s * 2, retry_max_s)
                continue
            except BaseException as error:  # noqa: BLE001  the worker's one broad catch: it ends the worker, counted
                return Finished(batch=batch, outcome=None, error=self._error_of(error), busy_s=0.0)
            return Finished(batch=batch, outcome=outcome, error=None, busy_s=self._monotonic_s() - began_s)
