"""`penstock bench pipeline`: records from Kafka to Kafka, exactly once, beside a hand-written Python loop in the same run."""

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastavro
import lightgbm as lgb
import numpy as np
import yaml
from rich.table import Table

from connectors.embedded import EmbeddedKafka
from connectors.kafka_admin import KafkaAdmin
from connectors.kafka_client import ClientConfig
from connectors.kafka_offsets import KafkaOffsets
from connectors.kafka_plain import KafkaWriter
from engine.clock import Clock, SystemClock
from engine.codec.framing import single_object_prefix
from engine.models.packaging import package
from engine.terminal import Terminal
from schemas.errors import ConfigError, NotReadyError

summary = (
    "Throughput and CPU of whole workers on a real Kafka on this machine: exactly-once, 30 doubles a record, a model of 100 "
    "trees x depth 6. The middle eight tenths of the records are timed, so that start-up counts for nobody."
)
features, trees, depth, partitions = 30, 100, 6, 4
patience_s = 180.0
contestants = ("penstock", "penstock, every record explained", "hand-written Python loop")


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What one contestant did."""

    records_per_s: float
    cpu_us_per_record: float
    memory_mb: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this bench."""
    parser.add_argument(
        "--records", type=int, default=300_000, help="on the input topic (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="order of the contestants (default: %(default)s)")


def run(arguments: argparse.Namespace, terminal: Terminal, clock: Clock | None = None) -> dict[str, Any]:
    """Measure, show a table, and return all of it."""
    if not 10_000 <= arguments.records <= 20_000_000:
        raise ConfigError("--records is from 10000 to 20000000")
    clock = clock or SystemClock()
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        terminal.say("training and packaging a model, starting Kafka, writing the records ...")
        rng = np.random.default_rng(7)
        _make_bundle(folder, rng)
        with EmbeddedKafka(jvm="full") as broker:
            bench = _Bench(folder, broker.bootstrap_servers, arguments.records, clock)
            bench.fill(rng)
            order = list(contestants)
            random.Random(arguments.seed).shuffle(order)
            found = {}
            for contestant in order:
                terminal.say(f"running {contestant} ...")
                found[contestant] = bench.measure(contestant)
    table = Table("exactly-once", "records/s", "CPU us/record", "memory MB", "times the loop", box=None)
    loop = found["hand-written Python loop"]
    for contestant in contestants:
        each = found[contestant]
        table.add_row(
            contestant,
            f"{each.records_per_s:,.0f}",
            f"{each.cpu_us_per_record:.2f}",
            f"{each.memory_mb:.0f}",
            f"{each.records_per_s / loop.records_per_s:.2f}",
        )
    terminal.say(table)
    return {
        "records": arguments.records,
        "cores": os.cpu_count(),
        "contestants": {
            contestant: {
                "records_per_s": round(each.records_per_s),
                "cpu_us_per_record": round(each.cpu_us_per_record, 3),
                "memory_mb": round(each.memory_mb),
            }
            for contestant, each in found.items()
        },
    }


class _Bench:
    def __init__(self, folder: Path, servers: str, records: int, clock: Clock) -> None:
        self._folder, self._servers, self._records, self._clock = folder, servers, records, clock
        self._config = ClientConfig(bootstrap_servers=servers)
        self._admin = KafkaAdmin(self._config)
        self._admin.create_topics({"events": partitions})

    def fill(self, rng: np.random.Generator) -> None:
        """Rows that vary: repeated ones would measure the branch predictor."""
        writer = KafkaWriter(self._config, "events")
        prefix = single_object_prefix(_schema())
        names = [f"f{i}" for i in range(features)]
        parsed = fastavro.parse_schema(_schema())
        probe = io.BytesIO()
        fastavro.schemaless_writer(probe, parsed, dict.fromkeys(names, 0.0))
        assert len(probe.getvalue()) == 8 * features  # doubles only: the rows' own bytes are their encoding
        for start in range(0, self._records, 10_000):
            rows = rng.normal(size=(min(10_000, self._records - start), features))
            writer.write(
                [prefix + row.tobytes() for row in rows], keys=[b"%d" % (start + i) for i in range(len(rows))]
            )
        writer.flush(60.0)
        writer.close()

    def measure(self, contestant: str) -> Figures:
        slug = f"c{contestants.index(contestant)}"
        outputs = [f"{slug}-out", f"{slug}-why", f"{slug}-dead"]
        self._admin.create_topics(dict.fromkeys(outputs, partitions))
        command = self._command(contestant, slug, outputs)
        with (self._folder / f"{slug}.log").open("wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)
        offsets = KafkaOffsets(self._config, slug)
        try:
            began_s, before = self._wait_for(0.1, offsets, process, slug)
            cpu_before_s = _cpu_s(process.pid)
            ended_s, after = self._wait_for(0.9, offsets, process, slug)
            cpu_s = _cpu_s(process.pid) - cpu_before_s
            memory_mb = _memory_mb(process.pid)
        finally:
            offsets.close()
            process.terminate()
            process.wait(30)
        done = after - before
        return Figures(
            records_per_s=done / (ended_s - began_s),
            cpu_us_per_record=cpu_s / done * 1e6,
            memory_mb=memory_mb,
        )

    def _wait_for(
        self, share: float, offsets: KafkaOffsets, process: "subprocess.Popen[bytes]", slug: str
    ) -> tuple[float, int]:
        """When at least this share of the records is committed, and how many are."""
        deadline_s = self._clock.monotonic_s() + patience_s
        while self._clock.monotonic_s() < deadline_s:
            if process.poll() is not None:
                last = (self._folder / f"{slug}.log").read_text(errors="replace").splitlines()[-1:]
                raise NotReadyError(f"a contestant ended: {' '.join(last)}")
            done = sum(reading.committed or 0 for reading in offsets.read("events"))
            if done >= share * self._records:
                return self._clock.monotonic_s(), done
            self._clock.sleep(0.02)
        raise NotReadyError(f"a contestant did not get through the records in {patience_s:g} s")

    def _command(self, contestant: str, slug: str, outputs: Sequence[str]) -> list[str]:
        if contestant == "hand-written Python loop":
            given = {"servers": self._servers, "group": slug, "input": "events", "output": outputs[0], "schema": _schema(), "model": str(self._folder / "bundle" / "model.onnx")}  # fmt: skip
            return [sys.executable, "-m", "engine.bench.python_loop", json.dumps(given)]
        tree: dict[str, Any] = {
            "kafka": {"bootstrap_servers": self._servers, "group": slug, "delivery": "exactly_once"},
            "input": {"topic": "events"},
            "output": {"predictions": outputs[0], "dead_letters": outputs[2]},
            "model": {"path": str(self._folder / "bundle")},
            "http": {"port": 0},
        }
        if "explained" in contestant:
            tree["output"]["explanations"] = outputs[1]
        file = self._folder / f"{slug}.yaml"
        file.write_text(yaml.safe_dump(tree))
        return [sys.executable, "-m", "engine", "run", str(file)]


def _schema() -> dict[str, Any]:
    fields = [{"name": f"f{i}", "type": "double"} for i in range(features)]
    return {"type": "record", "name": "Event", "namespace": "penstock.bench", "fields": fields}


def _make_bundle(folder: Path, rng: np.random.Generator) -> None:
    X = rng.normal(size=(20_000, features)).astype(np.float32)
    y = X[:, 0] * X[:, 1] + np.sin(2 * X[:, 2]) + X[:, 3:8].sum(axis=1) + rng.normal(size=len(X))
    model = lgb.train(
        {"objective": "regression", "num_leaves": 1 << depth, "max_depth": depth, "min_data_in_leaf": 5, "verbose": -1, "num_threads": 1},
        lgb.Dataset(X, y),
        num_boost_round=trees,
    )  # fmt: skip
    schema = folder / "event.avsc"
    schema.write_text(json.dumps(_schema()))
    package(
        model,
        folder / "bundle",
        feature_names=[f"f{i}" for i in range(features)],
        rows=X[:500],
        input_schema=schema,
    )


def _family(pid: int) -> list[int]:
    """The process and its children: the supervisor has workers."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in _family(int(child)))]


def _cpu_s(pid: int) -> float:
    ticks = 0
    for each in _family(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _memory_mb(pid: int) -> float:
    pages = sum(int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in _family(pid))
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
