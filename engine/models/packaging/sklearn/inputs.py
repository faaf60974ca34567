"""What a scikit-learn model is given: rows of features as it was fitted on them, from values or from matrix rows."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing

from penstock.engine.models.packaging.sklearn.column_types import (
    ColumnType,
    GivenColumn,
    float32,
    given_columns,
    refusal,
    rows_tried_max,
    same_columns,
    tried,
)
from penstock.engine.models.packaging.sklearn.columns import Column, Input, columns_after
from penstock.engine.models.packaging.sklearn.members import members

other_text = "(other)"
"""Stands for every category that the model does not know, where it tells those from missing ones."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Rows:
    """The matrix at some place between the steps, of rows of features."""

    inputs: Sequence[Input]
    named: bool
    """Whether the original was fitted on a data frame."""
    apply: Callable[[Any], Any]
    """From the original's rows to that matrix."""

    def frame(self, values: Sequence[NDArray[Any] | None], count: int) -> Any:
        """The original's rows, of one array of values for each feature; None: its usual value throughout.

        Numbers are given the type of their column; a series of pandas is taken as it is.
        """
        columns: list[Any] = []
        for given, column in zip(self.inputs, values, strict=True):
            if column is None:
                kind = object if given.is_category else np.float64
                column = np.full(count, None, dtype=object) if given.is_category else np.empty(count)
                column[:] = given.usual
                column = column.astype(kind)
            if given.type is not None and not given.is_category and isinstance(column, np.ndarray):
                column = given.type.cast(column.astype(np.float64))
            columns.append(column)
        if self.named:
            import pandas

            blocks = []
            runs = groupby(zip(self.inputs, columns, strict=True), key=lambda pair: pair[0].is_word)
            for are_words, run in runs:
                pairs = [*run]
                if are_words:  # thousands of columns: one block of them takes a thousandth of the time
                    block = np.stack([column for _, column in pairs], axis=1).astype(np.float64)
                    blocks.append(pandas.DataFrame(block, columns=[given.name for given, _ in pairs]))
                else:
                    blocks.append(
                        pandas.DataFrame(
                            {given.name: pandas.Series(column, dtype=column.dtype) for given, column in pairs}
                        )
                    )
            return blocks[0] if len(blocks) == 1 else pandas.concat(blocks, axis=1)
        if any(given.is_category for given in self.inputs):
            return np.stack([column.astype(object) for column in columns], axis=1)
        return np.stack(columns, axis=1)

    def of_table(self, table: Any) -> Any:
        """The original's rows of a data frame or an array that somebody gave, its types kept."""
        return in_order(table, [given.name for given in self.inputs] if self.named else None)

    def values_applied(self, values: Sequence[NDArray[Any] | None], count: int) -> Any:
        """The matrix of so many rows; see frame."""
        return self.apply(self.frame(values, count))

    def of_matrix(self, matrix: NDArray[np.float64], places: Sequence[int]) -> Any:
        """The original's rows of matrix rows (R, F), whose columns are the features at `places`; a category is its code."""
        values: list[NDArray[Any] | None] = [None] * len(self.inputs)
        for column, place in enumerate(places):
            given = self.inputs[place]
            if given.is_category:
                table = np.empty(len(given.values) + 1, dtype=object)
                table[:-1] = given.values
                table[-1] = given.nan_value
                codes = matrix[:, column]
                values[place] = table[np.where(np.isnan(codes), len(given.values), codes).astype(np.int64)]
            else:
                values[place] = matrix[:, column]
        return self.frame(values, len(matrix))

    def chosen(self, places: Sequence[int]) -> "Rows":
        """The matrix of some of the columns."""
        apply = self.apply
        return replace(self, apply=lambda rows: _safe_indexing(apply(rows), list(places), axis=1))


def in_order(table: Any, names: Sequence[str] | None) -> Any:
    """A data frame's columns as a model fitted on those names takes them; names None: all, as numbers. LookupError without them."""
    if names is None:
        return table.to_numpy() if hasattr(table, "to_numpy") else table
    return table[[*names]]


