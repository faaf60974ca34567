"""Replays asked for over HTTP: looked at first, then done once, on a thread that nobody waits for."""

import logging
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, Protocol

from penstock.engine.admin.gate import Ended
from penstock.engine.clock import Clock
from penstock.engine.dead_letters.letters import LetterFilter, Log, Stored
from penstock.engine.dead_letters.replay import Replay
from penstock.engine.dead_letters.selection import (
    letter_filter,
    parse_since,
    reasons,
    since_characters_max,
    stages,
)
from penstock.schemas.errors import ConfigError, PenstockError, UnavailableError
from penstock.schemas.log_codes import LogCode

logger = logging.getLogger("penstock.admin")

plans_max: Final = 32
"""Looks and replays that are remembered; the oldest are forgotten."""
plan_valid_s: Final = 900.0
"""So long after the look a replay may be asked for: what it found should still be what is there."""
numbers_max: Final = 1 << 62

State = Literal["looking", "ready", "putting_back", "done", "failed"]


class Letters(Protocol):
    """The dead letters of one moment."""

    def ends(self) -> Mapping[int, int]:
        """Up to where they are looked at, by partition."""

    def look(self, wanted: LetterFilter, *, again: bool) -> Replay:
        """What `put_back` would do now."""

    def put_back(self, wanted: LetterFilter, *, again: bool) -> Replay:
        """Put them back, each once."""


Watch = Callable[[Log], Iterator[Stored]]
OpenLetters = Callable[[Watch, Mapping[int, int] | None], AbstractContextManager[Letters]]
"""Proves the permissions and opens the letters, up to these ends (None: those of now); reads them through the watch."""


@dataclass(kw_only=True)
class _Plan:
    """A selection, what was found, and what became of it."""

    id: str
    asked: Mapping[str, Any]
    wanted: LetterFilter
    again: bool
    at_s: float
    """When the look ended, on the monotonic clock."""
    state: State = "looking"
    read: int = 0
    ends: Mapping[int, int] | None = None
    found: Replay | None = None
    done: Replay | None = None
    tried: bool = False
    fault: str = ""
    ended: list[Ended] = field(default_factory=list)

    def shown(self) -> dict[str, Any]:
        return {
            "plan": self.id,
            "state": self.state,
            "asked": self.asked,
            "letters_read": self.read,
            "to_replay": _numbers(self.found),
            "replayed": _numbers(self.done),
            "fault": self.fault,
        }


