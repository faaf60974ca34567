"""Predicates of PMML over the columns of a record: true, false, unknown (a value is missing) or invalid."""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from penstock.engine.models.packaging.pmml.elements import Element
from penstock.engine.models.packaging.pmml.expressions import Expression, Value, invalid
from penstock.engine.models.packaging.pmml.fields import Field, RawColumn, Scope, array_of
from penstock.engine.models.packaging.pmml.pieces import after, before, breaks, crossings, farthest
from penstock.schemas.errors import ConfigError


class Truth(IntEnum):
    """What a predicate says."""

    FALSE = 0
    TRUE = 1
    UNKNOWN = 2
    INVALID = 3


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a column of numbers may still be: above low and up to high, missing, or both."""

    low: float = -math.inf
    high: float = math.inf
    there: bool = True
    missing: bool = True


@dataclass(frozen=True, slots=True)
class Codes:
    """What a column of categories may still be: these codes, as bits, missing, or both."""

    held: int
    missing: bool = True

    @property
    def there(self) -> bool:
        """Whether it may be a category at all."""
        return self.held != 0


Domain = Numbers | Codes
State = Mapping[int, Domain]


@dataclass(frozen=True, slots=True, eq=False)
class Test:
    """A test of one column: what it says of every number or category, and where the value is missing."""

    column: int
    missing: Truth
    cuts: tuple[float, ...] = ()
    """Of numbers: the largest before each change."""
    truths: tuple[Truth, ...] = ()
    """Of numbers: between the cuts."""
    held: tuple[int, ...] = ()
    """Of categories: by truth, the codes as bits."""
    of: Callable[[Value], Truth] = lambda _: Truth.UNKNOWN
    """Of one value of the column."""

    def said(self, domain: Domain) -> set[Truth]:
        """All that it may still say."""
        found = {self.missing} if domain.missing else set()
        if isinstance(domain, Codes):
            return found | {Truth(number) for number, codes in enumerate(self.held) if codes & domain.held}
        if domain.there:
            first, last = bisect_left(self.cuts, after(domain.low)), bisect_left(self.cuts, domain.high)
            found.update(self.truths[first : last + 1])
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Always:
    """True and False."""

    truth: Truth


always: Final = Always(Truth.TRUE)
never: Final = Always(Truth.FALSE)


@dataclass(frozen=True, slots=True, eq=False)
class Compound:
    """and, or, xor, surrogate of others."""

    operator: str
    parts: tuple["Predicate", ...]


Predicate = Test | Always | Compound


def asked(predicate: Predicate, state: State) -> Truth | Test:
    """What the predicate says, or the first test that is still open."""

    def answer(test: Test) -> Truth | Test:
        said = test.said(state[test.column])
        return said.pop() if len(said) == 1 else test

    return _asked(predicate, answer)


def truth_at(predicate: Predicate, raw: Value) -> Truth:
    """What the predicate says where its only column holds this."""
    found = _asked(predicate, lambda test: test.of(raw))
    assert isinstance(found, Truth)
    return found


def columns_of(predicate: Predicate) -> frozenset[int]:
    """The columns that it asks about."""
    if isinstance(predicate, Compound):
        return frozenset[int]().union(*(columns_of(each) for each in predicate.parts))
    return frozenset((predicate.column,)) if isinstance(predicate, Test) else frozenset()


def _asked(predicate: Predicate, answer: Callable[[Test], Truth | Test]) -> Truth | Test:
    if isinstance(predicate, Always):
        return predicate.truth
    if isinstance(predicate, Test):
        return answer(predicate)
    if predicate.operator == "xor":
        return _odd([_asked(part, answer) for part in predicate.parts])
    still_open: Test | None = None
    worst = Truth.FALSE if predicate.operator == "or" else Truth.TRUE
    decides = Truth.TRUE if predicate.operator == "or" else Truth.FALSE
    for part in predicate.parts:
        found = _asked(part, answer)
        if predicate.operator == "surrogate":
            if found is not Truth.UNKNOWN:
                return found
            worst = Truth.UNKNOWN
            continue
        if found is decides or found is Truth.INVALID:
            return found if still_open is None or found is decides else still_open
        if isinstance(found, Test):
            still_open = still_open or found
        elif found is Truth.UNKNOWN:
            worst = Truth.UNKNOWN
    return worst if still_open is None else still_open


def _odd(found: list[Truth | Test]) -> Truth | Test:
    """Whether an odd number is true; it is unknown where one of them is."""
    for worst in (Truth.INVALID, Truth.UNKNOWN):
        if worst in found:
            return worst
    still_open = next((each for each in found if isinstance(each, Test)), None)
    return Truth(found.count(Truth.TRUE) % 2) if still_open is None else still_open


_names: Final = ("SimplePredicate", "SimpleSetPredicate", "CompoundPredicate", "True", "False")
_orders: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "lessThan": lambda a, b: a < b,
    "lessOrEqual": lambda a, b: a <= b,
    "greaterThan": lambda a, b: a > b,
    "greaterOrEqual": lambda a, b: a >= b,
}


class PredicateReader:
    """Reads the predicates of one model; tests that are alike are read once."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._breaks: dict[int, tuple[Expression, tuple[float, ...]]] = {}
        self._tests: dict[tuple[str, str, str], Test | Always] = {}

    def of(self, owner: Element) -> Predicate:
        """The predicate of a node, a segment or an attribute. Raises ConfigError."""
        found = owner.all(*_names)
        if len(found) != 1:
            raise owner.refused("has no predicate, or several")
        return self._read(found[0], 0)

    def _read(self, element: Element, depth: int) -> Predicate:
        if element.name in ("True", "False"):
            return always if element.name == "True" else never
        if element.name == "CompoundPredicate":
            operator = element.must("booleanOperator")
            parts = element.all(*_names)
            if operator not in ("and", "or", "xor", "surrogate"):
                raise element.refused(f"is of booleanOperator {operator[:40]}, which is not read")
            if not parts or depth > 64:
                raise element.refused("joins nothing, or lies too deep inside others")
            return Compound(operator, tuple(self._read(part, depth + 1) for part in parts))
        name = element.must("field")
        if element.name == "SimplePredicate":
            key = (name, element.must("operator"), element.get("value"))
        else:
            array = element.need("Array")
            key = (name, element.must("booleanOperator"), array.text)
        if key not in self._tests:
            self._tests[key] = self._test(element, self._scope.find(name, element))
        return self._tests[key]

    def _test(self, element: Element, field: Field) -> Test | Always:
        says, marks = _asks(element, field)

        def truth(value: Value) -> Truth:
            if value is invalid:
                return Truth.INVALID
            return says(value)

        columns = field.expression.columns
        if not columns:
            return Always(truth(field.expression.at(None)))
        if len(columns) > 1:
            names = ", ".join(sorted(self._scope.columns[each].name for each in columns)[:3])
            raise element.refused(
                f"asks about a field computed of several others ({names}), which no tree of ours asks"
            )
        (number,) = columns
        column, at = self._scope.columns[number], field.expression.at
        column.is_asked = True
        missing = truth(at(None))

        def of(raw: Value) -> Truth:
            return truth(at(raw))

        if column.is_category:
            held = [0, 0, 0, 0]
            for code, value in enumerate(column.values):
                held[truth(at(value))] |= 1 << code
            return Test(number, missing, held=tuple(held), of=of)
        try:
            ends = self._ends(field.expression)
            cuts = _merged((*ends, *crossings(field.expression, ends, marks)))
        except ConfigError as error:
            raise element.refused(f"asks about a field that uses {error}") from None
        bounds = (*cuts, farthest)
        truths = tuple(truth(at(bound)) for bound in bounds)
        if column.within:
            truths = _of_taken(truths, [_lies_in(column.within, bound) for bound in bounds])
        kept = [place for place in range(len(cuts)) if truths[place] is not truths[place + 1]]
        return Test(
            number,
            missing,
            cuts=tuple(cuts[place] for place in kept),
            truths=(*(truths[place] for place in kept), truths[-1]),
            of=of,
        )

    def _ends(self, expression: Expression) -> tuple[float, ...]:
        known = self._breaks.get(id(expression))
        if known is None:
            known = self._breaks[id(expression)] = (expression, breaks(expression))
        return known[1]


