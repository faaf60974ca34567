"""What a PMML file computes from fields before a model: expressions, and what each makes of one value.

A value is a float, a text, a boolean, None (missing) or `invalid`.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np

from penstock.engine.models.packaging.pmml.elements import as_number
from penstock.schemas.errors import ConfigError

DataType = str
"""string, integer, float, double or boolean."""


class Invalid(Enum):
    """A value that the file says it cannot be asked about."""

    INVALID = "invalid"


invalid: Final = Invalid.INVALID
Value = float | str | bool | None | Invalid


@dataclass(frozen=True, slots=True, eq=False)
class Expression:
    """Something that a field is, of the columns of a record."""

    @property
    @abstractmethod
    def columns(self) -> frozenset[int]:
        """Which columns it depends on."""

    @abstractmethod
    def at(self, raw: Value) -> Value:
        """Its value where its only column holds this. Of several columns, nothing can be said: callers ask `columns` first."""


@dataclass(frozen=True, slots=True, eq=False)
class Column(Expression):
    """A column as it is: a number, or what a category is called, in its type."""

    column: int

    @property
    def columns(self) -> frozenset[int]:
        return frozenset((self.column,))

    def at(self, raw: Value) -> Value:
        return raw


@dataclass(frozen=True, slots=True, eq=False)
class Constant(Expression):
    """The same everywhere."""

    value: Value

    @property
    def columns(self) -> frozenset[int]:
        return frozenset()

    def at(self, raw: Value) -> Value:
        return self.value


@dataclass(frozen=True, slots=True, eq=False)
class Wrapping(Expression):
    """What is made of one other value."""

    inner: Expression

    @property
    def columns(self) -> frozenset[int]:
        return self.inner.columns


@dataclass(frozen=True, slots=True, eq=False)
class Rounded(Wrapping):
    """A number in single precision."""

    def at(self, raw: Value) -> Value:
        value = self.inner.at(raw)
        return single(value) if isinstance(value, float) else value


@dataclass(frozen=True, slots=True, eq=False)
class Cleaned(Wrapping):
    """A field after its treatments: values that mean a missing one, values that are not valid, outliers, replacements."""

    markers: frozenset[Value]
    """Values that mean a missing one."""
    invalid_values: frozenset[Value]
    ranges: tuple[tuple[float, float, bool, bool], ...]
    """Valid are numbers from, to; whether the ends belong. Empty: all numbers are."""
    instead: Value
    """In place of what is not valid; None: it is missing."""
    low: float
    high: float
    extremes: bool
    """What lies beyond low and high becomes that; else it is missing."""
    replacement: Value
    """In place of what is missing."""

    @property
    def marks(self) -> list[float]:
        """Numbers at which the answer may change."""
        ends = [end for low, high, _, _ in self.ranges for end in (low, high)]
        held = [value for value in (*self.markers, *self.invalid_values) if isinstance(value, float)]
        return [value for value in (*ends, *held, self.low, self.high) if math.isfinite(value)]

    def at(self, raw: Value) -> Value:
        value = self.inner.at(raw)
        if value in self.markers:
            value = None
        elif value is not None and value is not invalid and not self._is_valid(value):
            value = self.instead
        elif isinstance(value, float) and not self.low <= value <= self.high:
            value = min(max(value, self.low), self.high) if self.extremes else None
        return self.replacement if value is None else value

    def _is_valid(self, value: Value) -> bool:
        if value in self.invalid_values:
            return False
        if not self.ranges or not isinstance(value, float):
            return True
        return any(
            low < value < high or (value == low and from_low) or (value == high and to_high)
            for low, high, from_low, to_high in self.ranges
        )


@dataclass(frozen=True, slots=True, eq=False)
class Mapped(Wrapping):
    """A table of values: MapValues and NormDiscrete."""

    table: Mapping[Value, Value]
    default: Value
    missing: Value

    @property
    def marks(self) -> list[float]:
        """Numbers at which the answer may change."""
        return [value for value in self.table if isinstance(value, float)]

    def at(self, raw: Value) -> Value:
        value = self.inner.at(raw)
        if value is None or value is invalid:
            return self.missing if value is None else value
        return self.table.get(value, self.default)


@dataclass(frozen=True, slots=True, eq=False)
class Binned(Wrapping):
    """Discretize: the first interval that a number lies in."""

    bins: tuple[tuple[float, float, bool, bool, Value], ...]
    """From, to, whether each end belongs, and what the number becomes."""
    default: Value
    missing: Value

    @property
    def marks(self) -> list[float]:
        """Numbers at which the answer may change."""
        return [end for low, high, *_ in self.bins for end in (low, high) if math.isfinite(end)]

    def at(self, raw: Value) -> Value:
        value = self.inner.at(raw)
        if not isinstance(value, float):
            return self.missing if value is None else invalid
        for low, high, from_low, to_high, label in self.bins:
            if low < value < high or (value == low and from_low) or (value == high and to_high):
                return label
        return self.default


@dataclass(frozen=True, slots=True, eq=False)
class Interpolated(Wrapping):
    """NormContinuous: straight lines between points."""

    points: tuple[tuple[float, float], ...]
    """What the number is, ascending, and what it becomes."""
    outliers: str
    """asIs: the outer lines go on; asMissingValues; asExtremeValues."""
    missing: Value

    @property
    def marks(self) -> list[float]:
        """Numbers at which the line bends."""
        return [point for point, _ in self.points]

    def at(self, raw: Value) -> Value:
        value = self.inner.at(raw)
        if not isinstance(value, float):
            return self.missing if value is None else invalid
        points = self.points
        if not points[0][0] <= value <= points[-1][0]:
            if self.outliers == "asMissingValues":
                return self.missing
            if self.outliers == "asExtremeValues":
                return points[0][1] if value < points[0][0] else points[-1][1]
        place = next((at for at, point in enumerate(points[1:-1], 1) if value < point[0]), len(points) - 1)
        (low, from_low), (high, to_high) = points[place - 1], points[place]
        return from_low + (value - low) / (high - low) * (to_high - from_low)


@dataclass(frozen=True, slots=True, eq=False)
class Applied(Expression):
    """A built-in function of other expressions."""

    function: str
    arguments: tuple[Expression, ...]
    missing: Value
    """Its value where an argument is missing."""
    default: Value
    """Its value where it has none."""
    invalid_is_missing: bool

    @property
    def columns(self) -> frozenset[int]:
        return frozenset().union(*(each.columns for each in self.arguments))

    def at(self, raw: Value) -> Value:
        values = [each.at(raw) for each in self.arguments]
        result = self._result(values)
        if result is invalid and self.invalid_is_missing:
            result = None
        return self.default if result is None else result

    def _result(self, values: Sequence[Value]) -> Value:
        if self.function in ("isMissing", "isNotMissing"):
            return (values[0] is None) == (self.function == "isMissing")
        if self.function == "if":
            if values[0] is None or values[0] is invalid:
                return self.missing if values[0] is None else invalid
            return values[1] if values[0] is True else values[2] if len(values) > 2 else None
        if invalid in values:
            return invalid
        if None in values:
            return self.missing
        try:
            result = functions[self.function](*values)
        except (ValueError, OverflowError, ZeroDivisionError, TypeError):
            return invalid
        return invalid if isinstance(result, float) and math.isnan(result) else result


def _divided(over: float, under: float) -> float:
    if under == 0:
        raise ZeroDivisionError
    return over / under


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


functions: Final[Mapping[str, Callable[..., Value]]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _divided,
    "pow": lambda a, b: float(a) ** float(b) if a >= 0 or float(b).is_integer() else math.nan,
    "exp": _exp,
    "ln": math.log,
    "log10": math.log10,
    "sqrt": math.sqrt,
    "abs": abs,
    "floor": lambda a: float(math.floor(a)) if math.isfinite(a) else a,
    "ceil": lambda a: float(math.ceil(a)) if math.isfinite(a) else a,
    "threshold": lambda a, b: 1.0 if a > b else 0.0,
    "equal": lambda a, b: a == b,
    "notEqual": lambda a, b: a != b,
    "lessThan": lambda a, b: a < b,
    "lessOrEqual": lambda a, b: a <= b,
    "greaterThan": lambda a, b: a > b,
    "greaterOrEqual": lambda a, b: a >= b,
    "not": lambda a: not a,
    "isIn": lambda a, *held: a in held,
    "isNotIn": lambda a, *held: a not in held,
    "uppercase": lambda a: a.upper(),
    "lowercase": lambda a: a.lower(),
}  # fmt: skip
"""Built-in functions of arguments that are there, besides `if`, isMissing and isNotMissing."""


def size_of(expression: Expression, known: dict[int, tuple[Expression, int]]) -> int:
    """How many expressions are asked when this one is: one that others share counts for each of them. `known`: what was
    counted before."""
    if id(expression) not in known:
        inside = (
            expression.arguments if isinstance(expression, Applied) else (getattr(expression, "inner", None),)
        )
        total = 1 + sum(size_of(each, known) for each in inside if each is not None)
        known[id(expression)] = (expression, total)
    return known[id(expression)][1]


def single(value: float) -> float:
    """Rounded to the nearest float32."""
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def typed(text: str, kind: DataType) -> Value:
    """A value as the file writes it, in its type. Raises ConfigError."""
    if kind == "string":
        return text
    if kind == "boolean":
        if text.strip().lower() not in ("true", "false"):
            raise ConfigError(f"{text[:40]!r} is no boolean")
        return text.strip().lower() == "true"
    number = as_number(text)
    if number is None:
        raise ConfigError(f"{text[:40]!r} is no number")
    return single(number) if kind == "float" else number
