"""RegressionModel: a table of coefficients for the number, or for each class, and a link after it."""

from collections.abc import Mapping
from functools import reduce
from typing import Final

from penstock.engine.models.packaging.pmml.answers import (
    Answer,
    Linked,
    Total,
    TreeSum,
    ordered_labels,
    plain_call,
)
from penstock.engine.models.packaging.pmml.elements import Element
from penstock.engine.models.packaging.pmml.expressions import Constant, Expression, Mapped, Value
from penstock.engine.models.packaging.pmml.fields import Field, Scope

_links: Final = ("none", "softmax", "logit", "exp", "cloglog", "loglog", "simplemax")


def regression(
    element: Element, scope: Scope, sums: Mapping[str, TreeSum], labels: tuple[str, ...], *, of_classes: bool
) -> Answer:
    """What a RegressionModel answers. Raises ConfigError."""
    link = element.get("normalizationMethod", "none")
    if link not in _links:
        raise element.refused(f"has normalizationMethod={link[:40]!r}, which is not read")
    tables = element.all("RegressionTable")
    if not of_classes:
        if len(tables) != 1:
            raise element.refused("has no RegressionTable, or several for one number")
        if link not in ("none", "exp", "logit", "softmax", "cloglog", "loglog"):
            raise element.refused(f"has normalizationMethod={link}, which is for classes")
        link = "logit" if link == "softmax" else link
        terms = _terms(tables, scope, sums)
        if link == "none" and isinstance(terms[0], TreeSum):
            return terms[0]
        return Linked(terms=terms, link=link)
    named = tuple(table.must("targetCategory") for table in tables)
    classes = ordered_labels(labels, sorted(named))
    if len(tables) < 2 or sorted(named) != sorted(classes):
        raise element.refused("has not one RegressionTable for each class")
    if link in ("softmax", "simplemax"):
        in_order = sorted(tables, key=lambda table: classes.index(table.get("targetCategory")))
        return Linked(terms=_terms(in_order, scope, sums), link=link, labels=classes)
    if len(tables) > 2 or link == "exp":
        raise element.refused(f"has normalizationMethod={link} for {len(tables)} classes, which is not read")
    terms = _terms(tables[:1], scope, sums)
    return Linked(terms=terms, link=link, labels=classes, whose=classes.index(named[0]))


def _terms(
    tables: list[Element], scope: Scope, sums: Mapping[str, TreeSum]
) -> tuple[TreeSum, ...] | tuple[Expression, ...]:
    """Of each table what it adds up to: sums of trees all of them, or formulas all of them."""
    named = [each for table in tables for each in table.all("NumericPredictor") if each.get("name") in sums]
    if not named:
        return tuple(_formula(table, scope) for table in tables)
    made = []
    for table in tables:
        total = TreeSum(trees=(), constant=table.number("intercept"))
        for each in table.children:
            if (
                each.name != "NumericPredictor"
                or each.get("name") not in sums
                or each.get("exponent", "1") != "1"
            ):
                raise each.refused("is added to what trees answer, which is not read")
            part = sums[each.get("name")].times(each.number("coefficient"))
            total = TreeSum(trees=total.trees + part.trees, constant=total.constant + part.constant)
        made.append(total)
    return tuple(made)


def _formula(table: Element, scope: Scope) -> Expression:
    terms: list[tuple[float, Expression]] = []
    of_categories: dict[int, tuple[Field, dict[Value, Value]]] = {}
    for each in table.children:
        if each.name == "NumericPredictor":
            field = scope.find(each.must("name"), each)
            if not field.is_number:
                raise each.refused("takes a number, and its field is none")
            exponent = each.number("exponent", 1.0)
            held = field.expression
            if exponent != 1:
                held = plain_call("pow", held, Constant(exponent))
            terms.append((each.number("coefficient"), held))
        elif each.name == "CategoricalPredictor":
            field = scope.find(each.must("name"), each)
            _, coefficients = of_categories.setdefault(id(field), (field, {}))
            value, more = field.value(each.must("value"), each), each.number("coefficient")
            before = coefficients.get(value, 0.0)
            coefficients[value] = more + (before if isinstance(before, float) else 0.0)
        elif each.name == "PredictorTerm":
            parts = [scope.find(part.must("field"), part) for part in each.all("FieldRef")]
            if not parts or not all(part.is_number for part in parts):
                raise each.refused("multiplies what is no number, or nothing")
            held = reduce(lambda one, two: plain_call("*", one, two), (part.expression for part in parts))
            terms.append((each.number("coefficient"), held))
        else:
            raise each.refused("is an element that is not read")
    for field, coefficients in of_categories.values():
        terms.append((1.0, Mapped(field.expression, coefficients, 0.0, 0.0)))
    return Total(table.number("intercept"), tuple(terms))
