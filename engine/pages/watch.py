"""The supervisor's watch over its workers: asks each now and then, and keeps a bounded past of what they said."""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final

import orjson

from penstock.engine.clock import Clock
from penstock.engine.hints.causes import Hints
from penstock.engine.hints.ring import HintRing
from penstock.engine.pages.counts import Counts, Lately, ages, quantile
from penstock.engine.pages.hint_samples import sample_of
from penstock.engine.pages.partition_trends import PartitionTrends
from penstock.engine.pages.record_ring import RecordRing
from penstock.engine.telemetry.ask_workers import Reply, reason_of

points_kept: Final = 900
changes_kept: Final = 100
changes_known_max: Final = 2000
turn_watched_s: Final = 0.25
turn_s: Final = 1.0
latency_window_s: Final = 10.0
times_kept: Final = 240
digits_told: Final = 4
"""Significant ones, of each point."""
samples_watched, samples_unwatched = 32, 2
"""Taken from a worker at a time: with nobody looking there is no need of all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What the settings say."""

    group: str
    topic: str
    objective_ms: float
    max_age_s: float
    workers: int
    predictions: str
    explanations: str | None
    dead_letters: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One second."""

    at_ms: int
    records_per_s: float | None
    busy: float | None
    blocked: float | None
    idle: float | None
    queue_rows: float | None
    lag_s: float | None
    p99_ms: float | None
    running: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """Something happened."""

    at_ms: int
    worker: str
    kind: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """A worker as it last answered."""

    told: Mapping[str, Any] | None = None
    fault: str = "starting"
    after: int = 0
    times: tuple[tuple[float, float, float], ...] = ()
    """Of its clock, with the seconds that it was busy and blocked since its start."""

    def shares(self, seconds: float) -> tuple[float, float, float] | None:
        """Busy, blocked and idle over the last seconds, together 1; None before two answers."""
        if len(self.times) < 2:
            return None
        now_s, busy_s, blocked_s = self.times[-1]
        old = next((each for each in reversed(self.times) if each[0] <= now_s - seconds), self.times[0])
        span_s = now_s - old[0]
        if span_s <= 0:
            return None
        busy = min(max((busy_s - old[1]) / span_s, 0.0), 1.0)
        blocked = min(max((blocked_s - old[2]) / span_s, 0.0), 1.0 - busy)
        return busy, blocked, 1.0 - busy - blocked


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """Everything at one moment, for the documents to be made of."""

    at_ms: int
    facts: Facts
    workers: Mapping[str, Known]
    lately: Lately
    points: tuple[Point, ...]
    changes: tuple[Change, ...]
    trends: PartitionTrends
    ring: RecordRing
    hints: Hints

    @property
    def told(self) -> dict[str, Mapping[str, Any]]:
        """What those workers said that answered."""
        return {slot: each.told for slot, each in self.workers.items() if each.told is not None}


class Watch:
    """`turn` is called on one thread; the rest from any."""

    def __init__(
        self,
        facts: Facts,
        *,
        ask: Callable[[Callable[[str], str]], Mapping[str, Reply]],
        watched: Callable[[], bool],
        clock: Clock,
        turned: Callable[[], None] = lambda: None,
    ) -> None:
        """`ask`: every worker's reply to a path; `watched`: whether somebody looks, so that looking more often is worth it;
        `turned`: is told that there is something new."""
        self._facts = facts
        self._ask = ask
        self._watched = watched
        self._clock = clock
        self._turned = turned
        self._lock = threading.Lock()
        self._workers: dict[str, Known] = {}
        self._counts = Counts()
        self._points: deque[Point] = deque(maxlen=points_kept)
        self._changes: deque[Change] = deque(maxlen=changes_kept)
        self._change_keys: OrderedDict[Change, None] = OrderedDict()
        self._trends = PartitionTrends()
        self._ring = RecordRing()
        self._hints = HintRing()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="page-watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            self.turn()
            due_s = self._clock.monotonic_s() + turn_s
            while not self._ended.wait(turn_watched_s) and self._clock.monotonic_s() < due_s:
                if self._watched():
                    self.turn()

    def note(self, kind: str, text: str) -> None:
        """Something that the supervisor itself knows."""
        with self._lock:
            self._add(Change(at_ms=self._clock.wall_ms(), worker="supervisor", kind=kind, text=text))

    def turn(self) -> None:
        """Ask everybody once."""
        with self._lock:
            after = {slot: known.after for slot, known in self._workers.items()}
        most = samples_watched if self._watched() else samples_unwatched
        replies = self._ask(lambda slot: f"/pages?after={after.get(slot, 0)}&most={most}")
        now_s, now_ms = self._clock.monotonic_s(), self._clock.wall_ms()
        with self._lock:
            for slot in self._workers.keys() - replies.keys():
                del self._workers[slot]
            for slot, reply in replies.items():
                self._take(slot, reply)
            told = {slot: each.told for slot, each in self._workers.items() if each.told is not None}
            self._counts.read(now_s, {slot: each["counters"] for slot, each in told.items()})
            self._trends.read(now_s, {slot: each["lags"] for slot, each in told.items()})
            if not self._points or now_ms - self._points[-1].at_ms >= 900:
                self._points.append(self._point(now_s, now_ms, told))
        if told and self._hints.due(now_s):  # some milliseconds, which nobody has to wait for
            self._hints.add(sample_of(now_s, told), max_age_s=self._facts.max_age_s)
        self._turned()

    def picture(self) -> Picture:
        """Now."""
        now_s, now_ms = self._clock.monotonic_s(), self._clock.wall_ms()
        with self._lock:
            return Picture(
                at_ms=now_ms,
                facts=self._facts,
                workers=dict(sorted(self._workers.items(), key=lambda each: (len(each[0]), each[0]))),
                lately=self._counts.lately(now_s, 60.0),
                points=tuple(self._points),
                changes=tuple(sorted(self._changes, key=lambda change: change.at_ms)),
                trends=self._trends,
                ring=self._ring,
                hints=self._hints.found,
            )

    def _take(self, slot: str, reply: Reply) -> None:
        known = self._workers.get(slot, Known())
        if not reply.body or reply.status != HTTPStatus.OK:
            self._workers[slot] = replace(known, told=None, fault=reason_of(reply))
            return
        try:
            told = orjson.loads(reply.body)
        except orjson.JSONDecodeError:
            self._workers[slot] = replace(known, told=None, fault="its answer is cut short")
            return
        counters, times = told["counters"], known.times
        if times and counters["busy_s"] < times[-1][1]:  # another process has this slot
            times = ()
        times = (*times[-times_kept + 1 :], (told["at_s"], counters["busy_s"], counters["blocked_s"]))
        self._workers[slot] = Known(told=told, fault="", after=told["sampled"], times=times)
        self._ring.add(slot, told["records"], seen=told["records_sampled"])
        for event in told["status"]["events"]:
            self._add(Change(at_ms=event["at_ms"], worker=slot, kind=event["event"], text=event["text"]))

    def _add(self, change: Change) -> None:
        if change not in self._change_keys:
            self._change_keys[change] = None
            self._changes.append(change)
            if len(self._change_keys) > changes_known_max:
                self._change_keys.popitem(last=False)

    def _point(self, now_s: float, now_ms: int, told: Mapping[str, Mapping[str, Any]]) -> Point:
        second = self._counts.lately(now_s, 1.0)
        shares = [each for known in self._workers.values() if (each := known.shares(1.0)) is not None]
        busy, blocked, idle = (
            (sum(each) / len(shares) for each in zip(*shares, strict=True)) if shares else (None,) * 3
        )
        late = [each["lag_totals"]["age_s"] for each in told.values()]
        p99_s = quantile(ages(self._counts.lately(now_s, latency_window_s)), 0.99)
        finished = sum(second.of(f"records.{outcome}") for outcome in ("predicted", "rejected", "skipped"))
        return Point(
            at_ms=now_ms,
            records_per_s=_short(finished / second.span_s if second.span_s > 0 else None),
            busy=_short(busy),
            blocked=_short(blocked),
            idle=_short(idle),
            queue_rows=sum(sum(each["queues"].values()) for each in told.values()) if told else None,
            lag_s=_short(max(late) if late and None not in late else None),
            p99_ms=_short(None if p99_s is None else p99_s * 1000),
            running=len(told),
        )


def _short(value: float | None) -> float | None:
    """As much of it as a curve can show: the past of fifteen minutes is sent whole to everybody who opens a page."""
    return None if value is None else float(f"{value:.{digits_told}g}")
