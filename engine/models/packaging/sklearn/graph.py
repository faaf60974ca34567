"""A scikit-learn model as an ONNX graph, and which method of the original each output of that graph repeats."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.base import is_classifier, is_clusterer, is_outlier_detector
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import VotingClassifier
from sklearn.pipeline import FeatureUnion, Pipeline

from penstock.engine.features.narrowing import as_fed
from penstock.engine.features.signature import Feature
from penstock.engine.models.bundle.manifest import Meaning, ModelOutput
from penstock.engine.models.packaging.answered import answered
from penstock.engine.models.packaging.boosters.forest_model import class_numbers
from penstock.engine.models.packaging.converted import input_name, refused_mark
from penstock.engine.models.packaging.onnx_file import OnnxGraph
from penstock.engine.models.packaging.sklearn.committees.stand_ins import shares_of, weights_of
from penstock.engine.models.packaging.sklearn.members import members, wrapped
from penstock.engine.models.runtime.session import raw_runner
from penstock.schemas.distribution import how_to_install
from penstock.schemas.errors import ConfigError

_opsets = (17, 21)
"""The second where a converter asks for a newer one."""
_sample_rows = 64
_near = 1e-3
_foreign_errors = (
    ValueError, TypeError, RuntimeError, AttributeError, LookupError, AssertionError, NameError, ArithmeticError
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GraphAnswers:
    """What the original answers, and by which method."""

    model: Any
    method: str
    name: str
    """What the output is called."""
    meaning: Meaning
    groups: tuple[str, ...] = ()
    """Of a clusterer: its clusters, by number."""
    voters: NDArray[np.float64] | None = None
    """Of a vote by majority: the weights of its members, whose classes the method answers."""

    @staticmethod
    def of(model: Any) -> "GraphAnswers":
        """The method whose numbers a record's prediction is made of. Raises ConfigError where the estimator has no such method."""
        if is_classifier(model):
            if hasattr(model, "predict_proba"):
                return GraphAnswers(
                    model=model, method="predict_proba", name="probabilities", meaning="probability"
                )
            if hasattr(model, "decision_function"):
                return GraphAnswers(
                    model=model, method="decision_function", name="decision", meaning="decision"
                )
            last = _last(model)
            if isinstance(last, VotingClassifier):
                return GraphAnswers(
                    model=model,
                    method="transform",
                    name="votes",
                    meaning="probability",
                    voters=weights_of(last),
                )
            raise ConfigError(
                f"{type(last).__name__} answers neither probabilities nor a decision, only classes: nothing of them could be explained"
            )
        if is_outlier_detector(model):
            return GraphAnswers(
                model=model, method="decision_function", name="anomaly_score", meaning="anomaly_score"
            )
        last = _last(model)
        if hasattr(last, "n_components") and hasattr(model, "predict_proba"):  # a mixture
            groups = tuple(str(number) for number in range(last.n_components))
            return GraphAnswers(
                model=model,
                method="predict_proba",
                name="probabilities",
                meaning="probability",
                groups=groups,
            )
        if is_clusterer(model):
            if not hasattr(model, "predict"):
                raise ConfigError(
                    f"{type(last).__name__} cannot say to which cluster a new record belongs: use KMeans"
                )
            if not hasattr(last, "cluster_centers_") or not hasattr(model, "transform"):
                raise ConfigError(
                    f"{type(last).__name__} answers clusters alone, without the distance of a record from each: use KMeans; from the "
                    "centers that were found, KMeans(len(centers), init=centers, n_init=1, max_iter=1).fit(centers)"
                )
            groups = tuple(str(number) for number in range(len(last.cluster_centers_)))
            return GraphAnswers(
                model=model, method="transform", name="distances", meaning="cluster", groups=groups
            )
        if not hasattr(model, "predict"):
            raise ConfigError(
                f"{type(last).__name__} predicts nothing: package the pipeline that ends in a model"
            )
        return GraphAnswers(model=model, method="predict", name="value", meaning="value")

    def ask(self, rows: Any) -> NDArray[np.float64]:
        """Its answers (R, K) to the original's rows."""
        return self.made_of(getattr(self.model, self.method)(rows))

    def made_of(self, found: Any) -> NDArray[np.float64]:
        """Its answers (R, K), of what its method answers."""
        if self.voters is not None:
            return shares_of(np.asarray(found, dtype=np.int64), self.voters, len(self.model.classes_))
        numbers: NDArray[np.float64] = np.asarray(found, dtype=np.float64)
        return numbers.reshape(len(numbers), -1)

    def labels(self, rows: Any) -> NDArray[np.int64]:
        """Its classes or clusters (R,), by number."""
        if self.groups:
            return np.asarray(self.model.predict(rows)).astype(np.int64)
        return class_numbers(self.model, rows)

    def of_outputs(self, outputs: Sequence[ModelOutput], rows: Any) -> dict[str, NDArray[np.float64]]:
        """Its answers by the output of the graph that repeats them."""
        return self.by_output(outputs, self.ask(rows))

    def by_output(
        self, outputs: Sequence[ModelOutput], answers: NDArray[np.float64]
    ) -> dict[str, NDArray[np.float64]]:
        """Answers of its method by the output of the graph that repeats them."""
        answers = answers.reshape(len(answers), -1)
        (output,) = outputs
        if answers.shape[1] == 1 and output.width == 2:  # the graph says it of both classes
            answers = np.concatenate((-answers, answers), axis=1)
        return {output.name: answers}


