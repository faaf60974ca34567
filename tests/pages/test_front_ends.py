"""examples/front_ends: its server forwards what the pages read, and every field that they read is in the schema and in an answer."""

import http.client
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.pages.running import Running, running_engine

root = Path(__file__).parents[2]
folder = root / "examples/front_ends"
schema = json.loads((root / "engine/pages/schema.json").read_text())
scripts = {"flow": "d3_flow.js", "health": "echarts_health.js"}
_read = re.compile(r'\b(?:read\(\w+, |path: )"([^"]+)"')
_listed = re.compile(r'\[((?:"[\w.\[\]]+"(?:, )?)+)\]\.map\(\(path\)')


@contextmanager
def _served(engine: str) -> Iterator[int]:
    command = [sys.executable, "-P", str(folder / "serve.py"), "--engine", engine, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(re.findall(r":(\d+)/d3.html", process.stdout.readline())[0])
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_engine(tmp_path_factory.mktemp("front")) as running:
        running.send(200, poison=2)
        running.wait_for(200)
        until_s = time.monotonic() + 20
        while (
            not (health := json.loads(_get(running.port, "/api/v1/health")[2]))["rejected"]
            or not health["partitions"]
        ):
            assert time.monotonic() < until_s
            time.sleep(0.1)
        yield running


def _get(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(
            method, path, headers={name.replace("_", "-"): text for name, text in headers.items()}
        )
        answer = connection.getresponse()
        return answer.status, answer.headers.get("Content-Type", ""), answer.read().decode()
    finally:
        connection.close()


def _paths(page: str) -> set[str]:
    text = (folder / scripts[page]).read_text(encoding="utf-8")
    listed = [each for found in _listed.findall(text) for each in re.findall(r'"([^"]+)"', found)]
    return {*_read.findall(text), *listed}


def _in_schema(form: Any, path: str) -> None:
    for name in path.split("."):
        while "$ref" in form:
            form = schema["$defs"][form["$ref"].rpartition("/")[2]]
        form = form["properties"][name.removesuffix("[]")]
        if name.endswith("[]"):
            form = form["items"]


def _in_answer(value: Any, path: str) -> list[Any]:
    values = [value]
    for name in path.split("."):
        values = [each[name.removesuffix("[]")] for each in values]
        if name.endswith("[]"):
            values = [item for each in values for item in each]
    return values


@pytest.mark.parametrize("page", scripts)
def test_every_field_read_is_in_the_schema_and_in_a_live_answer(page: str, engine: Running) -> None:
    paths = _paths(page)
    assert len(paths) >= 8
    with _served(engine.url) as port:
        document = json.loads(_get(port, f"/api/v1/{page}")[2])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", f"/api/v1/events?page={page}", headers={"Sec-Fetch-Site": "same-origin"})
        events = connection.getresponse()
        assert events.headers["Content-Type"].startswith("text/event-stream")
        seen: dict[str, Any] = {}
        event = ""
        engine.send(20, start=500)  # something changes
        while set(seen) != {"snapshot", "change"}:
            line = events.readline().decode()
            assert line, "the stream ended"
            kind, _, text = line.rstrip("\n").partition(": ")
            if kind == "event":
                event = text
            elif kind == "data":
                seen.setdefault(event, json.loads(text))
        connection.close()
    assert seen["change"].keys() == {"set", "append", "prepend"}
    for path in paths:
        _in_schema(schema["$defs"][page], path)
        for answer in (document, seen["snapshot"]):
            assert _in_answer(answer, path), path


def test_the_check_sees_a_field_that_is_not_there() -> None:
    for wrong in ("series.records", "totals.sum", "nothing"):
        with pytest.raises(KeyError):
            _in_schema(schema["$defs"]["flow"], wrong)


@pytest.mark.parametrize("page", scripts)
def test_no_field_is_read_past_the_helper(page: str) -> None:
    text = (folder / scripts[page]).read_text(encoding="utf-8")
    assert not re.findall(rf"\b{page}[.\[]", text)


def test_pages_files_and_refusals(engine: Running) -> None:
    with _served(engine.url) as port:
        for page, script in (("d3.html", "d3_flow.js"), ("echarts.html", "echarts_health.js")):
            status, kind, body = _get(port, f"/{page}")
            assert (status, kind) == (200, "text/html; charset=utf-8")
            for source in re.findall(r'src="(/[^"]+)"', body):
                found = _get(port, source)
                assert found[0] == 200 or "npm install" in found[2]
            assert f'src="/{script}"' in body
        assert _get(port, "/api/v1/flow", Host="evil.example")[0] == 403
        assert _get(port, "/api/v1/flow", Sec_Fetch_Site="cross-site")[0] == 403  # the engine's own refusal
        for path in ("/api/v1/records", "/serve.py", "/../README.md", "/", "/node_modules/"):
            assert _get(port, path)[0] == 404, path
        assert _get(port, "/api/v1/trial", "POST")[0] == 501


def test_an_engine_that_is_away_is_said() -> None:
    with _served("http://127.0.0.1:9") as port:
        status, _, said = _get(port, "/api/v1/flow")
        assert status == 502
        assert "does not answer" in said