class Replays:
    """One at a time. Thread-safe; nothing here waits for Kafka but its own thread.

    A replay needs a plan: what a look found, its selection and the ends of the topic at that moment. Each plan is carried out
    once, so that a request that is sent twice puts nothing back twice, `again` included.
    """

    def __init__(self, open_letters: OpenLetters, *, clock: Clock) -> None:
        self._open = open_letters
        self._clock = clock
        self._lock = threading.Lock()
        self._plans: OrderedDict[str, _Plan] = OrderedDict()
        self._busy: _Plan | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def target(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """What is asked for, as it is recorded: `{"dry_run": True, ...}` with a selection, or `{"plan": ID}`. Raises ConfigError."""
        if "plan" in body:
            if set(body) != {"plan"} or not isinstance(body["plan"], str) or len(body["plan"]) > 64:
                raise ConfigError(
                    'a replay is {"plan": "..."}, and nothing beside it: the plan holds the selection'
                )
            return {"plan": body["plan"]}
        if body.get("dry_run") is not True:
            raise ConfigError(
                'a replay begins with a look: {"dry_run": true}, and a selection; then {"plan": "..."} puts back what it found'
            )
        self._filter(body)
        return {
            name: sorted(set(value)) if isinstance(value, list) else value
            for name, value in body.items()
            if value is not None
        }

    def begin(self, target: Mapping[str, Any], ended: Ended) -> Mapping[str, Any]:
        """Start it, or find that it was started before. `ended` is told what became of it. Raises PenstockError."""
        with self._lock:
            if "plan" not in target:
                return self._look(target, ended)
            plan = self._plans.get(target["plan"])
            if plan is None:
                raise ConfigError("there is no such plan (any more); look again with dry_run")
            if plan.state in ("putting_back", "done"):  # the same request, once more
                ended(True, {"repeated": True})
                return plan.shown()
            self._require_ready(plan)
            plan.state, plan.tried, plan.fault, plan.read = "putting_back", True, "", 0
            self._start(plan, ended)
            return plan.shown()

    def shown(self, _: Mapping[str, Any]) -> Mapping[str, Any]:
        """All that are remembered, the newest first."""
        with self._lock:
            return {"replays": [plan.shown() for plan in reversed(self._plans.values())]}

    def close(self, timeout_s: float) -> None:
        """Stop after the letters in hand; what was put back is noted, and a later replay goes on from there."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
        with self._lock:
            if self._busy is not None:
                self._end(self._busy, fault="the supervisor ended before it was over")

    def _look(self, target: Mapping[str, Any], ended: Ended) -> Mapping[str, Any]:
        plan = _Plan(
            id=uuid.uuid4().hex,
            asked={name: value for name, value in target.items() if name != "dry_run"},
            wanted=self._filter(target),
            again=target.get("again", False),
            at_s=self._clock.monotonic_s(),
        )
        self._require_free()
        self._plans[plan.id] = plan
        while len(self._plans) > plans_max:
            self._plans.popitem(last=False)
        self._start(plan, ended)
        return plan.shown()

    def _require_free(self) -> None:
        if self._busy is not None:
            raise UnavailableError(f"plan {self._busy.id} is being {_doing[self._busy.state]}; one at a time")
        if self._stopping.is_set():
            raise UnavailableError("the supervisor is about to end")

    def _require_ready(self, plan: _Plan) -> None:
        self._require_free()
        if plan.found is None:
            raise ConfigError(
                f"what plan {plan.id} looked for was not found out ({plan.fault}); look again with dry_run"
            )
        if self._clock.monotonic_s() - plan.at_s > plan_valid_s:
            raise ConfigError(f"plan {plan.id} is older than {plan_valid_s:.0f} s; look again with dry_run")
        if plan.tried and plan.again:  # what was put back before it failed would be put back twice
            raise ConfigError(f"plan {plan.id} failed with a part of it put back; look again with dry_run")

    def _start(self, plan: _Plan, ended: Ended) -> None:
        plan.ended = [ended]
        self._busy = plan
        logger.info(
            "replay plan %s: %s, %s",
            plan.id,
            _doing[plan.state],
            plan.asked or "all letters",
            extra=LogCode.REPLAY.extra,
        )
        self._thread = threading.Thread(target=self._run, args=(plan,), name="replay", daemon=True)
        self._thread.start()

    def _run(self, plan: _Plan) -> None:
        found: Replay | None = None
        ends: Mapping[int, int] | None = None
        fault = "it ended unexpectedly"
        try:
            with self._open(lambda log: self._watched(log, plan), plan.ends) as letters:
                if plan.ends is None:
                    ends = letters.ends()
                    found = letters.look(plan.wanted, again=plan.again)
                else:
                    found = letters.put_back(plan.wanted, again=plan.again)
            fault = ""
        except PenstockError as error:
            fault = str(error)
        finally:
            with self._lock:
                if self._busy is plan:
                    self._end(plan, fault=fault, found=found, ends=ends)

    def _end(
        self,
        plan: _Plan,
        *,
        fault: str,
        found: Replay | None = None,
        ends: Mapping[int, int] | None = None,
    ) -> None:
        looked = plan.ends is None
        if not fault and looked:
            plan.found, plan.ends, plan.at_s = found, ends, self._clock.monotonic_s()
        elif not fault:
            plan.done = found
        plan.state = "failed" if fault else "ready" if looked else "done"
        plan.fault = fault
        self._busy = None
        for ended in plan.ended:
            ended(not fault, {"outcome": fault or _numbers(found)})
        plan.ended = []
        if fault:
            logger.error("replay plan %s failed: %s", plan.id, fault, extra=LogCode.REPLAY_FAILED.extra)
        else:
            logger.info(
                "replay plan %s: %s, %s", plan.id, plan.state, _numbers(found), extra=LogCode.REPLAY.extra
            )

    def _watched(self, log: Log, plan: _Plan) -> Iterator[Stored]:
        for stored in log.read():
            if self._stopping.is_set():
                raise UnavailableError("the supervisor is about to end; what was put back is noted")
            plan.read += 1
            yield stored

    def _filter(self, body: Mapping[str, Any]) -> LetterFilter:
        known = ("dry_run", "reasons", "stages", "since", "partition", "offset", "again")
        for name in body:
            if name not in known:
                raise ConfigError(
                    f"the body holds a member that is not known here; known: {', '.join(known)}"
                )
        if not isinstance(body.get("again", False), bool):
            raise ConfigError("again has to be true or false")
        since = body.get("since")
        if since is not None and not (isinstance(since, str) and len(since) <= since_characters_max):
            raise ConfigError("since has to be a text like 30m, 2h, 1d, or an ISO time")
        return letter_filter(
            reasons=_words(body, "reasons", reasons),
            stages=_words(body, "stages", stages),
            since_ms=None if since is None else parse_since(since, self._clock.wall_ms(), name="since"),
            partition=_number(body, "partition"),
            offset=_number(body, "offset"),
        )


_doing: Final[Mapping[State, str]] = {"looking": "looked for", "putting_back": "put back"}


def _words(body: Mapping[str, Any], name: str, known: tuple[str, ...]) -> list[str] | None:
    given = body.get(name)
    if given is None:
        return None
    if not isinstance(given, list) or not given or not all(each in known for each in given):
        raise ConfigError(f"{name} has to be a list of some of {', '.join(known)}")
    return given


def _number(body: Mapping[str, Any], name: str) -> int | None:
    given = body.get(name)
    if given is None:
        return None
    if not isinstance(given, int) or isinstance(given, bool) or not 0 <= given < numbers_max:
        raise ConfigError(f"{name} has to be a number from 0 on")
    return given


def _numbers(report: Replay | None) -> dict[str, Any] | None:
    """A report as JSON: no record's content."""
    if report is None:
        return None
    return {
        **asdict(report),
        "refused_first": [f"{partition}:{offset}" for partition, offset in report.refused_first],
        "by_reason": dict(report.by_reason),
    }
