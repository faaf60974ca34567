"""The stream's stages over rows that are no records of a topic: what the scorer would encode is kept as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.engine.clock import Clock
from penstock.engine.pipeline.outgoing import OutgoingMessages, OutputLimits, Topics
from penstock.engine.pipeline.scorer import Explaining, Scorer
from penstock.engine.ports import Attributions, Decoded, Decoder, Explainer, Model, Predictions
from penstock.engine.settings.explain_policy import Every
from penstock.schemas.records import Records, Rejection

_message_bytes_max = 1 << 30
"""Nothing is encoded here, so nothing is too long."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scored:
    """What became of a block of rows; every row is predicted, rejected or (a record without a value) skipped."""

    count: int
    rows: NDArray[np.int64]  # (P,) ascending places of the predicted rows
    matrix: NDArray[np.generic]  # (P, F) what the model was given
    predictions: Predictions | None  # of those rows; None when no row was predicted
    attributions: (
        Attributions | None
    )  # (P * outputs explained) of those rows, in order; None when not asked for
    rejections: tuple[Rejection, ...]


class Stages:
    """Runs the stages of the stream's scorer on blocks of rows. One thread at a time."""

    def __init__(
        self, model: Model, *, explainer: Explainer | None, clock: Clock, decoder: Decoder | None = None
    ) -> None:
        """`decoder`: reads records that come as bytes; None where every block is decoded already."""
        self._kept = _Kept(decoder)
        self._scorer = Scorer(
            decoder=self._kept,
            model=model,
            messages=OutgoingMessages(
                topics=Topics(
                    predictions="predictions", explanations="explanations", dead_letters="dead letters"
                ),
                limits=OutputLimits(
                    predictions_bytes_max=_message_bytes_max,
                    explanations_bytes_max=_message_bytes_max,
                    dead_letters_bytes_max=_message_bytes_max,
                ),
                headers=frozenset(),
            ),
            encode_predictions=self._kept.predictions,
            encode_dead_letters=lambda _, rejections, __: [b""] * len(rejections),
            explaining=None
            if explainer is None
            else Explaining(policy=Every(True), explainer=explainer, encode=self._kept.explanations),
            passing=None,
            condemned=lambda _: (),
            clock=clock,
        )

    def run(self, count: int, decoded: Decoded) -> Scored:
        """Score `count` rows of which `decoded` tells."""
        self._kept.decoded = decoded
        return self._score(records_of([None] * count))

    def run_records(self, values: Sequence[bytes]) -> Scored:
        """Score records as they would stand on a topic."""
        self._kept.decoded = None
        return self._score(records_of([*values]))

    def _score(self, records: Records) -> Scored:
        kept = self._kept
        kept.clear()
        outcome = self._scorer.score(records)
        width = 0 if kept.matrix is None else kept.matrix.shape[1]
        matrix: NDArray[np.generic] = np.empty((0, width)) if kept.matrix is None else kept.matrix
        rows, predictions = kept.rows, kept.predicted
        attributions = _joined(kept.explained)
        if (
            predictions is not None and outcome.bad[rows].any()
        ):  # rejected behind the model: its explanation failed
            good = np.flatnonzero(~outcome.bad[rows])
            rows, matrix = rows[good], matrix[good]
            predictions = predictions.take(good)
        return Scored(
            count=len(records),
            rows=rows,
            matrix=matrix,
            predictions=predictions if len(rows) else None,
            attributions=attributions,
            rejections=outcome.rejections,
        )


class _Kept:
    """Stands where the decoder and the encoders stand, and keeps what passes."""

    def __init__(self, decoder: Decoder | None) -> None:
        self._decoder = decoder
        self.decoded: Decoded | None = None
        self.clear()

    def clear(self) -> None:
        self.rows: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self.matrix: NDArray[np.generic] | None = None
        self.predicted: Predictions | None = None
        self.explained: list[tuple[NDArray[np.int64], Attributions]] = []

    def decode(self, records: Records) -> Decoded:
        """See penstock.engine.ports.Decoder."""
        if self.decoded is None:
            assert self._decoder is not None
            self.decoded = self._decoder.decode(records)
        return self.decoded

    def predictions(self, source: Records, predictions: Predictions, _: int) -> list[bytes]:
        self.rows, self.predicted = source.offsets, predictions
        assert self.decoded is not None
        places = self.decoded.rows
        whole = len(places) == len(self.rows)
        self.matrix = (
            self.decoded.matrix if whole else self.decoded.matrix[np.searchsorted(places, self.rows)]
        )
        return [b""] * len(source)

    def explanations(
        self, source: Records, matrix: NDArray[np.generic], attributions: Attributions
    ) -> list[bytes]:
        self.explained.append((source.offsets, attributions))
        return [b""] * len(source)


def records_of(values: list[bytes | None]) -> Records:
    """Values as records whose offset is their place."""
    count = len(values)
    return Records(
        topic="",
        partitions=np.zeros(count, dtype=np.int32),
        offsets=np.arange(count, dtype=np.int64),
        timestamps_ms=np.full(count, -1, dtype=np.int64),
        keys=[None] * count,
        values=values,
    )


def _joined(parts: Sequence[tuple[NDArray[np.int64], Attributions]]) -> Attributions | None:
    """The parts as one, in the order of the rows."""
    if len(parts) < 2:
        return parts[0][1] if parts else None
    order = np.argsort(np.concatenate([rows for rows, _ in parts]), kind="stable")
    first = parts[0][1]
    joined: dict[str, Any] = {}
    for each in fields(Attributions):
        values = [getattr(part, each.name) for _, part in parts]
        if isinstance(values[0], np.ndarray):
            joined[each.name] = np.concatenate(values)[order]
        else:
            joined[each.name] = getattr(first, each.name)
    return Attributions(**joined)
