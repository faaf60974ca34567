"""Explaining the chosen rows of a batch: within the time that the settings allow, and around rows that fail."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.engine.clock import Clock
from penstock.engine.ports import Attributions, Explainer, Predictions
from penstock.schemas.errors import ModelError

Part = tuple[NDArray[np.int64], Attributions]

_first_rows = 1
_growth_max = 64
"""How many times more rows than so far the next piece may have: what one row takes says little of a thousand."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Explained:
    """What became of the chosen rows; every one of them is in exactly one of the three."""

    parts: tuple[
        Part, ...
    ]  # (p,) places of rows, and their attributions: one, or with `all` outputs several a row
    failed: NDArray[np.int64]  # places of rows that the explainer throws on, alone
    skipped: NDArray[np.int64]  # places that the budget left no time for


def explain_within(
    explainer: Explainer,
    matrix: NDArray[np.generic],
    predictions: Predictions,
    places: NDArray[np.int64],
    *,
    budget_s: float | None,
    clock: Clock,
) -> Explained:
    """Explain the rows matrix[places], in the order of `places`, until the budget is spent.

    Without a budget that is one call of the explainer. With one, pieces of the places are explained, each as long as the
    time so far says still fits; the first row is always explained, so that a budget too small for anything shows itself
    as few explanations and not as none. What one piece takes longer than foreseen is the most that is overrun.
    """
    parts: list[Part] = []
    failed: list[int] = []
    done = 0
    if budget_s is None:
        _explain_around_failures(explainer, matrix, predictions, places, parts, failed)
        done = len(places)
    else:
        began_s = clock.monotonic_s()
        count = _first_rows
        while done < len(places) and count > 0:
            piece = places[done : done + count]
            _explain_around_failures(explainer, matrix, predictions, piece, parts, failed)
            done += len(piece)
            spent_s = clock.monotonic_s() - began_s
            fitting = (budget_s - spent_s) * done / spent_s if spent_s > 0 else len(places)
            count = int(min(max(fitting, 0), done * _growth_max))
    return Explained(
        parts=tuple(parts), failed=np.array(failed, dtype=np.int64), skipped=np.sort(places[done:])
    )


def _explain_around_failures(
    explainer: Explainer,
    matrix: NDArray[np.generic],
    predictions: Predictions,
    places: NDArray[np.int64],
    parts: list[Part],
    failed: list[int],
) -> None:
    """One call, or where that throws, halves of the places until the rows at fault stand alone."""
    if len(places) == 0:
        return
    try:
        if len(places) == len(matrix) and (places[1:] > places[:-1]).all():
            parts.append((places, explainer.explain(matrix, predictions)))
        else:
            parts.append((places, explainer.explain(matrix[places], predictions.take(places))))
    except ModelError:
        if len(places) == 1:
            failed.append(int(places[0]))
            return
        middle = len(places) // 2
        _explain_around_failures(explainer, matrix, predictions, places[:middle], parts, failed)
        _explain_around_failures(explainer, matrix, predictions, places[middle:], parts, failed)
