"""`penstock bench replay`: a real scaler and real workers absorb a step, go to zero and back, and are replaced under load; every record is counted."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.engine.clock import Clock, SystemClock
from penstock.engine.console.terminal import Terminal
from penstock.schemas.errors import ConfigError, NotReadyError
from penstock_bench.picture import require_folder
from penstock_bench.replay.audit import Audit, ages_s, oldest_s
from penstock_bench.replay.keda import Spec
from penstock_bench.replay.picture import picture, table
from penstock_bench.replay.world import Books, Sample, World, cores, open_world, partitions, replicas_max
from penstock_bench.scaling.loads import Load as SimulatedLoad
from penstock_bench.scaling.plant import simulate
from penstock_bench.scaling.policies import Penstock

summary = (
    "The stand-in for a kubelet, KEDA and the autoscaler starts and stops real workers as the real scaler says, under a real load on "
    "an embedded Kafka: a step to ten times the load, zero and back, a rolling upgrade. Some ten minutes."
)
objective_s: Final = 30.0
calm_share: Final = 0.4
"""Of what one worker can do; the step is to ten times of that."""
step_times: Final = 10
_trial_records: Final = 300
_start_patience_s: Final = 180.0
_drain_patience_s: Final = 300.0
_restarts_max: Final = 3
_after_s: Final = 3.0  # for a second outcome to come


@dataclass(frozen=True, kw_only=True)
class Script:
    """How long each part lasts, in seconds, and the control plane's periods."""

    calm_s: float
    step_s: float
    upgrade_s: float  # what is waited for at the most
    wake_s: float
    sync_s: float
    polling_s: float
    cooldown_s: float


