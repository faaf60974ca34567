"""The start of `penstock run` and `penstock check` take the same steps, and neither takes one outside the list."""

import ast
import importlib
import inspect
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from penstock.connectors.memory.broker import MemoryBroker
from penstock.engine.cli.commands import run as run_command
from penstock.engine.cli.main import main
from penstock.engine.clock import SystemClock
from penstock.engine.console.stop_signals import EndsAtOnce
from penstock.engine.settings.model import load_settings
from penstock.engine.telemetry.status import StatusBoard
from penstock.engine.worker import assembly, preflight
from penstock.engine.worker.assembly import Link, event_log, make_worker, new_metrics
from penstock.engine.worker.process import Command
from penstock.engine.worker.startup import supervisor as supervisor_start
from penstock.engine.worker.startup.kafka_facts import FoundLimits, KafkaFacts
from penstock.engine.worker.startup.stages import limits_default
from penstock.engine.worker.startup.startup import Startup, Step, walk
from penstock.engine.worker.startup.steps import steps
from penstock.engine.worker.startup.supervisor import supervisor_steps
from penstock.engine.worker.startup.worker import worker_steps
from penstock.schemas.errors import ConfigError
from tests.bundles import write_stump

started = [step for step in steps if step.group not in ("records", "scaler")]


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    write_stump(tmp_path / "bundle")
    tree = {
        "kafka": {"bootstrap_servers": "localhost:1", "group": "startup"},
        "input": {"topic": "in", "format": "json"},
        "output": {"predictions": "out", "explanations": "why", "dead_letters": "dead"},
        "model": {"path": "bundle", "device": "cpu", "cache_rows": 10},
        "objective": {"batch_rows_max": 16},
        "http": {"port": 0},
    }
    path = tmp_path / "penstock.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def memory_startup(path: Path, broker: MemoryBroker) -> Startup:
    facts = KafkaFacts(
        cluster="memory",
        partitions=dict.fromkeys(("in", "out", "why", "dead"), 1),
        limits=FoundLimits(limits=limits_default, batch_bytes_max=1_000_000, untold=()),
    )
    settings = load_settings(path)
    return Startup(
        settings=settings,
        clock=SystemClock(),
        metrics=new_metrics(settings),
        name="w",
        ask_kafka=lambda: facts,
        open_sink=lambda: broker.exactly_once_sink(group="g", topic="in", transactional_ids=("a", "b")),
    )


def start_worker(path: Path) -> Startup:
    """A worker's start on the broker in memory, closed again."""
    clock = SystemClock()
    broker = MemoryBroker(clock)
    for topic in ("in", "out", "why", "dead"):
        broker.create_topic(topic, partitions=1)
    startup = memory_startup(path, broker)
    worker = make_worker(
        startup,
        Link(
            open_source=lambda listener: broker.source(group="g", topic="in", listener=listener),
            ends=lambda _: {},
            report=lambda _: None,
        ),
        run_folder=path.parent,
        board=StatusBoard(worker="w", group="g", topic="in", clock=clock, rows_max=16),
        events=event_log(new_metrics(startup.settings), clock),
    )
    worker.run(until=lambda: True)
    return startup


def faulty(all_of: tuple[Step, ...], name: str) -> tuple[Step, ...]:
    def fail(_: Startup) -> str:
        raise ConfigError(f"{name} is broken")

    return tuple(replace(step, prove=fail) if step.name == name else step for step in all_of)


def start(step: Step, path: Path, folder: Path) -> None:
    """The part of a start that takes this step."""
    if step.group == "supervisor":
        run_command._supervise(path, Command(), folder, None, None, EndsAtOnce())  # type: ignore[arg-type]  # it comes to no worker
    else:
        start_worker(path)


def test_a_start_takes_every_step_of_a_worker(settings: Path) -> None:
    assert start_worker(settings).proved == {step.name for step in worker_steps}


