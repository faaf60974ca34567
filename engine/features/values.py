"""What one value of a record is to a feature: a number, a category's code, missing, unseen or of a wrong type.

Whatever a row comes in by (a JSON record, an Avro record, a data frame, a dictionary), these rules decide, and they stand
nowhere else; the native Avro reader keeps the same ones, and a test holds all of them side by side.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.engine.features.policies import unseen_code
from penstock.engine.features.signature import Feature
from penstock.engine.features.texts import TextColumns, characters_max
from penstock.engine.features.times import is_time, time_number
from penstock.schemas.errors import RecordError
from penstock.schemas.reasons import Reason, Stage

numbers: Final[frozenset[type]] = frozenset({int, float, bool, Decimal, type(None)})
texts: Final[frozenset[type]] = frozenset({str, type(None)})
objects: Final[frozenset[type]] = frozenset({dict, type(None)})
lists: Final[frozenset[type]] = frozenset({list, type(None)})

_found_as_they_are: Final[frozenset[type]] = frozenset({str, int, float, type(None)})
_number: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[+-][0-9]+)?")
_nothing_names: Final = frozenset({"NAType", "NaTType"})  # pandas.NA and pandas.NaT, without importing pandas


@dataclass(frozen=True, kw_only=True, slots=True)
class Unreadable:
    """Stands in a parsed record for a value that can be no feature's, for instance the literal NaN in JSON."""

    detail: str
    """Why, to be read behind "field x holds "; quotes nothing of the record."""


class CategoryCodes:
    """The table of one category feature, found by whatever a record may hold in its place.

    A text is found by its name. A number is found where the table has names that are numbers (`7`, `0.5`, as a column of
    numbers becomes categories) and by its value: 7, 7.0 and Decimal("7.00") are one category. A boolean is found where the
    table has `True` or `False`, in whatever case. None and NaN are missing (NaN); everything else is `unseen_code`.
    """

    def __init__(self, feature: Feature) -> None:
        self.numbers = number_names(feature)
        self.booleans = boolean_names(feature)
        self.allowed = texts
        wanted = ["a string"]
        if self.numbers:
            self.allowed |= {int, float, Decimal}
            wanted.append("a number")
        if self.booleans:
            self.allowed |= {bool}
            wanted.append("a boolean")
        self.wanted = " or ".join(wanted)
        self._table = _Table({name: float(code) for code, name in enumerate(feature.categories)})
        self._table.update(self.numbers)
        self._table[None] = math.nan

    def codes(self, values: Sequence[Any]) -> list[float]:
        """The code of each; all are of an allowed type."""
        find = self._table.__getitem__
        if self.allowed is texts or _found_as_they_are.issuperset(map(type, values)):
            return [*map(find, values)]
        return [self._one(value) for value in values]

    def _one(self, value: Any) -> float:
        if type(value) is bool:
            return self.booleans.get(value, unseen_code)
        return self._table[as_float(value) if type(value) is Decimal else value]


class _Table(dict[Any, float]):
    def __missing__(self, value: Any) -> float:
        return math.nan if value != value else unseen_code


def number_names(feature: Feature) -> dict[int | float, float]:
    """The categories that are numbers, each with its code; of two that are equal, a whole one written as such counts."""
    found: dict[int | float, float] = {}
    written = [(code, name) for code, name in enumerate(feature.categories) if _number.fullmatch(name)]
    for code, name in written:
        if "." not in name and "e" not in name and len(name) <= 400 and str(int(name)) == name:
            found[int(name)] = float(code)
    for code, name in written:
        if repr(float(name)) == name:
            found.setdefault(float(name), float(code))
    return found


def boolean_names(feature: Feature) -> dict[bool, float]:
    """The categories that are booleans, as Python, JSON and SQL write them, each with its code."""
    found: dict[bool, float] = {}
    for code, name in enumerate(feature.categories):
        if name in ("True", "true", "TRUE"):
            found.setdefault(True, float(code))
        elif name in ("False", "false", "FALSE"):
            found.setdefault(False, float(code))
    return found


