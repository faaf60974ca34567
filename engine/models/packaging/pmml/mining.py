"""Mining models: several models whose answers are added, averaged, counted, chosen from or given to the next one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from penstock.engine.models.packaging.pmml.answers import (
    Answer,
    Chosen,
    Linked,
    Shares,
    Total,
    TreeSum,
    value_of,
)
from penstock.engine.models.packaging.pmml.derived import expression_of
from penstock.engine.models.packaging.pmml.elements import Element, as_number
from penstock.engine.models.packaging.pmml.expressions import Constant, Expression
from penstock.engine.models.packaging.pmml.fields import Field, Scope
from penstock.engine.models.packaging.pmml.predicates import Predicate, PredicateReader, always
from penstock.engine.models.packaging.pmml.tree_model import Guard, Node, TreeCompiler

model_names: Final = (
    "AnomalyDetectionModel", "AssociationModel", "BaselineModel", "BayesianNetworkModel", "ClusteringModel",
    "GaussianProcessModel", "GeneralRegressionModel", "MiningModel", "NaiveBayesModel", "NearestNeighborModel",
    "NeuralNetwork", "RegressionModel", "RuleSetModel", "Scorecard", "SequenceModel", "SupportVectorMachineModel",
    "TextModel", "TimeSeriesModel", "TreeModel",
)  # fmt: skip
_of_numbers: Final = ("sum", "weightedSum", "average", "weightedAverage")
_of_classes: Final = ("majorityVote", "weightedMajorityVote", "average", "weightedAverage")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Context:
    """What a model stands in."""

    scope: Scope
    sums: Mapping[str, TreeSum] = field(default_factory=dict)
    """Sums of trees that earlier models of a chain have as outputs, by name."""
    labels: tuple[str, ...] = ()
    """The classes that the dictionary names for the target."""
    votes: bool = False
    """Each tree has one vote, whatever the shares of its leaves."""
    averaged: bool = False
    """Its shares are averaged with others'."""
    guards: tuple[Guard, ...] = ()
    """Its trees answer zeros where another model is chosen in its place."""
    depth: int = 0

    def inside(
        self,
        *guards: Guard,
        votes: bool = False,
        averaged: bool = False,
        sums: Mapping[str, TreeSum] | None = None,
    ) -> "Context":
        """That of a model inside this one."""
        return replace(
            self, votes=votes, averaged=averaged, depth=self.depth + 1, guards=(*self.guards, *guards),
            sums=self.sums if sums is None else sums,
        )  # fmt: skip


AnswerOf = Callable[[Element, Context], Answer]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Segment:
    """One of the models, and the records that it takes part for."""

    element: Element
    model: Element
    weight: float
    predicate: Predicate


def mining(element: Element, context: Context, answer_of: AnswerOf, *, of_classes: bool) -> Answer:
    """What a MiningModel answers; `answer_of`: what the models inside it do. Raises ConfigError."""
    found = element.need("Segmentation")
    method = found.must("multipleModelMethod")
    treatment = found.get("missingPredictionTreatment", "continue")
    if treatment not in ("continue", "returnMissing"):
        raise found.refused(f"has missingPredictionTreatment={treatment[:40]!r}, which is not read")
    reader = PredicateReader(context.scope)
    segments = [_segment(each, reader) for each in found.all("Segment")]
    if not segments:
        raise found.refused("has no segments")
    if method == "selectFirst":
        return _first(segments, context, answer_of)
    some = [each for each in segments if each.predicate is not always]
    if some and method not in ("sum", "weightedSum"):
        raise some[0].element.refused(
            f"takes part for some records only (its predicate is not True), which is not read for {method[:40]}"
        )
    if method == "modelChain":
        return _chain(segments, context, answer_of)
    if method == "median" and not of_classes:
        return _middle(found, [answer_of(each.model, context.inside()) for each in segments])
    if method not in (_of_classes if of_classes else _of_numbers):
        raise found.refused(
            f"joins its models by {method[:40]}, which is not read for {element.get('functionName')}"
        )
    return _joined(found, method, segments, context, answer_of, of_classes=of_classes)


def _segment(element: Element, reader: PredicateReader) -> _Segment:
    found = element.all(*model_names)
    if len(found) != 1:
        raise element.refused("has no model, or several")
    return _Segment(
        element=element, model=found[0], weight=element.number("weight", 1.0), predicate=reader.of(element)
    )


