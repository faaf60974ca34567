"""The `penstock` command many thousand times: a process that has all of its libraries forks children, so that an abort or a hang
takes a child and nothing else.

A command is what a user runs: `main` with its words, files on disk, its exit code, and what it (or a library of C++) wrote to
standard error. A child runs several, one after the other, and tells of each; what ends a child is the end of the command that it
was at, and those behind it go to another. Only what a new interpreter costs is left out, for the command and for the trial of a
file inside it.
"""

import contextlib
import gc
import importlib
import io
import itertools
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from penstock.engine.cli.main import main
from penstock.engine.models.packaging import trial

memory_bytes_max: Final = 12 << 30
"""Address space of a child: a small file that asks for more is a fault, and must not be this machine's."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What became of one command."""

    code: int | None
    """Below 0: the signal that ended it; None: it did not end in its time."""
    said: str
    """Standard error."""
    took_s: float


Prepare = Callable[[Path], Sequence[str]]
"""Puts the files of a command into its folder and returns its words; runs in the child."""


@dataclass(kw_only=True)
class _Child:
    pid: int
    reports: int
    """The end of a pipe where it writes a line for each command that has ended."""
    folder: Path
    commands: list[tuple[int, Prepare]]
    last_s: float
    """When it began with the command that it is at."""
    done: int = 0
    hangs: bool = False
    said: bytes = b""

    def at(self) -> Path:
        """The folder of the command that it is at."""
        return self.folder / str(self.done)


_inherited: list[int] = []
"""What a child of a child must not hold open, or nobody learns that its parent is gone."""


