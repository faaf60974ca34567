"""What stands between a pipeline and its simulated world: a source, a sink and a compute side that are looked at."""

import random
from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, Protocol

from penstock.connectors.memory.broker import MemoryBroker
from penstock.engine.pipeline.batcher import Batch
from penstock.engine.pipeline.compute import Finished, Held
from penstock.engine.pipeline.scorer import Outcome, Scorer
from penstock.engine.ports import AssignmentListener, Delivery, Positions, Sink
from penstock.schemas.errors import AbortedError, UnavailableError
from penstock.schemas.records import Records
from penstock.schemas.waits import WaitKind

Mode = Literal["exactly_once", "at_least_once"]
Place = tuple[int, int]

rows_max, batches_max = 16, 3


class MovingClock(Protocol):
    now_s: float

    def monotonic_s(self) -> float: ...
    def wall_ms(self) -> int: ...
    def sleep(self, duration_s: float) -> None: ...


class Surroundings(Protocol):
    """What these parts need of a world."""

    broker: MemoryBroker
    mode: Mode
    random: random.Random
    seen: Counter[str]

    @property
    def clock(self) -> MovingClock: ...

    def chance(self, share: float) -> bool: ...

    def waited(self, call: str, wait_s: float) -> None: ...

    def between_polls(self) -> None: ...

    def hang_commit(self) -> bool: ...

    def forget_members(self) -> None: ...


class TimedCompute:
    """penstock.engine.pipeline.compute.Compute in simulated time: scores in line, and each batch takes as long as chance wants."""

    def __init__(self, scorer: Scorer, world: Surroundings) -> None:
        self._scorer, self._world, self._clock = scorer, world, world.clock
        self._queue: deque[tuple[float, Finished]] = deque()  # ends at, in order
        self._unwanted: Finished | None = None
        self._waits: dict[int, tuple[float, Held]] = {}  # until when

    @property
    def queued_rows(self) -> int:
        return sum(finished.batch.rows for _, finished in self._queue)

    @property
    def waiting(self) -> Mapping[int, Held]:
        now_s = self._clock.now_s
        return {partition: held for partition, (until_s, held) in self._waits.items() if until_s > now_s}

    def let_go(self, partitions: Sequence[int]) -> None:
        for partition in partitions:
            self._waits.pop(partition, None)

    def has_room(self) -> bool:
        return len(self._queue) < batches_max

    def submit(self, batch: Batch) -> None:
        assert self.has_room(), "a batch was handed over without room for it"
        takes_s = self._world.random.choice([0.0, 0.0, 0.001, 0.001, 0.004, 0.004, 0.03, 0.3])
        if self._world.chance(0.01):
            takes_s = 12.0  # longer than the drain budget
        records = Records.join([poll.records for poll in batch.polls])
        outcome: Outcome | None = None
        waits: dict[int, Held] = {}
        try:
            outcome = self._scorer.score(records)
        except UnavailableError as error:
            waits = {
                self._world.random.choice(records.partitions.tolist()): Held(
                    kind=WaitKind.REGISTRY, reason=str(error)
                )
            }
            until_s = self._clock.now_s + takes_s + self._world.random.choice([0.0, 0.01, 0.5])
            self._waits |= {partition: (until_s, held) for partition, held in waits.items()}
        starts_s = max(self._clock.now_s, self._queue[-1][0] if self._queue else 0.0)
        finished = Finished(batch=batch, outcome=outcome, busy_s=takes_s, waiting=waits)
        self._queue.append((starts_s + takes_s, finished))

    def collect(self, timeout_s: float) -> Finished | None:
        if self._unwanted is not None:
            unwanted, self._unwanted = self._unwanted, None
            return unwanted
        if not self._queue:
            self._clock.sleep(timeout_s)
            return None
        ends_s = self._queue[0][0]
        if ends_s > self._clock.now_s:
            self._clock.sleep(min(timeout_s, ends_s - self._clock.now_s))
        return self._queue.popleft()[1] if ends_s <= self._clock.now_s else None

    def forget(self) -> None:
        """What was in work comes out all the same, as the worst that the port allows."""
        self._unwanted = self._queue[0][1] if self._queue else None
        self._queue.clear()


