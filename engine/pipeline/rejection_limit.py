"""When so many records of a partition are bad that the fault is not theirs: stop reading it, rather than pour it into the
dead letters. Whoever writes the bad ones stops their own partition, and no other."""

import math
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from penstock.schemas.errors import TooManyRejectedError
from penstock.schemas.reasons import Reason
from penstock.schemas.records import Rejection

Places = Callable[[], tuple[NDArray[np.int32], NDArray[np.int64]]]
"""Partition and offset of each record of a batch, (N,) each."""


class Breaker:
    """Watches outcomes in record order.

    Trips when `run_max` records in a row are bad, or when more than `share_max` of the last `window` records are. The share is
    asked only once `window` records were seen. What has tripped stays tripped.
    """

    def __init__(self, *, run_max: int, share_max: float, window: int) -> None:
        self._run_max = run_max
        self._window = window
        self._bad_max = math.floor(share_max * window + 1e-9)  # more bad ones in a whole window are too many
        self._share_max = share_max
        self._last = np.zeros(window, dtype=np.bool_)  # the last `seen` records, up to window; oldest first
        self._seen = 0
        self._run = 0
        self._reasons: deque[tuple[int, int, Rejection]] = deque(maxlen=max(run_max, window))
        self._position = 0
        self._sentence: str | None = None

    @property
    def clean(self) -> bool:
        """Nothing it has seen counts any more."""
        return self._run == 0 and self._sentence is None and not self._last.any()

    def observe(
        self, bad: NDArray[np.bool_], rejections: Sequence[Rejection], offsets: NDArray[np.int64]
    ) -> None:
        """Take in the next batch: which records were bad, the rejections of the same batch by ascending index, and the offsets.

        Raises TooManyRejectedError if the limits were passed at any record of it.
        """
        if self._sentence is None:
            for rejection in rejections:
                place = rejection.index
                self._reasons.append((self._position + place, int(offsets[place]), rejection))
            run_longest = self._longest_run(bad)
            share_passed = self._share_passed(bad)
            self._position += len(bad)
            if run_longest >= self._run_max:
                self._trip(f"{self._run_max} records in a row were rejected", max(self._run_max, self._run))
            elif share_passed:
                self._trip(
                    f"more than {self._share_max:.0%} of the last {self._window} records were rejected",
                    self._window,
                )
        if self._sentence is not None:
            raise TooManyRejectedError(self._sentence)

    def trip(self, what: str) -> str:
        """Stop for a reason that is not this partition's alone; the sentence for a person."""
        if self._sentence is None:
            self._trip(what, self._run_max)
        return self._sentence or what

    def _longest_run(self, bad: NDArray[np.bool_]) -> int:
        """The longest run of bad ones that ends in this batch; keeps the length of the run that is still open."""
        good = np.flatnonzero(~bad)
        if len(good) == 0:
            self._run += len(bad)
            return self._run
        longest = max(self._run + int(good[0]), len(bad) - 1 - int(good[-1]))
        if len(good) > 1:
            longest = max(longest, int(np.diff(good).max()) - 1)
        self._run = len(bad) - 1 - int(good[-1])
        return longest

    def _share_passed(self, bad: NDArray[np.bool_]) -> bool:
        """Whether the share was passed at any record of the batch; keeps the last `window` outcomes."""
        was_full = self._seen == self._window
        history = np.concatenate([self._last[self._window - self._seen :], bad])
        self._seen = min(self._window, len(history))
        self._last[self._window - self._seen :] = history[len(history) - self._seen :]
        if len(history) < self._window or (was_full and not bad.any()):
            return False  # good ones alone can pass it only by filling the window for the first time
        ends = np.concatenate([[0], np.cumsum(history)])
        return bool((ends[self._window :] - ends[: -self._window]).max() > self._bad_max)

    def _trip(self, what: str, among: int) -> None:
        placed = [
            (offset, rejection) for at, offset, rejection in self._reasons if at >= self._position - among
        ]
        placed = placed or [(offset, rejection) for _, offset, rejection in self._reasons]
        recent = [rejection for _, rejection in placed]
        why = cure = ""
        if recent:
            what += f", from offset {placed[0][0]} on"
            (stage, reason), count = Counter((r.stage, r.reason) for r in recent).most_common(1)[0]
            example = next(r for r in reversed(recent) if (r.stage, r.reason) == (stage, reason))
            why = f"; {count} of {len(recent)} for {reason} at {stage}, the newest: {example.detail}"
            if reason is Reason.NULL_VALUE:
                cure = "set input.null_value: skip if records without a value are none to predict, or "
        self._sentence = (
            f"{what}, so the fault is hardly theirs{why}; they are in the dead letters, and what stands behind them is not "
            f"read. Repair the cause and start again, {cure}or raise dead_letters.run_max or dead_letters.share_max if these records really are to be set aside"
        )


