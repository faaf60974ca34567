"""What a worker waits for, told in words: when it begins, now and then while it lasts, and when it is over."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from penstock.connectors.kafka.await_cluster import await_cluster
from penstock.connectors.kafka.client import ClientConfig
from penstock.engine.clock import Clock
from penstock.engine.pipeline.compute import Held
from penstock.engine.pipeline.hooks import Contact
from penstock.engine.telemetry.events import Event, EventLog, Repeated, listed, seconds
from penstock.engine.telemetry.metrics import Metrics
from penstock.engine.telemetry.status import StatusBoard
from penstock.engine.telemetry.worker_status import KafkaStatus, Wait, WorkerState
from penstock.schemas.errors import UnavailableError
from penstock.schemas.reasons import Reason
from penstock.schemas.records import Rejection
from penstock.schemas.waits import WaitKind

lost_after_s = 5.0
"""The cluster is asked every second; after so long without an answer it counts as lost."""
joining_long_s = 10.0
joining_repeat_s = 60.0
waiting_repeat_s = 60.0


@dataclass(slots=True)
class _Waiting:
    held: Held
    since_ms: int
    since_s: float
    told: Repeated


class Situation:
    """Follows the cluster, the group, and the partitions that stand still. Polling thread only; asks and waits for nothing."""

    def __init__(self, *, metrics: Metrics, board: StatusBoard, events: EventLog, clock: Clock) -> None:
        self._metrics = metrics
        self._board = board
        self._events = events
        self._clock = clock
        self._lost_at_s: float | None = None
        self._lost_at_ms = 0
        self._partitions: int | None = None
        self._outputs: dict[str, int] = {}
        self._joining_since_s: float | None = None
        self._joining_told = Repeated(first_s=joining_repeat_s, max_s=joining_repeat_s)
        self._joining_reason = ""
        self._waiting: dict[int, _Waiting] = {}
        self._rejected: dict[Reason, Repeated] = {}
        self.input_waits: Sequence[Wait] = ()  # what the reading of the input waits for

    @property
    def reachable(self) -> bool:
        """Whether the cluster answers, as far as is known."""
        return self._lost_at_s is None

    @property
    def standing_still(self) -> Collection[int]:
        """Partitions of which nothing is fetched now."""
        return self._waiting.keys()

    @property
    def joining_long(self) -> bool:
        """Whether it is worth asking who else is in the group."""
        return (
            self._joining_since_s is not None
            and self._clock.monotonic_s() - self._joining_since_s >= joining_long_s / 2
        )

    def look(self, contact: Contact | None, *, member: bool | None, in_hand: int) -> None:
        """Once a second: `contact` and `member` None where they cannot be known; `in_hand`: records taken and not finished."""
        if contact is not None:
            self._look_at_kafka(contact, in_hand)
            self._look_at_partitions(contact)
        if member is not None:
            self._board.membership(member)
            self._look_at_group(contact, member=member)
        self._tell_waiting()

    def hold(self, held: Mapping[int, Held]) -> None:
        """Exactly these partitions stand still, each for a reason of its own."""
        now_s, now_ms = self._clock.monotonic_s(), self._clock.wall_ms()
        for partition in self._waiting.keys() - held.keys():
            ended = self._waiting.pop(partition)
            if not ended.held.stopped:
                lasted = seconds(now_s - ended.since_s)
                self._events.note(
                    Event.PARTITION_GOES_ON,
                    f"partition {partition} goes on after {lasted}",
                    level=logging.WARNING,
                )
        for partition, why in held.items():
            known = self._waiting.get(partition)
            if known is None or known.held.stopped != why.stopped:
                told = Repeated(first_s=waiting_repeat_s, max_s=waiting_repeat_s)
                self._waiting[partition] = _Waiting(held=why, since_ms=now_ms, since_s=now_s, told=told)
            else:
                known.held = why
        self._tell_waiting()

    def forget(self, partitions: Sequence[int]) -> None:
        """These are another worker's now."""
        for partition in partitions:
            self._waiting.pop(partition, None)
        self._show_waiting()

    def rejected(self, rejections: Sequence[Rejection], places: Sequence[tuple[int, int]]) -> None:
        """These were set aside, each at (partition, offset)."""
        by_reason: dict[Reason, list[int]] = {}
        for number, rejection in enumerate(rejections):
            by_reason.setdefault(rejection.reason, []).append(number)
        now_s = self._clock.monotonic_s()
        for reason, numbers in by_reason.items():
            first = reason not in self._rejected
            count = self._rejected.setdefault(reason, Repeated()).add(len(numbers), now_s)
            if not count:
                continue
            partition, offset = places[numbers[0]]
            detail = rejections[numbers[0]].detail
            what = "the first record" if first and count == 1 else f"{count} more records"
            what = f"the first {count} records" if first and count > 1 else what
            self._events.note(
                Event.REJECTED,
                f"{what} rejected for {reason}: partition {partition}, offset {offset}: {detail}; "
                "they are in the dead letters (penstock dlq list)",
                level=logging.WARNING,
            )

    def _look_at_kafka(self, contact: Contact, in_hand: int) -> None:
        age_s = contact.answer_age_s
        if self._lost_at_s is None and age_s > lost_after_s:
            self._lost_at_s = self._clock.monotonic_s() - age_s
            self._lost_at_ms = self._clock.wall_ms() - round(age_s * 1000)
            since = datetime.fromtimestamp(self._lost_at_ms / 1000, tz=UTC).strftime("%H:%M:%S")
            waits = f"{in_hand:,} records in hand wait" if in_hand else "no record is in hand"
            self._events.note(
                Event.KAFKA_LOST,
                f"Kafka at {contact.address} has not answered since {since} UTC: {contact.fault or 'no answer'}; "
                f"{waits}; trying on",
                level=logging.WARNING,
            )
        elif self._lost_at_s is not None and age_s <= lost_after_s:
            lasted = seconds(self._clock.monotonic_s() - age_s - self._lost_at_s)
            self._lost_at_s = None
            self._events.note(
                Event.KAFKA_BACK,
                f"Kafka at {contact.address} answers again after {lasted}",
                level=logging.WARNING,
            )
        self._metrics.broker_reachable.set(self.reachable)
        self._metrics.broker_answer_age.set(age_s)
        self._board.kafka(
            KafkaStatus(
                address=contact.address,
                reachable=self.reachable,
                answer_age_s=age_s,
                fault=contact.fault if not self.reachable else "",
                lost_at_ms=None if self.reachable else self._lost_at_ms,
            )
        )

    def _look_at_partitions(self, contact: Contact) -> None:
        for topic, partitions in contact.outputs.items():
            self._look_at_output(topic, partitions, contact.partitions)
        if contact.partitions is None or contact.partitions == self._partitions:
            return
        before, self._partitions = self._partitions, contact.partitions
        self._metrics.input_partitions.set(contact.partitions)
        if before is not None:
            self._events.note(
                Event.NEW_PARTITIONS,
                f"the input topic has {contact.partitions} partitions now, {before} before",
                level=logging.WARNING,
            )

    def _look_at_output(self, topic: str, partitions: int, input_partitions: int | None) -> None:
        before = self._outputs.get(topic)
        if before == partitions:
            return
        self._outputs[topic] = partitions
        self._metrics.output_partitions.labels(topic=topic).set(partitions)
        if before is not None:
            rule = (
                "records keep their partition number"
                if partitions == input_partitions
                else "records go to it by their key, since the input has another number"
            )
            self._events.note(
                Event.NEW_PARTITIONS,
                f"the output topic {topic} has {partitions} partitions now, {before} before: {rule}",
                level=logging.WARNING,
            )

    def _look_at_group(self, contact: Contact | None, *, member: bool) -> None:
        joining = not member and self._board.state in (WorkerState.JOINING, WorkerState.RUNNING)
        if not joining:
            self._joining_since_s, self._joining_reason = None, ""
            self._joining_told = Repeated(first_s=joining_repeat_s, max_s=joining_repeat_s)
            return
        now_s = self._clock.monotonic_s()
        if self._joining_since_s is None:
            self._joining_since_s = now_s
        lasted_s = now_s - self._joining_since_s
        if lasted_s < joining_long_s or not self.reachable:
            return
        who = (
            contact.members
            if contact is not None and contact.members
            else "who it waits for is not known yet"
        )
        self._joining_reason = f"has been joining the group for {seconds(lasted_s)}: {who}"
        if self._joining_told.add(1, now_s):
            self._events.note(Event.JOINING, f"this worker {self._joining_reason}", level=logging.WARNING)
        self._show_waiting()

    def _tell_waiting(self) -> None:
        now_s = self._clock.monotonic_s()
        for partition, waiting in self._waiting.items():
            held = waiting.held
            if held.stopped:
                if waiting.told.add(1, now_s):
                    self._events.note(
                        Event.PARTITION_STOPPED,
                        f"partition {partition} is stopped: {held.reason}",
                        level=logging.ERROR,
                    )
                continue
            if waiting.told.add(1, now_s):
                lasted_s = now_s - waiting.since_s
                since = f" for {seconds(lasted_s)}" if lasted_s >= 1 else ""
                self._events.note(
                    Event.PARTITION_WAITS,
                    f"partition {partition} waits{since}: {held.reason}; other partitions go on",
                    level=logging.ERROR if held.someone_must_act else logging.WARNING,
                )
        self._show_waiting()

    def _show_waiting(self) -> None:
        waits = [
            Wait(
                partition=partition,
                kind=waiting.held.kind,
                since_ms=waiting.since_ms,
                reason=waiting.held.reason,
            )
            for partition, waiting in sorted(self._waiting.items())
        ]
        waits += self.input_waits
        if self._joining_reason and self._joining_since_s is not None:
            age_ms = round((self._clock.monotonic_s() - self._joining_since_s) * 1000)
            since_ms = self._clock.wall_ms() - age_ms
            waits.append(
                Wait(partition=None, kind=WaitKind.JOINING, since_ms=since_ms, reason=self._joining_reason)
            )
        stopped = sum(waiting.held.stopped for waiting in self._waiting.values())
        self._metrics.held_partitions.labels(state="stopped").set(stopped)
        self._metrics.held_partitions.labels(state="waits").set(len(self._waiting) - stopped)
        self._board.waits_for(waits)


