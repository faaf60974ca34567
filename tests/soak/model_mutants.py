"""Model files that are nearly right, given to `penstock package` by the ten thousand: none may end it by a signal, hang it, or be
answered with anything but one sentence.

    python -m tests.soak.model_mutants --each 20000 --minutes 40

The commands run in children of a warm process (`tests/warm_command.py`), one after the other; of each format some are run as a user
runs them as well, in an interpreter of their own, and must end and say the same. So is whatever looks like a fault.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.mutants_files import mutant
from tests.warm_command import Ended, WarmCommand

formats: Final = (".pmml", ".onnx", ".json", ".ubj", ".txt", ".cbm", "cat.json", ".skops")
"""In the order of what their libraries weigh: a process is forked the slower the more it holds."""
command_s_max: Final = 150.0
"""A trial of the file has 60 s of it; what takes longer than this hangs."""
_foreign: Final = ("Traceback", "[bt]", "[ONNXRuntimeError]", "/workspace", ".cc:", ".cpp:", "0x7f")
_kept: Final = Path("reports/soak/mutants")
_each_child: Final = 40
"""Commands that one child runs: what a fork costs is more than what most of them cost."""
_threads: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ARROW_NUM_THREADS")
_shown_every_s: Final = 30.0
_quick: Final = Path("/dev/shm")
"""Where there is one, a bundle is not waited for until a disk has it."""


@dataclass(kw_only=True)
class Count:
    """What became of the mutants of one format."""

    ending: str
    tried: int = 0
    refused: int = 0
    aborts: int = 0
    hangs: int = 0
    unclear: int = 0
    warm_only: int = 0
    """Faults that a process of their own does not have."""
    took_s: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def take(self, seed: int, ended: Ended, confirm: Callable[[], Ended]) -> str:
        """Counts it; what is wrong with it, or nothing. `confirm` runs it as a user does."""
        self.tried += 1
        self.took_s.append(ended.took_s)
        if fault_of(ended):
            again = confirm()
            self.warm_only += not fault_of(again)
            ended = again
        self.refused += ended.code == 2
        why = fault_of(ended)
        self.hangs += ended.code is None
        self.aborts += ended.code is not None and ended.code < 0
        self.unclear += bool(why) and ended.code is not None and ended.code >= 0
        if why:
            self.faults.append(f"{self.ending}, seed={seed}: {why}")
        return why

    def __str__(self) -> str:
        more = f", {self.warm_only} faulty in the warm process alone" if self.warm_only else ""
        middle_ms = 1000 * statistics.median(self.took_s) if self.took_s else 0.0
        return (
            f"{self.ending} {self.tried:,} ({self.refused:,} refused, {self.aborts} aborts, {self.hangs} hangs, "
            f"{self.unclear} without a clear sentence{more}, {middle_ms:.0f} ms each, {max(self.took_s, default=0.0):.1f} s the longest)"
        )


def fault_of(ended: Ended) -> str:
    """What a command must not do; empty where it did none of it."""
    if ended.code is None:
        return f"did not end within {command_s_max:g} s"
    if ended.code < 0:
        return f"ended by signal {-ended.code}: {ended.said[-400:]}"
    if ended.code not in (0, 1, 2):
        return f"exit code {ended.code}: {ended.said[-400:]}"
    if signs := [sign for sign in _foreign if sign in ended.said]:
        return f"{signs[0]!r} in {ended.said[-2000:]}"
    if ended.code == 2 and len(ended.said.strip().splitlines()) != 1:
        return f"not one line: {ended.said[-400:]}"
    return ""


def words_of(folder: Path, ending: str, data: bytes) -> list[str]:
    """Writes a model file into a folder; the command that packages it there."""
    path = folder / f"m{ending}"
    path.write_bytes(data)
    return ["package", str(path), "--out", str(folder / "bundle"), "--unproved"]


class Mutants:
    """Sound files of every format, and what makes others of them."""

    def __init__(self, folder: Path) -> None:
        """Models are trained in a process of their own: what they start threads for is gone with it."""
        made = folder / "sound"
        made.mkdir()
        command = [sys.executable, "-P", "-m", "tests.mutants_models", str(made)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=300)
        self._sound = {ending: (made / f"sound{ending}").read_bytes() for ending in formats}
        self._folder = folder

    def sound(self, ending: str) -> list[str]:
        """The command that packages the sound file."""
        return words_of(self._folder, ending, self._sound[ending])

    def of(self, ending: str, seed: int) -> bytes:
        """A mutant."""
        return mutant(self._sound[ending], random.Random(seed))

    def prepared(self, ending: str, seed: int) -> Callable[[Path], Sequence[str]]:
        """As `WarmCommand` takes it."""
        return lambda folder: words_of(folder, ending, self.of(ending, seed))


def alone(words: Sequence[str]) -> Ended:
    """The command in an interpreter of its own, as a user runs it."""
    began_s = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "penstock", *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, errors="replace", timeout=command_s_max, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Ended(code=None, said="", took_s=command_s_max)
    return Ended(code=done.returncode, said=done.stderr, took_s=time.monotonic() - began_s)


def same(mutants: Mutants, warm: WarmCommand, ending: str, seeds: Sequence[int], folder: Path) -> list[str]:
    """Seeds whose command ends otherwise, or says something else, in the warm process than in one of its own."""
    found = []
    commands = ((seed, mutants.prepared(ending, seed)) for seed in seeds)
    for seed, ended, where in warm.run(commands):
        wanted = alone(words_of(folder, ending, mutants.of(ending, seed)))
        said = ended.said.replace(str(where), str(folder))
        if (ended.code, said) != (wanted.code, wanted.said):
            found.append(
                f"{ending}, seed={seed}: {ended.code} and {said!r}, alone {wanted.code} and {wanted.said!r}"
            )
    return found


def run(mutants: Mutants, warm: WarmCommand, count: Count, seeds: range, until_s: float) -> None:
    """One format, until it is through or its time is over."""

    def commands() -> Iterator[tuple[int, Callable[[Path], Sequence[str]]]]:
        for seed in seeds:
            if time.monotonic() > until_s:
                return
            yield seed, mutants.prepared(count.ending, seed)

    shown_s = began_s = time.monotonic()
    for seed, ended, folder in warm.run(commands()):

        def confirm(seed: int = seed, folder: Path = folder) -> Ended:
            return alone(words_of(folder, count.ending, mutants.of(count.ending, seed)))

        if count.take(seed, ended, confirm):
            data = mutants.of(count.ending, seed)
            _kept.mkdir(parents=True, exist_ok=True)
            (_kept / f"{seed}{count.ending}").write_bytes(data)
            print(count.faults[-1], flush=True)
        if time.monotonic() - shown_s > _shown_every_s:
            shown_s = time.monotonic()
            rate = count.tried / (shown_s - began_s)
            print(f"{count.ending}: {count.tried:,} of {len(seeds):,}, {rate:.1f} a second", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """0 when none did what a command must not do."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.model_mutants", description=__doc__)
    parser.add_argument("--each", type=int, default=20_000, help="mutants of each format")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="what all formats have together")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--formats", default=",".join(formats), help="with commas (default: all)")
    parser.add_argument(
        "--at-once", type=int, default=os.cpu_count() or 1, help="commands (default: one a core)"
    )
    parser.add_argument(
        "--alone", type=int, default=24, help="how many of all are run as a user does as well"
    )
    arguments = parser.parse_args(argv)
    if not all(os.environ.get(name) == "1" for name in _threads):
        os.environ["LANGUAGE"] = "C"  # else argparse looks for 900 translations a command
        os.environ.update(
            dict.fromkeys(_threads, "1")
        )  # read when the libraries are loaded: in a new process
        os.execv(
            sys.executable, [sys.executable, "-P", "-m", "tests.soak.model_mutants", *(argv or sys.argv[1:])]
        )
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(dir=_quick if _quick.is_dir() else None) as name:
        folder = Path(name)
        mutants = Mutants(folder)
        warm = WarmCommand(folder, at_once=arguments.at_once, within_s=command_s_max, each=_each_child)
        counts = [Count(ending=ending) for ending in arguments.formats.split(",")]
        others: list[str] = []
        seeds = range(arguments.first, arguments.first + arguments.each)
        for place, count in enumerate(counts):
            now_s = time.monotonic()
            left_s = began_s + 60 * arguments.minutes - now_s
            warm.warm_up([mutants.sound(count.ending)])
            alike = arguments.alone // len(counts) + (place < arguments.alone % len(counts))
            others += same(mutants, warm, count.ending, seeds[:alike], folder)
            run(mutants, warm, count, seeds, now_s + left_s / (len(counts) - place))
            print(count, *others, sep="\n", flush=True)
    faults = [fault for count in counts for fault in count.faults]
    print(*faults, sep="\n")
    print(
        f"{sum(each.tried for each in counts):,} model files from seed {arguments.first} on in {time.monotonic() - began_s:.0f} s, "
        f"{arguments.alone} of them as a user runs them too ({len(others)} ended otherwise): "
        + "; ".join(map(str, counts))
    )
    return int(bool(faults or others))


if __name__ == "__main__":
    sys.exit(main())