def _lies_in(ranges: tuple[tuple[float, float], ...], value: float) -> bool:
    return any(low <= value <= high for low, high in ranges)


def _of_taken(truths: Sequence[Truth], taken: Sequence[bool]) -> tuple[Truth, ...]:
    """Between the cuts; where no value is taken, what stands beside it, so that nothing is asked there."""
    last = next(truth for truth, is_taken in zip(truths, taken, strict=True) if is_taken)
    found = []
    for truth, is_taken in zip(truths, taken, strict=True):
        last = truth if is_taken else last
        found.append(last)
    return tuple(found)


def _merged(cuts: Iterable[float]) -> tuple[float, ...]:
    return tuple(sorted(set(cuts)))


def _asks(element: Element, field: Field) -> tuple[Callable[[Value], Truth], list[float]]:
    """What a simple predicate says of a value, and the numbers at which that changes."""
    if element.name == "SimpleSetPredicate":
        operator = element.must("booleanOperator")
        if operator not in ("isIn", "isNotIn"):
            raise element.refused(f"is of booleanOperator {operator[:40]}, which is not known")
        held = {field.value(text, element) for text in array_of(element.need("Array"))}
        wanted = operator == "isIn"
        return (lambda value: _of((value in held) == wanted, value)), [each for each in held if isinstance(each, float)]  # fmt: skip
    operator = element.must("operator")
    if operator in ("isMissing", "isNotMissing"):
        return (lambda value: Truth((value is None) == (operator == "isMissing"))), []
    given = field.value(element.must("value"), element)
    marks = [given] if isinstance(given, float) else []
    if operator in ("equal", "notEqual"):
        return (lambda value: _of((value == given) == (operator == "equal"), value)), marks
    if operator not in _orders:
        raise element.refused(f"is of operator {operator[:40]}, which is not known")
    if not field.is_number or not isinstance(given, float):
        raise element.refused("asks which of two values is less that are no numbers")
    compare = _orders[operator]
    return (lambda value: _of(isinstance(value, float) and compare(value, given), value)), marks


def _of(answer: bool, value: Value) -> Truth:
    return Truth.UNKNOWN if value is None else Truth(answer)


def domain_of(column: RawColumn) -> Domain:
    """All that a column may hold."""
    missing = not column.rejects_missing
    if column.is_category:
        return Codes((1 << len(column.table)) - 1, missing)
    if not column.within:
        return Numbers(missing=missing)
    return Numbers(before(column.within[0][0]), min(column.within[-1][1], farthest), missing=missing)