def assignment_text(word: str, partitions: Sequence[int], topic: str, now: Sequence[int]) -> str:
    """`assigned partitions 0, 1 of in; 2 in all`."""
    return f"{word} {listed(list(partitions))} of {topic}; {len(now)} owned now"


def await_kafka(
    config: ClientConfig,
    *,
    board: StatusBoard,
    metrics: Metrics,
    events: EventLog,
    clock: Clock,
    beat: Callable[[], None],
    stopping: Callable[[], bool],
) -> None:
    """At the start: until Kafka answers. Told at once, then each minute, and in /status; `beat` is called meanwhile.

    Raises ConfigError when it refuses us, UnavailableError when `stopping`.
    """
    told = Repeated(first_s=waiting_repeat_s, max_s=waiting_repeat_s)
    since_ms = clock.wall_ms()
    lasted_s: float | None = None

    def waiting(why: str, waited_s: float) -> None:
        nonlocal lasted_s
        lasted_s = waited_s
        beat()
        metrics.broker_reachable.set(0)
        board.waits_for([Wait(partition=None, kind=WaitKind.CLUSTER, since_ms=since_ms, reason=why)])
        if told.add(1, clock.monotonic_s()):
            lasted = f" for {seconds(waited_s)} now" if waited_s >= waiting_repeat_s else ""
            events.note(Event.KAFKA_LOST, f"{why}; waiting for it{lasted}", level=logging.WARNING)

    if not await_cluster(config, clock=clock, stopping=stopping, waiting=waiting):
        raise UnavailableError("asked to stop while Kafka was waited for")
    metrics.broker_reachable.set(1)
    if lasted_s is not None:
        board.waits_for([])
        text = f"Kafka at {config.bootstrap_servers} answers after {seconds(lasted_s)}"
        events.note(Event.KAFKA_BACK, text, level=logging.WARNING)
