"""Tests of trees on columns that a pipeline makes, as tests on the features that the columns are made of.

Nothing is assumed of how a step rounds: the column is computed by the steps themselves, and where a test changes its answer
is found by bisection over the doubles of the feature.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.engine.models.packaging.sklearn.columns import Column, Input
from penstock.schemas.errors import ConfigError

_rows_at_once = 1 << 15
_end = float(np.finfo(np.float32).max)
"""Numbers past float32's range have a policy of their own and reach no model."""
_foreign_errors = (
    ValueError,
    TypeError,
    RuntimeError,
    AttributeError,
    KeyError,
    IndexError,
    ArithmeticError,
)

Apply = Callable[[Sequence[NDArray[Any] | None], int], Any]
"""What the steps make of so many rows, given an array of values for each feature (None: its usual value throughout)."""


class NotFoldedError(ConfigError):
    """The trees cannot be moved to the features; says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Test:
    """A test in a feature's own terms: what it answers, and where that changes."""

    feature: int
    """-1: it asks nothing, and answers `starts`."""
    starts: bool
    """The answer below the first switch."""
    switches: tuple[float, ...] = ()
    """The largest number before each change of the answer, ascending."""
    members: tuple[float, ...] = ()
    """Values that get the other answer than the switches say; of a category, codes."""
    missing: bool = False
    """The answer where the value is missing."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Asked:
    """Tests that a tree ensemble puts to its columns, one for each entry."""

    column: NDArray[np.int64]
    threshold: NDArray[np.float64]
    missing_yes: NDArray[np.bool_]
    members: Mapping[int, NDArray[np.float64]]
    """By entry, where it asks for members of a set of the column's values instead."""
    tables: Mapping[int, NDArray[np.float64]]
    """By entry, the column's values, ascending, whose places are members; without, the values are."""
    narrow: bool
    """Whether it compares numbers rounded to float32."""
    marker: float | None
    """A number that it takes for missing."""
    marks_zeros: bool
    """Whether it takes 0 for missing, before anything is rounded: what a sparse matrix does not write."""

    def answers(self, entry: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """What entry i answers about values[i]."""
        with np.errstate(over="ignore", invalid="ignore"):
            seen = values.astype(np.float32).astype(np.float64) if self.narrow else values
            yes = seen <= self.threshold[entry]
        missing = np.isnan(seen)
        if self.members:
            for number in np.intersect1d(entry, list(self.members)).tolist():
                at = entry == number
                codes = seen[at]
                known = self.tables.get(number)
                if (
                    known is not None
                ):  # the trees number the values themselves, and miss those that they do not know
                    places = np.minimum(np.searchsorted(known, codes), len(known) - 1)
                    missing[at] |= known[places] != codes
                    codes = places.astype(np.float64)
                yes[at] = np.isin(codes, self.members[number])
        if self.marker is not None:
            missing |= seen == float(np.float32(self.marker))
        if self.marks_zeros:
            missing |= values == 0.0
        return np.where(missing, self.missing_yes[entry], yes)


class Mover:
    """Moves tests on the columns that the steps make to the features of `inputs`."""

    def __init__(self, columns: Sequence[Column], inputs: Sequence[Input], apply: Apply) -> None:
        self._columns, self._inputs, self._apply = columns, inputs, apply

    def moved(self, asked: Asked) -> list[Test]:
        """Each test in terms of a feature. Raises NotFoldedError where its column has no such terms."""
        numbers, where = np.unique(asked.column, return_inverse=True)
        owners = np.array([self._owner(number) for number in numbers.tolist()], dtype=np.int64)[where]
        entries = np.arange(len(owners))
        discrete = np.array(
            [place >= 0 and self._inputs[place].is_discrete for place in owners], dtype=np.bool_
        )
        answers = {
            **self._constants(asked, entries[owners < 0]),
            **self._of_discrete(asked, entries[discrete], owners),
            **self._of_numbers(asked, entries[(owners >= 0) & ~discrete], owners),
        }
        return [answers[entry] for entry in entries.tolist()]

    def _owner(self, number: int) -> int:
        column = self._columns[number]
        if len(column.features) > 1:
            names = [self._inputs[place].name for place in sorted(column.features)]
            named = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
            raise NotFoldedError(f"a step makes one column of several features ({named})")
        if not column.features:
            return -1
        (place,) = column.features
        if not column.known and not self._inputs[place].is_discrete:
            raise NotFoldedError(
                f"a step turns {self._inputs[place].name} into what neither rises nor falls throughout"
            )
        return place

    def _evaluated(self, values: Sequence[NDArray[Any] | None], count: int) -> NDArray[np.float64]:
        parts = []
        for start in range(0, count, _rows_at_once):
            part = [None if each is None else each[start : start + _rows_at_once] for each in values]
            rows = min(count - start, _rows_at_once)
            try:
                made = self._apply(part, rows)
                made = made.toarray() if hasattr(made, "toarray") else made
                matrix = np.asarray(made, dtype=np.float64)
            except _foreign_errors as error:
                reason = (str(error).splitlines() or [""])[0][:200]
                raise NotFoldedError(f"its steps cannot be tried on made-up values: {reason}") from error
            if matrix.shape != (rows, len(self._columns)):
                raise NotFoldedError("its steps make other columns than they say")
            parts.append(matrix)
        return np.concatenate(parts)

    def _nothing(self) -> list[NDArray[Any] | None]:
        return [None] * len(self._inputs)

    def _missing(self, asked: Asked, entries: NDArray[np.int64], place: int) -> NDArray[np.bool_]:
        """What the entries, all of one feature, answer where it is missing."""
        if self._inputs[place].is_word:
            return np.zeros(len(entries), dtype=np.bool_)
        values = self._nothing()
        values[place] = self._inputs[place].missing_value()
        try:
            row = self._evaluated(values, 1)[0]
        except NotFoldedError:  # the steps refuse it: such records never come here
            return np.zeros(len(entries), dtype=np.bool_)
        return asked.answers(entries, row[asked.column[entries]])

    def _constants(self, asked: Asked, entries: NDArray[np.int64]) -> dict[int, Test]:
        if not len(entries):
            return {}
        row = self._evaluated(self._nothing(), 1)[0]
        found = asked.answers(entries, row[asked.column[entries]])
        return {
            entry: Test(feature=-1, starts=bool(yes))
            for entry, yes in zip(entries.tolist(), found, strict=True)
        }

    def _of_discrete(
        self, asked: Asked, entries: NDArray[np.int64], owners: NDArray[np.int64]
    ) -> dict[int, Test]:
        """Of categories and flags: every value is tried."""
        places = np.unique(owners[entries]).tolist()
        if not places:
            return {}
        tables = {place: self._inputs[place].table() for place in places}
        count = max(len(table) for table in tables.values())
        values = self._nothing()
        for place, table in tables.items():
            values[place] = table[np.minimum(np.arange(count), len(table) - 1)]
        matrix = self._evaluated(values, count)
        found: dict[int, Test] = {}
        for place, table in tables.items():
            of_place = entries[owners[entries] == place]
            missing = self._missing(asked, of_place, place)
            size = len(table)
            tried = matrix[:size, asked.column[of_place]]  # (codes, entries)
            yes = asked.answers(np.tile(of_place, size), tried.reshape(-1)).reshape(size, len(of_place))
            mostly = yes.sum(axis=0) * 2 > size
            if self._inputs[place].is_typed_flag:  # whatever is not 0 is true
                mostly = yes[-1]
            for number, entry in enumerate(of_place.tolist()):
                members = np.flatnonzero(yes[:, number] != mostly[number])
                found[entry] = Test(
                    feature=place,
                    starts=bool(mostly[number]),
                    members=tuple(members.astype(np.float64).tolist()),
                    missing=bool(missing[number]),
                )
        return found

    def _of_numbers(
        self, asked: Asked, entries: NDArray[np.int64], owners: NDArray[np.int64]
    ) -> dict[int, Test]:
        if not len(entries):
            return {}
        search = _Search(self, asked, entries, owners, self._marked(asked, entries, owners))
        starts, switches = search.switches()
        members = search.members(starts, switches)
        found: dict[int, Test] = {}
        for place in np.unique(owners[entries]).tolist():
            at = np.flatnonzero(owners[entries] == place)
            missing = self._missing(asked, entries[at], place)
            for number, answer in zip(at.tolist(), missing, strict=True):
                found[int(entries[number])] = Test(
                    feature=place,
                    starts=bool(starts[number]),
                    switches=switches[number],
                    members=members[number],
                    missing=bool(answer),
                )
        return found

    def _marked(
        self, asked: Asked, entries: NDArray[np.int64], owners: NDArray[np.int64]
    ) -> dict[int, tuple[float, ...]]:
        """By column, where the feature's numbers begin and cease to become the marker: missing values amid the others."""
        if asked.marker is None and not asked.marks_zeros:
            return {}
        columns, first = np.unique(asked.column[entries], return_index=True)
        if asked.marks_zeros:
            sides = np.array([np.nextafter(0.0, -np.inf), 0.0])
        else:
            level = np.float32(asked.marker)
            sides = np.array([np.nextafter(level, np.float32(-np.inf)), level], dtype=np.float64)
        both = replace(
            asked,
            column=np.repeat(columns, 2),
            threshold=np.tile(sides, len(columns)),
            missing_yes=np.zeros(2 * len(columns), dtype=np.bool_),
            members={},
            tables={},
            narrow=asked.narrow and not asked.marks_zeros,
            marker=None,
            marks_zeros=False,
        )
        of_both = np.repeat(owners[entries][first], 2)
        _, borders = _Search(self, both, np.arange(len(of_both)), of_both, {}).switches()
        return {
            column: (*borders[2 * place], *borders[2 * place + 1])
            for place, column in enumerate(columns.tolist())
        }

    def columns_at(
        self, asked: Asked, entry: NDArray[np.int64], owner: NDArray[np.int64], values: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """What entry i answers where its feature, owner[i], has values[i]; all features are tried at once."""
        order = np.argsort(owner, kind="stable")
        places, starts = np.unique(owner[order], return_index=True)
        row = np.empty(len(owner), dtype=np.int64)
        row[order] = np.arange(len(owner)) - np.repeat(starts, np.diff([*starts, len(owner)]))
        count = int(row.max()) + 1
        filled = self._nothing()
        for place in places.tolist():
            at = owner == place
            column = np.full(count, self._inputs[place].usual, dtype=np.float64)
            column[row[at]] = values[at]
            filled[place] = column
        matrix = self._evaluated(filled, count)
        return asked.answers(entry, matrix[row, asked.column[entry]])

    def tried(self, place: int, values: NDArray[Any]) -> NDArray[np.float64]:
        """The columns where one feature has these values and all others their usual one. Raises NotFoldedError."""
        filled = self._nothing()
        filled[place] = values
        return self._evaluated(filled, len(values))

    def column(self, number: int) -> Column:
        """A column that the steps make."""
        return self._columns[number]


class _Search:
    """Where tests on numbers change their answer."""

    def __init__(
        self,
        mover: Mover,
        asked: Asked,
        entries: NDArray[np.int64],
        owners: NDArray[np.int64],
        more_cuts: Mapping[int, tuple[float, ...]],
    ) -> None:
        """`more_cuts`: by column, further segments than those that the steps say."""
        self._mover, self._asked, self._entries, self._owners = mover, asked, entries, owners[entries]
        self._more_cuts = more_cuts
        self._points = [mover.column(int(number)).points for number in asked.column[entries]]

    def switches(self) -> tuple[NDArray[np.bool_], list[tuple[float, ...]]]:
        """The answer of each entry at the low end, and the largest numbers before each change; points are passed over."""
        item, low, high = [], [], []
        for number, column in enumerate(self._asked.column[self._entries].tolist()):
            made = self._mover.column(column)
            start = max(-_end, float(np.nextafter(made.low, np.inf)))
            cuts = sorted({*made.cuts, *self._more_cuts.get(column, ())})
            bounds = [start, *(cut for cut in cuts if start < cut < _end)]
            item += [number] * len(bounds)
            low += [bounds[0], *(float(np.nextafter(cut, np.inf)) for cut in bounds[1:])]
            high += [*bounds[1:], _end]
        items, lows, highs = np.array(item), ordinals(np.array(low)), ordinals(np.array(high))
        at_low, at_high = self._at(items, lows), self._at(items, highs)
        first, last = lows.copy(), highs.copy()
        while (on := np.flatnonzero((at_low != at_high) & (first + 1 < last))).size:
            middle = (
                (first[on] >> 1) + (last[on] >> 1) + (first[on] & last[on] & 1)
            )  # the difference may not fit
            same = self._at(items[on], middle) == at_low[on]
            first[on] = np.where(same, middle, first[on])
            last[on] = np.where(same, last[on], middle)
        found: list[list[float]] = [[] for _ in self._entries]
        inside = doubles(first)
        borders = doubles(highs)
        for place, number in enumerate(items.tolist()):
            if at_low[place] != at_high[place]:
                found[number].append(float(inside[place]))
            follows = place + 1 < len(items) and items[place + 1] == number
            if follows and at_high[place] != at_low[place + 1]:
                found[number].append(float(borders[place]))
        firsts = np.flatnonzero(np.concatenate(([True], np.diff(items) > 0)))
        return at_low[firsts], [tuple(each) for each in found]

    def members(
        self, starts: NDArray[np.bool_], switches: Sequence[tuple[float, ...]]
    ) -> list[tuple[float, ...]]:
        """The points of each entry that answer otherwise than its switches say."""
        number = np.array(
            [place for place, points in enumerate(self._points) for _ in points], dtype=np.int64
        )
        values = np.array([point for points in self._points for point in points], dtype=np.float64)
        found: list[list[float]] = [[] for _ in self._entries]
        if not len(number):
            return [() for _ in found]
        answers = self._mover.columns_at(self._asked, self._entries[number], self._owners[number], values)
        for place, value, yes in zip(number.tolist(), values.tolist(), answers, strict=True):
            passed = int(np.searchsorted(switches[place], value))
            if bool(yes) != (bool(starts[place]) ^ bool(passed % 2)):
                found[place].append(value)
        return [tuple(each) for each in found]

    def _at(self, items: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.bool_]:
        values = doubles(places)
        for place, item in enumerate(items.tolist()) if any(self._points) else ():
            if values[place] in self._points[item]:
                values[place] = np.nextafter(values[place], np.inf)
        return self._mover.columns_at(self._asked, self._entries[items], self._owners[items], values)


def ordinals(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Numbers in the order of the doubles, neighbours one apart, both zeros 0."""
    bits = (values + 0.0).view(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFFFFFFFFFF), bits)


def doubles(places: NDArray[np.int64]) -> NDArray[np.float64]:
    """Undo ordinals."""
    magnitude = np.abs(places).view(np.float64)
    return np.where(places < 0, -magnitude, magnitude)
