"""A worker of the simulation: the engine's pipeline and connectors, over clients and a compute side that are simulated."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from confluent_kafka import Consumer, Producer

from penstock.connectors.kafka import producers, rejoin, sinks
from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.reading import member as membership
from penstock.connectors.kafka.reading import source as reading
from penstock.connectors.kafka.reading import starts
from penstock.connectors.kafka.reading.source import KafkaSource
from penstock.connectors.kafka.sinks import ExactlyOnceSink, KafkaAtLeastOnceSink
from penstock.engine.pipeline.batcher import Batch, Batcher, CostCurve
from penstock.engine.pipeline.compute import Finished, Held
from penstock.engine.pipeline.hooks import Waiting
from penstock.engine.pipeline.ledger import Ledger
from penstock.engine.pipeline.pacing import CommitBySource, CommitInTransaction, PipelineLimits
from penstock.engine.pipeline.pipeline import Pipeline
from penstock.engine.pipeline.rejection_limit import PartitionBreakers
from penstock.engine.pipeline.scorer import Outcome, Scorer
from penstock.engine.ports import AssignmentListener, Delivery, Sink
from penstock.schemas.errors import UnavailableError
from penstock.schemas.records import Records
from penstock.schemas.waits import WaitKind
from penstock_bench.faults.cluster import (
    Cluster,
    SimulatedAside,
    group,
    input_topic,
    output_topics,
)
from penstock_bench.faults.consumer import SimulatedConsumer
from penstock_bench.faults.fates import Trouble
from penstock_bench.faults.journal import Journal
from penstock_bench.faults.lookups import NoStalls, SimulatedBounds, SimulatedLooks, SimulatedWatch
from penstock_bench.faults.producer import SimulatedProducer
from penstock_bench.faults.timeline import Timeline

rows_max, batches_max = 16, 3
poll_interval_max_s = 20.0
call_wait_max_s = 0.201
"""The polling thread waits no longer in any call of the sink."""


class _Closed:
    """The thread that has closed a consumer: it is done when it is begun."""

    def __init__(self, consumer: SimulatedConsumer) -> None:
        consumer.close()

    def join(self, timeout_s: float) -> None: ...


@contextmanager
def simulated_clients(cluster: Cluster) -> Iterator[None]:
    """Meanwhile the connectors for Kafka get simulated clients of this cluster instead of librdkafka's."""
    made: Mapping[Any, Any] = {Consumer: SimulatedConsumer, Producer: SimulatedProducer}

    def opener(kind: Any, properties: Mapping[str, Any]) -> Any:
        return made[kind](cluster, properties)

    replaced: list[tuple[Any, str, Any]] = [
        (membership, "open_client", opener),
        (reading, "open_client", opener),
        (sinks, "open_client", opener),
        (producers, "open_client", opener),
        (producers, "Aside", lambda _: SimulatedAside(cluster)),
        (reading, "TopicWatch", lambda _, topic, **__: _watch_of(cluster, topic)),
        (reading, "LogBounds", lambda _, topic, **__: SimulatedBounds(cluster, topic)),
        (reading, "BatchLooks", lambda _, topic, **__: SimulatedLooks(cluster, topic)),
        (reading, "StallDetector", lambda **_: NoStalls()),
        (membership, "close_aside", _Closed),
        (sinks, "close_aside", _Closed),
        (rejoin, "Aside", lambda _: SimulatedAside(cluster)),
        (starts, "Aside", lambda _: SimulatedAside(cluster)),
        (rejoin, "group_is_served", lambda *_: cluster.is_served()),
        (rejoin, "leave_group", lambda *_, member_id, **__: cluster.group(group).leave(member_id)),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in replaced]
    try:
        for module, name, value in replaced:
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def _watch_of(cluster: Cluster, topic: str) -> SimulatedWatch:
    watch = SimulatedWatch(cluster, topic)
    cluster.watches.append(watch)
    return watch


