"""A batch becomes messages: decode, infer, explain, encode; each record ends in exactly one outcome."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from penstock.engine.clock import Clock
from penstock.engine.codec.passed_fields import PassedFields
from penstock.engine.explain.budget import Explained, explain_within
from penstock.engine.pipeline.outgoing import OutgoingMessages
from penstock.engine.pipeline.sampling import Sample, Sampler
from penstock.engine.ports import Attributions, Decoder, Explainer, Model, Predictions
from penstock.engine.settings.explain_policy import Policy, lots
from penstock.schemas.errors import ModelError
from penstock.schemas.reasons import Reason, Stage
from penstock.schemas.records import Outgoing, Records, Rejection

EncodePredictions = Callable[[Records, Predictions, int], list[bytes]]
"""Source records, their predictions and the time in milliseconds to the payloads of the prediction topic, in order."""

EncodeExplanations = Callable[[Records, NDArray[np.generic], Attributions], list[bytes]]
"""Source records, their rows and attributions to the payloads of the explanation topic, in order."""

EncodeDeadLetters = Callable[[Records, Sequence[Rejection], int], list[bytes]]
"""All records of the batch, the rejections and the time in milliseconds to the payloads of the dead-letter topic."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Explaining:
    """What it takes to explain: who is chosen, by which explainer, encoded how, and in how much time per batch."""

    policy: Policy
    explainer: Explainer
    encode: EncodeExplanations
    budget_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of the records of one batch; predicted + rejected + skipped is all of them."""

    outgoing: tuple[Outgoing, ...]
    predicted: int
    explained: int  # of the predicted ones, those that carry an explanation
    skipped: int
    rejections: tuple[Rejection, ...]
    bad: NDArray[np.bool_]  # (N,) the rejected ones, in record order
    stage_s: Mapping[str, float]
    unexplained: Mapping[str, int] = field(default_factory=dict)
    """Of the predicted ones, those without an explanation, by why: policy or budget; empty where nothing is explained."""
    sample: Sample | None = None
    """A few of the records, now and then."""


@dataclass(kw_only=True, slots=True, eq=False)
class Survivors:
    """The records of a batch that go on, as columns, and the rejections of those that do not.

    A place is an index into the columns. Up to the model a rejected record leaves them (`drop`); behind it, when results stand
    by place, it stays and its place is among `failed` (`reject`).
    """

    records: Records
    """All of the batch."""
    rows: NDArray[np.int64]
    """(R,) ascending: which of the records each place is."""
    matrix: NDArray[np.generic]  # (R, F)
    predictions: Predictions | None = None  # (R,)
    rejections: list[Rejection]
    failed: set[int] = field(default_factory=set)

    def drop(self, places: Sequence[int], *, stage: Stage, reason: Reason, detail: str) -> None:
        """Reject the records at these places and take them out of the columns."""
        self.rejections += [
            Rejection(index=index, stage=stage, reason=reason, detail=detail)
            for index in self.rows[places].tolist()
        ]
        kept = np.setdiff1d(np.arange(len(self.rows)), places)
        self.rows, self.matrix = self.rows[kept], self.matrix[kept]
        if self.predictions is not None:
            self.predictions = self.predictions.take(kept)

    def reject(self, place: int, *, stage: Stage, reason: Reason, detail: str) -> None:
        """Reject the record at this place; what was rejected before keeps its reason."""
        if place not in self.failed:
            self.failed.add(place)
            index = int(self.rows[place])
            self.rejections.append(Rejection(index=index, stage=stage, reason=reason, detail=detail))


class Scorer:
    """Runs the stages. One thread at a time; holds nothing between batches.

    May raise UnavailableError (a schema cannot be fetched now): the same batch is to be given again.
    """

    def __init__(
        self,
        *,
        decoder: Decoder,
        model: Model,
        messages: OutgoingMessages,
        encode_predictions: EncodePredictions,
        encode_dead_letters: EncodeDeadLetters,
        explaining: Explaining | None,
        passing: PassedFields | None,
        condemned: Callable[[Records], Sequence[int]],
        clock: Clock,
        sampler: Sampler | None = None,
    ) -> None:
        """`sampler`: asked for a few records of each batch, where somebody may want to see them."""
        self._decoder = decoder
        self._model = model
        self._messages = messages
        self._encode_predictions = encode_predictions
        self._encode_dead_letters = encode_dead_letters
        self._explaining = explaining
        self._passing = passing
        self._condemned = condemned
        self._clock = clock
        self._sampler = sampler

    def score(self, records: Records) -> Outcome:
        """Every record's outcome."""
        watch = _Watch(self._clock)
        rejections: list[Rejection] = []
        living, living_at = self._without_condemned(records, rejections)

        decoded = self._decoder.decode(living)
        rejections += [_moved(rejection, living_at) for rejection in decoded.rejections]
        survivors = Survivors(
            records=records,
            rows=living_at[decoded.rows] if living_at is not None else decoded.rows,
            matrix=decoded.matrix,
            rejections=rejections,
        )
        skipped = len(living) - len(decoded.rows) - len(decoded.rejections)
        watch.lap("decode")

        self._infer(survivors)
        watch.lap("infer")
        explained = self._explain(survivors)
        watch.lap("explain")

        outgoing = self._encode(survivors, explained)
        watch.lap("encode")
        bad = np.zeros(len(records), dtype=np.bool_)
        bad[[rejection.index for rejection in rejections]] = True
        predicted = len(survivors.rows) - len(survivors.failed)
        carrying, unexplained = _count_explained(explained, predicted, survivors.failed)
        return Outcome(
            outgoing=tuple(outgoing),
            predicted=predicted,
            explained=carrying,
            unexplained=unexplained,
            skipped=skipped,
            rejections=tuple(rejections),
            bad=bad,
            stage_s=watch.laps,
            sample=self._sample(survivors, explained),
        )

    def _sample(self, survivors: Survivors, explained: Explained | None) -> Sample | None:
        if self._sampler is None:
            return None
        return self._sampler.take(
            records=survivors.records,
            rows=survivors.rows,
            matrix=survivors.matrix,
            predictions=survivors.predictions,
            failed=survivors.failed,
            explained=explained,
            rejections=survivors.rejections,
        )

    def require(self, records: Records) -> None:
        """What these records need from elsewhere is here, or UnavailableError is raised as `score` would. Computes nothing."""
        living, _ = self._without_condemned(records, [])
        self._decoder.require(living)

    def rehearse(self, matrix: NDArray[np.generic]) -> None:
        """Run everything behind the decoder on these rows (R, F) and throw away what comes of it: what takes longer the
        first time takes it before the first record."""
        count = len(matrix)
        source = Records(
            topic="",
            partitions=np.zeros(count, dtype=np.int32),
            offsets=np.arange(count, dtype=np.int64),
            timestamps_ms=np.zeros(count, dtype=np.int64),
            keys=[None] * count,
            values=[None] * count,
        )
        survivors = Survivors(
            records=source, rows=np.arange(count, dtype=np.int64), matrix=matrix, rejections=[]
        )
        self._infer(survivors)
        self._encode(survivors, self._explain(survivors))

    def _without_condemned(
        self, records: Records, rejections: list[Rejection]
    ) -> tuple[Records, NDArray[np.int64] | None]:
        condemned = self._condemned(records)
        if not condemned and not records.unreadable:
            return records, None
        for index, unreadable in records.unreadable.items():
            rejections.append(
                Rejection(index=index, stage=Stage.DECODE, reason=Reason.UNREADABLE, detail=unreadable.detail)
            )
        for index in set(condemned) - records.unreadable.keys():
            detail = "a worker process died on this record, or did not come back from it, twice"
            rejections.append(
                Rejection(index=index, stage=Stage.INFER, reason=Reason.KILLED_WORKER, detail=detail)
            )
        apart = np.array(sorted({*condemned, *records.unreadable}), dtype=np.int64)
        kept = np.setdiff1d(np.arange(len(records), dtype=np.int64), apart)
        return records.take(kept), kept

    def _infer(self, survivors: Survivors) -> None:
        """Give them their predictions. Those that the model cannot answer leave."""
        if len(survivors.rows) == 0:
            return
        predictions, failed = infer_around_failures(self._model, survivors.matrix)
        if failed:
            detail = "the model raises an error on this record alone"
            survivors.drop(failed, stage=Stage.INFER, reason=Reason.MODEL_FAILED, detail=detail)
        survivors.predictions = predictions
        if predictions is None:
            return
        finite = np.ones(len(survivors.rows), dtype=np.bool_)
        for output in predictions.outputs.values():
            finite &= np.isfinite(output).all(axis=1)
        if not finite.all():
            detail = "an output of the model is NaN or infinite"
            places = np.flatnonzero(~finite).tolist()
            survivors.drop(places, stage=Stage.INFER, reason=Reason.OUTPUT_NOT_FINITE, detail=detail)

    def _explain(self, survivors: Survivors) -> Explained | None:
        """Attributions by place; a record that cannot be explained is rejected whole."""
        explaining, predictions = self._explaining, survivors.predictions
        if explaining is None or predictions is None or len(survivors.rows) == 0:
            return None
        records, rows = survivors.records, survivors.rows
        chosen = np.flatnonzero(explaining.policy.select(records, rows, predictions))
        if explaining.budget_s is not None:
            # In random order: if the time does not suffice, what is explained is a fair sample, not the first partitions.
            chosen = chosen[np.argsort(lots(records, rows[chosen]), kind="stable")]
        explained = explain_within(
            explaining.explainer,
            survivors.matrix,
            predictions,
            chosen,
            budget_s=explaining.budget_s,
            clock=self._clock,
        )
        detail = "no explanation could be computed for this record"
        for place in explained.failed.tolist():
            survivors.reject(place, stage=Stage.EXPLAIN, reason=Reason.EXPLAINER_FAILED, detail=detail)
        return explained

    def _encode(self, survivors: Survivors, explained: Explained | None) -> list[Outgoing]:
        """The messages, dead letters included; a result that cannot be sent is rejected before."""
        now_ms = self._clock.wall_ms()
        records, rows, messages = survivors.records, survivors.rows, self._messages
        predicted: list[bytes] = []
        explanations: list[tuple[int, bytes]] = []
        if survivors.predictions is not None and len(rows):
            source = records if len(rows) == len(records) else records.take(rows)
            predicted = self._encode_predictions(source, survivors.predictions, now_ms)
            if explained is not None:
                explanations = self._encode_explained(source, survivors.matrix, explained)
            if self._passing is not None:
                passed, faults = self._passing.read(source)
                add = self._passing.add
                predicted = [add(payload, fields) for payload, fields in zip(predicted, passed, strict=True)]
                explanations = [(place, add(payload, passed[place])) for place, payload in explanations]
                for place, fault in faults.items():
                    survivors.reject(place, stage=fault.stage, reason=fault.reason, detail=fault.detail)
        headers = messages.carried(records)
        for place, unfit in messages.unfit(records, rows, predicted, explanations, headers).items():
            survivors.reject(place, stage=unfit.stage, reason=unfit.reason, detail=unfit.detail)

        topics, failed, rejections = messages.topics, survivors.failed, survivors.rejections
        outgoing = []
        if predicted:
            outgoing.append(
                messages.results(
                    topics.predictions, records, rows, range(len(rows)), predicted, failed, headers
                )
            )
        if explanations and topics.explanations:
            places, payloads = zip(*explanations, strict=True)
            outgoing.append(
                messages.results(topics.explanations, records, rows, places, payloads, failed, headers)
            )
        if rejections:
            rejections.sort(key=lambda rejection: rejection.index)  # nothing is rejected after this
            indices = np.array([rejection.index for rejection in rejections], dtype=np.int64)
            dead = self._encode_dead_letters(records, rejections, now_ms)
            outgoing.append(messages.letters(records, indices, dead, headers))
        return [each for each in outgoing if len(each)]

    def _encode_explained(
        self, source: Records, matrix: NDArray[np.generic], explained: Explained
    ) -> list[tuple[int, bytes]]:
        """The payloads with the places of their rows, in the order of the rows; `source` is the records of all rows."""
        assert self._explaining is not None
        explanations: list[tuple[int, bytes]] = []
        for places, attributions in explained.parts:
            each = len(attributions.base) // len(places)  # with explain.output all, every output of a record
            placed = np.repeat(places, each) if each > 1 else places
            whole = np.array_equal(placed, np.arange(len(source)))
            encoded = self._explaining.encode(
                source if whole else source.take(placed), matrix if whole else matrix[placed], attributions
            )
            explanations += zip(placed.tolist(), encoded, strict=True)
        if len(explained.parts) > 1:
            explanations.sort(key=lambda explanation: explanation[0])
        return explanations


