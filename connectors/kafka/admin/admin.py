"""What a cluster has: its id, its brokers, its topics."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

from confluent_kafka import KafkaError, TopicCollection
from confluent_kafka.admin import NewPartitions, NewTopic  # type: ignore[attr-defined]  # public, not re-exported

from penstock.connectors.kafka.admin.session import AdminSession, absent
from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.errors import translate
from penstock.schemas.errors import ConfigError, UnavailableError

settle_poll_s: Final = 0.05

_forbidden: Final = frozenset({
    KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
})  # fmt: skip

_existing: Final = frozenset({KafkaError.TOPIC_ALREADY_EXISTS})


class KafkaAdmin:
    """Asks and changes a cluster. Every call on the wire ends within `timeout_s`.

    Any method may raise UnavailableError (no answer in time) or ConfigError (refused; the sentence says why).
    """

    def __init__(self, config: ClientConfig, *, timeout_s: float = 10.0) -> None:
        self._config = config
        self._session = AdminSession(config, timeout_s=timeout_s)

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
            if isinstance(found, KafkaError) and found.code() not in absent:
                raise translate(found, f"look up topic {name}")
            counts[name] = None if isinstance(found, KafkaError) else len(found.partitions)
        return counts

    def create_topics(
        self,
        partitions: Mapping[str, int],
        *,
        replication: int | None = None,
        properties: Mapping[str, str] | None = None,
        exist_ok: bool = False,
    ) -> None:
        """Create topics with so many partitions each, and wait until every partition has a leader.

        `replication` None is the brokers' own default. `exist_ok`: a topic that exists already is left as it is; a slow
        broker may carry out a request of which the client has seen no answer, and the client then repeats it. Without it
        such a topic raises ConfigError.
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
        made = self._session.client.create_topics(
            topics, operation_timeout=self._session.timeout_s, request_timeout=self._session.timeout_s
        )
        expected = _existing if exist_ok else frozenset()
        needed = {
            name: 1
            if isinstance(self._session.answer(future, f"create topic {name}", expected=expected), KafkaError)
            else partitions[name]
            for name, future in made.items()
        }
        self._await(needed, lambda name, found: _led(found, needed[name]), "give each partition a leader")

    def add_partitions(self, partitions: Mapping[str, int]) -> None:
        """Give topics this many partitions, more than they have, and wait until every one has a leader."""
        grown = self._session.client.create_partitions(
            [NewPartitions(name, count) for name, count in partitions.items()],
            operation_timeout=self._session.timeout_s,
            request_timeout=self._session.timeout_s,
        )
        for name, future in grown.items():
            self._session.answer(future, f"add partitions to topic {name}")
        self._await(
            partitions, lambda name, found: _led(found, partitions[name]), "give each partition a leader"
        )

    def delete_topics(self, topics: Iterable[str]) -> None:
        """Delete topics, and wait until they are gone; one that does not exist is no error."""
        names = list(topics)
        gone = self._session.client.delete_topics(
            names, operation_timeout=self._session.timeout_s, request_timeout=self._session.timeout_s
        )
        for name, future in gone.items():
            self._session.answer(future, f"delete topic {name}", expected=absent)
        self._await(names, lambda _, found: isinstance(found, KafkaError), "delete topics")

    def _cluster(self) -> Any:
        future = self._session.client.describe_cluster(request_timeout=self._session.timeout_s)
        return self._session.answer(future, f"reach Kafka at {self._config.bootstrap_servers}")

    def _topics(self, topics: Iterable[str]) -> dict[str, Any]:
        """Each topic's description, or the KafkaError that stands in its place."""
        names = list(dict.fromkeys(topics))
        if not names:
            return {}
        futures = self._session.client.describe_topics(
            TopicCollection(names),
            request_timeout=self._session.timeout_s,
        )
        expected = absent | _forbidden
        return {
            name: self._session.answer(futures[name], f"look up topic {name}", expected=expected)
            for name in names
        }

    def _await(self, topics: Collection[str], settled: Callable[[str, Any], bool], doing: str) -> None:
        """Wait until the brokers tell what the controller has decided."""
        deadline_s = time.monotonic() + self._session.timeout_s
        while not all(settled(name, found) for name, found in self._topics(topics).items()):
            if time.monotonic() >= deadline_s:
                raise UnavailableError(f"cannot {doing} in {self._session.timeout_s:g} s")
            time.sleep(settle_poll_s)


def _led(found: Any, partitions: int) -> bool:
    if isinstance(found, KafkaError) or len(found.partitions) < partitions:
        return False
    return all(partition.leader is not None and partition.isr for partition in found.partitions)
