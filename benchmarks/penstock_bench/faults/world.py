"""One run: a cluster, workers, producers, and what befalls them, all of it drawn from one seed."""

import hashlib
import logging
from dataclasses import dataclass

from penstock.engine.pipeline.scorer import Scorer
from penstock.schemas.errors import ConfigError, FencedError, PenstockError, UnavailableError
from penstock_bench.faults.checker import Checker, Fault, Finding
from penstock_bench.faults.cluster import Cluster, group, input_topic, output_topics
from penstock_bench.faults.fates import Fates, Trouble
from penstock_bench.faults.inputs import Inputs
from penstock_bench.faults.journal import Journal, Mode, OffsetsReset, Start
from penstock_bench.faults.stages import make_scorer
from penstock_bench.faults.timeline import Timeline
from penstock_bench.faults.worker import Worker, poll_interval_max_s, simulated_clients

slots = 3
calm_turns_max = 3000
"""So many turns a run may take to finish its work once nothing goes wrong any more; a healthy one takes a few dozen."""
placing_turns_max = 20
"""So many a worker gets after the last wait to find out where its partitions begin."""
settles_s = 60.0
"""Longer than any transaction and any late request."""
engine_log = logging.getLogger("penstock")


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What became of one seed."""

    seed: int
    findings: tuple[Finding, ...]
    digest: str
    """Of everything that happened, in its order: the same for the same seed."""
    records: int
    mode: Mode
    troubles: tuple[str, ...]


class _Sayings(logging.Handler):
    """Keeps what the workers say to a person."""

    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        """As logging.Handler."""
        if len(self._said) < 2000:
            self._said.append(record.getMessage())


def simulate(
    seed: int,
    *,
    only: frozenset[Trouble] = frozenset(),
    mode: Mode | None = None,
    start: Start | None = None,
) -> Result:
    """One run, from its beginning to the verdict. What is not given, the seed decides."""
    world = World(seed, only, mode, start)
    sayings = _Sayings(world.journal.said)
    before = engine_log.level, engine_log.propagate
    engine_log.addHandler(sayings)
    engine_log.setLevel(logging.WARNING)
    engine_log.propagate = False
    try:
        with simulated_clients(world.cluster):
            findings = world.run()
    finally:
        engine_log.removeHandler(sayings)
        engine_log.setLevel(before[0])
        engine_log.propagate = before[1]
    return Result(
        seed=seed,
        findings=tuple(findings),
        digest=world.digest(),
        records=world.records,
        mode=world.journal.mode,
        troubles=tuple(sorted(world.fates.troubles)),
    )


class _RunOverError(Exception):
    """The run has its finding, and goes no further."""


class World:
    """A cluster, workers, and what befalls them."""

    def __init__(
        self, seed: int, only: frozenset[Trouble], mode: Mode | None = None, start: Start | None = None
    ) -> None:
        self.fates = Fates(seed, only)
        drawn = self._drawn = self.fates.random
        self.timeline = Timeline()
        self.cluster = Cluster(self.timeline, self.fates)
        partitions = drawn.choice((1, 2, 3, 4))
        outputs = partitions if drawn.random() < 0.8 else 2
        self.cluster.create_topic(input_topic, partitions)
        for topic in output_topics:
            self.cluster.create_topic(topic, outputs)
        drawn_start: Start = "latest" if drawn.random() < 0.15 else "earliest"
        drawn_mode: Mode = "exactly_once" if drawn.random() < 0.7 else "at_least_once"
        self.journal = Journal(
            mode=mode or drawn_mode,
            output_format="json" if drawn.random() < 0.5 else "avro",
            start=start or drawn_start,
            topic_id=self.cluster.topic_id(input_topic),
        )
        self.cluster.journal = self.journal
        self._trace = hashlib.blake2b(digest_size=8)
        self.cluster.trace = self._note
        self._turns = drawn.choice((40, 80, 80, 160))
        self._inputs = Inputs(
            self.cluster, self.journal, self.fates,
            records_max=drawn.choice((20, 60, 60, 200)), keys=drawn.choice((2, 8)),
        )  # fmt: skip
        self._drain_budget_s = drawn.choice((0.05, 0.5, 5.0))
        self._workers: list[Worker] = []

    @property
    def records(self) -> int:
        """Written so far."""
        return self._inputs.records

    def digest(self) -> str:
        """Of everything that happened so far."""
        return self._trace.hexdigest()

    def run(self) -> list[Finding]:
        """Trouble for a while, then calm until the work is done; what is wrong with it."""
        findings: list[Finding] = []
        try:
            for slot in range(self._drawn.choice((1, 1, slots))):
                self._add(slot)
            for _ in range(self._turns):
                self._step()
            self._calm_down()
        except _RunOverError as ended:
            findings.append(ended.args[0])
        except PenstockError as error:
            findings.append(Finding(Fault.CRASHED, f"{type(error).__name__}: {error}"))
        except Exception as error:  # noqa: BLE001  whatever the engine lets through is a finding
            findings.append(Finding(Fault.CRASHED, f"{type(error).__name__}: {error}"))
        self.journal.calm = not self.fates.troubled
        self._note(f"{len(self.journal.entries)} entries")
        return findings + Checker(self.journal, finished=not findings).check()

    def _note(self, what: str) -> None:
        self._trace.update(f"{self.timeline.now_s:.6f} {what}\n".encode())

    def _calm_down(self) -> None:
        if self.fates.chance(0.3, Trouble.READING):
            self._spoil()
        self.fates.calm = True
        self._inputs.end_foreign()
        for _ in range(calm_turns_max):
            if self._finished():
                self.timeline.sleep(
                    settles_s
                )  # transactions of killed workers end, and hide nothing any more
                self.cluster.check_overdue()
                for turn in range(placing_turns_max):  # and who heard of something meanwhile says so
                    for worker in list(self._workers):
                        if turn == 0 or worker.is_placing:
                            self._turn(worker)
                if self._finished():
                    return
            self._start()
            self.cluster.check_overdue()  # where nobody owns anything, nobody's request would
            for worker in list(self._workers):
                self._turn(worker)
        what = f"the work was not finished in {calm_turns_max} turns: {self._left()}"
        if not self._left():
            what = f"workers {self._outside()} are not in the group after {calm_turns_max} turns"
        raise _RunOverError(Finding(Fault.HUNG, what))

    def _finished(self) -> bool:
        """What stood still has had a turn since, too: it may have something to say."""
        return not self._left() and not self._outside() and not any(w.frozen_until_s for w in self._workers)

    def _outside(self) -> list[int]:
        """Workers that are no members of the group."""
        members = self.cluster.group(group).members
        return [worker.slot for worker in self._workers if worker.member not in members]

    def _left(self) -> dict[int, int]:
        """Partitions with readable records that are not committed, and where."""
        left = {}
        coordinator, topic_id = self.cluster.group(group), self.cluster.topic_id(input_topic)
        for partition in range(self.cluster.partitions(input_topic)):
            key = (input_topic, partition)
            committed = coordinator.committed.get(key, 0)
            if coordinator.committed_topic_ids.get(key) not in (None, topic_id):
                committed = 0
            if self.cluster.oldest_timestamp_ms(input_topic, partition, committed) is not None:
                left[partition] = committed
        return left

    def _step(self) -> None:
        """One thing happens; mostly, a worker takes a turn."""
        chance = self._drawn.random()
        if chance < 0.15:
            self._inputs.write()
        elif chance < 0.25:
            self._trouble()
        elif chance < 0.27:
            self.timeline.sleep(self._drawn.choice((0.3, 3.0)))
        elif self._workers:
            self._turn(self._drawn.choice(self._workers))
        else:
            self._start()

    def _trouble(self) -> None:
        """Whatever kinds there are, one of them comes."""
        fates = self.fates
        if fates.chance(0.3, Trouble.CRASH):
            self._end(self._drawn.choice(self._workers)) if self._workers else self._start()
        elif fates.chance(0.2, Trouble.REBALANCE):
            self._rebalance()
        elif fates.chance(0.1, Trouble.FREEZE) and self._workers:
            fates.disturbed()
            frozen = self._drawn.choice(self._workers)
            frozen.frozen_until_s = self.timeline.now_s + self._drawn.choice((8.0, 1.5 * poll_interval_max_s))
            self._note(f"freeze {frozen.slot}")
            if self._drawn.random() < 0.5:
                self.timeline.sleep(1.2 * poll_interval_max_s)
        elif fates.chance(0.1, Trouble.FENCED) and self._workers:
            fates.disturbed()
            self._add(self._drawn.choice(self._workers).slot)
        elif fates.chance(0.1, Trouble.TOPIC):
            self._change_topic()
        elif fates.chance(0.15, Trouble.READING):
            self._spoil()
        elif fates.chance(0.1, Trouble.RETENTION):
            self._delete() if self._drawn.random() < 0.7 else self._misplace_commit()
        elif self._drawn.random() < 0.3:
            self._start()

    def _rebalance(self) -> None:
        self.fates.disturbed()
        if self._workers and self._drawn.random() < 0.5:
            member = self._drawn.choice(self._workers).member
            if member:
                self._note(f"expire {member}")
                self.cluster.expire(group, member)
        elif len(self._workers) > 1 and self._drawn.random() < 0.5:
            self._stop(self._drawn.choice(self._workers))
        else:
            self._start()

    def _change_topic(self) -> None:
        """Partitions are added, or the topic is made anew."""
        self.fates.disturbed()
        count = self.cluster.partitions(input_topic)
        if self._drawn.random() < 0.5 and count < 6:
            self._note("grow")
            self.cluster.create_topic(input_topic, count + self._drawn.choice((1, 2)))
            return
        self._inputs.end_foreign()
        self._note("made anew")
        self.cluster.recreate_topic(input_topic, self._drawn.choice((count, max(count - 1, 1))))
        self._inputs.write()

    def _spoil(self) -> None:
        """Bytes that were written cannot be read any more; behind them may stand only the end of a transaction."""
        if self.fates.chance(0.5, Trouble.FOREIGN):
            name = self._inputs.begin_foreign()
            self._inputs.write()
            self.cluster.end_foreign(name, committed=True)
        partition = self._drawn.randrange(self.cluster.partitions(input_topic))
        first, end = self.cluster.bounds(input_topic, partition)
        for offset in range(max(first, end - self._drawn.choice((1, 4))), end):
            if self._drawn.random() < 0.7 and self.cluster.is_record(partition, offset):
                self.cluster.spoil((self.cluster.topic_id(input_topic), partition, offset))

    def _delete(self) -> None:
        """Retention does not ask whether anybody has read what it deletes."""
        partition = self._drawn.randrange(self.cluster.partitions(input_topic))
        first, end = self.cluster.bounds(input_topic, partition)
        if first < end:
            self._note("retention")
            self.cluster.delete_records(input_topic, partition, self._drawn.randint(first, end))

    def _misplace_commit(self) -> None:
        """A backup was restored badly: the group's offset is beyond the end. Somebody must say so."""
        self._kill_all()  # what is on its way may still commit
        coordinator, topic_id = self.cluster.group(group), self.cluster.topic_id(input_topic)
        places = [
            (p, offset)
            for (_, p), offset in sorted(coordinator.committed.items())
            if coordinator.committed_topic_ids.get((input_topic, p)) == topic_id
        ]
        if not places:
            return
        partition, offset = self._drawn.choice(places)
        coordinator.committed[input_topic, partition] = self.cluster.high(input_topic, partition) + 3
        self._note("misplaced")
        for _ in range(400):
            self._start()
            try:
                self._turn(self._drawn.choice(self._workers), operator=False)
            except ConfigError as error:
                said = str(error)
                if f"partition {partition}" in said and "ends at" in said:
                    break
                self._operate(said)  # of another partition, which is mended before this one is heard of
            if self._drawn.random() < 0.1:
                self.timeline.sleep(0.5)
        else:
            raise _RunOverError(
                Finding(Fault.SILENT, "nobody said that the group's offset is beyond the end")
            )
        self._kill_all()
        coordinator.committed[input_topic, partition] = offset

    def _start(self) -> None:
        """Another worker in a free slot."""
        taken = {worker.slot for worker in self._workers}
        free = [slot for slot in range(slots) if slot not in taken]
        if free and (not self._workers or self._drawn.random() < 0.5):
            self._add(free[0])

    def _add(self, slot: int) -> None:
        try:
            worker = Worker(self.cluster, self.journal, self._scorer, slot, self._drain_budget_s)
        except (ConfigError, UnavailableError, FencedError) as error:
            self._note(f"no start: {error}")
            return
        self._note(f"start {slot}")
        self._workers.append(worker)

    def _scorer(self) -> Scorer:
        return make_scorer(self.journal.output_format, self.fates, self.timeline)

    def _end(self, worker: Worker) -> None:
        """A worker is killed, or asked to stop."""
        if self._drawn.random() < 0.5:
            self._stop(worker)
            return
        self.fates.disturbed()
        self._workers.remove(worker)
        self._note(f"kill {worker.slot}")
        worker.kill()

    def _stop(self, worker: Worker, *, drained: bool = True) -> None:
        self._workers.remove(worker)
        self._note(f"stop {worker.slot}")
        try:
            worker.leave(drained=drained)
        except (FencedError, UnavailableError, ConfigError) as error:
            self.fates.disturbed()
            self._note(f"stopped by {error}")

    def _kill_all(self) -> None:
        for worker in list(self._workers):
            self._workers.remove(worker)
            worker.kill()
        self.cluster.expire(group)
        self.fates.disturbed()
        self.timeline.sleep(settles_s)
        self.cluster.check_overdue()

    def _turn(self, worker: Worker, *, operator: bool = True) -> None:
        """A turn; a worker that ends by itself is gone, and a person does what it says."""
        if worker.frozen_until_s > self.timeline.now_s:
            self.timeline.sleep(0.05)
            return
        worker.frozen_until_s = 0.0
        try:
            worker.turn()
        except (FencedError, UnavailableError, ConfigError) as error:
            self.fates.disturbed()
            self._note(f"{worker.slot} ended: {error}")
            if worker in self._workers:
                self._stop(worker, drained=False)
            if isinstance(error, ConfigError):
                self.journal.said.append(str(error))
                if not operator:
                    raise
                self._operate(str(error))

    def _operate(self, said: str) -> None:
        """What `penstock offsets reset --to earliest` does, where a worker has said that records are gone."""
        coordinator, topic_id = self.cluster.group(group), self.cluster.topic_id(input_topic)
        lost = []
        for partition in range(self.cluster.partitions(input_topic)):
            committed = coordinator.committed.get((input_topic, partition))
            noted = coordinator.committed_topic_ids.get((input_topic, partition))
            first = self.cluster.bounds(input_topic, partition)[0]
            if (
                committed is not None
                and noted == topic_id
                and committed < first
                and f"partition {partition}:" in said
            ):
                lost.append((partition, first))
        if not lost:
            return
        self._kill_all()
        for partition, first in lost:
            coordinator.committed[input_topic, partition] = first
            self.journal.entries.append(OffsetsReset(topic_id, partition, first, said))
        self._note(f"reset {lost}")
