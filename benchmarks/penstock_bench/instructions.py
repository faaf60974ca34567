"""`penstock bench pipeline --guarded TURNS --instructions`: what guarding costs in instructions, which no neighbour on the machine blurs."""

import math
import os
import re
import shutil
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from penstock.engine.clock import Clock
from penstock.engine.console.terminal import Terminal
from penstock.schemas.errors import ConfigError, NotReadyError
from penstock_bench.guarded import bar, guarded, turns_max
from penstock_bench.peers.contestants import Contestant, chosen, penstock
from penstock_bench.peers.environment import BenchEnvironment, Running, open_environment
from penstock_bench.peers.processes import family

counted_from: Final = 0.2
counted_to: Final = 0.9
"""Shares of the records between which instructions are counted."""
patience_s: Final = 900.0
control_timeout_s: Final = 60.0
settle_s: Final = 0.2
core_per_s: Final = 3_000_000_000
"""Instructions, of a core of today: one a cycle."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """Instructions in user space of one stream's processes, over the records that came out meanwhile."""

    records: int
    seconds: float
    worker: int
    supervisor: int

    @property
    def per_record(self) -> float:
        """Of the worker, a record."""
        return self.worker / self.records

    @property
    def per_second(self) -> float:
        """Of the supervisor, which handles no record: a second."""
        return self.supervisor / self.seconds


def measure(*, turns: int, records: int, seed: int, terminal: Terminal, clock: Clock) -> dict[str, Any]:
    """Both at once under callgrind, in turns; shows each turn and the ratio, and returns all of it. Raises ConfigError, NotReadyError."""
    if not 1 <= turns <= turns_max:
        raise ConfigError(f"--guarded is from 1 to {turns_max} turns")
    if shutil.which("valgrind") is None:
        raise ConfigError("--instructions needs valgrind: apt-get install valgrind")
    plain = chosen("penstock")[0]
    found: list[dict[str, Counted]] = []
    with open_environment(terminal, clock) as environment:
        for turn in range(turns):
            both = {
                "plain": replace(plain, start=lambda entry, _: _watched(penstock(entry), entry.folder)),
                "guarded": replace(
                    plain, slug="penstock-guarded", start=lambda entry, _: _watched(guarded(entry), entry.folder)
                ),
            }  # fmt: skip
            order = {name: both[name] for name in sorted(both, reverse=turn % 2 == 1)}
            found.append(_turn(environment, order, records=records, seed=seed))
            terminal.say(
                f"turn {turn + 1}: "
                + ", ".join(
                    f"{name} {each.per_record:,.0f} a record" for name, each in sorted(found[-1].items())
                )
            )
    return summary(found, terminal)


def summary(found: Sequence[Mapping[str, Counted]], terminal: Terminal) -> dict[str, Any]:
    """The worker's ratio of each turn, their geometric mean, and its standard error where there are several turns; and what the
    supervisor does more each second, as a share of a core that does `core_per_s`."""
    logs = [math.log(turn["guarded"].per_record / turn["plain"].per_record) for turn in found]
    error = statistics.stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else None
    mean = math.exp(statistics.mean(logs))
    terminal.say(
        f"guarded for plain, instructions a record in the worker: {mean:.4f} on average"
        + (f", standard error {error:.4f}" if error is not None else "")
        + f" (turns from {math.exp(min(logs)):.4f} to {math.exp(max(logs)):.4f}); the bar is {1 + bar:g}"
    )
    more = statistics.mean(turn["guarded"].per_second - turn["plain"].per_second for turn in found)
    terminal.say(
        f"in the supervisor: {more / 1e6:+.2f} million a second, {more / core_per_s:+.3%} of a core that does {core_per_s:,.0f}"
    )
    return {
        "turns": [{name: round(each.per_record, 1) for name, each in turn.items()} for turn in found],
        "instructions_per_record": {"mean": round(mean, 5), "error": None if error is None else round(error, 5)},
        "supervisor_more_per_s": round(more),
    }  # fmt: skip


def _watched(command: list[str], folder: Path) -> list[str]:
    """The same under callgrind, which counts nothing until it is told to."""
    return [
        shutil.which("valgrind") or "valgrind", "--tool=callgrind", "--instr-atstart=no", "--trace-children=yes", "--fair-sched=yes",
        f"--callgrind-out-file={folder}/counted.%p", *command,
    ]  # fmt: skip


def _turn(
    environment: BenchEnvironment, contestants: Mapping[str, Contestant], *, records: int, seed: int
) -> dict[str, Counted]:
    topic, clock = environment.input_topic(records, seed=seed), environment.clock
    deadline_s = clock.monotonic_s() + patience_s
    began: dict[str, tuple[int, float]] = {}
    found: dict[str, Counted] = {}
    with ExitStack() as held:
        running = {
            name: held.enter_context(environment.running(each, topic)) for name, each in contestants.items()
        }
        while len(found) < len(running):
            if clock.monotonic_s() > deadline_s:
                raise NotReadyError(f"it took more than {patience_s:g} s: give them fewer records")
            for name, each in running.items():
                environment.require_alive(each)
                visible = environment.ends.visible(each.entry.output)
                if name not in began and visible >= counted_from * records:
                    _told(each, "-i", "on")
                    began[name] = (environment.ends.visible(each.entry.output), clock.monotonic_s())
                elif name in began and name not in found and visible >= counted_to * records:
                    ended = environment.ends.visible(each.entry.output)
                    _told(each, "-d")
                    at, since_s = began[name]
                    found[name] = _counted(each, records=ended - at, seconds=clock.monotonic_s() - since_s)
            clock.sleep(settle_s)
        for each in running.values():
            for pid in family(each.pid):
                os.kill(pid, 9)  # nothing of it is asked for any more, and under callgrind it ends slowly
    return found


def _told(running: Running, *words: str) -> None:
    """Say it to every process of a stream."""
    for pid in family(running.pid):
        subprocess.run(
            ["callgrind_control", *words, str(pid)], capture_output=True, check=False, timeout=control_timeout_s
        )  # fmt: skip


def _counted(running: Running, *, records: int, seconds: float) -> Counted:
    """From what its processes wrote. Raises NotReadyError when that is nothing, or no record came out."""
    worker = supervisor = 0
    for file in running.entry.folder.glob("counted.*.1"):
        found = re.search(r"^(?:summary|totals): (\d+)", file.read_text(errors="replace"), re.MULTILINE)
        count = int(found[1]) if found else 0
        if file.name == f"counted.{running.pid}.1":
            supervisor += count
        else:
            worker += count
    if not worker or not supervisor:
        raise NotReadyError("callgrind counted nothing: does callgrind_control reach its processes?")
    if records <= 0:
        raise NotReadyError("nothing came out while it counted: give them more records")
    return Counted(records=records, seconds=seconds, worker=worker, supervisor=supervisor)