@pytest.mark.parametrize("step", started, ids=lambda step: step.name)
def test_a_fault_in_any_step_ends_the_start_and_is_listed_by_the_check(
    step: Step,
    settings: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    # Kafka, which nobody answers for, is waited for only by its own step
    checked = faulty(faulty(steps, "kafka"), step.name)
    monkeypatch.setattr(preflight, "steps", checked)
    monkeypatch.setattr(assembly, "worker_steps", faulty(worker_steps, step.name))
    monkeypatch.setattr(supervisor_start, "supervisor_steps", faulty(supervisor_steps, step.name))
    wanted = f"{step.name} is broken"
    with pytest.raises(ConfigError, match=wanted):
        start(step, settings, tmp_path)
    if step.group == "delivery":  # a check comes so far where Kafka answers
        findings = preflight.Findings()
        walk(
            Startup(settings=load_settings(settings), clock=SystemClock()),
            checked,
            "delivery",
            look=findings.step,
        )
        assert findings.faults == [(step.name, wanted)]
        return
    registry = {"registry": {"url": "http://127.0.0.1:1"}} if step.group == "registry" else {}
    settings.write_text(yaml.safe_dump(yaml.safe_load(settings.read_text()) | registry))
    words = [] if step.group in ("kafka", "registry") else ["--no-kafka"]
    assert main(["check", str(settings), "--json", *words]) == 2
    found = json.loads(capsys.readouterr().out)
    assert {"check": step.name, "fault": wanted} in found["faults"]


walkers = (
    "penstock.engine.cli.commands.run",
    "penstock.engine.cli.commands.check",
    "penstock.engine.worker.assembly",
    "penstock.engine.worker.kafka",
    "penstock.engine.worker.main",
    "penstock.engine.worker.preflight",
    "penstock.engine.worker.supervisor",
)
no_steps = {
    "load_settings": "what the steps are about: without settings there are none",
    "onnx_runtime": "loads what the step model runs on",
    "copy_model": "what the step files has looked at; without room for a copy the workers open the folder",
    "HttpServer": "listens where the step http has found it free; a worker takes a free port",
    "admin_port": "opens what the steps admin and admin port have found good",
    "KafkaAuditWriter": "a producer as the step delivery opens them, on a topic that the step kafka has found",
    "await_kafka": "the step kafka, once there is somebody to ask",
    "require_permissions": "puts a name to a refusal",
    "kafka_facts": "handed to the step kafka",
    "ExactlyOnceSink": "handed to the step delivery",
    "KafkaAtLeastOnceSink": "likewise",
    "ReportWriter": "a producer likewise, on a topic that the step kafka has found",
    "output_prefixes": "handed to the step registry",
    "make_worker": "walks the steps",
    "open_traces": "reads the files that the step tracing has found good",
    "KafkaSource": "joins the group: the start is over",
    "exhaustion_told": "puts a sentence to what any step may run out of",
}
"""Why what may refuse is called by a start or a check, and yet is no step of its own."""


def may_refuse(found: object) -> bool:
    """Whether a call of it may end a start: its docstring says so."""
    texts = [inspect.getdoc(found) or ""]
    if inspect.isclass(found):
        texts.append(inspect.getdoc(found.__init__) or "")
    return any("Raise" in text and "ConfigError" in text for text in texts)


def calls(module: str) -> Iterator[tuple[str, object]]:
    """What of Penstock a module calls by a name that it has imported."""
    tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    imported: dict[str, tuple[str, str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("penstock."):
            for alias in node.names:
                imported[alias.asname or alias.name] = (node.module or "", alias.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func
            name = called.id if isinstance(called, ast.Name) else ""
            if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
                owner = imported.get(called.value.id)
                if owner is not None:
                    yield (
                        f"{called.value.id}.{called.attr}",
                        getattr(getattr(importlib.import_module(owner[0]), owner[1]), called.attr, None),
                    )
            if name in imported:
                where, original = imported[name]
                yield name, getattr(importlib.import_module(where), original)


def test_nothing_that_may_refuse_is_called_outside_the_list() -> None:
    """A new proof in one of these modules is missed by the other side: it belongs into the list."""
    found = {name for module in walkers for name, called in calls(module) if may_refuse(called)}
    assert found == no_steps.keys()
