"""Any model that can be packaged, brought into our form, with the original beside it to compare with."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.engine.features.overrides import Overrides, table_features
from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.engine.models.bundle.graph_checks import model_bytes_max
from penstock.engine.models.bundle.manifest import Labels, Meaning, ModelOutput
from penstock.engine.models.packaging.crowded import crowded
from penstock.engine.models.packaging.external_data import with_external_data
from penstock.engine.models.packaging.refused_files import refused_kinds
from penstock.engine.models.packaging.stored_trees import stored
from penstock.engine.models.packaging.trial import try_file
from penstock.engine.trees.forest import Forest, PostTransform
from penstock.schemas.distribution import how_to_install
from penstock.schemas.errors import ConfigError

Score = Callable[[NDArray[np.float64]], Mapping[str, NDArray[np.float64]]]
"""Outputs by name, each (R, K), of the original on matrix rows (R, F); a category is its code, missing is NaN.

Outputs that the original has no method for are left out, and reported as not compared.
"""
input_name = "features"
_foreign_errors = (ValueError, TypeError, RuntimeError, AttributeError, LookupError, ArithmeticError)
_of_table = "its {nodes:,} nodes are kept as a table for our tree kernel, on the CPU: ONNX Runtime takes ten times the memory for them"


@dataclass(frozen=True, kw_only=True, slots=True)
class PackageOptions:
    """What a person says of the model beyond its file."""

    feature_names: tuple[str, ...] | None = None
    overrides: Overrides = ()
    classes: tuple[str, ...] | None = None
    missing: float | None = None
    """A number that stands for a missing value in every number feature that names none of its own."""
    trusted: tuple[str, ...] = ()
    """Types that may be built from a .skops file besides those that are trusted anyway, by their full names."""
    tables: tuple[Any, ...] = ()
    """Data frames that were given as rows or background: their columns' types tell what the model was trained on."""


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
    """On rows as records hold them, in double precision."""
    score_table: Callable[[Any], Mapping[str, NDArray[np.float64]]] | None = None
    """The same of a data frame as somebody gave it, its types kept; None: it takes none."""
    compared_with: str = "predict"
    """The method of the original that `score` asks."""
    is_its_own_original: bool = False
    """`score` runs the very graph that is packaged: nothing is compared with the model it was made from."""
    score_labels: Callable[[NDArray[np.float64]], NDArray[np.int64]] | None = None
    """Class numbers (R,) as the original says them; None: the highest of the scores, as in the bundle."""
    notes: tuple[str, ...] = ()
    """What a person should know, a sentence each."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """More for the provenance."""
    table: Forest | None = None
    """The trees, where `model` is a table of them and no ONNX graph."""


def convert(model: Any, wishes: PackageOptions) -> Converted:
    """A path to a model file, or a live XGBoost, LightGBM or scikit-learn object. Raises ConfigError."""
    if isinstance(model, (str, Path)):
        return _convert_file(Path(model), wishes)
    module = type(model).__module__.partition(".")[0]
    if module == "lightgbm":
        booster = getattr(model, "booster_", model)
        return _lightgbm(booster.model_to_string(), _with_classes(wishes, model))
    if module == "catboost":
        from penstock.engine.models.packaging.catboost_model import catboost_model

        return catboost_model(model, _with_classes(wishes, model))
    if module == "xgboost":
        is_booster = not hasattr(model, "get_booster")
        booster = model if is_booster else model.get_booster()
        wishes = _with_classes(wishes, model)
        marker = getattr(model, "missing", None)
        if wishes.missing is None and marker is not None and not math.isnan(marker):
            wishes = replace(wishes, missing=float(marker))
        return _xgboost(booster, wishes, stop_at_best=not is_booster)
    if hasattr(model, "predict") and hasattr(model, "get_params"):
        return _sklearn(model, wishes)
    raise ConfigError(f"a {type(model).__name__} cannot be packaged; give a model file, or a fitted model")


def _convert_file(path: Path, wishes: PackageOptions) -> Converted:
    kinds = {".onnx": _onnx_file, ".txt": _lightgbm_file, ".json": _json_file, ".ubj": _xgboost_file}
    kinds |= {".skops": _skops_file, ".cbm": _cbm_file}
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
    return replace(wishes, classes=class_names(np.asarray(known).tolist()))


def class_names(values: Sequence[Any]) -> tuple[str, ...]:
    """What a classifier's classes are called, whichever way the model comes: whole numbers without a decimal point."""
    return tuple(
        str(int(value)) if isinstance(value, float) and value.is_integer() else str(value) for value in values
    )


