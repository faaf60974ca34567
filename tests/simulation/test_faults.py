"""The real pipeline and connectors over simulated Kafka clients: whatever befalls them, every record has its one outcome."""

import argparse
import hashlib
import io
import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from confluent_kafka import KafkaError
from penstock_bench.faults import faults
from penstock_bench.faults.checker import Checker, Fault
from penstock_bench.faults.consumer import passing
from penstock_bench.faults.fates import Trouble
from penstock_bench.faults.journal import Ended, Journal, Kind, Mode, OffsetsCommitted, Sent, Start, Written
from penstock_bench.faults.outcomes import write_input
from penstock_bench.faults.runs import default_processes, seeds_per_task, simulate_all
from penstock_bench.faults.worker import simulated_clients
from penstock_bench.faults.world import World, simulate
from rich.console import Console

from penstock.engine.console.terminal import Terminal

seeds = int(os.environ.get("PENSTOCK_SIMULATION_SEEDS", "20000"))
first_seed = int(os.environ.get("PENSTOCK_SIMULATION_FIRST", "0"))
_replay = """
from penstock_bench.faults.world import simulate
print(" ".join(simulate(seed).digest for seed in range(40)))
"""


@pytest.mark.slow
@pytest.mark.timeout(0.1 * seeds + 600)
def test_nothing_is_lost_doubled_torn_disordered_wrong_or_silent_and_nothing_hangs() -> None:
    failed = [
        f"seed {result.seed}: {result.findings[0]}"
        for results in simulate_all(range(first_seed, first_seed + seeds), processes=default_processes())
        for result in results
        if result.findings
    ]
    assert not failed, (
        f"{len(failed)} of {seeds}; penstock simulate faults --first SEED --seeds 1: {failed[:10]}"
    )


def test_a_search_ends_when_its_time_is_over_and_says_how_many_runs_there_were() -> None:
    parser = argparse.ArgumentParser()
    faults.add_arguments(parser)
    shown = io.StringIO()
    words = ["--seeds", "1000000", "--first", "5", "--processes", "1", "--hours", "1e-9"]
    assert not faults.run(parser.parse_args(words), Terminal(console=Console(file=shown, width=200)))
    assert f"{seeds_per_task} runs from seed 5 on with" in shown.getvalue()


@pytest.mark.parametrize("seed", range(100))
def test_a_few_seeds_without_a_process_of_their_own(seed: int) -> None:
    assert simulate(1_000_000 + seed).findings == ()


@pytest.mark.parametrize(
    "seed",
    [5780, 15633, 5001595, 200103491, 200104239, 200200954, 400010108, 830117313, 900437717, 900300720],
)
def test_seeds_that_found_a_fault_once(seed: int) -> None:
    """5780, 15633: records of a topic made anew were committed before it was known what was deleted before them. 200103491 and
    those behind it: where a group begins was decided a second time while the commit of the first was on its way.
    """
    assert simulate(seed).findings == ()


@pytest.mark.parametrize(
    ("seed", "only", "start", "mode"),
    [
        (34, (Trouble.SLOW, Trouble.TOPIC), "latest", "at_least_once"),
        (8000005, (Trouble.TOPIC, Trouble.RETENTION, Trouble.POISON), "latest", "exactly_once"),
    ],
)
def test_troubles_that_found_a_fault_once(
    seed: int, only: tuple[Trouble, ...], start: Start, mode: Mode
) -> None:
    """34: a topic made anew before the group's first commit arrived was read from its end."""
    assert simulate(seed, only=frozenset(only), start=start, mode=mode).findings == ()


@pytest.mark.parametrize("only", list(itertools.combinations(Trouble, 2)), ids="-".join)
def test_every_two_troubles_together(only: tuple[Trouble, ...]) -> None:
    """A drawn run seldom has just these: what it takes both for is found a hundred times as often."""
    for start, mode in itertools.product(get_args(Start), get_args(Mode)):
        found = simulate(2_000_000 + first_seed, only=frozenset(only), start=start, mode=mode)
        assert found.findings == (), (start, mode)


def test_an_error_that_passes_comes_once_at_a_place() -> None:
    """One that came again and again would be no passing one: what stands there may be set aside."""
    only_pass = {str(code) for code in passing if code != KafkaError._BAD_MSG}
    for seed in range(200):
        world = World(seed, frozenset({Trouble.READING, Trouble.SLOW}))
        lines: list[str] = []
        world.cluster.trace = lines.append
        with simulated_clients(world.cluster):
            assert world.run() == []
        errors = [line for line in lines if " error " in line and line.rpartition(" ")[2] in only_pass]
        places = [line.rpartition(" ")[0] for line in errors]
        assert len(places) == len(set(places)), seed


