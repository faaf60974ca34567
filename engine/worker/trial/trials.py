"""The supervisor's side of trials: starts their processes when somebody asks, and ends them when nobody does."""

import os
import selectors
import subprocess
import threading
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from penstock.engine.clock import Clock
from penstock.engine.pages.sentences import sentence

served: Final = "served"
"""The name of the bundle that the workers serve."""
waiting_max: Final = 2
"""Asked at a time, the one that is answered among them: the pages have four threads for all that is asked."""
turn_s_max: Final = 1.0
"""For the one before to be over."""
processes_max: Final = 2
line_bytes_max: Final = 16 << 20

Start = Callable[[str], "subprocess.Popen[bytes]"]
"""Begins the process of a bundle, with pipes as standard input and output."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """How long, in seconds, a process of ours may take."""

    answer_s_max: float = 10.0
    """Then it is ended: the model hangs on what was tried, or the brokers do not answer."""
    start_waited_s: float = 4.0
    """Of a start, by who asks; then they are told that it starts, and ask again."""
    start_s_max: float = 300.0
    idle_s_max: float = 300.0
    """Then it is ended, and its memory is the stream's again."""


@dataclass(kw_only=True, slots=True, eq=False)
class _Bench:
    """A process that tries records, one at a time."""

    process: "subprocess.Popen[bytes]"
    began_s: float
    used_s: float
    ready: bool = False
    unread: bytearray = field(default_factory=bytearray)

    def line(self, within_s: float, clock: Clock) -> Mapping[str, Any] | None:
        """The next line; None when none came in time. Raises EOFError when the process has ended."""
        assert self.process.stdout is not None
        pipe = self.process.stdout.fileno()
        until_s = clock.monotonic_s() + within_s
        while b"\n" not in self.unread:
            left_s = until_s - clock.monotonic_s()
            if left_s <= 0 or not _readable(pipe, left_s):
                return None
            piece = os.read(pipe, 1 << 16)
            if not piece or len(self.unread) > line_bytes_max:
                raise EOFError
            self.unread += piece
        line, _, rest = bytes(self.unread).partition(b"\n")
        self.unread = bytearray(rest)
        found: Mapping[str, Any] = orjson.loads(line)
        return found

    def end(self) -> None:
        """At once: nothing is lost."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


class Trials:
    """Thread-safe. Nothing here waits for longer than its bounds, and no worker is asked anything."""

    def __init__(
        self, start: Start, *, bundles: tuple[str, ...], clock: Clock, bounds: Bounds = Bounds()
    ) -> None:
        """`bundles`: names that may be asked for besides `served`."""
        self._start = start
        self._bounds = bounds
        self._clock = clock
        self.bundles = (served, *bundles)
        self._places = threading.BoundedSemaphore(waiting_max)
        self._turn = threading.Lock()
        self._benches: dict[str, _Bench] = {}  # the one used last at the end; guarded by the turn
        self._closed = False

    def ask(self, bundle: str, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        """`{"state": "done", ...}` with what `Trying.answer` says, or a state of starting, busy or failed with a `fault`."""
        if not self._places.acquire(blocking=False):
            return _state("busy", sentence("trial.busy"))
        try:
            if not self._turn.acquire(timeout=turn_s_max):
                return _state("busy", sentence("trial.busy"))
            try:
                return self._ask(bundle, asked)
            finally:
                self._turn.release()
        finally:
            self._places.release()

    def turn(self) -> None:
        """End what nobody uses; called now and then, never waits."""
        if not self._benches or not self._turn.acquire(blocking=False):
            return
        try:
            now_s = self._clock.monotonic_s()
            for name, bench in list(self._benches.items()):
                if now_s - bench.used_s > self._bounds.idle_s_max:
                    self._drop(name)
        finally:
            self._turn.release()

    def close(self) -> None:
        """End all, at once: who still waits for an answer is told that its process has ended."""
        self._closed = True
        for bench in list(self._benches.values()):
            bench.process.kill()
        with self._turn:
            for name in list(self._benches):
                self._drop(name)

    def _ask(self, name: str, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        if self._closed:
            return _state("failed", sentence("trial.ended"))
        bench = self._bench(name)
        try:
            if not bench.ready:
                first = bench.line(self._bounds.start_waited_s, self._clock)
                if first is None:
                    if self._clock.monotonic_s() - bench.began_s > self._bounds.start_s_max:
                        self._drop(name)
                        return _state(
                            "failed", sentence("trial.not_in_time", seconds=self._bounds.start_s_max)
                        )
                    return _state("starting", sentence("trial.starting"))
                if first.get("fault"):
                    self._drop(name)
                    return _state("failed", first["fault"])
                bench.ready = True
            assert bench.process.stdin is not None
            bench.process.stdin.write(orjson.dumps(asked) + b"\n")
            bench.process.stdin.flush()
            answer = bench.line(self._bounds.answer_s_max, self._clock)
        except (OSError, EOFError, orjson.JSONDecodeError):
            self._drop(name)
            return _state("failed", sentence("trial.ended"))
        if answer is None:
            self._drop(name)
            return _state("failed", sentence("trial.not_in_time", seconds=self._bounds.answer_s_max))
        return {"state": "failed" if answer["fault"] else "done", **answer}

    def _bench(self, name: str) -> _Bench:
        bench = self._benches.pop(name, None)
        now_s = self._clock.monotonic_s()
        if bench is None:
            while len(self._benches) >= processes_max:
                self._drop(next(iter(self._benches)))
            bench = _Bench(process=self._start(name), began_s=now_s, used_s=now_s)
        self._benches[name] = bench
        bench.used_s = now_s
        return bench

    def _drop(self, name: str) -> None:
        bench = self._benches.pop(name, None)
        if bench is not None:
            bench.end()


def _readable(pipe: int, within_s: float) -> bool:
    with closing(
        selectors.DefaultSelector()
    ) as selector:  # not select(): a supervisor may hold a thousand files
        selector.register(pipe, selectors.EVENT_READ)
        return bool(selector.select(within_s))


def _state(state: str, fault: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"state": state, "fault": fault}
