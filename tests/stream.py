"""A stream under test: records with keys, workers that can be hurt, and books that show what became of every record."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import yaml
from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, not re-exported
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    OffsetSpec,
    ResourceType,
)

from penstock.connectors.kafka.admin.admin import KafkaAdmin
from penstock.connectors.kafka.admin.group_offsets import KafkaOffsets, PartitionOffsets
from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.simple import KafkaReader, KafkaWriter
from penstock.engine.clock import SystemClock
from penstock.engine.codec.contracts import contract
from penstock.engine.codec.framing import single_object_header_bytes, single_object_prefix
from penstock.schemas.errors import UnavailableError
from penstock.schemas.records import Records

event_schema: dict[str, Any] = {
    "type": "record",
    "name": "Event",
    "namespace": "penstock.tests",
    "fields": [{"name": name, "type": "double"} for name in "abc"],
}
prefix = single_object_prefix(event_schema)
partitions = 6
key_count = 997
session_timeout_ms = 6000
Place = tuple[int, int]


def event(number: int) -> bytes:
    """What record `number` says: a is its sign in turn, b is its number."""
    return prefix + np.array([-1.0 if number % 2 else 1.0, float(number), 0.5]).tobytes()


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One output message: the input record it is about, its key, and what it says."""

    place: Place
    key: bytes | None
    body: Mapping[str, Any]


@dataclass(kw_only=True)
class Books:
    """Every input record, and every outcome in the order of its output partition."""

    inputs: dict[Place, bytes | None]
    predictions: Mapping[int, Sequence[Seen]]
    explanations: Mapping[int, Sequence[Seen]]
    letters: Mapping[int, Sequence[Seen]]
    faults: list[str] = field(default_factory=list)

    def check(self, *, duplicates: bool = False, explained: bool = True) -> list[str]:
        """What is wrong, in words; empty when every record has one outcome, with its explanation, in order per key."""
        counts = [self._count(seen) for seen in (self.predictions, self.explanations, self.letters)]
        predicted, reasons, rejected = counts
        for place in self.inputs:
            outcomes = predicted.get(place, 0) + rejected.get(place, 0)
            if outcomes == 0:
                self.faults.append(f"{place} is lost")
            if outcomes > 1 and not duplicates:
                self.faults.append(f"{place} has {outcomes} outcomes")
            if explained and predicted.get(place, 0) and not reasons.get(place, 0):
                self.faults.append(f"{place} is not explained")
            if reasons.get(place, 0) > 1 and not duplicates:
                self.faults.append(f"{place} is explained {reasons[place]} times")
        self.faults += [
            f"{place} was never an input" for count in counts for place in count.keys() - self.inputs.keys()
        ]
        if not duplicates:
            self._check_order("predictions", self.predictions)
            self._check_order("explanations", self.explanations)
        return self.faults

    def _count(self, topic: Mapping[int, Sequence[Seen]]) -> dict[Place, int]:
        found: dict[Place, int] = {}
        for seen in (each for rows in topic.values() for each in rows):
            found[seen.place] = found.get(seen.place, 0) + 1
            if seen.key != self.inputs.get(seen.place, seen.key):
                self.faults.append(f"{seen.place} came out with another key")
        return found

    def _check_order(self, name: str, topic: Mapping[int, Sequence[Seen]]) -> None:
        where: dict[bytes | None, int] = {}
        newest: dict[bytes | None, Place] = {}
        for partition, rows in topic.items():
            for seen in rows:
                if where.setdefault(seen.key, partition) != partition:
                    self.faults.append(f"{name} of key {seen.key!r} are in two partitions")
                if seen.key in newest and newest[seen.key] >= seen.place:
                    self.faults.append(f"{name}: {seen.place} comes behind {newest[seen.key]}")
                newest[seen.key] = seen.place


