"""Dead letters in memory, and replays of them as the admin port starts them."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from penstock.engine.dead_letters.letters import LetterFilter, Log, Stored
from penstock.engine.dead_letters.replay import Replay, replay
from penstock.engine.worker.admin.replays import Replays, Watch
from penstock.schemas.reasons import Reason
from tests import letters as made
from tests.clocks import HandClock

patience_s = 20.0


class Bounded:
    """The log up to its ends, read through a watch."""

    def __init__(self, log: made.Log, ends: Mapping[int, int], watch: Watch) -> None:
        self._log, self._ends, self._watch = log, ends, watch

    def read(self) -> Iterator[Stored]:
        inside = made.Log(
            [each for each in self._log.messages if each.offset < self._ends.get(each.partition, 0)]
        )
        return self._watch(inside)


class World:
    """Letters in memory, and replays of them."""

    def __init__(self) -> None:
        self.log, self.returns, self.clock = made.Log(), made.Returns(), HandClock()
        self.may_read = threading.Event()
        self.may_read.set()
        self.replays = Replays(self.open, clock=self.clock)
        self.outcomes: list[tuple[bool, Mapping[str, Any]]] = []

    @contextmanager
    def open(self, watch: Watch, ends: Mapping[int, int] | None) -> Iterator["Letters"]:
        yield Letters(self, watch, self.ends() if ends is None else ends)

    def ends(self) -> dict[int, int]:
        return {
            partition: 1 + max((m.offset for m in self.log.messages if m.partition == partition), default=-1)
            for partition in range(8)
        }

    def add(self, offset: int, reason: Reason = Reason.CORRUPT, *, partition: int = 0) -> None:
        self.log.messages.append(made.Stored(partition, offset, b"k", made.letter(offset, reason=reason)))

    def ask(self, **body: Any) -> dict[str, Any]:
        answer = self.replays.begin(
            self.replays.target(body), lambda done, told: self.outcomes.append((done, told))
        )
        return dict(answer)

    def settled(self, plan: str) -> dict[str, Any]:
        end_s = time.monotonic() + patience_s
        while True:
            (found,) = (each for each in self.replays.shown({})["replays"] if each["plan"] == plan)
            if found["state"] not in ("looking", "putting_back"):
                return dict(found)
            assert time.monotonic() < end_s
            time.sleep(0.0005)

    def look(self, **body: Any) -> dict[str, Any]:
        return self.settled(self.ask(dry_run=True, **body)["plan"])

    def carry_out(self, plan: str) -> dict[str, Any]:
        return self.settled(self.ask(plan=plan)["plan"])


class Letters:
    def __init__(self, world: World, watch: Watch, ends: Mapping[int, int]) -> None:
        self._world, self._ends = world, ends
        self._log = Bounded(world.log, ends, watch)

    def ends(self) -> Mapping[int, int]:
        return self._ends

    def look(self, wanted: LetterFilter, *, again: bool) -> Replay:
        return self._replay(wanted, again=again, dry_run=True)

    def put_back(self, wanted: LetterFilter, *, again: bool) -> Replay:
        return self._replay(wanted, again=again, dry_run=False)

    def _replay(self, wanted: LetterFilter, *, again: bool, dry_run: bool) -> Replay:
        assert self._world.may_read.wait(patience_s)
        log: Log = self._log
        return replay(
            log, made.Log(), self._world.returns, wanted, topic=made.topic, again=again, dry_run=dry_run
        )
