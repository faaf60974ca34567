"""scikit-learn estimators and pipelines: trees read by us, all else through skl2onnx with its losses made good."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import sklearn
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from penstock.engine.features.overrides import table_features
from penstock.engine.features.signature import Feature
from penstock.engine.models.packaging.convert import Converted, PackageOptions, of_forest
from penstock.engine.models.packaging.onnx_file import read_onnx
from penstock.engine.models.runtime.session import raw_runner
from penstock.engine.trees.onnx.write import write_forest
from penstock.engine.trees.readers.sklearn import is_trees, read_sklearn_trees, tree_kinds
from penstock.schemas.distribution import how_to_install
from penstock.schemas.errors import ConfigError

skops_types_trusted = (
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
)
"""What supported models contain beyond the types that skops itself holds to be safe."""
_target_opset = {"": 17, "ai.onnx.ml": 3}
_refusals = (ValueError, TypeError, RuntimeError, AttributeError, KeyError, NotImplementedError, IndexError)


def load_skops(data: bytes) -> Any:
    """The estimator in a .skops file. Raises ConfigError when it holds a type that is not on the list."""
    from zipfile import BadZipFile

    try:
        import skops.io
    except ImportError as error:
        raise ConfigError(f"reading .skops files needs skops: {how_to_install('package')}") from error
    try:
        strange = sorted(set(skops.io.get_untrusted_types(data=data)) - set(skops_types_trusted))
        if strange:
            raise ConfigError(f"the .skops file holds {strange[0]}, which is not a type that is trusted")
        return skops.io.loads(data, trusted=list(skops_types_trusted))
    except (*_refusals, BadZipFile, OSError) as error:
        raise ConfigError(f"the .skops file cannot be read: {error}") from error


def convert_sklearn_model(model: Any, wishes: PackageOptions) -> Converted:
    """A fitted estimator or pipeline. Raises ConfigError."""
    if isinstance(model, Pipeline):
        steps = [step for _, step in model.steps if step is not None and step != "passthrough"]
        if len(steps) == 1 and is_trees(steps[0]):
            model = steps[0]
    if is_trees(model):
        return _trees(model, wishes)
    return _through_skl2onnx(model, wishes)


def _trees(model: Any, wishes: PackageOptions) -> Converted:
    read = read_sklearn_trees(model, wishes.classes)
    categories = read.categories or {}
    width = read.forest.features
    own_names = getattr(model, "feature_names_in_", None)
    names = wishes.feature_names or (
        tuple(own_names.tolist()) if own_names is not None else tuple(f"f{index}" for index in range(width))
    )
    tables = {column: tuple(_text(value) for value in values) for column, values in categories.items()}
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
    notes, features = _without_missing(lambda rows: answer(given(rows)), features)
    return of_forest(
        read.forest,
        exponential=read.exponential,
        source=f"scikit-learn {sklearn.__version__}",
        features=features,
        cuts=read.cuts,
        predict=lambda rows: answer(given(rows)),
        notes=notes,
    )


def _without_missing(
    answer: Callable[[NDArray[np.float64]], Any], features: tuple[Feature, ...]
) -> tuple[tuple[str, ...], tuple[Feature, ...]]:
    """Features whose records are set aside when a value is missing, where the model refuses to answer then."""
    width = sum(feature.width for feature in features)
    changed, place = [], 0
    for feature in features:
        row = np.zeros((1, width))
        row[:, place : place + feature.width] = np.nan
        place += feature.width
        if feature.may_be_nan and not _answers(answer, row):
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


def _answers(answer: Callable[[NDArray[np.float64]], Any], rows: NDArray[np.float64]) -> bool:
    try:
        answer(rows)
    except _refusals:
        return False
    return True


def _through_skl2onnx(model: Any, wishes: PackageOptions) -> Converted:
    own_names = [str(name) for name in getattr(model, "feature_names_in_", ())]
    tables = _string_tables(model)
    by_name = bool(own_names) and any(isinstance(step, ColumnTransformer) for step in _steps(model))
    if tables and not by_name:
        raise ConfigError("the pipeline encodes strings but was not fitted on a data frame with column names")
    names = wishes.feature_names or (tuple(own_names) if own_names and not by_name else None)
    described = [{"name": name, "kind": "category", "categories": tables[name]} for name in tables]
    refusal = None
    # Scalers and encoders compute in float64, and trees behind them tell the difference; but not every operator can.
    for wide in (True, False):
        try:
            graph = read_onnx(
                _skl2onnx(model, own_names if by_name else None, tables, wide=wide),
                feature_names=names,
                overrides=_merged(described, wishes),
                classes=wishes.classes,
            )
            raw_runner(graph.model, graph.signature)
            return _beside_original(model, graph, own_names if by_name else None)
        except ConfigError as error:
            refusal = refusal or error
    raise refusal or ConfigError("skl2onnx cannot convert the model")


def _skl2onnx(model: Any, names: list[str] | None, tables: Mapping[str, list[str]], *, wide: bool) -> bytes:
    try:
        from skl2onnx import convert_sklearn
        from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
    except ImportError as error:
        raise ConfigError(f"this model needs skl2onnx: {how_to_install('package')}") from error
    number = DoubleTensorType if wide else FloatTensorType
    if names is None:
        inputs = [("features", number([None, int(getattr(model, "n_features_in_", 0))]))]
    else:
        inputs = [
            (name, StringTensorType([None, 1]) if name in tables else number([None, 1])) for name in names
        ]
    converters, shapes = _tree_converters()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            proto = convert_sklearn(
                model,
                name="model",  # the default is a random name, and the bundle's bytes would differ each time
                initial_types=inputs,
                target_opset=_target_opset,
                custom_conversion_functions=converters,
                custom_shape_calculators=shapes,
            )
    except _refusals as error:
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise ConfigError(f"skl2onnx cannot convert the {type(model).__name__}: {reason}") from error
    return bytes(proto.SerializeToString(deterministic=True))


def _merged(described: list[dict[str, Any]], wishes: PackageOptions) -> list[dict[str, Any]]:
    known = {item["name"]: item for item in described}
    for item in wishes.overrides:
        known[item["name"]] = {**known.get(item["name"], {}), **item}
    return list(known.values())


def _beside_original(model: Any, graph: Any, frame_names: list[str] | None) -> Converted:
    features = graph.signature.features

    def given(rows: NDArray[np.float64]) -> Any:
        if frame_names is None:
            return rows
        columns: list[NDArray[Any]] = []
        for index, feature in enumerate(features):
            if feature.kind == "category":
                table = np.array([*feature.categories, ""], dtype=object)
                columns.append(table[np.nan_to_num(rows[:, index], nan=len(table) - 1).astype(np.int64)])
            else:
                columns.append(rows[:, index])
        return _frame(frame_names, columns)

    notes, features = _without_missing(lambda rows: model.predict(given(rows)), features)
    by_width = {output.width: output.name for output in reversed(graph.outputs)}

    def score(rows: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        try:
            frame = given(rows)
            for method in ("predict_proba", "decision_function") if graph.labels else ("predict",):
                if not hasattr(model, method):
                    continue
                answers = np.asarray(getattr(model, method)(frame), dtype=np.float64).reshape(len(rows), -1)
                if answers.shape[1] == 1 and graph.labels:  # the graph says it of both classes
                    answers = np.concatenate((-answers, answers), axis=1)
                if answers.shape[1] in by_width:
                    return {by_width[answers.shape[1]]: answers}
            return {}
        except _refusals as error:
            raise ConfigError(f"the original model cannot predict the rows: {error}") from error

    def labels(rows: NDArray[np.float64]) -> NDArray[np.int64]:
        places = {label: place for place, label in enumerate(model.classes_.tolist())}
        return np.array([places[label] for label in model.predict(given(rows)).tolist()], dtype=np.int64)

    return Converted(
        source=f"scikit-learn {sklearn.__version__}",
        model=graph.model,
        forest=graph.forest,
        signature=replace(graph.signature, features=features),
        outputs=graph.outputs,
        labels=graph.labels,
        score=score,
        score_labels=labels if graph.labels else None,
        notes=(*graph.notes, *notes),
    )


def _frame(names: list[str], columns: Sequence[NDArray[Any]]) -> Any:
    import pandas

    return pandas.DataFrame(dict(zip(names, columns, strict=True)))


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _steps(model: Any) -> list[Any]:
    return [step for _, step in model.steps] if isinstance(model, Pipeline) else [model]


def _string_tables(model: Any) -> dict[str, list[str]]:
    """The categories of each string column that an encoder of the pipeline reads, by column name."""
    tables = {}
    for transformer in _steps(model):
        if not isinstance(transformer, ColumnTransformer):
            continue
        for _, step, columns in transformer.transformers_:
            encoders = [each for each in _steps(step) if isinstance(each, (OneHotEncoder, OrdinalEncoder))]
            if not encoders:
                continue
            for column, categories in zip(columns, encoders[0].categories_, strict=True):
                if categories.dtype.kind in "OUS":
                    tables[str(column)] = [
                        str(value) for value in categories.tolist() if value not in (None, "")
                    ]
    return tables


def _tree_converters() -> tuple[dict[type, Any], dict[type, Any]]:
    """Our own reading of trees inside a pipeline: skl2onnx forgets where missing values go."""
    from skl2onnx._supported_operators import _get_sklearn_operator_name
    from skl2onnx.common._registration import get_shape_calculator

    shapes = {kind: get_shape_calculator(_get_sklearn_operator_name(kind)) for kind in tree_kinds}
    return dict.fromkeys(tree_kinds, _add_trees), shapes


def _add_trees(scope: Any, operator: Any, container: Any) -> None:
    """Called by skl2onnx for each tree estimator of a pipeline."""
    read = read_sklearn_trees(operator.raw_operator)
    outputs = [variable.full_name for variable in operator.outputs]
    scores = scope.get_unique_variable_name("log") if read.exponential else outputs[-1]
    narrow = scope.get_unique_variable_name("narrow")
    proto = write_forest(
        replace(read.forest, output_name=scores),
        input_name=narrow,
        label_name=outputs[0] if read.forest.labels else "label",
    )
    names = {tensor.name: scope.get_unique_variable_name(tensor.name) for tensor in proto.graph.initializer}
    for tensor in proto.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor).tolist()
        container.add_initializer(names[tensor.name], tensor.data_type, list(tensor.dims), values)
    cast = onnx.helper.make_node("Cast", [operator.inputs[0].full_name], [narrow], to=onnx.TensorProto.FLOAT)
    last = [onnx.helper.make_node("Exp", [scores], outputs)] if read.exponential else []
    for node in [cast, *proto.graph.node, *last]:
        attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        container.add_node(
            node.op_type,
            [names.get(name, name) for name in node.input],
            list(node.output),
            op_domain=node.domain,
            op_version=_target_opset[node.domain],
            name=scope.get_unique_operator_name(node.op_type),
            **attributes,
        )
