"""A few records of a batch now and then, with all that was computed of them anyway: what the pages show."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from penstock.engine.clock import Clock
from penstock.engine.explain.budget import Explained
from penstock.engine.ports import Attributions, Predictions
from penstock.schemas.records import Records, Rejection, no_headers, none_at_all

sample_every_s = 0.25
predicted_max, rejected_max = 4, 1
cells_max = 256
"""Numbers of all predicted records of a sample together: of a wide model one record is taken."""
counted_rows_max = 256
"""Rows of a batch that the strengths and the scores are counted over."""
paired_cells_max = 1 << 14
"""Numbers of a batch that are kept beside their attributions."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OneExplained:
    """One record's attributions."""

    values: NDArray[np.float64]  # (F,)
    base: float
    output_index: int
    output_name: str
    additivity_error: float
    method: str
    space: str
    background: str | None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pairs:
    """What the model was given of R rows, and what each number of it did to the output."""

    values: NDArray[np.generic]  # (R, F)
    attributions: NDArray[np.float64]  # (R, F): of the predicted class where there are several
    outputs: NDArray[np.int64]  # (R,) which output each is of


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sample:
    """S records of one batch, copied out of it, and what was counted over more of its rows."""

    records: Records  # S
    matrix: NDArray[
        np.generic
    ]  # (P, F): of the first P records, which were predicted; the others were rejected
    predictions: Predictions | None  # (P,)
    explained: Mapping[int, OneExplained]  # by place among the P
    rejections: tuple[Rejection, ...]  # of the other S - P, in order
    strengths: NDArray[np.float64] | None  # (F,) sums of |attribution| over `strength_rows` rows
    strength_rows: int
    scores: NDArray[np.float64]  # last number of the first output, of up to `counted_rows_max` rows
    pairs: Pairs | None = None  # of up to `counted_rows_max` explained rows


class Sampler:
    """Takes a sample of a batch at most every `sample_every_s`, whatever the rate is. Compute thread only.

    Costs nothing in between but a look at the clock, and then a copy of a few rows.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due_s = clock.monotonic_s()

    def take(
        self,
        *,
        records: Records,
        rows: NDArray[np.int64],
        matrix: NDArray[np.generic],
        predictions: Predictions | None,
        failed: set[int],
        explained: Explained | None,
        rejections: list[Rejection],
    ) -> Sample | None:
        """`rows[p]`: which record the place p of the columns is; `failed`: places that were rejected all the same."""
        now_s = self._clock.monotonic_s()
        if now_s < self._due_s or not len(records):
            return None
        self._due_s = now_s + sample_every_s
        places = _newest(rows, matrix, predictions, failed, explained)
        rejected = sorted(rejections, key=lambda rejection: rejection.index)[-rejected_max:]
        indices = np.array([*rows[places].tolist(), *(each.index for each in rejected)], dtype=np.int64)
        strengths, strength_rows = _strengths(explained)
        return Sample(
            # Without the headers, which would keep the whole batch in memory.
            records=replace(records.take(indices), headers=no_headers, any_headers=none_at_all),
            matrix=matrix[places],
            predictions=None if predictions is None else predictions.take(places),
            explained=explanations_of(explained, predictions, places),
            rejections=tuple(rejected),
            strengths=strengths,
            strength_rows=strength_rows,
            scores=_scores(predictions),
            pairs=_pairs(matrix, predictions, explained),
        )


def _newest(
    rows: NDArray[np.int64],
    matrix: NDArray[np.generic],
    predictions: Predictions | None,
    failed: set[int],
    explained: Explained | None,
) -> NDArray[np.int64]:
    """Places of the last few that came through, those with an explanation before others; ascending."""
    if predictions is None or not len(rows):
        return np.empty(0, dtype=np.int64)
    wanted = int(np.clip(cells_max // max(matrix.shape[1], 1), 1, predicted_max))
    found: list[int] = []
    parts = () if explained is None else explained.parts
    for candidates in (*(places for places, _ in reversed(parts)), np.arange(len(rows))):
        for place in candidates[::-1][: wanted + len(failed)].tolist():
            if len(found) < wanted and place not in failed and place not in found:
                found.append(place)
    return np.array(sorted(found), dtype=np.int64)


def explanations_of(
    explained: Explained | None, predictions: Predictions | None, places: NDArray[np.int64]
) -> Mapping[int, OneExplained]:
    """What was explained of these places, by their number in `places`: with several outputs a row, the predicted class's."""
    if explained is None:
        return {}
    found: dict[int, OneExplained] = {}
    for part, attributions in explained.parts:
        each = len(attributions.base) // len(part) if len(part) else 1
        for at, place in enumerate(places.tolist()):
            where = np.flatnonzero(part == place)
            if len(where):
                row = int(where[0]) * each
                if each > 1 and predictions is not None and predictions.labels is not None:
                    row += min(int(predictions.labels[place]), each - 1)
                found[at] = _one(attributions, row)
    return found


def _one(attributions: Attributions, row: int) -> OneExplained:
    return OneExplained(
        values=attributions.values[row].copy(),
        base=float(attributions.base[row]),
        output_index=int(attributions.output_index[row]),
        output_name=attributions.output_name,
        additivity_error=float(attributions.additivity_error[row]),
        method=attributions.method,
        space=attributions.space,
        background=attributions.background,
    )


def _strengths(explained: Explained | None) -> tuple[NDArray[np.float64] | None, int]:
    if explained is None or not explained.parts:
        return None, 0
    values = explained.parts[-1][1].values[-counted_rows_max:]
    sums = np.abs(values).sum(axis=0)
    return (sums, len(values)) if np.isfinite(sums).all() else (None, 0)


def _pairs(
    matrix: NDArray[np.generic], predictions: Predictions | None, explained: Explained | None
) -> Pairs | None:
    if explained is None or not explained.parts or not matrix.shape[1]:
        return None
    part, found = explained.parts[-1]
    rows = int(np.clip(paired_cells_max // matrix.shape[1], 1, counted_rows_max))
    places = part[-rows:]
    each = len(found.base) // len(part) if len(part) else 1
    chosen = np.arange(len(part))[-rows:] * each
    if each > 1 and predictions is not None and predictions.labels is not None:
        chosen += np.minimum(predictions.labels[places], each - 1)
    return Pairs(values=matrix[places], attributions=found.values[chosen], outputs=found.output_index[chosen])


def _scores(predictions: Predictions | None) -> NDArray[np.float64]:
    if predictions is None or not predictions.outputs:
        return np.empty(0)
    first = next(iter(predictions.outputs.values()))
    return first[-counted_rows_max:, -1].copy()
