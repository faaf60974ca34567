"""XGBoost's gblinear: a line for each output, as an ONNX graph in double precision."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from penstock.engine.features.overrides import table_features
from penstock.engine.features.signature import ModelInput, Signature
from penstock.engine.models.bundle.manifest import Labels, ModelOutput
from penstock.engine.models.packaging.boosters.forest_model import (
    softmax,
    with_sentinel,
    without_markers,
    xgboost_meaning,
)
from penstock.engine.models.packaging.converted import Converted, PackageOptions, input_name
from penstock.engine.trees.forest import PostTransform
from penstock.engine.trees.readers.xgboost import Objective, base_scores, class_labels, xgboost_tree
from penstock.schemas.errors import ConfigError

_opset: Final = 17


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LinearModel:
    """x @ weights + bias, and what is made of it. A missing value counts as 0, as in XGBoost."""

    weights: NDArray[np.float64]  # (F, K)
    bias: NDArray[np.float64]  # (K,) with the base score
    objective: Objective
    objective_name: str
    labels: tuple[str, ...]
    feature_names: tuple[str, ...] | None

    @property
    def features(self) -> int:
        """F."""
        return len(self.weights)


def is_linear(data: bytes) -> bool:
    """Whether these bytes are a gblinear model. Raises ConfigError where they are no XGBoost model."""
    booster = xgboost_tree(data)["learner"].get("gradient_booster")
    return isinstance(booster, dict) and booster.get("name") == "gblinear"


def read_linear(data: bytes, *, classes: Sequence[str] | None = None) -> LinearModel:
    """A gblinear model in XGBoost's format. Raises ConfigError for what is malformed or cannot be kept."""
    try:
        learner = xgboost_tree(data)["learner"]
        facts, name = learner["learner_model_param"], str(learner["objective"]["name"])
        objective = Objective.parse(name)
        outputs = max(int(facts["num_class"]), int(facts.get("num_target", 1)), 1)
        table = np.array(learner["gradient_booster"]["model"]["weights"], dtype=np.float64)
        table = table.reshape(int(facts["num_feature"]) + 1, outputs)
        base = [objective.margin(score) for score in base_scores(facts["base_score"])]
        labels = class_labels(objective, facts, outputs, classes)
        bias = table[-1] + base[0]  # gblinear adds the first base score to every output
        if not np.isfinite(table).all() or len(table) < 2:
            raise ConfigError("the XGBoost model has a weight that is not finite, or none")
    except (KeyError, ValueError, IndexError, TypeError, AttributeError, ArithmeticError) as error:
        raise ConfigError(f"the XGBoost model is malformed: {type(error).__name__} {error}") from error
    named = learner.get("feature_names")
    return LinearModel(
        weights=table[:-1],
        bias=bias,
        objective=objective,
        objective_name=name,
        labels=labels,
        feature_names=tuple(named) if named else None,
    )


def linear_booster(booster: Any, data: bytes, wishes: PackageOptions) -> Converted:
    """A gblinear booster; `data` is what it saves. Raises ConfigError."""
    import xgboost

    from penstock.engine.models.packaging.boosters.xgboost_model import in_silence

    read = read_linear(data, classes=wishes.classes)
    names = wishes.feature_names or read.feature_names or tuple(f"f{index}" for index in range(read.features))
    features = table_features(names, tables={}, categorical=(), overrides=wishes.overrides)
    features = with_sentinel(features, wishes.missing)
    as_margin = read.objective_name == "multi:softmax"  # else it answers labels
    shares = read.objective.post_transform is not PostTransform.NONE
    name = "probabilities" if read.labels else "value"
    meaning = xgboost_meaning(read.objective_name) or ("probability" if shares else "value")

    def score(rows: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        with in_silence("rows"):
            matrix = xgboost.DMatrix(
                without_markers(rows, features, besides=wishes.missing),
                missing=np.nan if wishes.missing is None else wishes.missing,
                feature_names=booster.feature_names,
                nthread=1,
            )
            found = np.asarray(booster.predict(matrix, output_margin=as_margin), dtype=np.float64)
        found = (softmax(found) if as_margin else found).reshape(len(rows), -1)
        if len(read.labels) == 2 and found.shape[1] == 1:
            found = np.concatenate((1 - found, found), axis=1)
        return {name: found}

    return Converted(
        source=f"xgboost {xgboost.__version__}",
        model=_graph(read, name),
        forest=None,
        signature=Signature(
            features=features,
            inputs=(ModelInput(name=input_name, dtype="float32", start=0, width=read.features),),
        ),
        outputs=(ModelOutput(name=name, width=len(read.labels) or len(read.bias), meaning=meaning),),
        labels=Labels(classes=read.labels, output=name, values=None) if read.labels else None,
        score=score,
        compared_with="Booster.predict",
    )


def _graph(read: LinearModel, name: str) -> bytes:
    constants = {"weights": read.weights, "bias": read.bias, "zero": np.zeros(1), "one": np.ones(1)}
    nodes = [
        helper.make_node("Cast", [input_name], ["doubles"], to=TensorProto.DOUBLE),
        helper.make_node("IsNaN", ["doubles"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "doubles"], ["filled"]),
        helper.make_node("MatMul", ["filled", "weights"], ["weighed"]),
        helper.make_node("Add", ["weighed", "bias"], ["margin"]),
    ]
    after = "Exp" if read.objective.exponential else _operators.get(read.objective.post_transform)
    last = "margin"
    if after:
        made = helper.make_node(after, [last], ["answer"])
        if after == "Softmax":
            made.attribute.append(helper.make_attribute("axis", 1))
        nodes.append(made)
        last = "answer"
    if len(read.labels) == 2 and len(read.bias) == 1:
        nodes.append(helper.make_node("Sub", ["one", last], ["other"]))
        nodes.append(helper.make_node("Concat", ["other", last], ["both"], axis=1))
        last = "both"
    nodes.append(helper.make_node("Cast", [last], [name], to=TensorProto.FLOAT))
    used = {given for node in nodes for given in node.input}
    graph = helper.make_graph(
        nodes,
        "line",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, [None, read.features])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, len(read.labels) or len(read.bias)])],
        initializer=[numpy_helper.from_array(array, key) for key, array in constants.items() if key in used],
    )
    model = helper.make_model(
        graph, producer_name="penstock", ir_version=8, opset_imports=[helper.make_opsetid("", _opset)]
    )
    return bytes(model.SerializeToString(deterministic=True))


_operators: Final = {PostTransform.LOGISTIC: "Sigmoid", PostTransform.SOFTMAX: "Softmax"}