def _last(model: Any) -> Any:
    """The estimator that answers in the end: behind steps, of a search what it found."""
    if isinstance(model, Pipeline):
        return _last(model.steps[-1][1])
    inner = members(model)
    found = hasattr(model, "best_estimator_") or type(model).__name__ in wrapped
    return _last(inner[0]) if found and inner else model


def with_numbers(model: Any, classes: Sequence[Any] | None) -> tuple[Any, bool]:
    """The model with its classes called 0, 1, 2, ..., and whether they are; whole numbers stay as they are.

    Texts stay where a model does not let itself be changed. Raises ConfigError for other classes then.
    """
    if classes is None or all(type(value) is int for value in classes):
        return model, False
    try:
        return _numbered(model), True
    except ConfigError:
        if not all(type(value) in (int, str) for value in classes):
            raise
    return model, False


def graph_bytes(model: Any, width: int, *, wide: bool) -> bytes:
    """The graph of a surrogate (see surrogate.py) of so many columns, double or float. Raises ConfigError."""
    refusal = ""
    for opset in _opsets:
        try:
            return _converted(model, width, wide=wide, opset=opset)
        except _foreign_errors as error:
            refusal = refusal or (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    if "shape calculator" in refusal:  # skl2onnx does not know it
        refusal = "use another step or estimator, or compute what it makes before the stream"
    raise ConfigError(f"{_unsupported(model)} has no way into ONNX: {refusal}")


def _converted(model: Any, width: int, *, wide: bool, opset: int) -> bytes:
    try:
        from skl2onnx import convert_sklearn
        from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
    except ImportError as error:
        raise ConfigError(f"this model needs skl2onnx: {how_to_install('package')}") from error
    from penstock.engine.models.packaging.sklearn.operators.registration import register

    register()
    proto = convert_sklearn(
        model,
        name="model",  # the default is a random name, and the bundle's bytes would differ each time
        initial_types=[(input_name, (DoubleTensorType if wide else FloatTensorType)([None, width]))],
        target_opset={"": opset, "ai.onnx.ml": 3},
    )
    return bytes(proto.SerializeToString(deterministic=True))


def _numbered(model: Any) -> Any:
    """A copy whose classes are called 0, 1, 2, ..., as the graph has no name for theirs."""
    copied = copy.copy(model)
    if isinstance(model, Pipeline):
        name, last = model.steps[-1]
        return Pipeline([*model.steps[:-1], (name, _numbered(last))])
    known = getattr(model, "classes_", None)
    if isinstance(known, np.ndarray):
        try:
            copied.classes_ = np.arange(len(known))
        except AttributeError as error:
            raise ConfigError(
                f"{type(model).__name__} has classes that are neither whole numbers nor texts: train it on 0 and 1"
            ) from error
    for each in getattr(model, "calibrated_classifiers_", ()):
        each.classes = np.arange(len(each.classes))
    return copied


def _unsupported(model: Any) -> str:
    """The part of a model that skl2onnx does not know, as a message names it; the model itself where it knows them all."""
    from penstock.engine.models.packaging.sklearn.operators.registration import is_known

    for name, part in _parts(model, type(model).__name__):
        if isinstance(part, (Pipeline, ColumnTransformer, FeatureUnion)) or is_known(part):
            continue
        return f"step {name} ({type(part).__name__})" if part is not model else f"a {type(part).__name__}"
    is_ours = type(model).__module__.startswith("penstock.")  # a stand-in, whose name nobody knows
    return "what the model is made of" if is_ours else f"the {type(model).__name__}"


def _parts(model: Any, name: str) -> Iterator[tuple[str, Any]]:
    inner: list[tuple[str, Any]] = []
    if isinstance(model, Pipeline):
        inner = list(model.steps)
    elif isinstance(model, ColumnTransformer):
        inner = [(each, part) for each, part, _ in model.transformers_]
    elif isinstance(model, FeatureUnion):
        inner = list(model.transformer_list)
    else:
        inner = [(type(each).__name__, each) for each in members(model)]
    for each, part in inner:
        if part is not None and not isinstance(part, str):
            yield from _parts(part, each)
    yield name, model


def as_answered(
    graph: OnnxGraph,
    answers: GraphAnswers,
    rows: Callable[[NDArray[np.float64]], Any],
    features: Sequence[Feature],
    usual: NDArray[np.float64],
    given: NDArray[np.float64],
) -> OnnxGraph:
    """The graph with the one output that repeats the original's answers, in their order and with their sign. Tried on rows around a
    usual one (F,), and on those given (R, F)."""
    sample = np.concatenate((_sample(features, usual), given))
    sample = sample[answered(lambda some: answers.ask(rows(some)), sample)]
    if not len(sample):
        raise ConfigError(
            f"the {type(answers.model).__name__} refuses every row made up to try it on, so that it cannot be compared: give --rows that it answers"
        )
    expected = answers.ask(rows(sample))
    found = raw_runner(graph.model, graph.signature)(as_fed(sample, graph.signature))
    best: tuple[float, str, NDArray[np.float64], NDArray[np.int64] | None] | None = None
    for output in graph.outputs:
        if len(found[output.name]) != len(sample):
            raise ConfigError(
                f"{_unsupported(answers.model)} has no way into ONNX: its graph answers {len(found[output.name])} of {len(sample)} records"
            )
        scores = np.asarray(found[output.name], dtype=np.float64).reshape(len(sample), -1)
        for wanted, change in _forms(expected, scores.shape[1]):
            off = float(np.nanmax(np.abs(scores - wanted) / np.maximum(1.0, np.abs(wanted)), initial=0.0))
            if best is None or off < best[0]:
                best = off, output.name, scores, change
    if best is None:
        widths = ", ".join(str(output.width) for output in graph.outputs)
        raise ConfigError(
            f"the graph answers {widths} numbers a record, {answers.method} of the original {expected.shape[1]}"
        )
    off, name, scores, change = best
    proto = onnx.ModelProto.FromString(graph.model)
    _keep(proto.graph, name, scores.shape[1], answers.name, change if off < _near else None)
    output = ModelOutput(name=answers.name, width=scores.shape[1], meaning=answers.meaning)
    labels = graph.labels
    if labels is not None and labels.output == name:
        labels = replace(labels, output=answers.name)
    return replace(graph, model=proto.SerializeToString(deterministic=True), outputs=(output,), labels=labels)


def _forms(
    expected: NDArray[np.float64], width: int
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64] | None]]:
    """The original's answers as converters write them, and how the columns come back from there: places, -1 - place where
    the sign is turned."""
    if expected.shape[1] == width:
        yield expected, None
        if width == 1:
            yield -expected, np.array([-1])
    if expected.shape[1] == 1 and width == 2:
        both = np.concatenate((-expected, expected), axis=1)
        yield both, None
        yield both[:, ::-1], np.array([1, 0])


