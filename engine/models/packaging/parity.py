"""Whether the packaged model predicts what the original predicts, and how far they differ."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.engine.models.packaging.convert import Converted
from penstock.engine.ports import Model, Predictions
from penstock.schemas.errors import PenstockError

tolerance_default = 1e-5


class ParityError(PenstockError):
    """The packaged model does not predict what the original predicts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """What was compared, and what came of it."""

    rows_given: int
    rows_made_up: int
    difference_max: float
    """Largest difference of any score, relative to the score where that is above 1."""
    labels_different: int
    """Rows that get another class although their scores are not a tie within the tolerance."""
    tolerance: float
    rows_narrowed: int
    """Given rows that the original itself scores differently once their numbers are rounded to the bundle's type."""


def prove_parity(
    converted: Converted,
    model: Model,
    *,
    given: NDArray[np.float64],
    made_up: NDArray[np.float64],
    tolerance: float,
) -> Parity:
    """Compare original and packaged model on matrix rows (R, F). Raises ParityError when they differ by more."""
    dtype = converted.signature.dtype
    rows = np.concatenate((given, made_up)).astype(dtype)
    original = converted.score(rows.astype(np.float64))
    found = model.predict(rows)
    difference = np.zeros(len(rows))
    for name, expected in original.items():
        difference = np.maximum(difference, relative_difference(expected, found.outputs[name]).max(axis=1))
    worst = int(difference.argmax())
    labels = 0 if found.labels is None else _other_labels(converted, original, rows, found, tolerance)
    if difference[worst] > tolerance:
        raise ParityError(
            f"the packaged model differs from the original by {difference[worst]:.3g} on row {worst} of {len(rows)} "
            f"(allowed: {tolerance:g})"
        )
    if labels:
        raise ParityError(
            f"the packaged model gives another class than the original on {labels} of {len(rows)} rows"
        )
    return Parity(
        rows_given=len(given),
        rows_made_up=len(made_up),
        difference_max=float(difference[worst]),
        labels_different=labels,
        tolerance=tolerance,
        rows_narrowed=_narrowed(converted, given, tolerance),
    )


def relative_difference(expected: NDArray[np.float64], found: NDArray[np.float64]) -> NDArray[np.float64]:
    """Element by element, relative to what was expected where that is above 1; infinity where one alone is NaN."""
    with np.errstate(invalid="ignore"):
        difference = np.abs(expected - found) / np.maximum(1.0, np.abs(expected))
    same = (expected == found) | (np.isnan(expected) & np.isnan(found))
    return np.where(same, 0.0, np.where(np.isnan(difference), np.inf, difference))


def other_labels(expected: Predictions, found: Predictions, tolerance: float) -> int:
    """Rows with another class in `found`, ties within the tolerance left out."""
    if expected.labels is None or found.labels is None:
        return 0
    other = np.asarray(expected.labels != found.labels)
    wide = len(expected.classes)
    scores = next((each for each in expected.outputs.values() if each.shape[1] == wide), None)
    if scores is not None:
        places = np.arange(len(other))
        apart = relative_difference(scores[places, expected.labels], scores[places, found.labels])
        other &= apart > tolerance
    return int(other.sum())


def _other_labels(
    converted: Converted,
    original: Mapping[str, NDArray[np.float64]],
    rows: NDArray[np.generic],
    found: Predictions,
    tolerance: float,
) -> int:
    """Rows with another class than the original's, ties within the tolerance left out."""
    classes = len(found.classes)
    # Where the original keeps its scores to itself, the packaged model's tell how close a call it was.
    scores = next(
        (each for each in (*original.values(), *found.outputs.values()) if each.shape[1] == classes), None
    )
    if converted.score_labels is not None:
        expected = converted.score_labels(rows.astype(np.float64))
    elif scores is not None:
        expected = scores.argmax(axis=1)
    else:
        return 0
    other = np.asarray(expected != found.labels)
    if scores is not None:
        places = np.arange(len(rows))
        other &= relative_difference(scores[places, expected], scores[places, found.labels]) > tolerance
    return int(other.sum())


def _narrowed(converted: Converted, given: NDArray[np.float64], tolerance: float) -> int:
    if not len(given) or converted.signature.dtype == np.float64:
        return 0
    wide, narrow = converted.score(given), converted.score(given.astype(np.float32).astype(np.float64))
    moved = np.zeros(len(given), dtype=np.bool_)
    for name, expected in wide.items():
        moved |= (relative_difference(expected, narrow[name]) > tolerance).any(axis=1)
    return int(moved.sum())
