"""Each alert fires for the pipeline that it is about, and for no other: run by promtool where it is found."""

import re
import shutil
import subprocess
from collections.abc import Collection
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
            series("penstock_fenced", "0x240", release, **worker),
            series("penstock_held_partitions", "0x240", release, state="waits", worker="0", **worker),
            series("penstock_held_partitions", "0x240", release, state="stopped", worker="0", **worker),
            series("penstock_stalled_partitions", "0x240", release, worker="0", **worker),
            series("penstock_open_transaction_offsets", "0x240", release, worker="0", **worker),
            series("penstock_deliveries_total", "0x240", release, outcome="aborted", worker="0", **worker),
            series(
                "penstock_unexplained_records_total", "0x240", release, reason="budget", worker="0", **worker
            ),
            series(
                "penstock_rejected_records_total",
                "0+10x240",
                release,
                reason="unreadable",
                worker="0",
                **worker,
            ),
            series(
                "penstock_rejected_records_total",
                "0x240",
                release,
                reason="killed_worker",
                worker="0",
                **worker,
            ),
            series("penstock_rebalances_total", "1x240", release, worker="0", **worker),
            series("penstock_audit_events_total", "0x240", release, event="lost", **worker),
            series("penstock_audit_events_total", "0+1x240", release, event="done", **worker),
            series(
                "penstock_records_total", "0+30000x240", release, outcome="predicted", worker="0", **worker
            ),
            series("penstock_records_total", "0+10x240", release, outcome="rejected", worker="0", **worker),
            series("penstock_scaling_stale", "0x240", release, **scaler),
            series("penstock_required_replicas", "2x240", release, **scaler),
            series("penstock_scaling_bound", "0x240", release, bound="maximum", **scaler),
            series("penstock_scaling_bound", "0x240", release, bound="ineffective", **scaler),
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


