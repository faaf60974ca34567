"""Everything that a replay runs on: a broker with its topics, a scaler, and what starts and stops the workers."""

import shutil
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import yaml

from penstock.connectors.embedded.cluster import free_ports, require_free
from penstock.connectors.embedded.kafka import EmbeddedKafka
from penstock.connectors.embedded.process import KeptProcesses
from penstock.connectors.kafka.admin.admin import KafkaAdmin
from penstock.connectors.kafka.client import ClientConfig
from penstock.engine.clock import Clock
from penstock.schemas.errors import ConfigError
from penstock_bench.replay.audit import Audit, Watch, audit
from penstock_bench.replay.keda import Keda, Spec
from penstock_bench.replay.limits import limits_here
from penstock_bench.replay.load import Load
from penstock_bench.replay.network import write_network
from penstock_bench.replay.pods import PodPlan, Pods
from penstock_bench.scaling.autoscaler import Autoscaler, Behaviour
from penstock_bench.scaling.policies import Penstock

partitions: Final = 12
replicas_max: Final = 8
cores: Final = 0.08
"""A worker's limit: so little that several of them, a broker and the scaler fit on two cores."""
batch_rows_max: Final = 8
"""A record takes some milliseconds of a core: more in a batch would only be warmed up for."""
drain_budget_s: Final = 20.0
grace_s: Final = drain_budget_s + 15.0
revisions: Final = (1, 2)
turn_s: Final = 0.2
sample_s: Final = 1.0
_logs_told: Final = 4


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What was at one moment, seconds since 1970. `value`: what the scaler last said to the autoscaler."""

    at_s: float
    asked: int
    ready: int
    value: float


class World:
    """Made by `open_world`. Scales by what the scaler says while `scaling` is true; else as many as `replicas` says."""

    def __init__(
        self, *, pods: Pods, keda: Keda, load: Load, watch: Watch, sync_s: float, behaviour: Behaviour, clock: Clock,
        start_scaler: Callable[[], None],
    ) -> None:  # fmt: skip
        self.scaling = False
        self._start_scaler = start_scaler
        self.replicas = 0
        self.pods, self.keda, self.load, self.watch = pods, keda, load, watch
        self.samples: list[Sample] = []
        self.changes: list[tuple[float, int]] = []  # when another number was asked for, seconds since 1970
        self._sync_s, self._synced_s, self._sampled_s = sync_s, -1e9, -1e9
        self._autoscaler = Autoscaler(behaviour, 1, replicas_max=replicas_max)
        self._value = float("nan")
        self._clock = clock

    @property
    def wall_s(self) -> float:
        """Seconds since 1970."""
        return self._clock.wall_ms() / 1e3

    def begin_scaling(self) -> None:
        """Start the scaler, which has seen nothing of what was before: it would hold what that asked for."""
        self._start_scaler()
        self.scaling = True

    def turn(self) -> None:
        """A fifth of a second of the control plane's work."""
        now_s, before = self._clock.monotonic_s(), self.replicas
        if self.scaling:
            self.replicas = self.keda.turn(self.replicas)
            if self.replicas and now_s - self._synced_s >= self._sync_s:
                self._synced_s, self._value = now_s, self.keda.value()
                decided = self._autoscaler.sync(np.array([self._value]), np.array([self.replicas]), now_s)
                self.replicas = int(decided[0])
        if self.replicas != before:
            self.changes.append((self.wall_s, self.replicas))
        self.pods.replicas = self.replicas
        self.pods.turn()
        if now_s - self._sampled_s >= sample_s:
            self._sampled_s = now_s
            self.samples.append(
                Sample(at_s=self.wall_s, asked=self.replicas, ready=self.pods.ready, value=self._value)
            )
        self._clock.sleep(turn_s)

    def go_on(self, seconds: float) -> None:
        """So long."""
        end_s = self._clock.monotonic_s() + seconds
        while self._clock.monotonic_s() < end_s:
            self.turn()


