"""Which batches are traced, and what is noted of one: decided once its outcome is known, in microseconds, on the polling thread."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from penstock.engine.clock import Clock
from penstock.engine.pipeline.compute import Finished
from penstock.engine.pipeline.scorer import Outcome
from penstock.schemas.records import Headers, Records

links_max: Final = 16
looked_at_max: Final = 256
"""Records of a batch whose headers are looked at for a producer's span, the rejected ones first."""
places_max: Final = 16

_traceparent: Final = re.compile(
    rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL
)


class Kept(StrEnum):
    """Why a batch is traced."""

    REJECTED = "rejected"
    SLOW = "slow"
    ONE_IN = "one_in"


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """A producer's span, which its producer sampled."""

    trace_id: int
    span_id: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A part of a batch's time, in nanoseconds since 1970."""

    name: str
    start_ns: int
    end_ns: int


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchTrace:
    """What a span says of one acknowledged batch; nothing in it is of a record's value."""

    why: Kept
    topic: str
    closed: str
    rows: int
    predicted: int
    explained: int
    skipped: int
    rejected: tuple[tuple[str, int], ...]
    """Reason and count."""
    places: tuple[str, ...]
    """partition:first-last, of `places_max` spans at the most."""
    links: tuple[Link, ...]
    stages: tuple[Stage, ...]
    start_ns: int
    end_ns: int


Take = Callable[[Callable[[], BatchTrace]], None]


class Tracing:
    """Chooses batches and hands what is noted of them on. Polling thread only; never waits."""

    def __init__(self, *, one_in: int, slow_s: float, clock: Clock, take: Take) -> None:
        """`take` never waits, and has the note made only where there is room for it."""
        self._one_in = one_in
        self._slow_s = slow_s
        self._clock = clock
        self._take = take
        self._counted = 0

    def delivered(self, done: Finished, *, took_s: float) -> None:
        """The batch is acknowledged, `took_s` after it was submitted."""
        outcome = done.outcome
        if outcome is None:
            return
        waited_s = self._clock.monotonic_s() - done.batch.polls[0].polled_at_s
        why = self._why(outcome, waited_s)
        if why is not None:
            end_ns = self._clock.wall_ms() * 1_000_000
            self._take(lambda: _trace(done, outcome, why, waited_s=waited_s, took_s=took_s, end_ns=end_ns))

    def _why(self, outcome: Outcome, waited_s: float) -> Kept | None:
        self._counted += 1
        chosen = self._one_in and self._counted >= self._one_in
        if chosen:
            self._counted = 0
        if outcome.rejections:
            return Kept.REJECTED
        if waited_s > self._slow_s:
            return Kept.SLOW
        return Kept.ONE_IN if chosen else None


def _trace(
    done: Finished, outcome: Outcome, why: Kept, *, waited_s: float, took_s: float, end_ns: int
) -> BatchTrace:
    batch = done.batch
    spans = batch.spans
    records = Records.join([poll.records for poll in batch.polls])
    stages = _stages(outcome, waited_s=waited_s, took_s=took_s, end_ns=end_ns)
    return BatchTrace(
        why=why,
        topic=records.topic,
        closed=str(batch.reason),
        rows=batch.rows,
        predicted=outcome.predicted,
        explained=outcome.explained,
        skipped=outcome.skipped,
        rejected=tuple(Counter(str(each.reason) for each in outcome.rejections).items()),
        places=tuple(f"{span.partition}:{span.first}-{span.next - 1}" for span in spans[:places_max]),
        links=tuple(links(records, first=[each.index for each in outcome.rejections])),
        stages=stages,
        start_ns=stages[0].start_ns,
        end_ns=end_ns,
    )


def _stages(outcome: Outcome, *, waited_s: float, took_s: float, end_ns: int) -> tuple[Stage, ...]:
    """End to end and up to the acknowledgement, in their order; what was waited before each is not known apart, and stands first."""
    worked = [*outcome.stage_s.items(), ("deliver", took_s)]
    wait_s = max(waited_s - sum(duration_s for _, duration_s in worked), 0.0)
    stages = []
    for name, duration_s in reversed([("wait", wait_s), *worked]):
        start_ns = end_ns - round(duration_s * 1e9)
        stages.append(Stage(name=name, start_ns=start_ns, end_ns=end_ns))
        end_ns = start_ns
    return tuple(reversed(stages))


def links(records: Records, *, first: Sequence[int]) -> list[Link]:
    """The sampled spans that produced some of the records, `links_max` at the most; records `first` are looked at first."""
    if not records.any_headers():
        return []
    found: dict[Link, None] = {}
    for index in _order(len(records), first):
        link = sampled_parent(records.headers(index))
        if link is not None:
            found[link] = None
            if len(found) == links_max:
                break
    return list(found)


def _order(count: int, first: Sequence[int]) -> Iterator[int]:
    """Places to look at: `looked_at_max` at the most, those behind the first ones spread over all."""
    named = first[: looked_at_max // 2]
    yield from named
    step = max(-(-count // (looked_at_max - len(named))), 1)
    yield from range(0, count, step)


def sampled_parent(headers: Headers) -> Link | None:
    """The span in `traceparent` (W3C), if its producer sampled it; None where there is none or it is malformed."""
    for name, value in headers:
        if name != "traceparent" or value is None or len(value) < 55:
            continue
        match = _traceparent.fullmatch(value)
        if match is None or not int(match[4], 16) & 1:
            continue
        version, link = match[1], Link(trace_id=int(match[2], 16), span_id=int(match[3], 16))
        if version != b"ff" and link.trace_id and link.span_id and (version != b"00" or match[5] is None):
            return link
    return None
