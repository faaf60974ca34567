"""Made records by the million: what a bundle answers to a record, and what the model that it was made from answers to the same one.

    python -m tests.soak.made_records --records 1000000

Of each family of `tests/model_families.py` and `tests/sklearn_cases.py`: records of decimals, of large ids, of doubles, and around every
place where trees may split (the values of training and what lies half-way between two of them, and their neighbours to the last
digit). Most go through `penstock.load(...)` as columns, some as JSON through the reader of the stream. Off is what differs by more
than 1e-6 of the range of the original's answers; an answer of one of several rows of training that are equally near, but for the last
digits of their distances, in place of another is counted apart.
"""

import argparse
import itertools
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import penstock
from penstock.engine.models.packaging.package import package
from penstock.schemas.errors import PenstockError
from tests.family_rows import answers_of, made_rows, original_answers, shapes
from tests.model_families import Family, families, served
from tests.sklearn_cases import families as pipelines
from tests.sklearn_tables import kinds, numbers, table
from tests.unit.models.test_sklearn_matrix import answers_of as pipeline_answers
from tests.unit.models.test_sklearn_matrix import of_both_classes

off_max: Final = 1e-6
"""Of the range of the original's answers."""
_batch: Final = 25_000
_json_share: Final = 50
"""Of so many records of a bare model one goes through JSON."""
_ulps: Final = (0, 1, -1, 2, -2)
_tied_max: Final = 10
_as_near: Final = 1e-9
of_neighbours: Final = (
    "neighbours",
    "neighbours, regression",
    "neighbours by distance",
    "neighbours by distance, regression",
)
"""Families whose answer hangs on the last digits of distances where rows of training are equally near."""
of_donors: Final = ("numbers of neighbours, ridge", "numbers of near neighbours and marks, forest")
"""Families that take a missing number from the nearest rows of training."""


@dataclass(kw_only=True)
class Count:
    """What became of the records of one family."""

    family: str
    records: int = 0
    off: int = 0
    worst: float = 0.0
    example: str = ""
    undecided: int = 0
    """Records that equally near rows of training answer so: counted, and not off."""
    refused: str = ""
    took_s: float = 0.0
    _low: float = np.inf
    _high: float = -np.inf
    _parts: list[tuple[NDArray[np.float64], str]] = field(default_factory=list)

    def take(
        self, wanted: NDArray[np.float64], found: NDArray[np.float64], said: Callable[[int], str]
    ) -> None:
        """Answers (R, K) of both; `said`: what a record was."""
        self.records += len(wanted)
        apart = np.abs(found - wanted)
        # An answer is written in single precision: the original's, rounded to it, is not off.
        apart[
            (found == wanted.astype(np.float32)) | (found == wanted) | (np.isnan(found) & np.isnan(wanted))
        ] = 0.0
        apart = np.where(np.isnan(apart), np.inf, apart).max(axis=1)
        self._low, self._high = (
            min(self._low, float(np.nanmin(wanted))),
            max(self._high, float(np.nanmax(wanted))),
        )
        self._parts.append((apart, said(int(apart.argmax()))))

    def settle(self) -> None:
        """What is off, now that the range is known."""
        for apart, example in self._parts:
            share = apart / (self._high - self._low or 1.0)
            self.off += int((share > off_max).sum())
            if share.max() > self.worst:
                self.worst = float(share.max())
                self.example = example if self.worst > off_max else ""
        self._parts.clear()

    def __str__(self) -> str:
        if self.refused:
            return f"{self.family}: refused: {self.refused}"
        more = f", {self.undecided} undecided" if self.undecided else ""
        more += f", {self.example}" if self.example else ""
        return f"{self.family}: {self.records:,} records, {self.off} off, at most {self.worst:.1e} of the range, {self.took_s:.0f} s{more}"


