"""Messages that would not fit are set aside, counted with the key that they carry."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from penstock.engine.clock import SystemClock
from penstock.engine.pipeline.outgoing import OutgoingMessages, OutputLimits, Topics
from penstock.engine.pipeline.scorer import Scorer
from penstock.engine.ports import Decoded, Predictions
from penstock.schemas.reasons import Reason, Stage
from penstock.schemas.records import Headers, Records

message_bytes_max = 100


class _Stages:
    def require(self, records: Records) -> None: ...

    def decode(self, records: Records) -> Decoded:
        count = len(records)
        return Decoded(matrix=np.zeros((count, 1), np.float32), rows=np.arange(count), rejections=())

    def predict(self, matrix: NDArray[np.generic]) -> Predictions:
        return Predictions(outputs={"y": np.zeros((len(matrix), 1))}, labels=None, classes=())


def _records(keys: list[bytes | None]) -> Records:
    count = len(keys)
    return Records(
        topic="in",
        partitions=np.zeros(count, np.int32),
        offsets=np.arange(count, dtype=np.int64),
        timestamps_ms=np.zeros(count, np.int64),
        keys=keys,
        values=[b""] * count,
    )


def test_a_record_without_a_key_is_set_aside_where_an_output_is_compacted() -> None:
    scorer = Scorer(
        decoder=_Stages(),
        model=_Stages(),
        messages=OutgoingMessages(
            topics=Topics(predictions="p", explanations=None, dead_letters="d"),
            limits=OutputLimits(
                predictions_bytes_max=100,
                explanations_bytes_max=100,
                dead_letters_bytes_max=10_000,
                keyed=frozenset({"p"}),
            ),
            headers=frozenset(),
        ),
        encode_predictions=lambda source, predictions, _: [b"result"] * len(source),
        encode_dead_letters=lambda records, rejections, _: [b"letter"] * len(rejections),
        explaining=None,
        passing=None,
        condemned=lambda _: (),
        clock=SystemClock(),
    )
    outcome = scorer.score(_records([b"a", None, b"", None, b"k" * 99]))
    assert [rejection.reason for rejection in outcome.rejections] == [
        Reason.NO_KEY,
        Reason.NO_KEY,
        Reason.OUTPUT_TOO_LONG,
    ]
    sent = {out.topic: list(out.keys) for out in outcome.outgoing}
    assert sent == {"p": [b"a", b""], "d": [None, None, b"k" * 99]}
    assert (outcome.predicted, outcome.bad.tolist()) == (2, [False, True, False, True, True])


@pytest.mark.parametrize("payload_bytes", [60, 100, 101])
def test_a_result_is_measured_with_its_key(payload_bytes: int) -> None:
    scorer = Scorer(
        decoder=_Stages(),
        model=_Stages(),
        messages=OutgoingMessages(
            topics=Topics(predictions="p", explanations=None, dead_letters="d"),
            limits=OutputLimits(
                predictions_bytes_max=message_bytes_max,
                explanations_bytes_max=message_bytes_max,
                dead_letters_bytes_max=10_000,
            ),
            headers=frozenset(),
        ),
        encode_predictions=lambda source, predictions, _: [bytes(payload_bytes)] * len(source),
        encode_dead_letters=lambda records, rejections, _: [b"letter"] * len(rejections),
        explaining=None,
        passing=None,
        condemned=lambda _: (),
        clock=SystemClock(),
    )
    keys = [None, b"k" * 40, b"k" * 41, b""]
    outcome = scorer.score(_records([*keys]))
    fits = [payload_bytes + len(key or b"") <= message_bytes_max for key in keys]
    assert outcome.bad.tolist() == [not each for each in fits]
    assert outcome.predicted == sum(fits)
    assert all(len(out) for out in outcome.outgoing)
    sent = {out.topic: list(out.keys) for out in outcome.outgoing}
    assert sent.get("p", []) == [key for key, each in zip(keys, fits, strict=True) if each]
    assert sent.get("d", []) == [key for key, each in zip(keys, fits, strict=True) if not each]
    for rejection in outcome.rejections:
        assert (rejection.stage, rejection.reason) == (Stage.ENCODE, Reason.OUTPUT_TOO_LONG)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), None),
        (("absent",), None),
        (("trace",), [(), (("trace", b"1"),), ()]),
        (("*",), [(), (("trace", b"1"), ("id", None)), (("id", b"x" * 500),)]),
    ],
)
def test_the_chosen_headers_go_with_every_message(names: tuple[str, ...], expected: object) -> None:
    headers: list[Headers] = [(), (("trace", b"1"), ("id", None)), (("id", b"x" * 500),)]
    records = replace(_records([b"a", b"b", b"c"]), headers=headers.__getitem__, any_headers=lambda: True)
    scorer = Scorer(
        decoder=_Stages(),
        model=_Stages(),
        messages=OutgoingMessages(
            topics=Topics(predictions="p", explanations=None, dead_letters="d"),
            limits=OutputLimits(
                predictions_bytes_max=400, explanations_bytes_max=0, dead_letters_bytes_max=10_000
            ),
            headers=frozenset(names),
        ),
        encode_predictions=lambda source, predictions, _: [b"result"] * len(source),
        encode_dead_letters=lambda records, rejections, _: [b"letter"] * len(rejections),
        explaining=None,
        passing=None,
        condemned=lambda _: (),
        clock=SystemClock(),
    )
    sent = {out.topic: out for out in scorer.score(records).outgoing}
    if names == ("*",):  # with its headers the last result is longer than its topic takes
        assert sent["p"].headers == [(), (("trace", b"1"), ("id", None))]
        assert sent["d"].headers == [(("id", b"x" * 500),)]
    else:
        assert sent["p"].headers == expected
