"""The safety rules of the scaling law, each by its number: what must not happen whatever is measured.

1 fail static; 2 down only when all is well; 3 no more of what brought nothing; 4 a partition that stands still is no demand, and
is work; 5 never more than there are partitions; 6 active while there is anything to do; 7 a partition without a commit counts
what the group would read of it; 8 answers from memory, streams that end cleanly; 9 two scalers behind one headless name; 10 no
fallback to nothing; 11 the pod that goes is the last one, and who stays keeps what it has. Rule 8 is tested in
test_scaling_service.py; rule 12, one writer of the number, is KEDA's own webhook.
"""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine.manifest.templates import Chart
from penstock.engine.scaling.keda_service import Published
from penstock.engine.scaling.lag import Start, measure
from penstock.engine.scaling.packing import assign
from penstock.engine.scaling.planner import Bounds, required
from penstock.engine.scaling.snapshot import Snapshot
from penstock.engine.scaling.steadier import Effect, Plan, Steadier, frozen_s, settled_s
from penstock.schemas.errors import UnavailableError
from tests.clocks import HandClock

chart = Chart(Path(__file__).parents[3] / "deploy" / "helm" / "penstock")
bounds = Bounds(max_age_s=30.0, min_replicas=0, max_replicas=64)


def group(
    workers: int,
    *,
    rate: float = 4000.0,
    backlog: float = 0.0,
    age_s: float = 0.0,
    finished: float = 0.0,
    starting: int = 0,
    quiet: bool = True,
    capacity: float = 100.0,
    partitions: int = 64,
    left_out: dict[int, str] | None = None,
) -> Snapshot:
    each = np.full(partitions, rate / partitions)
    return Snapshot(
        arrivals=each, arrivals_now=each, backlog=np.full(partitions, backlog / partitions),
        owners=assign(np.full(partitions, -1), max(workers, 1), "sticky"), oldest_age_s=age_s, capacity_records_per_s=capacity,
        startup_s=30.0, rebalance_s=3.0, horizon_s=48.0, replicas_now=workers, starting=starting, quiet=quiet,
        finished_records_per_s=finished, left_out=left_out or {},
    )  # fmt: skip


def decide(steadier: Steadier, snapshot: Snapshot, now_s: float) -> Plan:
    return steadier.decide(required(snapshot, bounds), snapshot, now_s=now_s)


def test_rule_1_old_inputs_are_an_error_and_never_zero() -> None:
    clock = HandClock()
    published = Published(clock=clock, age_max_s=15.0)
    published.publish(decide(Steadier(bounds), group(4), 0.0))
    clock.now_s += 14.9
    assert published.current().published > 0
    clock.now_s += 0.2
    with pytest.raises(UnavailableError):
        published.current()


@pytest.mark.parametrize(
    "unwell", [{"age_s": 10.0, "backlog": 50.0}, {"starting": 1}, {"quiet": False}, {"left_out": {3: "stands still"}}]
)  # fmt: skip
def test_rule_2_nobody_is_taken_away_unless_all_is_well(unwell: dict[str, Any]) -> None:
    steadier = Steadier(bounds)
    decide(steadier, group(40, rate=3000.0), 0.0)
    plan = decide(steadier, group(40, rate=100.0, **unwell), 2 * bounds.hold_s)
    assert plan.replicas == 40
    assert decide(steadier, group(40, rate=100.0), 3 * bounds.hold_s).replicas < 10


class Behind:
    """A group whose records are too old, and that finishes what `limit` allows; every worker adds 100 a second below that."""

    def __init__(self, limit: float, *, share: float = 1.0) -> None:
        self.limit, self.share = limit, share
        self.now_s = 0.0
        self.workers = 10
        self.steadier = Steadier(bounds)
        self.told: list[tuple[int, str, str]] = []

    def run(self, seconds: float) -> "Behind":
        for _ in range(round(seconds / 5)):
            finished = min(100.0 * self.workers * self.share, self.limit)
            snapshot = group(
                self.workers, rate=1000.0, backlog=900.0, age_s=40.0, finished=finished, capacity=finished / self.workers
            )  # fmt: skip
            plan = decide(self.steadier, snapshot, self.now_s)
            self.told.append((plan.replicas, plan.bound, plan.why))
            if self.now_s % 120 == 115:  # the autoscaler has looked, and the pods are up
                self.workers = plan.replicas
            self.now_s += 5
        return self


