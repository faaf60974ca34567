"""A pipeline as queues, second by second, with one thing that goes wrong: what a watcher would have seen of it. Knows nothing of hints."""

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from penstock.engine.hints.sample import PartitionSample, Sample, WorkerSample
from penstock.schemas.waits import WaitKind

faults = (
    "hot_partition", "slow_worker", "slow_model", "slow_explainer", "more_traffic", "broker_slow", "rebalance_storm", "poison",
    "open_transaction", "registry", "clock_ahead",
)  # fmt: skip
look_every_s = 5
max_age_s = 30.0


@dataclass
class Worker:
    name: str
    counts: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(
            (
                "settled",
                "rejected",
                "busy",
                "infer",
                "explain",
                "deliver",
                "deliveries",
                "rebalances",
                "ahead",
                "ahead_s",
            ),
            0.0,
        )
    )


@dataclass
class Partition:
    owner: Worker
    share: float
    queue: deque[list[float]] = field(default_factory=deque)  # [second of arrival, records]
    end: float = 0.0


class Load:
    """One seed's pipeline; `fault` begins at `onset_s`, with whatever strength its seed gives."""

    def __init__(self, seed: int, fault: str | None) -> None:
        self.random = random.Random(seed)
        chance = self.random
        self.fault = fault
        self.onset_s = chance.randint(200, 400)
        self.workers = [Worker(f"w{n}") for n in range(chance.randint(2, 5))]
        count = len(self.workers) * chance.randint(2, 4)
        self.infer_s = chance.uniform(2e-5, 3e-4)
        self.explain_s = self.infer_s * chance.uniform(0.3, 2.5)
        self.other_s = self.infer_s * chance.uniform(0.1, 0.5)
        self.deliver_s = chance.uniform(0.005, 0.03)
        cost_s = self.infer_s + self.explain_s + self.other_s
        self.rate = chance.uniform(0.35, 0.6) * len(self.workers) / cost_s
        shares = [chance.uniform(0.8, 1.2) for _ in range(count)]
        self.partitions = [
            Partition(owner=self.workers[n % len(self.workers)], share=share / sum(shares))
            for n, share in enumerate(shares)
        ]
        self.burst_every_s = chance.randint(90, 240)
        self.burst = chance.uniform(1.2, 1.8)
        self.burst_s = chance.randint(5, 15)
        self.victim = chance.randrange(count)
        self.strength = chance.uniform(0.0, 1.0)
        self.now_s = 0

    def wrong(self, name: str) -> bool:
        return self.fault == name and self.now_s >= self.onset_s

    def overload(self) -> float:
        """By how much what is there is too little, so that the age grows by 0.1 to 0.5 s in a second."""
        return 1.15 + 0.8 * self.strength

    def turn(self) -> None:
        chance, now_s = self.random, self.now_s
        cost = {"infer": self.infer_s, "explain": self.explain_s, "other": self.other_s}
        whole_s = sum(cost.values())
        load = self.rate * whole_s / len(self.workers)  # busy share on an even day
        rate = self.rate * (self.burst if now_s % self.burst_every_s < self.burst_s else 1.0)
        if self.wrong("more_traffic"):
            grown_s = now_s - self.onset_s
            rate *= 1 + (self.overload() / load - 1) * min(grown_s / (30 + 200 * self.strength), 1.0)
        if self.wrong("slow_model"):
            cost["infer"] += whole_s * (self.overload() / load - 1)
        if self.wrong("slow_explainer"):
            cost["explain"] += whole_s * (self.overload() / load - 1)
        for number, partition in enumerate(self.partitions):
            expected = rate * partition.share
            if self.wrong("hot_partition") and number == self.victim:
                spare = (self.overload() - load) / whole_s  # what its owner could have done besides
                expected += max(spare, 2.5 * rate * partition.share)
            came = max(expected * chance.gauss(1.0, 0.05), 0.0)
            partition.end += came
            partition.queue.append([now_s, came])
        away = self.wrong("rebalance_storm") and (now_s - self.onset_s) % 30 < 18
        for place, worker in enumerate(self.workers):
            if self.wrong("rebalance_storm") and (now_s - self.onset_s) % 30 == 0:
                worker.counts["rebalances"] += 1
            deliver_s = self.deliver_s * chance.uniform(0.9, 1.1)
            slowed = 1.0
            if self.wrong("slow_worker") and worker is self.partitions[self.victim].owner:
                slowed = self.overload() / load
            room_s = 0.0 if away else 1.0
            if self.wrong("broker_slow"):
                deliver_s *= 4 + 10 * self.strength
                room_s = min(load / self.overload(), 1.0)
            self.work(worker, room_s, {name: each * slowed for name, each in cost.items()})
            if not away:
                worker.counts["deliveries"] += 10
                worker.counts["deliver"] += 10 * deliver_s
            assert place >= 0
        self.now_s += 1

    def work(self, worker: Worker, room_s: float, cost: dict[str, float]) -> None:
        """The oldest first, as far as there is time."""
        own = [
            each
            for number, each in enumerate(self.partitions)
            if each.owner is worker and not self.held(number)
        ]
        each_s = sum(cost.values())
        while room_s > 1e-9 and any(each.queue for each in own):
            partition = min((each for each in own if each.queue), key=lambda each: each.queue[0][0])
            head = partition.queue[0]
            done = min(head[1], room_s / each_s)
            head[1] -= done
            room_s -= done * each_s
            if head[1] < 1e-6:
                partition.queue.popleft()
            worker.counts["settled"] += done
            worker.counts["busy"] += done * each_s
            worker.counts["infer"] += done * cost["infer"]
            worker.counts["explain"] += done * cost["explain"]
            bad = 0.15 + 0.6 * self.strength if self.wrong("poison") else 0.0005
            worker.counts["rejected"] += done * bad
            if self.ahead_s:
                worker.counts["ahead"] += done
                worker.counts["ahead_s"] += done * self.ahead_s

    def held(self, number: int) -> bool:
        return number == self.victim and (self.wrong("open_transaction") or self.wrong("registry"))

    @property
    def ahead_s(self) -> float:
        return 8 + 3000 * self.strength if self.wrong("clock_ahead") else 0.0

    def seen(self) -> Sample:
        return Sample(
            at_s=float(self.now_s),
            workers=tuple(
                WorkerSample(
                    name=worker.name, settled=c["settled"], rejected=c["rejected"], busy_s=c["busy"], infer_s=c["infer"],
                    explain_s=c["explain"], deliver_s=c["deliver"], deliveries=c["deliveries"], rebalances=c["rebalances"],
                    ahead=c["ahead"], ahead_s=c["ahead_s"],
                )
                for worker in self.workers
                for c in (worker.counts,)
            ),
            partitions=tuple(
                PartitionSample(
                    partition=number, owner=each.owner.name, end=round(each.end), age_s=self.age(each),
                    waits=frozenset(kind for kind in WaitKind if self.held(number) and self.wrong(kind)),
                )
                for number, each in enumerate(self.partitions)
            ),
        )  # fmt: skip

    def age(self, partition: Partition) -> float:
        """Nothing unfinished is stamped by no clock."""
        if not partition.queue:
            return self.random.uniform(0.0, 0.05)
        return self.now_s - partition.queue[0][0] - self.ahead_s


def looks(seed: int, fault: str | None, *, seconds: int) -> Iterator[tuple[Load, Sample]]:
    """The pipeline and what is seen of it, every five seconds."""
    load = Load(seed, fault)
    for _ in range(seconds):
        load.turn()
        if load.now_s % look_every_s == 0:
            yield load, load.seen()
