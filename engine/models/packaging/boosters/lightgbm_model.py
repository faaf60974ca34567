"""LightGBM: a live model or its text."""

from typing import Any

import numpy as np

from penstock.engine.features.overrides import table_features
from penstock.engine.models.packaging.boosters.forest_model import of_forest, with_sentinel, without_markers
from penstock.engine.models.packaging.converted import Converted, PackageOptions, missing_library
from penstock.engine.models.packaging.trial import try_file
from penstock.schemas.errors import ConfigError


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
    try:
        booster = lightgbm.Booster(model_str=text)
    except lightgbm.basic.LightGBMError as error:
        raise ConfigError(f"LightGBM refuses the model: {error}") from error
    names = wishes.feature_names or read.feature_names
    features = table_features(
        names, tables=read.categories, categorical=read.categorical, overrides=wishes.overrides
    )
    features = with_sentinel(features, wishes.missing)
    return of_forest(
        read.forest,
        exponential=read.exponential,
        source=f"lightgbm {lightgbm.__version__}",
        features=features,
        predict=lambda rows: np.asarray(
            booster.predict(without_markers(rows, features, besides=None), num_threads=1)
        ),
        cuts=read.cuts,
        compared_with="Booster.predict",
        meaning="rank" if read.ranks else None,
    )