def infer_around_failures(model: Model, matrix: NDArray[np.generic]) -> tuple[Predictions | None, list[int]]:
    """Predictions of the rows the model can do, in order, and the rows it throws on.

    A batch that throws is halved until the rows at fault stand alone: one bad row among n costs at most 2 log2(n) + 1
    further runs.
    """
    failed: list[int] = []
    parts: list[Predictions] = []
    todo = [(0, len(matrix))]  # the first one last
    while todo:  # no function that calls itself by name: it would hold the matrix until the collector comes
        start, stop = todo.pop()
        try:
            parts.append(model.predict(matrix[start:stop]))
        except ModelError:
            if stop - start == 1:
                failed.append(start)
            else:
                middle = (start + stop) // 2
                todo += [(middle, stop), (start, middle)]
    if not parts:
        return None, failed
    if len(parts) == 1:
        return parts[0], failed
    names = parts[0].outputs.keys()
    labels = [part.labels for part in parts if part.labels is not None]
    joined = Predictions(
        outputs={name: np.concatenate([part.outputs[name] for part in parts]) for name in names},
        labels=np.concatenate(labels) if labels else None,
        classes=parts[0].classes,
    )
    return joined, failed


def _count_explained(
    explained: Explained | None, predicted: int, failed: set[int]
) -> tuple[int, Mapping[str, int]]:
    """Predicted records that carry an explanation, and why the others do not."""
    if explained is None:
        return 0, {}
    carrying = sum(len(places) for places, _ in explained.parts)
    skipped = len(explained.skipped)
    if failed:
        at_fault = np.fromiter(failed, dtype=np.int64)
        carrying -= sum(int(np.isin(places, at_fault).sum()) for places, _ in explained.parts)
        skipped -= int(np.isin(explained.skipped, at_fault).sum())
    return carrying, {"policy": predicted - carrying - skipped, "budget": skipped}


def _moved(rejection: Rejection, places: NDArray[np.int64] | None) -> Rejection:
    if places is None:
        return rejection
    return Rejection(
        index=int(places[rejection.index]),
        stage=rejection.stage,
        reason=rejection.reason,
        detail=rejection.detail,
    )


class _Watch:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_s = clock.monotonic_s()
        self.laps: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        now_s = self._clock.monotonic_s()
        self.laps[stage] = now_s - self._last_s
        self._last_s = now_s
