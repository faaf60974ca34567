"""Dead letters put back from the pages' port: looked at first, by who may, once, and all of it recorded."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from penstock.schemas.reasons import Reason
from tests.pages.guarded import Guarded, guarded_engine, operator, viewer
from tests.pages.test_trial import post, request, schema

reasons = (Reason.CORRUPT, Reason.CORRUPT, Reason.NO_KEY, Reason.WRONG_TYPE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("replay")


@pytest.fixture
def guarded(folder: Path) -> Iterator[Guarded]:
    with guarded_engine(folder) as made:
        for offset, reason in enumerate(reasons):
            made.letters.add(offset, reason)
        yield made


def checked(found: Any, form: str) -> dict[str, Any]:
    form_of = {"$schema": schema["$schema"], "$defs": schema["$defs"], "$ref": f"#/$defs/{form}"}
    jsonschema.Draft202012Validator(form_of).validate(found)
    assert isinstance(found, dict)
    return found


def ask(guarded: Guarded, body: Any, bearer: str = operator, **headers: str) -> tuple[int, Any]:
    return post(guarded.engine.port, body, "replay", Authorization=f"Bearer {bearer}", **headers)


def settled(guarded: Guarded, plan: str) -> dict[str, Any]:
    until_s = time.monotonic() + 20
    while True:
        status, found, _ = request(
            guarded.engine.port, "GET", "/api/v1/replays", b"", Authorization=f"Bearer {operator}"
        )
        assert status == 200
        (one,) = (each for each in checked(found, "replays")["replays"] if each["plan"] == plan)
        if one["state"] not in ("looking", "putting_back"):
            return dict(one)
        assert time.monotonic() < until_s
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("selection", "count"),
    [({}, 4), ({"reasons": ["corrupt"]}, 2), ({"reasons": ["no_key", "wrong_type"]}, 2), ({"partition": 0, "offset": 2}, 1), ({"partition": 1, "offset": 2}, 0)],
)  # fmt: skip
def test_what_a_look_found_is_put_back_once_and_the_rest_is_not(
    selection: dict[str, Any], count: int, guarded: Guarded
) -> None:
    returned = guarded.letters.returns.put_back
    status, looked = ask(guarded, {"dry_run": True, **selection})
    assert status == 202
    plan = checked(looked, "replay")["plan"]
    found = settled(guarded, plan)
    assert (found["state"], found["to_replay"]["replayed"], len(returned)) == ("ready", count, 0)
    assert sum(found["to_replay"]["by_reason"].values()) == count
    for _ in range(2):
        status, put = ask(guarded, {"plan": plan})
        assert status == 202
        checked(put, "replay")
        assert settled(guarded, plan)["replayed"]["replayed"] == count
        assert len(returned) == count
    events = [(each["event"], each["who"]) for each in guarded.audit.records("allowed", "done")]
    assert events == [("allowed", "operator"), ("done", "operator")] * 3


@pytest.mark.parametrize(
    ("bearer", "headers", "status"),
    [
        ("", {}, 401), ("x" * 40, {}, 401), (viewer, {}, 403), (operator, {"Origin": "http://attacker.example"}, 401),
        (operator, {"Sec_Fetch_Site": "cross-site"}, 403), (operator, {"Host": "attacker.example"}, 403),
        (operator, {"Content_Type": "text/plain"}, 400),
    ],
)  # fmt: skip
def test_who_may_not_puts_nothing_back_and_is_recorded(
    bearer: str, headers: dict[str, str], status: int, guarded: Guarded
) -> None:
    assert ask(guarded, {"dry_run": True}, bearer, **headers)[0] == status
    assert guarded.letters.replays.shown({})["replays"] == []
    assert guarded.audit.records("allowed") == []
    if status != 400:
        assert [each["action"] for each in guarded.audit.records("refused")] == ["replay"]
