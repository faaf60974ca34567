"""Dead letters put back over HTTP: only after a look, each once whatever is asked for how often, and nobody waits for it."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.admin.audit_verify import Stored as StoredRecord
from penstock.engine.admin.audit_verify import verify
from penstock.engine.worker.admin.replays import Replays, Watch, plan_valid_s, plans_max
from penstock.schemas.errors import ConfigError, UnavailableError
from penstock.schemas.reasons import Reason
from tests import letters as made
from tests.unit.admin.open_port import Port, boss, operator, until, viewer
from tests.unit.admin.replay_world import Letters, World, patience_s


@pytest.fixture
def world() -> World:
    made_world = World()
    for offset in range(6):
        made_world.add(offset, Reason.CORRUPT if offset % 2 else Reason.TRUNCATED)
    return made_world


def test_a_look_puts_nothing_back_and_its_plan_does_once(world: World) -> None:
    found = world.look(reasons=["corrupt"])
    assert (found["state"], found["to_replay"]["replayed"], found["letters_read"]) == ("ready", 3, 6)
    assert world.returns.put_back == []
    done = world.carry_out(found["plan"])
    assert (done["state"], done["replayed"]["replayed"], done["replayed"]["by_reason"]) == (
        "done",
        3,
        {"corrupt": 3},
    )
    assert made.sources(world.returns) == [1, 3, 5]
    assert world.carry_out(found["plan"]) == done  # the same request once more
    assert made.sources(world.returns) == [1, 3, 5]
    assert [told for _, told in world.outcomes][-1] == {"repeated": True}
    assert [done for done, _ in world.outcomes] == [True, True, True]


@pytest.mark.parametrize(
    ("body", "places"),
    [
        ({}, [0, 1, 2, 3, 4, 5]), ({"partition": 0, "offset": 4}, [4]), ({"stages": ["decode"], "reasons": ["truncated"]}, [0, 2, 4]),
        ({"reasons": ["truncated", "corrupt", "corrupt"]}, [0, 1, 2, 3, 4, 5]), ({"since": "1970-01-01T00:00:01.004"}, [4, 5]), ({"partition": 3}, []),
    ],
)  # fmt: skip
def test_one_letter_a_reason_or_all(world: World, body: dict[str, Any], places: list[int]) -> None:
    world.carry_out(world.look(**body)["plan"])
    assert made.sources(world.returns) == places


def test_what_came_after_the_look_is_not_put_back_by_its_plan(world: World) -> None:
    found = world.look()
    world.add(6)
    world.carry_out(found["plan"])
    assert made.sources(world.returns) == [0, 1, 2, 3, 4, 5]
    assert world.look()["to_replay"]["replayed"] == 1


def test_a_plan_that_failed_goes_on_where_it_stopped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.engine.dead_letters.replay.batch_letters_max", 2)
    found = world.look()
    world.returns.fails_at = 1
    failed = world.carry_out(found["plan"])
    assert (failed["state"], failed["fault"]) == ("failed", "the broker is gone")
    assert made.sources(world.returns) == [0, 1]
    world.returns.fails_at = None
    assert world.carry_out(found["plan"])["replayed"]["replayed"] == 4
    assert made.sources(world.returns) == [0, 1, 2, 3, 4, 5]
    world.returns.fails_at = 1
    again = world.look(again=True)
    assert again["to_replay"]["replayed"] == 6
    assert world.carry_out(again["plan"])["state"] == "failed"
    world.returns.fails_at = None
    with pytest.raises(ConfigError, match="look again"):  # two of them would come a third time
        world.ask(plan=again["plan"])
    assert len(world.returns.put_back) == 8


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("look"), st.sampled_from([{}, {"reasons": ["corrupt"]}, {"partition": 0, "offset": 2}])),
            st.tuples(st.just("plan"), st.integers(0, 4)),
            st.tuples(st.just("letter"), st.sampled_from([Reason.CORRUPT, Reason.TRUNCATED])),
            st.tuples(st.just("fail"), st.integers(0, 2)),
            st.tuples(st.just("mend"), st.just(0)),
        ),
        max_size=14,
    )
)  # fmt: skip
def test_whatever_is_asked_for_how_often_each_letter_goes_back_once(steps: list[tuple[str, Any]]) -> None:
    world, plans, count = World(), [], 0
    for name, value in steps:
        if name == "letter":
            world.add(count, value)
            count += 1
        elif name == "look":
            plans.append(world.look(**value)["plan"])
        elif name == "plan" and plans:
            world.carry_out(plans[value % len(plans)])
        elif name == "fail":
            world.returns.fails_at = value
        elif name == "mend":
            world.returns.fails_at = None
    world.returns.fails_at = None
    whole = world.look()
    world.carry_out(whole["plan"])
    assert sorted(made.sources(world.returns)) == list(range(count))


def test_one_at_a_time_and_nobody_waits_for_it(world: World) -> None:
    world.may_read.clear()
    began_s = time.monotonic()
    first = world.ask(dry_run=True)
    assert first["state"] == "looking"
    with pytest.raises(UnavailableError, match=f"plan {first['plan']} is being looked for"):
        world.ask(dry_run=True)
    assert time.monotonic() - began_s < 5
    world.may_read.set()
    ready = world.settled(first["plan"])
    world.may_read.clear()
    assert world.ask(plan=ready["plan"])["state"] == "putting_back"
    assert world.ask(plan=ready["plan"])["state"] == "putting_back"  # sent once more meanwhile
    with pytest.raises(UnavailableError, match="is being put back"):
        world.ask(dry_run=True)
    world.may_read.set()
    assert world.settled(ready["plan"])["replayed"]["replayed"] == 6
    assert len(world.returns.put_back) == 6


def test_a_supervisor_that_ends_stops_it_and_says_so(world: World) -> None:
    found = world.look()
    world.may_read.clear()
    world.ask(plan=found["plan"])
    world.replays.close(0.01)
    assert world.outcomes[-1] == (False, {"outcome": "the supervisor ended before it was over"})
    world.may_read.set()
    with pytest.raises(UnavailableError, match="about to end"):
        world.ask(dry_run=True)
    end_s = time.monotonic() + 1.0
    while threading.active_count() > 1 and any(each.name == "replay" for each in threading.enumerate()):
        assert time.monotonic() < end_s + patience_s
        time.sleep(0.001)
    assert world.returns.put_back == []
    assert len(world.outcomes) == 2  # once each


def test_an_old_plan_a_forgotten_one_and_a_failed_look_ask_for_another_look(world: World) -> None:
    old = world.look()["plan"]
    world.clock.now_s += plan_valid_s + 1
    with pytest.raises(ConfigError, match=r"older than 900 s; look again with dry_run"):
        world.ask(plan=old)
    for _ in range(plans_max):
        world.look()
    for gone in (old, "never"):
        with pytest.raises(ConfigError, match="there is no such plan"):
            world.ask(plan=gone)
    broken = Replays(refuse, clock=world.clock)
    told: list[tuple[bool, Mapping[str, Any]]] = []
    plan = broken.begin({"dry_run": True}, lambda *each: told.append(each))["plan"]
    end_s = time.monotonic() + patience_s
    while not told:
        assert time.monotonic() < end_s
        time.sleep(0.001)
    assert told == [(False, {"outcome": "this user lacks the permission Write on topic in"})]
    with pytest.raises(
        ConfigError, match=r"was not found out \(this user lacks the permission Write on topic in\)"
    ):
        broken.begin({"plan": plan}, lambda *_: None)


@contextmanager
def refuse(watch: Watch, ends: Mapping[int, int] | None) -> Iterator[Letters]:
    raise ConfigError("this user lacks the permission Write on topic in")
    yield  # type: ignore[unreachable]  # makes it a generator


@pytest.mark.parametrize(
    "body",
    [
        {}, {"reasons": ["corrupt"]}, {"dry_run": False}, {"dry_run": "true"}, {"dry_run": True, "plan": "x"}, {"plan": 7}, {"plan": "x" * 65},
        {"dry_run": True, "reasons": []}, {"dry_run": True, "reasons": ["none"]}, {"dry_run": True, "reasons": "corrupt"},
        {"dry_run": True, "reasons": [["corrupt"]]}, {"dry_run": True, "stages": [1]}, {"dry_run": True, "offset": 3},
        {"dry_run": True, "partition": -1}, {"dry_run": True, "partition": True}, {"dry_run": True, "partition": 1.0},
        {"dry_run": True, "partition": 10**30}, {"dry_run": True, "since": 5}, {"dry_run": True, "since": "yesterday"},
        {"dry_run": True, "since": "9" * 5000 + "s"}, {"dry_run": True, "since": "²s"}, {"dry_run": True, "again": "no"}, {"dry_run": True, "to": "other"},
    ],
)  # fmt: skip
def test_what_is_not_asked_for_rightly_is_one_sentence(world: World, body: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as told:
        world.replays.target(body)
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 600
    assert world.replays.shown({}) == {"replays": []}


def test_a_replay_is_looked_at_then_done_once_and_what_became_of_it_is_in_the_audit(
    opened: Callable[..., Port], tokens: list[dict[str, Any]]
) -> None:
    port = opened(tokens=tokens)
    for offset in range(3):
        port.letters.add(offset)
    assert port.ask("POST", "replay", operator, {"reasons": ["corrupt"]})[0] == 400  # not without a look
    status, look = port.ask("POST", "replay", operator, {"dry_run": True, "reasons": ["corrupt"]})
    assert status == 202
    until(lambda: len(port.topic.records("done")) == 1)
    shown = port.ask("GET", "replays", operator)[1]["replays"]
    assert [(each["plan"], each["state"], each["to_replay"]["replayed"]) for each in shown] == [
        (look["plan"], "ready", 3)
    ]
    assert port.letters.returns.put_back == []
    assert port.ask("POST", "replay", viewer, {"plan": look["plan"]}) == (403, {"error": "forbidden"})
    for _ in range(3):
        assert port.ask("POST", "replay", operator, {"plan": look["plan"]})[0] == 202
    until(lambda: len(port.topic.records("done")) == 4)
    assert len(port.letters.returns.put_back) == 3
    status, told = port.ask("POST", "replay", operator, {"plan": "unknown"})
    assert (status, told["error"]) == (409, "failed")
    assert "look again with dry_run" in told["detail"]
    assert [len(port.topic.records(event)) for event in ("allowed", "done", "failed")] == [5, 4, 1]
    done = port.topic.records("done")
    assert all(each["who"] == "otto" and each["action"] == "replay" for each in done)
    assert done[0]["target"]["reasons"] == ["corrupt"]
    outcomes = [each["target"].get("outcome", each["target"].get("repeated")) for each in done[1:]]
    assert outcomes.count(True) == 2
    assert [each["replayed"] for each in outcomes if each is not True] == [3]
    stored = [StoredRecord(partition=0, offset=n, value=value) for n, value in enumerate(port.topic.stored)]
    assert verify(stored, key=None).whole


def test_nobody_waits_for_a_replay(opened: Callable[..., Port], tokens: list[dict[str, Any]]) -> None:
    port = opened(tokens=tokens)
    port.letters.add(0)
    port.letters.may_read.clear()
    assert port.ask("POST", "replay", operator, {"dry_run": True})[0] == 202
    began_s = time.monotonic()
    assert port.ask("POST", "restart", operator, {"worker": 0})[0] == 200
    assert port.ask("POST", "replay", operator, {"dry_run": True})[0] == 409
    assert port.ask("POST", "drain", boss, {})[0] == 200
    assert time.monotonic() - began_s < 5
    assert port.workers.stops == 1
    port.letters.may_read.set()