def test_rule_3_growth_that_brings_nothing_twice_is_not_repeated_and_said() -> None:
    world = Behind(limit=800.0).run(600)
    replicas, bound, why = world.told[-1]
    assert bound == "ineffective"
    assert replicas == world.workers
    assert f"{world.workers} finish 800" in why
    raised = [
        now for (before, *_), (now, *_) in zip(world.told, world.told[1:], strict=False) if now > before
    ]
    frozen_at = next(i for i, (_, bound, _) in enumerate(world.told) if bound == "ineffective")
    assert all(told[0] == replicas for told in world.told[frozen_at:])
    assert len(raised) <= 3


stopped = Behind(limit=800.0).run(600)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 5), st.booleans()), max_size=10))
@settings(max_examples=30)
def test_rule_3_takes_nobody_away(turns: list[tuple[int, int, bool]]) -> None:
    """While growth is stopped, workers come and go (crashes, a rolling upgrade, a rebalance): the number stays."""
    steadier, now_s = deepcopy(stopped.steadier), stopped.now_s
    number, bound, _ = stopped.told[-1]
    assert bound == "ineffective"
    for workers, starting, quiet in turns:
        seen = group(
            workers, rate=1000.0, backlog=900.0, age_s=40.0, finished=800.0, capacity=20.0, starting=starting, quiet=quiet
        )  # fmt: skip
        plan = decide(steadier, seen, now_s)
        assert (plan.replicas, plan.bound) == (number, "ineffective")
        now_s += 5


def test_rule_3_one_more_attempt_is_made_after_a_while() -> None:
    effect = Effect(max_age_s=30.0)
    now_s, workers = 0.0, 4
    for workers in (4, 8, 16):
        for _ in range(12):
            said = effect.look(group(workers, backlog=1e5, age_s=90.0, finished=500.0), now_s=now_s)
            now_s += 5
    assert said
    for _ in range(round(frozen_s / 5)):
        said = effect.look(group(workers, backlog=1e5, age_s=90.0, finished=500.0), now_s=now_s)
        now_s += 5
    assert said == ""
    for _ in range(12):
        said = effect.look(group(2 * workers, backlog=1e5, age_s=90.0, finished=500.0), now_s=now_s)
        now_s += 5
    assert said, "the attempt brought nothing either"


def test_rule_3_it_ends_as_soon_as_nothing_is_too_old() -> None:
    world = Behind(limit=800.0).run(600)
    assert world.told[-1][1] == "ineffective"
    world.limit = 1e9
    well = group(world.workers, backlog=10.0, age_s=2.0, finished=4000.0)
    decide(world.steadier, well, world.now_s)
    assert (
        decide(world.steadier, group(world.workers, rate=6000.0, age_s=2.0), world.now_s + 5).bound
        != "ineffective"
    )


@pytest.mark.parametrize("share", [1.0, 0.5, 0.2])
def test_rule_3_growth_that_helps_is_never_held_back(share: float) -> None:
    assert all(bound != "ineffective" for _, bound, _ in Behind(limit=1e9, share=share).run(900).told)


