"""A value tried in place of another goes by the rules that hold for a record's, and the rest of the row is none of its business."""

import numpy as np
import pytest

from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.engine.worker.trial.changed_value import ChangedValues
from penstock.schemas.errors import RecordError
from penstock.schemas.reasons import Reason

signature = Signature(
    features=(
        Feature(name="age", kind="number", within=((18.0, 99.0),), missing="reject"),
        Feature(name="share", kind="number", within=((float("-inf"), -1.0), (0.0, 1.0)), sentinel=-1.0),
        Feature(name="sum", kind="number", sentinel=0.0, missing="reject"),
    ),
    inputs=(ModelInput(name="x", dtype="float32", start=0, width=3),),
)
row = np.array([[40.0, 0.5, 3.0]], dtype=np.float32)


@pytest.mark.parametrize(
    ("column", "value", "found"),
    [(0, 18, 18.0), (0, 99.0, 99.0), (1, -7.5, -7.5), (1, None, np.nan), (1, -1, np.nan), (2, 5, 5.0)],
)
def test_a_value_that_a_record_may_hold_is_put_in(column: int, value: float | None, found: float) -> None:
    made = ChangedValues(signature).changed(row, column, value)
    wanted = row.copy()
    wanted[0, column] = found
    np.testing.assert_array_equal(made, wanted)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        (0, 17.999999999999996, Reason.OUT_OF_RANGE), (0, None, Reason.MISSING_VALUE), (1, -0.5, Reason.OUT_OF_RANGE),
        (1, float("inf"), Reason.NOT_FINITE), (2, 0, Reason.MISSING_VALUE),
    ],
)  # fmt: skip
def test_a_value_that_sets_a_record_aside_is_refused_for_the_same_reason(
    column: int, value: float | None, reason: Reason
) -> None:
    with pytest.raises(RecordError) as refusal:
        ChangedValues(signature).changed(row, column, value)
    assert refusal.value.reason is reason
