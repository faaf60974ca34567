"""XGBoost: a live booster or its file, trees or lines."""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from penstock.engine.features.overrides import table_features
from penstock.engine.models.packaging.boosters.forest_model import (
    of_forest,
    softmax,
    with_sentinel,
    without_markers,
    xgboost_meaning,
)
from penstock.engine.models.packaging.converted import (
    Converted,
    PackageOptions,
    foreign_text,
    missing_library,
)
from penstock.engine.models.packaging.trial import try_file
from penstock.schemas.errors import ConfigError

if TYPE_CHECKING:
    from penstock.engine.trees.readers.xgboost import UnsureTable


def xgboost_file(data: bytes, wishes: PackageOptions) -> Converted:
    """A model file. Raises ConfigError."""
    try:
        import xgboost
    except ImportError as error:
        raise ConfigError(missing_library("xgboost")) from error
    from penstock.engine.models.packaging.boosters.linear_booster import is_linear, read_linear
    from penstock.engine.trees.readers.xgboost import read_xgboost

    if is_linear(data):
        width = read_linear(data, classes=wishes.classes).features
    else:
        width = read_xgboost(data, classes=wishes.classes).forest.features
    try_file("xgboost", data, rows_width=width)
    booster = xgboost.Booster()
    with in_silence("model"):
        booster.load_model(bytearray(data))
    return xgboost_model(booster, wishes, stop_at_best=None)


def xgboost_model(booster: Any, wishes: PackageOptions, *, stop_at_best: bool | None) -> Converted:
    """A live booster. `stop_at_best`: whether rounds behind the best one count; None: as its file says. Raises ConfigError."""
    import xgboost

    from penstock.engine.models.packaging.boosters.linear_booster import is_linear, linear_booster
    from penstock.engine.trees.readers.xgboost import read_xgboost, xgboost_tree

    with in_silence("model"):  # some broken trees are found when they are written
        data = bytes(booster.save_raw("ubj"))
    if is_linear(data):
        return linear_booster(booster, data, wishes)
    read = read_xgboost(data, classes=wishes.classes, stop_at_best=stop_at_best)
    columns = read.forest.features
    names = wishes.feature_names or read.feature_names or tuple(f"f{index}" for index in range(columns))
    tables = {**read.categories, **_told(read.unsure, read.feature_names or names, wishes)}
    _refuse_others(read.unsure, names, tables, wishes)
    features = table_features(names, tables=tables, categorical=read.categorical, overrides=wishes.overrides)
    features = with_sentinel(features, wishes.missing)
    types = ["c" if index in read.categorical else "q" for index in range(columns)]
    objective = str(xgboost_tree(data)["learner"]["objective"]["name"])
    as_margin = objective == "multi:softmax"  # else it answers labels
    rounds = read.rounds

    def predict(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        with in_silence("rows"):
            matrix = xgboost.DMatrix(
                without_markers(rows, features, besides=wishes.missing),
                missing=np.nan if wishes.missing is None else wishes.missing,
                feature_types=booster.feature_types or types,
                feature_names=booster.feature_names,
                enable_categorical=True,
                nthread=1,
            )
            found = booster.predict(matrix, iteration_range=(0, rounds), output_margin=as_margin)
        return softmax(found) if as_margin else np.asarray(found, dtype=np.float64)

    notes = []
    if read.early_stopped:
        used = "the best round is the last one used" if read.rounds < read.rounds_in_file else "all are used"
        notes.append(
            f"training stopped early: the file has {read.rounds_in_file} rounds, {read.rounds} count; {used}"
        )
    return of_forest(
        read.forest,
        exponential=read.exponential,
        source=f"xgboost {xgboost.__version__}",
        features=features,
        predict=predict,
        notes=tuple(notes),
        compared_with="Booster.predict",
        meaning=xgboost_meaning(objective),
    )


def _told(
    unsure: "Mapping[int, UnsureTable]", names: Sequence[str], wishes: PackageOptions
) -> dict[int, tuple[str, ...]]:
    """Tables that a data frame tells, by column: its categories, or all its texts in order, where XGBoost would have written
    just what the file holds of them."""
    found: dict[int, tuple[str, ...]] = {}
    for column, stored in unsure.items():
        for table in wishes.tables:
            if not hasattr(table, "iloc") or names[column] not in table.columns:
                continue
            values = table[names[column]]
            kept = getattr(values.dtype, "categories", None)
            known = sorted({str(each) for each in values.dropna()}) if kept is None else [*map(str, kept)]
            if stored.is_of(known):
                found[column] = tuple(known)
                break
    return found


def _refuse_others(
    unsure: "Mapping[int, UnsureTable]",
    names: Sequence[str],
    tables: Mapping[int, tuple[str, ...]],
    wishes: PackageOptions,
) -> None:
    """Raises ConfigError where nobody says such a table, or a features file says another one."""
    said = {str(item.get("name")): item.get("categories") for item in wishes.overrides}
    alone = len(wishes.overrides) == len(names) and not set(said) <= set(
        names
    )  # features by other names, in order
    for column, stored in unsure.items():
        name = names[column]
        given = wishes.overrides[column].get("categories") if alone else said.get(name)
        if given is not None and not stored.is_of([str(each) for each in given]):
            raise ConfigError(
                f"the categories of {name} in --features are not those that the model file holds: give all that training had, in the "
                "order of their codes"
            )
        if given is None and column not in tables:
            raise ConfigError(
                f"feature {name} is a category with names beyond ASCII, and the model file does not keep its table whole: give --background "
                "or --rows as a data frame or .parquet whose columns are of type category as in training, or its categories, in the order of "
                "their codes, in a features file (--features)"
            )


@contextmanager
def in_silence(what: str) -> Iterator[None]:
    """XGBoost writes nothing to standard error, neither by itself nor as a warning of Python's. Raises ConfigError, with what it
    says of the `what`, where it refuses them."""
    import xgboost

    try:
        with warnings.catch_warnings(), xgboost.config_context(verbosity=0):
            warnings.simplefilter("ignore")
            yield
    except (xgboost.core.XGBoostError, UnicodeDecodeError) as error:
        raise ConfigError(f"XGBoost refuses the {what}: {_xgboost_reason(error)}") from error


def _xgboost_reason(error: Exception) -> str:
    """The sentence in an error of XGBoost: what stands behind its check, before the stack of C++."""
    lines = [line.strip() for line in foreign_text(error).splitlines() if line.strip()]
    said = next(
        (line for line in lines if not line.startswith(("Stack trace", "[bt]"))), "it says nothing more"
    )
    said = re.sub(r"^\[[0-9:]+\]\s+\S+:[0-9]+:\s*", "", said)  # the time, and the place in its own code
    return said.rpartition("Check failed: ")[2].split(": ", 1)[-1] if "Check failed: " in said else said
