"""A scikit-learn estimator of trees alone, and what a model makes of missing values."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import sklearn
from numpy.typing import NDArray

from penstock.engine.features.overrides import table_features
from penstock.engine.features.signature import Feature
from penstock.engine.models.packaging.boosters.forest_model import class_numbers, of_forest
from penstock.engine.models.packaging.converted import Converted, PackageOptions
from penstock.engine.models.packaging.sklearn.inputs import in_order
from penstock.engine.trees.readers.sklearn import read_sklearn_trees

foreign_errors = (
    ValueError, TypeError, RuntimeError, AttributeError, LookupError, AssertionError, NameError, ArithmeticError
)  # fmt: skip

_asked_max: Final = 256
"""Rows that the original is asked about at once."""


def source() -> str:
    """The library, with its version."""
    return f"scikit-learn {sklearn.__version__}"


def trees_alone(model: Any, wishes: PackageOptions) -> Converted:
    """A fitted tree, forest or boosting. Raises ConfigError."""
    read = read_sklearn_trees(model, wishes.classes)
    categories = read.categories or {}
    width = read.forest.features
    own_names = getattr(model, "feature_names_in_", None)
    names = wishes.feature_names or (
        tuple(own_names.tolist()) if own_names is not None else tuple(f"f{index}" for index in range(width))
    )
    tables = {
        column: tuple(category_name(value) for value in values) for column, values in categories.items()
    }
    features = table_features(names, tables=tables, categorical=tuple(categories), overrides=wishes.overrides)
    values = {column: np.array([*table, None], dtype=object) for column, table in categories.items()}

    def given(rows: NDArray[np.float64]) -> Any:
        columns = [
            values[index][np.nan_to_num(rows[:, index], nan=len(values[index]) - 1).astype(np.int64)]
            if index in values
            else rows[:, index]
            for index in range(width)
        ]
        if own_names is not None:
            return _frame(own_names.tolist(), columns)
        return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)

    answer = model.predict_proba if read.forest.labels else model.predict
    notes, features = without_missing(lambda rows: answer(given(rows)), features, np.zeros(width))
    return of_forest(
        read.forest,
        exponential=read.exponential,
        source=source(),
        features=features,
        cuts=read.cuts,
        predict=lambda rows: answer(given(rows)),
        notes=notes,
        predict_table=lambda table: answer(in_order(table, own_names)),
        predict_classes=lambda rows: class_numbers(model, given(rows)),
    )


def without_missing(
    answer: Callable[[NDArray[np.float64]], Any], features: tuple[Feature, ...], usual: NDArray[np.float64]
) -> tuple[tuple[str, ...], tuple[Feature, ...]]:
    """Features whose records are set aside when a value is missing, where the model refuses to answer then.

    `usual`: a row that it answers.
    """
    firsts = np.cumsum([0, *(feature.width for feature in features)])[:-1].tolist()

    def missing_in(some: Sequence[int]) -> NDArray[np.float64]:
        rows = np.repeat(usual[None], len(some), axis=0)
        for row, number in zip(rows, some, strict=True):
            row[firsts[number] : firsts[number] + features[number].width] = np.nan
        return rows

    asked = [number for number, feature in enumerate(features) if feature.may_be_nan]
    parts = [asked[first : first + _asked_max] for first in range(0, len(asked), _asked_max)]
    refused_at = {
        number
        for part in parts
        if not is_answered(answer, missing_in(part))
        for number in part
        if not is_answered(answer, missing_in([number]))
    }
    changed = []
    for number, feature in enumerate(features):
        if number in refused_at:
            missing = "reject" if feature.missing == "nan" else feature.missing
            feature = replace(
                feature, missing=missing, unseen="reject" if feature.unseen == "nan" else feature.unseen
            )
        changed.append(feature)
    refused = [feature.name for feature, old in zip(changed, features, strict=True) if feature != old]
    if not refused:
        return (), features
    which = "any feature" if len(refused) == len(features) else ", ".join(refused)
    return (f"records with a missing value of {which} are set aside: the model takes none",), tuple(changed)


def is_answered(answer: Callable[[Any], Any], rows: Any) -> bool:
    """Whether it answers the rows at all."""
    try:
        answer(rows)
    except foreign_errors:
        return False
    return True


def _frame(names: list[str], columns: Sequence[NDArray[Any]]) -> Any:
    import pandas

    if columns and all(
        column.dtype == np.float64 for column in columns
    ):  # one block: of many columns a hundredth of the time
        return pandas.DataFrame(np.stack(columns, axis=1), columns=names)
    return pandas.DataFrame(dict(zip(names, columns, strict=True)))


def category_name(value: Any) -> str:
    """What a category is called in a record."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
