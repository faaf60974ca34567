"""The simulated group and autoscaler do as their rules say, and the scaling law in them what it promises."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from penstock.engine.cli.laboratory import find_laboratory
from penstock.engine.cli.main import main

assert find_laboratory()
from penstock_bench.scaling import autoscaler, experiments, loads, plant, policies  # noqa: E402  behind the path
from penstock_bench.scaling.scaling import zipf, zipf_seed  # noqa: E402


class Fixed:
    """Always so many."""

    name, settings = "fixed", ["12", "6"]
    behaviour = autoscaler.Behaviour()

    def look(self, view: plant.View) -> None:
        pass

    def value(self, view: plant.View) -> autoscaler.Array:
        return np.array([12.0, 6.0])


def steady(rate: float, seconds: int = 1200, **changes: Any) -> loads.Load:
    arrivals = np.full((seconds, loads.partitions), rate / loads.partitions)
    return loads.Load(name="steady", seed=0, arrivals=arrivals, **changes)


def test_too_few_fall_behind_as_arithmetic_says_and_enough_do_not() -> None:
    outcome = plant.simulate(steady(1000.0), Fixed(), start=12)
    assert outcome.violation_min[0] == 0
    # 6 replicas at 100 a second: what comes at second t is finished at t / 0.6
    assert outcome.ages[1, -1] == pytest.approx(1200 - 1200 * 0.6, rel=0.15)
    assert outcome.replica_min[0] == pytest.approx(12 * 20)
    assert (outcome.changes[0], outcome.changes[1] > 0) == (0, True)


def test_the_autoscaler_keeps_within_its_tolerance_steps_up_by_its_policies_and_waits_on_the_way_down() -> (
    None
):
    scaler = autoscaler.Autoscaler(autoscaler.Behaviour(down_window_s=np.array([300.0])), 1, replicas_max=64)

    def sync(value: float, replicas: int, second: int) -> int:
        return int(scaler.sync(np.array([value]), np.array([replicas]), second)[0])

    assert sync(11, 10, 0) == 10
    assert sync(12, 10, 15) == 12
    assert sync(60, 12, 30) == 24, "at most twice as many in one period"
    assert sync(3, 24, 45) == 24, "more was wanted within the window"
    assert sync(3, 24, 200) == 24
    assert sync(float("nan"), 24, 400) == 24
    assert sync(3, 24, 415) == 3


def test_the_law_does_not_hang_on_how_often_is_committed_nor_on_the_batch_size() -> None:
    load = loads.load("step", 5)
    load = replace(load, arrivals=load.arrivals[900:3300])
    base, *others = (
        plant.simulate(load, policies.Penstock(), commit_s=commit_s, batch=batch)
        for commit_s, batch in ((1, 20), (30, 20), (1, 200))
    )
    for other in others:
        assert other.replica_min[0] == pytest.approx(base.replica_min[0], rel=0.05)
        assert abs(other.violation_min[0] - base.violation_min[0]) <= 1


def test_skewed_partitions_are_kept_up_with_at_few_more_than_the_fewest_replicas() -> None:
    found = zipf(experiments.outcome(policies.Penstock, loads.zipf_steady(zipf_seed)))
    assert found["violation_min"] <= 5
    assert found["replicas"] <= 1.2 * found["fewest_feasible"]


def test_several_processes_find_what_one_finds() -> None:
    some = [
        replace(each, arrivals=each.arrivals[:300]) for each in (loads.load("step", 1), loads.load("wave", 1))
    ]
    found = []
    for processes in (1, 2):
        with experiments.spread(processes) as over:
            found.append(experiments.measure(policies.Penstock, some, lambda _: None, over))
    one, two = found
    assert (one.table == two.table).all()
    assert one.table.shape == (3, 1, 2)


def test_the_command_prints_its_seeds_and_writes_its_figures(
    tmp_path: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loads, "duration_s", 600)
    code = main([
        "simulate", "scaling", "--loads", "steady", "--rivals", "time lag", "--seeds", "1", "--figures", str(tmp_path), "--json",
    ])  # fmt: skip
    out = capsys.readouterr()
    found = json.loads(out.out[out.out.index("{") :])
    assert code in (0, 1)
    assert found["seeds"] == [1000]
    assert "measured on seeds [1000]" in out.out + out.err
    written = (tmp_path / "scaling.md").read_text()
    assert "| penstock | max_age_s 30 |" in written
    assert (tmp_path / "scaling-front.svg").read_text().startswith("<svg")
    assert (tmp_path / "scaling-timeline.svg").read_text().startswith("<svg")


def test_a_rival_is_better_only_where_it_is_on_every_measure_of_a_kind_of_load() -> None:
    made = [loads.load(kind, seed) for kind in loads.names[:2] for seed in (0, 1)]
    ours = np.array([[3.0, 1, 5, 5], [10, 10, 10, 10], [4, 4, 4, 4]])  # (measures, loads)
    rival = np.array([[2.0, 2, 5, 1], [9, 12, 9, 9], [3, 3, 3, 3]])[:, None, :]
    assert experiments.better_on_all(rival, ours) == [(0, 0), (0, 3)]
    kinds = list(loads.names[:2])
    summed = experiments.by_kind(rival, kinds, made), experiments.by_kind(ours, kinds, made)
    assert summed[1].tolist() == [[4, 10], [20, 20], [8, 8]]
    assert experiments.better_on_all(*summed) == [(0, 1)]


@pytest.mark.parametrize("kind", loads.names)
def test_a_load_is_known_by_the_name_of_its_kind(kind: str) -> None:
    assert loads.load(kind, 0).name == kind
