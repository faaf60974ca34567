"""The ring of sampled records: what of it belongs together."""

from typing import Any

import orjson

from penstock.engine.pages.documents.records import first_rows
from penstock.engine.pages.record_ring import RecordRing, examples_max, records_kept, same_key_max


def document(offset: int, *, key_id: str | None, detail: str | None = None) -> dict[str, Any]:
    rejection = (
        None if detail is None else {"stage": "decode", "reason": f"reason-{offset % 2}", "detail": detail}
    )
    return {
        "topic": "t", "partition": 0, "offset": offset, "at_ms": offset, "outcome": "predicted", "label": None, "outputs": [],
        "explanation": None, "rejection": rejection, "input_stops": None, "key_id": key_id,
    }  # fmt: skip


def read(ring: RecordRing, offset: int) -> dict[str, Any]:
    found = ring.record(("t", 0, offset))
    assert found is not None
    whole: dict[str, Any] = orjson.loads(found)
    return whole


def test_only_what_may_be_told_of_a_key_links_and_no_more_than_is_held() -> None:
    ring = RecordRing()
    ring.add("0", [document(at, key_id=f"k{at % 2}" if at % 3 else None) for at in range(90)], seen=90)
    assert read(ring, 3)["same_key"] is None
    linked = [each["offset"] for each in read(ring, 1)["same_key"]]
    assert linked == [at for at in range(89, -1, -1) if at % 2 == 1 and at % 3 and at != 1][:same_key_max]
    assert "key_id" not in read(ring, 1)
    ring.add("0", [document(at, key_id="new") for at in range(1000, 1000 + records_kept - 1)], seen=999)
    assert read(ring, 89)["same_key"] == []  # its like are forgotten


def test_the_newest_of_each_reason_are_its_examples() -> None:
    ring = RecordRing()
    ring.add("0", [document(at, key_id=None, detail=f"byte {at}") for at in range(10)], seen=10)
    ring.add("0", [document(99, key_id=None)], seen=11)
    found = ring.examples()
    assert {reason: [each["detail"] for each in some] for reason, some in found.items()} == {
        "reason-1": ["byte 9", "byte 7", "byte 5"],
        "reason-0": ["byte 8", "byte 6", "byte 4"],
    }
    assert all(len(some) == examples_max for some in found.values())


def test_the_first_rows_and_what_the_others_come_to_are_the_whole() -> None:
    amounts = [0.5, -0.25, 0.125, -2.0, 0.5, None]
    whole = {
        "features": [{"feature": str(at)} for at in range(6)],
        "input": [{"field": "a"}],
        "explanation": {"attributions": [{"feature": str(at), "attribution": each} for at, each in enumerate(amounts)]},
    }  # fmt: skip
    some = first_rows(whole, 3)
    assert [each["feature"] for each in some["explanation"]["attributions"]] == [
        "0",
        "3",
        "4",
    ]  # in the model's order
    assert some["left_out"] == {"features": 3, "input": 0, "attributions": 3, "attribution": -0.125}
    assert [each["feature"] for each in some["features"]] == ["0", "1", "2"]
    every = first_rows(whole, 6)
    assert every["explanation"] == whole["explanation"]
    assert every["left_out"] == {"features": 0, "input": 0, "attributions": 0, "attribution": 0.0}
    assert first_rows({**whole, "explanation": None}, 3)["explanation"] is None
