"""Derived fields: the expressions of a transformation dictionary, of local transformations and of outputs."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Final

from penstock.engine.models.packaging.pmml.elements import Element, as_number
from penstock.engine.models.packaging.pmml.expressions import (
    Applied,
    Binned,
    Cleaned,
    Constant,
    DataType,
    Expression,
    Interpolated,
    Mapped,
    Rounded,
    Value,
    functions,
    invalid,
    typed,
)
from penstock.engine.models.packaging.pmml.fields import Field, Scope, interval, ranges_max
from penstock.schemas.errors import ConfigError

_types: Final = ("string", "integer", "float", "double", "boolean")
_counts: Final = {"if": (2, 3), "isMissing": (1, 1), "isNotMissing": (1, 1), "isIn": (2, 10_000), "isNotIn": (2, 10_000)}  # fmt: skip
_of_one: Final = ("exp", "ln", "log10", "sqrt", "abs", "floor", "ceil", "not", "uppercase", "lowercase")
_of_numbers: Final = ("+", "-", "*", "/", "pow", "exp", "ln", "log10", "sqrt", "abs", "floor", "ceil", "threshold")  # fmt: skip
_depth_max: Final = 64


def derived_field(element: Element, scope: Scope) -> Field:
    """What a DerivedField stands for. Raises ConfigError by the element's name and line."""
    kind, operational = element.must("dataType"), element.must("optype")
    if kind not in _types:
        raise element.refused(f"is of type {kind[:40]}, which is not read")
    children = [each for each in element.children if each.name not in ("Interval", "Value")]
    if len(children) != 1:
        raise element.refused("is computed by no expression, or by several")
    found = expression_of(children[0], scope, kind, depth=0)
    return _as(found, kind, operational == "continuous", element)


def _as(found: Field, kind: DataType, is_number: bool, element: Element) -> Field:
    """The field in another type."""
    numeric = ("integer", "float", "double")
    if found.kind == kind:
        return replace(found, is_number=is_number and kind in numeric)
    if kind == "float" and found.kind in ("double", "integer"):
        return Field(expression=Rounded(found.expression), kind=kind, is_number=is_number)
    if kind == "double" and found.kind in ("float", "integer"):
        return Field(expression=found.expression, kind=kind, is_number=is_number)
    raise element.refused(f"turns a value of type {found.kind} into one of type {kind}, which is not done")


def expression_of(element: Element, scope: Scope, wanted: DataType, *, depth: int) -> Field:
    """An expression; `wanted`: the type that tables and constants without one are of. Raises ConfigError."""
    readers = {
        "FieldRef": _reference,
        "Constant": _constant,
        "NormContinuous": _interpolated,
        "NormDiscrete": _one_hot,
        "Discretize": _binned,
        "MapValues": _mapped,
    }
    if depth > _depth_max:
        raise element.refused(f"is inside more than {_depth_max} others")
    if element.name == "Apply":
        return _applied(element, scope, wanted, depth)
    if element.name not in readers:
        raise element.refused("is an expression that is not read")
    return readers[element.name](element, scope, wanted)


def _reference(element: Element, scope: Scope, wanted: DataType) -> Field:
    found = scope.find(element.must("field"), element)
    if "mapMissingTo" not in element.attributes:
        return found
    made = Cleaned(
        found.expression, frozenset(), frozenset(), (), invalid, -math.inf, math.inf, False,
        found.value(element.get("mapMissingTo"), element),
    )  # fmt: skip
    return replace(found, expression=made)


def _constant(element: Element, scope: Scope, wanted: DataType) -> Field:
    if element.get("missing") == "true":
        return Field(expression=Constant(None), kind=wanted, is_number=False)
    kind = element.get("dataType")
    if not kind:
        number = as_number(element.text)
        kind = (
            "string"
            if number is None
            else "integer"
            if element.text.strip().lstrip("+-").isdecimal()
            else "double"
        )
    if kind not in _types:
        raise element.refused(f"is of type {kind[:40]}, which is not read")
    return Field(expression=Constant(_typed(element.text, kind, element)), kind=kind, is_number=kind in ("integer", "float", "double"))  # fmt: skip


def _typed(text: str, kind: DataType, element: Element) -> Value:
    try:
        return typed(text, kind)
    except ConfigError as error:
        raise element.refused(f"says {error}") from None


def _option(element: Element, name: str, kind: DataType) -> Value:
    return _typed(element.get(name), kind, element) if name in element.attributes else None


def _number_field(element: Element, scope: Scope) -> Field:
    found = scope.find(element.must("field"), element)
    if not found.is_number:
        raise element.refused(f"takes a number, and field {element.get('field')[:80]} is none")
    return found


def _interpolated(element: Element, scope: Scope, wanted: DataType) -> Field:
    inner = _number_field(element, scope)
    points = tuple((each.number("orig"), each.number("norm")) for each in element.all("LinearNorm"))
    if len(points) > ranges_max:
        raise element.refused(f"has more than {ranges_max:,} points")
    if len(points) < 2 or any(high[0] <= low[0] for low, high in pairwise(points)):
        raise element.refused("has fewer than two points, or points that are not in order")
    outliers = element.get("outliers", "asIs")
    if outliers not in ("asIs", "asMissingValues", "asExtremeValues"):
        raise element.refused(f"has outliers={outliers[:40]!r}, which is not known")
    if outliers == "asMissingValues" and "mapMissingTo" in element.attributes:
        raise element.refused(
            "has outliers=asMissingValues and mapMissingTo, which evaluators join in two ways"
        )
    made = Interpolated(inner.expression, points, outliers, _option(element, "mapMissingTo", "double"))
    return Field(expression=made, kind="double", is_number=True)


