"""A lane: a stream of its own on a real broker, where one cell after the other is lived through by the real engine."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import numpy as np
from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, not re-exported
    AdminClient,
    NewTopic,
    OffsetSpec,
)

from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.reading.source import KafkaSource
from penstock.connectors.kafka.sinks import ExactlyOnceSink, KafkaAtLeastOnceSink
from penstock.engine.clock import SystemClock
from penstock.engine.pipeline.batcher import Batch, Batcher, CostCurve
from penstock.engine.pipeline.compute import ComputeThread, Finished, Held
from penstock.engine.pipeline.hooks import Waiting
from penstock.engine.pipeline.ledger import Ledger
from penstock.engine.pipeline.pacing import CommitBySource, CommitInTransaction, PipelineLimits
from penstock.engine.pipeline.pipeline import Pipeline
from penstock.engine.pipeline.rejection_limit import PartitionBreakers
from penstock.engine.pipeline.scorer import Outcome
from penstock.engine.worker.assembly import error_of
from penstock.schemas.errors import PenstockError
from penstock.schemas.records import Outgoing, Records
from tests.error_matrix.cells import Cell, Kind
from tests.error_matrix.verdict import Verdict
from tests.wire.proxy import Proxy, Rule

partitions: Final = 2
wave_records: Final = 4  # in each partition
deadline_s: Final = 60.0
"""Of a worker; on a quiet machine none takes half of it."""
not_asked_s: Final = 15.0
transaction_timeout_s: Final = 6.0
_open_s: Final = 30.0
"""A transaction that was left open is ended by the broker long before."""
clock = SystemClock()
logger = logging.getLogger("tests.error_matrix")
Place = tuple[int, int]
Result = TypeVar("Result")
_new_process_s: Final = (
    1.0  # until a new process asks for anything, a request of the old one's has arrived or is lost
)


@dataclass
class _Hooks:
    """Sees how far the pipeline is."""

    verdict: Verdict
    positions: Mapping[int, int] = field(default_factory=dict)
    _turned_s: float | None = None

    def turn(self, *, ledger: Ledger, waiting: Waiting) -> None:
        now_s = clock.monotonic_s()
        if self._turned_s is not None:
            self.verdict.turn_s_max = max(self.verdict.turn_s_max, now_s - self._turned_s)
        self._turned_s = now_s
        self.positions = ledger.positions()

    def draining(self) -> None: ...
    def batch_closed(self, batch: Batch) -> None: ...
    def delivered(self, finished: Sequence[Finished], *, took_s: float) -> None: ...

    def rewound(self, *, cause: str) -> None:
        self.verdict.rewound[cause] += 1

    def rebalanced(self, *, assigned: Sequence[int], lost: bool = False) -> None: ...
    def holding(self, held: Mapping[int, Held]) -> None: ...
    def stopped(self, *, unfinished: int) -> None: ...


def _answer(number: int) -> bytes:
    """What the stages make of record `number`."""
    return b"%d" % (3 * number + 1)


def _insist(call: Callable[[], Result]) -> Result:
    """What the call gives, once the broker knows the topic that was just made."""
    end_s = time.monotonic() + 20.0
    while True:
        try:
            return call()
        except KafkaException:
            if time.monotonic() > end_s:
                raise
            time.sleep(0.1)


class Lane:
    """Topics, a group and transactional ids that no other lane uses. One thread."""

    def __init__(self, servers: str, proxy: Proxy, name: str, kind: Kind) -> None:
        self.name, self.kind = name, kind
        self._proxy = proxy
        self._source_topic, self._target_topic = f"{name}-in", f"{name}-out"
        self._group = f"{name}-group"
        self._config = ClientConfig(
            bootstrap_servers=proxy.bootstrap_servers,
            properties={
                "client.id": f"{name}-",
                "transaction.timeout.ms": int(transaction_timeout_s * 1000),
                **(
                    {}
                    if kind == "consumer_protocol"
                    else {"session.timeout.ms": 3000, "heartbeat.interval.ms": 100}
                ),
            },
        )
        direct: dict[str, Any] = {"bootstrap.servers": servers, "logger": logger}
        self._direct = direct
        self._admin = AdminClient(direct)
        made = self._admin.create_topics(
            [NewTopic(topic, num_partitions=partitions) for topic in (self._source_topic, self._target_topic)]
        )
        for future in made.values():
            future.result(30.0)
        self._writer = Producer({**direct, "linger.ms": 0, "enable.idempotence": True})
        self._reader = Consumer(
            {
                **direct, "group.id": f"{name}-reader", "isolation.level": "read_committed",
                "enable.auto.commit": False, "enable.partition.eof": True, "fetch.wait.max.ms": 20,
            }
        )  # fmt: skip
        self._reader.assign([TopicPartition(self._target_topic, p, 0) for p in range(partitions)])
        self._read_to = dict.fromkeys(range(partitions), 0)
        self._numbers: dict[Place, int] = {}  # what every input record says
        self._ends = dict.fromkeys(range(partitions), 0)
        self._first = dict.fromkeys(range(partitions), 0)  # of the cell that is lived through
        self._count = 0

    def close(self) -> None:
        """Let go of the clients."""
        self._reader.close()

    def live(self, cell: Cell) -> Verdict:
        """One cell: a worker, the error, and where the worker ends by it, its successor."""
        verdict = Verdict(cell=cell)
        if cell.spot.fresh_group:
            self._begin_a_group()
        self._first = dict(self._ends)
        began_s = clock.monotonic_s()
        self._write()
        spot = cell.spot
        rule = self._proxy.add(
            Rule(api=spot.api, action=spot.action(cell.code), client_id=f"{self.name}-", about=spot.about)
        )
        try:
            self._work(verdict, rule, waits_for_rule=not spot.at_the_end)
        except PenstockError as error:
            verdict.ended_by = type(error).__name__
        except Exception as error:  # noqa: BLE001  # anything else is what the cell looks for
            verdict.faults.append(f"{type(error).__name__}: {error}")
        verdict.struck = rule.struck.is_set()
        self._proxy.remove(rule)
        if verdict.ended_by or verdict.faults:
            self._succeed(verdict, rule)
        verdict.took_s = clock.monotonic_s() - began_s
        self._check(verdict)
        return verdict

    def _begin_a_group(self) -> None:
        """A new group on a topic whose old records are gone."""
        self._count += 1
        self._group = f"{self.name}-group-{self._count}"
        before = [TopicPartition(self._source_topic, p, end) for p, end in self._ends.items()]
        _insist(lambda: [future.result(30.0) for future in self._admin.delete_records(before).values()])

    def _succeed(self, verdict: Verdict, rule: Rule) -> None:
        """What the supervisor starts in a worker's place, with nothing in its way."""
        clock.sleep(_new_process_s)
        if self._ends == {p: self._first[p] + wave_records for p in range(partitions)}:
            self._write()
        quiet = Verdict(cell=verdict.cell)
        try:
            self._work(quiet, rule, waits_for_rule=False)
        except PenstockError as error:
            verdict.faults.append(f"the successor ended, too: {error}")
        except Exception as error:  # noqa: BLE001
            verdict.faults.append(f"the successor: {type(error).__name__}: {error}")
        verdict.faults += quiet.faults

    def _write(self) -> None:
        """Some records into every partition."""
        for partition in range(partitions):
            for _ in range(wave_records):
                offset = self._ends[partition]
                number = len(self._numbers)
                self._numbers[partition, offset] = number
                self._writer.produce(self._source_topic, b"%d" % number, b"%d" % partition, partition)
                self._ends[partition] = offset + 1
        assert self._writer.flush(30.0) == 0

    def _work(self, verdict: Verdict, rule: Rule, *, waits_for_rule: bool) -> None:
        """A worker from its start until everything is committed, and its clean end."""
        began_s = clock.monotonic_s()
        sink: ExactlyOnceSink | KafkaAtLeastOnceSink = self._sink()
        compute = ComputeThread(
            self._score,
            batches_max=4,
            monotonic_s=clock.monotonic_s,
            error_of=error_of,
            require=lambda _: None,
        )
        hooks = _Hooks(verdict)
        pipeline: Pipeline | None = None
        try:
            pipeline = Pipeline(
                source=self._source,
                sink=sink,
                compute=compute,
                batcher=Batcher(rows_max=64, latency_slo_s=0.05, cost=CostCurve([(1, 0.0001), (64, 0.001)])),
                breaker=lambda: PartitionBreakers(run_max=1000, share_max=1.0, window=1000),
                watcher=hooks,
                clock=clock,
                commits=CommitBySource() if self.kind == "at_least_once" else CommitInTransaction(),
                limits=PipelineLimits(drain_budget_s=5.0),
            )

            def done() -> bool:
                now_s = clock.monotonic_s()
                everything = all(hooks.positions.get(p, -1) >= end for p, end in self._ends.items())
                if everything and waits_for_rule and not rule.struck.is_set():
                    return now_s - began_s > not_asked_s  # it is not asked in this place
                if everything and self._ends[0] == self._first[0] + wave_records:
                    self._write()  # what comes behind the error
                    return False
                if now_s - began_s > deadline_s:
                    verdict.faults.append(f"hangs: positions {dict(hooks.positions)}, ends {self._ends}")
                    return True
                return everything

            pipeline.run(until=done)
        finally:
            compute.close(timeout_s=1.0)
            if pipeline is None:
                sink.close(1.0)
            else:
                pipeline.close(2.0)
            verdict.renewals += getattr(sink, "renewals", 0)

    def _source(self, listener: Any) -> KafkaSource:
        return KafkaSource(
            self._config,
            group=self._group,
            topic=self._source_topic,
            protocol="consumer" if self.kind == "consumer_protocol" else "classic",
            start="earliest",
            listener=listener,
            exactly_once=self.kind != "at_least_once",
            max_poll_interval_s=10.0,
            memory_bytes_max=8 << 20,
            clock=clock,
        )

    def _sink(self) -> ExactlyOnceSink | KafkaAtLeastOnceSink:
        counts = {self._source_topic: partitions, self._target_topic: partitions}
        if self.kind == "at_least_once":
            return KafkaAtLeastOnceSink(
                self._config,
                topic=self._source_topic,
                partition_counts=counts,
                clock=clock,
                message_timeout_s=10.0,
            )
        return ExactlyOnceSink(
            self._config,
            group=self._group,
            topic=self._source_topic,
            transactional_ids=(f"{self.name}-a", f"{self.name}-b"),
            partition_counts=counts,
            clock=clock,
            memory_bytes_max=8 << 20,
            start_timeout_s=deadline_s / 3,
        )

    def _score(self, records: Records) -> Outcome:
        values = [
            b"%d %d " % (partition, offset) + _answer(int(value or 0))
            for partition, offset, value in zip(
                records.partitions.tolist(), records.offsets.tolist(), records.values, strict=True
            )
        ]
        outgoing = Outgoing(
            topic=self._target_topic, keys=records.keys, values=list(values), partitions=records.partitions
        )
        return Outcome(
            outgoing=(outgoing,), predicted=len(records), explained=0, skipped=0, rejections=(),
            bad=np.zeros(len(records), np.bool_), stage_s={},
        )  # fmt: skip

    def _check(self, verdict: Verdict) -> None:
        """Read what is committed since the last cell, and compare it with what was written since."""
        wanted = {place for place in self._numbers if place[1] >= self._first[place[0]]}
        found: Counter[Place] = Counter()
        values_by_partition = self._read(verdict)
        for partition, values in values_by_partition.items():
            newest = -1
            for value in values:
                source, offset, answer = value.split(b" ")
                place = (int(source), int(offset))
                found[place] += 1
                if answer != _answer(self._numbers.get(place, -1)):
                    verdict.faults.append(f"{place} says {answer!r}")
                if place not in wanted and self.kind != "at_least_once":
                    verdict.faults.append(f"{place} comes again from an earlier cell")
                if self.kind != "at_least_once" and (place[0] != partition or place[1] <= newest):
                    verdict.faults.append(f"{place} comes behind {newest} in partition {partition}")
                newest = place[1]
        lost = sorted(wanted - found.keys())
        doubled = sorted(place for place, times in found.items() if times > 1)
        if lost:
            verdict.faults.append(f"lost: {lost}")
        if doubled and self.kind != "at_least_once":
            verdict.faults.append(f"doubled: {doubled}")
        committed = self._committed()
        ahead = any(committed.get(p, -1) > end for p, end in self._ends.items())
        if ahead if self.kind == "at_least_once" else committed != self._ends:
            verdict.faults.append(f"committed {committed}, and the topic ends at {self._ends}")

    def _read(self, verdict: Verdict) -> dict[int, list[bytes]]:
        """What a reader of committed records finds up to the end, or as far as an open transaction lets it; that it did not come
        so far is a fault of its own."""
        end_s = time.monotonic() + _open_s
        while True:
            readable, ends = (
                _insist(lambda level=level: self._ends_by(level))  # type: ignore[misc]
                for level in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED)
            )
            if readable == ends or time.monotonic() > end_s:  # a transaction's markers come behind its answer
                break
            time.sleep(0.02)
        found: dict[int, list[bytes]] = {p: [] for p in readable}
        if readable != ends:
            verdict.faults.append(f"a transaction is still open: {readable} of {ends} can be read")
        end_s = time.monotonic() + deadline_s
        while any(self._read_to[p] < end for p, end in readable.items()) and time.monotonic() < end_s:
            message = self._reader.poll(0.5)
            if message is None:
                continue
            error, partition, offset = message.error(), message.partition(), message.offset()
            assert partition is not None
            assert offset is not None
            if error is None:
                found[partition].append(message.value() or b"")
                self._read_to[partition] = offset + 1
            elif error.code() == KafkaError._PARTITION_EOF:  # passes over what was aborted
                self._read_to[partition] = offset
        if any(self._read_to[p] < end for p, end in readable.items()):
            verdict.faults.append(f"the test could not read its answers: {self._read_to} of {readable}")
        return found

    def _ends_by(self, level: IsolationLevel) -> dict[int, int]:
        """How far a reader with this isolation may read."""
        asked = {TopicPartition(self._target_topic, p): OffsetSpec.latest() for p in range(partitions)}
        told = self._admin.list_offsets(asked, isolation_level=level, request_timeout=10)
        return {place.partition: future.result(15.0).offset for place, future in told.items()}

    def _committed(self) -> dict[int, int]:
        asking = Consumer({**self._direct, "group.id": self._group})
        places = [TopicPartition(self._source_topic, p) for p in range(partitions)]
        try:
            told = _insist(lambda: asking.committed(places, timeout=10.0))
            return {place.partition: place.offset for place in told}
        finally:
            asking.close()
