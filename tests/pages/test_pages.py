"""The pages' answers over HTTP, from a whole engine on the broker in memory."""

import http.client
import json
import re
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import jsonschema
import pytest

from penstock.engine.clock import SystemClock
from penstock.engine.pages.sentences import static_folder
from penstock.engine.pages.serving import streams as page_streams
from penstock.engine.pages.supervisor import pages, supervisor_pages
from penstock.engine.pages.watch import Facts
from penstock.engine.telemetry.http_server import HttpServer
from tests.pages.running import Running, hostile, running_engine

schema = json.loads((static_folder.parent / "schema.json").read_text())
facts = Facts(
    group="g",
    topic="t",
    objective_ms=50,
    max_age_s=30,
    workers=2,
    predictions="p",
    explanations=None,
    dead_letters="d",
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_engine(tmp_path_factory.mktemp("pages")) as running:
        running.send(400, poison=3)
        running.wait_for(400)
        for start in (1000, 2000, 3000):
            time.sleep(0.3)
            running.send(60, poison=1, start=start)
        running.wait_for(580)
        until_s = time.monotonic() + 10
        while get(running.port, "/api/v1/records")[2]["seen"] < 8:
            assert time.monotonic() < until_s
            time.sleep(0.1)
        yield running


def get(port: int, path: str, **headers: str) -> tuple[int, dict[str, str], Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(
            "GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )
        response = connection.getresponse()
        body = response.read()
        found = json.loads(body) if body and response.headers["Content-Type"] == "application/json" else body
        return response.status, {name.lower(): value for name, value in response.headers.items()}, found
    finally:
        connection.close()


def check(document: Any) -> None:
    """It has the form that the schema gives its page; a number that is none stands nowhere."""
    form = {
        "$schema": schema["$schema"],
        "$defs": schema["$defs"],
        "$ref": f"#/$defs/{document.get('page', 'error')}",
    }
    jsonschema.Draft202012Validator(form).validate(document)
    assert not re.search(
        r"\bNaN\b|Infinity", json.dumps({k: v for k, v in document.items() if k != "features"})
    )


@pytest.mark.parametrize("page", pages)
def test_each_page_has_a_twin_of_the_form_that_the_schema_gives_it(page: str, engine: Running) -> None:
    status, headers, document = get(engine.port, f"/api/v1/{page}")
    assert status == 200
    assert document["page"] == page
    check(document)
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    path = "/" if page == "flow" else f"/{page}"
    status, headers, body = get(engine.port, path)
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert f'data-pages="{" ".join(pages)}"'.encode() in body
    assert "require-trusted-types-for 'script'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]


def test_the_hints_stand_alone_and_on_the_flow_page(engine: Running) -> None:
    status, headers, document = get(engine.port, "/api/v1/hints")
    assert (status, document["page"]) == (200, "hints")
    check(document)
    assert "default-src 'none'" in headers["content-security-policy"]
    flow = get(engine.port, "/api/v1/flow")[2]
    assert flow["hints"].items() <= document.items()
    assert document["summary"][0]["code"] in ("hints.too_early", "hints.calm")
    assert get(engine.port, "/hints")[0] == 404  # it has no page
    assert get(engine.port, "/api/v1/events?page=hints")[0] == 400


@pytest.mark.parametrize("ports", [{}, {"0": 0}, {"0": 0, "1": 0}])
def test_without_workers_every_page_says_what_it_does_not_know(ports: dict[str, int]) -> None:
    with supervisor_pages(facts, ports=lambda: ports, hosts=(), clock=SystemClock()) as made:
        made.watch.turn()
        with HttpServer({}, host="127.0.0.1", port=0, reader=made.reader) as server:
            for page in pages:
                status, _, document = get(server.port, f"/api/v1/{page}")
                assert status == 200
                check(document)
                assert document.get("summary") or document["limit"]["text"]


def test_page_metrics_and_topics_tell_the_same_totals(engine: Running) -> None:
    until_s = time.monotonic() + 10
    while (totals := get(engine.port, "/api/v1/flow")[2]["totals"])["finished"] < 580 or totals["in_flight"]:
        assert time.monotonic() < until_s
        time.sleep(0.1)
    assert (totals["predicted"], totals["rejected"], totals["explained"]) == (574, 6, 574)
    metrics = get(engine.port, "/metrics")[2].decode()
    for outcome in ("predicted", "rejected", "explained"):
        assert f'penstock_records_total{{worker="0",outcome="{outcome}"}} {totals[outcome]}.0' in metrics
    for topic, count in (("scores", 574), ("reasons", 574), ("set-aside", 6)):
        reads = engine.broker.reader(topic).read_to_end(5.0)
        assert sum(len(each) for each in reads) == count
    rejected = get(engine.port, "/api/v1/health")[2]["rejected"]
    assert [(each["reason"], each["records"]) for each in rejected] == [("corrupt", 6)]


def records(engine: Running, outcome: str = "predicted") -> list[dict[str, Any]]:
    found = get(engine.port, f"/api/v1/records?outcome={outcome}")[2]["records"]
    assert found
    return [
        get(engine.port, f"/api/v1/records/{each['topic']}/{each['partition']}/{each['offset']}")[2]
        for each in found
    ]


def test_a_record_is_explained_to_its_score(engine: Running) -> None:
    for each in records(engine):
        check(each)
        explanation = each["explanation"]
        total = explanation["base_value"] + sum(one["attribution"] for one in explanation["attributions"])
        assert total == pytest.approx(explanation["total"], abs=1e-9)
        odds = dict(zip(each["outputs"][0]["names"], each["outputs"][0]["values"], strict=True))
        share = 1 / (1 + 2.718281828459045**-total)
        assert share == pytest.approx(odds[explanation["output"]], abs=1e-5)
        assert each["label"] == max(odds, key=lambda name: odds[name])
        shown = {one["field"]: one["shown"] for one in each["input"]}
        seen = {one["feature"]: one for one in each["features"]}
        assert float(shown["amount"]["text"]) == pytest.approx(seen["amount"]["value"], rel=1e-6)
        assert shown["country"]["text"] == seen["country"]["value"]
        assert {one["stage"] for one in each["times"]} >= {
            "wait",
            "decode",
            "infer",
            "explain",
            "encode",
            "deliver",
        }


def test_a_rejected_record_says_why_and_shows_no_payload(engine: Running) -> None:
    for each in records(engine, "rejected"):
        check(each)
        assert each["rejection"]["reason"] == "corrupt"
        assert each["input"] == []
        assert "at all" not in json.dumps(each)


def test_records_of_the_same_key_are_linked(engine: Running) -> None:
    """The keys are read off the topic: equal for equal keys, and no other."""
    keys = {
        (int(partition), int(offset)): key
        for read in engine.broker.reader("payments").read_to_end(5.0)
        for partition, offset, key in zip(read.partitions, read.offsets, read.keys, strict=True)
    }
    held = [(each["partition"], each["offset"]) for each in get(engine.port, "/api/v1/records")[2]["records"]]
    linked = 0
    for each in [*records(engine), *records(engine, "rejected")]:
        place = (each["partition"], each["offset"])
        found = [(other["partition"], other["offset"]) for other in each["same_key"]]
        assert found == [other for other in held if keys[other] == keys[place] and other != place]
        linked += len(found)
    assert linked


def test_a_rejected_reason_has_its_newest_records(engine: Running) -> None:
    (reason,) = get(engine.port, "/api/v1/health")[2]["rejected"]
    newest = get(engine.port, "/api/v1/records?outcome=rejected")[2]["records"][:3]
    assert [(each["partition"], each["offset"]) for each in reason["examples"]] == [
        (each["partition"], each["offset"]) for each in newest
    ]
    for each in reason["examples"]:
        whole = get(engine.port, f"/api/v1/records/payments/{each['partition']}/{each['offset']}")[2]
        assert each["detail"] == whole["rejection"]["detail"] != ""
        assert each["stops"] == whole["input_stops"]
        assert (whole["input_stops"]["byte"], whole["input_stops"]["around"]) == (
            0,
            None,
        )  # fields are masked


def test_what_the_contract_marks_sensitive_is_shown_nowhere(engine: Running) -> None:
    whole = json.dumps([*records(engine), *(get(engine.port, f"/api/v1/{page}")[2] for page in pages)])
    assert "4000 1234" not in whole
    for each in records(engine):
        hidden = {one["field"]: one["shown"] for one in each["input"] if one["shown"]["masked"]}
        assert set(hidden) == {"card_number", "limit_used"}
        assert all(one["text"] is None for one in hidden.values())
        assert [one["model_value"] for one in each["features"] if one["feature"] == "limit_used"] == [None]
        assert all(one["value"] is None for one in each["explanation"]["attributions"] if one["masked"])


def test_hostile_text_is_shown_cut_with_its_length_and_nothing_unprintable(engine: Running) -> None:
    notes = [one["shown"] for each in records(engine) for one in each["input"] if one["field"] == "note"]
    told = [each for each in notes if each["characters"] == len(hostile)]
    assert told
    assert all(each["text"].isprintable() and r"\u202e" in each["text"] for each in told)


def test_a_record_that_is_not_held_is_told_by_its_coordinates(engine: Running) -> None:
    status, _, document = get(engine.port, "/api/v1/records/payments/2/987654")
    assert status == 404
    check(document)
    text = document["error"]["text"]
    assert all(
        word in text for word in ("payments", "987,654", "scores", "reasons", "set-aside", "fraud-scorer")
    )


def test_a_tree_can_be_opened_and_one_that_is_not_there_is_told(engine: Running) -> None:
    until_s = time.monotonic() + 10
    while (found := get(engine.port, "/api/v1/model/trees/3"))[0] != 200:
        assert time.monotonic() < until_s
        time.sleep(0.1)
    check(found[2])
    nodes = {each["node"]: each for each in found[2]["nodes"]}
    assert len(nodes) == found[2]["nodes_total"]
    for each in nodes.values():
        assert (each["test"] is None) == (each["values"] is not None)
        assert each["parent"] is None or nodes[each["parent"]]["depth"] == each["depth"] - 1
    assert get(engine.port, "/api/v1/model/trees/400")[0] == 404


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("records?outcome=lost", "outcome"), ("records/payments/0/0?rows=0", "rows"), ("records/payments/0/0?rows=2001", "rows"),
        ("records/payments/0/0?limit=1", "limit"), ("records?limit=0", "limit"), ("records?limit=x", "limit"),
        ("records?limit=99999999999", "limit"), ("records?limit=0000000019999", "limit"),
        ("records?limit=000000001" + "9" * 5000, "limit"), ("records?limit=%D9%A1", "limit"), ("flow?verbose=1", "verbose"), ("events?page=secrets", "page"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_named(path: str, name: str, engine: Running) -> None:
    status, _, document = get(engine.port, f"/api/v1/{path}")
    assert status == 400
    check(document)
    assert document["error"]["values"]["name"] == name


@pytest.mark.parametrize(
    "path",
    ["/api/v1/secrets", "/static/../schema.json", "/static/%2e%2e/sentences.py", "/static/", "/nothing"],
)
def test_nothing_else_is_served(path: str, engine: Running) -> None:
    assert get(engine.port, path)[0] == 404


@pytest.mark.parametrize(
    "headers", [{"Host": "attacker.example"}, {"Host": ""}, {"Host": "127.0.0.1.attacker.example:80"}, {"Sec_Fetch_Site": "cross-site"}]
)  # fmt: skip
def test_who_asks_by_another_name_or_from_another_site_is_refused_and_probes_go_on(
    headers: dict[str, str], engine: Running
) -> None:
    for path in (
        "/",
        "/records",
        "/static/app.js",
        "/api/v1/flow",
        "/api/v1/events",
        "/api/v1/records/payments/0/1",
    ):
        assert get(engine.port, path, **headers)[0] == 403, path
    for path in ("/ready", "/live", "/status", "/metrics"):
        assert get(engine.port, path, **headers)[0] == 200, path


def test_a_link_on_another_site_may_be_followed(engine: Running) -> None:
    headers = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert get(engine.port, "/records/payments/0/1", **headers)[0] == 200
    assert get(engine.port, "/", **{**headers, "Sec_Fetch_Dest": "iframe"})[0] == 403


def test_a_named_host_is_let_in() -> None:
    with (
        supervisor_pages(facts, ports=dict, hosts=("Scores.Example",), clock=SystemClock()) as made,
        HttpServer({}, host="127.0.0.1", port=0, reader=made.reader) as server,
    ):
        assert get(server.port, "/api/v1/flow", Host="scores.example:9464")[0] == 200
        assert get(server.port, "/api/v1/flow", Host="[::1]:9464")[0] == 200
        assert get(server.port, "/api/v1/flow", Host="other.example")[0] == 403


def events(port: int, page: str, *, last_id: str = "") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    resume = f"Last-Event-ID: {last_id}\r\n" if last_id else ""
    connection.sendall(f"GET /api/v1/events?page={page} HTTP/1.1\r\nHost: localhost\r\n{resume}\r\n".encode())
    return connection


def read_events(connection: socket.socket, wanted: int) -> list[dict[str, str]]:
    """The first events of a stream."""
    text = b""
    while True:
        blocks = text.split(b"\r\n\r\n", 1)[-1].split(b"\n\n")[:-1] if b"\r\n\r\n" in text else []
        found = [
            dict(line.split(": ", 1) for line in block.decode().split("\n"))
            for block in blocks
            if b"\ndata: " in block
        ]
        if len(found) >= wanted:
            return found[:wanted]
        piece = connection.recv(65536)
        assert piece, text[-300:]
        text += piece


def test_a_stream_is_a_snapshot_and_then_changes_and_can_be_resumed(engine: Running) -> None:
    with events(engine.port, "flow") as stream:
        first, second, third = read_events(stream, 3)
    assert [each["event"] for each in (first, second, third)] == ["snapshot", "change", "change"]
    check(json.loads(first["data"]))
    assert set(json.loads(second["data"])) == {"set", "append", "prepend"}
    with events(engine.port, "flow", last_id=second["id"]) as again:
        resumed = read_events(again, 1)[0]
    assert resumed == third  # what came after it, not the whole again
    with events(engine.port, "flow", last_id="of-another-process-3") as anew:
        assert read_events(anew, 1)[0]["event"] == "snapshot"


def test_a_finished_record_is_on_the_stream_in_half_a_second(engine: Running) -> None:
    with events(engine.port, "records") as stream:
        read_events(stream, 1)
        time.sleep(0.6)
        before = time.monotonic()
        engine.send(1, start=7000)
        text = b""
        while b'"prepend":[{' not in text:
            text += stream.recv(65536)
        assert time.monotonic() - before < 2.5  # five times what it may take


def test_no_more_pages_follow_than_may(engine: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    time.sleep(0.6)  # those of the tests before are forgotten
    monkeypatch.setattr(page_streams, "clients_max", 2)
    with ExitStack() as held:
        for _ in range(2):
            read_events(held.enter_context(events(engine.port, "health")), 1)
        status, headers, _ = get(engine.port, "/api/v1/events?page=health")
        assert (status, headers["retry-after"]) == (503, "10")


class Crowd:
    """Fifty browsers that read, ten that read a byte a second, a thousand connections that never say what they want, ten scrapes a second."""

    def __init__(self, port: int, held: ExitStack) -> None:
        self._port = port
        self._ended = threading.Event()
        self.scraped = self.events = 0
        for _ in range(1000):
            held.enter_context(socket.create_connection(("127.0.0.1", port), 5)).sendall(b"GET /")
        self.reading = [held.enter_context(events(port, pages[each % len(pages)])) for each in range(50)]
        self.slow = [held.enter_context(events(port, pages[each % len(pages)])) for each in range(10)]
        for work in (self._read, self._read_slowly, self._scrape):
            thread = threading.Thread(target=work)
            thread.start()
            held.callback(thread.join)
        held.callback(self._ended.set)

    def _read(self) -> None:
        with selectors.DefaultSelector() as ready:
            for each in self.reading:
                ready.register(each, selectors.EVENT_READ, each)
            while not self._ended.is_set():
                for key, _ in ready.select(0.1):
                    self.events += key.data.recv(1 << 20).count(b"event: change")

    def _read_slowly(self) -> None:
        while not self._ended.wait(1.0):
            for each in self.slow:
                with suppress(OSError):
                    each.recv(1)

    def _scrape(self) -> None:
        while not self._ended.wait(0.1):
            self.scraped += get(self._port, "/metrics")[0] == 200


def test_a_crowd_of_onlookers_leaves_predictions_alone(engine: Running) -> None:
    def predicted() -> int:
        return sum(len(each) for each in engine.broker.reader("scores").read_to_end(5.0))

    def took_s(start: int) -> float:
        done, began_s = engine.finished(), time.monotonic()
        for batch in range(10):
            engine.send(200, start=start + 1000 * batch)
        engine.wait_for(done + 2000, at_most_s=60)
        return time.monotonic() - began_s

    before = predicted()
    alone_s = took_s(20_000)
    with ExitStack() as held:
        crowd = Crowd(engine.port, held)
        crowded_s = took_s(40_000)
        time.sleep(1.5)
        assert get(engine.port, "/live")[0] == 200
        assert get(engine.port, "/ready")[0] == 200
    assert predicted() == before + 4000
    assert crowd.scraped >= 3
    assert crowd.events >= 50  # they were shown what happened
    assert crowded_s < 5 * alone_s + 5


def test_a_page_is_small_and_its_files_are_not_sent_twice(engine: Running) -> None:
    sizes = {}
    for name in sorted(each.name for each in static_folder.iterdir()):
        connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=10)
        with suppress(ConnectionError):
            connection.request("GET", f"/static/{name}", headers={"Accept-Encoding": "gzip"})
            response = connection.getresponse()
            sizes[name] = len(response.read())
            tag = response.headers["ETag"]
        connection.close()
        assert get(engine.port, f"/static/{name}", If_None_Match=tag)[0] == 304
    others = sum(sizes.values()) - sum(sizes[f"{each}.json"] for each in ("en", "zh"))
    for language in ("en", "zh"):
        assert others + sizes[f"{language}.json"] < 55_000  # all of them together: no page takes more


def test_the_pages_files_hold_nothing_that_the_policy_forbids() -> None:
    for each in static_folder.iterdir():
        text = each.read_text()
        assert not re.search(r"https?://(?!www\.w3\.org/(2000|1999)/)", text), each.name
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
        ), each.name
    shell = (static_folder / "shell.html").read_text()
    assert not re.search(r"<style|style=|\son\w+=|<script(?![^>]* src=)", shell)