def around(trained: NDArray[np.float64], count: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Values (count,) where a tree over these may split, and next to it: one or two doubles, or one float32, away."""
    known = np.unique(trained[np.isfinite(trained)])
    between = (known[1:] + known[:-1]) / 2
    narrow = np.concatenate((known, between)).astype(np.float32).astype(np.float64)
    chosen = random.choice(np.concatenate((known, between, narrow)), count)
    steps = random.choice(_ulps, count)
    for step in _ulps:
        here = steps == step
        for _ in range(abs(step)):
            chosen[here] = np.nextafter(chosen[here], np.inf * step)
    single = random.random(count) < 0.2
    chosen[single] = np.nextafter(chosen[single].astype(np.float32), np.float32(np.inf)).astype(np.float64)
    return chosen


def _said_row(shape: str, rows: NDArray[np.float64], row: int) -> str:
    return f"{shape}: {rows[row].tolist()!r}"


def _said_record(kind: str, frame: Any, row: int) -> str:
    return f"{kind}: {frame.iloc[row].to_dict()!r}"


def bare(family: Family, count: int, until_s: float, folder: Path) -> Count:
    """One of the models of `tests/model_families.py`, on each kind of numbers."""
    found = Count(family=f"{family.library}, {family.name}")
    for place, shape in enumerate(shapes):
        train = made_rows(shape, 600, missing=family.takes_missing, seed=1)
        model = family.train(train, answers_of(train))
        bundle = package(model, folder / f"bundle-{place}", background=train[:50]).bundle
        loaded = penstock.load(folder / f"bundle-{place}", device="cpu")
        output, share = bundle.outputs[0].name, Count(family=found.family)
        over_s = _share(until_s, len(shapes) - place)
        for turn in itertools.count():
            left = count // len(shapes) - share.records
            if left <= 0 or (turn and time.monotonic() > over_s):
                break
            random = np.random.default_rng((7, place, turn))
            rows = made_rows(shape, min(_batch, left), missing=family.takes_missing, seed=100 + turn)
            for column in range(rows.shape[1]):
                here = (random.random(len(rows)) < 0.5) & ~np.isnan(rows[:, column])
                rows[here, column] = around(train[:, column], int(here.sum()), random)
            wanted = original_answers(model, rows, family)
            share.take(
                wanted,
                loaded.predict(rows).outputs[output],
                partial(_said_row, shape, rows),
            )
            few = rows[::_json_share]
            share.take(
                wanted[::_json_share],
                served(bundle, few).outputs[output],
                partial(_said_row, f"{shape}, JSON", few),
            )
        share.settle()
        _join(found, share)
    return found


def pipeline(name: str, count: int, until_s: float, folder: Path) -> Count:
    """One of the pipelines of `tests/sklearn_cases.py`, on each kind of data."""
    found = Count(family=f"pipeline, {name}")
    build, target = pipelines[name]
    for place, kind in enumerate(kinds):
        train = table(kind, 160, 1, training=True)
        model = build(kind).fit(train, target(train))
        try:
            report = package(model, folder / f"bundle-{place}", background=train[:20], rows=train)
        except PenstockError as error:
            found.refused = f"{kind.name}: {error}"
            return found
        loaded = penstock.load(folder / f"bundle-{place}", device="cpu")
        output = report.bundle.outputs[0].name  # what stands behind it is the same answer in another form
        ask = partial(pipeline_answers, model, report.parity.compared[output])
        share = Count(family=found.family)
        pool = table(
            kind, 2_000, 2, training=True
        )  # categories that every step takes, and texts, which are slow to make
        over_s = _share(until_s, len(kinds) - place)
        for turn in itertools.count():
            left = count // len(kinds) - share.records
            if left <= 0 or (turn and time.monotonic() > over_s):
                break
            random = np.random.default_rng((8, place, turn))
            frame = pool.iloc[random.integers(0, len(pool), min(_batch, left))].reset_index(drop=True)
            for column in numbers:
                values = frame[column].to_numpy(dtype=np.float64).copy()
                fresh = (
                    np.round(np.exp(random.normal(3, 1, len(values))), kind.decimals) + kind.base
                    if column == "amount"
                    else values
                )
                near = around(train[column].to_numpy(dtype=np.float64), len(values), random)
                values = np.where(
                    np.isnan(values), values, np.where(random.random(len(values)) < 0.5, near, fresh)
                )
                frame[column] = values
            wanted = ask(frame)
            scores = np.asarray(loaded.predict(frame).outputs[output], dtype=np.float64)
            wanted = of_both_classes(wanted, scores)
            if name in (*of_neighbours, *of_donors):
                span = float(np.ptp(wanted)) or 1.0
                off = np.flatnonzero(np.abs(scores - wanted).max(axis=1) > off_max * span)
                tied = off[
                    [
                        is_tie_of_donors(model, frame.iloc[[row]])
                        if name in of_donors
                        else is_tie(model, frame.iloc[[row]], scores[row], off_max * span)
                        for row in off
                    ]
                ]
                found.undecided += len(tied)
                wanted[tied] = scores[tied]
            share.take(
                wanted,
                scores,
                partial(_said_record, kind.name, frame),
            )
        share.settle()
        _join(found, share)
    return found


def is_tie(model: Any, record: Any, found: NDArray[np.float64], off: float) -> bool:
    """Whether the neighbours that `found` is made of are no farther than those of the original, but for the last digits of distances: one
    of several equally near rows of training for another."""
    steps, last = model[:-1], model[-1]
    count = last.n_neighbors
    apart, places = last.kneighbors(steps.transform(record), min(count + _tied_max, last.n_samples_fit_))
    apart, places = apart[0], places[0]
    sure = apart < apart[count - 1] * (1 - _as_near)
    tied = ~sure & (apart <= apart[count - 1] * (1 + _as_near))
    answers = (
        np.eye(len(last.classes_))[last._y] if hasattr(last, "classes_") else np.reshape(last._y, (-1, 1))
    )
    for chosen in itertools.combinations(np.flatnonzero(tied), count - int(sure.sum())):
        members = [*np.flatnonzero(sure), *chosen]
        weights = 1 / apart[members] if last.weights == "distance" and apart[0] > 0 else np.ones(count)
        if np.abs(weights @ answers[places[members]] / weights.sum() - found).max() <= off:
            return bool(tied.sum() > count - sure.sum())
    return False


def is_tie_of_donors(model: Any, record: Any) -> bool:
    """Whether of the rows of training that are nearest to a record, among those that have the number that it lacks, the last might as
    well be another: as near but for the last digits of distances."""
    scaler, imputer = (each for _, each in model[0].named_transformers_["numbers"].steps)
    rows, count = imputer._fit_X, imputer.n_neighbors
    given = scaler.transform(record[["age", "amount", "code"]])[0]
    for lacked in np.flatnonzero(np.isnan(given)):
        donors = rows[~np.isnan(rows[:, lacked])]
        known = ~np.isnan(donors) & ~np.isnan(given)
        squares = np.where(known, donors - given, 0.0) ** 2
        apart = np.sort(np.sqrt(squares.sum(axis=1) / known.sum(axis=1))[known.any(axis=1)])
        if len(apart) > count and apart[count] <= apart[count - 1] * (1 + _as_near):
            return True
    return False


def _share(until_s: float, parts: int) -> float:
    """When the first of so many parts has had its time."""
    now_s = time.monotonic()
    return now_s + (until_s - now_s) / parts


def _join(whole: Count, part: Count) -> None:
    whole.records += part.records
    whole.off += part.off
    if part.worst > whole.worst:
        whole.worst, whole.example = part.worst, part.example


def every() -> Iterator[tuple[str, Callable[[int, float, Path], Count]]]:
    """All families, by what they are called."""
    for family in families:
        yield f"{family.library}, {family.name}", lambda *rest, family=family: bare(family, *rest)
    for name in pipelines:
        yield f"pipeline, {name}", lambda *rest, name=name: pipeline(name, *rest)


def main(argv: Sequence[str] | None = None) -> int:
    """0 when nothing is off."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.made_records", description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000, help="of each family")
    parser.add_argument(
        "--minutes",
        type=float,
        default=float("inf"),
        help="what all have together, each its share of what is left",
    )
    parser.add_argument("--only", default="", help="families whose names begin so, with |")
    arguments = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    chosen = [(name, run) for name, run in every() if name.startswith(tuple(arguments.only.split("|")))]
    counts: list[Count] = []
    until_s = time.monotonic() + 60 * arguments.minutes
    for place, (_, run) in enumerate(chosen, 1):
        began_s = time.monotonic()
        if began_s > until_s:
            break
        with tempfile.TemporaryDirectory() as folder:
            counts.append(run(arguments.records, _share(until_s, len(chosen) - place + 1), Path(folder)))
        counts[-1].took_s = time.monotonic() - began_s
        print(f"{place} of {len(chosen)}: {counts[-1]}", flush=True)
    asked = [each for each in counts if not each.refused]
    fewer = [each.records for each in asked if each.records < arguments.records * 0.99]
    off, undecided = sum(each.off for each in asked), sum(each.undecided for each in asked)
    print(
        f"{sum(each.records for each in asked):,} records of {len(asked)} families of {len(chosen)}: {off} off by more than "
        f"{off_max:g} of the range, the worst {max((each.worst for each in asked), default=0.0):.1e}; "
        f"{len(asked) - len(fewer)} families with all {arguments.records:,}"
        + (f", the others with {min(fewer):,} at least" if fewer else "")
        + (f"; {undecided} answered by another of equally near rows of training" if undecided else "")
        + (f"; {len(counts) - len(asked)} refused by name" if len(asked) < len(counts) else "")
    )
    return int(off > 0)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
