"""Where a member begins to read each partition: at the committed offset, if it is one of this topic; else as `start` says."""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from penstock.connectors.delivery.producer_port import Clock
from penstock.connectors.kafka.call_thread import Aside
from penstock.connectors.kafka.errors import cause_of, consumer_error
from penstock.connectors.kafka.reading.commits import noted_topic_id, offset_note, recreated_sentence
from penstock.connectors.kafka.reading.places.question import Places, Question
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
doubles, and ten times as long as it took is left to shorter ones, about the other partitions. The polling thread goes on meanwhile."""
own_commit_s = 10.0
"""So long a commit of where the group begins is waited for before it is sent again."""


class Starts:
    """Looks up where to begin, one question at a time. Called by the polling thread only, which waits for an answer for
    `place_timeout_s` at most; what may take longer is asked on a thread of its own, and looked for at the next calls.

    That thread has a client of its own too: behind a rebalance callback, and while this one is polled without a pause, the client answers
    no other thread (confluent-kafka 2.16: for seconds, whatever the time-out).

    How long a question may take, the answers say: twice what the last one took. An open transaction holds an answer back as
    brokers do that are far away, so that is tried out seldom.

    `start` is about a group: it is resolved once, when no partition of the topic has a commit. Then the place of every
    partition, its beginning or its end, is committed before the first record is read: a record that is deleted after that
    is missed, and one before it never was the group's. Only the member that holds partition 0 does so: if each did, a commit
    of these that arrives late would take the group back, or ahead. A partition that has no commit in a group that has some
    appeared later, and begins at its beginning; so does every partition of a topic that was made anew under this member.
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
        open_other: Callable[[], Consumer],
        clock: Clock,
    ) -> None:
        """`fail` is told what a person has to mend. `open_other`: a client of the same group that is never polled, for the first
        question that may take longer, which in most lives never comes."""
        self._open_other = open_other
        self._other: Consumer | None = None
        self._clock = clock
        self._aside = Aside("starts")
        self._asked: Question | None = None  # under way, or answered and not looked at yet
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
        # To be committed if that is still so. Decided once: one that was sent and is not seen yet may still arrive, and a later
        # decision would pass over what came in between.
        self._places: list[TopicPartition] | None = None
        self._places_of: str | None = None  # the topic's id
        self._from_beginning = start == "earliest"
        self._told_anew: str | None = None
        self._sent_s = -own_commit_s  # when they were
        self._answered_s = 0.0  # the last question
        self._noted_s: dict[str, float] = {}  # when a commit of another topic, by its id, was first seen
        self.facts_since_s = 0.0
        """The caller's facts of the topic are to be from a question of this moment or later: a commit was found that notes another
        topic, and what was asked before it came may be about the older one of the two."""

    def soon(self, partitions: set[int], facts: TopicFacts, *, decides: bool) -> dict[int, int]:
        """Where to begin each, of those for which the coordinator says so in a short time.

        `decides`: this member holds partition 0.

        An open transaction of a predecessor holds the answer back, for every partition that is asked about together
        with the one it concerns; so each is then asked about alone, and only that one waits.
        """
        self._decide_if(decides, facts)
        heard, starts = self._at_once(partitions, place_timeout_s / 2, facts)
        self._slow_due_s = self._clock.monotonic_s() + 10 * place_timeout_s
        if not heard:
            self._patience_s = place_one_first_s
        if len(partitions) > 1 and not heard:
            for partition in sorted(partitions)[: int(place_timeout_s / 2 / place_one_first_s)]:
                starts |= self._at_once({partition}, place_one_first_s, facts)[1]
        return starts

    def one(self, waiting: set[int], facts: TopicFacts, *, decides: bool) -> dict[int, int]:
        """Where to begin one of these, another one at each call, so that one that has to wait holds up no other.

        One question is asked of the brokers at each call, or an answer to the last one is looked for: what one answer leads to
        is the next call's.
        """
        self._decide_if(decides, facts)
        if self._asked is None:
            self._begin(self._next(waiting, facts))
        starts = self._looked_in()
        return {} if starts is None else {p: at for p, at in starts.items() if p in waiting}

    def _decide_if(self, decides: bool, facts: TopicFacts) -> None:
        self._decides = decides
        if not decides:
            self._places = None  # another generation: what was sent has arrived by now, or is refused
        if facts.id != self._places_of:
            if self._places_of is not None:  # all of its records came after this member did
                self._places, self._from_beginning = None, True
            self._places_of = facts.id

    def anew(self) -> None:
        """Partitions were assigned: an answer to what was asked before says where they were then, and is passed over."""
        if self._asked is not None:
            self._asked.take = lambda _: {}
        self._sent_s = -own_commit_s  # of the generation before it may have been refused

    def close(self) -> None:
        """Ask nothing more; the other client goes with the process."""
        self._aside.close()

    def _next(self, waiting: set[int], facts: TopicFacts) -> Question:
        missing = self._without_commit & waiting
        others = sorted(waiting - missing)
        self._turn += 1
        if missing and (not others or self._turn % 2):
            if self._decides and self._fresh and self._places is None:
                return self._of_places(facts)
            return self._of_commits(
                set(range(facts.partitions)),
                self._patience(),
                lambda found: self._by_the_group(found, missing, facts),
            )
        partition = others[self._turn // 2 % len(others)] if missing else others[self._turn % len(others)]
        return self._of_commits({partition}, self._patience(), lambda found: self._found(found or [], facts))

    def _at_once(
        self, partitions: set[int], timeout_s: float, facts: TopicFacts
    ) -> tuple[bool, dict[int, int]]:
        """Whether there was an answer in this time, and where to begin by it."""
        heard = False

        def take(found: Places | None) -> dict[int, int]:
            nonlocal heard
            heard = bool(found)
            return self._found(found or [], facts)

        question = self._of_commits(partitions, timeout_s, take)
        self._ask(question, self._consumer)
        self._heard(question)
        starts = question.take(question.answer)
        return heard, starts

    def _begin(self, question: Question) -> None:
        self._asked = question
        if question.timeout_s <= place_timeout_s:
            self._ask(question, self._consumer)
            question.ended = True
        else:
            question.ended = self._aside.run(lambda: self._ask(question, self._others_client()), 0.0)

    def _ask(self, question: Question, client: Consumer) -> None:
        question.began_s = self._clock.monotonic_s()
        try:
            question.answer = question.ask(client, question.timeout_s)
        except KafkaException as error:
            question.error = cause_of(error)
        question.ended_s = self._clock.monotonic_s()

    def _others_client(self) -> Consumer:
        if self._other is None:
            self._other = self._open_other()
            with suppress(KafkaException):  # connected before the time of a question counts
                self._other.list_topics(self._topic, timeout=slow_max_s)
        return self._other

    def _looked_in(self) -> dict[int, int] | None:
        """What the question under way leads to; None while it is under way."""
        question = self._asked
        assert question is not None
        if not question.ended:
            question.ended = self._aside.wait(0.0)
        if not question.ended:
            return None
        self._asked = None
        self._heard(question)
        return question.take(question.answer)

    def _patience(self) -> float:
        """With the next question, which is the only one of this turn."""
        if self._patience_s < self._patience_max_s or self._clock.monotonic_s() < self._slow_due_s:
            return self._patience_s
        return max(self._slow_s, self._patience_s)

    @property
    def _patience_max_s(self) -> float:
        return max(place_timeout_s, min(2 * self._took_s, slow_max_s))

    def _heard(self, question: Question) -> None:
        """It was answered, or was not in its time."""
        took_s, timeout_s = question.ended_s - question.began_s, question.timeout_s
        self._answered_s = question.ended_s
        if question.error is not None:
            self._note(question.error)
        if question.answer is not None:
            self._took_s = took_s
            self._patience_s = max(place_one_first_s, min(2 * took_s, slow_max_s))
            self._slow_s = slow_first_s
        else:
            if timeout_s >= self._patience_max_s:
                self._took_s = 0.0  # nor is twice as long enough any more
            self._patience_s = min(2 * self._patience_s, self._patience_max_s)
            if timeout_s >= self._slow_s:
                self._slow_s = min(2 * self._slow_s, slow_max_s)
        if question.answer is not None or timeout_s >= slow_first_s:
            self._slow_due_s = self._clock.monotonic_s() + 10 * max(took_s, slow_first_s)

    def _found(self, answers: Places, facts: TopicFacts) -> dict[int, int]:
        """Where to begin by what is committed.

        That is asked for here rather than by the client: for a group with commits the client's reset policy must be `error`, and
        for one without it must not."""
        starts: dict[int, int] = {}
        missing: set[int] = set()
        foreign: dict[int, int] = {}
        for place in answers:
            if place.offset < 0:
                missing.add(place.partition)
                continue
            noted = noted_topic_id(place.metadata)
            if noted is None and facts.id is not None and place.offset:
                foreign[place.partition] = place.offset
            if noted is None or facts.id is None or noted == facts.id:
                starts[place.partition] = place.offset
            elif not self._is_older(noted, facts):
                continue
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
        return starts

    def _by_the_group(
        self, everywhere: Places | None, missing: set[int], facts: TopicFacts
    ) -> dict[int, int]:
        """Where partitions without a commit begin, by what the whole group has."""
        if not everywhere:
            return {}
        if any(place.offset >= 0 for place in everywhere):
            notes = {noted_topic_id(place.metadata) for place in everywhere if place.offset >= 0}
            old = sorted(noted for noted in notes if noted not in (None, facts.id)) if facts.id else []
            if [noted for noted in old if not self._is_older(noted, facts)]:
                return {}
            self._without_commit.clear()
            self._fresh, self._places = False, None
            without = sorted(missing & {place.partition for place in everywhere if place.offset < 0})
            if not without or not self._may_read_anew(old, without, facts):
                return {}  # none: the commit of the member that decides, read back next
            logger.info(
                "group %s has no commit for partitions %s of %s, but for others: they are read from their beginning",
                self._group, without, self._topic, extra=LogCode.READ_FROM_BEGINNING.extra,
            )  # fmt: skip
            return dict.fromkeys(without, OFFSET_BEGINNING)
        if self._start == "error":
            self._fail(
                ConfigError(
                    f"group {self._group} has no committed offset for any partition of {self._topic}, and kafka.start is "
                    "error; set one with penstock offsets reset"
                )
            )
            return {}
        if self._clock.monotonic_s() < self._sent_s + own_commit_s:
            return {}  # ours is on its way: a client of its own may be answered before that arrives
        self._fresh = True
        if self._places is not None and self._decides:  # and still nobody else has committed
            self._commit(self._places)
            self._sent_s = self._clock.monotonic_s()
            self._without_commit.clear()  # read back next: whichever member was first, all begin by the same
            self._fresh = False
        return {}

    def _is_older(self, noted: str, facts: TopicFacts) -> bool:
        """Whether a commit's topic is one that is gone: it was known before the facts of this one were asked for. Newer facts
        are asked for if not."""
        seen_s = self._noted_s.setdefault(noted, self._answered_s)
        self.facts_since_s = max(self.facts_since_s, seen_s)
        return facts.asked_at_s >= seen_s

    def _may_read_anew(self, old: list[str], missing: list[int], facts: TopicFacts) -> bool:
        """Unless what the group has for other partitions is of a topic that is gone, and `recreated` is `stop`; who owns those
        others may be away."""
        if not old or facts.id is None:
            return True
        if self._recreated == "stop":
            self._fail(ConfigError(recreated_sentence(self._topic, old[0], facts.id, self._group)))
            return False
        if self._told_anew != facts.id:
            self._told_anew = facts.id
            logger.warning(
                "topic %s was deleted and made anew (id %s, then %s): partitions %s, for which group %s has no commit, are read "
                "from their beginning",
                self._topic, old[0], facts.id, missing, self._group,
                extra=LogCode.TOPIC_READ_ANEW.extra,
            )  # fmt: skip
        return True

    def _of_places(self, facts: TopicFacts) -> Question:
        """What to commit so that the group begins where `start` says."""
        where = OFFSET_BEGINNING if self._from_beginning else OFFSET_END
        asked = [TopicPartition(self._topic, partition, where) for partition in range(facts.partitions)]

        def take(answers: Places | None) -> dict[int, int]:
            found = [place for place in answers or [] if place.error is None and place.offset >= 0]
            # For the ends it has to be a whole answer: a partition that is left out begins at its beginning.
            if found and (where == OFFSET_BEGINNING or len(found) == len(asked)):
                note = offset_note(facts.id)
                self._places = [
                    TopicPartition(self._topic, place.partition, place.offset, note) for place in found
                ]
            return {}

        return Question(
            lambda client, timeout_s: client.offsets_for_times(asked, timeout=timeout_s),
            take,
            self._patience(),
        )

    def _commit(self, places: list[TopicPartition]) -> None:
        try:
            self._consumer.commit(offsets=places, asynchronous=True)
        except KafkaException as error:
            self._note(cause_of(error))

    def _of_commits(
        self, partitions: set[int], timeout_s: float, take: Callable[[Places | None], dict[int, int]]
    ) -> Question:
        """What the coordinator says; partitions that it has no answer for are left out."""
        places = [TopicPartition(self._topic, partition) for partition in sorted(partitions)]

        def told(found: Places | None) -> dict[int, int]:
            for place in found or []:
                if place.error is not None:
                    self._note(place.error)
            return take(None if found is None else [place for place in found if place.error is None])

        return Question(
            lambda client, allowed_s: client.committed(places, timeout=allowed_s), told, timeout_s
        )

    def _note(self, error: KafkaError) -> None:
        failure = consumer_error(error, f"offsets of group {self._group}")
        if not isinstance(failure, UnavailableError):
            self._fail(failure)
