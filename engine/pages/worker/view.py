"""What a worker keeps for the pages, written by its polling thread and read by the thread that answers its supervisor."""

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.engine.clock import Clock
from penstock.engine.pages.worker.points import Points
from penstock.engine.pages.worker.record_document import RecordDocuments, Told
from penstock.engine.pages.worker.strengths import Strengths
from penstock.engine.pipeline.compute import Finished
from penstock.engine.pipeline.hooks import Waiting
from penstock.engine.telemetry.metrics import Metrics
from penstock.engine.telemetry.status import StatusBoard

samples_kept: Final = 64
"""Batches; with nobody asking for longer than their sixteen seconds, the oldest are forgotten."""
cells_told_max: Final = 20_000
"""Numbers of all samples that are told at a time, by one record of each."""
partitions_told_max: Final = 500
score_steps: Final = 24
complementary_spaces: Final = frozenset({"log_odds", "probability", "decision"})
"""In which of two classes one gains what the other loses."""


class WorkerView:
    """Thread-safe; no call waits for anything."""

    def __init__(self, *, board: StatusBoard, metrics: Metrics, clock: Clock) -> None:
        self._board = board
        self._metrics = metrics
        self._clock = clock
        self._lock = threading.Lock()
        self._documents: RecordDocuments | None = None
        self._samples: deque[tuple[int, Told]] = deque(maxlen=samples_kept)
        self._sampled = 0
        self._records_sampled = 0
        self._blocked_s = 0.0
        self._turned_s: float | None = None
        self._waiting = Waiting(batcher=0, compute=0, delivery=0)
        self._lags: Mapping[int, tuple[float, float]] = {}
        self._strengths = Strengths()
        self._scores: deque[NDArray[np.float64]] = deque(maxlen=256)
        self._points = Points()
        self._space: str | None = None

    def tells_with(self, documents: RecordDocuments) -> None:
        """The model is loaded: its records can be shown from now on."""
        self._documents = documents

    def turned(self, waiting: Waiting, now_s: float) -> None:
        """The polling loop turned; the time since the last turn was blocked if results alone stood in the way."""
        if self._turned_s is not None and waiting.delivery and not waiting.compute:
            self._blocked_s += now_s - self._turned_s
        self._turned_s = now_s
        self._waiting = waiting

    def lags(self, lags: Mapping[int, tuple[float, float]]) -> None:
        """Records and seconds that each owned partition is behind; NaN where that is not known."""
        self._lags = lags

    def delivered(self, done: Finished, *, took_s: float) -> None:
        """A batch is acknowledged; of few batches there is a sample."""
        outcome = done.outcome
        if outcome is None or outcome.sample is None:
            return
        sample = outcome.sample
        waited_s = self._clock.monotonic_s() - done.batch.polls[0].polled_at_s
        worked_s = sum(outcome.stage_s.values()) + took_s
        stages = {"wait": max(waited_s - worked_s, 0.0), **outcome.stage_s, "deliver": took_s}
        told = Told(
            sample=sample,
            at_ms=self._clock.wall_ms(),
            stages_ms={stage: spent_s * 1000 for stage, spent_s in stages.items()},
            rows=done.batch.rows,
        )
        with self._lock:
            self._sampled += 1
            self._records_sampled += len(sample.records)
            self._samples.append((self._sampled, told))
            if len(sample.scores):
                self._scores.append(sample.scores)
            if sample.strengths is not None:
                self._strengths.add(sample.strengths, sample.strength_rows, now_s=self._clock.monotonic_s())
            if sample.pairs is not None:
                self._points.add(sample.pairs)
            for each in sample.explained.values():
                self._space = each.space

    def told(self, after: int, most: int) -> dict[str, Any]:
        """Everything for the supervisor; of the samples those behind the number `after`, the newest `most` at most, and of wide
        records fewer."""
        ready = self._board.ready()
        with self._lock:
            newer = [each for each in self._samples if each[0] > after or after > self._sampled]
            samples = newer[max(len(newer) - most, 0) :]
            sampled, records = self._sampled, self._records_sampled
        width = max((sample.sample.matrix.shape[1] for _, sample in samples), default=1)
        samples = samples[-max(cells_told_max // max(width, 1), 1) :]
        documents = self._documents
        return {
            "at_s": self._clock.monotonic_s(),
            "status": self._board.status().as_dict() | {"positions": ()},
            "ready": asdict(ready),
            "counters": self._counters(),
            "queues": asdict(self._waiting),
            "blocked_s": self._blocked_s,
            "lags": self._furthest_behind(),
            "lag_totals": self._lag_totals(),
            "sampled": sampled,
            "records_sampled": records,
            "records": []
            if documents is None
            else [each for _, told in samples for each in documents.documents(told)],
        }

    def reasons(self) -> dict[str, Any]:
        """Sums of |attribution| by column: over the newest records, and over the hour before those; and how the scores lie."""
        with self._lock:
            scores = np.concatenate(list(self._scores)) if self._scores else np.empty(0)
            told = self._strengths.told(self._clock.monotonic_s())
            space = self._space
        return {**told, "space": space, "scores": _steps(scores)}

    def points(self, column: int, *, classes: int) -> dict[str, Any]:
        """Of the newest explained records: a column's values, and what each did to the output, of a model of so many classes."""
        with self._lock:
            two_classes = classes == 2 and self._space in complementary_spaces
            return {**self._points.of_column(column, two_classes=two_classes), "space": self._space}

    def _counters(self) -> dict[str, float]:
        """Every counter that the pages make rates of, flat by name; a histogram by the sum, count and buckets of it."""
        metrics = self._metrics
        found: dict[str, float] = {"blocked_s": self._blocked_s}
        for name, metric in (
            ("records", metrics.records), ("batches", metrics.batches), ("rejected", metrics.rejected),
            ("stage", metrics.stage_seconds), ("age", metrics.end_to_end_seconds), ("busy_s", metrics.busy_seconds),
            ("rows", metrics.batch_rows), ("rebalances", metrics.rebalances), ("ahead", metrics.ahead_records),
            ("ahead_s", metrics.ahead_seconds),
        ):  # fmt: skip
            for family in metric.collect():
                for each in family.samples:
                    kind = each.name.rsplit("_", 1)[-1]
                    if kind == "created" or (kind == "bucket" and name != "age"):
                        continue
                    found[".".join((name, *each.labels.values(), *([kind] if kind != "total" else [])))] = (
                        each.value
                    )
        return found

    def _furthest_behind(self) -> list[tuple[int, float, float, int | None, float]]:
        """Partition, records and seconds behind, next offset, and the seconds that its oldest record is stamped ahead of our clock."""
        lags = self._lags
        order = sorted(lags, key=lambda each: (-_known(lags[each][1]), -_known(lags[each][0]), each))
        positions = {each.partition: each for each in self._board.status().positions}
        now_ms = self._clock.wall_ms()
        told = []
        for each in order[:partitions_told_max]:
            position = positions.get(each)
            ahead_ms = 0 if position is None else max(position.oldest_timestamp_ms - now_ms, 0)
            told.append((each, *lags[each], None if position is None else position.offset, ahead_ms / 1000))
        return told

    def _lag_totals(self) -> dict[str, float | int]:
        lags = self._lags.values()
        return {
            "partitions": len(lags),
            "records": float(sum(each[0] for each in lags)),
            "age_s": max((each[1] for each in lags), key=_known, default=0.0),
        }


def _known(value: float) -> float:
    return -1.0 if value != value else value


def _steps(scores: NDArray[np.float64]) -> dict[str, Any] | None:
    scores = scores[np.isfinite(scores)]
    if not len(scores):
        return None
    low, high = float(scores.min()), float(scores.max())
    if low >= 0.0 and high <= 1.0:
        low, high = 0.0, 1.0
    elif low == high:
        low, high = low - 0.5, high + 0.5
    counts, _ = np.histogram(scores, bins=score_steps, range=(low, high))
    return {"low": low, "high": high, "counts": counts.tolist()}
