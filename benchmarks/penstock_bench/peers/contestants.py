"""Who takes part: how each contestant is made ready, and how it is started for one run."""

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from penstock.connectors.embedded.jars import find_java
from penstock.schemas.errors import ConfigError
from penstock_bench import module_command
from penstock_bench.environments import java_rivals, python_of, sources
from penstock_bench.peers.workload import Workload

Announce = Callable[[str], None]
java_batch_rows: Final = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One run of one contestant: where it reads and writes, what it is given, and a folder of its own."""

    servers: str
    group: str
    input: str
    output: str
    explanations: str
    dead_letters: str
    folder: Path
    workload: Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class Contestant:
    """`prepare` makes its environment and raises ConfigError, in one sentence, when it cannot take part.

    `share` is the part of the records it gets in a race, so that the slow ones end in time too.
    """

    slug: str
    title: str
    guarantee: str
    start: Callable[[Entry, Announce], list[str]]
    prepare: Callable[[Announce], None] = lambda announce: None
    share: float = 1.0
    explains: bool = False
    asks_in_json: bool = False  # and reads only what comes after it has started
    offered: Literal["none", "lowest", "all"] = "none"  # the rates at which its latency is measured
    limit: bool = False  # does none of the work
    note: str = ""

    @property
    def ours(self) -> bool:
        """Whether it is Penstock."""
        return self.slug.startswith("penstock")


def penstock(
    entry: Entry,
    *,
    delivery: str = "exactly_once",
    runtime: str = "native",
    explains: bool = False,
    **changes: dict[str, Any],
) -> list[str]:
    """The command of ours; `changes` are settings by section, over the plain ones."""
    tree: dict[str, Any] = {
        "kafka": {"bootstrap_servers": entry.servers, "group": entry.group, "delivery": delivery},
        "input": {"topic": entry.input},
        "output": {"predictions": entry.output, "dead_letters": entry.dead_letters},
        "model": {"path": str(entry.workload.bundle), "runtime": runtime},
        "http": {"port": 0},
    }
    if explains:
        tree["output"]["explanations"] = entry.explanations
    for section, values in changes.items():
        tree[section] = {**tree.get(section, {}), **values}
    file = entry.folder / "penstock.yaml"
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return [sys.executable, "-P", "-m", "penstock", "run", str(file)]


def _given(entry: Entry, *, delivery: str = "exactly_once", explains: bool = False) -> dict[str, str]:
    state = entry.folder / "state"
    state.mkdir()
    return {
        "servers": entry.servers,
        "group": entry.group,
        "input": entry.input,
        "output": entry.output,
        "explanations": entry.explanations if explains else "",
        "delivery": delivery,
        "model": str(entry.workload.onnx),
        "booster": str(entry.workload.booster),
        "events": str(entry.workload.events),
        "predictions": str(entry.workload.predictions),
        "state": str(state),
    }


def _in_json(entry: Entry, given: dict[str, str]) -> str:
    file = entry.folder / "given.json"
    file.write_text(json.dumps(given), encoding="utf-8")
    return str(file)


def _python_loop(entry: Entry, *, delivery: str = "exactly_once", explains: bool = False) -> list[str]:
    given = _in_json(entry, _given(entry, delivery=delivery, explains=explains))
    return module_command("penstock_bench.peers.python_loop", given)


def _echo_command(entry: Entry, *, delivery: str) -> list[str]:
    return module_command("penstock_bench.peers.echo", _in_json(entry, _given(entry, delivery=delivery)))


def _needs_shap(announce: Announce) -> None:
    if importlib.util.find_spec("shap") is None:
        raise ConfigError("shap is not installed here")


def _java(
    entry: Entry, announce: Announce, main: str, *, delivery: str = "exactly_once", batch_rows: int
) -> list[str]:
    given = _given(entry, delivery=delivery) | {"batch_rows": str(batch_rows)}
    file = entry.folder / "given.properties"
    lines = [f"{key}={value}".replace("\\", "\\\\") for key, value in given.items()]
    file.write_text("\n".join(lines), encoding="utf-8")
    options = ["-Xms512m", "-Xmx512m", "-XX:+UseParallelGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
    jars = f"{java_rivals(announce)}/*"
    return [str(find_java()), *options, "-cp", jars, f"penstock.rivals.{main}", str(file)]


def _app(entry: Entry, announce: Announce, name: str, *, delivery: str) -> list[str]:
    given = _in_json(entry, _given(entry, delivery=delivery))
    return [str(python_of(name, announce)), str(sources / name / "app.py"), given]


def _faust(entry: Entry, announce: Announce) -> list[str]:
    return [*_app(entry, announce, "faust", delivery="at_least_once"), "worker"]


def _mlserver(entry: Entry, announce: Announce) -> list[str]:
    """A folder of settings, as `mlserver start` wants it."""
    model = entry.folder / "model"
    model.mkdir()
    (entry.folder / "settings.json").write_text(
        json.dumps({
            "kafka_enabled": True, "kafka_servers": entry.servers, "kafka_topic_input": entry.input,
            "kafka_topic_output": entry.output, "parallel_workers": 0, "http_port": 0, "grpc_port": 0,
            "metrics_port": 0, "debug": False,
        }),
        encoding="utf-8",
    )  # fmt: skip
    (model / "onnx_model.py").write_bytes((sources / "mlserver" / "onnx_model.py").read_bytes())
    (model / "model-settings.json").write_text(
        json.dumps({
            "name": "bench", "implementation": "onnx_model.OnnxModel", "max_batch_size": 256, "max_batch_time": 0.01,
            "parameters": {"uri": str(entry.workload.onnx)},
        }),
        encoding="utf-8",
    )  # fmt: skip
    return [str(python_of("mlserver", announce).with_name("mlserver")), "start", str(entry.folder)]


def _has_python(name: str) -> Callable[[Announce], None]:
    def prepare(announce: Announce) -> None:
        python_of(name, announce)

    return prepare


def _has_java(announce: Announce) -> None:
    java_rivals(announce)


_exactly_once, _at_least_once = "exactly-once", "at-least-once"
_explained = Contestant(
    slug="penstock-explained",
    title="Penstock, every record",
    guarantee=_exactly_once,
    start=lambda entry, _: penstock(entry, explains=True),
    share=0.5,
    explains=True,
)
_java_loop = Contestant(
    slug="java-loop",
    offered="all",
    title="Java loop by hand",
    guarantee=_exactly_once,
    prepare=_has_java,
    start=lambda entry, announce: _java(entry, announce, "HandWrittenLoop", batch_rows=java_batch_rows),
)
_quix = Contestant(
    slug="quix",
    offered="lowest",
    title="Quix Streams",
    guarantee=_exactly_once,
    prepare=_has_python("quix"),
    start=lambda entry, announce: _app(entry, announce, "quix", delivery="exactly_once"),
    share=0.75,
)
_echo = Contestant(
    slug="echo",
    offered="all",
    title="librdkafka, no work",
    guarantee=_at_least_once,
    start=lambda entry, _: _echo_command(entry, delivery="at_least_once"),
    limit=True,
)

contestants: Final = (
    Contestant(
        slug="penstock",
        offered="all",
        title="Penstock",
        guarantee=_exactly_once,
        start=lambda entry, _: penstock(entry),
    ),
    Contestant(
        slug="penstock-onnxruntime",
        title="Penstock on ONNX Runtime",
        guarantee=_exactly_once,
        start=lambda entry, _: penstock(entry, runtime="onnxruntime"),
    ),
    Contestant(
        slug="penstock-alo",
        offered="all",
        title="Penstock",
        guarantee=_at_least_once,
        start=lambda entry, _: penstock(entry, delivery="at_least_once"),
    ),
    _explained,
    _java_loop,
    replace(
        _java_loop,
        slug="java-loop-alo",
        offered="none",
        guarantee=_at_least_once,
        start=lambda entry, announce: _java(
            entry, announce, "HandWrittenLoop", delivery="at_least_once", batch_rows=java_batch_rows
        ),
    ),
    Contestant(
        slug="kafka-streams",
        offered="lowest",
        title="Kafka Streams",
        guarantee=_exactly_once,
        prepare=_has_java,
        start=lambda entry, announce: _java(entry, announce, "StreamsApp", batch_rows=1),
    ),
    Contestant(
        slug="python-loop",
        offered="all",
        title="Python loop by hand",
        guarantee=_exactly_once,
        start=lambda entry, _: _python_loop(entry),
    ),
    Contestant(
        slug="python-loop-alo",
        title="Python loop by hand",
        guarantee=_at_least_once,
        start=lambda entry, _: _python_loop(entry, delivery="at_least_once"),
    ),
    Contestant(
        slug="python-loop-shap",
        title="Python loop with shap",
        guarantee=_exactly_once,
        prepare=_needs_shap,
        start=lambda entry, _: _python_loop(entry, explains=True),
        share=0.04,
        explains=True,
    ),
    _quix,
    replace(
        _quix,
        slug="quix-alo",
        offered="none",
        guarantee=_at_least_once,
        start=lambda entry, announce: _app(entry, announce, "quix", delivery="at_least_once"),
        share=0.5,
    ),
    Contestant(
        slug="faust",
        offered="lowest",
        title="Faust",
        guarantee=_at_least_once,
        prepare=_has_python("faust"),
        start=_faust,
        share=0.12,
    ),
    Contestant(
        slug="mlserver",
        title="MLServer",
        guarantee="none",
        prepare=_has_python("mlserver"),
        start=_mlserver,
        share=0.005,
        asks_in_json=True,
        note="reads JSON; no consumer group, starts at the end, commits nothing",
    ),
    _echo,
    replace(
        _echo,
        slug="echo-eos",
        guarantee=_exactly_once,
        start=lambda entry, _: _echo_command(entry, delivery="exactly_once"),
    ),
)
"""In the order of the table."""


def chosen(only: str) -> list[Contestant]:
    """Those that are named, comma-separated; all without a name. Raises ConfigError."""
    known = {contestant.slug: contestant for contestant in contestants}
    wanted = [name.strip() for name in only.split(",") if name.strip()] or list(known)
    for name in wanted:
        if name not in known:
            raise ConfigError(f"--only {name} is not one of {', '.join(known)}")
    return [contestant for slug, contestant in known.items() if slug in wanted]
