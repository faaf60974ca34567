"""What a simulated source asks on the side: the topic's facts, where its logs begin and end, and what is stored there."""

from collections.abc import Collection

from penstock.connectors.kafka.reading.batch_looks import Look, old_after_s
from penstock.connectors.kafka.reading.stalls import Stalls
from penstock.connectors.kafka.reading.topic_watch import TopicFacts, ask_every_s
from penstock.connectors.kafka.wire.batches import StoredBatch
from penstock_bench.faults.cluster import Cluster
from penstock_bench.faults.fates import calm_call


class SimulatedWatch:
    """penstock.connectors.kafka.reading.topic_watch.TopicWatch by shape: asks once a second, and when it is told to."""

    def __init__(self, cluster: Cluster, topic: str) -> None:
        self._cluster = cluster
        self._topic = topic
        self._timeline = cluster.timeline
        self._closed = False
        self._answer: TopicFacts | None = None
        self._under_way = False
        self._ask()

    @property
    def newest(self) -> TopicFacts | None:
        """As TopicWatch."""
        return self._answer

    def since(self, moment_s: float, timeout_s: float = 0.0) -> TopicFacts | None:
        """As TopicWatch."""
        deadline_s = self._timeline.now_s + timeout_s
        while self._answer is None or self._answer.asked_at_s < moment_s:
            if not self._under_way:
                self._ask()
            left_s = deadline_s - self._timeline.now_s
            if left_s <= 0:
                return None
            self._timeline.sleep(min(left_s, 0.01))
        return self._answer

    def close(self) -> None:
        """As TopicWatch."""
        self._closed = True

    def _ask(self) -> None:
        self._under_way = True
        cluster, asked_at_s = self._cluster, self._timeline.now_s
        call = cluster.fates.call(transactional=False, twins=False)

        def look() -> None:
            facts = TopicFacts(
                id=cluster.topic_id(self._topic),
                partitions=cluster.partitions(self._topic),
                asked_at_s=asked_at_s,
            )
            self._timeline.later(min(call.ends_s, 5.0) - min(call.acts_s, 5.0), lambda: self._hear(facts))

        self._timeline.later(min(call.acts_s, 5.0), look)

    def _hear(self, facts: TopicFacts) -> None:
        self._answer = facts
        self._under_way = False
        if not self._closed:
            self._timeline.at(self._again_s(), self._ask_again)

    def _again_s(self) -> float:
        """A second from now. Where everybody sleeps in calm, the answers that nobody would see are passed over."""
        timeline = self._timeline
        at_s = timeline.now_s + ask_every_s
        if self._cluster.fates.calm:
            took_s = calm_call.ends_s - calm_call.acts_s
            while at_s + 3 * ask_every_s < timeline.asleep_until_s:
                at_s = at_s + calm_call.acts_s + took_s + ask_every_s
        return at_s

    def _ask_again(self) -> None:
        if not self._closed and not self._under_way:
            self._ask()


class SimulatedLooks:
    """penstock.connectors.kafka.reading.batch_looks.BatchLooks by shape: a run of spoilt records is a broken batch.

    Draws nothing, so that what else a seed brings stays: answers take a while, and every fourth is none.
    """

    def __init__(self, cluster: Cluster, topic: str) -> None:
        self._cluster, self._topic = cluster, topic
        self._answers: dict[int, Look] = {}
        self._busy = False
        self._asked = self._topics = 0

    def of(self, partition: int, offset: int) -> Look | None:
        """As BatchLooks."""
        timeline, asked_at_s, topics = self._cluster.timeline, self._cluster.timeline.now_s, self._topics
        found = self._answers.get(partition)
        if found is not None and found.offset == offset and asked_at_s - found.asked_at_s < old_after_s:
            return found
        if not self._busy:
            self._busy = True
            self._asked += 1
            away, wait_s = self._asked % 4 == 0, (0.001, 0.05, 1.0, 3.0)[self._asked // 4 % 4]

            def look() -> None:
                batch = None if away else self._stored(partition, offset)
                seen = Look(offset=offset, asked_at_s=asked_at_s, batch=batch, fault="away" if away else "")
                timeline.later(wait_s / 2, lambda: hear(seen))

            def hear(seen: Look) -> None:
                self._busy = False
                if topics == self._topics:
                    self._answers[partition] = seen

            timeline.later(wait_s / 2, look)
        return None

    def forget(self) -> None:
        """As BatchLooks."""
        self._topics += 1
        self._answers.clear()

    def close(self) -> None:
        """As BatchLooks."""

    def _stored(self, partition: int, offset: int) -> StoredBatch | None:
        if partition >= self._cluster.partitions(self._topic):
            return None
        topic_id, end = self._cluster.topic_id(self._topic), self._cluster.bounds(self._topic, partition)[1]
        behind = offset
        while (topic_id, partition, behind) in self._cluster.spoilt:
            behind += 1
        count = max(behind - offset, 1)
        return StoredBatch(
            base=offset, control=False, delta=count - 1, count=count, size=0, magic=2, stored_crc=0,
            computed_crc=int(behind > offset), whole=True, follows=None, end=end,
        )  # fmt: skip


class SimulatedBounds:
    """penstock.connectors.kafka.reading.log_bounds.LogBounds by shape."""

    def __init__(self, cluster: Cluster, topic: str) -> None:
        self._cluster, self._topic = cluster, topic
        self._answers: dict[int, tuple[float, tuple[int, int]]] = {}
        self._busy = False

    def of(self, partitions: Collection[int], since_s: float) -> dict[int, tuple[int, int]]:
        """As LogBounds."""
        known = {p: self._answers[p] for p in partitions if p in self._answers}
        found = {p: bounds for p, (asked_at_s, bounds) in known.items() if asked_at_s >= since_s}
        missing = sorted(set(partitions) - found.keys())
        if missing and not self._busy:
            self._busy = True
            cluster, timeline = self._cluster, self._cluster.timeline
            asked_at_s, call = timeline.now_s, cluster.fates.call(transactional=False, twins=False)

            def look() -> None:
                there = [p for p in missing if p < cluster.partitions(self._topic)]
                seen = {p: (asked_at_s, cluster.bounds(self._topic, p)) for p in there}
                timeline.later(min(call.ends_s, 5.0) - min(call.acts_s, 5.0), lambda: hear(seen))

            def hear(seen: dict[int, tuple[float, tuple[int, int]]]) -> None:
                self._busy = False
                self._answers |= seen

            timeline.later(min(call.acts_s, 5.0), look)
        return found

    def close(self) -> None:
        """As LogBounds."""


class NoStalls:
    """penstock.connectors.kafka.reading.stalls.StallDetector by shape, which finds none."""

    def look(self, *_: object) -> Stalls:
        """As StallDetector."""
        return Stalls(stalled_s={}, open_transactions={})

    def close(self) -> None:
        """As StallDetector."""
