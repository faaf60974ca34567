"""Tries a record on a model that nobody else uses: as it is, and with one value changed."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.engine.clock import Clock
from penstock.engine.explain.budget import Explained
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.pages.sentences import sentence
from penstock.engine.pages.shown import characters_max, cut
from penstock.engine.pages.worker.masking import Masks
from penstock.engine.pages.worker.record_document import RecordDocuments, Told
from penstock.engine.pipeline.sampling import OneExplained, Sample, explanations_of
from penstock.engine.ports import Decoded
from penstock.engine.python.stages import Scored, Stages
from penstock.engine.worker.trial.changed_value import ChangedValues
from penstock.engine.worker.trial.one_class import OfOneClass
from penstock.schemas.errors import RecordError
from penstock.schemas.records import Records, Rejection

records_kept: Final = 32
"""Of those that were looked at last, so that a change costs no look into the topic."""
choices_max: Final = 2000
categories_max: Final = 300

ReadRecord = Callable[[int, int], Records | None]
"""The record at a partition and an offset of the input topic; None when it is gone. Raises UnavailableError, ConfigError."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Tried:
    records: Records
    scored: Scored
    document: Mapping[str, Any]


class Trying:
    """One caller at a time."""

    def __init__(
        self,
        *,
        bundle: Bundle,
        stages: Stages,
        explainer: OfOneClass | None,
        documents: RecordDocuments,
        masks: Masks,
        read: ReadRecord,
        clock: Clock,
    ) -> None:
        self._bundle = bundle
        self._stages = stages
        self._explainer = explainer
        self._documents = documents
        self._masks = masks
        self._read = read
        self._clock = clock
        self._changes = ChangedValues(bundle.signature)
        self._kept: OrderedDict[tuple[int, int], _Tried] = OrderedDict()

    def answer(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The record as this bundle scores it, and where `column` and `value` are given, as it would with that value there.

        May raise UnavailableError and ConfigError, of what has to be asked for elsewhere.
        """
        began_s = self._clock.monotonic_s()
        place = (asked["partition"], asked["offset"])
        tried = self._tried(place)
        model = {
            "name": cut(self._bundle.name),
            "version": cut(self._bundle.version),
            "digest": self._bundle.digest,
        }
        if tried is None:
            return {"fault": sentence("trial.gone", partition=place[0], offset=place[1]), "model": model}
        found: dict[str, Any] = {
            "fault": None,
            "model": model,
            "before": tried.document,
            "after": None,
            "changed": None,
            "choices": self._choices(tried),
        }
        if asked.get("column") is not None:
            found |= self._changed(tried, asked["column"], asked["value"])
        return found | {"took_ms": (self._clock.monotonic_s() - began_s) * 1000}

    def _tried(self, place: tuple[int, int]) -> _Tried | None:
        tried = self._kept.get(place)
        if tried is None:
            records = self._read(*place)
            if records is None:
                return None
            scored = self._stages.run_records(records.values)  # type: ignore[arg-type]  # a value that is None is skipped
            tried = _Tried(records=records, scored=scored, document=self._document(records, scored))
            self._kept[place] = tried
            while len(self._kept) > records_kept:
                self._kept.popitem(last=False)
        self._kept.move_to_end(place)
        return tried

    def _changed(self, tried: _Tried, column: int, value: Any) -> dict[str, Any]:
        signature = self._bundle.signature
        if not len(tried.scored.rows):
            return {"fault": sentence("trial.no_row")}
        if column >= signature.width:
            return {"fault": sentence("trial.no_column", columns=signature.width)}
        name = cut(signature.columns[column])
        if self._masks.hides_feature(signature.column_features[column]):
            return {"fault": sentence("trial.masked", feature=name)}
        changed = {
            "column": column,
            "feature": name,
            "value": value if not isinstance(value, str) else cut(value),
        }
        try:
            row = self._changes.changed(tried.scored.matrix, column, value)
        except RecordError as error:
            rejection = Rejection(index=0, stage=error.stage, reason=error.reason, detail=error.detail)
            scored = _rejected(rejection)
        else:
            decoded = Decoded(matrix=row, rows=np.zeros(1, dtype=np.int64), rejections=())
            with self._explaining(tried):
                scored = self._stages.run(1, decoded)
                return {"after": self._document(tried.records, scored), "changed": changed}
        return {"after": self._document(tried.records, scored), "changed": changed}

    @contextmanager
    def _explaining(self, tried: _Tried) -> Iterator[None]:
        """The class that was predicted of the record as it is."""
        predictions = tried.scored.predictions
        if self._explainer is not None and predictions is not None and predictions.labels is not None:
            self._explainer.label = int(predictions.labels[0])
        try:
            yield
        finally:
            if self._explainer is not None:
                self._explainer.label = None

    def _explained(self, scored: Scored) -> Mapping[int, OneExplained]:
        if self._explainer is None or scored.attributions is None or scored.predictions is None:
            return {}
        place: NDArray[np.int64] = np.zeros(1, dtype=np.int64)
        none: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        explained = Explained(parts=((place, scored.attributions),), failed=none, skipped=none)
        return explanations_of(explained, self._explainer.chosen(scored.predictions), place)

    def _document(self, records: Records, scored: Scored) -> Mapping[str, Any]:
        """In the schema's form `record`, but for slot and same_key; empty for a record that is passed over."""
        if not len(scored.rows) and not scored.rejections:
            return {}
        sample = Sample(
            records=records,
            matrix=scored.matrix[:0] if scored.predictions is None else scored.matrix,
            predictions=scored.predictions,
            explained=self._explained(scored),
            rejections=scored.rejections,
            strengths=None,
            strength_rows=0,
            scores=np.empty(0),
        )
        told = Told(sample=sample, at_ms=self._clock.wall_ms(), stages_ms={}, rows=1)
        document = self._documents.documents(told)[0]
        document.pop("key_id")
        return document

    def _choices(self, tried: _Tried) -> list[dict[str, Any]]:
        """What can be changed, by column."""
        signature = self._bundle.signature
        owners = signature.column_features
        return [
            {
                "column": column,
                "feature": cut(signature.columns[column]),
                "kind": feature.kind,
                "categories": [
                    each for each in feature.categories[:categories_max] if len(each) <= characters_max
                ],
                "masked": self._masks.hides_feature(feature),
            }
            for column, feature in enumerate(owners[:choices_max])
        ]


def _rejected(rejection: Rejection) -> Scored:
    return Scored(
        count=1,
        rows=np.empty(0, dtype=np.int64),
        matrix=np.empty((0, 0)),
        predictions=None,
        attributions=None,
        rejections=(rejection,),
    )