def _keep(
    graph: onnx.GraphProto, name: str, width: int, called: str, change: NDArray[np.int64] | None
) -> None:
    """Leave the labels and this output, under another name; columns changed as asked."""
    source = name
    if change is not None and width == 1:
        graph.node.append(helper.make_node("Neg", [source], ["turned"]))
        source = "turned"
    elif change is not None:
        graph.initializer.append(numpy_helper.from_array(change.astype(np.int64), "column_order"))
        graph.node.append(helper.make_node("Gather", [source, "column_order"], ["reordered"], axis=1))
        source = "reordered"
    kind = next(item.type.tensor_type.elem_type for item in graph.output if item.name == name)
    source = _without_refused(graph, source, kind)
    kept = [
        item
        for item in graph.output
        if item.type.tensor_type.elem_type in (TensorProto.INT64, TensorProto.STRING)
    ]
    if any(called in (*node.input, *node.output) for node in graph.node) and called != name:
        for node in graph.node:
            node.input[:] = [f"inner_{each}" if each == called else each for each in node.input]
            node.output[:] = [f"inner_{each}" if each == called else each for each in node.output]
    if called != source:
        graph.node.append(helper.make_node("Identity", [source], [called]))
    graph.ClearField("output")
    graph.output.extend([*kept, helper.make_tensor_value_info(called, kind, [None, width])])


def _without_refused(graph: onnx.GraphProto, source: str, kind: int) -> str:
    """NaN in place of what an estimator inside would have refused to answer: what steps make of a record may be infinite."""
    marks = [name for node in graph.node for name in node.output if name.startswith(refused_mark)]
    if not marks:
        return source
    total = marks[0]
    for place, mark in enumerate(marks[1:]):
        graph.node.append(helper.make_node("Or", [total, mark], [f"refused_upto_{place}"]))
        total = f"refused_upto_{place}"
    nothing = np.array([np.nan], dtype=np.float64 if kind == TensorProto.DOUBLE else np.float32)
    graph.initializer.append(numpy_helper.from_array(nothing, "unanswered"))
    graph.node.append(helper.make_node("Where", [total, "unanswered", source], ["answers_or_nothing"]))
    return "answers_or_nothing"


def _sample(features: Sequence[Feature], usual: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows around a usual one (F,)."""
    random = np.random.default_rng(0)
    rows = usual + random.normal(size=(_sample_rows, len(usual)))
    rows[: _sample_rows // 4] = usual  # where numbers stand for classes, others are refused
    owners = [feature for feature in features for _ in range(feature.width)]
    for column, feature in enumerate(owners):
        if feature.kind == "text":
            rows[:, column] = np.maximum(rows[:, column], 0.0)
        if feature.kind == "category":
            rows[:, column] = random.integers(0, len(feature.categories), _sample_rows)
    return rows
