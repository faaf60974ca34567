"""Starts a worker's process. Loads next to nothing, so that the first worker can load its libraries while the supervisor loads its own."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

# Memory of a batch is kept for the next one. By itself the C library gives blocks of this size back to the system at once,
# and the system clears every page of them again for every batch: a tenth of a worker's time.
_memory = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}

careful_pauses_s = (0.5, 2.0, 8.0)
"""So long the client of a careful worker waits between two batches: after the first such death, the second, and all others."""
exit_fenced = 3
exit_not_ready = 4
exit_retry = 75  # a worker's way to say: start me again (EX_TEMPFAIL)


def not_warm(who: str, waited_s: float) -> str:
    """What is said of a model that does not get warm within `model.warmup_s_max`."""
    return (
        f"{who} was not ready in {waited_s:.0f} s (model.warmup_s_max): a model or an explainer that does not come to an "
        "end, or one that needs more time"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """How to start the worker of a slot: by spawn, never fork, since client threads do not survive a fork."""

    argv: Sequence[str] = field(
        default_factory=lambda: (sys.executable, "-P", "-m", "penstock.engine.worker.main")
    )
    arguments: Sequence[str] = ()

    def start(self, slot: int, run_folder: Path, *, careful: int = 0) -> subprocess.Popen[bytes]:
        """The slot's process. It loads its libraries, and waits for `let_begin` before it does anything.

        `careful`: how many workers of the slot died one after the other without a record to blame; see `careful_pauses_s`.
        """
        more = ("--careful", str(careful)) if careful else ()
        # The worker holds the other end of its standard input: it drains when we are gone, however we went. In a group
        # of its own a terminal's Ctrl-C does not reach it beside the stop that we pass on: two would cut its drain short.
        return subprocess.Popen(
            [*self.argv, *self.arguments, "--slot", str(slot), "--run-folder", str(run_folder), *more],
            stdin=subprocess.PIPE,
            env=_memory | os.environ,
            process_group=0,
        )


_drain_s_max = 5.0


@contextmanager
def started_ahead(command: Command, run_folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The first worker's process, for a supervisor that is not ready yet; it is gone in the end, whatever became of it."""
    process = command.start(0, run_folder)
    try:
        yield process
    finally:
        close_stdin(process)
        if process.poll() is None:
            process.kill()  # it was never let begin, or has had its time to drain
        process.wait()


def let_begin(process: subprocess.Popen[bytes]) -> None:
    """The settings are good: read them and work."""
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it has ended already, which the supervisor is about to see
        process.stdin.write(b"\n")
        process.stdin.flush()


def give_time_to_drain(process: subprocess.Popen[bytes]) -> None:
    """To one that was let begin, when its supervisor ends before it watches it; at once where it has ended."""
    close_stdin(process)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_drain_s_max)


def close_stdin(process: subprocess.Popen[bytes]) -> None:
    """Let go of our end."""
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()
