"""The client as a member of its group: how it joins, leaves and joins again, and what ends it."""

import math
from collections.abc import Callable
from typing import Any, Literal

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from penstock.connectors.delivery.producer_port import Clock
from penstock.connectors.kafka.client import AccessErrors, ClientConfig, close_aside, open_client
from penstock.connectors.kafka.errors import cause_of, consumer_error, is_fatal
from penstock.connectors.kafka.group import KafkaMembership, generation, member_id
from penstock.connectors.kafka.rejoin import Rejoin
from penstock.schemas.errors import ConfigError, FencedError, PenstockError, UnavailableError

Rebalanced = Callable[[Consumer, list[TopicPartition]], None]


class GroupMember:
    """Polling thread only. A failure is kept until the caller is ready for it: what a poll has brought must not be dropped."""

    def __init__(
        self,
        config: ClientConfig,
        settings: dict[str, Any],
        *,
        group: str,
        topic: str,
        protocol: Literal["classic", "consumer"],
        clock: Clock,
    ) -> None:
        """`settings`: the client's (penstock.connectors.kafka.group.group_settings), with its callbacks. Asks nobody yet.

        Raises ConfigError for a setting that the client refuses.
        """
        self._group = group
        self._topic = topic
        self._failure: PenstockError | None = None
        self._access = AccessErrors(tokens=config.mechanism == "OAUTHBEARER")
        self._told: dict[str, Rebalanced] = {}
        self.client = open_client(Consumer, settings | {"error_cb": self._on_error})
        # In the other protocol a member keeps its id, and asks again with its next heartbeat.
        self._rejoin = None if protocol == "consumer" else Rejoin(
            config, group=group, clock=clock, subscribe=self._subscribe, unsubscribe=self._unsubscribe
        )  # fmt: skip

    def join(self, *, on_assign: Rebalanced, on_revoke: Rebalanced, on_lost: Rebalanced) -> None:
        """With the next poll. Raises ConfigError, UnavailableError for what the client refuses."""
        self._told = {"on_assign": on_assign, "on_revoke": on_revoke, "on_lost": on_lost}
        self._subscribe()

    def lost(self) -> None:
        """The group goes on without us, or does not answer."""
        if self._rejoin is not None:
            self._rejoin.lost()

    def turn(self, answered_s: float) -> float:
        """Join again where that is due; how long a poll may wait meanwhile, infinity where it makes no difference. `answered_s`: when
        the newest question was asked that the cluster has answered."""
        if not self._rejoin:
            return math.inf
        _, its_id = self.standing()
        self._rejoin.turn(its_id, answered_s=answered_s)
        return self._rejoin.poll_max_s

    def standing(self) -> tuple[bool, str]:
        """Whether the group counts us among its members, and under which id; "" while we have none."""
        metadata = self.client.consumer_group_metadata()
        is_member, its_id = generation(metadata) >= 1, member_id(metadata)
        if self._rejoin is not None:
            self._rejoin.stands(is_member, its_id)
        return is_member, its_id

    def membership(self, note: str) -> KafkaMembership:
        """What a producer needs to commit for this member, with a note beside the offsets. Raises UnavailableError before it is one."""
        metadata = self.client.consumer_group_metadata()
        if generation(metadata) < 1:  # the coordinator would not check it, and a zombie could commit
            raise UnavailableError(f"not a member of group {self._group} yet")
        return KafkaMembership(metadata=metadata, note=note)

    def fail(self, failure: PenstockError) -> None:
        """To be raised when the caller asks for it; the first one stays, unless it was only that nobody answers."""
        if self._failure is None or isinstance(self._failure, UnavailableError):
            self._failure = failure

    def raise_failure(self) -> None:
        """Raises the failure that is kept, once."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def note_error(self, error: KafkaError, where: str) -> None:
        """An error that a poll brought and that is about no offset."""
        failure = consumer_error(error, where)
        if is_fatal(error) or isinstance(failure, ConfigError | FencedError):
            self.fail(failure)

    def close(self, timeout_s: float) -> None:
        """Leave the group."""
        if self._rejoin is not None:
            self._rejoin.close()
        close_aside(self.client).join(timeout_s)

    def _on_error(self, error: KafkaError) -> None:
        """Client-wide errors. From all that is not handled here the client recovers."""
        if error.fatal():
            self.fail(consumer_error(error, f"group {self._group}"))
        elif (refused := self._access.reaction(error)) is not None:
            self.fail(refused)

    def _subscribe(self) -> None:
        try:
            self.client.subscribe([self._topic], **self._told)
        except KafkaException as error:
            raise consumer_error(cause_of(error), f"topic {self._topic}") from error

    def _unsubscribe(self) -> None:
        try:
            self.client.unsubscribe()
        except KafkaException as error:
            raise consumer_error(cause_of(error), f"topic {self._topic}") from error
