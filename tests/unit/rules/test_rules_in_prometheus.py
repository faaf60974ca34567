"""Every alert gets from its fault to a receiver, through a real Prometheus and a real Alertmanager, and is over with the fault.

The pipeline beside it is left alone. Time is squeezed: a window of ten minutes is one of ten seconds. Targets are the engine's own metric sets, as a scrape gets them.
"""

import http.server
import json
import os
import re
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from prometheus_client import CollectorRegistry

from penstock.engine.rules.alert import Terms
from penstock.engine.rules.files import dashboard_files, rules
from penstock.engine.telemetry.metric_declarations import render
from penstock.engine.telemetry.metrics import Metrics
from penstock.engine.telemetry.scaler_metrics import ScalerMetrics
from penstock.engine.telemetry.supervisor_metrics import SupervisorMetrics
from tests.unit.rules.alertmanager import alertmanager, missing

pytestmark = [
    pytest.mark.skipif(not os.environ.get("PENSTOCK_ALERTS"), reason="minutes: make test-alerts, or make soak"),
    pytest.mark.timeout(900),
]  # fmt: skip
squeezed = 60
_units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
runbook, pages = "https://runbooks.example/penstock", "https://penstock.example"
terms = Terms(max_age_s="30", age_target="0.99", complete_target="0.99", runbook=runbook, pages=pages)
ticks_a_second = 10


def squeeze(duration: str) -> str:
    """What is longer than an hour is squeezed more, so that what waits for days waits for minutes; the order stays."""
    seconds = int(duration[:-1]) * _units[duration[-1]]
    short, long = min(seconds, 3600), max(seconds - 3600, 0)
    return f"{max(round(1000 * (short / squeezed + long / (20 * squeezed))), 1000)}ms"


def squeezed_query(expression: str) -> str:
    return re.sub(r"\[(\d+[smhd])\]", lambda match: f"[{squeeze(match[1])}]", expression)


@dataclass
class Pipeline:
    """One release: a worker under its supervisor, and a scaler."""

    release: str
    fault: Callable[["Pipeline"], None]
    worker: Metrics = field(default_factory=lambda: Metrics(CollectorRegistry()))
    supervisor: SupervisorMetrics = field(default_factory=lambda: SupervisorMetrics(CollectorRegistry()))
    scaler: ScalerMetrics = field(default_factory=lambda: ScalerMetrics(CollectorRegistry()))
    down: set[str] = field(default_factory=set)
    started: int = 0
    ticks: int = 0

    def lag(self, seconds: float, records: int) -> None:
        self.scaler.group_lag_seconds.labels(topic="t", partition="3").set(seconds)
        self.scaler.group_lag_records.labels(topic="t", partition="3").set(records)

    def well(self) -> None:
        """As it is while nothing is wrong, with a burst now and then."""
        worker, scaler = self.worker, self.scaler
        burst = 50 if self.ticks % 100 < 5 else 1
        worker.records.labels(outcome="predicted").inc(100 * burst)
        worker.records.labels(outcome="explained").inc(100 * burst)
        worker.batches.labels(reason="full").inc()
        worker.batch_rows.observe(100 * burst)
        worker.stage_seconds.labels(stage="infer").observe(0.001)
        worker.end_to_end_seconds.observe_many(np.array([0.01]))
        worker.poll_gap_seconds.observe(0.001)
        worker.busy_seconds.inc(0.01)
        worker.model_info.labels(name="m", version="1", digest="d", device="cpu", runtime="native").set(1)
        for gauge in (
            worker.ready,
            worker.broker_reachable,
            self.supervisor.workers_running,
            scaler.required_replicas,
        ):
            gauge.set(1)
        for gauge in (
            worker.stalled_partitions,
            worker.open_transaction_offsets,
            self.supervisor.fenced,
            scaler.stale,
            scaler.unscalable,
        ):
            gauge.set(0)
        for state in ("waits", "stopped"):
            worker.held_partitions.labels(state=state).set(0)
        for bound in ("maximum", "ineffective"):
            scaler.bound.labels(bound=bound).set(0)
        scaler.bound.labels(bound="rate").set(1)
        self.lag(2.0 if burst > 1 else 0.1, 10)
        self.down.clear()

    def expose(self, part: str) -> bytes | None:
        if part in self.down:
            return None
        if part == "scaler":
            return render(self.scaler.registry)
        text = render(self.worker.registry) + render(self.supervisor.registry)
        return re.sub(rb"(?m)^(process_start_time_seconds) .*$", b"\\1 %d" % self.started, text)


