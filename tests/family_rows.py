"""Rows for the families of models, in shapes that conversions stumble over, and what the original answers to them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.model_families import Family

Shape = Callable[[int, np.random.Generator], NDArray[Any]]


def _prices(count: int, random: np.random.Generator) -> NDArray[Any]:
    return np.round(np.exp(random.normal(3, 1, count)), 2)


shapes: dict[str, Shape] = {
    "prices": _prices,
    "ids near 2e7": lambda count, random: 2e7 + random.integers(0, 400, count),
    "ids near 5e9": lambda count, random: 5e9 + random.integers(0, 400, count),
    "doubles": lambda count, random: random.normal(size=count),
}


def made_rows(shape: str, count: int, *, missing: bool, seed: int) -> NDArray[np.float64]:
    """Rows (count, 3): numbers of that shape, doubles, whole numbers; `missing`: some of each are NaN."""
    random = np.random.default_rng(seed)
    columns = (shapes[shape](count, random), random.normal(size=count), random.integers(0, 5, count))
    rows = np.stack(columns, 1, dtype=np.float64)
    if missing:
        rows[random.random(rows.shape) < 0.1] = np.nan
    return rows


def answers_of(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Numbers above 0 (R,) that hang on the rows."""
    known = np.nan_to_num(rows[:, 0], nan=float(np.nanmean(rows[:, 0])))
    share = (known - known.min()) / np.ptp(known)
    return np.asarray(np.exp(np.sin(share * 20) + (np.nan_to_num(rows[:, 1]) > 0) * share))


def original_answers(model: Any, rows: NDArray[np.float64], family: Family) -> NDArray[np.float64]:
    """What the live model answers, (R, K)."""
    if family.meaning == "log_odds":
        return np.asarray(model.predict(rows, output_margin=True)).reshape(len(rows), -1)
    ask = model.predict_proba if family.meaning == "probability" else model.predict
    return np.asarray(ask(rows), dtype=np.float64).reshape(len(rows), -1)
