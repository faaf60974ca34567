"""Which rows the original of a model answers at all."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.schemas.errors import ConfigError

questions_max = 512
_refusals = (ConfigError, ValueError, TypeError, RuntimeError, AttributeError, LookupError, ArithmeticError)


def answered(ask: Callable[[NDArray[np.float64]], Any], rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the rows (R, F) the original answers at all, (R,); it refuses some values, each in a way of its own.

    Asked no more than questions_max times: rows that are still open then count as refused.
    """
    kept = np.zeros(len(rows), dtype=np.bool_)
    waiting = [(0, len(rows))]
    for _ in range(questions_max):
        if not waiting:
            break
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
