"""Whether the packaged model predicts what the original predicts, and how far they differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.engine.features.narrowing import as_fed
from penstock.engine.models.packaging.answered import answered
from penstock.engine.models.packaging.converted import Converted
from penstock.engine.ports import Model, Predictions
from penstock.schemas.errors import PenstockError

tolerance_default = 1e-5
shown_values_max = 8
_changes_tried = 8
_change = 1e-15
_waver_factor = 16.0
"""A row counts as decided by rounding where it differs by no more than so many times what the original differs from itself."""


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
    compared: Mapping[str, str]
    """What each output that was compared was compared with, by the output's name; classes as `labels`."""
    not_compared: tuple[str, ...]
    """Outputs of the packaged model that were compared with nothing of the original's."""
    differences: Mapping[str, float]
    """Largest difference of each output that was compared, by its name, relative as `difference_max` is."""
    rows_as_given: int = 0
    """Rows given that the original was asked about in the very data frame, each column in its type."""
    notes: tuple[str, ...] = ()
    """What a person should know, a sentence each."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Expected:
    """What the original is said to answer: rows (R, F) in float64, and answers (R, K) by the name of the output."""

    rows: NDArray[np.float64]
    outputs: Mapping[str, NDArray[np.float64]]
    origin: str
    labels: NDArray[np.int64] | None = None
    """Class numbers (R,)."""
    precision: float = 0.0
    """Differences up to this are allowed whatever the tolerance."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AsGiven:
    """A data frame that somebody gave, and what the stream makes of it."""

    table: Any
    rows: NDArray[np.float64]
    """(R, F), policies applied."""
    places: NDArray[np.int64]
    """(R,) which rows of the table they are."""
    unchanged: NDArray[np.bool_]
    """(R,) no policy replaced a value."""


def prove_parity(
    converted: Converted,
    model: Model,
    *,
    given: NDArray[np.float64],
    made_up: NDArray[np.float64],
    tolerance: float,
    expected: Sequence[Expected] = (),
    tables: Sequence[AsGiven] = (),
) -> Parity:
    """Compare original and packaged model on rows (R, F) as records hold them: doubles, policies applied.

    The original gets the rows as they are, the packaged model what the stream would make of them. Raises ParityError when
    they differ by more than the tolerance. Of `tables` it gets the data frames themselves, whose types it may compute with.
    """
    rows = np.concatenate((given, made_up))
    original = converted.score(rows)
    fed = as_fed(rows, converted.signature)
    found = model.predict(fed)
    apart = {
        name: relative_difference(answers, found.outputs[name]).max(axis=1, initial=0.0)
        for name, answers in original.items()
    }
    wavering = _wavering(converted, original, apart, rows, tolerance)
    of_made_up = np.arange(len(rows)) >= len(given)
    worst = _Worst()
    for name, differences in apart.items():
        worst.take(name, np.where(wavering & of_made_up, 0.0, differences))
    if worst.difference > tolerance:
        why = converted.decided_by_rounding
        if wavering[worst.row]:
            why = (
                "the original itself answers that much otherwise by which of equally near rows of training it takes, or when its "
                "numbers change by one part in 10^15, so that rounding decides: scale the features, or leave out those that say the same"
            )
        raise ParityError(
            f"output {worst.output} of the packaged model differs from the original's by {worst.difference:.3g} on "
            f"{_row(worst.row, rows, len(given), converted)} (allowed: {tolerance:g}){'; ' if why else ''}{why}"
        )
    notes: list[str] = []
    if wavering.any():
        notes.append(
            f"on {int(wavering.sum())} of {len(made_up)} rows made up the original answers otherwise by which of equally near rows of "
            "training it takes, or when its numbers change by one part in 10^15, so that rounding decides: there the bundle may answer "
            "otherwise as well"
        )
        rows, fed = rows[~wavering], fed[~wavering]
        original = {name: answers[~wavering] for name, answers in original.items()}
        found = model.predict(fed)
    labels = 0
    if found.labels is not None and len(rows):
        labels = _other_labels(converted, original, rows, found, tolerance)
    if labels:
        raise ParityError(
            f"the packaged model gives another class than the original on {labels} of {len(rows)} rows, at the same scores: "
            "its predict does not choose the highest one; package what it is made of, and choose where the predictions are read"
        )
    compared = {
        name: converted.compared_by.get(name, converted.compared_with)
        for name in original
        if not converted.is_its_own_original
    }
    if converted.score_labels is not None and not converted.is_its_own_original:
        compared["labels"] = "predict"
    for each in expected:
        worst.join(_as_expected(converted, model, each, tolerance))
        names = (*each.outputs, *(() if each.labels is None else ("labels",)))
        compared |= {
            name: f"{compared[name]} and {each.origin}"
            if name in compared
            else f"the answers in {each.origin}"
            for name in names
        }
    asked = 0
    for table in tables if converted.score_table is not None else ():
        found_worst, note = _on_table(converted, model, table, tolerance)
        worst.join(found_worst)
        asked += 0 if note else int(table.unchanged.sum())
        notes += [note] if note and note not in notes else []
    return Parity(
        rows_given=len(given),
        rows_made_up=len(made_up),
        difference_max=worst.difference,
        labels_different=labels,
        tolerance=tolerance,
        compared=compared,
        not_compared=tuple(each.name for each in converted.outputs if each.name not in compared),
        differences={name: apart for name, apart in worst.by_output.items() if name in compared},
        rows_as_given=asked,
        notes=tuple(notes),
    )


