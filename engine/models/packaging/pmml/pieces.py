"""Where along the numbers of one column an expression changes its course, to the last double."""

import math
import struct
from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Final

from penstock.engine.features.narrowing import rounds_to_infinity
from penstock.engine.models.packaging.pmml.expressions import (
    Applied,
    Binned,
    Cleaned,
    Column,
    Constant,
    Expression,
    Interpolated,
    Mapped,
    Rounded,
    Value,
)
from penstock.schemas.errors import ConfigError

farthest: Final = rounds_to_infinity
"""No model is shown a number beyond it."""
_rising: Final = frozenset({"exp", "ln", "log10", "sqrt", "floor", "ceil"})
_at_zero: Final = frozenset({"ln", "log10", "sqrt", "abs"})
_compares: Final = frozenset(
    {"equal", "notEqual", "lessThan", "lessOrEqual", "greaterThan", "greaterOrEqual", "isIn", "isNotIn", "threshold"}
)  # fmt: skip
_of_bools: Final = frozenset({"not", "isMissing", "isNotMissing"})


def breaks(expression: Expression) -> tuple[float, ...]:
    """Numbers b, ascending: between two of them, the upper one included, the expression is a number that only rises or only
    falls, or one and the same value throughout. Its one column holds numbers.

    Raises ConfigError for an expression of which that cannot be said.
    """
    if isinstance(expression, (Column, Constant)):
        return ()
    if isinstance(expression, Rounded):
        return breaks(expression.inner)
    if isinstance(expression, (Cleaned, Mapped, Binned, Interpolated)):
        inner = breaks(expression.inner)
        return _joined(inner, crossings(expression.inner, inner, expression.marks))
    if not isinstance(expression, Applied):
        raise ConfigError("what is chosen by predicates, whose course cannot be followed")
    return _of_function(expression)


def _of_function(applied: Applied) -> tuple[float, ...]:
    name, arguments = applied.function, applied.arguments
    found = _joined(*(breaks(each) for each in arguments))
    varying = [each for each in arguments if each.columns]
    if not varying or name == "if" or name in _of_bools:
        return found
    if len(varying) > 1:
        raise ConfigError(f"function {name} of one field twice, whose course cannot be followed")
    inner = varying[0]
    if name in _compares:
        return _joined(found, crossings(inner, breaks(inner), _numbers(arguments)))
    if name in _rising | _at_zero:
        return _joined(found, crossings(inner, breaks(inner), [0.0]) if name in _at_zero else ())
    if name in ("+", "-", "*"):
        return found
    if name in ("/", "pow"):  # by a constant, or of one: beyond zero it may turn
        return _joined(found, crossings(inner, breaks(inner), [0.0]))
    raise ConfigError(f"function {name} of a number, whose course cannot be followed")


def _numbers(arguments: Iterable[Expression]) -> list[float]:
    return [float(each.value) for each in arguments if isinstance(each, Constant) and isinstance(each.value, (int, float))]  # fmt: skip


def crossings(expression: Expression, ends: tuple[float, ...], marks: Iterable[float]) -> tuple[float, ...]:
    """The largest numbers before the expression reaches, and before it leaves, each of these values; `ends`: its breaks."""
    wanted = sorted(set(marks))
    if isinstance(expression, Column):
        return _joined([each for mark in wanted for each in (before(mark), mark)])
    found: list[float] = []
    for low, high in _pieces(ends):
        first, last = expression.at(after(low)), expression.at(high)
        if not isinstance(first, float) or not isinstance(last, float) or first == last:
            continue
        rises = first < last
        for mark in wanted[bisect_left(wanted, min(first, last)) :]:
            if mark > max(first, last):
                break
            for passed in _passed(mark, rises):
                place = _last(low, high, lambda x, passed=passed: passed(expression.at(x)))  # type: ignore[misc]
                if low < place < high:
                    found.append(place)
    return _joined(found)


def _pieces(ends: tuple[float, ...]) -> Iterable[tuple[float, float]]:
    """From, which does not belong, and up to."""
    within = [end for end in ends if -farthest < end < farthest]
    return zip((before(-farthest), *within), (*within, farthest), strict=True)


def _passed(mark: float, rises: bool) -> tuple[Callable[[Value], bool], Callable[[Value], bool]]:
    """Two questions that are true first: whether a value is still before the mark, and whether it is not past it."""
    if rises:
        return (lambda value: value < mark), (lambda value: value <= mark)
    return (lambda value: value > mark), (lambda value: value >= mark)


def _last(low: float, high: float, is_true: Callable[[float], bool]) -> float:
    """The last double above low and up to high for which it is true; low where there is none. It is true, then false."""
    under, over = _ordinal(low), _ordinal(high) + 1
    while over - under > 1:
        middle = (under + over) // 2
        if is_true(_double(middle)):
            under = middle
        else:
            over = middle
    return low if under == _ordinal(low) else _double(under)


def _joined(*parts: Iterable[float]) -> tuple[float, ...]:
    return tuple(sorted({each + 0.0 for part in parts for each in part if math.isfinite(each)}))


def before(value: float) -> float:
    """The next double below."""
    return math.nextafter(value, -math.inf)


def after(value: float) -> float:
    """The next double above."""
    return math.nextafter(value, math.inf)


def _ordinal(value: float) -> int:
    """A whole number in the order of the doubles, neighbours one apart, both zeros 0."""
    bits = struct.unpack("<q", struct.pack("<d", value + 0.0))[0]
    return int(bits) if bits >= 0 else -(int(bits) & 0x7FFFFFFFFFFFFFFF)


def _double(ordinal: int) -> float:
    bits = ordinal if ordinal >= 0 else -ordinal | -0x8000000000000000
    return float(struct.unpack("<d", struct.pack("<q", bits))[0])


def is_steps(expression: Expression) -> bool:
    """Whether between its breaks the expression is the same value throughout."""
    for low, high in _pieces(breaks(expression)):
        first, last = expression.at(after(low)), expression.at(high)
        if isinstance(first, float) and isinstance(last, float) and first != last:
            return False
    return True