def plain(value: Any) -> Any:
    """A value of a library as the Python value that it stands for: a numpy scalar or array, a tuple, pandas.NA, a date or time
    (its number); NaN, where no number is wanted, is nothing."""
    if is_time(value):
        return None if type(value).__name__ in _nothing_names else time_number(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "mM":
        return [*map(time_number, value)] if value.ndim == 1 else value.tolist()
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, tuple):
        return list(value)
    is_nan = type(value) is float and value != value
    return None if is_nan or type(value).__name__ in _nothing_names else value


def of_type(
    values: Sequence[Any],
    allowed: frozenset[type],
    path: str,
    wanted: str,
    places: NDArray[np.int64],
    faults: dict[int, RecordError],
) -> Sequence[Any]:
    """The values, None where one is of another type: its record, at that place, has a fault then."""
    if allowed.issuperset(map(type, values)):
        return values
    kept = []
    for place, value in zip(places.tolist(), values, strict=True):
        if type(value) not in allowed:
            value = plain(value)
            if type(value) not in allowed:
                faults.setdefault(place, _fault(value, f"field {path}", wanted))
                value = None
        kept.append(value)
    return kept


def floats(values: Sequence[Any]) -> NDArray[np.float64]:
    """Numbers and None as float64; NaN is missing. What is past a double is an infinity, as its policy then says."""
    try:
        return np.array(values, dtype=np.float64)
    except (OverflowError, InvalidOperation, ValueError):
        return np.array([as_float(value) for value in values], dtype=np.float64)


def as_float(value: Any) -> float:
    """One number, or None, as a double."""
    try:
        return math.nan if value is None else float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except (InvalidOperation, ValueError):  # a signalling NaN
        return math.nan


def vectors(
    feature: Feature, values: Sequence[Any], places: NDArray[np.int64], faults: dict[int, RecordError]
) -> NDArray[np.float64]:
    """(R, width); a value of another length or of something else than numbers is a fault of its record."""
    wanted = f"an array of {feature.width} numbers"
    values = of_type(values, lists, feature.field, "an array", places, faults)
    out = np.full((len(values), feature.width), np.nan)
    for row, value in enumerate(values):
        if value is None:
            continue
        if not numbers.issuperset(map(type, value)):
            value = [*map(plain, value)]
        if len(value) == feature.width and numbers.issuperset(map(type, value)):
            out[row] = floats(value)
            continue
        bad = next((each for each in value if isinstance(each, Unreadable)), value)
        faults.setdefault(int(places[row]), _fault(bad, f"field {feature.field}", wanted))
    return out


def fill_texts(
    feature: Feature,
    columns: TextColumns,
    values: Sequence[Any],
    places: NDArray[np.int64],
    matrix: NDArray[Any],
    column: int,
    faults: dict[int, RecordError],
) -> None:
    """Write the columns of texts, from `column` on, into the rows at `places`; a missing text leaves NaN there, one that is no
    text or too long is a fault of its record."""
    values = of_type(values, texts, feature.field, "a text", places, faults)
    kept, rows = [], []
    for place, value in zip(places.tolist(), values, strict=True):
        if value is None:
            if feature.instead is None or place in faults:
                continue
            value = feature.instead
        if len(value) > characters_max:
            faults.setdefault(place, _too_long(feature, len(value)))
            continue
        kept.append(value)
        rows.append(place)
    columns.fill(kept, np.array(rows, dtype=np.int64), matrix, column)


def _too_long(feature: Feature, characters: int) -> RecordError:
    detail = f"field {feature.field} is a text of {characters} characters, and {characters_max} are the most that are read"
    return RecordError(stage=Stage.VALIDATE, reason=Reason.LIMIT_EXCEEDED, detail=detail)


def wrong_type(what: str, wanted: str) -> RecordError:
    """The fault of a value of another type than the feature wants; `what` names the place, never the value."""
    return RecordError(stage=Stage.VALIDATE, reason=Reason.WRONG_TYPE, detail=f"{what} is not {wanted}")


def _fault(value: Any, what: str, wanted: str) -> RecordError:
    if isinstance(value, Unreadable):
        detail = f"{what} holds {value.detail}"
        return RecordError(stage=Stage.DECODE, reason=Reason.CORRUPT, detail=detail)
    return wrong_type(what, wanted)