@contextmanager
def open_world(
    *, objective_s: float, spec: Spec, sync_s: float, seed: int, clock: Clock
) -> Iterator[tuple[World, "Books"]]:
    """A world whose workers and scaler are real processes; all of it is gone in the end."""
    with ExitStack() as held:
        folder = Path(held.enter_context(TemporaryDirectory(prefix="penstock-replay-")))
        broker = held.enter_context(EmbeddedKafka())
        servers = broker.bootstrap_servers
        config = ClientConfig(bootstrap_servers=servers)
        KafkaAdmin(config, timeout_s=30.0).create_topics(
            {"in": partitions, "out": partitions, "aside": 1, "status": 1}
        )
        for revision in revisions:
            write_network(folder / f"model-{revision}", version=str(revision))
        ports = free_ports(2)
        settings = folder / "penstock.yaml"
        settings.write_text(
            yaml.safe_dump(_settings(servers, folder, objective_s=objective_s, http=ports[0], grpc=ports[1]))
        )
        processes = held.enter_context(closing(KeptProcesses(root=folder / "kept", temporary=True, files={})))
        limits = held.enter_context(closing(limits_here()))
        keda = held.enter_context(closing(Keda(f"127.0.0.1:{ports[1]}", spec, clock=clock)))
        plan = PodPlan(
            name="worker",
            command=lambda name, revision, port: _penstock(
                {
                    "PENSTOCK_IDENTITY": name, "PENSTOCK_HTTP__PORT": str(port),
                    "PENSTOCK_MODEL__PATH": str(folder / f"model-{revision}"),
                },
                "run", settings,
            ),
            ports=_pairs(replicas_max),
            grace_s=grace_s,
            cores=cores,
        )  # fmt: skip
        pods = held.enter_context(
            closing(Pods(plan, processes=processes, limits=limits, folder=folder, clock=clock))
        )
        load = Load(servers, "in", partitions=partitions, seed=seed, clock=clock)
        held.callback(load.close)
        watch = held.enter_context(closing(Watch(servers, "out", partitions=partitions, clock=clock)))
        world = World(
            pods=pods, keda=keda, load=load, watch=watch, sync_s=sync_s, behaviour=Penstock.behaviour, clock=clock,
            start_scaler=lambda: processes.start("scaler", _penstock({}, "scaler", settings), output=folder / "scaler.log"),
        )  # fmt: skip
        aside = held.enter_context(closing(Watch(servers, "aside", partitions=1, clock=clock)))
        yield world, Books(world, aside, folder, http=ports[0])


class Books:
    """What is looked up when all is over, or when something went wrong."""

    def __init__(self, world: World, aside: Watch, folder: Path, *, http: int) -> None:
        self._world, self._aside, self._folder, self._http = world, aside, folder, http

    def audit(self) -> Audit:
        """Of all records that were written; no more are."""
        records = self._world.load.close()
        return audit(self._world.watch.seen, len(self._aside.seen), records=records)

    def reported_capacity(self) -> tuple[float, bool]:
        """Records a second of one worker as the scaler has it, and whether that was measured; NaN where it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._http}/metrics", timeout=5.0) as answer:
                words = [line.rsplit(" ", 1) for line in answer.read().decode().splitlines()]
        except OSError:
            return float("nan"), False
        told = {
            words[0].partition("{")[0]: float(words[1]) for words in words if not words[0].startswith("#")
        }
        rate = told["penstock_scaling_capacity_records_per_second"]
        return rate, told["penstock_scaling_capacity_measured"] == 1.0

    def said(self) -> str:
        """The last line of each of the newest processes."""
        logs = sorted(self._folder.glob("*.log"), key=lambda log: log.stat().st_mtime)[-_logs_told:]
        last = {
            log.stem: (log.read_text(errors="replace").splitlines() or ["said nothing"])[-1] for log in logs
        }
        return "; ".join(f"{name}: {line}" for name, line in last.items())


def _settings(servers: str, folder: Path, *, objective_s: float, http: int, grpc: int) -> dict[str, Any]:
    return {
        "kafka": {"bootstrap_servers": servers, "group": "replay", "drain_budget_s": drain_budget_s},
        "input": {"topic": "in", "format": "json"},
        "output": {
            "predictions": "out", "dead_letters": "aside", "status": "status", "format": "json", "pass_fields": ["b"],
        },
        "model": {"path": str(folder / "model-1")},
        "objective": {"batch_rows_max": batch_rows_max},
        "http": {"port": http},
        "scaling": {"port": grpc, "max_age_s": objective_s, "min_replicas": 0, "max_replicas": replicas_max},
    }  # fmt: skip


def _penstock(environment: Mapping[str, str], command: str, settings: Path) -> Sequence[str]:
    given = [f"{name}={value}" for name, value in environment.items()]
    return [
        shutil.which("env") or "/usr/bin/env",
        *given,
        sys.executable,
        "-P",
        "-m",
        "penstock",
        command,
        str(settings),
    ]


def _pairs(count: int) -> list[int]:
    """Free ports of which the next one is free as well: a supervisor's, and its worker's."""
    found: list[int] = []
    while len(found) < count:
        (port,) = free_ports(1)
        try:
            require_free([port + 1])
        except ConfigError:
            continue
        if all(abs(port - other) > 1 for other in found):
            found.append(port)
    return found