def _joined(
    found: Element,
    method: str,
    segments: Sequence[_Segment],
    context: Context,
    answer_of: AnswerOf,
    *,
    of_classes: bool,
) -> Answer:
    """Sums, averages and votes."""
    if context.votes:
        raise found.refused("has one vote, and is made of several models, which is not read")
    weights = [each.weight if method.startswith("weighted") else 1.0 for each in segments]
    whole = 1.0 if method in ("sum", "weightedSum") else sum(weights)
    if not whole > 0 or min(weights) < 0:
        raise found.refused("has weights that are negative, or all 0")
    inner = context.inside(votes=method.endswith("ajorityVote"), averaged=method.endswith("verage"))
    factors = [weight / whole for weight in weights]
    if not of_classes:
        return _added(found, segments, factors, inner, answer_of)
    answers = [answer_of(each.model, inner) for each in segments]
    kept = [each for each in answers if isinstance(each, Shares)]
    if len(kept) < len(answers):
        raise found.refused("joins classes of models that are no trees, which is not read")
    return _shares(found, kept, factors)


def _shares(found: Element, answers: Sequence[Shares], factors: Sequence[float]) -> Shares:
    if len({each.labels for each in answers}) > 1:
        raise found.refused("joins trees of different classes: name all of them in the dictionary")
    trees = tuple((tree, scale * factor) for each, factor in zip(answers, factors, strict=True) for tree, scale in each.trees)  # fmt: skip
    return Shares(trees=trees, labels=answers[0].labels)


def _added(
    found: Element,
    segments: Sequence[_Segment],
    factors: Sequence[float],
    context: Context,
    answer_of: AnswerOf,
) -> Answer:
    """A sum, of those that take part."""
    if all(
        each.predicate is not always for each in segments
    ):  # where nobody takes part, there is no prediction
        parts = [Node(each.element, each.predicate, np.zeros(1), []) for each in segments]
        TreeCompiler(context.scope.columns, context.guards).compile(Node(found, always, None, parts))
    sums, formulas = [], []
    for each, factor in zip(segments, factors, strict=True):
        inner = context
        if each.predicate is not always:
            guard = Guard(element=each.element, predicates=(each.predicate, always), chosen=0)
            inner = replace(context, guards=(*context.guards, guard), sums={})
        answer = answer_of(each.model, inner)
        if isinstance(answer, TreeSum):
            sums.append(_whole(answer.times(factor), each, inner))
        elif isinstance(answer, Linked) and not answer.labels:
            value = value_of(answer, each.model)
            if each.predicate is not always:
                value = Chosen(((each.predicate, value), (always, Constant(0.0))))
            formulas.append((factor, value))
        else:
            raise each.model.refused("answers no number that could be added")
    if not formulas:
        trees = tuple(tree for each in sums for tree in each.trees)
        return TreeSum(trees=trees, constant=sum(each.constant for each in sums))
    if sums:
        raise segments[0].model.refused(
            "is joined with a model of another kind: trees and formulas are not added"
        )
    return Linked(terms=(Total(0.0, tuple(formulas)),), link="none")


def _whole(answer: TreeSum, segment: _Segment, context: Context) -> TreeSum:
    """The sum without a constant that would count where others are chosen: it is a leaf of a tree more."""
    if not context.guards or not answer.constant:
        return answer
    leaf = Node(segment.element, always, np.array([answer.constant]), [])
    tree = TreeCompiler(context.scope.columns, context.guards).compile(leaf)
    return TreeSum(trees=(*answer.trees, (tree, 1.0)))