@given(
    st.lists(
        st.tuples(st.integers(0, 200), st.integers(0, 200), st.floats(0, 1e6), st.floats(0, 300), st.booleans()), max_size=60
    ),
    st.floats(1, 60),
)  # fmt: skip
def test_rule_3_needs_two_growths_of_a_settled_group(
    turns: list[tuple[int, int, float, float, bool]], step_s: float
) -> None:
    """Whatever is seen: never frozen before twice the settled time has passed behind the objective, nor while nothing is too old."""
    effect, now_s, behind_since_s = Effect(max_age_s=30.0), 0.0, None
    for workers, starting, finished, age_s, quiet in turns:
        seen = group(workers, backlog=1e5, age_s=age_s, finished=finished, starting=starting, quiet=quiet)
        said = effect.look(seen, now_s=now_s)
        behind_since_s = None if age_s <= 30.0 else now_s if behind_since_s is None else behind_since_s
        if said:
            assert behind_since_s is not None
            assert now_s - behind_since_s >= 2 * settled_s
        now_s += step_s


def test_rule_4_a_partition_that_stands_still_is_no_demand_and_is_work() -> None:
    backlog = np.zeros(8)
    backlog[5] = 1e6
    still = group(2, rate=0.0, partitions=8, left_out={5: "no record was finished"})
    held = Snapshot(**{name: getattr(still, name) for name in Snapshot.__slots__} | {"backlog": backlog})
    need = required(held, bounds)
    assert need.active
    assert need.replicas == 1


@given(st.integers(1, 64), st.floats(0, 1e6), st.floats(0, 1e9))
def test_rule_5_never_more_than_there_are_partitions(partitions: int, rate: float, backlog: float) -> None:
    assert (
        required(group(1, rate=rate, backlog=backlog, partitions=partitions), bounds).replicas <= partitions
    )


def test_rule_6_one_waiting_record_or_a_trickle_is_work() -> None:
    assert required(group(0, rate=0.0, backlog=1.0), bounds).active
    assert required(group(0, rate=0.01), bounds).active
    assert not required(group(0, rate=0.0), bounds).active


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the broker says of a partition that has no commit."""

    partition: int
    earliest: int
    end: int
    high: int
    committed: int | None = None
    oldest_unfinished_timestamp_ms: int | None = 1
    stamped_by_broker: bool = False
    owner: str | None = None
    fault: str = ""
    topic_id: str | None = None
    committed_topic_id: str | None = None


@pytest.mark.parametrize(("start", "waits"), [("earliest", 100), ("latest", 0)])
def test_rule_7_a_partition_without_a_commit_counts_what_the_group_would_read(
    start: Start, waits: int
) -> None:
    """Retention has deleted the first 900: neither the end offset nor 0 is how many wait."""
    reading = Reading(partition=0, earliest=900, end=1000, high=1000)
    (lag,) = measure([reading], now_ms=5_000, start=start)
    assert lag.lag_records == waits


def made() -> list[dict[str, Any]]:
    texts = chart.render({})
    return [
        each
        for name, text in texts.items()
        if name.endswith(".yaml")
        for each in yaml.safe_load_all(text)
        if each
    ]


def of_kind(kind: str, end: str = "") -> Any:
    (found,) = [each for each in made() if each["kind"] == kind and each["metadata"]["name"].endswith(end)]
    return found["spec"]


def test_rules_9_and_10_two_scalers_behind_a_headless_name_and_no_fallback_to_nothing() -> None:
    assert of_kind("Deployment")["replicas"] == 2
    assert of_kind("Service", "scaler")["clusterIP"] == "None"
    scaled = of_kind("ScaledObject")
    assert scaled["fallback"]["replicas"] >= 1
    assert set(scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]) == {"scaleUp", "scaleDown"}


def test_rule_11_the_last_pod_goes_first_and_its_partitions_go_with_it() -> None:
    """A StatefulSet takes its last ordinal away, so no hint is needed; the planner numbers the members by the same order."""
    assert of_kind("StatefulSet")["podManagementPolicy"] == "Parallel"
    owners = assign(np.full(12, -1), 4, "sticky")
    fewer = assign(owners, 3, "sticky")
    assert (fewer[owners < 3] == owners[owners < 3]).all(), "who stays keeps what it has"
