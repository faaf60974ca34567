"""Records as nested Python objects to matrix rows: column by column, so that a field costs no Python of its own."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.engine.features.signature import Feature, Signature
from penstock.engine.features.texts import TextColumns
from penstock.engine.features.values import (
    CategoryCodes,
    fill_texts,
    floats,
    numbers,
    objects,
    of_type,
    vectors,
)
from penstock.schemas.errors import RecordError
from penstock.schemas.reasons import Reason, Stage

plans_max: Final = 64
"""Kept at once: one for each set of dotted names that records hold flat."""

_nothing: Final[dict[str, Any]] = {}
_envelopes: Final = (
    (
        {"schema", "payload"},
        "it looks like Kafka Connect's envelope: let the producer's converter write schemas.enable=false, or name fields payload.x",
    ),
    ({"before", "after", "op"}, "it looks like Debezium's envelope: name the features' fields after.x"),
)
"""Names that a foreign record has together, and what to do then."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Object:
    """An object of the record, and what is taken from it."""

    path: str  # "" is the record itself
    members: list[str] = field(default_factory=list)  # names of features' fields and of inner objects
    features: list[tuple[Feature, int]] = field(default_factory=list)  # each with its first matrix column
    inner: list["_Object"] = field(default_factory=list)


class ObjectRows:
    """Takes the fields of a signature from dictionaries.

    A field is the record's member of exactly that name, else what its dotted path leads to; null and absent are missing
    (NaN). What a value is, penstock.engine.features.values says; arrays of numbers are vectors of exactly the feature's width.
    """

    def __init__(self, signature: Signature, *, refuses_empty: bool = True) -> None:
        """`refuses_empty`: a record that holds no feature's field, not even as null, is a fault (NO_FEATURES)."""
        self._signature = signature
        self._refuses_empty = refuses_empty
        self._exact = frozenset(name for each in signature.features if (name := each.exact_name) is not None)
        self._plans: OrderedDict[frozenset[str], _Object] = OrderedDict()
        self._codes = {
            feature.name: CategoryCodes(feature)
            for feature in signature.features
            if feature.kind == "category"
        }
        self._texts = {
            feature.name: TextColumns(feature.parts)
            for feature in signature.features
            if feature.kind == "text"
        }

    def fill(
        self,
        records: Sequence[dict[str, Any]],
        places: NDArray[np.int64],
        matrix: NDArray[np.generic],
        faults: dict[int, RecordError],
    ) -> None:
        """Write record i to row places[i] of the matrix, which holds NaN there; of a wrong type, to `faults` by that place."""
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # a double past float32 becomes an infinity, which has its own policy
            for flat, rows in self._by_flat_names(records):
                some = records if rows is None else [records[row] for row in rows]
                where = places if rows is None else places[rows]
                plan = self._plan(flat)
                self._read_object(plan, some, where, matrix, faults)
                if self._refuses_empty:
                    _refuse_empty(plan, some, where, matrix, faults)

    def _by_flat_names(
        self, records: Sequence[dict[str, Any]]
    ) -> list[tuple[frozenset[str], list[int] | None]]:
        """The dotted names that records hold as they are, and the rows of those records; None: all."""
        if not self._exact or all(map(self._exact.isdisjoint, records)):
            return [(frozenset(), None)]
        groups: dict[frozenset[str], list[int]] = {}
        for row, record in enumerate(records):
            groups.setdefault(self._exact.intersection(record), []).append(row)
        return [(flat, rows if len(groups) > 1 else None) for flat, rows in groups.items()]

    def _plan(self, flat: frozenset[str]) -> _Object:
        plan = self._plans.get(flat)
        if plan is None:
            plan = self._plans[flat] = _plan(self._signature, flat)
            if len(self._plans) > plans_max:
                self._plans.popitem(last=False)
        return plan

    def _read_object(
        self,
        plan: _Object,
        records: Sequence[dict[str, Any]],
        places: NDArray[np.int64],
        matrix: NDArray[np.generic],
        faults: dict[int, RecordError],
    ) -> None:
        if not records:
            return
        columns = _members(plan.members, records)
        for (feature, column), values in zip(plan.features, columns, strict=False):
            if feature.kind == "vector":
                vector: Any = vectors(feature, values, places, faults)
                matrix[places, column : column + feature.width] = vector
            elif feature.kind == "text":
                fill_texts(feature, self._texts[feature.name], values, places, matrix, column, faults)
            elif feature.kind == "category":
                codes = self._codes[feature.name]
                values = of_type(values, codes.allowed, feature.field, codes.wanted, places, faults)
                matrix[places, column] = codes.codes(values)
            else:
                values = of_type(values, numbers, feature.field, "a number", places, faults)
                matrix[places, column] = floats(values)
        for inner, values in zip(plan.inner, columns[len(plan.features) :], strict=True):
            values = of_type(values, objects, inner.path, "an object", places, faults)
            self._read_object(inner, [value or _nothing for value in values], places, matrix, faults)


