"""The stages run before the first record, and what is learnt from it."""

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.engine.clock import Clock
from penstock.engine.pipeline.outgoing import OutgoingMessages, OutputLimits, Topics
from penstock.engine.pipeline.scorer import Explaining, Scorer
from penstock.engine.ports import Attributions, Decoded, Predictions
from penstock.engine.settings.explain_policy import parse_policy
from penstock.engine.worker.calibration import cost_curve, rehearse, sizes
from penstock.schemas.records import Records


class _Ticking:
    """Each row takes the model a millisecond, its explanation two, its messages one."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.calls: Counter[str] = Counter()

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return 0

    def sleep(self, duration_s: float) -> None:
        raise AssertionError

    def works(self, stage: str, rows: int, ms_per_row: float) -> None:
        first = 10.0 if not self.calls[stage] else 1.0  # what is slow once
        self.calls[stage] += 1
        self.now_s += first * rows * ms_per_row / 1000


class _Stages:
    def __init__(self, clock: _Ticking) -> None:
        self._clock = clock

    def require(self, records: Records) -> None: ...

    def decode(self, records: Records) -> Decoded:
        raise AssertionError("nothing is decoded in a rehearsal")

    def predict(self, matrix: NDArray[np.generic]) -> Predictions:
        self._clock.works("infer", len(matrix), 1.0)
        return Predictions(outputs={"y": matrix[:, :1].astype(np.float64)}, labels=None, classes=())

    def explain(self, matrix: NDArray[np.generic], predictions: Predictions) -> Attributions:
        self._clock.works("explain", len(matrix), 2.0)
        zeros = np.zeros(len(matrix))
        return Attributions(
            values=matrix.astype(np.float64), base=zeros, output_index=zeros.astype(np.int64), output_name="y",
            additivity_error=zeros, sampling_error=None, method="m", space="value", background=None,
        )  # fmt: skip

    def encode(self, source: Records, *_: Any) -> list[bytes]:
        self._clock.works("encode", len(source), 0.5)
        return [b""] * len(source)


def _scorer(clock: _Ticking) -> Scorer:
    stages = _Stages(clock)
    protocol: Clock = clock
    return Scorer(
        decoder=stages,
        model=stages,
        messages=OutgoingMessages(
            topics=Topics(predictions="p", explanations="e", dead_letters="d"),
            limits=OutputLimits(
                predictions_bytes_max=100, explanations_bytes_max=100, dead_letters_bytes_max=10_000
            ),
            headers=frozenset(),
        ),
        encode_predictions=stages.encode,
        encode_dead_letters=lambda records, rejections, _: [b""] * len(rejections),
        explaining=Explaining(policy=parse_policy("every"), explainer=stages, encode=stages.encode),
        passing=None,
        condemned=lambda _: (),
        clock=protocol,
    )


def test_every_size_is_timed_with_all_that_follows_the_decoder() -> None:
    clock = _Ticking()
    rehearsed = rehearse(_scorer(clock), np.ones((5, 2), np.float32), batch_rows_max=50, clock=clock)
    assert [each.rows for each in rehearsed] == sizes(50) == [1, 4, 16, 50]
    np.testing.assert_allclose([each.ms for each in rehearsed], [4, 16, 64, 200], rtol=1e-9)
    assert cost_curve(rehearsed).seconds(25) * 1000 > 64
    assert {"infer", "explain", "encode"} == set(clock.calls)


def test_a_slow_explainer_ends_the_rehearsal_early() -> None:
    clock = _Ticking()
    rehearsed = rehearse(_scorer(clock), np.ones((5, 2), np.float32), batch_rows_max=4096, clock=clock)
    assert [each.rows for each in rehearsed] == [1, 4, 16, 64]  # 64 rows take 256 ms
    assert clock.now_s < 1.0
    assert cost_curve(rehearsed).seconds(4096) > 16


def test_a_row_that_the_model_refuses_does_not_end_it() -> None:
    clock = _Ticking()
    rows = np.array(
        [[1.0], [np.nan]], np.float32
    )  # its output is not finite: a dead letter, made and thrown away
    assert len(rehearse(_scorer(clock), rows, batch_rows_max=4, clock=clock)) == 2
