"""A batch's time for explanations: what it does not reach is predicted all the same, and counted."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from penstock.engine.explain.budget import explain_within
from penstock.engine.pipeline.outgoing import OutgoingMessages, OutputLimits, Topics
from penstock.engine.pipeline.scorer import Explaining, Outcome, Scorer
from penstock.engine.ports import Attributions, Decoded, Predictions
from penstock.engine.settings.explain_policy import parse_policy
from penstock.engine.settings.model import ExplainSettings
from penstock.engine.telemetry.metric_declarations import render
from penstock.engine.telemetry.metrics import Metrics
from penstock.engine.telemetry.status import StatusBoard
from penstock.schemas.errors import ModelError
from penstock.schemas.reasons import Reason
from penstock.schemas.records import Outgoing, Records, Rejection
from tests.clocks import HandClock


class SlowExplainer:
    """Each row costs `row_s`; rows whose first feature is in `bad` cannot be explained."""

    def __init__(self, clock: HandClock, row_s: float, bad: Sequence[float] = (), each: int = 1) -> None:
        self.clock, self.row_s, self.bad, self.each = clock, row_s, set(bad), each
        self.calls: list[int] = []

    def explain(self, matrix: NDArray[np.generic], predictions: Predictions) -> Attributions:
        self.calls.append(len(matrix))
        self.clock.now_s += self.row_s * len(matrix)
        if self.bad & set(matrix[:, 0].tolist()):
            raise ModelError("no")
        np.testing.assert_array_equal(predictions.outputs["y"][:, 0], matrix[:, 0])
        rows = np.repeat(matrix.astype(np.float64), self.each, axis=0)
        return Attributions(
            values=rows,
            base=np.zeros(len(rows)),
            output_index=np.tile(np.arange(self.each), len(matrix)),
            output_name="y",
            additivity_error=np.zeros(len(rows)),
            sampling_error=None,
            method="by hand",
            space="value",
            background=None,
        )


class Identity:
    """Decoder and model of records that are numbers."""

    def require(self, records: Records) -> None: ...

    def decode(self, records: Records) -> Decoded:
        values = [float(value or b"nan") for value in records.values]
        matrix = np.array(values, dtype=np.float32)[:, None]
        return Decoded(matrix=matrix, rows=np.arange(len(records)), rejections=())

    def predict(self, matrix: NDArray[np.generic]) -> Predictions:
        return Predictions(outputs={"y": matrix[:, :1].astype(np.float64)}, labels=None, classes=())


def records(count: int) -> Records:
    return Records(
        topic="in",
        partitions=(np.arange(count) // 50).astype(np.int32),
        offsets=(np.arange(count) % 50).astype(np.int64),
        timestamps_ms=np.zeros(count, dtype=np.int64),
        keys=[b"%d" % i for i in range(count)],
        values=[b"%d" % i for i in range(count)],
    )


def encode_explanations(
    source: Records, matrix: NDArray[np.generic], attributions: Attributions
) -> list[bytes]:
    for name, value in zip(source.values, attributions.values[:, 0], strict=True):
        assert name == b"%d" % value  # the explanation is of this record and no other
    return [value or b"" for value in source.values]


def dead_letters(source: Records, rejections: Sequence[Rejection], now_ms: int) -> list[bytes]:
    return [b"dead"] * len(rejections)


def scored(
    count: int, *, explainer: SlowExplainer, clock: HandClock, budget_s: float | None, policy: str = "every"
) -> Outcome:
    identity = Identity()
    scorer = Scorer(
        decoder=identity,
        model=identity,
        messages=OutgoingMessages(
            topics=Topics(predictions="p", explanations="e", dead_letters="d"),
            limits=OutputLimits(
                predictions_bytes_max=1000, explanations_bytes_max=1000, dead_letters_bytes_max=10_000
            ),
            headers=frozenset(),
        ),
        encode_predictions=lambda source, predictions, now_ms: [value or b"" for value in source.values],
        encode_dead_letters=dead_letters,
        explaining=Explaining(
            policy=parse_policy(policy), explainer=explainer, encode=encode_explanations, budget_s=budget_s
        ),
        passing=None,
        condemned=lambda _: (),
        clock=clock,
    )
    return scorer.score(records(count))


def sent(outcome: Outcome, topic: str) -> Outgoing:
    found = [outgoing for outgoing in outcome.outgoing if outgoing.topic == topic]
    if not found:
        return Outgoing(topic=topic, keys=[], values=[], partitions=np.empty(0, dtype=np.int32))
    (one,) = found
    assert one.keys == one.values  # every message goes out under its own record's key
    np.testing.assert_array_equal(one.partitions, [int(key or b"") // 50 for key in one.keys])
    return one


def test_a_spent_budget_costs_explanations_and_no_prediction() -> None:
    clock = HandClock()
    outcome = scored(200, explainer=SlowExplainer(clock, 0.001), clock=clock, budget_s=0.05)
    assert len(sent(outcome, "p")) == outcome.predicted == 200
    assert 45 <= outcome.explained == len(sent(outcome, "e")) <= 50
    assert outcome.unexplained == {"policy": 0, "budget": 200 - outcome.explained}
    assert outcome.stage_s["explain"] <= 0.05 + 1e-9
    assert not outcome.rejections


def test_what_is_explained_is_spread_over_the_partitions_and_the_same_on_a_replay() -> None:
    parts = []
    for _ in range(2):
        clock = HandClock()
        outcome = scored(200, explainer=SlowExplainer(clock, 0.001), clock=clock, budget_s=0.04)
        parts.append(sent(outcome, "e"))
    assert parts[0].keys == parts[1].keys
    assert (np.bincount(parts[0].partitions, minlength=4) >= 5).all()
    order = [int(key or b"") for key in parts[0].keys]
    assert order == sorted(order)


def test_a_budget_that_suffices_changes_nothing_that_is_sent() -> None:
    clock = HandClock()
    without = scored(200, explainer=SlowExplainer(clock, 0.001), clock=clock, budget_s=None)
    within = scored(200, explainer=SlowExplainer(clock, 0.001), clock=clock, budget_s=1.0)
    assert sent(without, "e").values == sent(within, "e").values
    assert without.explained == within.explained == 200
    assert within.unexplained == {"policy": 0, "budget": 0}


def test_a_budget_too_small_for_one_row_still_explains_one() -> None:
    clock = HandClock()
    explainer = SlowExplainer(clock, 10.0)
    outcome = scored(20, explainer=explainer, clock=clock, budget_s=0.001)
    assert explainer.calls == [1]
    assert (outcome.explained, outcome.unexplained["budget"]) == (1, 19)


def test_the_policy_is_counted_apart_from_the_budget() -> None:
    clock = HandClock()
    outcome = scored(
        200, explainer=SlowExplainer(clock, 0.001), clock=clock, budget_s=0.02, policy="score>=100"
    )
    assert outcome.unexplained["policy"] == 100
    assert outcome.explained + outcome.unexplained["budget"] == 100
    assert all(int(value or b"") >= 100 for value in sent(outcome, "e").values)


def test_every_output_of_half_the_records_goes_out_under_their_own_keys() -> None:
    clock = HandClock()
    outcome = scored(
        100, explainer=SlowExplainer(clock, 0, each=2), clock=clock, budget_s=None, policy="score>=50"
    )
    assert len(sent(outcome, "e")) == 100  # as many messages as records, of half the records
    assert outcome.explained == 50


def test_a_row_that_cannot_be_explained_is_found_in_few_calls_and_set_aside() -> None:
    clock = HandClock()
    explainer = SlowExplainer(clock, 0, bad=[77])
    outcome = scored(128, explainer=explainer, clock=clock, budget_s=None)
    assert [(each.index, each.reason) for each in outcome.rejections] == [(77, Reason.EXPLAINER_FAILED)]
    assert len(explainer.calls) <= 2 * 7 + 1
    assert (outcome.predicted, outcome.explained) == (127, 127)
    assert b"77" not in sent(outcome, "p").values + sent(outcome, "e").values


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 60),
    row_s=st.floats(0, 0.01),
    budget_s=st.one_of(st.none(), st.floats(1e-6, 0.3)),
    bad=st.sets(st.integers(0, 59), max_size=5),
    seed=st.integers(0, 1000),
)
def test_every_chosen_row_is_explained_or_failed_or_skipped(
    rows: int, row_s: float, budget_s: float | None, bad: set[int], seed: int
) -> None:
    clock = HandClock()
    matrix = np.arange(rows, dtype=np.float32)[:, None]
    chosen = np.random.default_rng(seed).permutation(rows)[: max(1, rows - 3)]
    found = explain_within(
        SlowExplainer(clock, row_s, bad=sorted(bad)),
        matrix,
        Identity().predict(matrix),
        chosen,
        budget_s=budget_s,
        clock=clock,
    )
    explained = [place for places, _ in found.parts for place in places.tolist()]
    assert sorted([*explained, *found.failed.tolist(), *found.skipped.tolist()]) == sorted(chosen.tolist())
    assert set(found.failed.tolist()) <= bad
    assert not set(explained) & bad
    for places, attributions in found.parts:
        np.testing.assert_array_equal(attributions.values[:, 0], places)
    if budget_s is None:
        assert not len(found.skipped)


def test_the_status_and_the_metrics_show_the_spent_budget() -> None:
    clock = HandClock()
    outcome = scored(100, explainer=SlowExplainer(clock, 0.001), clock=clock, budget_s=0.03)
    board = StatusBoard(worker="w", group="g", topic="in", clock=clock, rows_max=100)
    metrics = Metrics(CollectorRegistry())
    for _ in range(2):
        metrics.count_batch(outcome, busy_s=0.1)
        board.finished(rows=100, busy_s=0.1, explained=outcome.explained, unexplained=outcome.unexplained)
    status = board.status().as_dict()
    assert status["explained"] == 2 * outcome.explained
    assert status["unexplained"] == {"policy": 0, "budget": 2 * (100 - outcome.explained)}
    line = f'penstock_unexplained_records_total{{reason="budget"}} {2 * (100 - outcome.explained)}.0'
    assert line in render(metrics.registry).decode()


@pytest.mark.parametrize("budget_ms", [0, -1, 1e9])
def test_a_budget_is_a_time_above_zero(budget_ms: float) -> None:
    with pytest.raises(ValueError, match="budget_ms"):
        ExplainSettings(budget_ms=budget_ms)