def with_sentinel(features: tuple[Feature, ...], sentinel: float | None) -> tuple[Feature, ...]:
    """The features, a missing value of each number written as `sentinel` too where it names none of its own."""
    if sentinel is None:
        return features
    return tuple(
        feature
        if feature.kind == "category" or feature.sentinel is not None
        else replace(feature, sentinel=sentinel)
        for feature in features
    )


def _lightgbm_file(data: bytes, wishes: PackageOptions) -> Converted:
    try:
        text = data.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ConfigError("the LightGBM model is not a text file") from error
    from penstock.engine.trees.readers.lightgbm import read_lightgbm

    width = read_lightgbm(text, classes=wishes.classes).forest.features
    _import_lightgbm()
    try_file("lightgbm", text.encode(), rows_width=width)
    return _lightgbm(text, wishes)


def _import_lightgbm() -> Any:
    try:
        import lightgbm
    except ImportError as error:
        raise ConfigError(missing_library("lightgbm")) from error
    return lightgbm


def _lightgbm(text: str, wishes: PackageOptions) -> Converted:
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


def _json_file(data: bytes, wishes: PackageOptions) -> Converted:
    """Of XGBoost or CatBoost."""
    if b'"features_info"' in data and b'"learner"' not in data:
        from penstock.engine.models.packaging.catboost_model import catboost_file

        return catboost_file(data, wishes, kind="json")
    return _xgboost_file(data, wishes)


def _cbm_file(data: bytes, wishes: PackageOptions) -> Converted:
    from penstock.engine.models.packaging.catboost_model import catboost_file

    return catboost_file(data, wishes, kind="cbm")


def _xgboost_file(data: bytes, wishes: PackageOptions) -> Converted:
    try:
        import xgboost
    except ImportError as error:
        raise ConfigError(missing_library("xgboost")) from error
    from penstock.engine.models.packaging.linear_booster import is_linear, read_linear
    from penstock.engine.trees.readers.xgboost import read_xgboost

    if is_linear(data):
        width = read_linear(data, classes=wishes.classes).features
    else:
        width = read_xgboost(data, classes=wishes.classes).forest.features
    try_file("xgboost", data, rows_width=width)
    booster = xgboost.Booster()
    try:
        booster.load_model(bytearray(data))
    except xgboost.core.XGBoostError as error:
        raise ConfigError(f"XGBoost refuses the model: {_xgboost_reason(error)}") from error
    return _xgboost(booster, wishes, stop_at_best=None)


def _xgboost(booster: Any, wishes: PackageOptions, *, stop_at_best: bool | None) -> Converted:
    import xgboost

    from penstock.engine.models.packaging.linear_booster import is_linear, linear_booster
    from penstock.engine.trees.readers.xgboost import read_xgboost, xgboost_tree

    data = bytes(booster.save_raw("ubj"))
    if is_linear(data):
        return linear_booster(booster, data, wishes)
    read = read_xgboost(data, classes=wishes.classes, stop_at_best=stop_at_best)
    columns = read.forest.features
    names = wishes.feature_names or read.feature_names or tuple(f"f{index}" for index in range(columns))
    features = table_features(
        names, tables=read.categories, categorical=read.categorical, overrides=wishes.overrides
    )
    features = with_sentinel(features, wishes.missing)
    types = ["c" if index in read.categorical else "q" for index in range(columns)]
    objective = str(xgboost_tree(data)["learner"]["objective"]["name"])
    as_margin = objective == "multi:softmax"  # else it answers labels
    rounds = read.rounds

    def predict(rows: NDArray[np.float64]) -> NDArray[np.float64]:
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


