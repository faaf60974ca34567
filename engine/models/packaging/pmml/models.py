"""The models of a PMML file: trees, scorecards, and mining models made of others."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.engine.models.packaging.pmml.answers import (
    Answer,
    Linked,
    Shares,
    Total,
    TreeSum,
    ordered_labels,
    value_of,
)
from penstock.engine.models.packaging.pmml.derived import expression_of
from penstock.engine.models.packaging.pmml.elements import Element, as_number
from penstock.engine.models.packaging.pmml.expressions import Expression
from penstock.engine.models.packaging.pmml.fields import Field, Scope
from penstock.engine.models.packaging.pmml.general_regression import general_regression
from penstock.engine.models.packaging.pmml.predicates import Always, PredicateReader, Truth
from penstock.engine.models.packaging.pmml.regression import regression
from penstock.engine.models.packaging.pmml.tree_model import Node, Rules, TreeCompiler, read_rules

model_names: Final = (
    "AnomalyDetectionModel", "AssociationModel", "BaselineModel", "BayesianNetworkModel", "ClusteringModel",
    "GaussianProcessModel", "GeneralRegressionModel", "MiningModel", "NaiveBayesModel", "NearestNeighborModel",
    "NeuralNetwork", "RegressionModel", "RuleSetModel", "Scorecard", "SequenceModel", "SupportVectorMachineModel",
    "TextModel", "TimeSeriesModel", "TreeModel",
)  # fmt: skip
_depth_max: Final = 16


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
    depth: int = 0


def answer_of(element: Element, context: Context) -> Answer:
    """What a model answers. Raises ConfigError by the name and the line of what is not read."""
    readers = {
        "TreeModel": _tree,
        "MiningModel": _mining,
        "RegressionModel": _regression,
        "GeneralRegressionModel": _general,
        "Scorecard": _scorecard,
    }
    if element.name not in readers:
        raise element.refused("is a kind of model that is not read; package the model that it was made from")
    if element.get("isScorable") == "false":
        raise element.refused("is not to be scored (isScorable)")
    if context.depth > _depth_max:
        raise element.refused(f"lies inside more than {_depth_max} others")
    scope = context.scope if not context.depth else context.scope.inner()
    target = scope.take_schema(element.need("MiningSchema"), outermost=not context.depth)
    for each in element.all("LocalTransformations"):
        scope.take_derived(each)
    labels = context.labels
    if target is not None and element.get("functionName") == "classification":
        labels = scope.dictionary.labels(target) or labels
    context = Context(
        scope=scope, sums=context.sums, labels=labels, votes=context.votes, averaged=context.averaged, depth=context.depth
    )  # fmt: skip
    return _rescaled(readers[element.name](element, context), element, target)


def _rescaled(answer: Answer, model: Element, name: str | None) -> Answer:
    targets = [each for found in model.all("Targets") for each in found.all("Target")]
    for target in targets:
        if target.get("field", name or "") != (name or ""):
            raise target.refused(
                f"is of field {target.get('field')[:80]}, which is not the target of its model"
            )
        for change in ("min", "max", "castInteger"):
            if change in target.attributes:
                raise target.refused(f"changes the answer by {change}, which no bundle can keep")
        factor, plus = target.number("rescaleFactor", 1.0), target.number("rescaleConstant", 0.0)
        if (factor, plus) == (1.0, 0.0):
            continue
        if isinstance(answer, TreeSum):
            answer = answer.times(factor, plus)
        elif isinstance(answer, Linked) and not answer.labels and answer.link == "none":
            answer = Linked(terms=_scaled(answer, factor, plus), link="none")
        else:
            raise target.refused("rescales an answer that is no plain number")
    return answer


def _scaled(answer: Linked, factor: float, plus: float) -> tuple[TreeSum, ...] | tuple[Expression, ...]:
    (term,) = answer.terms
    if isinstance(term, TreeSum):
        return (term.times(factor, plus),)
    return (Total(plus, ((factor, term),)),)


def _is_of_classes(element: Element) -> bool:
    wanted = element.must("functionName")
    if wanted not in ("regression", "classification"):
        raise element.refused(f"has functionName={wanted[:40]!r}, which is not read")
    return wanted == "classification"


def _tree(element: Element, context: Context) -> Answer:
    reader = PredicateReader(context.scope)
    compiler = TreeCompiler(context.scope.columns)
    if not _is_of_classes(element):
        tree = compiler.compile(read_rules(element, reader, _score))
        return TreeSum(trees=((tree, 1.0),))
    labels = ordered_labels(context.labels, _classes_named(element))
    if len(labels) < 2:
        raise element.refused("names fewer than two classes")
    values = _Leaves(labels, votes=context.votes, averaged=context.averaged)
    tree = compiler.compile(read_rules(element, reader, values.of))
    return Shares(trees=((tree, 1.0),), labels=labels)


def _score(node: Element) -> NDArray[np.float64] | None:
    if "score" not in node.attributes:
        return None
    return np.array([node.number("score")])


def _classes_named(element: Element) -> list[str]:
    found: dict[str, None] = {}
    for each in element.walk():
        if each.name == "ScoreDistribution":
            found[each.must("value")] = None
        elif each.name == "Node" and "score" in each.attributes:
            found[each.get("score")] = None
    return sorted(found)


@dataclass(frozen=True, slots=True, eq=False)
class _Leaves:
    """What nodes say of the classes."""

    labels: tuple[str, ...]
    votes: bool
    averaged: bool

    def of(self, node: Element) -> NDArray[np.float64] | None:
        """Shares (K,), or one vote; None where it says nothing."""
        held, score = node.all("ScoreDistribution"), node.attributes.get("score")
        shares = np.zeros(len(self.labels))
        if held:
            for each in held:
                name = (
                    "probability" if all("probability" in one.attributes for one in held) else "recordCount"
                )
                shares[self.labels.index(each.must("value"))] = each.number(name)
            if (shares < 0).any() or not shares.sum() > 0:
                raise node.refused("has shares of classes that are negative, or all 0")
            shares = shares / shares.sum() if name == "recordCount" else shares
        elif score is None:
            return None
        elif self.averaged and not self.votes:
            raise node.refused("has no ScoreDistribution, and its shares are to be averaged")
        best = int(shares.argmax()) if held else -1
        named = best if score is None else self.labels.index(score)
        if held and not self.votes:
            if named != best and not self.averaged:
                raise node.refused(
                    f"answers class {score} and gives another as large a share: a bundle takes the first of the highest"
                )
            return shares
        vote = np.zeros(len(self.labels))
        vote[named] = 1.0
        return vote


def _scorecard(element: Element, context: Context) -> Answer:
    """Each characteristic is a tree of one level: the first attribute that is true has its partial score."""
    reader, compiler = PredicateReader(context.scope), TreeCompiler(context.scope.columns)
    trees = []
    for each in element.need("Characteristics").all("Characteristic"):
        children = []
        for attribute in each.all("Attribute"):
            if attribute.one("ComplexPartialScore"):
                raise attribute.refused("has a ComplexPartialScore, which is not read")
            values = np.array([attribute.number("partialScore")])
            children.append(Node(attribute, reader.of(attribute), values, []))
        root = Node(each, Always(Truth.TRUE), None, children)
        trees.append((compiler.compile(Rules(root=root, missing="none", returns_last=False)), 1.0))
    if not trees:
        raise element.refused("has no characteristics")
    return TreeSum(trees=tuple(trees), constant=element.number("initialScore", 0.0))


def _regression(element: Element, context: Context) -> Answer:
    return regression(
        element, context.scope, context.sums, context.labels, of_classes=_is_of_classes(element)
    )


def _general(element: Element, context: Context) -> Answer:
    return general_regression(element, context.scope, context.labels, of_classes=_is_of_classes(element))


def _mining(element: Element, context: Context) -> Answer:
    found = element.need("Segmentation")
    method = found.must("multipleModelMethod")
    segments = [_segment(each, context) for each in found.all("Segment")]
    if not segments:
        raise found.refused("has no segments")
    if method == "modelChain":
        return _chain(segments, context)
    of_classes = _is_of_classes(element)
    ways = ("majorityVote", "weightedMajorityVote", "average", "weightedAverage") if of_classes else ("sum", "weightedSum", "average", "weightedAverage")  # fmt: skip
    if method not in ways:
        raise found.refused(
            f"joins its models by {method[:40]}, which is not read for {element.get('functionName')}"
        )
    weights = [weight if method.startswith("weighted") else 1.0 for _, _, weight in segments]
    whole = 1.0 if method in ("sum", "weightedSum") else sum(weights)
    if not whole > 0 or min(weights) < 0:
        raise found.refused("has weights that are negative, or all 0")
    inner = _inside(context, votes=method.endswith("ajorityVote"), averaged=method.endswith("verage"))
    answers = [answer_of(model, inner) for _, model, _ in segments]
    factors = [weight / whole for weight in weights]
    if not of_classes:
        return _added(answers, factors, segments)
    kept = [each for each in answers if isinstance(each, Shares)]
    if len(kept) < len(answers):
        raise found.refused("joins classes of models that are no trees, which is not read")
    if len({each.labels for each in kept}) > 1:
        raise found.refused("joins trees of different classes: name all of them in the dictionary")
    trees = tuple((tree, scale * factor) for each, factor in zip(kept, factors, strict=True) for tree, scale in each.trees)  # fmt: skip
    return Shares(trees=trees, labels=kept[0].labels)


def _added(answers: list[Answer], factors: list[float], segments: list["_Segment"]) -> Answer:
    sums, formulas = [], []
    for answer, factor, (_, model, _) in zip(answers, factors, segments, strict=True):
        if isinstance(answer, TreeSum):
            sums.append(answer.times(factor))
        elif isinstance(answer, Linked) and not answer.labels:
            formulas.append((factor, value_of(answer, model)))
        else:
            raise model.refused("answers no number that could be added")
    if not formulas:
        trees = tuple(tree for each in sums for tree in each.trees)
        return TreeSum(trees=trees, constant=sum(each.constant for each in sums))
    if sums:
        raise segments[0][1].refused(
            "is joined with a model of another kind: trees and formulas are not added"
        )
    return Linked(terms=(Total(0.0, tuple(formulas)),), link="none")


_Segment = tuple[Element, Element, float]


def _segment(element: Element, context: Context) -> _Segment:
    """A segment, its model, its weight."""
    found = element.all(*model_names)
    if len(found) != 1:
        raise element.refused("has no model, or several")
    if element.one("True") is None:
        raise element.refused(
            "takes part for some records only (its predicate is not True), which is not read"
        )
    return element, found[0], element.number("weight", 1.0)


def _inside(
    context: Context,
    *,
    votes: bool = False,
    averaged: bool = False,
    sums: Mapping[str, TreeSum] | None = None,
) -> Context:
    return Context(
        scope=context.scope,
        sums=context.sums if sums is None else sums,
        labels=context.labels,
        votes=votes,
        averaged=averaged,
        depth=context.depth + 1,
    )


def _chain(segments: list[_Segment], context: Context) -> Answer:
    """The last model's answer; the others' outputs are fields of those behind them."""
    sums = dict(context.sums)
    for _, model, _ in segments[:-1]:
        answer = answer_of(model, _inside(context, sums=sums))
        for each in (output for found in model.all("Output") for output in found.all("OutputField")):
            _take_output(each, answer, model, context.scope, sums)
    return answer_of(segments[-1][1], _inside(context, sums=sums))


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
