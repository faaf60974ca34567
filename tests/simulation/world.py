"""Whole workers in simulated time on the broker in memory: everything that happens comes from one seed."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress

from penstock.connectors.memory.broker import Fault, MemoryBroker, Point
from penstock.engine.pipeline.batcher import Batch, Batcher, CostCurve
from penstock.engine.pipeline.compute import Held
from penstock.engine.pipeline.hooks import Waiting
from penstock.engine.pipeline.ledger import Ledger
from penstock.engine.pipeline.pacing import CommitBySource, CommitInTransaction, PipelineLimits
from penstock.engine.pipeline.pipeline import Pipeline
from penstock.engine.pipeline.rejection_limit import PartitionBreakers
from penstock.engine.ports import AssignmentListener, Sink
from penstock.schemas.errors import FencedError, UnavailableError
from tests.simulation.stages import kinds, make_scorer, read_place
from tests.simulation.watched import Mode, Place, TimedCompute, TornSource, WatchedSink, batches_max, rows_max

partitions = 3
slots = 3
delivery_rows_max = 32
deliveries_max = {"exactly_once": 2, "at_least_once": 8}
call_wait_max_s = 0.2
poll_interval_max_s = 20.0
faults = [Fault.UNAVAILABLE, Fault.ABORTABLE, Fault.UNKNOWN_DONE, Fault.UNKNOWN_UNDONE]
fault_points: dict[Mode, list[Point]] = {
    "exactly_once": [point for point in Point if point is not Point.POLL],
    "at_least_once": [Point.PRODUCE],
}


class SimulatedClock:
    """Time that moves when someone waits, and a little whenever someone looks."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic_s(self) -> float:
        self.now_s += 1e-6
        return self.now_s

    def wall_ms(self) -> int:
        return int(self.now_s * 1000)

    def sleep(self, duration_s: float) -> None:
        self.now_s += max(duration_s, 1e-6)


class PipelineHooks:
    """penstock.engine.pipeline.pipeline.PipelineHooks that holds the loop to its bounds."""

    def __init__(self, world: "World") -> None:
        self._world = world
        compute = rows_max * batches_max
        # A drain takes what the compute side has before there is room for it.
        self._bounds = Waiting(
            batcher=rows_max,
            compute=compute,
            delivery=(deliveries_max[world.mode] + 1) * delivery_rows_max + rows_max - 1 + compute,
        )

    def turn(self, *, ledger: Ledger, waiting: Waiting) -> None:
        self._check("batcher", waiting.batcher, self._bounds.batcher)
        self._check("compute", waiting.compute, self._bounds.compute)
        self._check("delivery", waiting.delivery + waiting.compute, self._bounds.delivery)

    def _check(self, queue: str, rows: int, queue_rows_max: int) -> None:
        assert rows <= queue_rows_max, f"{self._world}: {rows} rows wait in {queue}"
        self._world.seen[f"{queue} was full"] += rows > queue_rows_max - rows_max

    def draining(self) -> None: ...

    def batch_closed(self, batch: Batch) -> None:
        assert 0 < batch.rows <= rows_max

    def delivered(self, finished: Sequence[object], *, took_s: float) -> None:
        self._world.seen["shared a delivery"] += len(finished) > 1

    def rewound(self, *, cause: str) -> None:
        self._world.seen[f"rewound by {cause}"] += 1

    def rebalanced(self, *, assigned: Sequence[int], lost: bool = False) -> None: ...
    def stopped(self, *, unfinished: int) -> None: ...

    def holding(self, held: Mapping[int, Held]) -> None:
        self._world.seen["a partition waited"] += bool(held)
        self._world.seen["a partition went on"] += not held


class Worker:
    """A real pipeline, ledger, batcher, scorer and sink; only the broker, time and the model are simulated."""

    def __init__(self, world: "World", slot: int) -> None:
        broker = world.broker
        self.slot = slot
        self.source: TornSource | None = None
        sink: Sink = (
            broker.exactly_once_sink(
                group="g",
                topic="in",
                transactional_ids=(f"g-{slot}-a", f"g-{slot}-b"),
                start_timeout_s=3600.0,
            )
            if world.mode == "exactly_once"
            else broker.at_least_once_sink(topic="in")
        )

        def open_source(listener: AssignmentListener) -> TornSource:
            self.source = TornSource(world, listener, poll_interval_max_s=poll_interval_max_s)
            return self.source

        self.pipeline = Pipeline(
            source=open_source,
            sink=WatchedSink(sink, world),
            compute=TimedCompute(make_scorer(world), world),
            batcher=Batcher(
                rows_max=rows_max, latency_slo_s=0.05, cost=CostCurve([(1, 0.001), (rows_max, 0.004)])
            ),
            breaker=lambda: PartitionBreakers(run_max=10_000, share_max=1.0, window=10_000),
            watcher=PipelineHooks(world),
            clock=world.clock,
            commits=CommitBySource() if world.mode == "at_least_once" else CommitInTransaction(),
            limits=PipelineLimits(
                drain_budget_s=5.0, delivery_records_max=delivery_rows_max, beside_records_min=1
            ),
        )

    @property
    def member(self) -> str:
        assert self.source is not None
        return self.source.member

    def leave(self, *, drained: bool) -> None:
        """End as a process does that was asked to, or that ends by an error."""
        self.pipeline.request_stop()
        if not drained:
            self.pipeline.request_stop()
        try:
            self.pipeline.run()
        finally:
            self.pipeline.close(1.0)