def _first(segments: Sequence[_Segment], context: Context, answer_of: AnswerOf) -> Answer:
    """The answer of the first model whose predicate is true: of sums of trees, all added, each zero but for the chosen one."""
    predicates = tuple(each.predicate for each in segments)
    answers: list[Answer] = []
    contexts = [
        context.inside(
            Guard(element=each.element, predicates=predicates, chosen=place),
            votes=context.votes,
            averaged=context.averaged,
            sums={},  # those of models before are added whoever is chosen
        )
        for place, each in enumerate(segments)
    ]
    for each, inner in zip(segments, contexts, strict=True):
        answers.append(answer_of(each.model, inner))
    found = segments[0].element
    of_classes = [each for each in answers if isinstance(each, Shares)]
    if len(of_classes) == len(answers):
        return _shares(found, of_classes, [1.0] * len(answers))
    linked = [
        Linked(terms=(each,), link="none") if isinstance(each, TreeSum) else each
        for each in answers
        if not isinstance(each, Shares)
    ]
    if len(linked) < len(answers) or len({(each.link, each.labels, each.whose, len(each.terms)) for each in linked}) > 1:  # fmt: skip
        raise found.refused("is chosen among models that answer in different ways, which is not read")
    by_place = [*zip(*(each.terms for each in linked), strict=True)]
    sums, formulas = [], []
    for terms in by_place:
        trees = [
            _whole(term, each, inner)
            for term, each, inner in zip(terms, segments, contexts, strict=True)
            if isinstance(term, TreeSum)
        ]
        if len(trees) == len(terms):
            sums.append(TreeSum(trees=tuple(tree for each in trees for tree in each.trees), constant=sum(each.constant for each in trees)))  # fmt: skip
        elif trees:
            raise found.refused("is chosen among trees and formulas, which is not read")
        else:
            values = [term for term in terms if isinstance(term, Expression)]
            formulas.append(Chosen(tuple(zip(predicates, values, strict=True))))
    if len(linked[0].terms) == 1 and sums and linked[0].link == "none" and not linked[0].labels:
        return sums[0]
    return replace(linked[0], terms=tuple(sums) if sums else tuple(formulas))


def _middle(found: Element, answers: Sequence[Answer]) -> Linked:
    """The middle one of several numbers."""
    sums = [each for each in answers if isinstance(each, TreeSum)]
    if len(sums) == len(answers):
        return Linked(terms=tuple(sums), link="median")
    formulas = [value_of(each, found) for each in answers if isinstance(each, Linked) and not each.labels]
    if len(formulas) < len(answers):
        raise found.refused("takes the median of models of different kinds, which is not read")
    return Linked(terms=tuple(formulas), link="median")


def _chain(segments: Sequence[_Segment], context: Context, answer_of: AnswerOf) -> Answer:
    """The last model's answer; the others' outputs are fields of those behind them."""
    sums = dict(context.sums)
    for each in segments[:-1]:
        answer = answer_of(each.model, context.inside(sums=sums))
        for output in (one for found in each.model.all("Output") for one in found.all("OutputField")):
            _take_output(output, answer, each.model, context.scope, sums)
    last = context.inside(sums=sums, votes=context.votes, averaged=context.averaged)
    return answer_of(segments[-1].model, last)


def _take_output(
    output: Element, answer: Answer, model: Element, scope: Scope, sums: dict[str, TreeSum]
) -> None:
    name, feature = output.must("name"), output.get("feature", "predictedValue")
    if feature == "transformedValue":
        if len(output.children) != 1:
            raise output.refused("is computed by no expression, or by several")
        made = _affine(output.children[0], sums)
        if made is not None:
            sums[name] = made
        elif not any(each.get("field") in sums for each in output.walk()):
            scope.fields[name] = expression_of(
                output.children[0], scope, output.get("dataType", "double"), depth=0
            )
        return
    if feature != "predictedValue" or isinstance(answer, Shares):
        return  # whoever names it is refused: no field is called so
    if isinstance(answer, TreeSum):
        sums[name] = answer
    elif not answer.labels and isinstance(answer.terms[0], TreeSum):
        return
    elif not answer.labels:
        scope.fields[name] = Field(expression=value_of(answer, model), kind="double", is_number=True)


def _affine(element: Element, sums: Mapping[str, TreeSum]) -> TreeSum | None:
    """A sum of trees moved or stretched by constants; None for anything else."""
    if element.name == "FieldRef":
        return sums.get(element.get("field"))
    function = element.get("function")
    if element.name != "Apply" or function not in ("+", "-", "*", "/") or len(element.children) != 2:
        return None
    parts: list[TreeSum | float | None] = [
        as_number(each.text) if each.name == "Constant" else _affine(each, sums) for each in element.children
    ]
    one, two = parts
    if isinstance(one, TreeSum) and isinstance(two, float):
        return {"+": one.times(1, two), "-": one.times(1, -two), "*": one.times(two)}.get(function) or (
            one.times(1 / two) if two else None
        )
    if isinstance(one, float) and isinstance(two, TreeSum):
        return {"+": two.times(1, one), "-": two.times(-1, one), "*": two.times(one)}.get(function)
    return None
