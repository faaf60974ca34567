"""Whether the cluster answers: asked once a second, by a client and a thread of its own, for as long as a worker runs.

What a consumer's own client reports is not enough: an idle one, or one whose broker stands still, reports nothing at all.
"""

import logging
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from penstock.connectors.kafka.client import ClientConfig, base_config, open_client
from penstock.connectors.kafka.errors import cause_of, said
from penstock.connectors.kafka.partition_counts import PartitionCounts
from penstock.connectors.kafka.rejoin import ghost_patience_s
from penstock.connectors.kafka.wire.groups import describe_group, leave_group
from penstock.schemas.errors import ConfigError, UnavailableError
from penstock.schemas.log_codes import LogCode

logger = logging.getLogger("penstock.kafka")

ask_every_s: Final = 1.0
ask_lost_every_s: Final = 0.25  # while it does not answer: whoever waits for it wants to know soon
ask_timeout_s: Final = 2.0
group_every_s: Final = 10.0
ghost_tries_max: Final = 60
members_shown_max: Final = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Contact:
    """What is known of the cluster at one moment; penstock.engine.pipeline.hooks.Contact by shape."""

    address: str
    answer_age_s: float
    fault: str  # the newest error since the last answer, "" when there is none
    partitions: int | None  # of the input topic; None while unknown
    members: str  # of the group, in words; "" unless it was asked for
    outputs: Mapping[str, int] = field(default_factory=dict)  # partitions of each output topic


class KafkaContact:
    """Asks for the topics' metadata and remembers when an answer came. `contact` never waits."""

    def __init__(
        self,
        config: ClientConfig,
        *,
        topic: str,
        group: str,
        member: str,
        monotonic_s: Callable[[], float],
        counts: PartitionCounts | None = None,
    ) -> None:
        """`member` is this worker's client id; `counts` is told of new partitions, each topic in turn asked for.

        Starts its thread; raises ConfigError for refused settings.
        """
        self._counts = counts or PartitionCounts({topic: 0})
        outputs = sorted(self._counts.keys() - {topic})
        turns = [each for output in outputs for each in (topic, output)] or [topic]
        self._turns = cycle(turns)
        self._config = config
        self._topic = topic
        self._group = group
        self._member = member
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._answered_s = monotonic_s()  # whoever makes this has just been answered
        self._fault = ""
        self._partitions: int | None = None
        self._members = ""
        self._group_wanted = False
        self._member_id = ""  # the last one under which the group counted us among its members
        self._newest_id = ""  # the client's, whether or not the group counts it
        self._ghost = ""  # the one before, which the group may still wait for
        self._ghost_due_s = 0.0
        self._group_due_s = 0.0
        self._ghost_tries = 0
        self._ended = threading.Event()
        # Who asks for a topic that was deleted may make it anew, where brokers allow that: not we.
        own = {"error_cb": self._on_error, "allow.auto.create.topics": False}
        self._client = open_client(AdminClient, base_config(config) | own)
        self._thread = threading.Thread(target=self._run, name="kafka-contact", daemon=True)
        self._thread.start()

    def contact(self, *, asks_for_members: bool) -> Contact:
        """What is known now. `asks_for_members`: the next one should say who is in the group."""
        now_s = self._monotonic_s()
        with self._lock:
            self._group_wanted = asks_for_members
            if not asks_for_members:
                self._members = ""
            return Contact(
                address=self._config.bootstrap_servers,
                answer_age_s=max(now_s - self._answered_s, 0.0),
                fault=self._fault,
                partitions=self._partitions,
                members=self._members,
                outputs={name: n for name, n in self._counts.now().items() if name != self._topic},
            )

    def standing(self, member: bool, member_id: str) -> None:
        """Whether the group counts us among its members, and under which id. An id that the client has given up is taken
        out of the group when the cluster answers and the new id has come: a group without members makes the next one wait."""
        with self._lock:
            self._newest_id = member_id
            if self._member_id and member_id != self._member_id:
                self._ghost, self._member_id = self._member_id, ""
                self._ghost_due_s = self._monotonic_s() + ghost_patience_s
            if member:
                self._member_id = member_id
                if member_id == self._ghost:  # it has not been given up after all
                    self._ghost = ""

    def close(self) -> None:
        """Ask no more. Does not wait for a question under way."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._ask()
            with self._lock:
                if self._fault:
                    self._ghost_due_s = self._monotonic_s() + ghost_patience_s
                ghost = self._ghost if not self._fault else ""
                due = self._newest_id != "" or self._monotonic_s() >= self._ghost_due_s
            if ghost and due:
                self._remove(ghost)
            with self._lock:
                describe = self._group_wanted and not self._fault and self._monotonic_s() >= self._group_due_s
            if describe:
                self._describe_group()
            self._ended.wait(ask_lost_every_s if self._fault or ghost else ask_every_s)

    def _ask(self) -> None:
        topic = next(self._turns)
        try:
            found = self._client.list_topics(topic, timeout=ask_timeout_s).topics.get(topic)
        except KafkaException as error:
            with suppress(KafkaException):
                self._client.poll(0)  # hands over what the client says by itself: which address, and why
            with self._lock:
                self._fault = self._fault or said(cause_of(error))
            return
        with self._lock:
            self._answered_s = self._monotonic_s()
            self._fault = ""
            if found is not None and found.error is None:
                self._counts.learn(topic, len(found.partitions))
                if topic == self._topic:
                    self._partitions = len(found.partitions)

    def _on_error(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # says less than the error before it
            with self._lock:
                self._fault = said(error)

    def _remove(self, ghost: str) -> None:
        """Tell the coordinator that nobody speaks for this member; it would wait for it for a whole session."""
        try:
            leave_group(self._config, group=self._group, member_id=ghost)
        except (UnavailableError, ConfigError) as error:
            logger.info(
                "member %s of group %s: %s", ghost, self._group, error, extra=LogCode.GHOST_MEMBER_STAYS.extra
            )
            with self._lock:
                self._ghost_tries += 1
                over = self._ghost_tries >= ghost_tries_max
            if not over:
                return
        with self._lock:
            self._ghost_tries = 0
            if self._ghost == ghost:
                self._ghost = ""

    def _describe_group(self) -> None:
        """Who is in the group, for whoever waits for it."""
        self._group_due_s = self._monotonic_s() + group_every_s
        try:
            group = describe_group(self._config, self._group)
        except (UnavailableError, ConfigError) as error:
            text = f"who is in it could not be learnt ({error})"
        else:
            others = [m for m in group.members if m.client_id != self._member]
            shown = ", ".join(f"{m.client_id} ({m.address})" for m in others[:members_shown_max])
            more = f" and {len(others) - members_shown_max} more" if len(others) > members_shown_max else ""
            state = re.sub("(?<=[a-z])(?=[A-Z])", " ", group.state).lower()
            text = f"the group is {state}; other members: {shown or 'none'}{more}"
        with self._lock:
            self._members = text