def _wavering(
    converted: Converted,
    original: Mapping[str, NDArray[np.float64]],
    apart: Mapping[str, NDArray[np.float64]],
    rows: NDArray[np.float64],
    tolerance: float,
) -> NDArray[np.bool_]:
    """Rows (R,) that differ, and on which the original differs about as much from itself when its numbers change by one part in
    10^15: answers that rounding decides, as ties between neighbours and differences of large numbers are. Ties that no change
    of the row parts are known of the model."""
    wavering = np.zeros(len(rows), dtype=np.bool_)
    places = np.flatnonzero(np.max([each > tolerance for each in apart.values()], axis=0, initial=False))
    if not len(places) or converted.is_its_own_original:
        return wavering
    random = np.random.default_rng(0)
    numbers = [feature.kind != "category" for feature in converted.signature.column_features]
    itself = {name: np.zeros(len(places)) for name in original}
    for _ in range(_changes_tried):
        changed = rows[places]
        signs = np.where(random.random(changed.shape) < 0.5, -_change, _change)
        changed[:, numbers] *= 1.0 + signs[:, numbers]
        if not answered(converted.score, changed).all():
            continue
        for name, answers in converted.score(changed).items():
            moved = relative_difference(original[name][places], answers).max(axis=1, initial=0.0)
            itself[name] = np.maximum(itself[name], moved)
    alike = [apart[name][places] <= np.maximum(_waver_factor * itself[name], tolerance) for name in original]
    wavering[places] = np.all(alike, axis=0)
    if converted.undecided is not None:
        wavering[places] |= converted.undecided(rows[places])
    return wavering


@dataclass(slots=True)
class _Worst:
    """The largest difference so far."""

    difference: float = 0.0
    row: int = 0
    output: str = ""
    by_output: dict[str, float] = field(default_factory=dict)

    def take(self, output: str, differences: NDArray[np.float64]) -> None:
        of_output = float(differences.max(initial=0.0))
        self.by_output[output] = max(of_output, self.by_output.get(output, 0.0))
        if len(differences) and differences.max() > self.difference:
            self.row = int(differences.argmax())
            self.difference, self.output = float(differences[self.row]), output

    def join(self, other: "_Worst") -> None:
        """Of two, the larger difference, and for each output too; the row stays."""
        self.difference = max(self.difference, other.difference)
        for output, difference in other.by_output.items():
            self.by_output[output] = max(difference, self.by_output.get(output, 0.0))


