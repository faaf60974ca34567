"""A record whose value cannot be decoded, on its page: read up to the fault, and where anything is masked without a value."""

import json
from typing import Any

import numpy as np
import pytest

from penstock.engine.codec.part_read import JsonPart, PartRead
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.pages.worker.masking import Masks
from penstock.engine.pages.worker.record_document import RecordDocuments, Told, around_bytes
from penstock.engine.pipeline.sampling import Sample
from penstock.schemas.errors import RecordError, UnavailableError
from penstock.schemas.reasons import Reason, Stage
from penstock.schemas.records import Records, Rejection
from tests.bundles import write_linear

read_json = JsonPart(skip=0).read
value = b'{"amount": 12.5, "note": "\xe2\x82\xac", "card": "4000-canary", "hour": 1x}'


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_linear(tmp_path_factory.mktemp("b") / "model")


def document(bundle: Bundle, value: bytes | None, *masked: str, read_part: Any = read_json) -> dict[str, Any]:
    records = Records(
        topic="t", partitions=np.zeros(1, np.int32), offsets=np.zeros(1, np.int64), timestamps_ms=np.zeros(1, np.int64), keys=[None], values=[value],
    )  # fmt: skip
    rejection = Rejection(index=0, stage=Stage.DECODE, reason=Reason.CORRUPT, detail="the value is not JSON")
    sample = Sample(
        records=records, matrix=np.empty((0, 3)), predictions=None, explained={}, rejections=(rejection,), strengths=None, strength_rows=0,
        scores=np.empty(0),
    )  # fmt: skip
    made = RecordDocuments(
        bundle, worker="w", masks=Masks(masked), read_input=lambda _: pytest.fail("it cannot be decoded"), read_part=read_part
    )  # fmt: skip
    (found,) = made.documents(Told(sample=sample, at_ms=1, stages_ms={}, rows=1))
    return found


def test_the_fields_before_the_fault_are_shown_and_the_bytes_around_it(bundle: Bundle) -> None:
    found = document(bundle, value)
    assert {each["field"]: each["shown"]["text"] for each in found["input"]} == {
        "amount": "12.5", "note": "\u20ac", "card": "4000-canary",
    }  # fmt: skip
    assert found["input_stops"]["field"] == "hour"
    at = value.index(b"x}")
    assert found["input_stops"]["byte"] == at
    assert found["input_stops"]["bytes"] == len(value)
    around = found["input_stops"]["around"]
    assert bytes.fromhex(around["hex"]) == value[at - around_bytes :]
    assert around["byte"] == at - around_bytes
    assert found["input_fault"] is None


@pytest.mark.parametrize("masked", ["card", "nothing_of_the_name", "key"])
def test_where_anything_is_masked_no_value_and_no_byte_is_shown(masked: str, bundle: Bundle) -> None:
    """In bytes that are read by the wrong schema, or from a wrong byte on, a secret may stand under any name."""
    found = document(bundle, value, masked)
    assert [each["field"] for each in found["input"]][:3] == ["amount", "note", "card"]
    assert all(each["shown"] == {**each["shown"], "masked": True, "text": None} for each in found["input"])
    assert found["input_stops"]["around"] is None
    told = json.dumps(found)
    assert "canary" not in told
    assert b"canary".hex() not in told


def refuse(error: Exception) -> Any:
    def read(_: bytes) -> PartRead | None:
        raise error

    return read


@pytest.mark.parametrize(
    ("given", "read_part", "said"),
    [
        (None, None, "no value"), (b" " * ((64 << 10) + 1), None, "65537 bytes"),
        (b"\0\0", refuse(UnavailableError("the registry is away")), "the registry is away"),
        (b"\0\0", refuse(RecordError(stage=Stage.DECODE, reason=Reason.UNKNOWN_SCHEMA, detail="no schema 7")), "no schema 7"),
        (b"{}", lambda _: None, "2 bytes"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_at_all_says_why(
    given: bytes | None, read_part: Any, said: str, bundle: Bundle
) -> None:
    found = document(bundle, given, read_part=read_part)
    assert said in found["input_fault"]
    assert (found["input"], found["input_stops"]) == ([], None)
