"""The native reader against the reference path, on schemas and records that hypothesis makes up."""

import os

import numpy as np
import pytest
from hypothesis import example, given, settings

from penstock.engine.codec.avro.columns import NativeRows
from penstock.engine.codec.avro.reference import ReferenceRows
from penstock.engine.codec.schema_check import check_fields
from penstock.engine.features.signature import Feature
from penstock.schemas.reasons import Reason
from tests.avro_pairs import Case, cases, make_signature

pytestmark = pytest.mark.filterwarnings("ignore::avro.errors.IgnoredLogicalType")


def null_beside_a_default() -> Case:
    """f0 is null, which holds two fields of the model; f1 the writer does not know."""
    f0 = {"name": "T2", "namespace": "demo", "type": "record"}
    f0["fields"] = [{"name": "f2", "type": "double"}, {"name": "f3", "type": "boolean"}]  # type: ignore[assignment]
    field = {"name": "f0", "type": ["null", f0]}
    head = {"name": "T1", "namespace": "demo", "type": "record"}
    features = [Feature(name=name, kind="number") for name in ("f0.f2", "f1", "f0.f3")]
    return Case(
        writer=head | {"fields": [field]},
        reader=head | {"fields": [field, {"name": "f1", "type": "double", "default": 0.5}]},
        signature=make_signature(features),
        data=[{"f0": None}, {"f0": {"f2": 1.0, "f3": True}}],
        prefix=b"",
    )


@settings(max_examples=int(os.environ.get("PENSTOCK_AVRO_EXAMPLES", "300")), deadline=None)
@given(cases())
@example(null_beside_a_default())
def test_native_rows_are_the_reference_rows(case: Case) -> None:
    check_fields(case.signature, case.reader, origin="the reader's schema")
    payloads, skip = case.payloads(), len(case.prefix)

    matrix, rows, faults = NativeRows(case.writer, case.reader, case.signature, skip=skip).read(payloads)
    expected, expected_rows, expected_faults = ReferenceRows(
        case.writer, case.reader, case.signature, skip=skip
    ).read(payloads)

    assert matrix.dtype == case.signature.dtype
    assert matrix.flags.c_contiguous
    np.testing.assert_array_equal(matrix, expected)
    assert rows.tolist() == expected_rows.tolist()
    found = [(place, fault.stage, fault.reason) for place, fault in faults]
    assert found == [(place, fault.stage, fault.reason) for place, fault in expected_faults]


@settings(max_examples=100)
@given(cases())
def test_a_record_cut_anywhere_is_refused_and_its_neighbours_are_not(case: Case) -> None:
    native = NativeRows(case.writer, case.reader, case.signature, skip=0)
    skip = len(case.prefix)
    whole = [payload[skip:] for payload in case.payloads()]
    good, good_rows, _ = native.read(whole)
    if not len(good_rows):
        return
    payload, row = whole[good_rows[0]], good[:1]
    cuts = [payload[:length] for length in range(len(payload))]
    mixed = [each for cut in cuts for each in (payload, cut)] + [payload, payload + b"\x00"]

    matrix, rows, faults = native.read(mixed)

    assert rows.tolist() == list(range(0, len(mixed), 2))
    np.testing.assert_array_equal(matrix, np.repeat(row, len(rows), axis=0))
    assert {fault.reason for _, fault in faults[:-1]} <= {Reason.TRUNCATED}
    assert faults[-1][1].reason is Reason.TRAILING_BYTES
