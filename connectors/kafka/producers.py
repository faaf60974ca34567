"""Kafka producers as the sinks want them: one with transactions, one with acknowledgements."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import ceil
from operator import itemgetter
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from penstock.connectors.delivery.at_least_once import Tally
from penstock.connectors.delivery.producer_port import (
    AbortableError,
    BrokenError,
    RefusedError,
    TransactionError,
    UnfinishedError,
)
from penstock.connectors.kafka.call_thread import Aside
from penstock.connectors.kafka.client import ClientConfig, drop, open_client, producer_config
from penstock.connectors.kafka.errors import access_faults, cause_of, is_refusal, said, transaction_error
from penstock.connectors.kafka.group import KafkaMembership
from penstock.connectors.partitioner import rows_by_target
from penstock.schemas.errors import InvariantError
from penstock.schemas.records import Headers, Outgoing

messages_per_call = 8192
queue_messages_max = 2_000_000
batch_bytes_default = 1_000_000
_connect_s = 1.0
_connection_lost = access_faults | {KafkaError._TRANSPORT, KafkaError._TIMED_OUT}


class _Queue:
    """A client and its bounded queue of messages."""

    def __init__(
        self,
        config: ClientConfig,
        properties: Mapping[str, Any],
        *,
        memory_bytes_max: int,
        batch_bytes_max: int,
    ) -> None:
        self._memory_bytes_max = memory_bytes_max
        self._queued_bytes = 0  # since the queue was last empty
        self._fatal: KafkaError | None = None
        self.disturbances = 0
        self._client: Producer | None = open_client(
            Producer,
            {
                "linger.ms": 0,  # deliveries are batches already
                **producer_config(config),
                **properties,
                # The topic's bound is on the whole batch: one that is longer would be refused with every message in it.
                "batch.size": max(min(batch_bytes_max, batch_bytes_default), 1),
                "partitioner": "murmur2_random",
                "queue.buffering.max.messages": queue_messages_max,
                # twice our own bound: it holds the overhead of short messages, and must never be what says no
                "queue.buffering.max.kbytes": max(2 * memory_bytes_max // 1024, 1024),
                "error_cb": self._on_error,
            },
        )

    @property
    def client(self) -> Producer:
        if self._client is None:
            raise InvariantError("a closed producer was used")
        return self._client

    def enqueue(
        self,
        outgoing: Outgoing,
        start: int,
        timeout_s: float,
        input_partitions: int,
        partitions: int,
        callback: Any,
    ) -> int:
        """Queue messages, leaving out the first `start` of the order they go in; how many of them are queued now."""
        queued = 0
        for target, rows in rows_by_target(outgoing.partitions, input_partitions, partitions):
            for first in range(0, len(rows), messages_per_call):
                some = rows[first : first + messages_per_call]
                queued += len(some)
                if queued <= start:
                    continue
                values, keys = _chosen(outgoing.values, some), _chosen(outgoing.keys, some)
                stored_bytes = _stored_bytes(values) + _stored_bytes(keys)
                headers = None if outgoing.headers is None else [outgoing.headers[row] for row in some]
                if headers is not None:
                    stored_bytes += sum(
                        len(name) + len(value or b"") for each in headers for name, value in each
                    )
                if not self._make_room(stored_bytes, len(some), timeout_s):
                    return queued - len(some)
                self._queued_bytes += stored_bytes
                if headers is not None and any(headers):
                    self._produce_each(outgoing.topic, values, keys, headers, target, callback)
                    continue
                messages: list[Any] = [
                    {"value": value, "key": key} for value, key in zip(values, keys, strict=True)
                ]
                # The partition stands beside the list: in a message's own dictionary it is passed over in silence.
                taken = self.client.produce_batch(outgoing.topic, messages, target, on_delivery=callback)
                if taken != len(messages):
                    fault = next(message["_error"] for message in messages if "_error" in message)
                    raise _refused(fault, outgoing.topic)
        return queued

    def _produce_each(
        self,
        topic: str,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None],
        headers: Sequence[Headers],
        target: int,
        callback: Any,
    ) -> None:
        """One call a message: the client's batches have no place for headers."""
        client = self.client
        for value, key, carried in zip(values, keys, headers, strict=True):
            try:
                client.produce(topic, value, key, target, on_delivery=callback, headers=list(carried))
            except KafkaException as error:
                raise _refused(cause_of(error), topic) from error
            except BufferError as error:
                raise AbortableError(f"topic {topic}: the client's queue is full") from error

    def serve(self, timeout_s: float) -> None:
        """Take reports and news, waiting for the first. Raises BrokenError after a fatal error."""
        try:
            self.client.poll(_whole_ms(timeout_s))
        except KafkaException as error:
            raise BrokenError(said(cause_of(error))) from error
        self._check()

    def flush(self, timeout_s: float) -> int:
        """Wait for acknowledgements; how many are missing. Raises BrokenError after a fatal error."""
        try:
            left: int = self.client.flush(_whole_ms(timeout_s))
        except KafkaException as error:
            raise BrokenError(said(cause_of(error))) from error
        self._check()
        if left == 0:
            self._queued_bytes = 0
        return left

    def _check(self) -> None:
        if self._fatal is not None:
            raise BrokenError(said(self._fatal))

    def close(self) -> None:
        """Drop what is queued and let go of the client."""
        if self._client is not None:
            client, self._client = self._client, None
            with suppress(KafkaException):  # it may be broken, and says so at every call
                drop(client)

    def _make_room(self, stored_bytes: int, messages: int, timeout_s: float) -> bool:
        if len(self.client) == 0:
            self._queued_bytes = 0
        full = self._queued_bytes and self._queued_bytes + stored_bytes > self._memory_bytes_max
        if not full and len(self.client) + messages <= queue_messages_max:
            return True
        return self.flush(timeout_s) == 0

    def _on_error(self, error: KafkaError) -> None:
        self.disturbances += 1
        if error.fatal():
            self._fatal = error