def _one_hot(element: Element, scope: Scope, wanted: DataType) -> Field:
    inner = scope.find(element.must("field"), element)
    value = inner.value(element.must("value"), element)
    made = Mapped(inner.expression, {value: 1.0}, 0.0, _option(element, "mapMissingTo", "double"))
    return Field(expression=made, kind="double", is_number=True)


def _binned(element: Element, scope: Scope, wanted: DataType) -> Field:
    inner, kind = _number_field(element, scope), element.get("dataType", wanted)
    bins = tuple(
        (*interval(each.need("Interval")), _typed(each.must("binValue"), kind, each))
        for each in element.all("DiscretizeBin")
    )
    if len(bins) > ranges_max:
        raise element.refused(f"has more than {ranges_max:,} bins")
    made = Binned(
        inner.expression, bins, _option(element, "defaultValue", kind), _option(element, "mapMissingTo", kind)
    )
    return Field(expression=made, kind=kind, is_number=kind in ("integer", "float", "double"))


def _mapped(element: Element, scope: Scope, wanted: DataType) -> Field:
    pairs, kind, out = element.all("FieldColumnPair"), element.get("dataType", wanted), element.must("outputColumn")  # fmt: skip
    if len(pairs) != 1:
        raise element.refused("maps values of several fields at once, which is not read")
    inner = scope.find(pairs[0].must("field"), pairs[0])
    table: dict[Value, Value] = {}
    for row in element.need("InlineTable").all("row"):
        given, made = row.one(pairs[0].must("column")), row.one(out)
        if given is None or made is None:
            raise row.refused("lacks a column of its table")
        table.setdefault(inner.value(given.text, given), _typed(made.text, kind, made))
    mapped = Mapped(
        inner.expression,
        table,
        _option(element, "defaultValue", kind),
        _option(element, "mapMissingTo", kind),
    )
    return Field(expression=mapped, kind=kind, is_number=kind in ("integer", "float", "double"))


def _applied(element: Element, scope: Scope, wanted: DataType, depth: int) -> Field:
    name = element.must("function")
    if name not in functions and name not in _counts:
        raise element.refused(f"is of function {name[:40]}, which is not read")
    least, most = _counts.get(name, (1, 1) if name in _of_one else (2, 2))
    if not least <= len(element.children) <= most:
        raise element.refused(f"gives function {name} {len(element.children)} arguments")
    arguments = [expression_of(each, scope, wanted, depth=depth + 1) for each in element.children]
    kinds = [each.kind for each in arguments]
    if name in _of_numbers and not all(kind in ("integer", "float", "double") for kind in kinds):
        raise element.refused(f"gives function {name} a value that is no number")
    if name in ("uppercase", "lowercase") and kinds != ["string"]:
        raise element.refused(f"gives function {name} a value that is no text")
    if name == "/" and kinds == ["integer", "integer"]:
        raise element.refused("divides a whole number by a whole number, which evaluators round differently")
    kind = _kind_of(name, kinds)
    treatment = element.get("invalidValueTreatment", "returnInvalid")
    if treatment not in ("returnInvalid", "asMissing"):
        raise element.refused(f"has invalidValueTreatment={treatment[:40]!r}, which is not read")
    made: Expression = Applied(
        name,
        tuple(_in_kind(each, kinds, name) for each in arguments),
        _option(element, "mapMissingTo", kind),
        _option(element, "defaultValue", kind),
        treatment == "asMissing",
    )
    if kind == "float" and name in ("+", "-", "*", "/"):
        made = Rounded(made)
    return Field(expression=made, kind=kind, is_number=kind in ("integer", "float", "double"))


def _kind_of(name: str, kinds: list[DataType]) -> DataType:
    if name == "if":
        kinds = kinds[1:]
    if name in ("if", "+", "-", "*", "/", "abs"):
        order = {"integer": 0, "float": 1, "double": 2}
        known = all(kind in order for kind in kinds)
        return max(kinds, key=lambda kind: order[kind]) if known else kinds[0]
    if name in ("floor", "ceil", "threshold"):
        return "integer"
    if name in ("pow", "exp", "ln", "log10", "sqrt"):
        return "double"
    return "string" if name in ("uppercase", "lowercase") else "boolean"


def _in_kind(argument: Field, kinds: list[DataType], name: str) -> Expression:
    """Texts that are compared with numbers are the numbers that they say."""
    held = argument.expression
    if name not in ("equal", "notEqual", "isIn", "isNotIn") or not isinstance(held, Constant):
        return held
    if kinds[0] == "string" and isinstance(held.value, float):
        text = str(int(held.value)) if held.value.is_integer() else repr(held.value)
        return Constant(text)
    if kinds[0] in ("integer", "float", "double") and isinstance(held.value, str):
        number = as_number(held.value)
        return Constant(math.nan if number is None else number)
    if kinds[0] == "float" and isinstance(held.value, float):
        return Constant(typed(repr(held.value), "float"))
    if kinds[0] == "boolean" and isinstance(held.value, str):
        return Constant(held.value.strip().lower() == "true")
    return held
