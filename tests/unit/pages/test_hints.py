"""Hints in the pages' words: made from what workers tell, complete in both languages, and of the schema's form."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import jsonschema
import orjson
import pytest

from penstock.engine.hints.causes import Cause, Hint, Hints, RuledOut, hints
from penstock.engine.hints.forecast import Breach
from penstock.engine.hints.sample import Sample
from penstock.engine.pages.documents.hints import hints_document, hints_told
from penstock.engine.pages.hint_samples import partitions_max, sample_of
from penstock.engine.pages.sentences import static_folder, words
from penstock.engine.pages.watch import Facts, Watch
from penstock.engine.telemetry.ask_workers import Reply
from penstock.schemas.waits import WaitKind
from tests.clocks import HandClock
from tests.unit.hints.load import faults, looks, max_age_s

schema = json.loads((static_folder.parent / "schema.json").read_text())
facts = Facts(
    group="g", topic="t", objective_ms=50, max_age_s=30, workers=1, predictions="p", explanations="e", dead_letters="d",
)  # fmt: skip


def check(document: Mapping[str, Any], form: str) -> None:
    wanted = {"$schema": schema["$schema"], "$defs": schema["$defs"], "$ref": f"#/$defs/{form}"}
    jsonschema.Draft202012Validator(wanted).validate(orjson.loads(orjson.dumps(document)))


def sentences(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        return [value] if "code" in value else [each for one in value.values() for each in sentences(one)]
    return [each for one in value for each in sentences(one)] if isinstance(value, list) else []


@pytest.mark.parametrize("fault", faults)
def test_every_cause_is_told_with_all_its_values(fault: str) -> None:
    held: list[Sample] = []
    found = Hints()
    for load, sample in looks(3, fault, seconds=900):
        held = [*held[-120:], sample]
        if load.now_s > load.onset_s and sample.at_s % 30 == 0:
            found = hints(held, max_age_s=max_age_s)
            if fault in [str(each.cause) for each in found.causes]:
                break
    told = hints_told(found, workers=True)
    check(told, "found_hints")
    assert fault in [each["cause"] for each in told["causes"]]
    for each in sentences(told):
        assert "—" not in each["text"], each  # a value that nobody gave
        assert set(each["values"]) >= _named(words("zh")[each["code"]])


def _named(template: str) -> set[str]:
    return {part.split("}")[0] for part in template.split("{")[1:]}


def test_every_cause_has_words_in_every_place_that_can_tell_it() -> None:
    assert sorted(schema["$defs"]["hint_cause"]["enum"]) == sorted(map(str, Cause))
    for cause in Cause:
        assert {f"hint.{cause}", f"hint.{cause}.evidence"} <= words("en").keys()
    ruled_out = [
        *(RuledOut(cause=each, ratio=1.0) for each in (Cause.SLOW_MODEL, Cause.SLOW_EXPLAINER, Cause.BROKER_SLOW, Cause.MORE_TRAFFIC)),
        RuledOut(cause=Cause.REBALANCE_STORM, ratio=None),
    ]  # fmt: skip
    check(hints_told(Hints(ruled_out=tuple(ruled_out)), workers=True), "found_hints")
    kinds = schema["$defs"]["health"]["properties"]["waits"]["items"]["properties"]["kind"]["enum"]
    assert sorted(kinds) == sorted(map(str, WaitKind))


@pytest.mark.parametrize(
    ("found", "workers", "code"),
    [
        (Hints(), False, "hints.no_worker"),
        (Hints(breach=Breach(from_s=0, to_s=0), seen_s=600, age_s=99), False, "hints.no_worker"),
        (Hints(seen_s=60, age_s=1), True, "hints.too_early"),
        (Hints(seen_s=600, age_s=math.nan), True, "hints.age_unknown"),
        (Hints(seen_s=600, age_s=1), True, "hints.calm"),
        (Hints(breach=Breach(from_s=0, to_s=0), seen_s=600, age_s=99), True, "hints.breached"),
        (Hints(breach=Breach(from_s=20, to_s=119), seen_s=600, age_s=9), True, "hints.breach_s"),
        (Hints(breach=Breach(from_s=90, to_s=420), seen_s=600, age_s=9), True, "hints.breach_min"),
    ],
)
def test_what_is_not_known_is_said(found: Hints, workers: bool, code: str) -> None:
    told = hints_told(found, workers=workers)
    check(told, "found_hints")
    assert [each["code"] for each in told["summary"]] == [code]
    assert (told["breach"] is None) == ("breach" not in code)


def test_hostile_names_stay_text() -> None:
    hint = Hint(
        cause=Cause.SLOW_WORKER, score=0.9, values={"worker": "{others}\u202e", "ratio": 2.0, "others": 1.0}
    )
    text = hints_told(Hints(causes=(hint,)), workers=True)["causes"][0]["text"]["text"]
    assert "{others}" in text  # a value is not filled in again


def told(slot: str = "0", **changed: Any) -> dict[str, Any]:
    one = {
        "at_s": 1.0,
        "status": {"waits_for": [], "events": [], "kafka": None, "assigned": [0, 3], "state": "running"},
        "counters": {
            "records.predicted": 100.0, "records.rejected": 20.0, "records.skipped": 3.0, "busy_s": 4.5, "blocked_s": 0.0,
            "stage.infer.sum": 1.5, "stage.explain.sum": 2.5, "stage.deliver.sum": 3.5, "stage.deliver.count": 9.0,
            "stage.infer.count": 77.0, "rebalances": 2.0, "ahead": 6.0, "ahead_s": 70.5,
        },
        "queues": {}, "lags": [[3, 7.0, 5.0, 100, 0.0], [4, None, None, None, 0.0], [5, 1.0, 0.0, 10, 60.0]],
        "lag_totals": {"partitions": 3, "records": None, "age_s": None}, "sampled": 0, "records_sampled": 0, "records": [],
    }  # fmt: skip
    return {**one, **changed}


def test_every_number_of_a_sample_comes_from_its_place() -> None:
    waits = [
        {"partition": 3, "kind": "open_transaction", "since_ms": 1, "reason": "r"},
        {"partition": 3, "kind": "stalled", "since_ms": 1, "reason": "r"},
        {"partition": None, "kind": "joining", "since_ms": 1, "reason": "r"},
    ]
    sample = sample_of(8.0, {"0": told(status={"waits_for": waits})})
    (worker,), (three, four, five) = sample.workers, sample.partitions
    assert (worker.name, worker.settled, worker.rejected, worker.busy_s) == ("0", 123, 20, 4.5)
    assert (worker.infer_s, worker.explain_s, worker.deliver_s, worker.deliveries) == (1.5, 2.5, 3.5, 9)
    assert (worker.rebalances, worker.ahead, worker.ahead_s) == (2, 6, 70.5)
    assert (three.partition, three.owner, three.end, three.age_s) == (3, "0", 107, 5)
    assert three.waits == {WaitKind.OPEN_TRANSACTION, WaitKind.STALLED}
    assert four.waits == frozenset()
    assert math.isnan(four.end)
    assert math.isnan(four.age_s)
    assert five.age_s == -60


def test_of_very_many_partitions_the_latest_are_kept() -> None:
    lags = [[number, 1.0, float(number), 0, 0.0] for number in range(3000)]
    sample = sample_of(8.0, {"0": told(lags=lags)})
    assert [each.partition for each in sample.partitions] == list(range(2999, 2999 - partitions_max, -1))


def replies(documents: Mapping[str, Any]) -> Callable[[Callable[[str], str]], Mapping[str, Reply]]:
    return lambda _: {
        slot: Reply(status=200, body=orjson.dumps(each)) if each else Reply(timed_out=True)
        for slot, each in documents.items()
    }


@pytest.mark.parametrize(
    ("kind", "cause"), [("open_transaction", Cause.OPEN_TRANSACTION), ("registry", Cause.REGISTRY)]
)
def test_a_wait_becomes_a_hint_and_is_gone_with_its_workers(kind: str, cause: Cause) -> None:
    """By its kind, whatever the words are."""
    clock = HandClock()
    wait = {"partition": 3, "kind": kind, "since_ms": 1, "reason": "words that say nothing"}
    status = {**told()["status"], "waits_for": [wait]}
    documents = {"0": told(status=status, lags=[[3, 7.0, 5.0, 100, 0.0]])}
    watch = Watch(facts, ask=replies(documents), watched=lambda: False, clock=clock)
    for _ in range(60):
        watch.turn()
        clock.sleep(1.0)
    document = hints_document(watch.picture())
    check(document, "hints")
    assert [each["cause"] for each in document["causes"]] == [str(cause)]
    assert "partition 3" in document["causes"][0]["evidence"]["text"]
    documents["1"] = {}
    watch.turn()
    assert [each["code"] for each in hints_document(watch.picture())["summary"]][1:] == ["hints.silent"]
    documents["0"] = {}
    watch.turn()
    gone = hints_document(watch.picture())
    check(gone, "hints")
    assert (gone["causes"], gone["summary"][0]["code"]) == ([], "hints.no_worker")
