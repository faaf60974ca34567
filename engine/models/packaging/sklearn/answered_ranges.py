"""Which numbers of a feature a scikit-learn model takes at all; a record with any other is set aside.

Box-Cox refuses what is not above 0, and so does the estimator behind a logarithm: the original has no answer to such a record.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.engine.features.signature import Feature
from penstock.engine.models.packaging.answered import answered
from penstock.engine.models.packaging.sklearn.moved_tests import doubles, ordinals
from penstock.schemas.errors import ConfigError

_end = float(np.finfo(np.float32).max)
_above = np.array([5e-324, 1e-30, 1e-6, 0.01, 0.5, 1.0, 1.5, 3.0, 10.0, 100.0, 1e3, 1e5, 1e7, 1e10, 1e15, 1e20, 1e25, 1e30, _end])  # fmt: skip
_tried = np.concatenate((-_above[::-1], [0.0], _above))
_rows_at_once = 4096
_single_steps = 1 << 29
"""So many doubles lie between two neighbours in single precision."""
_changes = ((1.5, 0.25), (0.75, 0.0), (1.0, 0.01))
Ask = Callable[[NDArray[np.float64]], Any]


def within_answered(
    ask: Ask, features: Sequence[Feature], usual: NDArray[np.float64]
) -> tuple[tuple[str, ...], tuple[Feature, ...]]:
    """The features, each number with the ranges that the model answers, and a note of those that have such. `usual`: a row (F,)
    that it answers; each number is tried beside the usual values of the others, and beside others."""
    starts = np.cumsum([0, *(feature.width for feature in features)])
    numbers = [
        (place, int(start))
        for place, (feature, start) in enumerate(zip(features, starts, strict=False))
        if feature.kind == "number" and not feature.within and np.isfinite(usual[start])
    ]
    changed = list(features)
    at_once = max(1, _rows_at_once // len(_tried))
    for first in range(0, len(numbers), at_once):
        some = numbers[first : first + at_once]
        rows = np.tile(usual, (len(some) * len(_tried), 1))
        for place, (_, column) in enumerate(some):
            rows[place * len(_tried) : (place + 1) * len(_tried), column] = _tried
        if _is_answered(ask, rows):
            continue
        other = _another_row(ask, usual, [column for _, column in numbers])
        for place, column in some:
            found = _ranges(ask, usual, column)
            # Where they hang on the other features (no neighbour is near enough), no range of one feature says it.
            if found and (other is None or found == _ranges(ask, other, column, likely=sum(found, ()))):
                changed[place] = replace(features[place], within=found)
    refusing = [new for new, old in zip(changed, features, strict=True) if new.within != old.within]
    if not refusing:
        return (), tuple(changed)
    shown = "; ".join(f"{feature.name} outside {_written(feature)}" for feature in refusing)
    return (f"records with numbers of {shown} are set aside: the model takes none",), tuple(changed)


def _another_row(ask: Ask, usual: NDArray[np.float64], columns: Sequence[int]) -> NDArray[np.float64] | None:
    """A row (F,) that is answered and has other numbers."""
    for factor, shift in _changes:
        row = usual.copy()
        row[list(columns)] = row[list(columns)] * factor + shift
        if _is_answered(ask, row[None]):
            return row
    return None


def _ranges(
    ask: Ask, usual: NDArray[np.float64], column: int, *, likely: Sequence[float] = ()
) -> tuple[tuple[float, float], ...]:
    """The ranges of a column that are answered, ends included; none where all are, or where nothing is. `likely`: where they may end."""
    tried = np.unique(np.append(_tried, usual[column]))
    rows = np.tile(usual, (len(tried), 1))
    rows[:, column] = tried
    kept = answered(ask, rows)
    if kept.all() or not kept.any():
        return ()
    ends: list[float] = [-np.inf] if kept[0] else []
    for low, high, before, after in zip(tried[:-1], tried[1:], kept[:-1], kept[1:], strict=True):
        if before != after:
            ends.append(
                _end_between(
                    ask, usual, column, float(low), float(high), answers_low=bool(before), likely=likely
                )
            )
    ends += [np.inf] if kept[-1] else []
    return tuple(zip(ends[::2], ends[1::2], strict=True))


def _end_between(
    ask: Ask,
    usual: NDArray[np.float64],
    column: int,
    low: float,
    high: float,
    *,
    answers_low: bool,
    likely: Sequence[float],
) -> float:
    """The last double that is answered on the way from the end that is to the end that is not. Each question costs milliseconds: tried first
    is where it is `likely`, and then, between two neighbours in single precision, half-way, where what is rounded to them parts."""
    first, last = (int(place) for place in ordinals(np.array([low, high])))

    def is_like_low(place: int) -> bool:
        row = usual[None].copy()
        row[0, column] = doubles(np.array([place]))[0]
        return _is_answered(ask, row) == answers_low

    def narrow(middle: int) -> None:
        nonlocal first, last
        if first < middle < last:
            if is_like_low(middle):
                first = middle
            else:
                last = middle

    for place in (int(each) for each in ordinals(np.array([end for end in likely if low <= end <= high]))):
        for near in (place, place + 1) if answers_low else (place - 1, place):
            narrow(near)
    halved = False
    while last - first > 1:
        if not halved and last - first <= _single_steps:
            halved = True
            ends = doubles(np.array([first, last]))
            single = np.float32(ends.mean())
            around = [np.nextafter(single, np.float32(way)).astype(np.float64) for way in (-np.inf, np.inf)]
            for half in ((np.float64(single) + each) / 2 for each in around):
                place = int(ordinals(np.array([half]))[0])
                for near in (place - 1, place, place + 1):
                    narrow(near)
            continue
        narrow((first + last) // 2)
    return float(doubles(np.array([first if answers_low else last]))[0])


def _is_answered(ask: Ask, rows: NDArray[np.float64]) -> bool:
    try:
        ask(rows)
    except (ConfigError, ValueError, TypeError, RuntimeError, AttributeError, LookupError, ArithmeticError):
        return False
    return True


def _written(feature: Feature) -> str:
    return " and ".join(f"[{low:g}, {high:g}]" for low, high in feature.within)
