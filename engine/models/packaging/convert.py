"""Any model that can be packaged, brought into our form, with the original beside it to compare with."""

import hashlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from penstock.engine.models.bundle.graph_checks import model_bytes_max
from penstock.engine.models.packaging.boosters.lightgbm_model import lightgbm_file, lightgbm_model
from penstock.engine.models.packaging.boosters.xgboost_model import xgboost_file, xgboost_model
from penstock.engine.models.packaging.converted import Converted, PackageOptions, missing_library
from penstock.engine.models.packaging.external_data import with_external_data
from penstock.engine.models.packaging.refused_files import refused_kinds
from penstock.engine.trees.class_names import class_names
from penstock.schemas.errors import ConfigError

_named_max = 5


def convert(model: Any, wishes: PackageOptions) -> Converted:
    """A path to a model file, or a live XGBoost, LightGBM or scikit-learn object. Raises ConfigError."""
    converted = _converted(model, wishes)
    if converted.labels is None and wishes.classes is not None:
        raise ConfigError(
            f"the names of classes {', '.join(wishes.classes[:_named_max])} were given, and the model answers numbers that are of no class: "
            "leave them out"
        )
    return converted


def _converted(model: Any, wishes: PackageOptions) -> Converted:
    if isinstance(model, (str, Path)):
        return _convert_file(Path(model), wishes)
    module = type(model).__module__.partition(".")[0]
    if module == "lightgbm":
        booster = getattr(model, "booster_", model)
        return lightgbm_model(booster.model_to_string(), _with_classes(wishes, model))
    if module == "catboost":
        from penstock.engine.models.packaging.boosters.catboost_model import catboost_model

        return catboost_model(model, _with_classes(wishes, model))
    if module == "xgboost":
        is_booster = not hasattr(model, "get_booster")
        booster = model if is_booster else model.get_booster()
        wishes = _with_classes(wishes, model)
        marker = getattr(model, "missing", None)
        if wishes.missing is None and marker is not None and not math.isnan(marker):
            wishes = replace(wishes, missing=float(marker))
        return xgboost_model(booster, wishes, stop_at_best=not is_booster)
    if hasattr(model, "predict") and hasattr(model, "get_params"):
        return _sklearn(model, wishes)
    if hasattr(model, "get_params"):
        last = model.steps[-1][1] if hasattr(model, "steps") else model
        raise ConfigError(
            f"{type(last).__name__} predicts nothing for a new record: package a model that does, or the pipeline that ends in one"
        )
    raise ConfigError(f"a {type(model).__name__} cannot be packaged; give a model file, or a fitted model")


def _convert_file(path: Path, wishes: PackageOptions) -> Converted:
    kinds = {".onnx": _onnx_file, ".txt": lightgbm_file, ".json": _json_file, ".ubj": xgboost_file}
    kinds |= {".skops": _skops_file, ".cbm": _cbm_file, ".pmml": _pmml_file}
    if path.suffix in refused_kinds:
        raise ConfigError(f"{path.name} is {refused_kinds[path.suffix]}")
    if path.suffix not in kinds:
        raise ConfigError(
            f"{path.name} is not a model file that can be packaged; known are {', '.join(sorted(kinds))}"
        )
    try:
        if path.stat().st_size > model_bytes_max:
            raise ConfigError(f"{path} is longer than {model_bytes_max} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if not data.strip():
        raise ConfigError(f"{path.name} is empty")
    try:
        if path.suffix == ".onnx":
            data = with_external_data(data, path.parent)
        converted = kinds[path.suffix](data, wishes)
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from error
    digest = hashlib.sha256(data).hexdigest()
    return replace(converted, facts={**converted.facts, "file_sha256": digest})


def _with_classes(wishes: PackageOptions, model: Any) -> PackageOptions:
    """The class names that a live classifier remembers, unless others are asked for."""
    known = getattr(model, "classes_", None)
    if wishes.classes is not None or known is None:
        return wishes
    names = class_names(np.asarray(known).tolist())
    if len(names) == 1:
        raise ConfigError(
            f"the {type(model).__name__} was trained on one class alone, {names[0]}, and knows no other: train it on rows of two and more"
        )
    return replace(wishes, classes=names)


def _json_file(data: bytes, wishes: PackageOptions) -> Converted:
    """Of XGBoost or CatBoost."""
    if b'"features_info"' in data and b'"learner"' not in data:
        from penstock.engine.models.packaging.boosters.catboost_model import catboost_file

        return catboost_file(data, wishes, kind="json")
    return xgboost_file(data, wishes)


def _cbm_file(data: bytes, wishes: PackageOptions) -> Converted:
    from penstock.engine.models.packaging.boosters.catboost_model import catboost_file

    return catboost_file(data, wishes, kind="cbm")


def _onnx_file(data: bytes, wishes: PackageOptions) -> Converted:
    from penstock.engine.models.packaging.onnx_original import convert_onnx

    return convert_onnx(data, wishes)


def _skops_file(data: bytes, wishes: PackageOptions) -> Converted:
    from penstock.engine.models.packaging.sklearn.stored.skops_files import load_skops

    return _sklearn(load_skops(data, trusted=wishes.trusted), wishes)


def _pmml_file(data: bytes, wishes: PackageOptions) -> Converted:
    from penstock.engine.models.packaging.pmml.convert import pmml_file

    return pmml_file(data, wishes)


def _sklearn(model: Any, wishes: PackageOptions) -> Converted:
    try:
        from penstock.engine.models.packaging.sklearn.convert import convert_sklearn_model
    except ImportError as error:
        raise ConfigError(missing_library("scikit-learn and skl2onnx")) from error
    return convert_sklearn_model(model, wishes)
