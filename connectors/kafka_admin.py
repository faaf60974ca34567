"""What a cluster has and allows: its id, its topics, and the permissions we need."""

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient, NewTopic  # type: ignore[attr-defined]  # public, not re-exported

from connectors.kafka_client import (
    ClientConfig,
    ClientErrors,
    base_config,
    open_client,
    producer_config,
    translate,
)
from schemas.errors import ConfigError, PenstockError, UnavailableError

leader_poll_s: Final = 0.05
grace_s: Final = 2.0  # beyond the client's own time-out, which should always end a call first

_absent: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})
_forbidden: Final = frozenset({
    KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
})  # fmt: skip
_unheard: Final = frozenset({
    KafkaError._TIMED_OUT, KafkaError._TIMED_OUT_QUEUE, KafkaError._TRANSPORT, KafkaError.REQUEST_TIMED_OUT,
})  # fmt: skip


class KafkaAdmin:
    """Asks and changes a cluster. Every call on the wire ends within `timeout_s`.

    Any method may raise UnavailableError (no answer in time) or ConfigError (refused; the sentence says why).
    """

    def __init__(self, config: ClientConfig, *, timeout_s: float = 10.0) -> None:
        self._config = config
        self._timeout_s = timeout_s
        self._errors = ClientErrors()
        self._client = open_client(AdminClient, base_config(config) | {"error_cb": self._errors})

    def cluster_id(self) -> str:
        """Kafka's own id of the cluster."""
        return str(self._cluster().cluster_id)

    def broker_ids(self) -> frozenset[int]:
        """The ids of the brokers that are up."""
        return frozenset(node.id for node in self._cluster().nodes)

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has. Raises ConfigError when there is no such topic."""
        count = self.partition_counts([topic])[topic]
        if count is None:
            raise ConfigError(f"topic {topic} does not exist")
        return count

    def partition_counts(self, topics: Iterable[str]) -> dict[str, int | None]:
        """Partitions of each topic, None for one that does not exist."""
        counts: dict[str, int | None] = {}
        for name, found in self._topics(topics).items():
            if isinstance(found, KafkaError) and found.code() not in _absent:
                raise translate(found, f"look up topic {name}")
            counts[name] = None if isinstance(found, KafkaError) else len(found.partitions)
        return counts

    def create_topics(
        self,
        partitions: Mapping[str, int],
        *,
        replication: int | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        """Create topics with so many partitions each, and wait until every partition has a leader.

        `replication` None is the brokers' own default. Raises ConfigError when one exists already.
        """
        topics = [
            NewTopic(
                name,
                num_partitions=count,
                replication_factor=-1 if replication is None else replication,
                config=dict(properties or {}),
            )
            for name, count in partitions.items()
        ]
        made = self._client.create_topics(
            topics, operation_timeout=self._timeout_s, request_timeout=self._timeout_s
        )
        for name, future in made.items():
            self._answer(future, f"create topic {name}")
        self._await_leaders(partitions)

    def delete_topics(self, topics: Iterable[str]) -> None:
        """Delete topics; one that does not exist is no error."""
        gone = self._client.delete_topics(
            list(topics), operation_timeout=self._timeout_s, request_timeout=self._timeout_s
        )
        for name, future in gone.items():
            self._answer(future, f"delete topic {name}", expected=_absent)

    def check(
        self,
        *,
        reads: Sequence[str] = (),
        writes: Sequence[str] = (),
        group: str | None = None,
        transactional_id: str | None = None,
    ) -> None:
        """Prove that topics exist and that this user may do what a worker does; one ConfigError names all that is amiss.

        `transactional_id` is initialised for the proof, so it must be one that no producer uses.
        """
        faults = self._topic_faults(reads, AclOperation.READ) + self._topic_faults(writes, AclOperation.WRITE)
        if group is not None:
            faults += self._group_faults(group)
        if transactional_id is not None:
            faults += self._transaction_faults(transactional_id)
        if faults:
            raise ConfigError("; ".join(dict.fromkeys(faults)))

    def _topic_faults(self, topics: Sequence[str], operation: AclOperation) -> list[str]:
        faults = []
        for name, found in self._topics(topics).items():
            if isinstance(found, KafkaError):
                if found.code() in _forbidden:
                    faults.append(_permission(operation, f"topic {name}"))
                elif found.code() in _absent:
                    faults.append(f"topic {name} does not exist")
                else:
                    raise translate(found, f"look up topic {name}")
            elif found.authorized_operations is not None and operation not in found.authorized_operations:
                faults.append(_permission(operation, f"topic {name}"))
        return faults

    def _group_faults(self, group: str) -> list[str]:
        future = self._client.describe_consumer_groups(
            [group], include_authorized_operations=True, request_timeout=self._timeout_s
        )[group]
        found = self._answer(
            future, f"look up group {group}", expected=_forbidden | {KafkaError.GROUP_ID_NOT_FOUND}
        )
        if isinstance(found, KafkaError):
            lacking = found.code() in _forbidden
        else:
            allowed = found.authorized_operations
            lacking = allowed is not None and AclOperation.READ not in allowed
        if not lacking:
            return []
        return [_permission(AclOperation.READ, f"group {group}")]

    def _transaction_faults(self, transactional_id: str) -> list[str]:
        properties = producer_config(self._config) | {"transactional.id": transactional_id}
        producer = open_client(Producer, properties)
        try:
            producer.init_transactions(self._timeout_s)
        except KafkaException as error:
            fault = error.args[0]
            if fault.code() in _forbidden:
                return [_permission(AclOperation.WRITE, f"transactional id {transactional_id}")]
            raise translate(fault, f"begin a transaction as {transactional_id}") from error
        return []

    def _cluster(self) -> Any:
        future = self._client.describe_cluster(request_timeout=self._timeout_s)
        return self._answer(future, f"reach Kafka at {self._config.bootstrap_servers}")

    def _topics(self, topics: Iterable[str]) -> dict[str, Any]:
        """Each topic's description, or the KafkaError that stands in its place."""
        names = list(dict.fromkeys(topics))
        if not names:
            return {}
        futures = self._client.describe_topics(
            TopicCollection(names), include_authorized_operations=True, request_timeout=self._timeout_s
        )
        expected = _absent | _forbidden
        return {
            name: self._answer(futures[name], f"look up topic {name}", expected=expected) for name in names
        }

    def _await_leaders(self, partitions: Mapping[str, int]) -> None:
        for _ in range(max(int(self._timeout_s / leader_poll_s), 1)):
            found = self._topics(partitions)
            if all(_led(found[name], count) for name, count in partitions.items()):
                return
            time.sleep(leader_poll_s)
        raise UnavailableError(
            f"partitions of {', '.join(partitions)} have no leader after {self._timeout_s:g} s"
        )

    def _answer(self, future: "Future[Any]", doing: str, *, expected: frozenset[int] = frozenset()) -> Any:
        """The result, or the KafkaError when its code is an expected one."""
        try:
            return future.result(self._timeout_s + grace_s)
        except FutureTimeoutError as error:
            raise self._silence(doing) from error
        except KafkaException as error:
            fault = error.args[0]
            if fault.code() in expected:
                return fault
            if fault.code() in _unheard:
                raise self._silence(doing) from error
            raise translate(fault, doing) from error

    def _silence(self, doing: str) -> PenstockError:
        self._client.poll(0)  # hands over what the client has to say, a refused password for one
        return self._errors.explain(doing)


def _led(found: Any, partitions: int) -> bool:
    if isinstance(found, KafkaError) or len(found.partitions) < partitions:
        return False
    return all(partition.leader is not None and partition.isr for partition in found.partitions)


def _permission(operation: AclOperation, resource: str) -> str:
    return f"this user lacks the permission {operation.name.capitalize()} on {resource}"
