"""A record tried again and with another value, over HTTP: as the stream would score it, for who may ask."""

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import pytest

import penstock
from penstock.engine.clock import SystemClock
from penstock.engine.pages.sentences import static_folder
from penstock.engine.settings.admin import AdminSettings
from penstock.engine.worker.admin.actions import Told
from penstock.engine.worker.admin.port import admin_port
from tests.pages.running import Running, countries, running_engine
from tests.unit.admin.open_port import Topic, Workers
from tests.unit.admin.replay_world import World

schema = json.loads((static_folder.parent / "schema.json").read_text())
columns = ["amount", "hour", "account_age_days", "country", "limit_used"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trial")


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Running]:
    with running_engine(folder, masked=()) as running:
        running.send(40, poison=1)
        running.wait_for(40)
        until_s = time.monotonic() + 10
        while not records(running):
            assert time.monotonic() < until_s
            time.sleep(0.1)
        yield running


@pytest.fixture(scope="module")
def model(engine: Running, folder: Path) -> penstock.Model:
    return penstock.load(folder / "model", device="cpu")


def request(
    port: int, method: str, path: str, body: bytes, **headers: str
) -> tuple[int, Any, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body=body or None, headers=named)
        response = connection.getresponse()
        found = response.read()
        is_json = response.headers["Content-Type"] == "application/json" and found
        return response.status, json.loads(found) if is_json else found, dict(response.headers)
    finally:
        connection.close()


def post(port: int, body: Any, word: str = "trial", **headers: str) -> tuple[int, Any]:
    named = {"Content_Type": "application/json", **headers}
    return request(port, "POST", f"/api/v1/{word}", json.dumps(body).encode(), **named)[:2]


def records(engine: Running, outcome: str = "predicted") -> list[dict[str, Any]]:
    found = request(engine.port, "GET", f"/api/v1/records?outcome={outcome}", b"")[1]["records"]
    return [request(engine.port, "GET", path_of(each), b"")[1] for each in found]


def path_of(each: dict[str, Any]) -> str:
    return f"/api/v1/records/{each['topic']}/{each['partition']}/{each['offset']}"


def place(each: dict[str, Any]) -> dict[str, Any]:
    return {name: each[name] for name in ("topic", "partition", "offset")}


def tried(engine: Running, body: dict[str, Any]) -> dict[str, Any]:
    status, found = post(engine.port, body)
    assert status == 200, found
    form = {"$schema": schema["$schema"], "$defs": schema["$defs"], "$ref": "#/$defs/trial"}
    jsonschema.Draft202012Validator(form).validate(found)
    assert isinstance(found, dict)
    return found


def sent(engine: Running, each: dict[str, Any]) -> dict[str, Any]:
    """The record as it was sent, read off the topic."""
    for read in engine.broker.reader("payments").read_to_end(5.0):
        for partition, offset, value in zip(read.partitions, read.offsets, read.values, strict=True):
            if (int(partition), int(offset)) == (each["partition"], each["offset"]):
                found: dict[str, Any] = json.loads(value or b"{}")
                return found
    raise AssertionError(each)


def score_of(model: penstock.Model, row: dict[str, Any]) -> list[float]:
    """Of the model's own Python interface, which is handed the whole record anew."""
    frame = pd.DataFrame({name: [row[name]] for name in columns})
    known = [
        row["country"] if row["country"] in countries else None
    ]  # an unseen one is missing to this model
    frame["country"] = pd.Categorical(known, categories=countries)
    for name in columns:
        if name != "country":
            frame[name] = frame[name].astype(float)
    (found,) = model.predict(frame).outputs.values()
    return [float(each) for each in found[0]]


changes: list[tuple[str, Any]] = [
    ("amount", 900.5), ("amount", 0), ("amount", None), ("hour", 3), ("account_age_days", None), ("account_age_days", 7.0),
    *(("country", each) for each in countries), ("country", None), ("country", "XX"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), changes)
def test_a_changed_value_is_scored_as_the_record_that_has_it(
    name: str, value: Any, engine: Running, model: penstock.Model
) -> None:
    for each in records(engine)[:3]:
        found = tried(engine, {**place(each), "column": columns.index(name), "value": value})
        assert found["state"] == "done", found["summary"]
        whole = sent(engine, each)
        assert found["before"]["outputs"][0]["values"] == pytest.approx(score_of(model, whole), abs=1e-7)
        assert found["after"]["outputs"][0]["values"] == pytest.approx(
            score_of(model, {**whole, name: value}), abs=1e-7
        )
        explanation = found["after"]["explanation"]
        total = explanation["base_value"] + sum(one["attribution"] for one in explanation["attributions"])
        share = 1 / (1 + 2.718281828459045**-total)
        odds = dict(
            zip(found["after"]["outputs"][0]["names"], found["after"]["outputs"][0]["values"], strict=True)
        )
        assert share == pytest.approx(odds[explanation["output"]], abs=1e-5)
        assert found["changed"]["feature"] == name
        assert (
            explanation["output"] == found["before"]["explanation"]["output"]
        )  # though another class may be predicted
        assert {one["feature"] for one in found["reasons"]} == set(columns)
        moved = [one for one in found["outputs"] if one["difference"]]
        code = found["summary"][0]["code"]
        assert code == "trial.no_difference" if not moved else code in ("trial.raises", "trial.lowers")
        for one in found["outputs"]:
            assert one["difference"] == one["after"] - one["before"]


