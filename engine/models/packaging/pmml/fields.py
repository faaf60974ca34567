"""Fields by name: the dictionary, the treatments of a mining schema, and fields derived from others."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from penstock.engine.models.packaging.pmml.elements import Element
from penstock.engine.models.packaging.pmml.expressions import (
    Cleaned,
    Column,
    Expression,
    Rounded,
    Value,
    invalid,
    size_of,
    typed,
)
from penstock.engine.models.packaging.pmml.pieces import breaks, farthest
from penstock.schemas.errors import ConfigError

_types: Final = {"string": "string", "integer": "integer", "float": "float", "double": "double", "boolean": "boolean"}  # fmt: skip
_not_inputs: Final = ("target", "predicted", "supplementary", "group", "order", "frequencyWeight", "analysisWeight")  # fmt: skip
categories_max: Final = 1 << 16
_aliases_max: Final = 64
ranges_max: Final = 1 << 11
"""Intervals of a field, bins, points: each is looked at for each number."""
expressions_max: Final = 1 << 10
"""What a field may be computed of: a few that are made of each other double with each."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Field:
    """What a name stands for in a scope."""

    expression: Expression
    kind: str
    """Its data type."""
    is_number: bool
    """Continuous, or a number of any kind: it can be more or less."""

    def value(self, text: str, element: Element) -> Value:
        """A value that it is compared with, as the file writes it. Raises ConfigError."""
        try:
            return typed(text, self.kind)
        except ConfigError as error:
            raise element.refused(f"compares {error}") from None


@dataclass(slots=True, eq=False)
class RawColumn:
    """A column of the records: its place among those that the model looks at is given by the order of the mining schema."""

    name: str
    table: tuple[str, ...] = ()
    """What the categories are called; a number has none."""
    values: tuple[Value, ...] = ()
    """The categories in their type; the last stands for all others where `is_open`."""
    is_open: bool = False
    unseen: str = "nan"
    """Of a category that the table does not hold: nan, reject; with `is_open` it is the last of the table."""
    instead: Value = None
    """Of a category that the table does not hold, what it becomes (asValue)."""
    is_asked: bool = False
    """Some predicate asks about it, though all of its values may take the same way."""
    rejects_missing: bool = False
    """A record without it gets no prediction."""
    within: tuple[tuple[float, float], ...] = ()
    """Of numbers: a record gets a prediction only with one in these ranges, ends included; empty: with any."""

    @property
    def is_category(self) -> bool:
        """Whether it has a table."""
        return bool(self.table)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Dictionary:
    """The DataDictionary, and what the file compares each of its fields with."""

    elements: Mapping[str, Element]
    compared: Mapping[str, tuple[str, ...]]

    def labels(self, name: str) -> tuple[str, ...]:
        """The values of a target, in order; none where the dictionary does not say."""
        element = self.elements.get(name)
        return () if element is None else tuple(_valid(element))


def dictionary_of(root: Element) -> Dictionary:
    """Of a PMML element."""
    elements: dict[str, Element] = {}
    for each in root.need("DataDictionary").all("DataField"):
        if elements.setdefault(each.must("name"), each) is not each:
            raise each.refused(f"is called {each.get('name')[:80]}, as another")
    return Dictionary(elements=elements, compared=_compared(root))


def _valid(element: Element) -> Iterator[str]:
    for value in element.all("Value"):
        if value.get("property", "valid") == "valid":
            yield value.must("value")


def array_of(element: Element) -> list[str]:
    """The texts of an Array. Raises ConfigError where they are not as many as it says."""
    texts: list[str] = []
    part, quoted, escaped, begun = "", False, False, False
    for character in element.text:
        if escaped:
            part, escaped = part + character, False
        elif character == "\\" and quoted:
            escaped = True
        elif character == '"':
            quoted, begun = not quoted, True
        elif character.isspace() and not quoted:
            if part or begun:
                texts.append(part)
            part, begun = "", False
        else:
            part += character
    if part or begun:
        texts.append(part)
    if "n" in element.attributes and element.whole("n") != len(texts):
        raise element.refused(f"says n={element.get('n')} and has {len(texts)} values")
    return texts