def _whole_ms(timeout_s: float) -> float:
    """The time to wait, up to a whole millisecond: the client cuts it down to one, and whoever has part of one left would
    ask over and over without waiting at all, on a core that the compute thread and the broker need."""
    return ceil(timeout_s * 1000) / 1000


def _chosen(column: Sequence[bytes | None], rows: Sequence[int]) -> Sequence[bytes | None]:
    """These rows of it, taken in one call: a third of the time that a comprehension needs."""
    return itemgetter(*rows)(column) if len(rows) > 1 else [column[row] for row in rows]


def _stored_bytes(column: Sequence[bytes | None]) -> int:
    try:
        return sum(map(len, column))  # type: ignore[arg-type]  # that one is None is rare, and told by the error
    except TypeError:
        return sum(map(len, filter(None, column)))


def _refused(error: KafkaError, topic: str) -> TransactionError:
    """Why messages were not even queued. The bounds are ours, so a full queue is not among the reasons."""
    text = f"topic {topic}: {said(error)}"
    if is_refusal(error):
        return RefusedError(text)
    return BrokenError(text) if error.fatal() else AbortableError(text)


class KafkaTransactionalProducer:
    """penstock.connectors.delivery.producer_port.TransactionalProducer on librdkafka.

    No message has a delivery callback: each would take the interpreter lock from the compute thread. It is not needed
    for the verdict either. librdkafka counts every message of the transaction that failed before it hands its report
    on, and commit_transaction refuses (requires abort) while that count is not zero; `flush` returned with nothing
    outstanding, so every message that did not fail was acknowledged by all in-sync replicas.
    """

    def __init__(
        self,
        config: ClientConfig,
        *,
        transactional_id: str,
        topic: str,
        partition_counts: Mapping[str, int],
        transaction_timeout_s: float,
        memory_bytes_max: int,
        batch_bytes_max: int = batch_bytes_default,
    ) -> None:
        self._topic = topic
        self._partition_counts = partition_counts
        self._counts = dict(partition_counts)  # for its whole life: see PartitionCounts
        self._disturbed_before = 0  # this transaction,
        self._disturbed_before_commit = 0  # and its commit
        # Transactional calls are made on a thread of their own, each once and with time enough. Called in short slices,
        # as its documentation allows, librdkafka 2.16 forgets now and then that it is committing, and then ends the
        # process (rd_kafka_txn_set_state: CommittingTransaction -> AbortedNotAcked). And send_offsets_to_transaction
        # waits for its answer whatever time-out it is given: 20 s were measured while the coordinator was away.
        self._aside = Aside(f"{transactional_id}-calls")
        self._under_way: str | None = None
        self._patience_s = transaction_timeout_s / 3
        self._initialise_s = transaction_timeout_s
        self._queue = _Queue(
            config,
            {
                "transactional.id": transactional_id,
                "transaction.timeout.ms": int(transaction_timeout_s * 1000),
                "message.timeout.ms": int(transaction_timeout_s * 1000 / 2),
            },
            memory_bytes_max=memory_bytes_max,
            batch_bytes_max=batch_bytes_max,
        )

    def initialise(self, timeout_s: float) -> None:
        """As TransactionalProducer asks; likewise below."""
        client, patience_s = self._queue.client, self._initialise_s

        def initialise() -> None:
            # A client that is not connected when it is asked for its coordinator asks again half a second later.
            with suppress(KafkaException):
                client.list_topics(self._topic, timeout=_connect_s)
            client.init_transactions(patience_s)

        self._call("initialise", initialise, timeout_s)
        self._mark()  # what was said before, of a broker that is down perhaps, concerns no request that could act later

    def begin(self) -> None:
        try:
            self._queue.client.begin_transaction()
        except KafkaException as error:
            raise transaction_error(error) from error
        self._mark()

    def produce(self, outgoing: Outgoing, start: int, timeout_s: float) -> int:
        counts = self._counts
        return self._queue.enqueue(
            outgoing, start, timeout_s, counts[self._topic], counts[outgoing.topic], None
        )

    def send_offsets(self, positions: Mapping[int, int], membership: object, timeout_s: float) -> None:
        if not isinstance(membership, KafkaMembership):
            raise InvariantError("offsets were sent with a membership of another broker")
        metadata, note = membership.metadata, membership.note
        offsets = [TopicPartition(self._topic, p, offset, note) for p, offset in positions.items()]
        send, patience_s = self._queue.client.send_offsets_to_transaction, self._patience_s
        self._call("send offsets", lambda: send(offsets, metadata, patience_s), timeout_s)

    def flush(self, timeout_s: float) -> None:
        left = self._queue.flush(timeout_s)
        if left:
            raise UnfinishedError(f"{left} messages are not acknowledged yet")

    def commit(self, timeout_s: float) -> None:
        if self._under_way is None:
            self._queue.serve(0)
            self._disturbed_before_commit = self._queue.disturbances
        commit, patience_s = self._queue.client.commit_transaction, self._patience_s
        try:
            self._call("commit", lambda: commit(patience_s), timeout_s)
        except (AbortableError, RefusedError) as error:
            # Certain only when no commit request can be under way.
            if self._disturbed_since(self._disturbed_before_commit):
                raise BrokenError(f"outcome unknown: {error}") from error
            raise

    def abort(self, timeout_s: float) -> None:
        abort, patience_s = self._queue.client.abort_transaction, self._patience_s
        self._call("abort", lambda: abort(patience_s), timeout_s)

    def suspect(self) -> bool:
        # Offsets as well as the end: sent a second time over a new connection, the first may come in the next transaction.
        return self._disturbed_since(self._disturbed_before) or self._counts != dict(self._partition_counts)

    def _disturbed_since(self, before: int) -> bool:
        try:
            self._queue.serve(0)  # news of connections arrives here
        except BrokenError:
            return True
        return self._queue.disturbances != before

    def close(self) -> None:
        self._aside.close()
        self._queue.close()

    def _mark(self) -> None:
        self._queue.serve(0)
        self._disturbed_before = self._queue.disturbances

    def _await_offsets(self, timeout_s: float) -> None:
        """Until they are sent or refused, which is the same to a transaction that is given up. Raises BrokenError where that stays
        unknown: they may still arrive, in the transaction that follows."""
        try:
            ended = self._aside.wait(timeout_s)
        except KafkaException as error:
            self._under_way = None
            fault = transaction_error(error)
            if not isinstance(fault, AbortableError | RefusedError):
                raise BrokenError(f"offsets may still arrive: {fault}") from error
            return
        if not ended:
            raise UnfinishedError("the broker has not answered yet (send offsets)")
        self._under_way = None

    def _call(self, name: str, call: Callable[[], None], timeout_s: float) -> None:
        """Begin the call, or look in for its end. UnfinishedError while it is under way, and only then."""
        if name == "abort" and self._under_way == "send offsets":
            self._await_offsets(timeout_s)
        if self._under_way not in (None, name):
            raise BrokenError(f"cannot {name}: still about to {self._under_way}")
        self._under_way = name
        try:
            ended = self._aside.run(call, timeout_s)
        except KafkaException as error:
            self._under_way = None
            fault = transaction_error(error)
            cause = cause_of(error)
            request_lost = cause.code() in _connection_lost and "EndTxn" in cause.str()
            if request_lost or isinstance(fault, UnfinishedError):  # it had its time, and cannot be resumed
                raise BrokenError(f"outcome unknown: {fault}") from error
            raise fault from error
        if not ended:
            raise UnfinishedError(f"the broker has not answered yet ({name})")
        self._under_way = None