def _plan(signature: Signature, flat: frozenset[str]) -> _Object:
    """What is taken from where, in records that hold these dotted names as they are."""
    found: dict[tuple[str, ...], _Object] = {(): _Object(path="")}
    inner_names: dict[tuple[str, ...], list[str]] = {(): []}
    column = 0
    for feature in signature.features:
        path = (feature.field,) if feature.exact_name in flat else feature.path
        for depth in range(
            1, len(path)
        ):  # no function that calls itself by name: only the collector would free it
            place, outer = path[:depth], path[: depth - 1]
            if place not in found:
                found[place] = _Object(path=".".join(place))
                found[outer].inner.append(found[place])
                inner_names[outer].append(place[-1])
                inner_names[place] = []
        holder = found[path[:-1]]
        holder.features.append((feature, column))
        holder.members.append(path[-1])
        column += feature.width
    for place, each in found.items():
        each.members.extend(inner_names[place])
    return found[()]


def _members(names: Sequence[str], records: Sequence[Mapping[str, Any]]) -> Sequence[Sequence[Any]]:
    """The values of each name over all records; None where absent."""
    take: Callable[[Mapping[str, Any]], Any] = itemgetter(*names)
    try:
        found = [*map(take, records)]
    except KeyError:  # some name is absent somewhere
        return [[each.get(name) for each in records] for name in names]
    return [found] if len(names) == 1 else [*zip(*found, strict=True)]


def _refuse_empty(
    plan: _Object,
    records: Sequence[dict[str, Any]],
    places: NDArray[np.int64],
    matrix: NDArray[np.generic],
    faults: dict[int, RecordError],
) -> None:
    """A fault for each record in which no feature has a field: it is of another kind, and a result would rest on nothing."""
    candidates = np.flatnonzero(np.isnan(matrix[places, 0]))  # of most records the first feature is there
    if len(candidates):
        candidates = candidates[np.isnan(matrix[places[candidates]]).all(axis=1)]
    for row in candidates.tolist():
        if not _holds_any(plan, records[row]):
            faults.setdefault(int(places[row]), no_features(records[row]))


def _holds_any(plan: _Object, record: Mapping[str, Any]) -> bool:
    if any(name in record for name in plan.members[: len(plan.features)]):
        return True
    inner = zip(plan.inner, plan.members[len(plan.features) :], strict=True)
    return any(
        isinstance(found := record.get(name), dict) and _holds_any(each, found) for each, name in inner
    )


def no_features(record: Mapping[str, Any] | None = None) -> RecordError:
    """The fault of a record that holds no feature's field; `record` lets it say what the record looks like."""
    detail = "the record has none of the model's fields"
    for names, hint in _envelopes:
        if record is not None and names <= record.keys():
            detail += f"; {hint}"
    return RecordError(stage=Stage.VALIDATE, reason=Reason.NO_FEATURES, detail=detail)


def without_faults(
    matrix: NDArray[np.generic], faults: dict[int, RecordError]
) -> tuple[NDArray[np.generic], NDArray[np.int64], list[tuple[int, RecordError]]]:
    """The rows without a fault, their places, and the faults by ascending place."""
    if not faults:
        return matrix, np.arange(len(matrix), dtype=np.int64), []
    good = np.ones(len(matrix), dtype=np.bool_)
    good[list(faults)] = False
    return matrix[good], np.flatnonzero(good), sorted(faults.items())