def _compared(root: Element) -> dict[str, tuple[str, ...]]:
    """By field, the values that the file compares it with, in the order of their first appearance."""
    found: dict[str, dict[str, None]] = {}
    passes_on: dict[str, str] = {}
    for each in root.walk():
        if each.name == "SimplePredicate" and "value" in each.attributes:
            found.setdefault(each.get("field"), {})[each.get("value")] = None
        elif each.name == "SimpleSetPredicate" and (array := each.one("Array")):
            found.setdefault(each.get("field"), {}).update(dict.fromkeys(array_of(array)))
        elif each.name in ("NormDiscrete", "CategoricalPredictor"):
            found.setdefault(each.get("field") or each.get("name"), {})[each.get("value")] = None
        elif each.name == "PPCell":
            found.setdefault(each.get("predictorName"), {})[each.get("value")] = None
        elif each.name == "DerivedField" and (reference := each.one("FieldRef")):
            passes_on[each.get("name")] = reference.get("field")
        elif each.name == "MapValues" and (pair := each.one("FieldColumnPair")):
            rows = [row for table in each.all("InlineTable") for row in table.all("row")]
            cells = [cell.text for row in rows for cell in row.all(pair.get("column"))]
            found.setdefault(pair.get("field"), {}).update(dict.fromkeys(cells))
        elif each.name == "Apply":
            texts = [constant.text for constant in each.all("Constant")]
            for reference in each.all("FieldRef"):
                found.setdefault(reference.get("field"), {}).update(dict.fromkeys(texts))
        elif each.name == "MiningField" and "missingValueReplacement" in each.attributes:
            found.setdefault(each.get("name"), {})[each.get("missingValueReplacement")] = None
    for name, origin in passes_on.items():
        for _ in range(_aliases_max if name in found else 0):
            found.setdefault(origin, {}).update(found[name])
            if origin not in passes_on:
                break
            origin = passes_on[origin]
    return {name: tuple(values) for name, values in found.items()}


@dataclass(slots=True, eq=False)
class Scope:
    """The fields that a model, or a model inside it, can name."""

    dictionary: Dictionary
    columns: list[RawColumn]
    read_derived: Callable[[Element, "Scope"], Field]
    fields: dict[str, Field] = field(default_factory=dict)
    derived: dict[str, Element] = field(default_factory=dict)
    """Fields that are computed, read when they are first named."""
    reading: set[str] = field(default_factory=set)
    sizes: dict[int, tuple[Expression, int]] = field(default_factory=dict)

    def inner(self) -> "Scope":
        """That of a model inside this one, which sees all of it."""
        return replace(self, fields=dict(self.fields), derived=dict(self.derived), reading=set())

    def find(self, name: str, element: Element) -> Field:
        """What a name stands for. Raises ConfigError."""
        if name not in self.fields and name in self.derived:
            if name in self.reading:
                raise element.refused(f"asks for field {name[:80]}, which is computed from itself")
            self.reading.add(name)
            found = self.read_derived(self.derived[name], self)
            if size_of(found.expression, self.sizes) > expressions_max:
                raise self.derived[name].refused(f"is computed of more than {expressions_max:,} others")
            self.fields[name] = found
        if name not in self.fields:
            raise element.refused(f"asks for field {name[:80]}, which is no input of its model")
        return self.fields[name]

    def take_derived(self, element: Element) -> None:
        """The derived fields of a transformation dictionary or of local transformations."""
        for each in element.all("DerivedField"):
            name = each.must("name")
            self.derived[name] = each
            self.fields.pop(name, None)
            self.reading.discard(name)

    def take_schema(self, schema: Element, *, outermost: bool) -> str | None:
        """The fields of a mining schema, and the name of its target."""
        target = None
        for each in schema.all("MiningField"):
            name, usage = each.must("name"), each.get("usageType", "active")
            if usage in ("target", "predicted"):
                target = name if target is None else target
            if usage in _not_inputs:
                continue
            if outermost:
                self.fields[name] = self._input(each, name)
            elif name in self.fields or name in self.derived:
                self.fields[name] = _treated(self.find(name, each), each, None)
        return target

    def _input(self, mining: Element, name: str) -> Field:
        element = self.dictionary.elements.get(name)
        if element is None:
            raise mining.refused(f"asks for field {name[:80]}, which the dictionary does not have")
        kind = _types.get(element.must("dataType"))
        if kind is None:
            raise element.refused(f"is of type {element.get('dataType')[:40]}, which is not read")
        operational = mining.get("optype") or element.get("optype")
        column = RawColumn(name)
        is_number = operational == "continuous"
        if is_number and kind in ("string", "boolean"):
            raise element.refused(f"is continuous and of type {kind}")
        if not is_number:
            self._take_categories(column, element, mining, kind)
        self.columns.append(column)
        made: Expression = Column(len(self.columns) - 1)
        if kind == "float" and is_number:
            made = Rounded(made)
        found = _treated(Field(expression=made, kind=kind, is_number=is_number), mining, element)
        column.rejects_missing = found.expression.at(None) is invalid
        if not column.is_category:
            column.within = _taken(found.expression, mining)
        return found

    def _take_categories(self, column: RawColumn, element: Element, mining: Element, kind: str) -> None:
        named = {each.must("value"): each.get("property", "valid") for each in element.all("Value")}
        treatment = _treatment(mining)
        valid = [text for text, what in named.items() if what == "valid"]
        is_open = treatment == "asIs" or not valid
        texts = [text for text, what in named.items() if what != "invalid" or is_open]
        if is_open:
            texts += [text for text in self.dictionary.compared.get(column.name, ()) if text not in named]
        if is_open and kind == "boolean":
            texts += ["true", "false"]  # there is no other value, whatever the file compares
        table: dict[str, Value] = {}
        for text in texts:
            try:
                value = typed(text, kind)
            except ConfigError:
                if text in named:
                    raise element.refused(f"has a value {text[:40]!r} that is not of type {kind}") from None
                continue
            table.setdefault(written(value), value)
        if is_open and kind != "boolean":
            other = "(any other)"
            while other in table:
                other += "'"
            table[other] = other
        if len(table) > categories_max:
            raise element.refused(f"has {len(table):,} categories, more than {categories_max:,}")
        column.table, column.values = tuple(table), tuple(table.values())
        column.is_open = is_open and kind != "boolean"
        column.unseen = "nan" if treatment == "asMissing" else "reject"
        if treatment == "asValue":
            column.instead = typed(mining.must("invalidValueReplacement"), kind)
            if column.instead not in column.values:
                raise mining.refused(
                    "puts a value in place of invalid ones that the dictionary does not have"
                )