def _forked(work: Callable[[], int], errors: Path | None) -> int:
    """A child that does the work in a group of its own and ends with its result; the pid."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setpgid(0, 0)
        for number in _inherited:
            os.close(number)
        nothing = os.open(os.devnull, os.O_RDWR)
        said = nothing if errors is None else os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number, opened in enumerate((nothing, nothing, said)):
            os.dup2(opened, number)
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), write_through=True)
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), write_through=True)
        code = work()
    except BaseException:  # noqa: BLE001 - nothing of the parent may run in the child
        traceback.print_exc()  # as the interpreter does
    finally:
        os._exit(code & 0xFF)


def _code(status: int) -> int:
    return os.waitstatus_to_exitcode(status)


def _trial_forked(words: list[str], allowed_s: float) -> int | None:
    """`trial.in_a_process`, without the start of an interpreter."""
    pid = _forked(lambda: trial.main(words), None)
    pidfd = os.pidfd_open(pid)
    try:
        if not select.select([pidfd], [], [], allowed_s)[0]:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        return _code(os.waitpid(pid, 0)[1])
    finally:
        os.close(pidfd)


class WarmCommand:
    """Runs commands in children, a few children at a time.

    Libraries keep threads that clean up (of jemalloc, of polars), which no child has: a fault that a child has and a process of
    its own does not is this one's, and whoever counts faults asks both.
    """

    def __init__(self, folder: Path, *, at_once: int, within_s: float, each: int = 1) -> None:
        """`at_once` children, of which one runs up to `each` commands, none for longer than `within_s`."""
        self._folder, self._at_once, self._within_s, self._each = folder, at_once, within_s, each
        self._turn = 0

    def warm_up(self, commands: Sequence[Sequence[str]]) -> None:
        """Imports what these commands import, which a child of each says; each must end with 0."""
        for words in commands:
            names = self._folder / "imported"
            pid = _forked(partial(_imported, words, names), self._folder / "warm-up")
            code = _code(os.waitpid(pid, 0)[1])
            assert code == 0, f"{words}: {code}: {(self._folder / 'warm-up').read_text()}"
            for name in names.read_text().split():
                with contextlib.suppress(
                    ImportError
                ):  # some are made by hand, and cannot be asked for by name
                    importlib.import_module(name)
        gc.collect()
        gc.freeze()

    def run(self, commands: Iterator[tuple[int, Prepare]]) -> Iterator[tuple[int, Ended, Path]]:
        """Of each command its number, its end and its folder, which is gone when the next is asked for; in the order of their
        ends."""
        running: list[_Child] = []
        again: deque[tuple[int, Prepare]] = deque()  # those behind one that ended its child
        while True:
            while len(running) < self._at_once:
                following = [again.popleft() for _ in range(min(len(again), self._each))]
                following = following or [*itertools.islice(commands, self._each)]
                if not following:
                    break
                running.append(self._start(following))
            if not running:
                return
            told, _, _ = select.select([child.reports for child in running], [], [], 1.0)
            for child in [*running]:
                if child.reports in told:
                    for number, ended, folder in self._told(child):
                        yield number, ended, folder
                        shutil.rmtree(folder, ignore_errors=True)
                    if child.pid:
                        continue
                    running.remove(child)
                    again += child.commands[child.done :]
                    shutil.rmtree(child.folder)
                elif time.monotonic() - child.last_s > self._within_s and not child.hangs:
                    child.hangs = True
                    os.killpg(child.pid, signal.SIGKILL)

    def _start(self, commands: list[tuple[int, Prepare]]) -> _Child:
        self._turn += 1
        folder = self._folder / f"run-{self._turn}"
        folder.mkdir()
        reports, ours = os.pipe()
        _inherited.append(reports)
        pid = _forked(lambda: _commands(commands, folder, ours), folder / "stderr")
        _inherited.remove(reports)
        os.close(ours)
        return _Child(pid=pid, reports=reports, folder=folder, commands=commands, last_s=time.monotonic())

    def _told(self, child: _Child) -> Iterator[tuple[int, Ended, Path]]:
        """Commands that have ended; `pid` of a child that is gone becomes 0."""
        more = os.read(child.reports, 1 << 20)
        *lines, child.said = (child.said + more).split(b"\n")
        for line in lines:
            found = json.loads(line)
            folder, (number, _) = child.at(), child.commands[child.done]
            child.done, child.last_s = child.done + 1, time.monotonic()
            yield number, Ended(**found), folder
        if more:
            return
        os.close(child.reports)
        code = _code(os.waitpid(child.pid, 0)[1])
        child.pid = 0
        if child.done < len(child.commands):
            folder, (number, _) = child.at(), child.commands[child.done]
            said = folder / "stderr"
            ended = Ended(
                code=None if child.hangs else code,
                said=said.read_text(errors="replace") if said.exists() else "",
                took_s=time.monotonic() - child.last_s,
            )
            child.done += 1
            yield number, ended, folder


def _commands(commands: Sequence[tuple[int, Prepare]], folder: Path, reports: int) -> int:
    """What a child does: one command after the other, each in a folder of its own, and a line of each."""
    _inherited.append(reports)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes_max, memory_bytes_max))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    trial.elsewhere = _trial_forked
    for place, (_, prepare) in enumerate(commands):
        mine = folder / str(place)
        mine.mkdir()
        words = [*prepare(mine)]
        tempfile.tempdir = str(mine)
        said = os.open(mine / "stderr", os.O_RDWR | os.O_CREAT)
        os.dup2(said, 2)
        began_s = time.monotonic()
        try:
            code = main(words)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:  # noqa: BLE001 - a command that raises is a fault to be told of
            traceback.print_exc()  # as the interpreter does
            code = 1
        took_s = time.monotonic() - began_s
        text = os.pread(said, 1 << 16, 0).decode(errors="replace")
        os.close(said)
        os.write(reports, json.dumps({"code": code, "said": text, "took_s": took_s}).encode() + b"\n")
    return 0


def _imported(words: Sequence[str], names: Path) -> int:
    before = {*sys.modules}
    code = main([*words])
    found = [name for name in sys.modules if name not in before and sys.modules[name] is not None]
    names.write_text("\n".join(found))
    return code