def workers(name: str, values: str, **labels: str) -> list[dict[str, str]]:
    return [series(name, values, "a", pod=f"a-worker-{number}", worker="0", **labels) for number in range(2)]


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
        broken(*workers("penstock_records_total", "0+3000x240", outcome="rejected"),
               *workers("penstock_rejected_records_total", "0+3000x240", reason="unreadable")),
        {"PenstockManyRejected": [{**a, "reason": "unreadable"}], "PenstockCompletenessBurnsFast": [a],
         "PenstockCompletenessBurnsSlowly": [a]},
    ),
    "three records of a quiet night, one of them bad": (
        broken(*workers("penstock_records_total", "0x10 1x229", outcome="predicted"),
               *workers("penstock_records_total", "0x200 1x39", outcome="rejected"),
               *workers("penstock_rejected_records_total", "0x200 1x39", reason="unreadable")),
        {},
    ),
    "it was bad for an hour, and is well again": (
        broken(*workers("penstock_records_total", "0+9000x120 1080000+1x119", outcome="rejected"),
               *workers("penstock_rejected_records_total", "0+9000x120 1080000+1x119", reason="unreadable")),
        {"PenstockCompletenessBurnsSlowly": [a]},
    ),
    "a partition was stopped": (
        broken(*workers("penstock_held_partitions", "1x240", state="stopped")), {"PenstockPoison": [a]},
    ),
    "partitions wait for a schema": (
        broken(*workers("penstock_held_partitions", "2x240", state="waits")),
        {"PenstockPartitionHeld": [{**a, "state": "waits"}]},
    ),
    "a record killed its worker": (
        broken(*workers("penstock_rejected_records_total", "0x200 1x39", reason="killed_worker")),
        {"PenstockKillerRecord": [a]},
    ),
    "records that cannot be read": (
        broken(*workers("penstock_stalled_partitions", "1x240")), {"PenstockInputStalled": [a]},
    ),
    "an open transaction": (
        broken(*workers("penstock_open_transaction_offsets", "7x240")), {"PenstockTransactionOpen": [a]},
    ),
    "explanations past their budget": (
        broken(*workers("penstock_unexplained_records_total", "0+3000x240", reason="budget")),
        {"PenstockExplanationsOverBudget": [a]},
    ),
    "deliveries abort": (
        broken(*workers("penstock_deliveries_total", "0+1x240", outcome="aborted")), {"PenstockDeliveriesAbort": [a]},
    ),
    "a worker does not get ready": (
        broken(series("penstock_ready", "0x240", "a", pod="a-worker-1", worker="0")),
        {"PenstockNotReady": [{**a, "pod": "a-worker-1", "instance": "a-worker-1", "worker": "0"}]},
    ),
    "a twin took over, and the process has ended": (
        broken(series("penstock_fenced", "0x220 1x2 stale", "a", pod="a-worker-1")),
        {"PenstockFenced": [{**a, "pod": "a-worker-1", "instance": "a-worker-1"}]},
    ),
    "no worker is scraped, and two are needed": (
        broken(without=r"(up|process|penstock_(?!required|scaling|group)).*worker-"),
        {"PenstockWorkersAbsent": [a]},
    ),
    "records were too old for some minutes an hour ago": (
        broken(*both("penstock_group_lag_seconds", "1x30 31x13 1x195", topic="t", partition="3")),
        {"PenstockAgeBurnsSlowly": [a]},
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
        {"PenstockPartitionStuck": [{**a, "topic": "t", "partition": "3"}], "PenstockRecordsTooOld": [a],
         "PenstockAgeBurnsFast": [a], "PenstockAgeBurnsSlowly": [a]},
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
    "more workers brought nothing": (
        broken(*both("penstock_scaling_bound", "1x240", bound="ineffective")),
        {"PenstockMoreWorkersDoNotHelp": [a]},
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
    "scaled to zero": (
        broken(*both("penstock_required_replicas", "0x240"), without=r"(up|process|penstock_(?!required|scaling|group)).*worker-"),
        {},
    ),
    "an audit that lost a record within the hour": (
        broken(series("penstock_audit_events_total", "0x200 1x39", "a", pod="a-worker-0", event="lost")),
        {"PenstockAuditLost": [a]},
    ),
    "an audit that lost a record yesterday": (
        broken(series("penstock_audit_events_total", "1x240", "a", pod="a-worker-0", event="lost")), {},
    ),
    "workers die": (
        broken(series("penstock_worker_restarts_total", "0+0.5x240", "a", pod="a-worker-0")),
        {"PenstockWorkersDie": [a]},
    ),
}  # fmt: skip


def alerts_of(text: str) -> list[dict[str, Any]]:
    (group,) = [each for each in yaml.safe_load(text)["groups"] if each["name"] == "penstock"]
    return list(group["rules"])


def names(path: Path) -> list[str]:
    return [rule["alert"] for rule in alerts_of(path.read_text())]


def run(rules: str, watched: tuple[str, ...], tmp_path: Path, among: Collection[str] = scenarios) -> None:
    """Every scenario at once: promtool takes longer to start than to judge."""
    assert promtool is not None
    text = yaml.safe_load(rules)
    (judged,) = [group["rules"] for group in text["groups"] if group["name"] == "penstock"]
    for rule in judged:
        rule["annotations"] = {}  # its words are read by people, its labels by the pager
    tests: list[dict[str, Any]] = []
    for scenario in among:
        given, expected = scenarios[scenario]
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
            for rule in judged
        ]
        tests.append({"name": scenario, "interval": "30s", "input_series": given, "alert_rule_test": alerts})
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(text))
    whole = {"rule_files": ["rules.yaml"], "evaluation_interval": "3m", "tests": tests}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(whole))
    done = subprocess.run([promtool, "test", "rules", str(tmp_path / "tests.yaml")], capture_output=True, text=True, timeout=120, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]


@needs_promtool
def test_an_alert_is_about_one_release(tmp_path: Path) -> None:
    run(wide.read_text(), ("a", "b"), tmp_path)


@needs_promtool
@pytest.mark.parametrize("release", ["a", "b"])
def test_the_chart_installs_alerts_for_its_own_release(release: str, tmp_path: Path) -> None:
    values = {
        "@namespace@": "ns",
        "@release@": release,
        "@max_age_s@": "30",
        "@age_target@": "0.99",
        "@complete_target@": "0.99",
    }
    text = narrow.read_text()
    for place, value in values.items():
        text = text.replace(place, value)
    some = (
        "all well",
        "both scalers are blind",
        "the scalers are gone",
        "a partition is stuck, seen by two scalers",
    )
    run(text, (release,), tmp_path, some)


def test_every_alert_fires_in_a_scenario() -> None:
    assert {name for _, expected in scenarios.values() for name in expected} == set(names(wide))


def test_every_selector_of_the_chart_s_rules_is_narrowed() -> None:
    assert names(narrow) == names(wide)
    for group in yaml.safe_load(narrow.read_text())["groups"]:
        for rule in group["rules"]:
            expression = re.sub(r"by \([^)]*\)|on \([^)]*\)", "", rule["expr"])
            found = re.findall(r"\b(penstock[_:][\w:]+|up|process_\w+)(\{[^}]*\})?", expression)
            assert found
            for name, selector in found:
                assert selector.startswith('{namespace="@namespace@", release="@release@"'), (rule, name)


def test_every_alert_has_its_page_in_the_runbook_and_no_page_is_left_over() -> None:
    text = (root / "docs/runbook.md").read_text()
    assert set(re.findall(r"^### (\w+)$", text, flags=re.MULTILINE)) == set(names(wide))