def written(value: Value) -> str:
    """What a category is called: whole numbers without a decimal point."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return str(value)


def _treatment(mining: Element) -> str:
    treatment = mining.get("invalidValueTreatment", "returnInvalid")
    if treatment not in ("returnInvalid", "asIs", "asMissing", "asValue"):
        raise mining.refused(f"has invalidValueTreatment={treatment[:40]!r}, which is not known")
    return treatment


def _taken(expression: Expression, mining: Element) -> tuple[tuple[float, float], ...]:
    """The numbers of its column that it is not invalid for, as ranges; empty for all."""
    ends = [*(end for end in breaks(expression) if -farthest < end < farthest), farthest]
    taken: list[tuple[float, float]] = []
    low = -math.inf
    for end in ends:
        high = math.inf if end is ends[-1] else end
        if expression.at(end) is not invalid:
            joined = bool(taken) and math.nextafter(taken[-1][1], math.inf) == low
            taken[-1:] = [(taken[-1][0], high)] if joined else [*taken[-1:], (low, high)]
        low = math.nextafter(high, math.inf)
    if not taken:
        raise mining.refused("has no valid values at all")
    return () if taken == [(-math.inf, math.inf)] else tuple(taken)


def _treated(found: Field, mining: Element, element: Element | None) -> Field:
    """A field after the treatments of a mining field; `element`: its own, where it comes from the records."""
    replacement: Value = None
    if "missingValueReplacement" in mining.attributes:
        replacement = found.value(mining.get("missingValueReplacement"), mining)
    if mining.get("missingValueTreatment") == "returnInvalid":
        replacement = invalid
    outliers = mining.get("outliers", "asIs")
    low, high = -math.inf, math.inf
    if outliers in ("asMissingValues", "asExtremeValues"):
        low, high = mining.number("lowValue", -math.inf), mining.number("highValue", math.inf)
    elif outliers != "asIs":
        raise mining.refused(f"has outliers={outliers[:40]!r}, which is not known")
    markers, invalids = frozenset[Value](), frozenset[Value]()
    ranges: tuple[tuple[float, float, bool, bool], ...] = ()
    instead: Value = invalid
    if element is not None:
        treatment = _treatment(mining)
        by_kind: dict[str, set[Value]] = {"missing": set(), "invalid": set(), "valid": set()}
        for each in element.all("Value"):
            if each.get("value") == "NaN" and found.kind in ("float", "double"):
                continue  # no record holds it as a number: it is missing as it is
            by_kind.setdefault(each.get("property", "valid"), set()).add(
                found.value(each.must("value"), each)
            )
        markers = frozenset(by_kind["missing"])
        if treatment != "asIs":
            invalids = frozenset(by_kind["invalid"])
        if found.is_number and treatment != "asIs":
            points = sorted(value for value in by_kind["valid"] if isinstance(value, float))
            ranges = (
                *(interval(each) for each in element.all("Interval")),
                *((value, value, True, True) for value in points),
            )
        if len(ranges) > ranges_max:
            raise element.refused(f"has more than {ranges_max:,} intervals or values")
        if treatment == "asMissing":
            instead = None
        elif treatment == "asValue":
            instead = found.value(mining.must("invalidValueReplacement"), mining)
    if replacement is None and not markers and not invalids and not ranges and outliers == "asIs":
        return found
    cleaned = Cleaned(
        found.expression, markers, invalids, ranges, instead, low, high, outliers == "asExtremeValues", replacement
    )  # fmt: skip
    return replace(found, expression=cleaned)


def interval(element: Element) -> tuple[float, float, bool, bool]:
    """From, to, and whether the ends belong. Raises ConfigError."""
    closure = element.get("closure", "closedClosed")
    if closure not in ("openOpen", "openClosed", "closedOpen", "closedClosed"):
        raise element.refused(f"has closure={closure[:40]!r}, which is not known")
    low = element.number("leftMargin", -math.inf)
    return (
        low,
        element.number("rightMargin", math.inf),
        closure.startswith("closed"),
        closure.endswith("Closed"),
    )