class TornSource:
    """A member that polls as the Kafka client does: the first record, then what else is there, with time for a
    rebalance in between."""

    def __init__(
        self, world: Surroundings, listener: AssignmentListener, *, poll_interval_max_s: float
    ) -> None:
        self._world, self._listener = world, listener
        self._left: set[int] = set()
        self._told_s = 0.0
        self._inner = world.broker.source(
            group="g",
            topic="in",
            listener=self,
            exactly_once=world.mode == "exactly_once",
            max_poll_interval_s=poll_interval_max_s,
        )

    @property
    def member(self) -> str:
        return self._inner.member

    def poll(self, records_max: int, timeout_s: float) -> Records | None:
        assert records_max <= rows_max
        self._told_s, began_s = 0.0, self._world.clock.now_s
        first = self._inner.poll(1, timeout_s)
        self._left.clear()
        self._world.waited("poll", self._world.clock.now_s - began_s - self._told_s)
        if first is None or records_max == 1:
            return first
        self._world.between_polls()
        rest = self._inner.poll(records_max - 1, 0.0)
        parts = [first] if int(first.partitions[0]) not in self._left else []
        parts += [rest] if rest is not None else []
        return Records.join(parts) if parts else None

    def on_assigned(self, partitions: Sequence[int]) -> None:
        self._listener.on_assigned(partitions)

    def on_revoked(self, partitions: Sequence[int]) -> None:
        self._world.seen["revoked"] += 1
        self._left |= set(partitions)
        began_s = self._world.clock.now_s
        self._listener.on_revoked(partitions)
        self._told_s += self._world.clock.now_s - began_s

    def on_lost(self, partitions: Sequence[int]) -> None:
        self._world.seen["lost"] += 1
        self._left |= set(partitions)
        began_s = self._world.clock.now_s
        self._listener.on_lost(partitions)
        self._told_s += self._world.clock.now_s - began_s

    def pause(self) -> None:
        self._world.seen["paused"] += 1
        self._inner.pause()

    def resume(self) -> None:
        self._inner.resume()

    def hold(self, partitions: Collection[int]) -> None:
        self._inner.hold(partitions)

    def seek(self, positions: Positions) -> None:
        self._inner.seek(positions)

    def membership(self) -> object:
        return self._inner.membership()

    def commit(self, positions: Positions) -> None:
        self._inner.commit(positions)

    def close(self, timeout_s: float) -> None:
        self._inner.close(timeout_s)


class WatchedSink:
    """A sink whose waits are looked at."""

    def __init__(self, inner: Sink, world: Surroundings) -> None:
        self._inner, self._world, self._clock = inner, world, world.clock
        self._hangs = False

    def has_room(self) -> bool:
        began_s = self._clock.now_s
        room = self._inner.has_room()
        self._world.waited("has_room", self._clock.now_s - began_s)
        return room

    def submit(self, delivery: Delivery, membership: object) -> None:
        self._hangs = self._world.hang_commit()
        began_s = self._clock.now_s
        self._inner.submit(delivery, membership)
        self._world.waited("submit", self._clock.now_s - began_s)

    def advance(self, timeout_s: float) -> int:
        began_s = self._clock.now_s
        try:
            completed = self._inner.advance(timeout_s)
        except AbortedError:
            self._world.seen["aborted"] += 1
            raise
        self._world.waited("advance", self._clock.now_s - began_s)
        if not completed and self._hangs:
            self._hangs = False
            self._world.forget_members()
        return completed

    def abort(self) -> int:
        delivered = self._inner.abort()
        self._world.seen["delivered all the same"] += delivered
        return delivered

    def close(self, timeout_s: float) -> None:
        self._inner.close(timeout_s)
