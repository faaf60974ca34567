"""The `penstock` command many thousand times: a process that has all of its libraries forks a child for each, so that an abort or a
hang takes that child and nothing else.

A child is the command as a user runs it: `main` with its words, files on disk, its exit code, and what it (or a library of C++)
wrote to standard error. Only what a new interpreter costs is left out, for the command and for the trial of a file inside it.
"""

import contextlib
import gc
import importlib
import io
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, kw_only=True)
class _Child:
    pid: int
    pidfd: int
    folder: Path
    began_s: float


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
    """Runs commands in children, a few at a time.

    Libraries keep threads that clean up (of jemalloc, of polars), which no child has: a fault that a child has and a process of
    its own does not is this one's, and whoever counts faults asks both.
    """

    def __init__(self, folder: Path, *, at_once: int, within_s: float) -> None:
        self._folder, self._at_once, self._within_s = folder, at_once, within_s
        self._turn = 0

    def warm_up(self, commands: Sequence[Sequence[str]]) -> None:
        """Imports what these commands import, which a child of each says; each must end with 0."""
        for words in commands:
            names = self._folder / "imported"
            pid = _forked(lambda words=words, names=names: _imported(words, names), self._folder / "warm-up")
            code = _code(os.waitpid(pid, 0)[1])
            assert code == 0, f"{words}: {code}: {(self._folder / 'warm-up').read_text()}"
            for name in names.read_text().split():
                with contextlib.suppress(
                    ImportError
                ):  # some are made by hand, and cannot be asked for by name
                    importlib.import_module(name)
        gc.collect()
        gc.freeze()

    def run(
        self, commands: Iterator[tuple[int, Callable[[Path], Sequence[str]]]]
    ) -> Iterator[tuple[int, Ended, Path]]:
        """Of each command its number, its end and its folder, which is gone when the next is asked for; in the order of their
        ends. A command is made of its number and of a function that puts its files into the folder and returns its words."""
        running: dict[int, tuple[int, _Child]] = {}
        left = iter(commands)
        more = True
        while more or running:
            while more and len(running) < self._at_once:
                following = next(left, None)
                more = following is not None
                if following is not None:
                    child = self._start(following[1])
                    running[child.pidfd] = (following[0], child)
            for pidfd, ended in self._ended([child for _, child in running.values()]):
                number, child = running.pop(pidfd)
                yield number, ended, child.folder
                shutil.rmtree(child.folder)

    def _start(self, prepare: Callable[[Path], Sequence[str]]) -> _Child:
        self._turn += 1
        folder = self._folder / f"run-{self._turn}"
        folder.mkdir()
        words = [*prepare(folder)]
        pid = _forked(lambda: _command(words, folder), folder / "stderr")
        return _Child(pid=pid, pidfd=os.pidfd_open(pid), folder=folder, began_s=time.monotonic())

    def _ended(self, children: Sequence[_Child]) -> Iterator[tuple[int, Ended]]:
        over, _, _ = select.select([child.pidfd for child in children], [], [], 1.0)
        for child in children:
            took_s = time.monotonic() - child.began_s
            if child.pidfd not in over and took_s < self._within_s:
                continue
            if child.pidfd not in over:
                os.killpg(child.pid, signal.SIGKILL)
            status = os.waitpid(child.pid, 0)[1]
            os.close(child.pidfd)
            said = (child.folder / "stderr").read_text(errors="replace")
            code = _code(status) if child.pidfd in over else None
            yield child.pidfd, Ended(code=code, said=said, took_s=took_s)


def _command(words: list[str], folder: Path) -> int:
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes_max, memory_bytes_max))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    tempfile.tempdir = str(folder)
    trial.elsewhere = _trial_forked
    return main(words)


def _imported(words: Sequence[str], names: Path) -> int:
    before = {*sys.modules}
    code = main([*words])
    found = [name for name in sys.modules if name not in before and sys.modules[name] is not None]
    names.write_text("\n".join(found))
    return code
