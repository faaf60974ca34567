"""Where a member begins to read each partition: at the committed offset, if it is one of this topic; else as `start` says."""

import logging
from collections.abc import Callable
from typing import Literal

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from penstock.connectors.delivery.producer_port import Clock
from penstock.connectors.kafka.errors import cause_of, consumer_error
from penstock.connectors.kafka.reading.commits import noted_topic_id, offset_note
from penstock.connectors.kafka.reading.topic_watch import TopicFacts
from penstock.schemas.errors import ConfigError, PenstockError, UnavailableError
from penstock.schemas.log_codes import LogCode

logger = logging.getLogger("penstock.kafka")

Start = Literal["earliest", "latest", "error"]
Recreated = Literal["read", "stop"]

place_timeout_s = 0.15
"""The polling thread's patience with the coordinator in one call, for all partitions of an assignment together."""
place_one_first_s = 0.02
slow_first_s, slow_max_s = 0.3, 1.2
"""So long one question in a while may take where none is answered in that time: the brokers may be further away than that. It
doubles, and ten times as long as it took the polling thread is left alone after it."""


class Starts:
    """Looks up where to begin, each time for a short time only. Polling thread only.

    How short, the answers say: twice what the last one took, where that is more. An open transaction holds an answer back as
    brokers do that are far away, so that is tried out seldom.

    `start` is about a group: it is resolved once, when no partition of the topic has a commit. Then the place of every
    partition, its beginning or its end, is committed before the first record is read: a record that is deleted after that
    is missed, and one before it never was the group's. Only the member that holds partition 0 does so: if each did, a commit
    of these that arrives late would take the group back, or ahead. A partition that has no commit in a group that has some
    appeared later, and begins at its beginning.
    """

    def __init__(
        self,
        consumer: Consumer,
        *,
        group: str,
        topic: str,
        start: Start,
        recreated: Recreated,
        fail: Callable[[PenstockError], None],
        clock: Clock,
    ) -> None:
        """`fail` is told what a person has to mend."""
        self._clock = clock
        self._took_s = 0.0  # the last answer
        self._slow_s, self._slow_due_s = slow_first_s, clock.monotonic_s() + 10 * place_timeout_s
        self._consumer = consumer
        self._group = group
        self._topic = topic
        self._start = start
        self._recreated = recreated
        self._fail = fail
        self._decides = False
        self._turn = 0
        self._patience_s = place_one_first_s
        self._foreign: dict[int, int] = {}  # commits of others, as last told of
        self._without_commit: set[int] = set()  # as last heard; what that means, the group as a whole says
        self._fresh = False  # no partition at all had a commit
        self._places: list[TopicPartition] | None = None  # to be committed if that is still so

    def soon(self, partitions: set[int], facts: TopicFacts, *, decides: bool) -> dict[int, int]:
        """Where to begin each, of those for which the coordinator says so in a short time.

        `decides`: this member holds partition 0.

        An open transaction of a predecessor holds the answer back, for every partition that is asked about together
        with the one it concerns; so each is then asked about alone, and only that one waits.
        """
        self._decides = decides
        heard, starts = self._find(partitions, place_timeout_s / 2, facts)
        self._slow_due_s = self._clock.monotonic_s() + 10 * place_timeout_s
        if not heard:
            self._patience_s = place_one_first_s
        if len(partitions) > 1 and not heard:
            for partition in sorted(partitions)[: int(place_timeout_s / 2 / place_one_first_s)]:
                starts |= self._find({partition}, place_one_first_s, facts)[1]
        return starts

    def one(self, waiting: set[int], facts: TopicFacts, *, decides: bool) -> dict[int, int]:
        """Where to begin one of these, another one at each call, so that one that has to wait holds up no other.

        One question is asked of the brokers at each call: what one answer leads to is the next call's.
        """
        self._decides = decides
        missing = self._without_commit & waiting
        others = sorted(waiting - missing)
        self._turn += 1
        if missing and (not others or self._turn % 2):
            return self._by_the_group(missing, facts)
        partition = others[self._turn // 2 % len(others)] if missing else others[self._turn % len(others)]
        return self._find({partition}, self._patience(), facts)[1]

    def _patience(self) -> float:
        """With the next question, which is the only one of this turn."""
        if self._patience_s < self._patience_max_s or self._clock.monotonic_s() < self._slow_due_s:
            return self._patience_s
        return max(self._slow_s, self._patience_s)

    @property
    def _patience_max_s(self) -> float:
        return max(place_timeout_s, min(2 * self._took_s, slow_max_s))

    def _heard(self, began_s: float, timeout_s: float, *, answer: bool) -> None:
        """A question was answered, or was not in its time."""
        now_s = self._clock.monotonic_s()
        if answer:
            self._took_s = now_s - began_s
            self._patience_s = max(place_one_first_s, min(2 * self._took_s, slow_max_s))
            self._slow_s = slow_first_s
        else:
            if timeout_s >= self._patience_max_s:
                self._took_s = 0.0  # nor is twice as long enough any more
            self._patience_s = min(2 * self._patience_s, self._patience_max_s)
            if timeout_s >= self._slow_s:
                self._slow_s = min(2 * self._slow_s, slow_max_s)
        if answer or timeout_s >= slow_first_s:
            self._slow_due_s = now_s + 10 * max(now_s - began_s, slow_first_s)

    def _find(self, partitions: set[int], timeout_s: float, facts: TopicFacts) -> tuple[bool, dict[int, int]]:
        """Whether there was an answer, and where to begin by it.

        The committed offset is asked for here rather than by the client: for a group with commits the client's reset
        policy must be `error`, and for one without it must not."""
        starts: dict[int, int] = {}
        missing: set[int] = set()
        foreign: dict[int, int] = {}
        answers = self._committed(partitions, timeout_s)
        for place in answers:
            if place.offset < 0:
                missing.add(place.partition)
                continue
            noted = noted_topic_id(place.metadata)
            if noted is None and facts.id is not None and place.offset:
                foreign[place.partition] = place.offset
            if noted is None or facts.id is None or noted == facts.id:
                starts[place.partition] = place.offset
            elif self._recreated == "stop":
                self._fail(ConfigError(recreated_sentence(self._topic, noted, facts.id, self._group)))
            else:
                logger.warning(
                    "topic %s was deleted and made anew (id %s, then %s): partition %d is read from its beginning, not from "
                    "the offset %d that group %s committed of the old topic",
                    self._topic, noted, facts.id, place.partition, place.offset, self._group,
                    extra=LogCode.TOPIC_READ_ANEW.extra,
                )  # fmt: skip
                starts[place.partition] = OFFSET_BEGINNING
        self._without_commit |= missing
        if foreign and foreign != self._foreign:
            self._foreign = foreign
            logger.warning(
                "what group %s has committed of %s was not written by Penstock: %s; a consumer of another program in this group, or "
                "who moved the offsets, decides that the records before are not predicted",
                self._group, self._topic, ", ".join(f"partition {p} at offset {at}" for p, at in sorted(foreign.items())),
                extra=LogCode.FOREIGN_COMMIT.extra,
            )  # fmt: skip
        return bool(answers), starts

    def _by_the_group(self, missing: set[int], facts: TopicFacts) -> dict[int, int]:
        """Where partitions without a commit begin, by what the whole group has."""
        if self._decides and self._fresh and self._places is None:
            self._places = self._ask_places(facts)
            return {}
        everywhere = self._committed(set(range(facts.partitions)), self._patience())
        if not everywhere:
            return {}
        if any(place.offset >= 0 for place in everywhere):
            self._without_commit.clear()
            self._fresh, self._places = False, None
            found = {place.partition for place in everywhere if place.offset < 0}
            if not missing & found:
                return {}  # the commit of the member that decides: read back next
            logger.info(
                "group %s has no commit for partitions %s of %s, but for others: they are read from their beginning",
                self._group, sorted(missing & found), self._topic,
                extra=LogCode.READ_FROM_BEGINNING.extra,
            )  # fmt: skip
            return dict.fromkeys(missing & found, OFFSET_BEGINNING)
        if self._start == "error":
            self._fail(
                ConfigError(
                    f"group {self._group} has no committed offset for any partition of {self._topic}, and kafka.start is "
                    "error; set one with penstock offsets reset"
                )
            )
            return {}
        self._fresh = True
        if self._places is not None and self._decides:  # and still nobody else has committed
            self._commit(self._places)
            self._without_commit.clear()  # read back next: whichever member was first, all begin by the same
            self._fresh, self._places = False, None
        return {}

    def _ask_places(self, facts: TopicFacts) -> list[TopicPartition] | None:
        """What to commit so that the group begins where `start` says; None without an answer.

        For the ends it has to be a whole one: a partition that is left out begins at its beginning, which for `earliest` is right.
        """
        where = OFFSET_BEGINNING if self._start == "earliest" else OFFSET_END
        asked = [TopicPartition(self._topic, partition, where) for partition in range(facts.partitions)]
        began_s, timeout_s = self._clock.monotonic_s(), self._patience()
        try:
            answers = self._consumer.offsets_for_times(asked, timeout=timeout_s)
        except KafkaException as error:
            self._heard(began_s, timeout_s, answer=False)
            self._note(cause_of(error))
            return None
        self._heard(began_s, timeout_s, answer=True)
        found = [place for place in answers if place.error is None and place.offset >= 0]
        if not found or (self._start == "latest" and len(found) < len(answers)):
            return None
        note = offset_note(facts.id)
        return [TopicPartition(self._topic, place.partition, place.offset, note) for place in found]

    def _commit(self, places: list[TopicPartition]) -> None:
        try:
            self._consumer.commit(offsets=places, asynchronous=True)
        except KafkaException as error:
            self._note(cause_of(error))

    def _committed(self, partitions: set[int], timeout_s: float) -> list[TopicPartition]:
        """What the coordinator says; partitions that it has no answer for are left out."""
        if not partitions:
            return []
        places = [TopicPartition(self._topic, partition) for partition in sorted(partitions)]
        began_s = self._clock.monotonic_s()
        try:
            found = self._consumer.committed(places, timeout=timeout_s)
        except KafkaException as error:
            self._heard(began_s, timeout_s, answer=False)
            self._note(cause_of(error))
            return []
        self._heard(began_s, timeout_s, answer=True)
        for place in found:
            if place.error is not None:
                self._note(place.error)
        return [place for place in found if place.error is None]

    def _note(self, error: KafkaError) -> None:
        failure = consumer_error(error, f"offsets of group {self._group}")
        if not isinstance(failure, UnavailableError):
            self._fail(failure)


def recreated_sentence(topic: str, old: str, new: str, group: str) -> str:
    """What a person is told where `input.recreated` is `stop`."""
    return (
        f"topic {topic} was deleted and made anew (its id was {old} and is {new}), so the offsets that group {group} committed "
        "are not of this topic; set them with penstock offsets reset, or read it from its beginning with input.recreated: read"
    )
