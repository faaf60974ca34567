"""The sentence about what limits the flow, on pictures that have one answer."""

from typing import Any

import pytest

from penstock.engine.hints.causes import Hints
from penstock.engine.pages.counts import Lately
from penstock.engine.pages.documents.flow import flow_document, limit
from penstock.engine.pages.partition_trends import PartitionTrends
from penstock.engine.pages.record_ring import RecordRing
from penstock.engine.pages.watch import Facts, Known, Picture

facts = Facts(
    group="g",
    topic="t",
    objective_ms=50,
    max_age_s=30,
    workers=1,
    predictions="p",
    explanations="e",
    dead_letters="d",
)


def picture(
    *, busy: float = 0.1, blocked: float = 0.0, lag_s: float | None = 0.0, rate: float = 100.0, explain: float = 0.2,
    slow: float = 0.0, **status: Any,
) -> Picture:  # fmt: skip
    """A minute in which one worker was busy and blocked for these shares of the time, `explain` of the work in explaining."""
    told = {
        "status": {
            "worker": "w", "state": "running", "kafka": None, "waits_for": [], "assigned": [0, 1], "model": None,
            "capacity_records_per_s": 1000.0, "finished_records_per_s": rate, "in_flight_batches": 0, **status,
        },
        "ready": {"ok": True, "reason": "running on 2 partitions"},
        "counters": {},
        "queues": {},
        "lag_totals": {"partitions": 2, "records": 0.0, "age_s": lag_s},
    }  # fmt: skip
    counted = {
        "records.predicted": rate * 60, "rows.sum": rate * 60, "stage.explain.sum": 60 * busy * explain,
        "stage.decode.sum": 60 * busy * (1 - explain) / 3, "stage.infer.sum": 60 * busy * (1 - explain) / 3,
        "stage.encode.sum": 60 * busy * (1 - explain) / 3, "age.0.05.bucket": rate * 60 * (1 - slow),
        "age.0.1.bucket": rate * 60, "age.inf.bucket": rate * 60,
    }  # fmt: skip
    times = ((0.0, 0.0, 0.0), (60.0, 60 * busy, 60 * blocked))
    return Picture(
        at_ms=1, facts=facts, workers={"0": Known(told=told, fault="", times=times)}, lately=Lately(span_s=60.0, counted=counted),
        points=(), changes=(), trends=PartitionTrends(), ring=RecordRing(), hints=Hints(),
    )  # fmt: skip


away = {"address": "k:9092", "reachable": False, "answer_age_s": 7.0, "fault": "refused", "lost_at_ms": 1}
wait = {"partition": 0, "kind": "registry", "since_ms": 1, "reason": "the registry does not answer"}


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        (picture(), "limit.none"),
        (picture(slow=0.05), "limit.late"),
        (picture(busy=0.95, explain=0.7, lag_s=20.0), "limit.stage"),
        (picture(busy=0.95, explain=0.3, lag_s=20.0), "limit.compute"),
        (picture(busy=0.3, blocked=0.6, lag_s=20.0), "limit.deliver"),
        (picture(busy=0.2, lag_s=20.0), "limit.input"),
        (picture(rate=0.0, busy=0.0), "limit.no_input"),
        (picture(rate=0.0, busy=0.0, lag_s=20.0), "limit.unread"),
        (picture(kafka=away), "limit.away"),
        (picture(state="joining"), "limit.not_running"),
        (picture(waits_for=[wait, {**wait, "partition": 1}]), "limit.waits"),
    ],
)
def test_the_limit_is_named(seen: Picture, code: str) -> None:
    found = limit(seen)
    assert found["code"] == code, found["text"]
    assert "—" not in found["text"]


def test_shares_of_the_time_are_one_together() -> None:
    (line,) = flow_document(picture(busy=0.7, blocked=0.6))["workers"]
    assert line["busy"] + line["blocked"] + line["idle"] == pytest.approx(1.0)
