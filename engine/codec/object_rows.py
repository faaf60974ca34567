"""Records as nested Python objects to matrix rows: column by column, so that a field costs no Python of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from operator import itemgetter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.engine.features.policies import unseen_code
from penstock.engine.features.signature import Feature, Signature
from penstock.schemas.errors import RecordError
from penstock.schemas.reasons import Reason, Stage

_nothing: Final[dict[str, Any]] = {}
_numbers: Final[frozenset[type]] = frozenset({int, float, bool, Decimal, type(None)})
_texts: Final[frozenset[type]] = frozenset({str, type(None)})
_texts_or_whole: Final[frozenset[type]] = _texts | {int}
_objects: Final[frozenset[type]] = frozenset({dict, type(None)})
_lists: Final[frozenset[type]] = frozenset({list, type(None)})


@dataclass(frozen=True, kw_only=True, slots=True)
class _Object:
    """An object of the record, and what is taken from it."""

    path: str  # "" is the record itself
    members: list[str] = field(default_factory=list)  # names of features' fields and of inner objects
    features: list[tuple[Feature, int]] = field(default_factory=list)  # each with its first matrix column
    inner: list["_Object"] = field(default_factory=list)


class ObjectRows:
    """Takes the fields of a signature from dictionaries.

    A field is found by its dotted path through nested objects; null and absent are missing (NaN). Numbers and booleans are
    numbers, strings (or whole numbers, where the table holds such) are categories, arrays of numbers are vectors of exactly the feature's width.
    """

    def __init__(self, signature: Signature) -> None:
        self._root = _plan(signature)
        self._codes = {
            feature.name: _Codes(feature) for feature in signature.features if feature.kind == "category"
        }

    def fill(
        self,
        objects: Sequence[dict[str, Any]],
        places: NDArray[np.int64],
        matrix: NDArray[np.generic],
        faults: dict[int, RecordError],
    ) -> None:
        """Write object i to row places[i] of the matrix, which holds NaN there; of a wrong type, to `faults` by that place."""
        with np.errstate(
            over="ignore"
        ):  # a double past float32 becomes an infinity, which has its own policy
            self._read_object(self._root, objects, places, matrix, faults)

    def _read_object(
        self,
        plan: _Object,
        objects: Sequence[dict[str, Any]],
        places: NDArray[np.int64],
        matrix: NDArray[np.generic],
        faults: dict[int, RecordError],
    ) -> None:
        if not objects:
            return
        columns = _members(plan.members, objects)
        for (feature, column), values in zip(plan.features, columns, strict=False):
            if feature.kind == "vector":
                numbers: Any = _vectors(feature, values, places, faults)
                matrix[places, column : column + feature.width] = numbers
            elif feature.kind == "category":
                allowed = _texts_or_whole if feature.whole_numbers else _texts
                wanted = "a string or a whole number" if feature.whole_numbers else "a string"
                values = _typed(values, allowed, feature.field, wanted, places, faults)
                matrix[places, column] = [*map(self._codes[feature.name].__getitem__, values)]
            else:
                values = _typed(values, _numbers, feature.field, "a number", places, faults)
                matrix[places, column] = np.array(values, dtype=np.float64)
        for inner, values in zip(plan.inner, columns[len(plan.features) :], strict=True):
            values = _typed(values, _objects, inner.path, "an object", places, faults)
            self._read_object(inner, [value or _nothing for value in values], places, matrix, faults)


class _Codes(dict[str | int | None, float]):
    """A category table; what is not in it is `unseen_code`, and None is missing. A whole number is found by its digits."""

    def __init__(self, feature: Feature) -> None:
        super().__init__({name: float(code) for code, name in enumerate(feature.categories)})
        if feature.whole_numbers:
            self.update({int(name): float(code) for code, name in enumerate(feature.categories)})
        self[None] = float("nan")

    def __missing__(self, name: str | int | None) -> float:
        return unseen_code


def _plan(signature: Signature) -> _Object:
    objects = {"": _Object(path="")}

    def at(path: str) -> _Object:
        if path not in objects:
            objects[path] = _Object(path=path)
            at(path.rpartition(".")[0]).inner.append(objects[path])
        return objects[path]

    column = 0
    for feature in signature.features:
        at(feature.field.rpartition(".")[0]).features.append((feature, column))
        column += feature.width
    for plan in objects.values():
        plan.members.extend(feature.field.rpartition(".")[2] for feature, _ in plan.features)
        plan.members.extend(inner.path.rpartition(".")[2] for inner in plan.inner)
    return objects[""]


def _members(names: Sequence[str], objects: Sequence[dict[str, Any]]) -> Sequence[Sequence[Any]]:
    """The values of each name over all objects; None where absent."""
    take: Callable[[dict[str, Any]], Any] = itemgetter(*names)
    try:
        found = [*map(take, objects)]
    except KeyError:  # some name is absent somewhere
        return [[each.get(name) for each in objects] for name in names]
    return [found] if len(names) == 1 else [*zip(*found, strict=True)]


def _typed(
    values: Sequence[Any],
    allowed: frozenset[type],
    path: str,
    wanted: str,
    places: NDArray[np.int64],
    faults: dict[int, RecordError],
) -> Sequence[Any]:
    """The values, None where one is of another type: its record has a fault then."""
    if allowed.issuperset(map(type, values)):
        return values
    kept = []
    for place, value in zip(places.tolist(), values, strict=True):
        if type(value) not in allowed:
            faults.setdefault(place, wrong_type(f"field {path}", wanted))
            value = None
        kept.append(value)
    return kept


def _vectors(
    feature: Feature, values: Sequence[Any], places: NDArray[np.int64], faults: dict[int, RecordError]
) -> NDArray[np.float64]:
    values = _typed(values, _lists, feature.field, "an array", places, faults)
    out = np.full((len(values), feature.width), np.nan)
    for row, value in enumerate(values):
        if value is None:
            continue
        if len(value) != feature.width or not _numbers.issuperset(map(type, value)):
            faults.setdefault(
                int(places[row]),
                wrong_type(f"field {feature.field}", f"an array of {feature.width} numbers"),
            )
            continue
        out[row] = value
    return out


def wrong_type(what: str, wanted: str) -> RecordError:
    """The fault of a value of another type than the feature wants; `what` names the place, never the value."""
    return RecordError(stage=Stage.VALIDATE, reason=Reason.WRONG_TYPE, detail=f"{what} is not {wanted}")


def without_faults(
    matrix: NDArray[np.generic], faults: dict[int, RecordError]
) -> tuple[NDArray[np.generic], NDArray[np.int64], list[tuple[int, RecordError]]]:
    """The rows without a fault, their places, and the faults by ascending place."""
    if not faults:
        return matrix, np.arange(len(matrix), dtype=np.int64), []
    good = np.ones(len(matrix), dtype=np.bool_)
    good[list(faults)] = False
    return matrix[good], np.flatnonzero(good), sorted(faults.items())
