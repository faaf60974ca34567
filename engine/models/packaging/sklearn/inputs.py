"""What a scikit-learn model is given: rows of features as it was fitted on them, from values or from matrix rows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing

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
        """The original's rows, of one array of values for each feature; None: its usual value throughout."""
        columns = []
        for given, column in zip(self.inputs, values, strict=True):
            if column is None:
                kind = object if given.is_category else np.float64
                column = np.full(count, None, dtype=object) if given.is_category else np.empty(count)
                column[:] = given.usual
                column = column.astype(kind)
            columns.append(column)
        if self.named:
            import pandas

            return pandas.DataFrame(
                {
                    given.name: pandas.Series(column, dtype=column.dtype)
                    for given, column in zip(self.inputs, columns, strict=True)
                }
            )
        if any(given.is_category for given in self.inputs):
            return np.stack([column.astype(object) for column in columns], axis=1)
        return np.stack(columns, axis=1)

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


def leaves(model: Any, columns: list[Column], inputs: list[Input], rows: Rows) -> Iterator[Leaf]:
    """The estimators at the ends of all pipelines inside the model. What the steps know of categories is noted in `inputs`."""
    if isinstance(model, Pipeline):
        for _, step in model.steps[:-1]:
            columns = columns_after(step, columns, inputs, rows.apply)
            rows = then(step, rows)
        yield from leaves(model.steps[-1][1], columns, inputs, rows)
        return
    inner = members(model)
    for each in inner:
        yield from leaves(each, columns, inputs, rows)
    if not inner:
        yield Leaf(estimator=model, columns=columns, rows=rows)


def settle(inputs: list[Input], found: Sequence[Leaf]) -> None:
    """Note which features are read, and of categories what becomes of missing and of unknown ones."""
    for leaf in found:
        for column in leaf.columns:
            for place in column.features:
                inputs[place].is_read = True
    for place, given in enumerate(inputs):
        if not given.is_category or not given.is_read:
            continue
        missing = [_row(leaf, place, given.marker) for leaf in found]
        unseen = [_row(leaf, place, other_text) for leaf in found]
        if any(row is None for row in missing):
            given.missing = "reject"
        if any(row is None for row in unseen):
            given.unseen = "reject"
        alike = all(_equal(one, other) for one, other in zip(missing, unseen, strict=True))
        if given.unseen == "nan" and given.missing == "nan" and not alike:
            given.unseen = len(given.values)
            given.values.append(other_text)
        given.nan_value = given.marker if given.missing == "nan" else other_text


def _row(leaf: Leaf, place: int, value: Any) -> NDArray[Any] | None:
    """What the leaf is given of a usual row with that value; None where a step refuses it."""
    values: list[NDArray[Any] | None] = [None] * len(leaf.rows.inputs)
    values[place] = np.array([value], dtype=object)
    try:
        made = leaf.rows.values_applied(values, 1)
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
