"""Each alert fires for the pipeline that it is about, and for no other: run by promtool where it is found."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

root = Path(__file__).parents[3]
promtool = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(promtool is None, reason="promtool is not at hand")
narrow = root / "deploy/helm/penstock/files/rules.yaml"
wide = root / "deploy/prometheus/penstock-rules.yaml"


def series(name: str, values: str, release: str, **labels: str) -> dict[str, str]:
    pod = labels.pop("pod", f"{release}-worker-0")
    all_labels = {"namespace": "ns", "release": release, "group": f"group-{release}", "pod": pod, "instance": pod, "job": f"ns/{release}-penstock", **labels}  # fmt: skip
    selector = ", ".join(f'{key}="{value}"' for key, value in all_labels.items())
    return {"series": f"{name}{{{selector}}}", "values": values}


def well(release: str) -> list[dict[str, str]]:
    """A pipeline that works: two workers and two scalers, two hours of it."""
    found = []
    for number in range(2):
        worker = {"pod": f"{release}-worker-{number}"}
        scaler = {"pod": f"{release}-scaler-{number}"}
        found += [
            series("up", "1x240", release, **worker),
            series("up", "1x240", release, **scaler),
            series("process_start_time_seconds", "100x240", release, **worker),
            series("penstock_ready", "1x240", release, worker="0", **worker),
            series("penstock_broker_reachable", "1x240", release, worker="0", **worker),
            series("penstock_workers_running", "1x240", release, **worker),
            series("penstock_worker_restarts_total", "0x240", release, **worker),
            series("penstock_rebalances_total", "1x240", release, worker="0", **worker),
            series(
                "penstock_records_total", "0+30000x240", release, outcome="predicted", worker="0", **worker
            ),
            series("penstock_records_total", "0+10x240", release, outcome="rejected", worker="0", **worker),
            series("penstock_scaling_stale", "0x240", release, **scaler),
            series("penstock_required_replicas", "2x240", release, **scaler),
            series("penstock_scaling_bound", "0x240", release, bound="maximum", **scaler),
            series("penstock_scaling_unscalable_partitions", "0x240", release, **scaler),
            series("penstock_scaling_left_out_partitions", "0x240", release, **scaler),
            series("penstock_group_lag_seconds", "1x240", release, topic="t", partition="3", **scaler),
            series("penstock_group_lag_records", "5x240", release, topic="t", partition="3", **scaler),
        ]
    return found


def broken(*changes: dict[str, str], without: str = "") -> list[dict[str, str]]:
    """Release a with these series in place of the ones of the same name and labels, beside a release b that works."""
    changed = {each["series"]: each for each in changes}
    kept = [each for each in well("a") if each["series"] not in changed and not (without and re.match(without, each["series"]))]  # fmt: skip
    return kept + list(changed.values()) + well("b")


def both(name: str, values: str, **labels: str) -> list[dict[str, str]]:
    return [series(name, values, "a", pod=f"a-scaler-{number}", **labels) for number in range(2)]


a = {"namespace": "ns", "release": "a", "group": "group-a"}
scenarios: dict[str, tuple[list[dict[str, str]], dict[str, list[dict[str, str]]]]] = {
    "all well": (broken(), {}),
    "one of two scalers is blind": (broken(both("penstock_scaling_stale", "1x240")[0]), {}),
    "both scalers are blind": (broken(*both("penstock_scaling_stale", "1x240")), {"PenstockScalerBlind": [a]}),
    "the scalers are gone": (
        broken(without=r"penstock_(required|scaling|group)"),
        {"PenstockScalerGone": [{"namespace": "ns", "release": "a"}]},
    ),
    "a rejects a tenth beside a big b": (
        broken(*[series("penstock_records_total", "0+3000x240", "a", pod=f"a-worker-{n}", outcome="rejected", worker="0") for n in range(2)]),
        {"PenstockManyRejected": [a]},
    ),
    "a pod in a crash loop": (
        broken(series("process_start_time_seconds", "0+1x240", "a", pod="a-worker-1")),
        {"PenstockCrashLoop": [{**a, "pod": "a-worker-1", "instance": "a-worker-1"}]},
    ),
    "a pod that stops before it is scraped": (
        broken(series("up", "0x240", "a", pod="a-worker-1")),
        {"PenstockPodDown": [{**a, "pod": "a-worker-1", "instance": "a-worker-1"}]},
    ),
    "a partition is stuck, seen by two scalers": (
        broken(*both("penstock_group_lag_seconds", "0+30x240", topic="t", partition="3")),
        {"PenstockPartitionStuck": [{**a, "topic": "t", "partition": "3"}], "PenstockRecordsTooOld": [a]},
    ),
    "a roll-out counts rebalances": (
        broken(*[series("penstock_rebalances_total", "0x200 1+1x9 10x31", "a", pod=f"a-worker-{n}", worker="0") for n in range(2)]),
        {},
    ),
    "rebalances all the time": (
        broken(*[series("penstock_rebalances_total", "0+1x240", "a", pod=f"a-worker-{n}", worker="0") for n in range(2)]),
        {"PenstockRebalancesOften": [a]},
    ),
    "at the limit, with a pause now and then": (
        broken(*both("penstock_scaling_bound", " ".join(["1x8 0"] * 24) + " 1", bound="maximum")),
        {"PenstockAtItsLimit": [a]},
    ),
    "a partition is too fast for one worker": (
        broken(*both("penstock_scaling_unscalable_partitions", "1x240")),
        {"PenstockPartitionBeyondScaling": [a]},
    ),
    "nobody gets on with a partition, as one scaler sees it": (
        broken(both("penstock_scaling_left_out_partitions", "1x240")[0]),
        {"PenstockPartitionBeyondScaling": [a]},
    ),
    "no broker answers one worker": (
        broken(series("penstock_broker_reachable", "0x240", "a", pod="a-worker-0", worker="0")),
        {"PenstockKafkaUnreachable": [a]},
    ),
    "scaled to zero": (broken(without=r"(up|process|penstock_(ready|broker|worker|records|rebalances)).*worker-"), {}),
    "workers die": (
        broken(series("penstock_worker_restarts_total", "0+0.5x240", "a", pod="a-worker-0")),
        {"PenstockWorkersDie": [a]},
    ),
}  # fmt: skip


def names(path: Path) -> list[str]:
    return [rule["alert"] for rule in yaml.safe_load(path.read_text())["groups"][0]["rules"]]


def run(rules: str, watched: tuple[str, ...], tmp_path: Path) -> None:
    """Every scenario at once: promtool takes longer to start than to judge."""
    assert promtool is not None
    text = yaml.safe_load(rules)
    for rule in text["groups"][0]["rules"]:
        rule["annotations"] = {}  # its words are read by people, its labels by the pager
    tests: list[dict[str, Any]] = []
    for scenario, (given, expected) in scenarios.items():
        alerts = [
            {
                "eval_time": "115m",
                "alertname": rule["alert"],
                "exp_alerts": [
                    {"exp_labels": {**rule["labels"], **each}}
                    for each in expected.get(rule["alert"], [])
                    if each["release"] in watched
                ],
            }
            for rule in text["groups"][0]["rules"]
        ]
        tests.append({"name": scenario, "interval": "30s", "input_series": given, "alert_rule_test": alerts})
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(text))
    whole = {"rule_files": ["rules.yaml"], "evaluation_interval": "30s", "tests": tests}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(whole))
    done = subprocess.run([promtool, "test", "rules", str(tmp_path / "tests.yaml")], capture_output=True, text=True, timeout=120, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]


@needs_promtool
def test_an_alert_is_about_one_release(tmp_path: Path) -> None:
    run(wide.read_text(), ("a", "b"), tmp_path)


@needs_promtool
@pytest.mark.parametrize("release", ["a", "b"])
def test_the_chart_installs_alerts_for_its_own_release(release: str, tmp_path: Path) -> None:
    run(narrow.read_text().replace("@namespace@", "ns").replace("@release@", release), (release,), tmp_path)


def test_every_selector_of_the_chart_s_rules_is_narrowed() -> None:
    assert names(narrow) == names(wide)
    for rule in yaml.safe_load(narrow.read_text())["groups"][0]["rules"]:
        expression = re.sub(r"by \([^)]*\)|on \([^)]*\)", "", rule["expr"])
        for name, selector in re.findall(r"\b(penstock_\w+|up|process_\w+)(\{[^}]*\})?", expression):
            assert selector.startswith('{namespace="@namespace@", release="@release@"'), (rule["alert"], name)


def test_every_alert_has_its_place_in_the_operations_guide() -> None:
    text = (root / "docs/operations.md").read_text()
    for name in names(wide):
        assert f"### {name}\n" in text, name