def _reject(reason: str, count: int) -> Callable[[Pipeline], None]:
    def fault(it: Pipeline) -> None:
        it.worker.records.labels(outcome="rejected").inc(count)
        it.worker.rejected.labels(reason=reason).inc(count)

    return fault


def _crash(it: Pipeline) -> None:
    it.started += 1


faults: dict[str, Callable[[Pipeline], None]] = {
    "PenstockAgeBurnsFast": lambda it: it.lag(100, 10),
    "PenstockAgeBurnsSlowly": lambda it: it.lag(100, 10),
    "PenstockRecordsTooOld": lambda it: it.lag(100, 10),
    "PenstockPartitionStuck": lambda it: it.lag(5 + it.ticks / ticks_a_second, 10),
    "PenstockCompletenessBurnsFast": _reject("unreadable", 200),
    "PenstockCompletenessBurnsSlowly": _reject("unreadable", 200),
    "PenstockManyRejected": _reject("wrong_type", 200),
    "PenstockKillerRecord": _reject("killed_worker", 1),
    "PenstockPoison": lambda it: it.worker.held_partitions.labels(state="stopped").set(1),
    "PenstockPartitionHeld": lambda it: it.worker.held_partitions.labels(state="waits").set(1),
    "PenstockInputStalled": lambda it: it.worker.stalled_partitions.set(1),
    "PenstockTransactionOpen": lambda it: it.worker.open_transaction_offsets.set(7),
    "PenstockExplanationsOverBudget": lambda it: it.worker.unexplained.labels(reason="budget").inc(100),
    "PenstockWorkersAbsent": lambda it: it.down.add("worker"),
    "PenstockPodDown": lambda it: it.down.add("worker"),
    "PenstockFenced": lambda it: it.supervisor.fenced.set(1),
    "PenstockKafkaUnreachable": lambda it: it.worker.broker_reachable.set(0),
    "PenstockNotReady": lambda it: it.worker.ready.set(0),
    "PenstockDeliveriesAbort": lambda it: it.worker.deliveries.labels(outcome="aborted").inc(),
    "PenstockWorkersDie": lambda it: it.supervisor.worker_restarts.inc(),
    "PenstockAuditLost": lambda it: it.supervisor.audit_events.labels(event="lost").inc(),
    "PenstockCrashLoop": _crash,
    "PenstockRebalancesOften": lambda it: it.worker.rebalances.inc(),
    "PenstockScalerBlind": lambda it: it.scaler.stale.set(1),
    "PenstockScalerGone": lambda it: it.down.add("scaler"),
    "PenstockPartitionBeyondScaling": lambda it: it.scaler.unscalable.set(1),
    "PenstockMoreWorkersDoNotHelp": lambda it: it.scaler.bound.labels(bound="ineffective").set(1),
    "PenstockAtItsLimit": lambda it: it.scaler.bound.labels(bound="maximum").set(1),
}  # fmt: skip


class World:
    """All pipelines, one for each alert and one that stays well."""

    def __init__(self) -> None:
        self.pipelines = {name: Pipeline(name, fault) for name, fault in faults.items()}
        self.pipelines["clean"] = Pipeline("clean", lambda _: None)
        self.wrong = False
        self.ended = threading.Event()
        self.lock = threading.Lock()

    def turn(self) -> None:
        while not self.ended.wait(1 / ticks_a_second):
            for pipeline in self.pipelines.values():
                with self.lock:
                    pipeline.ticks += 1
                    pipeline.well()
                    if self.wrong:
                        pipeline.fault(pipeline)

    def handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        world = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                _, release, part = self.path.split("/")
                with world.lock:
                    body = world.pipelines[release].expose(part)
                self.send_response(200 if body is not None else 503)
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