def then(step: Any, rows: Rows) -> Rows:
    """The matrix after one more step."""
    if step is None or (isinstance(step, str) and step == "passthrough"):
        return rows
    apply = rows.apply
    return replace(rows, apply=lambda given: step.transform(apply(given)))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Leaf:
    """A fitted estimator inside a model, and what it is given."""

    estimator: Any
    columns: list[Column]
    rows: Rows
    unmixed: Rows
    """What the last steps make before which no column is made of several features."""


def leaves(
    model: Any, columns: list[Column], inputs: list[Input], rows: Rows, unmixed: Rows | None = None
) -> Iterator[Leaf]:
    """The estimators at the ends of all pipelines inside the model. What the steps know of categories is noted in `inputs`.
    `unmixed`: see Leaf, of what stands around the model."""
    unmixed = rows if unmixed is None else unmixed
    if isinstance(model, Pipeline):
        for _, step in model.steps[:-1]:
            columns = columns_after(step, columns, inputs, rows.apply)
            rows = then(step, rows)
            unmixed = rows if all(len(column.features) <= 1 for column in columns) else unmixed
        yield from leaves(model.steps[-1][1], columns, inputs, rows, unmixed)
        return
    inner = members(model)
    for each in inner:
        yield from leaves(each, columns, inputs, rows, unmixed)
    if not inner:
        yield Leaf(estimator=model, columns=columns, rows=rows, unmixed=unmixed)


def gives_sparse(rows: Rows) -> bool:
    """Whether the steps make a sparse matrix."""
    try:
        made = rows.values_applied([None] * len(rows.inputs), 1)
    except (ValueError, TypeError, RuntimeError, AttributeError, LookupError, ArithmeticError):
        return False
    return hasattr(made, "toarray")


def note_read(inputs: list[Input], found: Sequence[Leaf]) -> None:
    """Note which features anything is made of."""
    for leaf in found:
        for column in leaf.columns:
            for place in column.features:
                inputs[place].is_read = True
    for given in inputs:
        given.is_read |= given.is_word  # the columns of a text stand together


def settle_types(inputs: list[Input], found: Sequence[Leaf], tables: Sequence[Any]) -> None:
    """Note the types of the columns in data frames that were given, where the steps make another thing of doubles.

    Raises ConfigError where no record can hold what they compute with.
    """
    if found and not found[0].rows.named:
        _settle_arrays(inputs, found, tables)
        return
    given = given_columns(tables, [each.name for each in inputs])
    given = {
        place: column
        for place, column in given.items()
        if inputs[place].is_read and not inputs[place].is_category
    }
    for place, column in given.items():
        inputs[place].type = column.nearest
    single = {
        place: column for place, column in given.items() if column.kind != "float32"
    }  # what is rounded to float32 in the original's frame always is, whatever the steps do
    makes_no_difference = _alike(inputs, found, single)
    for place, column in single.items():
        if makes_no_difference or _alike(inputs, found, {place: column}):
            inputs[place].type = None
            continue
        for other in column.others:
            if _alike(inputs, found, {place: column}, other):
                inputs[place].type = other
                break
        else:
            raise refusal(inputs[place].name, column.kind)
        inputs[place].is_flag |= other.is_flag


def _settle_arrays(inputs: list[Input], found: Sequence[Leaf], tables: Sequence[Any]) -> None:
    """The same where the model was fitted on an array: all columns are of its type."""
    arrays = [each for each in tables if isinstance(each, np.ndarray) and each.dtype.kind in "fiub"]
    for array in arrays:
        if array.ndim != 2 or array.shape[1] != len(inputs) or array.dtype == np.float64:
            continue
        some = array[:rows_tried_max]
        if array.dtype != np.float32 and _made_alike(found, some, np.float64):
            continue
        if array.dtype != np.float32 and not _made_alike(found, some, np.float32):
            raise refusal("", str(array.dtype))
        for each in inputs:
            each.type = None if each.is_category else float32