class Stream:
    """Topics, a group and its workers on one broker. Everything it starts ends with `close`."""

    def __init__(
        self,
        folder: Path,
        servers: str,
        name: str,
        model: Path,
        *,
        explained: bool = True,
        session_ms: int = session_timeout_ms,
        **changes: Any,
    ) -> None:
        """`changes`: settings by section, over the plain ones; `session_ms`: how long a killed worker's partitions stand still."""
        self.servers, self.name, self.folder = servers, name, folder
        self._clock = SystemClock()
        self._asking: AdminClient | None = None
        self.config = ClientConfig(bootstrap_servers=servers)
        outputs = {"predictions": f"{name}-p", "explanations": f"{name}-e", "dead_letters": f"{name}-d"}
        KafkaAdmin(self.config, timeout_s=30.0).create_topics(
            dict.fromkeys([name, *outputs.values()], partitions)
        )
        self.outputs = outputs
        tree: dict[str, Any] = {
            "kafka": {
                "bootstrap_servers": servers,
                "group": f"{name}-group",
                "drain_budget_s": 20.0,
            },
            "input": {"topic": name},
            "output": outputs if explained else {**outputs, "explanations": None},
            "model": {"path": str(model)},
            "http": {"port": 0},
        }
        for section, values in changes.items():
            tree[section] = {**tree.get(section, {}), **values} if isinstance(values, dict) else values
        self._shorten_sessions(tree["kafka"], session_ms)
        self.settings = folder / f"{name}.yaml"
        self.settings.write_text(yaml.safe_dump(tree))
        self._started: list[subprocess.Popen[bytes]] = []
        self._feeder: threading.Thread | None = None
        self._enough = threading.Event()
        self.expected = 0

    def _shorten_sessions(self, kafka: dict[str, Any], session_ms: int) -> None:
        if kafka.get("protocol") != "consumer":
            # The transaction's time-out is longer than what the tests wait for readers, so that none of them ends by it.
            short = {"session.timeout.ms": session_ms, "transaction.timeout.ms": 30_000}
            kafka["client"] = {**short, **kafka.get("client", {})}
            return
        name = "consumer.session.timeout.ms"  # here the broker decides
        entry = ConfigEntry(name, str(session_ms), incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.GROUP, kafka["group"], incremental_configs=[entry])
        client = AdminClient({"bootstrap.servers": self.servers})
        for altered in client.incremental_alter_configs([resource]).values():
            with suppress(
                KafkaException
            ):  # below the minimum of a broker that is not ours: then it takes longer
                altered.result(30)

    def feed(
        self, values: Sequence[bytes | None], *, per_s: float, keys: Sequence[bytes] | None = None
    ) -> None:
        """Write records at this rate from a thread; without keys of its own, a few come again and again."""
        self.expected = len(values)
        keys = keys or [b"k%d" % (i % key_count) for i in range(len(values))]
        self._enough.clear()
        self._feeder = threading.Thread(target=self._feed, args=(values, keys, per_s))
        self._feeder.start()

    def wait_fed(self) -> None:
        """Until all that is fed is written."""
        assert self._feeder is not None
        self._feeder.join()

    def feed_no_more(self) -> None:
        """Until what is on its way is written; the rest never is."""
        self._enough.set()
        self.wait_fed()

    def _feed(self, values: Sequence[bytes | None], keys: Sequence[bytes], per_s: float) -> None:
        writer = KafkaWriter(self.config, self.name)
        began_s, some = time.monotonic(), max(min(500, round(per_s / 20)), 1)
        try:
            for first in range(0, len(values), some):
                part = values[first : first + some]
                writer.write(part, keys=keys[first : first + some])
                if self._enough.wait(max(began_s + (first + some) / per_s - time.monotonic(), 0.0)):
                    break
            writer.flush(120.0)
        finally:
            writer.close()

    def start(
        self,
        identity: str,
        *,
        command: Sequence[str] = (sys.executable, "-P", "-m", "penstock"),
        cwd: Path | None = None,
    ) -> "subprocess.Popen[bytes]":
        """`penstock run` in a process of its own, once it has begun its worker; the same identity is the same worker."""
        log = (self.folder / f"{self.name}-{identity}.log").open("ab")
        with log:
            process = subprocess.Popen(
                [*command, "run", str(self.settings)],
                cwd=cwd,
                env={**os.environ, "PENSTOCK_IDENTITY": identity},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._started.append(process)
        while process.poll() is None and not children(process):
            time.sleep(0.02)
        return process

    def said(self) -> str:
        """The end of what the workers wrote, for a failing test."""
        logs = sorted(self.folder.glob(f"{self.name}-*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in logs)

    def committed(self) -> int:
        """Records committed by the group."""
        return sum(self.committed_by_partition().values())

    def committed_by_partition(self) -> dict[int, int]:
        """The same for each partition."""
        return {each.partition: each.committed or 0 for each in self._offsets()}

    def ends_by_partition(self) -> dict[int, int]:
        """Where each input partition's log ends."""
        return {each.partition: each.high for each in self._offsets()}

    def _offsets(self) -> list[PartitionOffsets]:
        offsets = KafkaOffsets(self.config, f"{self.name}-group")
        try:
            return offsets.read(self.name)
        finally:
            offsets.close()

    def wait(self, share: float, timeout_s: float) -> None:
        """Until this share of what is fed is committed."""
        end_s, done = time.monotonic() + timeout_s, 0
        while time.monotonic() < end_s and self._may_go_on():
            try:
                done = self.committed()
            except UnavailableError:  # the broker may be what is hurt
                continue
            if done >= share * self.expected:
                return
            time.sleep(0.02)
        raise AssertionError(
            f"{done} of {self.expected} records were committed, and {timeout_s:g} s had passed or every worker given up\n{self.said()}"
        )

    def _may_go_on(self) -> bool:
        """Unless every supervisor has given up."""
        return any(process.poll() in (None, 0, -signal.SIGKILL) for process in self._started)

    def await_readers(self, timeout_s: float) -> None:
        """Until no transaction is open: a killed worker's own ends when its successor starts, not with the last commit."""
        end_s = time.monotonic() + timeout_s
        while hidden := self.hidden():
            assert time.monotonic() < end_s, f"{hidden} are hidden behind open transactions\n{self.said()}"
            time.sleep(0.05)

    def hidden(self) -> dict[tuple[str, int], tuple[int, int]]:
        """Output partitions that a read_committed reader cannot read to their ends: how far it can, and the end."""
        if self._asking is None:  # a client of its own for each look would see a transaction when it is over
            self._asking = AdminClient({"bootstrap.servers": self.servers})
        client = self._asking
        places = [TopicPartition(topic, p) for topic in self.outputs.values() for p in range(partitions)]
        newest: OffsetSpec = OffsetSpec.latest()
        ends: list[dict[tuple[str, int], int]] = []
        for level in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED):
            asked = client.list_offsets(dict.fromkeys(places, newest), isolation_level=level)
            ends.append(
                {(place.topic, place.partition): told.result(30).offset for place, told in asked.items()}
            )
        readable, written = ends
        return {place: (readable[place], end) for place, end in written.items() if readable[place] < end}

    def books(self) -> Books:
        """What a read_committed reader finds now."""
        topics = {name: self._read(topic) for name, topic in self.outputs.items()}
        decoded = {
            name: self._decoded(records, contract(name.removesuffix("s"))) for name, records in topics.items()
        }
        inputs = {
            (int(partition), int(offset)): key
            for part in self._read(self.name)
            for partition, offset, key in zip(part.partitions, part.offsets, part.keys, strict=True)
        }
        return Books(
            inputs=inputs,
            predictions=decoded["predictions"],
            explanations=decoded["explanations"],
            letters=decoded["dead_letters"],
        )

    def close(self) -> None:
        """Stop every worker, gently, then not."""
        if self._feeder is not None:
            self._feeder.join()
        running = [process for process in self._started if process.poll() is None]
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _read(self, topic: str) -> list[Records]:
        reader = KafkaReader(self.config, topic, self._clock)
        try:
            return reader.read_to_end(60.0)
        finally:
            reader.close()

    def _decoded(self, parts: Sequence[Records], schema: Any) -> dict[int, list[Seen]]:
        parsed = fastavro.parse_schema(schema)
        found: dict[int, list[Seen]] = {}
        for part in parts:
            for partition, key, value in zip(part.partitions.tolist(), part.keys, part.values, strict=True):
                assert value is not None
                body: Any = fastavro.schemaless_reader(
                    io.BytesIO(value[single_object_header_bytes:]), parsed, None
                )
                source = body["source"]
                place = (source["partition"], source["offset"])
                found.setdefault(partition, []).append(Seen(place=place, key=key, body=body))
        return found


def children(process: "subprocess.Popen[bytes]") -> list[int]:
    """Process ids of the workers under a supervisor."""
    try:
        return [
            int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        ]
    except FileNotFoundError:
        return []


def kill(pid: int) -> None:
    """kill -9; one that ended meanwhile is none to kill."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
