"""Engines at their edges: every page says what it knows of them and what it does not, and nothing on it is no number."""

import json
import math
import re
from collections.abc import Callable
from typing import Any

import jsonschema
import numpy as np
import orjson
import pytest

from penstock.engine.pages.documents.flow import flow_document
from penstock.engine.pages.documents.health import health_document, partitions_told_max
from penstock.engine.pages.documents.hints import hints_document
from penstock.engine.pages.documents.model import model_document
from penstock.engine.pages.documents.records import records_document
from penstock.engine.pages.documents.scaling import scaling_document
from penstock.engine.pages.sentences import static_folder
from penstock.engine.pages.watch import Facts, Picture, Watch
from penstock.engine.pages.worker.view import _steps
from penstock.engine.telemetry.ask_workers import Reply
from penstock.engine.telemetry.worker_status import WorkerState, WorkerStatus
from tests.clocks import HandClock

schema = json.loads((static_folder.parent / "schema.json").read_text())
facts = Facts(
    group="g", topic="t", objective_ms=50, max_age_s=30, workers=1, predictions="p", explanations=None, dead_letters="d",
)  # fmt: skip
many = 10_000
made: dict[str, Callable[[Picture], Any]] = {
    "flow": flow_document, "records": records_document, "health": health_document, "hints": hints_document, "scaling": scaling_document,
}  # fmt: skip


def told(lags: list[list[Any]], *, finished: int = 0, state: WorkerState = WorkerState.RUNNING) -> bytes:
    """As a worker answers it: what is not a number has become null on its way."""
    status = WorkerStatus(
        worker="w", group="g", topic="t", at_ms=1, state=state, model=None, startup_s=0, capacity_records_per_s=0,
        finished_records_per_s=0, busy_ratio=0, in_flight_batches=0, records=finished, assigned=tuple(each[0] for each in lags),
    )  # fmt: skip
    known = [each for each in lags if each[1] is not None]
    return orjson.dumps(
        {
            "at_s": 1.0, "status": status.as_dict(), "ready": {"ok": True, "reason": "r"},
            "counters": {"busy_s": 0.0, "blocked_s": 0.0, "records.predicted": float(finished)}, "queues": {}, "blocked_s": 0.0,
            "lags": lags[:500], "sampled": 0, "records_sampled": 0, "records": [],
            "lag_totals": {
                "partitions": len(lags), "records": sum(each[1] for each in known) if len(known) == len(lags) else None,
                "age_s": max((each[2] for each in known), default=None if lags else 0.0),
            },
        }
    )  # fmt: skip


engines = {
    "no partition": told([]),
    "nothing finished": told([[0, 0.0, 0.0, 0, 0.0]]),
    "one record": told([[0, 0.0, 0.0, 1, 0.0]], finished=1),
    "starting": told([], state=WorkerState.STARTING),
    "lag unknown": told([[0, None, None, None, 0.0], [1, None, None, 7, 0.0]]),
    "a clock an hour ahead": told([[0, 5.0, 0.0, 7, 3600.0]], finished=3),
    "very far behind": told([[0, 1e15, 1e9, 7, 0.0]], finished=3),
    "very many partitions": told([[each, float(each), float(each), each, 0.0] for each in range(many)]),
}


@pytest.mark.parametrize("name", engines)
def test_every_page_says_what_it_knows_and_what_it_does_not(name: str) -> None:
    clock = HandClock()
    watch = Watch(
        facts,
        ask=lambda _: {"0": Reply(status=200, body=engines[name])},
        watched=lambda: False,
        clock=clock,
    )
    for _ in range(50):
        watch.turn()
        clock.sleep(1.0)
    for page, make in made.items():
        written = orjson.dumps(make(watch.picture()), option=orjson.OPT_NON_STR_KEYS)
        document = json.loads(written)
        form = {"$schema": schema["$schema"], "$defs": schema["$defs"], "$ref": f"#/$defs/{page}"}
        jsonschema.Draft202012Validator(form).validate(document)
        sentences = document.get("summary") or [document["limit"]]
        assert all(each["text"] for each in sentences), page
        assert not re.search(
            r"\b(nan|NaN|inf|Infinity|None|null)\b", " ".join(each["text"] for each in sentences)
        )
        assert len(written) < 250_000, page
    health = health_document(watch.picture())
    if name == "very many partitions":
        assert (health["partitions_known"], len(health["partitions"])) == (many, partitions_told_max)
        assert health["partitions"][0]["lag_records"] is not None
    if name == "lag unknown":
        assert (health["lag_records"], health["lag_s"]) == (None, None)
        assert any("is not known now" in each["text"] for each in health["summary"]), health["summary"]


@pytest.mark.parametrize(
    "scores",
    [[], [math.nan], [math.inf, -math.inf], [0.5], [7.0, 7.0], [1e300, -1e300], [0.0, 1.0, math.nan]],
)
def test_scores_of_any_kind_have_steps_or_none(scores: list[float]) -> None:
    steps = _steps(np.array(scores))
    finite = [each for each in scores if math.isfinite(each)]
    if not finite:
        assert steps is None
        return
    assert steps is not None
    assert sum(steps["counts"]) == len(finite)
    assert steps["low"] <= min(finite) <= max(finite) <= steps["high"]


def test_a_model_that_nothing_explains_says_so() -> None:
    described = {
        "model": {"name": "m", "version": "1", "digest": "d", "runtime": "r", "device": "d", "runtime_reason": ""},
        "columns": [], "features": [], "features_total": 0, "trees": None, "graph": None, "outputs": [], "classes": [], "warmup": [],
        "complete": True,
    }  # fmt: skip
    nothing: dict[str, Any] = {"lately": {"rows": 0, "sums": [], "span_s": None}, "before": {"rows": 0, "sums": []}, "space": None, "scores": None}  # fmt: skip
    document = json.loads(
        orjson.dumps(model_document(1, described, [nothing], ["d"], {"state": "none", "rows": 0, "sums": []}))
    )
    form = {"$schema": schema["$schema"], "$defs": schema["$defs"], "$ref": "#/$defs/model"}
    jsonschema.Draft202012Validator(form).validate(document)
    assert document["importance"]["features"] == []
    assert "model.no_reasons" in [each["code"] for each in document["summary"]]
