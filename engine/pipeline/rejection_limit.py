"""When so many records are bad that the fault is not theirs: stop, rather than pour the topic into the dead letters."""

import math
from collections import Counter, deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from penstock.schemas.errors import TooManyRejectedError
from penstock.schemas.records import Rejection


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
        self._reasons: deque[tuple[int, Rejection]] = deque(maxlen=max(run_max, window))
        self._position = 0
        self._sentence: str | None = None

    def observe(self, bad: NDArray[np.bool_], rejections: Sequence[Rejection]) -> None:
        """Take in the next batch: which records were bad, and the rejections of the same batch by ascending index.

        Raises TooManyRejectedError if the limits were passed at any record of it.
        """
        if self._sentence is None:
            for rejection in rejections:
                self._reasons.append((self._position + rejection.index, rejection))
            run_longest = self._longest_run(bad)
            share_passed = self._share_passed(bad)
            self._position += len(bad)
            if run_longest >= self._run_max:
                self._trip(f"{self._run_max} records in a row were rejected", self._run_max)
            elif share_passed:
                self._trip(
                    f"more than {self._share_max:.0%} of the last {self._window} records were rejected",
                    self._window,
                )
        if self._sentence is not None:
            raise TooManyRejectedError(self._sentence)

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
        history = np.concatenate([self._last[self._window - self._seen :], bad])
        self._seen = min(self._window, len(history))
        self._last[self._window - self._seen :] = history[len(history) - self._seen :]
        if len(history) < self._window or not bad.any():
            return False
        ends = np.concatenate([[0], np.cumsum(history)])
        return bool((ends[self._window :] - ends[: -self._window]).max() > self._bad_max)

    def _trip(self, what: str, among: int) -> None:
        recent = [rejection for at, rejection in self._reasons if at >= self._position - among]
        recent = recent or [rejection for _, rejection in self._reasons]
        why = ""
        if recent:
            (stage, reason), count = Counter((r.stage, r.reason) for r in recent).most_common(1)[0]
            example = next(r for r in reversed(recent) if (r.stage, r.reason) == (stage, reason))
            why = f"; {count} of {len(recent)} for {reason} at {stage}, the newest: {example.detail}"
        self._sentence = (
            f"{what}, so the fault is hardly theirs{why}; nothing of this batch is committed. Repair the cause and start "
            "again, or raise dead_letters.run_max or dead_letters.share_max if these records really are to be set aside"
        )