class PartitionBreakers:
    """A breaker for each partition that has bad records; clean streams cost it nothing.

    When `run_max` records in a row are bad whatever partition they are of, those partitions stop that have their fair part in it:
    a wrong schema does not write its letters partition by partition, and one bad record beside a flood stops nobody.
    """

    def __init__(self, *, run_max: int, share_max: float, window: int) -> None:
        self._run_max, self._share_max, self._window = run_max, share_max, window
        self._breakers: dict[int, Breaker] = {}
        self._run: Counter[int] = Counter()  # bad records in a row up to now, by partition

    def observe(
        self, places: Places, bad: NDArray[np.bool_], rejections: Sequence[Rejection]
    ) -> Mapping[int, str]:
        """Take in the next batch; the partitions that passed a limit in it, each with a sentence for a person."""
        if not self._breakers and not bad.any():
            self._run.clear()
            return {}
        partitions, offsets = places()
        tripped: dict[int, str] = {}
        rejected: dict[int, list[Rejection]] = {}
        for rejection in rejections:
            rejected.setdefault(int(partitions[rejection.index]), []).append(rejection)
        for partition in {*np.unique(partitions[bad]).tolist(), *self._breakers}:
            own = np.flatnonzero(partitions == partition)
            if len(own) == 0:
                continue
            breaker = self._breakers.get(partition)
            if breaker is None:
                breaker = Breaker(run_max=self._run_max, share_max=self._share_max, window=self._window)
                self._breakers[partition] = breaker
            theirs = [
                replace(rejection, index=int(np.searchsorted(own, rejection.index)))
                for rejection in rejected.get(partition, ())
            ]
            try:
                breaker.observe(bad[own], theirs, offsets[own])
            except TooManyRejectedError as error:
                tripped[partition] = str(error)
        for partition in self._common_run(partitions, bad):
            if partition not in tripped:
                what = f"{self._run_max} records in a row, of several partitions, were rejected"
                tripped[partition] = self._breakers[partition].trip(what)
        # Not before: a run that partitions share may end in this batch, and a window of good records follow in it.
        for partition in [partition for partition, breaker in self._breakers.items() if breaker.clean]:
            del self._breakers[partition]
        return tripped

    def _common_run(self, partitions: NDArray[np.int32], bad: NDArray[np.bool_]) -> list[int]:
        """The partitions with a fair part in a run of `run_max` over all of them; keeps the run that is still open."""
        good = np.flatnonzero(~bad)
        leading = len(bad) if len(good) == 0 else int(good[0])
        self._run.update(partitions[:leading].tolist())
        runs = [self._run]
        if len(good):
            self._run = Counter(partitions[int(good[-1]) + 1 :].tolist())
            runs.append(self._run)
        for run in runs:
            if len(run) > 1 and run.total() >= self._run_max:
                fair = run.total() / (4 * len(run))
                return [partition for partition, count in run.items() if count >= fair]
        return []