class TimedCompute:
    """penstock.engine.pipeline.compute.Compute in simulated time: scores in line, and each batch takes as long as chance wants."""

    def __init__(self, scorer: Scorer, cluster: Cluster) -> None:
        self._scorer, self._fates, self._timeline = scorer, cluster.fates, cluster.timeline
        self._queue: deque[tuple[float, Finished]] = deque()  # ends at, in order
        self.queued_rows = 0
        self._unwanted: Finished | None = None
        self._waits: dict[int, tuple[float, Held]] = {}  # until when

    @property
    def waiting(self) -> Mapping[int, Held]:
        now_s = self._timeline.now_s
        return {partition: held for partition, (until_s, held) in self._waits.items() if until_s > now_s}

    def let_go(self, partitions: Sequence[int]) -> None:
        for partition in partitions:
            self._waits.pop(partition, None)

    def has_room(self) -> bool:
        return len(self._queue) < batches_max

    def submit(self, batch: Batch) -> None:
        drawn, now_s = self._fates.random, self._timeline.now_s
        takes_s = drawn.choice((0.0, 0.001, 0.001, 0.004, 0.03))
        if self._fates.chance(0.05, Trouble.SLOW):
            self._fates.disturbed()
            takes_s = drawn.choice((0.1, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 12.0))  # the last outlasts a drain
        records = Records.join([poll.records for poll in batch.polls])
        outcome: Outcome | None = None
        waits: dict[int, Held] = {}
        try:
            outcome = self._scorer.score(records)
        except UnavailableError as error:
            waits = {
                drawn.choice(records.partitions.tolist()): Held(kind=WaitKind.REGISTRY, reason=str(error))
            }
            until_s = now_s + takes_s + drawn.choice((0.0, 0.01, 0.5))
            self._waits |= {partition: (until_s, held) for partition, held in waits.items()}
        starts_s = max(now_s, self._queue[-1][0] if self._queue else 0.0)
        finished = Finished(batch=batch, outcome=outcome, busy_s=takes_s, waiting=waits)
        self._queue.append((starts_s + takes_s, finished))
        self.queued_rows += batch.rows

    def collect(self, timeout_s: float) -> Finished | None:
        if self._unwanted is not None:
            unwanted, self._unwanted = self._unwanted, None
            return unwanted
        if not self._queue:
            if timeout_s > 0:
                self._timeline.sleep(timeout_s)
            return None
        ends_s = self._queue[0][0]
        if ends_s > self._timeline.now_s and timeout_s > 0:
            self._timeline.sleep(min(timeout_s, ends_s - self._timeline.now_s))
        if ends_s > self._timeline.now_s:
            return None
        finished = self._queue.popleft()[1]
        self.queued_rows -= finished.batch.rows
        return finished

    def forget(self) -> None:
        """What was in work comes out all the same, as the worst that the port allows."""
        self._unwanted = self._queue[0][1] if self._queue else None
        self._queue.clear()
        self.queued_rows = 0


class TimedSink:
    """A sink whose waits are looked at."""

    def __init__(self, inner: Sink, timeline: Timeline) -> None:
        self._inner, self._timeline = inner, timeline

    def has_room(self) -> bool:
        began_s = self._timeline.now_s
        room = self._inner.has_room()
        self._waited("has_room", began_s)
        return room

    def submit(self, delivery: Delivery, membership: object) -> None:
        began_s = self._timeline.now_s
        self._inner.submit(delivery, membership)
        self._waited("submit", began_s)

    def advance(self, timeout_s: float) -> int:
        began_s = self._timeline.now_s
        completed = self._inner.advance(timeout_s)
        self._waited("advance", began_s)
        return completed

    def abort(self) -> int:
        return self._inner.abort()

    def close(self, timeout_s: float) -> None:
        self._inner.close(timeout_s)

    def _waited(self, call: str, began_s: float) -> None:
        waited_s = self._timeline.now_s - began_s
        if waited_s > call_wait_max_s:
            raise AssertionError(f"{call} of the sink waited {waited_s:.3f} s on the polling thread")


