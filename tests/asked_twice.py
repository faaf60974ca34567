"""A random pipeline packaged, and the bundle asked beside the original: the one through penstock.load, the other by its methods."""

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightgbm
import numpy as np
import orjson
import pandas as pd
import xgboost
from numpy.typing import NDArray
from sklearn.base import clone, is_classifier, is_outlier_detector

import penstock
from penstock.schemas.errors import PenstockError
from tests.random_pipelines import Drawn

near = 2e-5
"""What may lie between them, relative to the answer where that is above 1."""
refusals = (
    ValueError, TypeError, RuntimeError, AttributeError, LookupError, ArithmeticError, xgboost.core.XGBoostError,
    lightgbm.basic.LightGBMError,
)  # fmt: skip
"""What scikit-learn and the libraries behind it raise for a case that makes no sense, and for rows that they refuse."""
Kind = Literal["same", "refused", "untrainable", "wrong"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What came of one case."""

    kind: Kind
    detail: str = ""
    as_trees: bool = False
    set_aside: int = 0
    """Records that the bundle sets aside and the original answers."""
    answered_alone: int = 0
    """Records that the bundle answers and the original refuses."""


def asked_twice(case: Drawn, folder: Path) -> Asked:
    """Train, package, ask both about every record. `wrong`: they differ, and nothing said so.

    A foreign exception from packaging is a fault, and passes through.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            model = case.model.fit(case.training, case.target)
            if not np.isfinite(_original(model, case.training)).all():
                return Asked(kind="untrainable", detail="answers its own training rows with no numbers")
        except refusals as error:  # a case that makes no sense
            return Asked(kind="untrainable", detail=_first(error))
        rows = case.training if case.tells_types else None
        try:
            report = penstock.package(
                model, folder, rows=rows, background=None if rows is None else rows[:12]
            )
        except PenstockError as error:
            return Asked(kind="refused", detail=_first(error))
        return _compared(model, case, report, folder)


def _compared(model: Any, case: Drawn, report: Any, folder: Path) -> Asked:
    said = " ".join(report.notes)
    if not case.tells_types and ("taken for double precision" in said or "no rows were given" in said):
        return Asked(kind="same", detail="no rows given, and said so")
    with penstock.load(folder) as bundle:
        scored = bundle.score(records_of(case.records))
    outputs = scored.column("outputs").to_pylist()
    taken = np.array([each is not None for each in outputs])
    told = np.ones(len(taken), dtype=np.bool_)
    if "answers None and NaN otherwise" in said:
        nulls = case.records.isna() & [kind.kind == "O" for kind in case.records.dtypes]
        told = ~nulls.any(axis=1).to_numpy()
    wanted, answered = _each_answered(model, case.records)
    both = taken & answered & told
    if not both.any():
        return Asked(
            kind="same", detail="no record that both answer", set_aside=int((answered & ~taken).sum())
        )
    name = next(iter(dict(outputs[int(np.flatnonzero(both)[0])])))
    found = np.array([dict(outputs[place])[name] for place in np.flatnonzero(both)], dtype=np.float64)
    expected = wanted[both]
    if expected.shape[1] == 1 and found.shape[1] == 2:
        expected = np.concatenate((-expected, expected), axis=1)
    if expected.shape != found.shape:
        return Asked(
            kind="wrong", detail=f"answers {found.shape[1]} numbers, the original {expected.shape[1]}"
        )
    off = np.abs(found - expected) / np.maximum(1.0, np.abs(expected))
    off = np.where(np.isnan(found) & np.isnan(expected) | (found == expected), 0.0, off)
    worst = np.nan_to_num(off, nan=math.inf).max(axis=1)
    if worst.max() > near:
        worst[worst <= 32 * _wavers(model, case.records[both], expected)] = 0.0
    if worst.max() > near and "equally near" in said:
        worst[_at_ties(case, case.records[both], expected)] = 0.0
    facts = {
        "as_trees": report.bundle.trees,
        "set_aside": int((answered & ~taken).sum()),
        "answered_alone": int((taken & ~answered).sum()),
    }
    if worst.max() > near:
        place = int(np.flatnonzero(both)[worst.argmax()])
        record = orjson.dumps(records_of(case.records)[place]).decode()
        return Asked(
            kind="wrong",
            detail=f"{int((worst > near).sum())} of {len(worst)} differ, the worst by {worst.max():.3g} on {record}",
            **facts,
        )
    return Asked(kind="same", **facts)


def _wavers(model: Any, frame: pd.DataFrame, answers: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much the original differs from itself (R,) when its doubles change by one part in 10^15."""
    random = np.random.default_rng(0)
    most = np.zeros(len(frame))
    for _ in range(8):
        changed = frame.copy()
        for name in changed:
            if changed[name].dtype == np.float64:
                signs = np.where(random.random(len(changed)) < 0.5, -1e-15, 1e-15)
                changed[name] *= 1.0 + signs
        found, answered = _each_answered(model, changed)
        if answered.all() and found.shape[1] == answers.shape[1]:
            moved = (np.abs(found - answers) / np.maximum(1.0, np.abs(answers))).max(axis=1)
            most = np.maximum(most, np.nan_to_num(moved))
    return most


def _at_ties(case: Drawn, frame: pd.DataFrame, answers: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Rows (R,) that a search among neighbours answers otherwise where the numbers of training are moved by one part in 10^13."""
    random = np.random.default_rng(0)
    tied = np.zeros(len(frame), dtype=np.bool_)
    for _ in range(8):
        moved = case.training.copy()
        for name in moved:
            if getattr(moved[name].dtype, "kind", "O") in "iuf":
                numbers = moved[name].to_numpy(dtype=np.float64, na_value=math.nan)
                moved[name] = numbers * (1.0 + random.uniform(-1e-13, 1e-13, len(moved)))
        found, _ = _each_answered(clone(case.model).fit(moved, case.target), frame)
        tied |= np.abs(found - answers).max(axis=1) > near
    return tied


def _method(model: Any) -> str:
    if is_classifier(model):
        return "predict_proba" if hasattr(model, "predict_proba") else "decision_function"
    if is_outlier_detector(model):
        return "decision_function"
    if hasattr(model[-1] if hasattr(model, "steps") else model, "means_"):
        return "predict_proba"
    return (
        "transform"
        if hasattr(model[-1] if hasattr(model, "steps") else model, "cluster_centers_")
        else "predict"
    )


def _original(model: Any, frame: pd.DataFrame) -> NDArray[np.float64]:
    found = np.asarray(getattr(model, _method(model))(frame), dtype=np.float64)
    return found.reshape(len(frame), -1)


def _each_answered(model: Any, frame: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The original's answers (R, K), and which rows it answers at all (R,)."""
    try:
        found = _original(model, frame)
        return found, np.ones(len(frame), dtype=np.bool_)
    except refusals:  # one of the rows is refused: each for itself
        answers: list[NDArray[np.float64] | None] = []
        for place in range(len(frame)):
            try:
                answers.append(_original(model, frame.iloc[[place]])[0])
            except refusals:
                answers.append(None)
    width = max((len(each) for each in answers if each is not None), default=1)
    rows = np.array([np.full(width, math.nan) if each is None else each for each in answers])
    return rows, np.array([each is not None for each in answers])


def records_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as JSON holds them."""
    found = []
    for row in frame.astype(object).to_dict("records"):
        record = {}
        for name, value in row.items():
            missing = value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))
            plain = value.item() if isinstance(value, np.generic) else value
            record[str(name)] = None if missing else plain
        found.append(orjson.loads(orjson.dumps(record)))
    return found


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
