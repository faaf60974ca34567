"""Which rows the original of a model answers at all."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.schemas.errors import ConfigError

_refusals = (ConfigError, ValueError, TypeError, RuntimeError, AttributeError, LookupError, ArithmeticError)


def answered(ask: Callable[[NDArray[np.float64]], Any], rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the rows (R, F) the original answers at all, (R,); it refuses some values, each in a way of its own."""
    kept = np.zeros(len(rows), dtype=np.bool_)
    waiting = [(0, len(rows))]
    while waiting:
        start, end = waiting.pop()
        if start == end:
            continue
        try:
            ask(rows[start:end])
            kept[start:end] = True
        except _refusals:
            if end - start > 1:
                middle = (start + end) // 2
                waiting += [(start, middle), (middle, end)]
    return kept
