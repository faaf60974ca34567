"""The metrics are declared once, exposed as promised, and documented as they are."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.parser import text_string_to_metric_families

import penstock
from penstock.engine.telemetry.metric_declarations import ArrayHistogram, render
from penstock.engine.telemetry.metrics import Metrics, stages
from penstock.engine.telemetry.metrics_reference import all_declared
from penstock.schemas.reasons import Reason, Stage

root = Path(__file__).parents[3]
promised = {
    "penstock_records_total", "penstock_batch_rows", "penstock_stage_seconds", "penstock_end_to_end_seconds",
    "penstock_lag_records", "penstock_lag_seconds", "penstock_required_replicas",
    "penstock_worker_capacity_records_per_second", "penstock_model_info", "penstock_ready",
}  # fmt: skip


def samples(registry: CollectorRegistry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What a scrape sees."""
    families = text_string_to_metric_families(render(registry).decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_every_promised_metric_exists_and_names_carry_units() -> None:
    declared = [one for process in all_declared().values() for one in process]
    assert promised <= {one.name for one in declared}
    assert len({one.name for one in declared}) == len(declared)
    for one in declared:
        assert one.name.startswith("penstock_")
        assert (one.kind_name == "counter") == one.name.endswith("_total"), one.name
        assert one.help.endswith("."), one.name


def test_every_stage_that_can_reject_has_a_duration() -> None:
    assert {*Stage} - {Stage.VALIDATE} <= {*stages}  # validation is part of decode


def test_series_of_closed_sets_exist_before_anything_happened() -> None:
    seen = samples(Metrics(CollectorRegistry()).registry)
    for reason in Reason:
        assert seen[("penstock_rejected_records_total", (("reason", str(reason)),))] == 0
    assert seen[("penstock_records_total", (("outcome", "skipped"),))] == 0


def test_a_batch_is_counted_by_outcome_reason_and_stage() -> None:
    metrics = Metrics(CollectorRegistry())
    rejections = [SimpleNamespace(reason=Reason.CORRUPT), SimpleNamespace(reason=Reason.CORRUPT)]
    outcome = SimpleNamespace(
        predicted=7,
        explained=4,
        unexplained={"policy": 2, "budget": 1},
        skipped=1,
        rejections=rejections,
        stage_s={"decode": 0.002, "infer": 0.5},
    )
    metrics.count_batch(outcome, busy_s=0.25)
    seen = samples(metrics.registry)
    assert seen[("penstock_records_total", (("outcome", "predicted"),))] == 7
    assert seen[("penstock_records_total", (("outcome", "explained"),))] == 4
    assert seen[("penstock_unexplained_records_total", (("reason", "policy"),))] == 2
    assert seen[("penstock_unexplained_records_total", (("reason", "budget"),))] == 1
    assert seen[("penstock_records_total", (("outcome", "rejected"),))] == 2
    assert seen[("penstock_records_total", (("outcome", "skipped"),))] == 1
    assert seen[("penstock_rejected_records_total", (("reason", "corrupt"),))] == 2
    assert seen[("penstock_stage_seconds_sum", (("stage", "infer"),))] == 0.5
    assert seen[("penstock_busy_seconds_total", ())] == 0.25


def test_ages_leave_out_records_without_a_timestamp_and_clocks_that_run_ahead_count_as_none() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.count_ages(np.array([-1, 1_000, 9_000], dtype=np.int64), now_ms=3_000)
    seen = samples(metrics.registry)
    assert seen[("penstock_end_to_end_seconds_count", ())] == 2
    assert seen[("penstock_end_to_end_seconds_sum", ())] == 2.0
    assert seen[("penstock_end_to_end_seconds_bucket", (("le", "0.001"),))] == 1


def test_records_stamped_far_ahead_are_counted_and_clocks_a_little_apart_are_not() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.count_ages(np.array([-1, 1_000, 7_999, 13_000, 3_603_000], dtype=np.int64), now_ms=3_000)
    seen = samples(metrics.registry)
    assert seen[("penstock_ahead_records_total", ())] == 2
    assert seen[("penstock_ahead_seconds_total", ())] == 10.0 + 3600.0
    assert seen[("penstock_end_to_end_seconds_count", ())] == 4
    metrics.count_ages(np.array([], dtype=np.int64), now_ms=3_000)


def test_lag_of_partitions_that_went_away_is_not_exposed_any_more() -> None:
    metrics = Metrics(CollectorRegistry())
    for partition in ("0", "1"):
        metrics.lag_records.labels(topic="t", partition=partition).set(5)
        metrics.lag_seconds.labels(topic="t", partition=partition).set(5)
    metrics.forget_lag("t", [1])
    text = render(metrics.registry).decode()
    assert 'partition="0"' in text
    assert 'partition="1"' not in text


def test_the_release_is_told() -> None:
    (key,) = [
        key for key in samples(Metrics(CollectorRegistry()).registry) if key[0] == "penstock_build_info"
    ]
    assert key[1] == (("version", penstock.__version__),)


def test_counters_have_no_second_series() -> None:
    assert "_created" not in render(Metrics(CollectorRegistry()).registry).decode()


@given(
    st.lists(
        st.lists(st.one_of(st.floats(0, 400), st.sampled_from([0.001, 0.5, 300.0])), max_size=20), max_size=5
    )
)
def test_an_array_histogram_counts_as_the_library_does(batches: list[list[float]]) -> None:
    bounds = (0.001, 0.5, 300.0)
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    arrays = ArrayHistogram("h", "Help.", buckets=bounds, registry=ours)
    reference_histogram = Histogram("h", "Help.", buckets=bounds, registry=theirs)
    for batch in batches:
        arrays.observe_many(np.array(batch, dtype=np.float64))
        for value in batch:
            reference_histogram.observe(value)
    mine, expected = samples(ours), samples(theirs)
    assert mine.keys() == expected.keys()
    for key, value in expected.items():
        assert mine[key] == pytest.approx(value, rel=1e-12, abs=1e-9), key


def test_nan_does_not_poison_the_sum() -> None:
    registry = CollectorRegistry()
    histogram = ArrayHistogram("h", "Help.", buckets=(1.0,), registry=registry)
    histogram.observe_many(np.array([np.nan, 0.5]))
    assert samples(registry)[("h_sum", ())] == 0.5
    assert samples(registry)[("h_count", ())] == 1
