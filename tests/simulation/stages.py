"""Decoder, model and explainer of records that say themselves what is wrong with them."""

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from penstock.engine.clock import Clock
from penstock.engine.pipeline.outgoing import OutgoingMessages, OutputLimits, Topics
from penstock.engine.pipeline.scorer import Explaining, Scorer
from penstock.engine.ports import Attributions, Decoded, Predictions
from penstock.engine.settings.explain_policy import parse_policy
from penstock.schemas.errors import ModelError, UnavailableError
from penstock.schemas.reasons import Reason, Stage
from penstock.schemas.records import Records, Rejection

poison: dict[bytes, tuple[Stage, Reason]] = {
    b"corrupt": (Stage.DECODE, Reason.CORRUPT),
    b"throws": (Stage.INFER, Reason.MODEL_FAILED),
    b"nan": (Stage.INFER, Reason.OUTPUT_NOT_FINITE),
    b"dark": (Stage.EXPLAIN, Reason.EXPLAINER_FAILED),
}
kinds = [b"good", *poison]


class Surroundings(Protocol):
    """What the stages need of a world."""

    @property
    def clock(self) -> Clock: ...

    @property
    def seen(self) -> Counter[str]: ...

    def chance(self, share: float) -> bool: ...


class Stages:
    """Each record's value is its kind; the matrix holds the kind's number."""

    def __init__(self, world: Surroundings) -> None:
        self._world = world

    def require(self, records: Records) -> None:
        if self._world.chance(0.01):
            raise UnavailableError("a schema cannot be had now")

    def decode(self, records: Records) -> Decoded:
        self.require(records)
        codes = np.array([kinds.index(value) for value in records.values if value is not None])
        corrupt = codes == kinds.index(b"corrupt")
        rows = np.flatnonzero(~corrupt)
        rejections = [
            Rejection(index=index, stage=Stage.DECODE, reason=Reason.CORRUPT, detail="corrupt")
            for index in np.flatnonzero(corrupt).tolist()
        ]
        return Decoded(matrix=codes[rows].astype(np.float32).reshape(-1, 1), rows=rows, rejections=rejections)

    def predict(self, matrix: NDArray[np.generic]) -> Predictions:
        codes = matrix[:, 0].astype(np.float64)
        if (codes == kinds.index(b"throws")).any():
            self._world.seen["the model threw"] += 1
            raise ModelError("a row is bad")
        y = np.where(codes == kinds.index(b"nan"), np.nan, codes).reshape(-1, 1)
        return Predictions(outputs={"y": y}, labels=None, classes=())

    def explain(self, matrix: NDArray[np.generic], predictions: Predictions) -> Attributions:
        if (matrix[:, 0].astype(np.float64) == kinds.index(b"dark")).any():
            raise ModelError("a row cannot be explained")
        n = len(matrix)
        return Attributions(
            values=matrix.astype(np.float64),
            base=np.zeros(n),
            output_index=np.zeros(n, np.int64),
            output_name="y",
            additivity_error=np.zeros(n),
            sampling_error=None,
            method="identity",
            space="value",
            background=None,
        )


def write_place(records: Records, index: int, says: str) -> bytes:
    """An outcome's payload: the record it is about, and what it says."""
    return f"{records.partitions[index]} {records.offsets[index]} {says}".encode()


def read_place(payload: bytes | None) -> tuple[tuple[int, int], str]:
    """Undo write_place."""
    assert payload is not None
    partition, offset, says = payload.decode().split(" ", 2)
    return (int(partition), int(offset)), says


def make_scorer(world: Surroundings) -> Scorer:
    """The real scorer over the stages above, with explanations."""
    stages = Stages(world)

    def predictions(records: Records, predicted: Predictions, _: int) -> list[bytes]:
        return [write_place(records, i, f"{predicted.outputs['y'][i, 0]:g}") for i in range(len(records))]

    def explanations(records: Records, _: NDArray[np.generic], attributions: Attributions) -> list[bytes]:
        return [write_place(records, i, f"{attributions.values[i, 0]:g}") for i in range(len(records))]

    def letters(records: Records, rejections: Sequence[Rejection], _: int) -> list[bytes]:
        return [write_place(records, r.index, f"{r.stage} {r.reason}") for r in rejections]

    return Scorer(
        decoder=stages,
        model=stages,
        messages=OutgoingMessages(
            topics=Topics(predictions="p", explanations="e", dead_letters="d"),
            limits=OutputLimits(
                predictions_bytes_max=1000, explanations_bytes_max=1000, dead_letters_bytes_max=10_000
            ),
            headers=frozenset(),
        ),
        encode_predictions=predictions,
        encode_dead_letters=letters,
        explaining=Explaining(policy=parse_policy("every"), explainer=stages, encode=explanations),
        passing=None,
        condemned=lambda _: (),
        clock=world.clock,
    )
