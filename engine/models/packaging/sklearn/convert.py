"""scikit-learn estimators and pipelines: trees read by us, all else through skl2onnx with its losses made good."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline

from penstock.engine.features.overrides import described_features
from penstock.engine.features.signature import Feature
from penstock.engine.models.packaging.boosters.forest_model import class_numbers, of_forest
from penstock.engine.models.packaging.converted import Converted, PackageOptions
from penstock.engine.models.packaging.onnx_file import OnnxGraph, read_onnx
from penstock.engine.models.packaging.sklearn.answered_ranges import within_answered
from penstock.engine.models.packaging.sklearn.boosters import is_booster, is_xgboost
from penstock.engine.models.packaging.sklearn.column_types import (
    float32,
    given_numbers,
    types_known,
    why_rounded,
)
from penstock.engine.models.packaging.sklearn.columns import first_columns, inputs_of
from penstock.engine.models.packaging.sklearn.estimated.ties import undecided
from penstock.engine.models.packaging.sklearn.fold import fold, refused_because
from penstock.engine.models.packaging.sklearn.graph import (
    GraphAnswers,
    as_answered,
    graph_bytes,
    with_numbers,
)
from penstock.engine.models.packaging.sklearn.inputs import (
    Leaf,
    Rows,
    gives_sparse,
    leaves,
    note_read,
    settle,
    settle_types,
)
from penstock.engine.models.packaging.sklearn.notes import narrow_note, ties_note, untried_note
from penstock.engine.models.packaging.sklearn.stand_ins import narrowed_last
from penstock.engine.models.packaging.sklearn.surrogate import function_places, reads_columns, surrogate
from penstock.engine.models.packaging.sklearn.tails.published import of_sums
from penstock.engine.models.packaging.sklearn.texts.opened import (
    TextColumn,
    described,
    opened,
    reads_texts,
    text_name,
)
from penstock.engine.models.packaging.sklearn.tree_alone import (
    category_name,
    foreign_errors,
    is_answered,
    source,
    trees_alone,
    without_missing,
)
from penstock.engine.models.runtime.session import raw_runner
from penstock.engine.trees.class_names import class_names
from penstock.engine.trees.readers.sklearn import is_trees
from penstock.schemas.errors import ConfigError, ModelError

_below_functions = -2.0
"""Below it no logarithm and no root known by name is a number."""


def convert_sklearn_model(model: Any, wishes: PackageOptions) -> Converted:
    """A fitted estimator or pipeline. Raises ConfigError."""
    if isinstance(model, Pipeline):
        steps = [step for _, step in model.steps if step is not None and step != "passthrough"]
        if len(steps) == 1 and is_trees(steps[0]):
            model = steps[0]
    if isinstance(getattr(model, "classes_", None), list):
        raise ConfigError(
            "a classifier of several targets has no place in a bundle: package one for each target"
        )
    if is_trees(model):
        return trees_alone(model, wishes)
    return _Conversion(model, wishes).converted()


class _Conversion:
    """A model that is more than one estimator of trees."""

    def __init__(self, model: Any, wishes: PackageOptions) -> None:
        self._original, self._wishes = model, wishes
        self._opened = opened(model, _name_of_texts(wishes)) if reads_texts(model) else None
        self._model = model if self._opened is None else self._opened.model
        model = self._model
        self._inputs = inputs_of(model) if self._opened is None else self._opened.inputs
        self._rows = Rows(
            inputs=self._inputs,
            named=getattr(model, "feature_names_in_", None) is not None,
            apply=lambda rows: rows,
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                columns = first_columns(self._inputs)
                self._leaves: list[Leaf] = [*leaves(model, columns, self._inputs, self._rows)]
                note_read(self._inputs, self._leaves)
                settle_types(self._inputs, self._leaves, wishes.tables)
                settle(self._inputs, self._leaves)
                self._note_missing()
        except foreign_errors as error:
            raise ConfigError(
                f"the {type(model).__name__} is not fitted, or malformed: {_reason(error)}"
            ) from error
        classes = getattr(model, "classes_", None)
        self._classes = None if classes is None or not is_classifier(model) else np.asarray(classes).tolist()

    def _note_missing(self) -> None:
        """Of numbers: whether the model answers where they are missing, and where a function of them is not a number."""
        for place, given in enumerate(self._inputs):
            if given.is_read and not given.is_category and not given.is_word:
                given.takes_missing = self._takes(place, given.missing_value())
                given.takes_below = self._takes(place, np.array([_below_functions]))

    def _takes(self, place: int, value: NDArray[Any]) -> bool:
        values: list[NDArray[Any] | None] = [None] * len(self._inputs)
        values[place] = value
        return is_answered(lambda count: self._model.predict(self._rows.frame(values, count)), 1)

    def converted(self) -> Converted:
        """As one tree ensemble where that is possible, else as a graph of operators."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return self._as_trees()
            except ConfigError as error:
                notes = (refused_because(error),) if self._has_trees() else ()
            return self._as_graph(notes)

    def _has_trees(self) -> bool:
        return any(is_trees(leaf.estimator) or is_booster(leaf.estimator) for leaf in self._leaves)

    def _labels(self) -> tuple[str, ...]:
        if self._classes is None:
            return ()
        labels = self._wishes.classes or class_names(self._classes)
        if len(labels) != len(self._classes):
            raise ConfigError(
                f"{len(labels)} class names were given, the model has {len(self._classes)} classes"
            )
        return labels

    def _features(self, places: Sequence[int]) -> tuple[Feature, ...]:
        """The features that the matrix holds, as the original tells of them and a person adds."""
        items: list[tuple[str, list[int], TextColumn | None]] = (
            [(given.name, [place], None) for place, given in enumerate(self._inputs)]
            if self._opened is None
            else self._opened.items
        )
        read = set(places)
        kept = [item for item in items if not read.isdisjoint(item[1])]
        names = self._wishes.feature_names or [name for name, _, _ in items]
        if len(names) == len(items):
            names = [name for name, item in zip(names, items, strict=True) if item in kept]
        if len(names) != len(kept):
            raise ConfigError(f"{len(names)} features are named, the model reads {len(kept)}")
        found = []
        for name, (_, of_item, text) in zip(names, kept, strict=True):
            if text is not None:
                found.append(described(name, text))
                continue
            given = self._inputs[of_item[0]]
            item: dict[str, Any] = {"name": name, "kind": "category" if given.is_category else "number"}
            if given.is_category:
                item |= {"categories": [category_name(value) for value in given.values]}
                item |= {"missing": given.missing, "unseen": given.unseen}
            found.append(item)
        return described_features(found, self._wishes.overrides)

    def _as_trees(self) -> Converted:
        labels = self._labels()
        folded = fold(self._model, self._inputs, first_columns(self._inputs), self._rows, labels)
        every = range(len(self._inputs))
        places = [place for place in every if self._inputs[place].is_read]
        forest = folded.forest
        if len(places) < len(self._inputs):
            number = np.cumsum([given.is_read for given in self._inputs]) - 1
            feature = np.where(forest.feature < 0, -1, number[forest.feature]).astype(np.int32)
            forest = replace(forest, features=len(places), feature=feature)
        cuts = tuple(folded.cuts[place] for place in places) if folded.cuts else ()
        method = "predict_proba" if labels else "predict" if folded.tail is None else "decision_function"
        answer = getattr(self._model, method)
        features, notes = self._settled(self._features(places), places, answer)

        def classes(rows: NDArray[np.float64]) -> NDArray[np.int64]:
            return class_numbers(self._model, self._rows.of_matrix(rows, places))

        if folded.tail is not None:
            tail = folded.tail
            return of_sums(
                forest,
                tail,
                source=source(),
                features=features,
                labels=labels,
                cuts=cuts,
                notes=notes,
                predict=lambda rows: answer(self._rows.of_matrix(rows, places)),
                predict_table=lambda table: self._asked_about(table, method),
                ask=lambda rows: tail.ask(self._rows.of_matrix(rows, places)),
                compared_with=method,
                predict_classes=classes,
            )
        return of_forest(
            forest,
            exponential=folded.exponential,
            source=source(),
            features=features,
            predict=lambda rows: answer(self._rows.of_matrix(rows, places)),
            predict_table=lambda table: self._asked_about(table, method),
            notes=notes,
            cuts=cuts,
            compared_with=method,
            predict_classes=classes,
        )

    def _asked_about(self, table: Any, method: str) -> Any:
        """What the original itself answers to a table as somebody gave it."""
        ask = getattr(self._original, method)
        if self._opened is None:
            return ask(self._rows.of_table(table))
        return self._opened.asked(ask, table, named=self._rows.named)

    def _usual(self, places: Sequence[int]) -> NDArray[np.float64]:
        """A matrix row that the steps take."""
        chosen = [self._inputs[place] for place in places]
        return np.array([0.0 if given.is_category else float(given.usual) for given in chosen])

    def _settled(
        self, features: tuple[Feature, ...], places: Sequence[int], answer: Callable[[Any], Any]
    ) -> tuple[tuple[Feature, ...], tuple[str, ...]]:
        usual = np.array(
            [0.0 if self._inputs[place].is_category else float(self._inputs[place].usual) for place in places]
        )
        notes, features = without_missing(
            lambda rows: answer(self._rows.of_matrix(rows, places)), features, usual
        )
        more, features = within_answered(
            lambda rows: answer(self._rows.of_matrix(rows, places)), features, usual
        )
        notes = (*notes, *more)
        apart = [given.name for given in self._inputs if given.is_told_apart]
        if apart:
            notes = (
                *notes,
                f"the original answers None and NaN otherwise in {', '.join(apart)}: a record's null is taken for the one that "
                "its steps were fitted with",
            )
        untold = self._untold()
        if untold:
            notes = (
                *notes,
                f"a FunctionTransformer computes in whatever type a column has, and no data frame was given that tells it: "
                f"{', '.join(untold)} {'is' if len(untold) == 1 else 'are'} taken for double precision; give --rows or "
                "--background as they were in training",
            )
        return features, notes

    def _untold(self) -> list[str]:
        """Numbers that a function is given in a type which nobody told."""
        columns = [given.name for given in self._inputs if not given.is_word]
        if types_known(self._wishes.tables, columns, named=self._rows.named):
            return []
        places = function_places(self._model, len(self._inputs))
        chosen = [self._inputs[place] for place in sorted(places)]
        return [given.name for given in chosen if not given.is_category and not given.is_word]

    def _as_graph(self, notes: tuple[str, ...]) -> Converted:
        answers = GraphAnswers.of(self._model)
        self._refuse_gaps()
        copied, places = surrogate(self._model, self._inputs, self._rows)
        features, more = self._settled(self._features(places), places, answers.ask)
        names = tuple(column for feature in features for column in feature.columns)
        classes = self._labels() or (answers.groups if self._wishes.classes is None else self._wishes.classes)
        refusal: ConfigError | None = None
        # Scalers and encoders compute in float64, and trees behind them tell the difference; but not every operator can.
        forms = [(copied, True), (narrowed_last(copied), True), (copied, False)]
        numbers = [given for given in self._inputs if given.is_read and not given.is_discrete]
        if numbers and not reads_columns(self._model) and all(given.type is float32 for given in numbers):
            forms.insert(0, (copied, False))  # the original computes in float32 too
        for form, wide in forms:
            try:
                named, has_numbers = with_numbers(form, self._classes)
                data = graph_bytes(named, len(places), wide=wide)
                graph = read_onnx(data, feature_names=names, classes=classes or None)
                if has_numbers and graph.labels is not None:  # texts in it are those of members
                    order = tuple(range(len(graph.labels.classes)))
                    graph = replace(graph, labels=replace(graph.labels, values=order))
                graph = replace(graph, signature=replace(graph.signature, features=features))
                raw_runner(graph.model, graph.signature)
                graph = as_answered(
                    graph,
                    answers,
                    lambda rows: self._rows.of_matrix(rows, places),
                    features,
                    self._usual(places),
                    given_numbers(self._wishes.tables, features),
                )
                is_wide = wide and form is copied
                narrow = () if is_wide or not _is_inside(self._model, *_compare_doubles) else (narrow_note,)
                if not is_wide and not narrow and not self._wishes.tables:
                    narrow = (untried_note,)
                ties = (
                    (ties_note,)
                    if _is_inside(self._model, "KNeighbors", "RadiusNeighbors", "KNNImputer")
                    else ()
                )
                return self._beside(graph, answers, places, (*notes, *more, *narrow, *ties))
            except ConfigError as error:
                refusal = refusal or error
            except ModelError as error:
                refusal = refusal or ConfigError(
                    f"the operators of the {type(self._model).__name__} do not run in ONNX Runtime: {_reason(error)}"
                )
        raise refusal or ConfigError(f"the {type(self._model).__name__} cannot be packaged")

    def _refuse_gaps(self) -> None:
        """Raises ConfigError where zeros are missing values to a booster inside a graph."""
        for leaf in self._leaves:
            if is_xgboost(leaf.estimator) and gives_sparse(leaf.rows):
                raise ConfigError(
                    "XGBoost is given a sparse matrix, in which it takes every zero for a missing value, beside other models or behind "
                    "steps that mix columns: give it ColumnTransformer(..., sparse_threshold=0), or let it be the last step"
                )

    def _beside(
        self, graph: OnnxGraph, answers: GraphAnswers, places: Sequence[int], notes: tuple[str, ...]
    ) -> Converted:
        def score(rows: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
            try:
                return answers.of_outputs(graph.outputs, self._rows.of_matrix(rows, places))
            except foreign_errors as error:
                raise ConfigError(f"the original model cannot predict the rows: {_reason(error)}") from error

        def labels(rows: NDArray[np.float64]) -> NDArray[np.int64]:
            return answers.labels(self._rows.of_matrix(rows, places))

        original = GraphAnswers.of(self._original)
        ties = undecided(self._model, self._rows)

        def score_table(table: Any) -> dict[str, NDArray[np.float64]]:
            found = original.made_of(self._asked_about(table, original.method))
            return original.by_output(graph.outputs, found)

        return Converted(
            source=source(),
            model=graph.model,
            forest=graph.forest,
            signature=graph.signature,
            outputs=graph.outputs,
            labels=graph.labels,
            score=score,
            score_table=score_table,
            score_labels=labels if graph.labels else None,
            undecided=None if ties is None else lambda rows: ties(self._rows.of_matrix(rows, places)),
            compared_with=answers.method,
            decided_by_rounding=why_rounded(self._inputs),
            notes=(*(note for note in graph.notes if not notes), *notes),
        )


def _name_of_texts(wishes: PackageOptions) -> str:
    """Of a model that takes texts alone."""
    names = wishes.feature_names or [item["name"] for item in wishes.overrides if "name" in item]
    return names[0] if len(names) == 1 else text_name


_compare_doubles = ("LGBM", "HistGradientBoosting")
"""How the boosters begin that compare in double precision."""


def _is_inside(model: Any, *names: str) -> bool:
    """Whether the model, or a member, is of a type whose name begins so."""
    members = [model, *model.get_params(deep=True).values()]
    return any(type(each).__name__.startswith(names) for each in members)


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
