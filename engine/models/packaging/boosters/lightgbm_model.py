"""LightGBM: a live model or its text."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from penstock.engine.features.overrides import table_features
from penstock.engine.models.packaging.boosters.forest_model import of_forest, with_sentinel, without_markers
from penstock.engine.models.packaging.converted import Converted, PackageOptions, missing_library
from penstock.engine.models.packaging.trial import try_file
from penstock.schemas.errors import ConfigError

_named_max = 5
_whole_numbers_max = 65_536
"""More categories than these are no table that a feature should have."""


def lightgbm_file(data: bytes, wishes: PackageOptions) -> Converted:
    """A model file. Raises ConfigError."""
    try:
        text = data.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ConfigError("the LightGBM model is not a text file") from error
    from penstock.engine.trees.readers.lightgbm import read_lightgbm

    width = read_lightgbm(text, classes=wishes.classes).forest.features
    _import_lightgbm()
    try_file("lightgbm", text.encode(), rows_width=width)
    return lightgbm_model(text, wishes)


def _import_lightgbm() -> Any:
    try:
        import lightgbm
    except ImportError as error:
        raise ConfigError(missing_library("lightgbm")) from error
    return lightgbm


def lightgbm_model(text: str, wishes: PackageOptions) -> Converted:
    """A model by its text. Raises ConfigError."""
    from penstock.engine.trees.readers.lightgbm import read_lightgbm

    lightgbm = _import_lightgbm()
    read = read_lightgbm(text, classes=wishes.classes)
    columns = _category_columns(read.feature_names, wishes.tables)
    if columns is not None:
        read = read_lightgbm(text, classes=wishes.classes, table_columns=columns)
    try:
        booster = lightgbm.Booster(model_str=text)
    except lightgbm.basic.LightGBMError as error:
        raise ConfigError(f"LightGBM refuses the model: {error}") from error
    except ValueError as error:  # of its parameters and categories, which it reads as JSON
        raise ConfigError(f"LightGBM cannot read what stands behind the model's trees: {error}") from error
    names = wishes.feature_names
    notes: tuple[str, ...] = ()
    if names is None:
        said = {str(item.get("name")) for item in wishes.overrides}
        names, notes = _names(read.feature_names, wishes.columns, said)
    _refuse_unowned(read.unowned_tables, wishes)
    tables = {**_whole_numbers(read, wishes.tables), **read.categories}
    features = table_features(names, tables=tables, categorical=read.categorical, overrides=wishes.overrides)
    features = with_sentinel(features, wishes.missing)
    # Codes lie on either side of any threshold between them, whatever the rounding.
    cuts = tuple(
        () if feature.kind == "category" else of_column
        for feature, of_column in zip(
            (feature for feature in features for _ in range(feature.width)), read.cuts, strict=True
        )
    )
    return of_forest(
        read.forest,
        exponential=read.exponential,
        source=f"lightgbm {lightgbm.__version__}",
        features=features,
        notes=notes,
        predict=lambda rows: np.asarray(
            booster.predict(without_markers(rows, features, besides=None), num_threads=1)
        ),
        cuts=cuts,
        compared_with="Booster.predict",
        meaning="rank" if read.ranks else None,
    )


def _refuse_unowned(tables: Sequence[tuple[str, ...]], wishes: PackageOptions) -> None:
    """Raises ConfigError where the model does not say whose tables these are, and no features file does."""
    said = [
        tuple(item["categories"]) for item in wishes.overrides if isinstance(item.get("categories"), list)
    ]
    for table in tables:
        if table not in said:
            shown = ", ".join(table[:_named_max]) + (", ..." if len(table) > _named_max else "")
            raise ConfigError(
                f"the LightGBM model keeps the categories {shown} without saying whose they are: give --background or --rows as a "
                "data frame or .parquet whose columns are of type category as in training, or these categories, in this order, of "
                "their feature in --features"
            )


def _column_types(tables: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Of each data frame the types of its columns, by the names that LightGBM writes."""
    for table in tables:
        if hasattr(table, "iloc"):
            yield {str(name).replace(" ", "_"): kind for name, kind in table.dtypes.items()}


def _category_columns(written: Sequence[str], tables: Sequence[Any]) -> list[int] | None:
    """The places of the columns that are categories in a data frame that was given, if one has all that the model takes."""
    for kinds in _column_types(tables):
        if all(name in kinds for name in written):
            return [place for place, name in enumerate(written) if hasattr(kinds[name], "categories")]
    return None


def _whole_numbers(read: Any, tables: Sequence[Any]) -> dict[int, tuple[str, ...]]:
    """By column the categories of one that holds whole numbers, in a data frame that was given: each is its own code."""
    found = {}
    for kinds in _column_types(tables):
        for column, most in read.codes_max.items():
            kind = kinds.get(read.feature_names[column])
            if getattr(kind, "kind", "") in ("i", "u") and 0 <= most < _whole_numbers_max:
                found[column] = tuple(str(code) for code in range(most + 1))
    return found


def _names(
    written: Sequence[str], tables: Sequence[Sequence[str]], said: set[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The features' names as records write them, and a note where that is not known: LightGBM writes `_` for each blank.

    `tables`: the columns of tables that were given; `said`: names that a person uses as they are.
    """
    found, unsure = [], []
    if all(name == f"Column_{place}" for place, name in enumerate(written)):  # it made them up
        return tuple(written), ()
    for name in written:
        blank = [each for table in tables for each in table if each.replace(" ", "_") == name]
        sure = name in said or name in blank
        found.append(name if sure or not blank else blank[0])
        if "_" in name and not sure and not blank:
            unsure.append(name)
    if not unsure:
        return tuple(found), ()
    more = ", ..." if len(unsure) > _named_max else ""
    return tuple(found), (
        f"LightGBM writes _ for a blank in a feature's name, and no table was given that tells them apart: "
        f"{', '.join(unsure[:_named_max])}{more} must be called so in the records, else give --background, --rows or --features "
        "with the names of the records",
    )