@contextmanager
def prometheus(world: World, folder: Path, alertmanager: str) -> Iterator[Callable[..., Any]]:
    """A Prometheus that scrapes the world and tells the Alertmanager at the address; a function that asks its API."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), world.handler())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Thread(target=world.turn, daemon=True).start()
    found = rules(terms)
    for group in found["groups"]:
        group["interval"] = "500ms"
        for rule in group["rules"]:
            rule["expr"] = squeezed_query(rule["expr"])
            if "for" in rule:
                rule["for"] = squeeze(rule["for"])
    (folder / "rules.yaml").write_text(yaml.safe_dump(found))
    targets = [
        {
            "targets": [f"127.0.0.1:{server.server_port}"],
            "labels": {
                "__metrics_path__": f"/{name}/{part}", "namespace": "ns", "release": name, "group": f"g-{name}",
                "pod": f"{name}-{part}-0", "instance": f"{name}-{part}-0",
            },
        }
        for name in world.pipelines
        for part in ("worker", "scaler")
    ]  # fmt: skip
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "500ms"},
        "rule_files": ["rules.yaml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
        "scrape_configs": [{"job_name": "penstock", "static_configs": targets}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus", f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data",
                "--web.listen-address=127.0.0.1:0", "--query.lookback-delta=5s",
            ],
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        port = _port(process.pid, folder / "log")

        def ask(path: str, **parameters: str) -> Any:
            query = urllib.parse.urlencode(parameters)
            with urllib.request.urlopen(
                f"http://127.0.0.1:{port}/api/v1/{path}?{query}", timeout=10
            ) as answer:
                return json.loads(answer.read())["data"]

        yield ask
    finally:
        world.ended.set()
        process.terminate()
        process.wait(20)
        server.shutdown()
        server.server_close()


def _port(pid: int, log: Path) -> int:
    until_s = time.monotonic() + 30
    while time.monotonic() < until_s:
        found = re.search(r"Listening on\" address=127\.0\.0\.1:(\d+)", log.read_text().replace("msg=", ""))
        found = found or re.search(r"address=127\.0\.0\.1:([1-9]\d*)", log.read_text())
        if found and "Server is ready" in log.read_text():
            return int(found[1])
        time.sleep(0.2)
    raise AssertionError(log.read_text()[-3000:])


def until(holds: Callable[[], bool], seconds: float) -> bool:
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        if holds():
            return True
        time.sleep(1)
    return holds()


def severities_and_hints() -> dict[str, tuple[str, bool]]:
    """What `penstock rules` says of each alert: its grade, and whether hints belong to it."""
    return {
        rule["alert"]: (rule["labels"]["severity"], "hints" in rule["annotations"])
        for group in rules(terms)["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }


def check_alert(alert: dict[str, Any], severity: str, hinted: bool) -> None:
    """It tells whoever receives it which pipeline it is, how bad, why, what to type and where to read on."""
    labels, said = alert["labels"], alert["annotations"]
    name = labels["alertname"]
    assert (labels["severity"], labels["namespace"]) == (severity, "ns"), alert
    assert labels.get("group", f"g-{name}") == f"g-{name}", alert
    assert said["summary"], alert
    assert said["description"], alert
    assert said["command"].startswith("penstock "), alert
    assert said["runbook_url"] == f"{runbook}#{name.lower()}", alert
    assert said.get("hints") == (f"{pages}/api/v1/hints" if hinted else None), alert
    assert f"### {name}\n" in (Path(__file__).parents[3] / "docs/runbook.md").read_text()
    assert "<error" not in json.dumps(said), alert
    assert "<no value>" not in json.dumps(alert), alert


def empty_panels(ask: Callable[..., Any]) -> list[tuple[str, str]]:
    """Panels of the dashboards whose query returns nothing."""
    found = []
    for text in dashboard_files(terms).values():
        for panel in json.loads(text)["panels"]:
            for target in panel.get("targets", ()):
                query = re.sub(r"\[[^\]]+\]", "[10s]", target["expr"])
                query = query.replace("$namespace", ".*").replace("$release", ".*").replace("$group", ".*")
                if not ask("query", query=query)["result"]:
                    found.append((panel["title"], query))
    return found


def test_every_alert_arrives_from_its_fault_and_is_resolved_after_it(tmp_path: Path) -> None:
    assert not missing(), missing()
    world, stated = World(), severities_and_hints()
    assert faults.keys() == stated.keys()
    own = {(name, name) for name in faults}
    with alertmanager(tmp_path) as (address, received), prometheus(world, tmp_path, address) as ask:
        time.sleep(30)
        assert [each for each in ask("alerts")["alerts"] if each["state"] == "firing"] == []  # bursts alone
        assert received.told == []
        world.wrong = True

        def still_to_arrive() -> list[str]:
            return sorted(name for name, _ in own - received.with_status("firing").keys())

        assert until(lambda: not still_to_arrive(), 300), still_to_arrive()
        firing = received.with_status("firing")
        assert [each for each in firing if each[1] == "clean"] == []
        for name, (severity, hinted) in stated.items():
            check_alert(firing[name, name], severity, hinted)
        assert empty_panels(ask) == []
        world.wrong = False

        def still_to_end() -> list[str]:
            return sorted(name for name, _ in own - received.with_status("resolved").keys())

        assert until(lambda: not still_to_end(), 400), still_to_end()
        assert [each for each in received.with_status("firing") if each[1] == "clean"] == []
