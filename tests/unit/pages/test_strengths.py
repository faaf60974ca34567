"""What matters over the newest records, beside the hour before them: no record is in both, and none is held for ever."""

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.pages.model_watch import ModelWatch
from penstock.engine.pages.worker.strengths import Strengths, before_s, minute_s, newest_rows, piece_rows
from penstock.engine.telemetry.ask_workers import Reply
from tests.clocks import HandClock

looked_at = st.lists(
    st.tuples(st.integers(1, 256), st.sampled_from([0.25, 1.0, 30.0, 900.0])), min_size=1, max_size=400
)


@given(looked_at)
def test_the_newest_are_the_last_so_many_and_what_came_before_is_in_the_hour_before(
    looks: list[tuple[int, float]],
) -> None:
    """Each look is a number of its own, so that whose strength was counted where can be told apart."""
    held, now_s, times = Strengths(), 0.0, []
    for rows, pause_s in looks:
        now_s += pause_s
        times.append((now_s, rows))
        held.add(np.array([rows, rows * now_s]), rows, now_s=now_s)
    told = held.told(now_s)
    lately, before = told["lately"], told["before"]
    total = sum(rows for rows, _ in looks)
    assert min(total, newest_rows) <= lately["rows"] < newest_rows + piece_rows + 256
    since_s = now_s - lately["span_s"]
    newest = [(at_s, rows) for at_s, rows in times if at_s >= since_s]
    assert lately["rows"] == sum(rows for _, rows in newest)
    assert lately["sums"] == pytest.approx([lately["rows"], sum(rows * at_s for at_s, rows in newest)])
    assert before["rows"] <= total - lately["rows"]
    if before["rows"]:
        mean_s = before["sums"][1] / before["rows"]
        assert since_s - before_s - 1e-6 <= mean_s < since_s + 1e-6
    hour = [rows for at_s, rows in times if since_s - before_s + 2 * minute_s <= at_s < since_s]
    assert before["rows"] >= sum(hour) - piece_rows - 256


def test_what_is_held_is_bounded_however_wide_and_however_many() -> None:
    held = Strengths()
    for second in range(20_000):
        held.add(np.ones(3), 1 if second % 2 else 256, now_s=float(second))
    assert len(held._newest) <= newest_rows / piece_rows + 2
    assert len(held._before) <= before_s / minute_s + 1


def test_nothing_looked_at_is_told_as_nothing() -> None:
    told = Strengths().told(5.0)
    assert told == {"lately": {"rows": 0, "sums": [], "span_s": None}, "before": {"rows": 0, "sums": []}}


def test_workers_that_serve_another_model_have_no_part_in_what_matters() -> None:
    """Their columns are other features."""

    def ask(path_of: Any) -> dict[str, Reply]:
        return {slot: reply(slot, path) for slot in digests if (path := path_of(slot)) is not None}

    def reply(slot: str, path: str) -> Reply:
        one = 100.0 if digests[slot] == "new" else 1.0
        reasons = {
            "lately": {"rows": 10, "sums": [10 * one], "span_s": 3.0}, "before": {"rows": 0, "sums": []}, "space": "value", "scores": None,
        }  # fmt: skip
        described = {
            "model": {"name": digests[slot], "version": "1", "runtime": "r", "device": "d", "runtime_reason": ""}, "columns": ["a"], "features_total": 1,
            "trees": None, "graph": None, "outputs": [], "complete": True,
        }  # fmt: skip
        found = {"/pages/reasons": reasons, "/pages/model": described}.get(path, {"state": "none"})
        return Reply(status=200, body=orjson.dumps(found))

    digests = {"0": "new", "1": "old", "2": "old"}
    clock = HandClock()
    watch = ModelWatch(ask, digests=lambda: digests, clock=clock)
    watch.look()
    told = watch.document()["importance"]
    assert (told["records"], told["features"][0]["strength"], told["span_s"]) == (20, 1.0, 3.0)
    digests["1"] = "new"  # the most serve another one now, of which nothing was counted yet
    assert watch.document()["importance"]["records"] == 0
    clock.sleep(10)
    watch.look()
    assert watch.document()["importance"]["features"][0]["strength"] == 100.0