whole: Final = Script(
    calm_s=60.0, step_s=180.0, upgrade_s=420.0, wake_s=30.0, sync_s=15.0, polling_s=15.0, cooldown_s=30.0
)
short: Final = Script(
    calm_s=15.0, step_s=60.0, upgrade_s=420.0, wake_s=10.0, sync_s=5.0, polling_s=2.0, cooldown_s=5.0
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this bench."""
    parser.add_argument("--seed", type=int, default=1, help="of the records' moments (default: %(default)s)")
    parser.add_argument(
        "--short", action="store_true", help="a third of the time, with a control plane that looks more often"
    )
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="write replay.md and replay.svg there")


def run(arguments: argparse.Namespace, terminal: Terminal, clock: Clock | None = None) -> dict[str, Any]:
    """Replay, show the table, and return all of it. Raises ConfigError, NotReadyError."""
    require_folder(arguments.figures / "x" if arguments.figures else None, "--figures")
    if arguments.seed < 0:
        raise ConfigError("--seed is a number from 0 on")
    clock = clock or SystemClock()
    script = short if arguments.short else whole
    spec = Spec(polling_s=script.polling_s, cooldown_s=script.cooldown_s)
    with open_world(
        objective_s=objective_s, spec=spec, sync_s=script.sync_s, seed=arguments.seed, clock=clock
    ) as (world, books):
        found = play(world, books, script, say=terminal.say)
    found = {"seed": arguments.seed, "short": arguments.short, "script": vars(script), **found}
    if arguments.figures is not None:
        (arguments.figures / "replay.md").write_text(table(found), encoding="utf-8")
        (arguments.figures / "replay.svg").write_text(picture(found), encoding="utf-8")
        terminal.say(f"written: {arguments.figures}/replay.md and replay.svg")
    terminal.say_lines(table(found))
    return {name: value for name, value in found.items() if name != "curves"}


def play(world: World, books: Books, script: Script, *, say: Callable[[str], None]) -> dict[str, Any]:
    """All parts one after the other; what was measured, and the bars."""
    marks: dict[str, float] = {}

    def until(met: Callable[[], bool], patience_s: float, what: str) -> None:
        end_s = world.wall_s + patience_s
        while not met():
            if world.pods.restarts > _restarts_max:
                raise NotReadyError(f"{what}: workers end by themselves; {books.said()}")
            if world.wall_s > end_s:
                raise NotReadyError(f"{what}: not in {patience_s:g} s; {books.said()}")
            world.turn()

    def answered() -> bool:
        return len(world.watch.seen) >= len(world.load.due_s)

    def begin(part: str) -> None:
        marks[part] = world.wall_s
        say(f"{part} ...")

    begin("what one worker can do")
    world.replicas = 1
    until(lambda: world.pods.ready == 1, _start_patience_s, "the first worker")
    capacity = _trial(world, until)
    say(f"{capacity:.1f} records a second, each worker held to {cores:g} of a core")
    begin("calm")
    world.load.rate_per_s = calm_share * capacity
    world.begin_scaling()
    world.go_on(script.calm_s)
    reported, measured = books.reported_capacity()
    begin("step")
    world.load.rate_per_s = step_times * calm_share * capacity
    world.go_on(script.step_s)
    begin("upgrade")
    world.pods.revision = 2
    until(lambda: world.pods.rolled_out, script.upgrade_s, "the rolling upgrade")
    begin("drain")
    world.load.rate_per_s = 0.0
    until(answered, _drain_patience_s, "the last records")
    until(lambda: world.pods.running == 0, _drain_patience_s, "scaling to zero")
    begin("wake")
    world.load.rate_per_s = calm_share * capacity
    until(lambda: world.pods.ready > 0, _start_patience_s, "the first worker after zero")
    world.go_on(script.wake_s)
    begin("end")
    world.load.rate_per_s = 0.0
    until(answered, _drain_patience_s, "the last records")
    world.go_on(_after_s)
    audited = books.audit()
    return {
        **told(world, audited, marks, capacity),
        "capacity_reported": {"records_per_s": reported, "measured": measured},
    }


def _trial(world: World, until: Callable[[Callable[[], bool], float, str], None]) -> float:
    """Records a second that one worker finishes of a full queue, from the middle half of what it had."""
    world.load.at_once = _trial_records
    until(lambda: len(world.watch.seen) >= _trial_records, 300.0, "what one worker can do")
    seen_s = np.array([at_s for at_s, _ in world.watch.seen])
    first, last = len(seen_s) // 4, 3 * len(seen_s) // 4
    return float((last - first) / (seen_s[last] - seen_s[first]))


def told(world: World, audited: Audit, marks: dict[str, float], capacity: float) -> dict[str, Any]:
    """The figures, the bars and the curves of a run. `marks`: when each part began; `capacity`: records a second of one worker."""
    due_s = np.array(world.load.due_s)
    ages = ages_s(due_s, audited.answered_s)
    names = list(marks)
    ends = [*list(marks.values())[1:], np.inf]
    parts = {}
    for name, begin_s, end_s in zip(names, marks.values(), ends, strict=True):
        its = ages[(due_s >= begin_s) & (due_s < end_s)]
        if len(its):
            parts[name] = {
                "records": len(its),
                "p50_age_s": float(np.percentile(its, 50)),
                "p99_age_s": float(np.percentile(its, 99)),
                "max_age_s": float(its.max()),
                "replicas_max": max((s.asked for s in world.samples if begin_s <= s.at_s < end_s), default=0),
            }
    startup_s = max(world.pods.startups_s)
    woken = next(at_s for at_s, asked in world.changes if at_s > marks["wake"] and asked)
    wake_first_s = float(due_s[due_s >= marks["wake"]].min())
    whole_audit = {
        "records": audited.records, "lost": len(audited.lost), "doubled": len(audited.doubled),
        "wrong": audited.wrong[:5], "letters": audited.letters, "not_written": len(world.load.refused),
        "versions": audited.versions,
    }  # fmt: skip
    bars = {
        "every record has exactly one right outcome": audited.clean and not world.load.refused,
        "the step: no record older than the objective and one start-up": parts["step"]["max_age_s"]
        <= objective_s + startup_s,
        "the upgrade: p99 of the ages within the objective": parts["upgrade"]["p99_age_s"] <= objective_s,
        "zero and back: nothing ran, and the first record started a worker": woken > wake_first_s,
        "no worker was killed, none ended by itself": world.pods.killed == world.pods.restarts == 0,
    }
    return {
        "capacity_records_per_s": capacity,
        "limited": world.pods.limited,
        "startup_s": {"median": float(np.median(world.pods.startups_s)), "max": startup_s},
        "drain_s_max": max(world.pods.drains_s, default=0.0),
        "wake_s": woken - wake_first_s,
        "parts": parts,
        "audit": whole_audit,
        "bars": bars,
        "curves": _curves(world, audited, marks, capacity),
    }


def _curves(world: World, audited: Audit, marks: dict[str, float], capacity: float) -> dict[str, Any]:
    """Measured, every second from the calm on; and simulated, every five seconds until the upgrade, for the very same arrivals."""
    samples: list[Sample] = [sample for sample in world.samples if sample.at_s >= marks["calm"]]
    due_s = np.array(world.load.due_s)
    moments_s = np.array([sample.at_s for sample in samples])
    seconds = int(marks["upgrade"] - marks["calm"])
    simulated = simulate(
        SimulatedLoad(
            name="replay",
            seed=1,
            arrivals=_arrivals(due_s - marks["calm"], world.load.partition, seconds),
            startup_s=(min(world.pods.startups_s), max(world.pods.startups_s)),
            capacity_records_per_s=capacity,
        ),
        Penstock(capacity_records_per_s=capacity, partitions=partitions, replicas_max=replicas_max),
        commit_s=1,
        batch=1,
        start=1,
    )
    return {
        "at_s": (moments_s - marks["calm"]).tolist(),
        "asked": [sample.asked for sample in samples],
        "ready": [sample.ready for sample in samples],
        "oldest_s": oldest_s(due_s, audited.answered_s, moments_s).tolist(),
        "marks": {name: at_s - marks["calm"] for name, at_s in marks.items() if at_s >= marks["calm"]},
        "simulated_replicas": simulated.replicas[0].tolist(),
        "simulated_oldest_s": simulated.ages[0].tolist(),
        "simulated_max_age_s": float(simulated.ages.max()),
    }


def _arrivals(since_s: NDArray[np.float64], places: list[int], seconds: int) -> NDArray[np.float64]:
    """(seconds, partitions) records."""
    found = np.zeros((seconds, partitions))
    inside = (since_s >= 0) & (since_s < seconds)
    np.add.at(found, (since_s[inside].astype(int), np.array(places)[inside]), 1.0)
    return found