def test_a_seed_gives_the_same_run_in_every_process() -> None:
    """Whatever the order of hashes, what ran before, and what the clock says."""
    digests = [simulate(seed).digest for seed in range(40)]
    assert len(set(digests)) > 35
    folder = Path(__file__).parents[2] / "benchmarks"
    for hash_seed in ("1", "2"):
        environ = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(folder)}
        done = subprocess.run(
            [sys.executable, "-P", "-c", _replay],
            env=environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert done.stdout.split() == digests


@pytest.mark.parametrize("trouble", list(Trouble))
def test_each_kind_of_trouble_changes_what_happens(trouble: Trouble) -> None:
    """A kind that does nothing would prove nothing."""

    def digest(only: frozenset[Trouble]) -> str:
        found = hashlib.sha256()
        for seed in range(8):
            found.update(simulate(seed, only=only, mode="exactly_once").digest.encode())
        return found.hexdigest()

    others = frozenset(Trouble) - {trouble}
    assert digest(others) != digest(frozenset(Trouble))


def journal(*entries: object, mode: str = "exactly_once") -> Journal:
    made = Journal(mode=mode, output_format="json", start="earliest", topic_id="t")  # type: ignore[arg-type]
    made.entries += entries  # type: ignore[arg-type]
    return made


def written(offset: int, kind: Kind = Kind.GOOD) -> Written:
    return Written(("t", 0, offset), b"k", kind, offset, 1, True)


def sent(topic: str, offset: int, *, transaction: int | None = 1, at: int = 0, wrong: float = 0.0) -> Sent:
    source = f'"source": {{"topic_id": "t", "partition": 0, "offset": {offset}}}'
    body = {
        "p": f'"outputs": {{"y": [{2.0 * offset + 1 + wrong}]}}',
        "e": f'"base_value": 0, "attributions": [{{"feature": "number", "number": {offset}, "attribution": {2 * offset}}}, '
        '{"feature": "weight", "number": 1, "attribution": 1}]',
    }[topic]
    return Sent(topic, 0, b"k", f"{{{source}, {body}}}".encode(), transaction, at, 0.0)


def ended(offset: int, *, transaction: int = 1, committed: bool = True) -> Ended:
    return Ended(transaction, committed, ((0, offset),), "t")


@pytest.mark.parametrize(
    ("fault", "entries"),
    [
        (None, [written(0), sent("p", 0), sent("e", 0), ended(1)]),
        (Fault.LOST, [written(0)]),
        (Fault.SKIPPED, [written(0), ended(1)]),
        (Fault.SKIPPED, [written(0), sent("p", 0), ended(1)]),
        (
            Fault.SKIPPED,
            [written(0), sent("p", 0), sent("e", 0), ended(1, committed=False), ended(1, transaction=2)],
        ),
        (Fault.DOUBLED, [written(0), sent("p", 0), sent("p", 0), sent("e", 0), ended(1)]),
        (
            Fault.TORN,
            [written(0), sent("p", 0), ended(0), sent("e", 0, transaction=2), ended(1, transaction=2)],
        ),
        (Fault.TORN, [written(0), sent("p", 0), sent("e", 0), ended(0), ended(1, transaction=2)]),
        (Fault.WRONG, [written(0), sent("p", 0, wrong=1.0), sent("e", 0), ended(1)]),
        (Fault.PHANTOM, [sent("p", 0), ended(1)]),
        (
            Fault.DISORDERED,
            [written(0), written(1), *(sent(t, o, at=9 - o) for o in (0, 1) for t in ("p", "e")), ended(2)],
        ),
        (Fault.WRONG, [written(0, Kind.NAN), sent("p", 0), sent("e", 0), ended(1)]),
    ],
)
def test_the_checker_names_what_is_wrong(fault: Fault | None, entries: list[object]) -> None:
    assert {finding.fault for finding in Checker(journal(*entries)).check()} >= ({fault} if fault else set())
    assert fault is not None or not Checker(journal(*entries)).check()


def test_the_checker_allows_at_least_once_to_repeat_after_trouble_only() -> None:
    entries = [
        written(0),
        *(sent(topic, 0, transaction=None, at=at) for at, topic in enumerate(["p", "e", "p", "e"])),
        OffsetsCommitted(((0, 1),), "t"),
    ]
    calm = journal(*entries, mode="at_least_once")
    assert {finding.fault for finding in Checker(calm).check()} == {Fault.DOUBLED}
    troubled = journal(*entries, mode="at_least_once")
    troubled.calm = False
    assert Checker(troubled).check() == []


def test_input_that_is_cut_off_is_shorter() -> None:
    whole, cut = (write_input(kind, 1, 1, "avro") for kind in (Kind.GOOD, Kind.CUT_OFF))
    assert whole is not None
    assert cut == whole[:-1]
