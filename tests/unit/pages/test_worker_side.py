"""What a worker keeps for the pages: a bounded sample of what it computed anyway, with nothing sensitive in it."""

from typing import Any

import numpy as np
import pytest

from penstock.engine.clock import SystemClock
from penstock.engine.explain.budget import Explained
from penstock.engine.features.signature import Feature
from penstock.engine.pages.serving.callers import Callers, host_name
from penstock.engine.pages.shown import cut, shown
from penstock.engine.pages.worker.masking import Masks, masked, sensitive_names, without_masked
from penstock.engine.pipeline.sampling import Sampler, counted_rows_max, predicted_max
from penstock.engine.ports import Attributions, Predictions
from penstock.engine.telemetry.http_request import read_request
from penstock.schemas.reasons import Reason, Stage
from penstock.schemas.records import Records, Rejection
from tests.clocks import HandClock


def batch(rows: int, features: int, *, first: int = 0) -> dict[str, Any]:
    """All of a batch that the scorer hands over; row r of every column says r."""
    numbers = np.arange(rows, dtype=np.float64)
    values = np.repeat(numbers[:, None], features, axis=1)
    records = Records(
        topic="t",
        partitions=np.zeros(rows, np.int32),
        offsets=np.arange(first, first + rows, dtype=np.int64),
        timestamps_ms=np.zeros(rows, np.int64),
        keys=[None] * rows,
        values=[str(each).encode() for each in range(rows)],
        headers=lambda _: pytest.fail("headers are not asked for"),
        any_headers=lambda: True,
    )
    attributions = Attributions(
        values=values, base=numbers, output_index=np.zeros(rows, np.int64), output_name="o", additivity_error=numbers,
        sampling_error=None, method="m", space="value", background=None,
    )  # fmt: skip
    return {
        "records": records,
        "rows": np.arange(rows, dtype=np.int64),
        "matrix": values.astype(np.float32),
        "predictions": Predictions(outputs={"o": numbers[:, None]}, labels=None, classes=()),
        "failed": set(),
        "explained": Explained(
            parts=((np.arange(rows, dtype=np.int64), attributions),), failed=np.empty(0, np.int64), skipped=np.empty(0, np.int64)
        ),
        "rejections": [],
    }  # fmt: skip


@pytest.mark.parametrize(("features", "wanted"), [(1, predicted_max), (30, predicted_max), (2000, 1)])
def test_a_sample_is_the_newest_rows_each_with_its_own_numbers(features: int, wanted: int) -> None:
    sample = Sampler(HandClock()).take(**batch(1000, features, first=50))
    assert sample is not None
    assert sample.predictions is not None
    newest = list(range(1000 - wanted, 1000))
    assert sample.records.offsets.tolist() == [50 + each for each in newest]
    assert sample.matrix[:, 0].tolist() == newest
    assert sample.predictions.outputs["o"][:, 0].tolist() == newest
    assert [sample.explained[at].base for at in range(wanted)] == newest
    assert sample.strength_rows == len(sample.scores) == counted_rows_max
    assert sample.records.headers(0) == ()  # nothing of the batch is kept alive


def test_one_sample_is_taken_in_a_quarter_of_a_second_whatever_comes() -> None:
    clock = HandClock()
    sampler = Sampler(clock)
    taken = 0
    for _ in range(1000):
        taken += sampler.take(**batch(3, 2)) is not None
        clock.sleep(0.01)
    assert 38 <= taken <= 41


def test_what_was_rejected_behind_the_model_is_among_the_rejected_alone() -> None:
    given = batch(4, 2)
    given["failed"] = {3}
    given["rejections"] = [
        Rejection(index=3, stage=Stage.EXPLAIN, reason=Reason.EXPLAINER_FAILED, detail="d"),
    ]
    sample = Sampler(HandClock()).take(**given)
    assert sample is not None
    assert sample.records.offsets.tolist() == [0, 1, 2, 3]
    assert len(sample.matrix) == 3
    assert len(sample.rejections) == 1


def test_marked_fields_are_found_at_every_depth_with_their_aliases() -> None:
    schema = {
        "type": "record", "name": "R", "fields": [
            {"name": "a", "type": "string", "sensitive": True, "aliases": ["old_a"]},
            {"name": "list", "type": {"type": "array", "items": ["null", {"type": "record", "name": "Inner", "fields": [
                {"name": "iban", "type": "string", "confluent:tags": ["PUBLIC.PII"]},
                {"name": "next", "type": ["null", "Inner"]},
            ]}]}},
            {"name": "map", "type": {"type": "map", "values": {"type": "record", "name": "M", "fields": [
                {"name": "mail", "type": "string", "sensitive": True}, {"name": "plain", "type": "string", "sensitive": "no"}]}}},
        ],
    }  # fmt: skip
    assert sensitive_names(schema) == {"a", "old_a", "iban", "mail"}
    assert sensitive_names(None) == frozenset()
    masks = Masks(["iban"])
    record = {"list": [{"iban": "CH12", "next": {"iban": ["x"]}}], "plain": 1}
    assert without_masked(record, masks) == {"list": [{"iban": masked, "next": {"iban": masked}}], "plain": 1}


def test_a_feature_is_masked_where_any_part_of_its_path_is() -> None:
    masks = Masks(["customer"])
    assert masks.hides_feature(Feature(name="age", field="customer.age", kind="number"))
    assert not masks.hides_feature(Feature(name="age", field="account.age", kind="number"))


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", "\u202eevil", "\x00\x1b[31m", "x" * 1_000_000, "字" * 300]
)
def test_foreign_text_is_cut_with_its_length_and_has_nothing_invisible(text: str) -> None:
    for found in (cut(text), shown(text)["text"]):
        assert found.isprintable()
        assert len(found) < 50_000
    assert shown(text)["characters"] == len(text)


@pytest.mark.parametrize(
    ("header", "name"),
    [("localhost:9464", "localhost"), ("[::1]:80", "::1"), ("LOCALHOST", "localhost"), ("", ""), ("[::1]", "::1"), ("a.b:", "a.b")],
)  # fmt: skip
def test_a_host_is_a_name_without_its_port(header: str, name: str) -> None:
    assert host_name(header) == name


@pytest.mark.parametrize(
    "header",
    ["localhost:80@evil", "localhost evil", "localhost,evil", "[::1", "[::1]evil", "localhost:9464:1", "localhost\x00", "ｌocalhost", "a/b"],
)  # fmt: skip
def test_what_is_no_host_s_name_names_none(header: str) -> None:
    assert host_name(header) == ""


@pytest.mark.parametrize("hosts", [("evil", "localhost"), ("localhost", "evil"), ("localhost", "localhost")])
def test_of_several_hosts_none_is_believed(hosts: tuple[str, ...]) -> None:
    head = "GET / HTTP/1.1\r\n" + "".join(f"Host: {host}\r\n" for host in hosts) + "\r\n"
    request = read_request(head.encode(), "127.0.0.1")
    assert request is not None
    refusal = Callers(["evil"], clock=SystemClock()).refusal(request)
    assert refusal is not None
    assert refusal.status == 403
