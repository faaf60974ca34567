"""The stand-ins of the replay do as their originals, and its audit sees every kind of fault."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import confluent_kafka
import grpc
import numpy as np
import pytest

from penstock.connectors.embedded.cluster import free_ports
from penstock.connectors.embedded.process import KeptProcesses
from penstock.engine.cli.laboratory import find_laboratory
from penstock.engine.clock import SystemClock
from penstock.schemas.externalscaler import (
    GetMetricSpecResponse,
    GetMetricsRequest,
    GetMetricsResponse,
    IsActiveResponse,
    MetricSpec,
    MetricValue,
    ScaledObjectRef,
)

assert find_laboratory()
from penstock_bench.replay.audit import ages_s, audit, oldest_s  # noqa: E402  behind the path
from penstock_bench.replay.keda import Keda, Spec  # noqa: E402
from penstock_bench.replay.limits import CpuLimits, KernelLimits, Limits, family, used_s, writable_groups  # noqa: E402
from penstock_bench.replay.load import Load, record  # noqa: E402
from penstock_bench.replay.picture import picture, table  # noqa: E402
from penstock_bench.replay.pods import PodPlan, Pods  # noqa: E402
from penstock_bench.replay.replay import told, whole  # noqa: E402
from penstock_bench.replay.world import Sample  # noqa: E402

patience_s = 30.0
clock = SystemClock()


def output(number: int, *, off: float = 0.0, version: str = "1") -> bytes:
    body = {
        "passed": {"b": repr(float(number))},
        "outputs": {"mean": [sum(record(number)) / 3 + off]},
        "model": {"version": version},
    }
    return json.dumps(body).encode()


def test_the_audit_finds_what_was_lost_doubled_wrong_invented_or_set_aside() -> None:
    good = [(float(number), output(number, version=str(1 + number % 2))) for number in range(100)]
    found = audit(good, 0, records=100)
    assert found.clean
    assert (found.versions, found.answered_s.tolist()) == ({"1": 50, "2": 50}, [float(n) for n in range(100)])
    assert audit(good[:40] + good[41:], 0, records=100).lost == [40]
    twice = audit([*good, (200.0, output(7))], 0, records=100)
    assert (twice.doubled, twice.answered_s[7]) == ([7], 7.0)
    assert len(audit([*good[:-1], (99.0, output(99, off=1.0))], 0, records=100).wrong) == 1
    assert len(audit([*good, (99.0, output(100))], 0, records=100).wrong) == 1
    assert not audit(good, 1, records=100).clean


def test_ages_are_told_of_each_record_and_of_the_oldest_at_each_moment() -> None:
    due_s, answered_s = np.array([0.0, 1.0, 2.0, 9.0]), np.array([0.5, 6.0, 3.0, np.nan])
    assert ages_s(due_s, answered_s).tolist() == [0.5, 5.0, 1.0, np.inf]
    moments_s = np.array([0.25, 0.75, 5.0, 7.0, 11.0])
    assert oldest_s(due_s, answered_s, moments_s).tolist() == [0.25, 0.0, 4.0, 0.0, 2.0]


marks = {"what one worker can do": 0.0, "calm": 20.0, "step": 60.0, "upgrade": 120.0, "drain": 150.0, "wake": 220.0, "end": 240.0}  # fmt: skip


def a_run(
    *, step_age_s: float = 2.0, upgrade_age_s: float = 2.0, lost: bool = False, **pods: Any
) -> dict[str, Any]:
    """What is told of a made-up run of ten records a second, but for the silence."""
    due_s = [second / 10 for second in [*range(1500), *range(2201, 2400)]]
    ages = {"step": step_age_s, "upgrade": upgrade_age_s}
    part = [max((name for name in marks if marks[name] <= due), key=marks.__getitem__) for due in due_s]
    seen = [(due + ages.get(p, 1.0), output(n)) for n, (due, p) in enumerate(zip(due_s, part, strict=True))]
    world: Any = SimpleNamespace(
        load=SimpleNamespace(due_s=due_s, partition=[n % 12 for n in range(len(due_s))], refused=[]),
        pods=SimpleNamespace(limited="as a test does", **{"startups_s": [4.0, 6.0], "drains_s": [1.0], "killed": 0, "restarts": 0, **pods}),
        samples=[Sample(at_s=s, asked=5, ready=5, value=5.0) for s in range(240)],
        changes=[(170.0, 0), (220.4, 1)],
    )  # fmt: skip
    audited = audit(seen[1:] if lost else seen, 0, records=len(due_s))
    found = told(world, audited, marks, capacity=20.0)
    return {
        "seed": 1,
        "short": False,
        "script": vars(whole),
        "capacity_reported": {"records_per_s": 19.0, "measured": True},
        **found,
    }


def test_each_bar_is_met_by_a_good_run_and_missed_by_what_it_is_there_for() -> None:
    good = a_run()
    assert all(good["bars"].values()), good["bars"]
    assert good["parts"]["step"]["p99_age_s"] == pytest.approx(2.0)
    assert good["wake_s"] == pytest.approx(0.3)
    for change, word in (
        ({"lost": True}, "every record"), ({"step_age_s": 36.5}, "the step"), ({"upgrade_age_s": 30.5}, "the upgrade"),
        ({"killed": 1}, "no worker"), ({"restarts": 1}, "no worker"),
    ):  # fmt: skip
        missed = [bar for bar, met in a_run(**change)["bars"].items() if not met]
        assert len(missed) == 1, change
        assert missed[0].startswith(word)
    assert "| step | 600 | 2.0 s | 2.0 s | 2.0 s | 5 |" in table(good)
    assert picture(good).count("<polyline") == 4


class Producer:
    """Takes everything and sends nothing."""

    def __init__(self, _: dict[str, Any]) -> None:
        self.sent = 0

    def produce(self, *_: Any, **__: Any) -> None:
        self.sent += 1

    def poll(self, _: float) -> None:
        pass

    def flush(self, _: float) -> int:
        return 0


def test_no_record_is_due_before_it_was_asked_for_nor_after_it_was_wanted_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(confluent_kafka, "Producer", Producer)
    load = Load("nowhere", "in", partitions=3, seed=1, clock=clock)
    marks_s = []
    for _ in range(5):
        time.sleep(0.05)
        marks_s.append(clock.wall_ms() / 1e3)
        before = len(load.due_s)
        load.rate_per_s = 200.0
        until(lambda before=before: len(load.due_s) > before)  # type: ignore[misc]
        assert load.due_s[before] >= marks_s[-1]
        load.rate_per_s = 0.0
    time.sleep(0.05)
    before = len(load.due_s)
    load.at_once = 7
    until(lambda: len(load.due_s) >= before + 7)
    assert load.close() == before + 7 == len(load.partition)
    assert load.refused == []


class Scaler:
    """A scaler that says what a test wants."""

    def __init__(self) -> None:
        self.active, self.replicas, self.away = False, 3.0, False
        self.pushed = threading.Event()
        self.done = threading.Event()
        answers: dict[str, Any] = {
            "IsActive": (self.is_active, ScaledObjectRef), "GetMetricSpec": (self.spec, ScaledObjectRef),
            "GetMetrics": (self.metrics, GetMetricsRequest),
        }  # fmt: skip
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                call,
                request_deserializer=asked.FromString,
                response_serializer=lambda m: m.SerializeToString(),
            )
            for name, (call, asked) in answers.items()
        }
        handlers["StreamIsActive"] = grpc.unary_stream_rpc_method_handler(
            self.stream, request_deserializer=ScaledObjectRef.FromString, response_serializer=lambda m: m.SerializeToString()
        )  # fmt: skip
        self.server = grpc.server(ThreadPoolExecutor(4))
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("externalscaler.ExternalScaler", handlers),)
        )
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def is_active(self, _: Any, context: Any) -> Any:
        self.answer(context)
        return IsActiveResponse(result=self.active)

    def spec(self, _: Any, context: Any) -> Any:
        self.answer(context)
        return GetMetricSpecResponse(
            metricSpecs=[MetricSpec(metricName="n", targetSize=2, targetSizeFloat=2.0)]
        )

    def metrics(self, request: Any, context: Any) -> Any:
        self.answer(context)
        assert request.metricName == "n"
        return GetMetricsResponse(
            metricValues=[MetricValue(metricName="n", metricValue=4, metricValueFloat=self.replicas)]
        )

    def stream(self, _: Any, context: Any) -> Iterator[Any]:
        yield IsActiveResponse(result=False)
        while not self.done.is_set() and context.is_active():
            if self.pushed.wait(0.05):
                self.pushed.clear()
                yield IsActiveResponse(result=True)

    def answer(self, context: Any) -> None:
        if self.away:
            context.abort(grpc.StatusCode.UNAVAILABLE, "stale")

    def close(self) -> None:
        self.done.set()
        self.server.stop(1).wait()


class Moved(SystemClock):
    """A clock that a test sets."""

    now_s = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s


def until(met: Callable[[], bool]) -> None:
    end_s = time.monotonic() + patience_s
    while not met():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def test_keda_wakes_at_once_stops_after_the_cool_down_and_holds_without_an_answer() -> None:
    moved = Moved()
    with closing(Scaler()) as scaler:
        spec = Spec(polling_s=15.0, cooldown_s=40.0)
        with closing(Keda(f"127.0.0.1:{scaler.port}", spec, clock=moved)) as keda:
            assert keda.turn(0) == 0
            scaler.pushed.set()
            until(lambda: keda.turn(0) == 1)  # between two polls
            assert keda.value() == 1.5
            scaler.active = True
            moved.now_s += 16
            assert keda.turn(4) == 4
            scaler.active = False
            moved.now_s += 30
            assert keda.turn(4) == 4, "not cooled down"
            scaler.away = True
            moved.now_s += 30
            assert keda.turn(4) == 4, "nobody answers"
            assert np.isnan(keda.value())
            assert keda.unanswered == 2
            scaler.away = False
            moved.now_s += 16
            assert keda.turn(4) == 0
            scaler.active = True
            moved.now_s += 16
            assert keda.turn(0) == 1


worker = """
import http.server, os, signal, sys, time
name, revision, port, folder = sys.argv[1:]
taken = os.path.join(folder, name)
os.close(os.open(taken, os.O_CREAT | os.O_EXCL))
def stop(*_):
    os.unlink(taken)
    os._exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if revision == "9" else stop)
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", int(port)), Ready).serve_forever()
"""


@contextmanager
def some_pods(folder: Path, *, grace_s: float) -> Iterator[Pods]:
    """Pods whose processes fail where another one of their name is there still."""
    (folder / "names").mkdir()
    plan = PodPlan(
        name="worker",
        command=lambda name, revision, port: [
            sys.executable, "-S", "-c", worker, name, str(revision), str(port), str(folder / "names"),
        ],
        ports=free_ports(4),
        grace_s=grace_s,
        cores=0.5,
    )  # fmt: skip
    with (
        closing(KeptProcesses(root=folder / "kept", temporary=True, files={})) as processes,
        closing(CpuLimits()) as limits,
        closing(Pods(plan, processes=processes, limits=limits, folder=folder, clock=clock)) as pods,
    ):
        yield pods


def test_names_return_the_highest_go_first_and_a_revision_is_rolled_out_one_by_one(tmp_path: Path) -> None:
    with some_pods(tmp_path, grace_s=20.0) as pods:

        def there() -> set[str]:
            return {path.name for path in (tmp_path / "names").iterdir()}

        def turned(met: Callable[[], bool]) -> bool:
            pods.turn()
            return met()

        pods.replicas = 3
        until(lambda: turned(lambda: pods.rolled_out))
        assert there() == {"worker-0", "worker-1", "worker-2"}
        pods.revision = 2
        fewest = 3

        def rolled() -> bool:
            nonlocal fewest
            fewest = min(fewest, pods.ready)
            return pods.rolled_out

        until(lambda: turned(rolled))
        assert fewest == 2, "one at a time"
        assert (len(pods.startups_s), len(pods.drains_s)) == (6, 3)
        pods.replicas = 1
        until(lambda: turned(lambda: pods.running == 1))
        assert there() == {"worker-0"}
        pods.replicas = 0
        until(lambda: turned(lambda: pods.running == 0))
        assert (pods.killed, pods.restarts) == (0, 0)


def test_who_does_not_end_in_its_grace_is_killed_and_who_ends_by_itself_is_started_again(
    tmp_path: Path,
) -> None:
    with some_pods(tmp_path, grace_s=0.3) as pods:
        pods.replicas, pods.revision = 1, 9

        def turned(met: Callable[[], bool]) -> bool:
            pods.turn()
            return met()

        until(lambda: turned(lambda: pods.ready == 1))
        pods.replicas = 0
        until(lambda: turned(lambda: pods.running == 0))
        assert pods.killed == 1
        pods.replicas = 1  # its name was not given back: the next process fails, and is tried again
        until(lambda: turned(lambda: pods.restarts == 2))


@pytest.mark.parametrize("kept_by", ["stops", "kernel"])
def test_a_limit_holds_a_process_and_its_children_together(kept_by: str, tmp_path: Path) -> None:
    parent = writable_groups()
    if kept_by == "kernel" and parent is None:
        pytest.skip("control groups may not be made here")
    kept_limits: Limits = KernelLimits(parent) if kept_by == "kernel" and parent is not None else CpuLimits()
    spin = "import subprocess, sys; subprocess.Popen([sys.executable, '-S', '-c', 'while True: pass'])\nwhile True: pass"
    with closing(KeptProcesses(root=tmp_path / "kept", temporary=True, files={})) as kept:
        kept.start("spin", [sys.executable, "-S", "-c", spin], output=Path("/dev/null"))
        pid = kept.pid("spin") or 0
        until(lambda: len(family(pid)) == 2)
        both = family(pid)
        try:
            with closing(kept_limits) as limits:
                limits.hold(pid, 0.05)
                time.sleep(0.3)
                before_s, began_s = sum(used_s(both).values()), time.monotonic()
                time.sleep(2.0)
                share = (sum(used_s(both).values()) - before_s) / (time.monotonic() - began_s)
            assert 0 < share < 0.25
            stats = [Path(f"/proc/{each}/stat").read_text().rsplit(")", 1)[1] for each in both]
            assert not any(stat.split()[0] == "T" for stat in stats), "who is held no more goes on"
        finally:
            for each in both:
                os.kill(each, signal.SIGKILL)
