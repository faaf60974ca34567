"""A model that is trees and nothing else, and what its libraries have in common."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.engine.models.bundle.manifest import Labels, Meaning, ModelOutput
from penstock.engine.models.packaging.converted import Converted, input_name
from penstock.engine.models.packaging.crowded import crowded
from penstock.engine.models.packaging.stored_trees import stored
from penstock.engine.trees.forest import Forest, PostTransform
from penstock.schemas.errors import ConfigError

_foreign_errors = (ValueError, TypeError, RuntimeError, AttributeError, LookupError, ArithmeticError)
_of_table = "its {nodes:,} nodes are kept as a table for our tree kernel, on the CPU: ONNX Runtime takes ten times the memory for them"


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
    predict_classes: Callable[[NDArray[np.float64]], NDArray[np.int64]] | None = None,
) -> Converted:
    """A model that is trees and nothing else. `predict` is the original: (R,) or (R, K) answers of matrix rows; so is
    `predict_table`, of a data frame as it was given; `predict_classes`: the class numbers (R,) that it says itself, where it
    has a method of its own for them.

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
    model, table = stored(
        forest,
        input_name=input_name,
        exponential=name if exponential else "",
        numbers=[feature for feature, of_column in enumerate(cuts) if of_column],  # codes have none
    )
    if table is not None:
        notes = (*notes, _of_table.format(nodes=table.nodes))
        forest = table  # of two copies of a deep forest, the one that shares memory with the file

    def score(rows: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        try:
            found = predict(rows)
        except _foreign_errors as error:
            # XGBoost adds its stack of C++ calls, behind line ends that may be written out.
            why = " ".join(str(error).replace("\\n", "\n").partition("Stack trace")[0].split())
            raise ConfigError(f"the original model cannot predict the rows: {why.rstrip(': ')}") from error
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
        score_labels=predict_classes if forest.labels else None,
        compared_with=compared_with or ("predict_proba" if forest.labels else "predict"),
        notes=(*notes, *crowded(features, cuts)),
    )


def class_numbers(model: Any, rows: Any) -> NDArray[np.int64]:
    """The classes (R,) that a classifier of scikit-learn says of its rows, by their places in `classes_`.

    A subclass may say another class than the likeliest. Raises ConfigError where it refuses the rows.
    """
    places = {label: place for place, label in enumerate(np.asarray(model.classes_).tolist())}
    try:
        said = np.asarray(model.predict(rows))
        if said.ndim > 1:
            raise ConfigError(
                "a classifier of several targets has no place in a bundle: package one for each target"
            )
        return np.array([places[label] for label in said.tolist()], dtype=np.int64)
    except _foreign_errors as error:
        raise ConfigError(f"the original model cannot predict the rows: {error}") from error


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


def xgboost_meaning(objective: str) -> Meaning | None:
    """What the answers are, where they are neither a probability nor a value."""
    if objective.startswith("rank:"):
        return "rank"
    return "log_odds" if objective == "binary:logitraw" else None