class WatchfulHooks:
    """penstock.engine.pipeline.hooks.PipelineHooks that holds the loop to its bounds."""

    def __init__(self, deliveries_max: int, delivery_rows_max: int) -> None:
        compute = rows_max * batches_max
        self._compute_max = compute
        # A drain takes what the compute side has before there is room for it.
        self._delivery_max = (deliveries_max + 1) * delivery_rows_max + rows_max - 1 + compute

    def turn(self, *, ledger: Ledger, waiting: Waiting) -> None:
        if (
            waiting.batcher > rows_max
            or waiting.compute > self._compute_max
            or waiting.delivery + waiting.compute > self._delivery_max
        ):
            raise AssertionError(f"more rows wait than may: {waiting}")

    def draining(self) -> None: ...
    def batch_closed(self, batch: Batch) -> None: ...
    def delivered(self, finished: Sequence[object], *, took_s: float) -> None: ...
    def rewound(self, *, cause: str) -> None: ...
    def rebalanced(self, *, assigned: Sequence[int], lost: bool = False) -> None: ...
    def holding(self, held: Mapping[int, Held]) -> None: ...
    def stopped(self, *, unfinished: int) -> None: ...


class Worker:
    """One process: what is real in it is everything between the client library and the model."""

    def __init__(
        self,
        cluster: Cluster,
        journal: Journal,
        make_scorer: Callable[[], Scorer],
        slot: int,
        drain_budget_s: float,
    ) -> None:
        """Raises what the engine raises at its start."""
        timeline = cluster.timeline
        self.slot = slot
        self.frozen_until_s = 0.0
        config = ClientConfig(bootstrap_servers="simulated:1")
        counts = {topic: cluster.partitions(topic) for topic in (input_topic, *output_topics)}
        exactly_once = journal.mode == "exactly_once"
        sink: Sink = (
            ExactlyOnceSink(
                config,
                group=group,
                topic=input_topic,
                transactional_ids=(f"{group}-{slot}-a", f"{group}-{slot}-b"),
                partition_counts=counts,
                clock=timeline,
                start_timeout_s=3600.0,
            )
            if exactly_once
            else KafkaAtLeastOnceSink(config, topic=input_topic, partition_counts=counts, clock=timeline)
        )

        def open_source(listener: AssignmentListener) -> KafkaSource:
            self._source = KafkaSource(
                config,
                group=group,
                topic=input_topic,
                protocol="classic",
                start=journal.start,
                listener=listener,
                exactly_once=exactly_once,
                max_poll_interval_s=poll_interval_max_s,
                memory_bytes_max=1 << 20,
                clock=timeline,
                unreadable="set_aside",
                recreated="read",
            )
            return self._source

        self.pipeline = Pipeline(
            source=open_source,
            sink=TimedSink(sink, timeline),
            compute=TimedCompute(make_scorer(), cluster),
            batcher=Batcher(
                rows_max=rows_max, latency_slo_s=0.05, cost=CostCurve([(1, 0.001), (rows_max, 0.004)])
            ),
            breaker=lambda: PartitionBreakers(run_max=10_000, share_max=1.0, window=10_000),
            watcher=WatchfulHooks(2 if exactly_once else 8, 32),
            clock=timeline,
            commits=CommitInTransaction() if exactly_once else CommitBySource(),
            limits=PipelineLimits(
                drain_budget_s=drain_budget_s, delivery_records_max=32, beside_records_min=1
            ),
        )

        self._consumer, self._watch = cluster.members[-1], cluster.watches[-1]

    def turn(self) -> None:
        """A turn of the loop, and what its hooks ask besides."""
        self.pipeline.turn()
        self._source.standing()

    @property
    def member(self) -> str:
        """This worker's id in the group, "" before it has one."""
        return str(self._consumer.member)

    @property
    def is_placing(self) -> bool:
        """Whether it does not know yet where a partition begins, and may have something to say about that."""
        return bool(self._source._ours.unplaced)

    def kill(self) -> None:
        """Gone without a word: nothing of it acts any more but what is under way."""
        self._watch.close()

    def leave(self, *, drained: bool) -> None:
        """End as a process does that was asked to, or that ends by an error."""
        self.pipeline.request_stop()
        if not drained:
            self.pipeline.request_stop()
        try:
            self.pipeline.run()
        finally:
            self.pipeline.close(1.0)
