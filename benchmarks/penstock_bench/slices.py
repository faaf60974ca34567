"""Contestants that take turns of half a second over one topic: what drifts on the machine meets all of them alike."""

import os
import signal
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from penstock.schemas.errors import NotReadyError
from penstock_bench.peers.contestants import Contestant
from penstock_bench.peers.environment import BenchEnvironment, Running
from penstock_bench.peers.processes import family, peak_mb
from penstock_bench.peers.throughput import Run, count_patience_s
from penstock_bench.peers.topics import count_outputs

slice_s: Final = 0.5
warm_share: Final = 0.1
"""Of the records: then measuring begins."""
done_share: Final = 0.95
patience_s: Final = 600.0


def measure_in_slices(
    environment: BenchEnvironment,
    contestants: Mapping[str, Contestant],
    *,
    records: int,
    seed: int,
    beside: Mapping[str, int] = MappingProxyType({}),
    each_s: float = slice_s,
) -> dict[str, Run]:
    """Each for itself over the same full topic, all processes of the others stopped meanwhile. Rates are of the seconds in which a
    contestant ran, from when all have a tenth of the records to when the first is nearly through; CPU in nanoseconds, of
    the scheduler. Of the broker's CPU nothing is said: it works for the last one while the next one runs.

    `beside`: by contestant the process that has to do with it alone (who looks at it, where it sends to), which runs and stands
    still with it. What it takes of the machine the contestant has less; its CPU is not counted as the contestant's. `each_s`: how long a slice is; what happens now and then
    comes due while all stand still, and comes too often in short ones.

    Raises NotReadyError when one ends or is too slow.
    """
    topic, clock = environment.input_topic(records, seed=seed), environment.clock
    deadline_s = clock.monotonic_s() + patience_s
    with ExitStack() as held:
        running = {
            name: held.enter_context(environment.running(each, topic)) for name, each in contestants.items()
        }
        for (
            name,
            each,
        ) in running.items():  # their stop asks them to end, which a stopped process does not hear
            held.callback(_signal, each, beside.get(name), signal.SIGCONT)
        while min(_visible(environment, each) for each in running.values()) < warm_share * records:
            _require(environment, running.values(), deadline_s)
            clock.sleep(0.01)
        for name, each in running.items():
            _signal(each, beside.get(name), signal.SIGSTOP)
        clock.sleep(slice_s)  # what they have sent is committed or not by now
        began = {name: _Mark.now(environment, each) for name, each in running.items()}
        if max(each.visible for each in began.values()) > 0.5 * records:
            raise NotReadyError("one was half through before the other had begun: give them more records")
        ran_s = dict.fromkeys(running, 0.0)
        while max(_visible(environment, each) for each in running.values()) < done_share * records:
            for name, each in running.items():
                _require(environment, running.values(), deadline_s)
                since_s = clock.monotonic_s()
                _signal(each, beside.get(name), signal.SIGCONT)
                clock.sleep(each_s)
                _signal(each, beside.get(name), signal.SIGSTOP)
                ran_s[name] += clock.monotonic_s() - since_s
        clock.sleep(slice_s)
        ended = {name: _Mark.now(environment, each) for name, each in running.items()}
        found = {}
        for name, each in running.items():
            _signal(each, beside.get(name), signal.SIGCONT)
            count = count_outputs(
                environment.config, each.entry.output, expected=records, patience_s=count_patience_s, clock=clock
            )  # fmt: skip
            visible = max(_visible(environment, each), 1)
            before, after = began[name], ended[name]
            done = (after.visible - before.visible) * min(count.outputs / visible, 1.0)
            found[name] = Run(
                records=records,
                records_per_s=done / ran_s[name],
                engine_us_per_record=(after.cpu_ns - before.cpu_ns) / done / 1000,
                peak_mb=peak_mb(family(each.pid)),
                first_process_mb=peak_mb([each.pid]),
                first_process_ms_per_s=(after.first_cpu_ns - before.first_cpu_ns) / 1e6 / ran_s[name],
                lost=count.lost,
                duplicated=count.duplicated,
            )
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class _Mark:
    """Where a contestant is."""

    visible: int
    cpu_ns: int
    first_cpu_ns: int

    @classmethod
    def now(cls, environment: BenchEnvironment, running: Running) -> "_Mark":
        return cls(
            visible=_visible(environment, running),
            cpu_ns=_cpu_ns(family(running.pid)),
            first_cpu_ns=_cpu_ns([running.pid]),
        )


def _visible(environment: BenchEnvironment, running: Running) -> int:
    return environment.ends.visible(running.entry.output)


def _require(environment: BenchEnvironment, running: Iterable[Running], deadline_s: float) -> None:
    for each in running:
        environment.require_alive(each)
    if environment.clock.monotonic_s() > deadline_s:
        raise NotReadyError(f"they were not through in {patience_s:g} s")


def _signal(running: Running, beside: int | None, number: signal.Signals) -> None:
    """What is beside it is told after it, and so finds it going on."""
    for pid in (*family(running.pid), *([] if beside is None else family(beside))):
        os.kill(pid, number)


def _cpu_ns(pids: Iterable[int]) -> int:
    """Of all threads that live: a worker's are made at its start."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total