def _row(row: int, rows: NDArray[np.float64], given: int, converted: Converted) -> str:
    """Which row it is; of one made up, its values too."""
    if row < given:
        return f"row {row} of the {given} given"
    names: Sequence[str] = converted.signature.columns
    values = [f"{name}={value!r}" for name, value in zip(names, rows[row].tolist(), strict=True)]
    more = ", ..." if len(values) > shown_values_max else ""
    return f"a row made up: {', '.join(values[:shown_values_max])}{more}"


def _on_table(converted: Converted, model: Model, given: AsGiven, tolerance: float) -> tuple[_Worst, str]:
    """The largest difference from what the original answers to a data frame as it is, and a note where it answers nothing.

    Raises ParityError.
    """
    assert converted.score_table is not None
    places = given.places[given.unchanged]
    rows = given.rows[given.unchanged]
    if not len(places):
        return _Worst(), ""
    try:
        answers = converted.score_table(given.table.iloc[places])
    except (ValueError, TypeError, LookupError, RuntimeError, AttributeError, ArithmeticError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        return (
            _Worst(),
            f"the original answers nothing to the data frame itself, and was asked in double precision: {reason}",
        )
    found = model.predict(as_fed(rows, converted.signature))
    worst = _Worst()
    for name, wanted in answers.items():
        worst.take(name, relative_difference(wanted, found.outputs[name]).max(axis=1))
    if worst.difference > tolerance:
        kinds = sorted({str(kind) for kind in given.table.dtypes if str(kind) != "float64"})
        types = f", whose columns are of type {', '.join(kinds)} as well" if kinds else ""
        raise ParityError(
            f"output {worst.output} of the packaged model differs by {worst.difference:.3g} from what the original answers to "
            f"row {places[worst.row]} of the data frame as it was given{types} (allowed: {tolerance:g}): train it on numbers in "
            "float64, and texts as object"
        )
    return worst, ""


def _as_expected(converted: Converted, model: Model, expected: Expected, tolerance: float) -> _Worst:
    """The largest difference from what the original is said to answer. Raises ParityError."""
    found = model.predict(as_fed(expected.rows, converted.signature))
    worst = _Worst()
    for name, answers in expected.outputs.items():
        worst.take(name, relative_difference(answers, found.outputs[name]).max(axis=1))
    allowed = max(tolerance, expected.precision)
    if worst.difference > allowed:
        raise ParityError(
            f"output {worst.output} of the packaged model differs from {expected.origin} by {worst.difference:.3g} on "
            f"row {worst.row} of {len(expected.rows)} (allowed: {allowed:g})"
        )
    if expected.labels is not None and found.labels is not None and (expected.labels != found.labels).any():
        row = int(np.argmax(expected.labels != found.labels))
        raise ParityError(
            f"the packaged model gives class {found.classes[found.labels[row]]} where {expected.origin} says "
            f"{found.classes[expected.labels[row]]}, on row {row} of {len(expected.rows)}"
        )
    return worst


def relative_difference(expected: NDArray[np.float64], found: NDArray[np.float64]) -> NDArray[np.float64]:
    """Element by element, relative to what was expected where that is above 1; infinity where one alone is NaN. Raises ParityError
    where the original answers with more or fewer numbers a row."""
    if expected.shape != found.shape:
        raise ParityError(
            f"the original answers with numbers of shape {expected.shape}, the packaged model with {found.shape}"
        )
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
    rows: NDArray[np.float64],
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
        expected = converted.score_labels(rows)
    elif scores is not None:
        expected = scores.argmax(axis=1)
    else:
        return 0
    other = np.asarray(expected != found.labels)
    if scores is not None:
        places = np.arange(len(rows))
        other &= relative_difference(scores[places, expected], scores[places, found.labels]) > tolerance
    return int(other.sum())