class KafkaAcknowledger:
    """penstock.connectors.delivery.at_least_once.AcknowledgingProducer on librdkafka: idempotent, so retries neither repeat nor reorder."""

    def __init__(
        self,
        config: ClientConfig,
        *,
        topic: str,
        partition_counts: Mapping[str, int],
        message_timeout_s: float,
        memory_bytes_max: int,
        batch_bytes_max: int = batch_bytes_default,
    ) -> None:
        self._topic = topic
        self._counts = dict(partition_counts)
        self._queue = _Queue(
            config,
            {"message.timeout.ms": int(message_timeout_s * 1000)},
            memory_bytes_max=memory_bytes_max,
            batch_bytes_max=batch_bytes_max,
        )

    def produce(self, outgoing: Outgoing, start: int, tally: Tally, timeout_s: float) -> int:
        """As AcknowledgingProducer asks; likewise below."""

        def reported(error: KafkaError | None, _: Message) -> None:
            tally.reported += 1
            if error is not None:
                tally.failed += 1
                if is_refusal(error):
                    tally.refusal = f"topic {outgoing.topic}: {said(error)}"

        counts = self._counts
        stop = self._queue.enqueue(
            outgoing, start, timeout_s, counts[self._topic], counts[outgoing.topic], reported
        )
        tally.queued += stop - start
        return stop

    def serve(self, timeout_s: float) -> None:
        self._queue.serve(timeout_s)

    def close(self) -> None:
        self._queue.close()