class World:
    """A broker, workers, and what befalls them. `seen` counts it, so that a test can tell that it did happen."""

    def __init__(self, seed: int, mode: Mode = "exactly_once") -> None:
        self.seed, self.mode = seed, mode
        self.random = random.Random(seed)
        self.clock = SimulatedClock()
        self.broker = MemoryBroker(self.clock, wait=lambda _, duration_s: self.clock.sleep(duration_s))
        for topic in ("in", "p", "e", "d"):
            self.broker.create_topic(topic, partitions)
        self.seen: Counter[str] = Counter()
        self.inputs: dict[Place, tuple[bytes, bytes]] = {}  # key and kind
        self.workers: list[Worker] = []
        self.calm = False
        self.start()

    def __str__(self) -> str:
        return f"seed={self.seed} {self.mode}"

    def chance(self, share: float) -> bool:
        """Whether it happens this time; never when the world is calm."""
        return not self.calm and self.random.random() < share

    def waited(self, call: str, wait_s: float) -> None:
        """A call on the polling thread took so long."""
        assert wait_s <= call_wait_max_s + 0.001, f"{self}: {call} waited {wait_s:.3f} s"

    def run(self, turns: int) -> "World":
        """Trouble for so many turns, then calm until the work is done."""
        for turn in range(turns):
            self.step()
            if (
                turn % 20 == 0 and self.mode == "at_least_once"
            ):  # else an open transaction hides what is committed
                self.check_commits()
        self.calm = True
        for _ in range(20_000):
            if self.finished():
                self.clock.sleep(60.0)  # transactions of killed workers end, and hide nothing any more
                return self
            self.start()
            for worker in list(self.workers):
                self.guard(worker)
        raise AssertionError(f"{self}: the work was not finished")

    def step(self) -> None:
        """One thing happens; mostly, a worker takes a turn."""
        chance = self.random.random()
        if chance < 0.15:
            self.write()
        elif chance < 0.19:
            self.inject()
        elif chance < 0.20:
            self.start()
        elif chance < 0.21 and self.workers:
            self.end(self.random.choice(self.workers))
        elif chance < 0.215:
            self.clock.sleep(2 * poll_interval_max_s)
        elif chance < 0.225:
            self.expire()
        elif self.workers:
            self.guard(self.random.choice(self.workers))

    def write(self) -> None:
        """Some more records arrive."""
        for _ in range(self.random.choice([1, 5, 30])):
            kind = self.random.choice(kinds[1:]) if self.random.random() < 0.05 else b"good"
            key = b"k%d" % self.random.randint(0, 9)
            partition = self.broker.choose(key, partitions)
            self.inputs[partition, self.broker.bounds("in", partition)[1]] = (key, kind)
            self.broker.writer("in").write([kind], keys=[key])

    def inject(self) -> None:
        """The broker will not do something that it is asked for soon."""
        point, fault = self.random.choice(fault_points[self.mode]), self.random.choice(faults)
        many = self.random.choice([10, 300]) if fault is Fault.UNAVAILABLE else 1
        self.broker.inject(point, fault, times=self.random.choice([1, many]))

    def start(self) -> None:
        """Another worker in a free slot, or a twin that takes over from one that does not know it yet."""
        taken = {worker.slot for worker in self.workers}
        free = [slot for slot in range(slots) if slot not in taken]
        if free:
            self.workers.append(Worker(self, free[0]))
        elif self.chance(0.7) and len(self.workers) == slots:
            self.seen["twin"] += 1
            self.workers.append(Worker(self, self.random.randrange(slots)))

    def end(self, worker: Worker) -> None:
        """A worker is killed, or asked to stop."""
        self.workers.remove(worker)
        if self.chance(0.5):
            self.seen["killed"] += 1
            return
        self.seen["stopped"] += 1
        with suppress(FencedError, UnavailableError):
            worker.leave(drained=True)

    def guard(self, worker: Worker) -> None:
        """A turn; a worker that ends by itself is gone."""
        try:
            worker.pipeline.turn()
        except (FencedError, UnavailableError) as error:
            self.seen[type(error).__name__] += 1
            self.workers.remove(worker)
            with suppress(FencedError, UnavailableError):
                worker.leave(drained=False)

    def expire(self) -> None:
        """A member is taken for dead."""
        if self.workers:
            self.broker.expire("g", self.random.choice(self.workers).member)

    def between_polls(self) -> None:
        """What may happen after a poll's first record."""
        if self.chance(0.01):
            self.expire()
        if self.chance(0.02):
            self.start()
            self.inject()

    def hang_commit(self) -> bool:
        """Whether the next commit is not answered for a while, and everybody is taken for dead meanwhile."""
        if self.mode == "at_least_once" or not self.chance(0.05):
            return False
        self.broker.inject(Point.COMMIT, Fault.UNAVAILABLE, times=8)
        return True

    def forget_members(self) -> None:
        """The coordinator knows nobody any more."""
        self.broker.expire("g")

    def finished(self) -> bool:
        """Everything written is committed."""
        return all(row.end in (0, row.committed) for row in self.broker.offsets("g").read("in"))

    def check_commits(self) -> None:
        """No committed offset passes a record without an outcome that readers see."""
        outcomes = {place for topic in ("p", "d") for place, _ in self.read(topic)}
        for partition, committed in self.broker.committed("g", "in").items():
            missing = [o for o in range(committed) if (partition, o) not in outcomes]
            assert not missing, f"{self}: {committed} of partition {partition} hides {missing}"

    def read(self, topic: str) -> list[tuple[Place, str]]:
        """What a reader of committed records finds, per partition in its order."""
        return [
            read_place(value)
            for records in self.broker.reader(topic).read_to_end(10.0)
            for value in records.values
        ]
