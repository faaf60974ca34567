"""The models of a PMML file: trees, scorecards, and mining models made of others."""

from dataclasses import dataclass, replace
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
)
from penstock.engine.models.packaging.pmml.elements import Element
from penstock.engine.models.packaging.pmml.expressions import Expression
from penstock.engine.models.packaging.pmml.mining import Context, mining
from penstock.engine.models.packaging.pmml.predicates import PredicateReader, always
from penstock.engine.models.packaging.pmml.regression import general_regression, regression
from penstock.engine.models.packaging.pmml.tree_model import Node, TreeCompiler, read_rules

_depth_max: Final = 16


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
    context = replace(context, scope=scope, labels=labels)
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
    compiler = TreeCompiler(context.scope.columns, context.guards)
    if not _is_of_classes(element):
        tree = compiler.compile(read_rules(element, reader, _score))
        return TreeSum(trees=((tree, 1.0),))
    labels = ordered_labels(context.labels, _classes_named(element))
    if len(labels) < 2:
        raise element.refused("names fewer than two classes")
    values = _Leaves(labels, votes=context.votes, averaged=context.averaged)
    tree = compiler.compile(read_rules(element, reader, values.of), len(labels))
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
    reader, compiler = PredicateReader(context.scope), TreeCompiler(context.scope.columns, context.guards)
    trees = []
    for each in element.need("Characteristics").all("Characteristic"):
        children = []
        for attribute in each.all("Attribute"):
            if attribute.one("ComplexPartialScore"):
                raise attribute.refused("has a ComplexPartialScore, which is not read")
            values = np.array([attribute.number("partialScore")])
            children.append(Node(attribute, reader.of(attribute), values, []))
        trees.append((compiler.compile(Node(each, always, None, children)), 1.0))
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
    of_classes = element.get("functionName") == "classification"
    if element.need("Segmentation").get("multipleModelMethod") != "modelChain":
        of_classes = _is_of_classes(element)
    return mining(element, context, answer_of, of_classes=of_classes)
