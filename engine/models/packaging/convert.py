"""Any model that can be packaged, brought into our form, with the original beside it to compare with."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from penstock.engine.features.overrides import Overrides, table_features
from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.engine.models.bundle.manifest import Labels, ModelOutput
from penstock.engine.models.runtime.session import raw_runner
from penstock.engine.trees.forest import Forest
from penstock.engine.trees.onnx.write import write_forest
from penstock.schemas.distribution import how_to_install
from penstock.schemas.errors import ConfigError

Score = Callable[[NDArray[np.float64]], Mapping[str, NDArray[np.float64]]]
"""Outputs by name, each (R, K), of the original on matrix rows (R, F); a category is its code, missing is NaN."""
input_name = "features"
_foreign_errors = (ValueError, TypeError, RuntimeError)


@dataclass(frozen=True, kw_only=True, slots=True)
class PackageOptions:
    """What a person says of the model beyond its file."""

    feature_names: tuple[str, ...] | None = None
    overrides: Overrides = ()
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Converted:
    """A model on its way into a bundle."""

    source: str
    """The library that made it, with its version."""
    model: bytes
    forest: Forest | None
    """The graph as trees over the matrix columns, where it is nothing but trees."""
    signature: Signature
    outputs: tuple[ModelOutput, ...]
    labels: Labels | None
    score: Score
    score_labels: Callable[[NDArray[np.float64]], NDArray[np.int64]] | None = None
    """Class numbers (R,) as the original says them; None: the highest of the scores, as in the bundle."""
    notes: tuple[str, ...] = ()
    """What a person should know, a sentence each."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """More for the provenance."""


def convert(model: Any, wishes: PackageOptions) -> Converted:
    """A path to a model file, or a live XGBoost, LightGBM or scikit-learn object. Raises ConfigError."""
    if isinstance(model, (str, Path)):
        return _convert_file(Path(model), wishes)
    module = type(model).__module__.partition(".")[0]
    if module == "lightgbm":
        booster = getattr(model, "booster_", model)
        return _lightgbm(booster.model_to_string(), _with_classes(wishes, model))
    if module == "xgboost":
        is_booster = not hasattr(model, "get_booster")
        booster = model if is_booster else model.get_booster()
        return _xgboost(booster, _with_classes(wishes, model), stop_at_best=not is_booster)
    if hasattr(model, "predict") and hasattr(model, "get_params"):
        return _sklearn(model, wishes)
    raise ConfigError(f"a {type(model).__name__} cannot be packaged; give a model file, or a fitted model")


def _convert_file(path: Path, wishes: PackageOptions) -> Converted:
    kinds = {".onnx": _onnx_file, ".txt": _lightgbm_file, ".json": _xgboost_file, ".ubj": _xgboost_file}
    kinds[".skops"] = _skops_file
    if path.suffix not in kinds:
        raise ConfigError(
            f"{path.name} is not a model file that can be packaged; known are {', '.join(sorted(kinds))}"
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    converted = kinds[path.suffix](data, wishes)
    digest = hashlib.sha256(data).hexdigest()
    return replace(converted, facts={**converted.facts, "file_sha256": digest})


def _with_classes(wishes: PackageOptions, model: Any) -> PackageOptions:
    """The class names that a live classifier remembers, unless others are asked for."""
    known = getattr(model, "classes_", None)
    if wishes.classes is not None or known is None:
        return wishes
    return replace(wishes, classes=tuple(str(name) for name in np.asarray(known).tolist()))


def _lightgbm_file(data: bytes, wishes: PackageOptions) -> Converted:
    try:
        return _lightgbm(data.decode("utf-8"), wishes)
    except UnicodeDecodeError as error:
        raise ConfigError("the LightGBM model is not a text file") from error


def _lightgbm(text: str, wishes: PackageOptions) -> Converted:
    from penstock.engine.trees.readers.lightgbm import read_lightgbm

    try:
        import lightgbm
    except ImportError as error:
        raise ConfigError(_missing_library("lightgbm")) from error
    read = read_lightgbm(text, classes=wishes.classes)
    try:
        booster = lightgbm.Booster(model_str=text)
    except lightgbm.basic.LightGBMError as error:
        raise ConfigError(f"LightGBM refuses the model: {error}") from error
    names = wishes.feature_names or read.feature_names
    features = table_features(
        names, tables=read.categories, categorical=read.categorical, overrides=wishes.overrides
    )
    return of_forest(
        read.forest,
        exponential=read.exponential,
        source=f"lightgbm {lightgbm.__version__}",
        features=features,
        predict=lambda rows: np.asarray(booster.predict(rows, num_threads=1)),
    )


def _xgboost_file(data: bytes, wishes: PackageOptions) -> Converted:
    try:
        import xgboost
    except ImportError as error:
        raise ConfigError(_missing_library("xgboost")) from error
    booster = xgboost.Booster()
    try:
        booster.load_model(bytearray(data))
    except xgboost.core.XGBoostError as error:
        raise ConfigError(f"XGBoost refuses the model: {str(error).strip().splitlines()[-1]}") from error
    return _xgboost(booster, wishes, stop_at_best=None)


def _xgboost(booster: Any, wishes: PackageOptions, *, stop_at_best: bool | None) -> Converted:
    import xgboost

    from penstock.engine.trees.readers.xgboost import read_xgboost

    data = bytes(booster.save_raw("json"))
    read = read_xgboost(data, classes=wishes.classes, stop_at_best=stop_at_best)
    columns = read.forest.features
    names = wishes.feature_names or read.feature_names or tuple(f"f{index}" for index in range(columns))
    features = table_features(
        names, tables=read.categories, categorical=read.categorical, overrides=wishes.overrides
    )
    types = ["c" if index in read.categorical else "q" for index in range(columns)]
    as_margin = json.loads(data)["learner"]["objective"]["name"] == "multi:softmax"  # else it answers labels

    def predict(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        matrix = xgboost.DMatrix(
            rows.astype(np.float32),
            feature_types=booster.feature_types or types,
            feature_names=booster.feature_names,
            enable_categorical=True,
            nthread=1,
        )
        found = booster.predict(matrix, iteration_range=(0, read.rounds), output_margin=as_margin)
        return _softmax(found) if as_margin else np.asarray(found, dtype=np.float64)

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
    )


def _softmax(margins: NDArray[np.generic]) -> NDArray[np.float64]:
    raised = np.asarray(margins, dtype=np.float64)
    raised = np.exp(raised - raised.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def _onnx_file(data: bytes, wishes: PackageOptions) -> Converted:
    from penstock.engine.models.packaging.onnx_file import read_onnx

    graph = read_onnx(
        data, feature_names=wishes.feature_names, overrides=wishes.overrides, classes=wishes.classes
    )
    run = raw_runner(data, graph.signature)
    labels = graph.labels if graph.labels and graph.labels.values is not None else None

    def score(rows: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        found = run(rows.astype(graph.signature.dtype))
        return {output.name: _plain(found[output.name], len(rows)) for output in graph.outputs}

    def score_labels(rows: NDArray[np.float64]) -> NDArray[np.int64]:
        assert labels is not None
        assert labels.values is not None
        places = {value: place for place, value in enumerate(labels.values)}
        found = run(rows.astype(graph.signature.dtype))[labels.output]
        return np.array([places[value] for value in np.asarray(found).reshape(-1).tolist()], dtype=np.int64)

    return Converted(
        source="onnx",
        model=graph.model,
        forest=graph.forest,
        signature=graph.signature,
        outputs=graph.outputs,
        labels=graph.labels,
        score=score,
        score_labels=score_labels if labels else None,
        notes=graph.notes,
    )


def _plain(answers: Any, rows: int) -> NDArray[np.float64]:
    """Scores as a matrix; a ZipMap answers a dictionary for each row, classes in order."""
    if isinstance(answers, list):
        answers = [list(answer.values()) for answer in answers]
    return np.asarray(answers, dtype=np.float64).reshape(rows, -1)


def _skops_file(data: bytes, wishes: PackageOptions) -> Converted:
    from penstock.engine.models.packaging.sklearn import load_skops

    return _sklearn(load_skops(data), wishes)


def _sklearn(model: Any, wishes: PackageOptions) -> Converted:
    try:
        from penstock.engine.models.packaging.sklearn import convert_sklearn_model
    except ImportError as error:
        raise ConfigError(_missing_library("scikit-learn and skl2onnx")) from error
    return convert_sklearn_model(model, wishes)


def _missing_library(name: str) -> str:
    return f"packaging this model needs {name}: {how_to_install('package')}"


def of_forest(
    forest: Forest,
    *,
    exponential: bool,
    source: str,
    features: tuple[Feature, ...],
    predict: Callable[[NDArray[np.float64]], NDArray[np.generic]],
    notes: tuple[str, ...] = (),
) -> Converted:
    """A model that is trees and nothing else. `predict` is the original: (R,) or (R, K) answers of matrix rows.

    With `exponential` the answer is exp(raw score): the raw score is an output too, since that is what adds up.
    """
    name = forest.output_name
    outputs = [ModelOutput(name=name, width=forest.classes)]
    if exponential:
        forest = replace(forest, output_name=f"log_{name}")
        outputs.append(ModelOutput(name=forest.output_name, width=forest.classes))
    proto = write_forest(forest, input_name=input_name)
    if exponential:
        proto.graph.node.append(helper.make_node("Exp", [forest.output_name], [name]))
        proto.graph.output.insert(
            0, helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, forest.classes])
        )

    def score(rows: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        try:
            found = np.asarray(predict(rows), dtype=np.float64)
        except _foreign_errors as error:
            raise ConfigError(f"the original model cannot predict the rows: {error}") from error
        found = found.reshape(len(rows), -1)
        if forest.classes == 2 and found.shape[1] == 1 and forest.labels:
            found = np.concatenate((1 - found, found), axis=1)
        return {name: found}

    return Converted(
        source=source,
        model=proto.SerializeToString(deterministic=True),
        forest=forest,
        signature=Signature(
            features=features,
            inputs=(ModelInput(name=input_name, dtype="float32", start=0, width=forest.features),),
        ),
        outputs=tuple(outputs),
        labels=Labels(classes=forest.labels, output=name, values=None) if forest.labels else None,
        score=score,
        notes=notes,
    )
