"""Regressions: coefficients for the number or for each class, of a GeneralRegressionModel for products of fields, and a link."""

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

_links: Final = ("none", "softmax", "logit", "exp", "cloglog", "loglog", "probit", "cauchit", "simplemax")
_of_shares: Final = ("logit", "cloglog", "loglog", "probit")
_links_of_general: Final = {"identity": "none", "log": "exp", **{name: name for name in _of_shares}}
_of_types: Final = {"regression": "none", "generalLinear": "none", "logLinear": "exp"}


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
        if link == "simplemax":
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


def general_regression(
    element: Element, scope: Scope, labels: tuple[str, ...], *, of_classes: bool
) -> Answer:
    """What a GeneralRegressionModel answers. Raises ConfigError."""
    kind = element.must("modelType")
    for name in ("trialsVariable", "trialsValue", "cumulativeLinkFunction", "linkParameter", "distParameter"):
        if name in element.attributes:
            raise element.refused(f"has {name}, which is not read")
    if kind == "generalizedLinear":
        link = _links_of_general.get(element.must("linkFunction"), "")
        if not link:
            raise element.refused(f"has linkFunction={element.get('linkFunction')[:40]!r}, which is not read")
    elif kind == "multinomialLogistic":
        link = "softmax"
    elif kind in _of_types:
        link = _of_types[kind]
    else:
        raise element.refused(f"is of modelType {kind[:40]}, which is not read")
    parameters = _parameters(element, scope)
    offset: tuple[tuple[float, Expression], ...] = ()
    if "offsetVariable" in element.attributes:
        offset = ((1.0, scope.find(element.get("offsetVariable"), element).expression),)
    constant = element.number("offsetValue", 0.0)
    cells: dict[str, list[tuple[float, Expression]]] = {}
    for cell in element.need("ParamMatrix").all("PCell"):
        name = cell.must("parameterName")
        if name not in parameters:
            raise cell.refused(f"is of parameter {name[:80]}, which the list does not have")
        cells.setdefault(cell.get("targetCategory"), []).append((cell.number("beta"), parameters[name]))
    if not cells:
        raise element.refused("has no coefficients")
    if not of_classes:
        if len(cells) > 1 or link == "softmax":
            raise element.refused("has coefficients of several classes, and answers one number")
        return Linked(terms=(Total(constant, (*next(iter(cells.values())), *offset)),), link=link)
    reference = element.get("targetReferenceCategory")
    named = [name for name in cells if name]
    classes = ordered_labels(labels, [*named, *([reference] if reference else [])])
    if len(classes) == 2 and link != "softmax":
        second = [name for name in classes if name not in named] if named else [reference or classes[0]]
        if len(cells) != 1 or len(second) != 1 or link not in _of_shares:
            raise element.refused("has not the coefficients of one of two classes")
        first = next(name for name in classes if name != second[0])
        term = Total(constant, (*next(iter(cells.values())), *offset))
        return Linked(terms=(term,), link=link, labels=classes, whose=classes.index(first))
    if link != "softmax" or "" in cells or len(classes) - len(named) > 1:
        raise element.refused("has not the coefficients of each class but one")
    terms = tuple(
        Total(constant, (*cells[name], *offset)) if name in cells else Total(0.0, ()) for name in classes
    )
    return Linked(terms=terms, link=link, labels=classes)


def _parameters(element: Element, scope: Scope) -> dict[str, Expression]:
    """By name, the product of what the PPMatrix says; 1 for the intercept."""
    listed = {each.must("name") for each in element.need("ParameterList").all("Parameter")}
    factors = {each.must("name") for found in element.all("FactorList") for each in found.all("Predictor")}
    if any(each.one("Categories") or each.one("Matrix") for found in element.all("FactorList") for each in found.all("Predictor")):  # fmt: skip
        raise element.need("FactorList").refused("has a contrast matrix, which is not read")
    products: dict[str, list[Expression]] = {name: [] for name in listed}
    for matrix in element.all("PPMatrix"):
        for cell in matrix.all("PPCell"):
            name = cell.must("predictorName")
            field = scope.find(name, cell)
            if name in factors:
                value = field.value(cell.must("value"), cell)
                held: Expression = Mapped(field.expression, {value: 1.0}, 0.0, None)
            elif field.is_number:
                power = cell.number("value")
                held = (
                    field.expression if power == 1 else plain_call("pow", field.expression, Constant(power))
                )
            else:
                raise cell.refused("takes a number, and its field is none")
            products.setdefault(cell.must("parameterName"), []).append(held)
    return {
        name: reduce(lambda one, two: plain_call("*", one, two), parts) if parts else Constant(1.0)
        for name, parts in products.items()
    }