def _xgboost_reason(error: Exception) -> str:
    """The sentence in an error of XGBoost: what stands behind its check, before the stack of C++."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next(
        (line for line in lines if not line.startswith(("Stack trace", "[bt]"))), "it says nothing more"
    )
    return said.rpartition("Check failed: ")[2].split(": ", 1)[-1] if "Check failed: " in said else said


def xgboost_meaning(objective: str) -> Meaning | None:
    """What the answers are, where they are neither a probability nor a value."""
    if objective.startswith("rank:"):
        return "rank"
    return "log_odds" if objective == "binary:logitraw" else None


def without_markers(
    rows: NDArray[np.float64], features: tuple[Feature, ...], *, besides: float | None
) -> NDArray[np.float64]:
    """The rows with NaN for the sentinels of features, but for the one that the library itself is told about."""
    marked = rows.copy()
    owners = [feature for feature in features for _ in range(feature.width)]
    for column, feature in enumerate(owners):
        if feature.sentinel is not None and feature.sentinel != besides:
            marked[marked[:, column].astype(np.float32) == np.float32(feature.sentinel), column] = np.nan
    return marked


def softmax(margins: NDArray[np.generic]) -> NDArray[np.float64]:
    """Row by row, in float64."""
    raised = np.asarray(margins, dtype=np.float64)
    raised = np.exp(raised - raised.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def _onnx_file(data: bytes, wishes: PackageOptions) -> Converted:
    from penstock.engine.models.packaging.onnx_original import convert_onnx

    return convert_onnx(data, wishes)


def _skops_file(data: bytes, wishes: PackageOptions) -> Converted:
    from penstock.engine.models.packaging.sklearn.skops_files import load_skops

    return _sklearn(load_skops(data, trusted=wishes.trusted), wishes)


def _sklearn(model: Any, wishes: PackageOptions) -> Converted:
    try:
        from penstock.engine.models.packaging.sklearn.convert import convert_sklearn_model
    except ImportError as error:
        raise ConfigError(missing_library("scikit-learn and skl2onnx")) from error
    return convert_sklearn_model(model, wishes)


def missing_library(name: str, *, extra: str = "package") -> str:
    """How to get what packaging a model needs."""
    return f"packaging this model needs {name}: {how_to_install(extra)}"


def of_forest(
    forest: Forest,
    *,
    exponential: bool,
    source: str,
    features: tuple[Feature, ...],
    predict: Callable[[NDArray[np.float64]], NDArray[np.generic]],
    notes: tuple[str, ...] = (),
    cuts: tuple[tuple[float, ...], ...] = (),
    compared_with: str | None = None,
    meaning: Meaning | None = None,
    predict_table: Callable[[Any], Any] | None = None,
) -> Converted:
    """A model that is trees and nothing else. `predict` is the original: (R,) or (R, K) answers of matrix rows; so is
    `predict_table`, of a data frame as it was given.

    With `exponential` the answer is exp(raw score): the raw score is an output too, since that is what adds up.
    `cuts`: see Signature. `meaning`: of the answer, where it is neither a probability nor a value.
    """
    name = forest.output_name
    shares = forest.labels or forest.post_transform in (PostTransform.LOGISTIC, PostTransform.SOFTMAX)
    meaning = meaning or ("probability" if shares else "value")
    outputs = [ModelOutput(name=name, width=forest.classes, meaning=meaning)]
    if exponential:
        forest = replace(forest, output_name=f"log_{name}")
        outputs.append(ModelOutput(name=forest.output_name, width=forest.classes, meaning="log"))
    model, table = stored(forest, input_name=input_name, exponential=name if exponential else "")
    if table is not None:
        notes = (*notes, _of_table.format(nodes=table.nodes))
        forest = table  # of two copies of a deep forest, the one that shares memory with the file

    def score(rows: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        try:
            found = predict(rows)
        except _foreign_errors as error:
            raise ConfigError(f"the original model cannot predict the rows: {error}") from error
        return outputs_of(found)

    def outputs_of(answers: Any) -> dict[str, NDArray[np.float64]]:
        found = np.asarray(answers, dtype=np.float64)
        found = found.reshape(len(found), -1)
        if forest.classes == 2 and found.shape[1] == 1 and forest.labels:
            found = np.concatenate((1 - found, found), axis=1)
        if not exponential:
            return {name: found}
        with np.errstate(divide="ignore"):
            return {name: found, forest.output_name: np.log(found)}

    return Converted(
        source=source,
        model=model,
        table=table,
        forest=forest,
        signature=Signature(
            features=features,
            inputs=(ModelInput(name=input_name, dtype="float32", start=0, width=forest.features),),
            cuts=cuts if any(cuts) else (),
        ),
        outputs=tuple(outputs),
        labels=Labels(classes=forest.labels, output=name, values=None) if forest.labels else None,
        score=score,
        score_table=None if predict_table is None else lambda table: outputs_of(predict_table(table)),
        compared_with=compared_with or ("predict_proba" if forest.labels else "predict"),
        notes=(*notes, *crowded(features, cuts)),
    )
