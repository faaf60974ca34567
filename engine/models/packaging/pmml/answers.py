"""What a model of a PMML file answers with: sums of trees, shares of classes, or formulas, and what is made of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from penstock.engine.models.packaging.pmml.elements import Element
from penstock.engine.models.packaging.pmml.expressions import Applied, Constant, Expression, Value
from penstock.engine.models.packaging.pmml.predicates import Predicate, Truth, columns_of, truth_at
from penstock.engine.trees.readers.assemble import Tree

links: Final = (
    "none",
    "exp",
    "logit",
    "softmax",
    "simplemax",
    "cloglog",
    "loglog",
    "probit",
    "cauchit",
    "median",
)
"""none, exp(y), 1 / (1 + exp(-y)), shares of exp(y), shares of y, 1 - exp(-exp(y)), exp(-exp(-y)), the normal and the Cauchy
distribution up to y; of several numbers the middle one."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TreeSum:
    """A number: the leaves of trees (values (m, 1)), each times its factor, and a constant."""

    trees: tuple[tuple[Tree, float], ...]
    constant: float = 0.0

    def times(self, factor: float, plus: float = 0.0) -> "TreeSum":
        """factor x + plus."""
        return TreeSum(
            trees=tuple((tree, scale * factor) for tree, scale in self.trees),
            constant=self.constant * factor + plus,
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Shares:
    """Shares of classes: the leaves of trees (values (m, K)), each times its factor."""

    trees: tuple[tuple[Tree, float], ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Linked:
    """A link function of sums of trees, or of formulas: one for each class, one alone, or those that one is chosen from."""

    terms: tuple[TreeSum, ...] | tuple[Expression, ...]
    link: str
    labels: tuple[str, ...] = ()
    """Empty for a number."""
    whose: int = 1
    """Of two classes with one term, the place of the class that the term is of."""


Answer = TreeSum | Shares | Linked


@dataclass(frozen=True, slots=True, eq=False)
class Total(Expression):
    """A constant and terms, each times its weight; missing where a term is."""

    constant: float
    terms: tuple[tuple[float, Expression], ...]

    @property
    def columns(self) -> frozenset[int]:
        return frozenset().union(*(term.columns for _, term in self.terms))

    def at(self, raw: Value) -> Value:
        total = self.constant
        for weight, term in self.terms:
            value = term.at(raw)
            if not isinstance(value, float):
                return value
            total += weight * value
        return total


@dataclass(frozen=True, slots=True, eq=False)
class Chosen(Expression):
    """The expression behind the first predicate that is true; where none is, there is no value."""

    branches: tuple[tuple[Predicate, Expression], ...]

    @property
    def columns(self) -> frozenset[int]:
        held = (columns_of(predicate) | value.columns for predicate, value in self.branches)
        return frozenset[int]().union(*held)

    def at(self, raw: Value) -> Value:
        for predicate, value in self.branches:
            if truth_at(predicate, raw) is Truth.TRUE:
                return value.at(raw)
        return None


def plain_call(function: str, *arguments: Expression) -> Applied:
    """A function that is missing where an argument is."""
    return Applied(function, arguments, None, None, False)


def value_of(formula: Linked, element: Element) -> Expression:
    """A formula's one number after its link, as an expression for what comes after it. Raises ConfigError."""
    term = formula.terms[0]
    if not isinstance(term, Expression) or formula.labels or len(formula.terms) > 1:
        raise element.refused("is made of what cannot be computed with further")
    if formula.link == "none":
        return term
    if formula.link == "exp":
        return plain_call("exp", term)
    if formula.link == "logit":
        raised = plain_call("exp", Total(0.0, ((-1.0, term),)))
        return plain_call("/", Constant(1.0), Total(1.0, ((1.0, raised),)))
    raise element.refused(f"applies {formula.link} in the middle of a chain, which is not read")


def ordered_labels(names: Sequence[str], found: Sequence[str]) -> tuple[str, ...]:
    """The classes that the dictionary names, then those that only the model does."""
    return tuple(dict.fromkeys((*names, *found)))
