"""Which records are explained: the grammar of `explain.policy` and its meaning."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from penstock.engine.ports import Predictions
from penstock.schemas.records import Records

_score = re.compile(r"score\s*(>=|<=|>|<)\s*([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)")
_comparisons: dict[str, Callable[[Any, float], Any]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip


class Policy(Protocol):
    """Chooses rows; deterministic, so that a record processed again is treated the same."""

    def select(
        self, records: Records, rows: NDArray[np.int64], predictions: Predictions
    ) -> NDArray[np.bool_]:
        """Which of the R predicted rows to explain; `rows[r]` is row r's index in `records`."""


@dataclass(frozen=True, slots=True)
class Every:
    """All of them, or none."""

    chosen: bool

    def select(
        self, records: Records, rows: NDArray[np.int64], predictions: Predictions
    ) -> NDArray[np.bool_]:
        return np.full(len(rows), self.chosen)


@dataclass(frozen=True, slots=True)
class Sample:
    """A share of the records, by a hash of partition and offset: the same records on every replay."""

    share: float

    def select(
        self, records: Records, rows: NDArray[np.int64], predictions: Predictions
    ) -> NDArray[np.bool_]:
        chosen: NDArray[np.bool_] = (lots(records, rows) >> np.uint64(11)) * 2.0**-53 < self.share
        return chosen


@dataclass(frozen=True, slots=True)
class Score:
    """Those whose score compares so: the probability of the last class of two, of the predicted one of more, or the value."""

    comparison: str
    bound: float

    def select(
        self, records: Records, rows: NDArray[np.int64], predictions: Predictions
    ) -> NDArray[np.bool_]:
        chosen: NDArray[np.bool_] = _comparisons[self.comparison](score_of(predictions), self.bound)
        return chosen


@dataclass(frozen=True, slots=True)
class HasHeader:
    """Those whose record carries a header of this name."""

    name: str

    def select(
        self, records: Records, rows: NDArray[np.int64], predictions: Predictions
    ) -> NDArray[np.bool_]:
        return np.fromiter(
            (any(key == self.name for key, _ in records.headers(int(row))) for row in rows),
            dtype=np.bool_,
            count=len(rows),
        )


def lots(records: Records, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A number per row, (R,), evenly spread and decided by partition and offset alone: the same on every replay."""
    place: NDArray[np.uint64] = records.offsets[rows].astype(np.uint64) ^ (
        records.partitions[rows].astype(np.uint64) << np.uint64(48)
    )
    with np.errstate(over="ignore"):  # SplitMix64's finaliser (Steele, Lea, Flood 2014): wraps on purpose
        place = (place ^ (place >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        place = (place ^ (place >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    place ^= place >> np.uint64(31)
    return place


def main_output(widths: Mapping[str, int], classes: Sequence[str]) -> str | None:
    """The output that a prediction is of, by the widths of all: with a number for each class where there is one, else the only
    one; None where there are several and nothing tells which."""
    of_classes = [name for name, width in widths.items() if width == len(classes) > 1]
    if of_classes:
        return of_classes[0]
    if len(widths) == 1:
        return next(iter(widths))
    single = [name for name, width in widths.items() if width == 1]
    return single[0] if classes and len(single) == 1 else None


def has_one_score(widths: Mapping[str, int], classes: Sequence[str]) -> bool:
    """Whether `score` in a policy can mean one number only."""
    main = main_output(widths, classes)
    return main is not None and widths[main] in (1, len(classes))


def score_of(predictions: Predictions) -> NDArray[np.float64]:
    """One number a row, (R,): what `score` means in a policy."""
    widths = {name: scores.shape[1] for name, scores in predictions.outputs.items()}
    main = main_output(widths, predictions.classes)
    scores = predictions.outputs[next(iter(widths)) if main is None else main]
    if scores.shape[1] == 1 or predictions.labels is None or scores.shape[1] != len(predictions.classes):
        return scores[:, 0]
    if scores.shape[1] == 2:
        return scores[:, 1]
    return scores[np.arange(len(scores)), predictions.labels]


def parse_policy(text: str) -> Policy:
    """`every`, `none`, `sample:0.1`, `score>=0.8` or `header:NAME`. Raises ValueError with one sentence."""
    if text in ("every", "none"):
        return Every(text == "every")
    kind, _, rest = text.partition(":")
    if kind == "sample":
        try:
            share = float(rest)
        except ValueError:
            share = -1.0
        if not 0 < share <= 1:
            raise ValueError("sample wants a share above 0 and up to 1")
        return Sample(share)
    if kind == "header" and rest:
        return HasHeader(rest)
    if match := _score.fullmatch(text.strip()):
        return Score(match[1], float(match[2]))
    raise ValueError("this is not a policy; use every, none, sample:0.1, score>=0.8 or header:NAME")