def test_the_served_bundle_says_again_what_the_stream_said(engine: Running) -> None:
    for each in records(engine)[:5]:
        found = tried(engine, place(each))
        assert [one["code"] for one in found["summary"]] == ["trial.same"]
        assert found["after"]["outputs"] == each["outputs"]
        assert found["after"]["explanation"] == each["explanation"]


def test_another_bundle_is_compared_and_named(engine: Running) -> None:
    each = records(engine)[0]
    found = tried(engine, {**place(each), "bundle": "candidate"})
    assert found["model"]["version"] == "8"
    assert found["summary"][0]["code"] == "trial.differs"
    assert [one["before"] for one in found["outputs"]] == each["outputs"][0]["values"]
    assert [one["after"] for one in found["outputs"]] == found["after"]["outputs"][0]["values"]


def test_a_rejected_record_and_one_that_is_not_there_are_said(engine: Running) -> None:
    bad = records(engine, "rejected")[0]
    again = tried(engine, place(bad))
    assert (again["summary"][0]["code"], again["after"]["rejection"]["reason"]) == (
        "trial.rejected",
        "corrupt",
    )
    assert tried(engine, {**place(bad), "column": 0, "value": 1})["summary"][0]["code"] == "trial.no_row"
    gone = tried(engine, {"topic": "payments", "partition": 1, "offset": 10**9})
    assert (gone["state"], gone["summary"][0]["code"]) == ("failed", "trial.gone")


@pytest.mark.parametrize(("column", "value"), [(0, "much"), (3, 7), (0, 1e400), (1, [1])])
def test_a_value_of_a_wrong_type_is_what_the_record_would_be_rejected_for(
    column: int, value: Any, engine: Running
) -> None:
    status, found = post(engine.port, {**place(records(engine)[0]), "column": column, "value": value})
    if status == 200:
        assert found["after"]["rejection"]["reason"] == "wrong_type"
        assert found["summary"][0]["code"] == "trial.rejected"
    else:
        assert (status, found["error"]["code"]) == (400, "act.bad_request")


def test_a_masked_feature_can_neither_be_read_nor_guessed(engine: Running) -> None:
    each = records(engine)[0]
    column = columns.index("limit_used")
    found = tried(engine, place(each))
    hidden = [one for one in found["choices"] if one["masked"]]
    assert [one["column"] for one in hidden] == [column]
    assert found["after"]["features"][column]["model_value"] is None
    refused = tried(engine, {**place(each), "column": column, "value": 0.5})
    assert (refused["state"], refused["summary"][0]["code"]) == ("failed", "trial.masked")
    assert "4000 1234" not in json.dumps(found)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"topic": "other"}, "topic"), ({"partition": -1}, "partition"), ({"partition": True}, "partition"), ({"offset": "1"}, "offset"),
        ({"bundle": "../../etc"}, "bundle"), ({"column": 1}, "column"), ({"value": 1}, "value"), ({"column": -1, "value": 1}, "column"),
        ({"column": 1, "value": {"a": 1}}, "value"), ({"column": 1, "value": "x" * 1001}, "value"), ({"verbose": 1}, "known"),
    ],
)  # fmt: skip
def test_what_is_asked_wrongly_is_named(change: dict[str, Any], named: str, engine: Running) -> None:
    status, found = post(engine.port, {"topic": "payments", "partition": 0, "offset": 0, **change})
    assert (status, found["error"]["code"]) == (400, "act.bad_request")
    assert named in found["error"]["text"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Type": "text/plain"}, {"Origin": "http://attacker.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"}, {"Host": "attacker.example"},
    ],
)  # fmt: skip
def test_another_sites_page_makes_nothing_act(headers: dict[str, str], engine: Running) -> None:
    for word in ("trial", "replay"):
        body = {"topic": "payments", "partition": 0, "offset": 0}
        assert post(engine.port, body, word, **headers)[0] == 403


def test_what_is_offered_is_what_would_be_done(engine: Running) -> None:
    form = {"$schema": schema["$schema"], "$defs": schema["$defs"], "$ref": "#/$defs/acts"}
    for headers, way in (({}, "open"), ({"Via": "1.1 proxy"}, "refused")):
        status, found, _ = request(engine.port, "GET", "/api/v1/acts", b"", **headers)
        assert status == 200
        jsonschema.Draft202012Validator(form).validate(found)
        assert (found["trial"]["offered"], found["replay"]["offered"]) == (way, "refused")
        assert post(engine.port, {}, **headers)[0] == (400 if way == "open" else 403)


