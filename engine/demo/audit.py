"""The demo's book-keeping: every input offset once, and how good the predictions were."""

import math
from array import array
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

latencies_max: Final = 1_000_000
"""How many of the newest latencies the percentiles are of at the least."""
score_steps: Final = 100_000
"""Scores, from 0 to 1, are told apart to so many steps."""


class Tally:
    """How often each offset of each partition was seen."""

    def __init__(self) -> None:
        self._counts: dict[int, bytearray] = {}
        self.total = 0

    def add(self, partition: int, offset: int) -> None:
        """One more message for this input record."""
        counts = self._counts.setdefault(partition, bytearray())
        if offset >= len(counts):
            counts.extend(bytes(max(offset + 1 - len(counts), 4096)))
        counts[offset] = min(counts[offset] + 1, 255)
        self.total += 1

    def counts(self, partition: int, end: int) -> NDArray[np.int64]:
        """Times seen, for offsets 0 to before `end`."""
        seen = np.frombuffer(bytes(self._counts.get(partition, b"")[:end]), dtype=np.uint8).astype(np.int64)
        return np.concatenate([seen, np.zeros(end - len(seen), np.int64)])


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """What became of the input."""

    records: int
    predicted: int
    explained: int
    rejected: int
    lost: int  # input records with neither prediction nor dead letter
    duplicated: int  # surplus outcomes or explanations
    unexplained: int  # predicted records without an explanation

    @property
    def balanced(self) -> bool:
        """Every record has exactly one outcome, and every prediction its explanation."""
        return self.lost == self.duplicated == self.unexplained == 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """How good the predictions were, over records whose truth is known."""

    known: int
    auc: float  # area under the ROC curve
    flagged: int  # predicted late
    precision: float  # of those flagged, the share that was late
    recall: float  # of those late, the share that was flagged


class Audit:
    """Takes in what a reader of the output topics sees. To ask it anything takes no longer after an hour than after a second, so
    that whoever shows its answers reads on in time."""

    def __init__(self, truth: Mapping[str, float]) -> None:
        """`truth`: 1, 0 or NaN (not known) by record key."""
        self._truth = truth
        self._predictions, self._explanations, self._letters = Tally(), Tally(), Tally()
        self._scores = np.zeros(
            (2, score_steps + 1), np.int64
        )  # known to be on time, and late: how many by score
        self._read_s, self._latencies_s = array("d"), array("d")

    def prediction(
        self, partition: int, offset: int, *, key: str, score: float, latency_s: float, read_s: float
    ) -> None:
        """One prediction was read, at `read_s` on a monotonic clock."""
        self._predictions.add(partition, offset)
        self._latencies_s.append(latency_s)
        self._read_s.append(read_s)
        if len(self._read_s) >= 2 * latencies_max:
            del self._read_s[:latencies_max], self._latencies_s[:latencies_max]
        late = self._truth.get(key, math.nan)
        if late == late:
            self._scores[int(late > 0.5), min(max(int(score * score_steps), 0), score_steps)] += 1

    def explanation(self, partition: int, offset: int) -> None:
        """One explanation was read."""
        self._explanations.add(partition, offset)

    def dead_letter(self, partition: int, offset: int) -> None:
        """One dead letter was read."""
        self._letters.add(partition, offset)

    @property
    def outcomes(self) -> int:
        """Predictions and dead letters read so far."""
        return self._predictions.total + self._letters.total

    @property
    def explained(self) -> int:
        """Explanations read so far."""
        return self._explanations.total

    @property
    def rejected(self) -> int:
        """Dead letters read so far."""
        return self._letters.total

    def forget_latencies(self) -> None:
        """What was read so far warmed the path up: the percentiles begin anew."""
        del self._read_s[:], self._latencies_s[:]

    def latency_ms(
        self, percentile: float, *, since_s: float = -math.inf, until_s: float = math.inf
    ) -> float:
        """Input record's timestamp to being read from the output topic, of what was read between; 0 where nothing was."""
        first, last = bisect_left(self._read_s, since_s), bisect_left(self._read_s, until_s)
        if first >= last:
            return 0.0
        return float(np.percentile(np.frombuffer(self._latencies_s)[first:last], percentile)) * 1000

    def account(self, ends: Mapping[int, int]) -> Account:
        """The books, given the end offset of each input partition."""
        lost = duplicated = unexplained = predicted = rejected = explained = 0
        for partition, end in ends.items():
            p, e, d = (
                tally.counts(partition, end)
                for tally in (self._predictions, self._explanations, self._letters)
            )
            predicted, explained, rejected = (
                predicted + int((p > 0).sum()),
                explained + int((e > 0).sum()),
                rejected + int((d > 0).sum()),
            )
            lost += int((p + d == 0).sum())
            duplicated += int(np.maximum(p + d - 1, 0).sum() + np.maximum(e - 1, 0).sum())
            unexplained += int(((p > 0) & (e == 0)).sum())
        return Account(
            records=sum(ends.values()),
            predicted=predicted,
            explained=explained,
            rejected=rejected,
            lost=lost,
            duplicated=duplicated,
            unexplained=unexplained,
        )

    def quality(self, threshold: float = 0.5) -> Quality | None:
        """None while too little is known."""
        on_time, late = self._scores
        known, all_late = int(self._scores.sum()), int(late.sum())
        if not 0 < all_late < known:
            return None
        step = math.ceil(threshold * score_steps)
        flagged, rightly = int(self._scores[:, step:].sum()), int(late[step:].sum())
        return Quality(
            known=known,
            auc=area_under_roc(late, on_time),
            flagged=flagged,
            precision=rightly / flagged if flagged else 0.0,
            recall=rightly / all_late,
        )


def area_under_roc(positive: NDArray[np.int64], negative: NDArray[np.int64]) -> float:
    """The chance that a positive scores above a negative (Mann and Whitney's U, ties count half); both are counts by ascending
    score."""
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / (positive.sum() * negative.sum()))
