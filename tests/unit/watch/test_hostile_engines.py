"""Whoever answers at an engine's address: what it says is an engine's word or one sentence, and no address shows a password."""

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from penstock.engine.cli.main import main
from penstock.engine.doctor.look import workers_at
from penstock.engine.telemetry.http_server import Answer, HttpServer, json_answer
from penstock.schemas.errors import PenstockError

hostile = "\x1b]0;owned\x07[red]x[/red]\u202e\x9b2J"
balance = {"read": 1, "predicted": 1, "rejected": 0, "skipped": 0, "in_flight": 0, "dropped": 0}
report = {
    "worker": hostile, "state": hostile, "group": hostile, "topic": hostile, "at_ms": 1, "busy_ratio": 0.5, "balance": balance,
    "kafka": {"reachable": False, "address": hostile, "answer_age_s": 3.0, "fault": hostile},
    "waits_for": [{"partition": 0, "reason": hostile, "kind": "registry"}], "model": {"name": hostile, "version": hostile},
    "positions": [{"partition": 0, "offset": 3, "oldest_timestamp_ms": 5}],
}  # fmt: skip
reasons = [
    {"feature": hostile, "value": hostile, "attribution": 0.5},
    {"feature": "f", "value": 1.0, "attribution": None},
]
record = {"topic": hostile, "partition": 0, "offset": 1, "outcome": hostile, "label": hostile, "score": 0.5, "reasons": reasons}  # fmt: skip
said: dict[str, Any] = {
    "/status": {"workers": {"0": report}}, "/live": {"faults": {"0": hostile}}, "/api/v1/records": {"records": [record]},
}  # fmt: skip
metrics = (
    'penstock_lag_seconds{topic="t\x1b[2J",partition="0",worker="0"} 3\npenstock_lag_records{topic="t\x1b[2J",partition="0",worker="0"} 3\n'
    'penstock_end_to_end_seconds_bucket{le="1"} 2\npenstock_busy_seconds_total{worker="0"} 2\n'
)
odd: tuple[Any, ...] = (None, True, -1, 10**18, "x", [], {}, [1], {"a": 1}, 1e308)


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    below = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in below:
        yield from places(value, (*path, key))


def changed(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    whole = copy.deepcopy(tree)
    place = whole
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return whole


@pytest.mark.parametrize("path", said)
def test_whatever_an_engine_says_nothing_acts_and_nothing_ends_in_a_traceback(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    now = dict(said)

    def page(path: str) -> Answer:
        return json_answer(now[path])

    routes: dict[str, Callable[[], Answer]] = {each: partial(page, each) for each in said}
    routes["/metrics"] = lambda: Answer(body=metrics.encode())
    tried, chance = 0, random.Random(15)
    with HttpServer(routes, host="127.0.0.1", port=0) as server:
        url = f"http://127.0.0.1:{server.port}"
        for place in places(said[path]):
            for value in odd[chance.randrange(3) :: 3]:
                now[path] = changed(said[path], place, value)
                if path != "/api/v1/records":
                    with suppress(PenstockError):
                        workers_at(url)
                if path != "/live":
                    words = ["--json"] if tried % 2 else []
                    assert main(["top", "--url", url, "--seconds", "0.001", *words]) in (0, 1)
                tried += 1
    shown = "".join(capsys.readouterr())
    assert tried >= 10
    assert path == "/live" or "owned" in shown  # it was looked at, and shown
    assert {each for each in shown if not each.isprintable() and each != "\n"} == set()


@pytest.mark.parametrize(
    "url", ["http://alice:canary-1@127.0.0.1:1", "ftp://alice:canary-1@h", "http://alice:canary 1@h:b", "canary-1",
            "http://canary-1:99999", "http://[canary-1", "//alice:canary-1@h", "http://alice:canary-1@[::1]:1/x?y#z"],
)  # fmt: skip
@pytest.mark.parametrize("command", ["top", "lag", "doctor"])
def test_an_address_with_a_password_or_none_at_all_is_one_sentence_that_quotes_nothing(
    command: str, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "penstock.yaml"
    settings.write_text(
        "kafka: {bootstrap_servers: '127.0.0.1:1', group: g}\ninput: {topic: in}\n"
        "output: {predictions: p, dead_letters: d}\nmodel: {path: m}\n"
    )
    option = {"top": "--url", "lag": "--url", "doctor": "--workers"}[command]
    assert main([command, str(settings), option, url]) == 2
    out, err = capsys.readouterr()
    assert "canary" not in out + err
    assert "http://HOST:PORT" in err
    assert err.count("\n") == 1
