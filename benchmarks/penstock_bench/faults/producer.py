"""librdkafka's producer, simulated: requests that travel, and what becomes of them on the way."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from penstock.connectors.delivery.producer_port import AbortableError, FencedProducerError
from penstock.connectors.kafka.reading.commits import noted_topic_id
from penstock.connectors.memory.group import Membership
from penstock.connectors.memory.log import State
from penstock.schemas.records import Headers
from penstock_bench.faults.cluster import Cluster, failure, failure_of
from penstock_bench.faults.fates import Fate

Report = Callable[[KafkaError | None, Any], None]
late_s = (0.3, 1.0, 4.0)
message_bytes_max = 1_000_000


class SimulatedProducer:
    """confluent_kafka.Producer by shape, as far as Penstock uses it.

    Transactional calls are made on a `SimulatedAside`: they say when they end, and what is done at the broker happens on its
    own. Messages travel in order; what was sent may arrive after the producer was thrown away.
    """

    def __init__(self, cluster: Cluster, properties: Mapping[str, Any]) -> None:
        self._cluster = cluster
        self._timeline = cluster.timeline
        self._id: str | None = properties.get("transactional.id")
        self._transaction_timeout_s = float(properties.get("transaction.timeout.ms", 0)) / 1000
        self._on_error: Callable[[KafkaError], None] = properties["error_cb"]
        self._epoch = -1
        self._in_doubt = False  # a message may still arrive that its sender has given up
        self._outstanding = 0
        self._news: list[Callable[[], None]] = []  # served by poll and flush
        self._arrives_s = 0.0  # the last message sent; the next comes behind it
        self._failed: KafkaError | None = None  # a message of the transaction
        self._fatal: KafkaError | None = None
        self._purged = False
        self._given_up = 0  # how often messages on their way were

    def __len__(self) -> int:
        return self._outstanding + len(self._news)

    def list_topics(self, topic: str, timeout: float) -> None:
        """Only asked in order to be connected."""

    def init_transactions(self, timeout_s: float) -> None:
        """Fences and ends what came before."""

        transactional_id = self._named

        def initialise() -> int:
            return self._cluster.initialise(transactional_id)

        self._request("InitProducerId", initialise, timeout_s, learn=self._take_epoch)

    def begin_transaction(self) -> None:
        """Local; at the broker it begins with the first request."""
        self._raise_fatal()
        self._failed = None

    def produce_batch(
        self, topic: str, messages: Sequence[dict[str, Any]], partition: int, on_delivery: Report | None
    ) -> int:
        """Queue messages; how many of them."""
        longest = max((len(message["value"] or b"") for message in messages), default=0)
        if longest > message_bytes_max:
            for message in messages:
                if len(message["value"] or b"") > message_bytes_max:
                    message["_error"] = failure(KafkaError.MSG_SIZE_TOO_LARGE, "Message size too large")
            return sum("_error" not in message for message in messages)
        keys, values = [m["key"] for m in messages], [m["value"] for m in messages]
        self._queue(topic, keys, values, None, partition, on_delivery)
        return len(messages)

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int,
        on_delivery: Report | None,
        headers: Headers,
    ) -> None:
        """Queue one message with headers."""
        self._queue(topic, [key], [value], [headers], partition, on_delivery)

    def _queue(
        self,
        topic: str,
        keys: list[bytes | None],
        values: list[bytes | None],
        headers: list[Headers] | None,
        partition: int,
        on_delivery: Report | None,
    ) -> None:
        cluster, fates = self._cluster, self._cluster.fates
        call = fates.call(transactional=True, twins=False)
        self._arrives_s = max(self._arrives_s, self._timeline.now_s + call.acts_s)
        epoch, given_up = self._epoch, self._given_up
        self._outstanding += len(values)
        fate = call.fate
        if fate is Fate.DOUBLED:  # an idempotent producer's repetition is recognised
            fate = Fate.FINE

        def append() -> None:
            transaction = None
            if self._id is not None:
                transaction = cluster.transaction_of(self._id, epoch, self._transaction_timeout_s)
            targets: dict[int, list[int]] = {}
            count = cluster.partitions(topic)
            for row, key in enumerate(keys):
                target = partition if partition >= 0 else cluster.choose(key, count)
                targets.setdefault(target, []).append(row)
            for target, rows in targets.items():
                cluster.append(
                    topic,
                    target,
                    [keys[r] for r in rows],
                    [values[r] for r in rows],
                    headers=None if headers is None else [headers[r] for r in rows],
                    transaction=transaction,
                )

        def arrive() -> None:
            error: KafkaError | None = None
            try:
                if self._purged and fates.random.random() < 0.5:
                    return  # it was still in the queue
                self._in_doubt = self._in_doubt or fate is Fate.LATE
                if fate in (Fate.FINE, Fate.UNANSWERED):
                    append()
                elif fate is Fate.LATE:
                    self._timeline.later(fates.random.choice(late_s), self._quietly(append))
            except FencedProducerError as fault:
                if given_up == self._given_up:
                    self._fence(str(fault))
                    error = self._fatal
            if given_up != self._given_up:
                return
            if fate is not Fate.FINE and error is None:
                error = _message_error(fate)
            self._outstanding -= len(values)
            if error is not None:
                self._failed = self._failed or error
                if self._id is None and cluster.journal is not None:
                    cluster.journal.whole = False
            if on_delivery is not None:
                for _ in values:
                    self._news.append(lambda: on_delivery(error, None))

        self._timeline.later(self._arrives_s - self._timeline.now_s, arrive)

    def send_offsets_to_transaction(
        self, offsets: Sequence[TopicPartition], metadata: bytes, timeout_s: float
    ) -> None:
        """Offsets to be committed with the transaction."""
        topic, positions = offsets[0].topic, {place.partition: place.offset for place in offsets}
        member = membership_of(metadata, noted_topic_id(offsets[0].metadata))
        transactional_id, epoch = self._named, self._epoch

        def hold() -> None:
            transaction = self._cluster.transaction_of(transactional_id, epoch, self._transaction_timeout_s)
            self._cluster.hold_offsets(transaction, topic, positions, member)

        self._request("TxnOffsetCommit", hold, timeout_s)

    def commit_transaction(self, timeout_s: float) -> None:
        """Refuses when a message failed, as librdkafka does."""
        self._end(State.COMMITTED, timeout_s)

    def abort_transaction(self, timeout_s: float) -> None:
        """End it without a trace; what is on its way is given up."""
        self._failed = None
        self._given_up += 1
        if self._outstanding:
            self._in_doubt, self._outstanding, self._arrives_s = True, 0, 0.0
        self._end(State.ABORTED, timeout_s)

    def flush(self, timeout_s: float) -> int:
        """Wait for acknowledgements; how many are missing."""
        deadline_s = self._timeline.now_s + timeout_s
        while self._outstanding and self._timeline.now_s < deadline_s:
            wait_s = max(min(self._arrives_s, deadline_s) - self._timeline.now_s, 1e-4)
            self._timeline.sleep(wait_s)
        self._serve()
        return self._outstanding

    def poll(self, timeout_s: float) -> int:
        """Serve reports and errors, waiting for the first."""
        if timeout_s > 0 and not self._news:
            wait_s = timeout_s
            if self._outstanding:
                wait_s = min(wait_s, max(self._arrives_s - self._timeline.now_s, 1e-4))
            self._timeline.sleep(wait_s)
        return self._serve()

    def purge(self) -> None:
        """Drop what is queued; what is on its way may arrive all the same."""
        self._purged = True
        if self._outstanding and self._id is None and self._cluster.journal is not None:
            self._cluster.journal.whole = False

    def _serve(self) -> int:
        news, self._news = self._news, []
        for tell in news:
            tell()
        return len(news)

    def _end(self, state: State, timeout_s: float) -> None:
        if state is State.COMMITTED and self._failed is not None:
            failed = failure(self._failed.code(), f"a message failed: {self._failed.str()}", abort=True)
            self._raise_fatal()
            raise KafkaException(failed)
        transactional_id, epoch = self._named, self._epoch
        # A message that was given up and may be under way must not arrive in the next transaction (KIP-360).
        bumps = state is State.ABORTED and self._in_doubt

        def end() -> int:
            self._cluster.end(transactional_id, epoch, state)
            return self._cluster.initialise(transactional_id) if bumps else epoch

        self._request("EndTxn", end, timeout_s, learn=self._take_epoch if bumps else None)

    @property
    def _named(self) -> str:
        assert self._id is not None, "a producer without transactions was asked for one"
        return self._id

    def _take_epoch(self, epoch: object) -> None:
        assert isinstance(epoch, int)
        self._epoch, self._in_doubt = epoch, False

    def _request(
        self,
        name: str,
        act: Callable[[], object],
        timeout_s: float,
        *,
        learn: Callable[[object], None] | None = None,
    ) -> None:
        """One request of a transactional call: what becomes of it, and when the call ends."""
        self._raise_fatal()
        timeline, fates = self._timeline, self._cluster.fates
        call = fates.call(transactional=name != "InitProducerId")
        fate = call.fate
        refused: list[KafkaError] = []
        self._cluster.trace(f"{name} {self._id} {fate} {call.ends_s:g}")

        def carry_out() -> None:
            try:
                answer = act()
            except (FencedProducerError, AbortableError) as fault:
                refused.append(failure_of(fault))
            else:
                if learn is not None:
                    learn(answer)

        def ends_with(error: KafkaError, wait_s: float) -> None:
            self._cluster.defer(wait_s, lambda: error)

        if fate is Fate.FENCED:
            self._cluster.initialise(self._named)
        if fate in (Fate.REFUSED, Fate.DENIED):
            code = KafkaError.TRANSACTION_ABORTABLE
            if fate is Fate.DENIED:
                code = KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
            ends_with(failure(code, f"{name} refused", abort=True), call.ends_s)
            return
        if fate in (Fate.LOST, Fate.LATE, Fate.UNANSWERED):
            at_s = call.acts_s if fate is Fate.UNANSWERED else fates.random.choice(late_s)
            if fate is not Fate.LOST:
                timeline.later(at_s, self._quietly(act))
            self._disturb(name)
            no_answer = failure(KafkaError._TIMED_OUT, f"{name}: no answer", retriable=True)
            ends_with(no_answer, min(max(call.ends_s, 0.3), timeout_s))
            return
        if call.ends_s > timeout_s:
            timeline.later(call.acts_s, self._quietly(act))
            fates.disturbed()
            ends_with(failure(KafkaError._TIMED_OUT, f"{name}: timed out", retriable=True), timeout_s)
            return
        if fate is Fate.DOUBLED:
            self._disturb(name)
            timeline.later(call.ends_s + fates.random.choice((0.01, *late_s)), self._quietly(act))
        # Carried out at its moment; refused there, the call ends so at its own.
        timeline.later(call.acts_s, carry_out)
        self._cluster.defer(call.ends_s, lambda: refused[0] if refused else None)

    def _quietly(self, act: Callable[[], object]) -> Callable[[], None]:
        """The same, with nobody there to hear what the broker says."""

        def acted() -> None:
            try:
                act()
            except (FencedProducerError, AbortableError):
                self._cluster.trace("came too late")

        return acted

    def _disturb(self, name: str) -> None:
        error = failure(KafkaError._TRANSPORT, f"{name}: disconnected")
        self._news.append(lambda: self._on_error(error))

    def _fence(self, text: str) -> None:
        if self._fatal is None:
            fatal = self._fatal = failure(KafkaError._FENCED, text, fatal=True)
            self._news.append(lambda: self._on_error(fatal))

    def _raise_fatal(self) -> None:
        if self._fatal is not None:
            raise KafkaException(self._fatal)


def membership_of(metadata: bytes, topic_id: str | None) -> Membership:
    """What the bytes of consumer_group_metadata() say."""
    group, member, _ = metadata[11:].split(b"\0", 2)
    generation = int.from_bytes(metadata[7:11], "little", signed=True)
    return Membership(group=group.decode(), member=member.decode(), generation=generation, topic_id=topic_id)


def _message_error(fate: Fate) -> KafkaError:
    if fate is Fate.DENIED:
        return failure(KafkaError.TOPIC_AUTHORIZATION_FAILED, "not permitted")
    if fate is Fate.REFUSED:
        return failure(KafkaError.NOT_ENOUGH_REPLICAS, "not enough replicas")
    return failure(KafkaError._MSG_TIMED_OUT, "message timed out")