def _made_alike(found: Sequence[Leaf], array: NDArray[Any], kind: type[Any]) -> bool:
    for leaf in found:
        wanted = tried(partial(leaf.rows.apply, array))
        made = tried(partial(leaf.rows.apply, array.astype(kind)))
        if wanted is not None and (made is None or not same_columns(wanted, made)):
            return False
    return True


def _alike(
    inputs: list[Input],
    found: Sequence[Leaf],
    columns: Mapping[int, GivenColumn],
    other: ColumnType | None = None,
) -> bool:
    """Whether the steps make the same of these columns as they were given and in the other type (None: as doubles)."""
    if not columns:
        return True
    count = max(len(column.numbers) for column in columns.values())
    as_given: list[Any] = [None] * len(inputs)
    as_other: list[Any] = [None] * len(inputs)
    for place, column in columns.items():
        chosen = np.arange(count) % len(column.numbers)
        as_given[place] = column.values.iloc[chosen].reset_index(drop=True)
        as_other[place] = column.numbers[chosen]
    kept = {place: inputs[place].type for place in columns}
    for leaf in found:
        wanted = tried(partial(leaf.rows.values_applied, as_given, count))
        for place in columns:
            inputs[place].type = other
        made = tried(partial(leaf.rows.values_applied, as_other, count))
        for place, type_kept in kept.items():
            inputs[place].type = type_kept
        if wanted is not None and (made is None or not same_columns(wanted, made)):
            return False
    return True


def settle(inputs: list[Input], found: Sequence[Leaf]) -> None:
    """Note of categories what becomes of missing and of unknown ones."""
    for place, given in enumerate(inputs):
        given.is_settled = True
        if not given.is_category or not given.is_read:
            continue
        given.values = [
            value
            for value in given.values
            if value in given.sure or not any(_row(leaf, place, value) is None for leaf in found)
        ] or given.values
        missing = [_row(leaf, place, given.marker) for leaf in found]
        others = [_row(leaf, place, math.nan if given.marker is None else None) for leaf in found]
        given.is_told_apart = not all(
            one is None or other is None or _equal(one, other)
            for one, other in zip(missing, others, strict=True)
        )
        unseen = [_row(leaf, place, other_text) for leaf in found]
        if any(row is None for row in missing):
            given.missing = "reject"
        if any(row is None for row in unseen):
            given.unseen = "reject"
        # Whatever the other columns are: a step that mixes them may make nothing of this one beside a usual row.
        alike = all(
            _equal(_row(leaf, place, given.marker, mixed=False), _row(leaf, place, other_text, mixed=False))
            for leaf in found
        )
        if given.unseen == "nan" and given.missing == "nan" and not alike:
            given.unseen = len(given.values)
            given.values.append(other_text)
        given.nan_value = given.marker if given.missing == "nan" else other_text


def _row(leaf: Leaf, place: int, value: Any, *, mixed: bool = True) -> NDArray[Any] | None:
    """What the leaf (`mixed`; else the last step before columns are mixed) is given of a usual row with that value; None where a
    step refuses it."""
    values: list[NDArray[Any] | None] = [None] * len(leaf.rows.inputs)
    values[place] = np.array([value], dtype=object)
    try:
        made = (leaf.rows if mixed else leaf.unmixed).values_applied(values, 1)
        made = made.toarray() if hasattr(made, "toarray") else made
        row: NDArray[Any] = np.asarray(made, dtype=object)[0]
    except (ValueError, TypeError, RuntimeError, AttributeError, KeyError, IndexError):
        return None
    return row


def _equal(one: NDArray[Any] | None, other: NDArray[Any] | None) -> bool:
    if one is None or other is None:
        return one is other
    return all(
        a is b or a == b or (a != a and b != b) for a, b in zip(one.tolist(), other.tolist(), strict=True)
    )
