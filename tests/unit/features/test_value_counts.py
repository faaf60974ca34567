"""Missing and unseen values by feature: counted as a plain sum counts them, shown under labels that are bounded."""

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from penstock.engine.features.policies import FeaturePolicies
from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.engine.features.value_counts import ValueCounts
from penstock.engine.telemetry.metrics import Metrics, feature_labels_max


def signature(*features: Feature) -> Signature:
    width = sum(feature.width for feature in features)
    return Signature(features=features, inputs=(ModelInput(name="x", dtype="float32", start=0, width=width),))


@pytest.mark.parametrize("rows", [1, 7, 31, 32, 33, 255, 4096, 8159, 8160, 8161, 20_001])
def test_counts_are_those_of_a_plain_sum(rows: int) -> None:
    one = signature(
        Feature(name="a", kind="number", missing=0.0),
        Feature(name="v", kind="vector", width=3),
        Feature(name="c", kind="category", categories=("x", "y"), unseen=1),
    )
    random = np.random.default_rng(rows)
    matrix = random.integers(-1, 2, (rows, 5)).astype(np.float32)
    matrix[random.random((rows, 5)) < 0.3] = np.nan
    missing, unseen = np.isnan(matrix).sum(axis=0), (matrix[:, 4] == -1).sum()
    counts = ValueCounts(one)
    policies = FeaturePolicies(one, counts)
    for _ in range(2):
        policies.apply(matrix.copy(), np.arange(rows, dtype=np.int64))
    assert counts.rows == 2 * rows
    assert counts.missing.tolist() == [2 * missing[0], 2 * missing[1:4].sum(), 2 * missing[4]]
    assert counts.unseen.tolist() == [0, 0, 2 * unseen]


def test_the_metrics_move_by_what_is_new_and_their_labels_are_bounded() -> None:
    many = signature(*(Feature(name=f"f{i}", kind="number") for i in range(feature_labels_max + 50)))
    counts = ValueCounts(many)
    metrics = Metrics(CollectorRegistry())
    for _ in range(3):
        counts.count_missing(2, np.full(many.width, 2, dtype=np.int64))
        metrics.count_values(counts)
    metrics.count_values(counts)
    registry = metrics.registry
    assert registry.get_sample_value("penstock_rows_read_total") == 6
    assert registry.get_sample_value("penstock_missing_values_total", {"feature": "f0"}) == 6
    assert registry.get_sample_value("penstock_missing_values_total", {"feature": "(others)"}) == 300
    [family] = [each for each in registry.collect() if each.name == "penstock_missing_values"]
    assert len({sample.labels["feature"] for sample in family.samples}) == feature_labels_max + 1