def test_only_trials_act_without_an_admin_section(engine: Running) -> None:
    assert post(engine.port, {"dry_run": True}, "replay")[1]["error"]["code"] == "act.no_admin"
    assert request(engine.port, "GET", "/api/v1/replays", b"")[0] == 403
    assert request(engine.port, "GET", "/api/v1/trial", b"")[0] == 405
    for path in ("/", "/api/v1/flow", "/live", "/metrics", "/static/app.js"):
        assert request(engine.port, "POST", path, b"{}", Content_Type="application/json")[0] == 405


def test_where_an_admin_section_is_a_token_is_needed_and_all_is_recorded_but_the_value(
    tmp_path: Path,
) -> None:
    token = tmp_path / "token"
    token.write_text("o" * 40)
    (tmp_path / "viewer").write_text("v" * 40)
    tokens = [
        {"name": "ops", "role": "operator", "file": str(token)},
        {"name": "eve", "role": "viewer", "file": str(tmp_path / "viewer")},
    ]
    settings = AdminSettings.model_validate({"port": 0, "audit_topic": "audit", "tokens": tokens})
    with ExitStack() as held:
        engine = held.enter_context(running_engine(tmp_path, guarded=True))
        engine.send(20)
        engine.wait_for(20)
        body = {"topic": "payments", "partition": 0, "offset": 0, "column": 0, "value": 432.1}
        assert post(engine.port, body)[1]["error"]["code"] == "act.unavailable"  # its gate is not there yet
        topic, world = Topic(), World()
        told = Told(
            workers=Workers(), count=1, run_folder=tmp_path, model_digest="d", set_log_level=lambda _: None,
            replays=world.replays, trying=engine.pages.trying,
        )  # fmt: skip
        held.enter_context(
            admin_port(
                settings, told, topic, instance="i", clock=SystemClock(), count=lambda _: None,
                let_in=engine.pages.acting.let_in,
            )
        )  # fmt: skip
        assert post(engine.port, body)[0] == 401
        offered = request(engine.port, "GET", "/api/v1/acts", b"")[1]
        assert (offered["trial"]["offered"], offered["replay"]["offered"]) == ("token", "token")
        assert post(engine.port, body, Authorization=f"Bearer {'v' * 40}")[0] == 403
        assert post(engine.port, body, Authorization=f"Bearer {'x' * 40}")[0] == 401
        status, found = post(engine.port, body, Authorization=f"Bearer {'o' * 40}")
        assert (status, found["state"]) == (200, "done")
        (allowed,) = topic.records("allowed")
        assert (allowed["action"], allowed["who"], allowed["target"]["column"]) == ("trial", "ops", 0)
        assert "432.1" not in json.dumps(topic.records())
        for headers in (
            {"Origin": "http://attacker.example"}, {"Sec_Fetch_Site": "cross-site"}, {"Host": "attacker.example"},
        ):  # fmt: skip
            before = len(topic.records("refused"))
            assert post(engine.port, body, Authorization=f"Bearer {'o' * 40}", **headers)[0] in (401, 403)
            assert [each["reason"] for each in topic.records("refused")[before:]] in (["origin"], ["host"])
        assert len(topic.records("allowed")) == 1
        assert post(engine.port, {}, "drain", Authorization=f"Bearer {'o' * 40}")[0] == 405


@pytest.mark.parametrize("name", ["Forwarded", "X_Forwarded_For", "X_Real_IP", "Via"])
def test_what_a_proxy_passes_on_is_not_from_this_machine(name: str, engine: Running) -> None:
    body = {"topic": "payments", "partition": 0, "offset": 0}
    assert post(engine.port, body, **{name: "for=10.0.0.9"})[1]["error"]["code"] == "act.refused"


def test_a_trial_disturbs_no_stream(engine: Running) -> None:
    """Records go on to be finished while trials are asked for without a pause, and none of them is counted."""
    done = engine.finished()
    each = place(records(engine)[0])
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            post(engine.port, {**each, "column": 0, "value": time.monotonic()})

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        engine.send(300, start=50_000)
        engine.wait_for(done + 300, at_most_s=15)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert engine.finished() == done + 300


def test_a_change_is_answered_at_once(engine: Running) -> None:
    each = place(records(engine)[0])
    post(engine.port, each)
    took = []
    for at in range(20):
        began_s = time.monotonic()
        tried(engine, {**each, "column": 0, "value": at})
        took.append(time.monotonic() - began_s)
    assert sorted(took)[10] < 0.5  # five times what it may take
