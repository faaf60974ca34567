"""GeneralRegressionModel: parameters that are products of predictors, their coefficients for each class, and a link."""

from functools import reduce
from typing import Final

from penstock.engine.models.packaging.pmml.answers import Answer, Linked, Total, ordered_labels, plain_call
from penstock.engine.models.packaging.pmml.elements import Element
from penstock.engine.models.packaging.pmml.expressions import Constant, Expression, Mapped
from penstock.engine.models.packaging.pmml.fields import Scope

_links: Final = {"identity": "none", "log": "exp", "logit": "logit", "cloglog": "cloglog", "loglog": "loglog"}
_of_types: Final = {"regression": "none", "generalLinear": "none", "logLinear": "exp"}


def general_regression(
    element: Element, scope: Scope, labels: tuple[str, ...], *, of_classes: bool
) -> Answer:
    """What a GeneralRegressionModel answers. Raises ConfigError."""
    kind = element.must("modelType")
    for name in ("trialsVariable", "trialsValue", "cumulativeLinkFunction", "linkParameter", "distParameter"):
        if name in element.attributes:
            raise element.refused(f"has {name}, which is not read")
    if kind == "generalizedLinear":
        link = _links.get(element.must("linkFunction"), "")
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
        if len(cells) != 1 or len(second) != 1 or link not in ("logit", "cloglog", "loglog"):
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
