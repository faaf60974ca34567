"""A pod's CPU limit: who has used up the period's share stands still until there is more.

The kernel's own control of bandwidth, which a container has, needs a control group that may be written to. Where there is none, as for most
users, stopping and going on does the same from outside: processes get their share of each tenth of a second and no more. They
know nothing of it then, where a worker in a group reads its limit.
"""

import os
import signal
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

period_s: Final = 0.1
_look_s: Final = 0.01
_family_s: Final = 1.0


def family(pid: int) -> tuple[int, ...]:
    """A process and all below it, as far as they are there."""
    found = [pid]
    with suppress(OSError):
        for listed in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in listed.read_text().split():
                found += family(int(child))
    return tuple(found)


def used_s(pids: Iterable[int]) -> dict[int, float]:
    """CPU seconds of each process with all its threads; those that ended are left out."""
    found = {}
    for pid in pids:
        with suppress(
            OSError
        ):  # (~pid << 3) | 2: the clock of another process, as clock_getcpuclockid makes it
            found[pid] = time.clock_gettime((~pid << 3) | 2)
    return found


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """To all that are still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@dataclass(kw_only=True)
class _Held:
    pid: int
    cores: float
    credit_s: float = 0.0
    pids: tuple[int, ...] = ()
    looked_s: float = -1e9
    used: dict[int, float] = field(default_factory=dict)
    stopped: bool = False


class CpuLimits:
    """Process trees, each held to so many cores. Everybody goes on when it is closed."""

    kind = "from outside, stopped when its share of a tenth of a second is used up"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[int, _Held] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cpu-limits", daemon=True)
        self._thread.start()

    def hold(self, pid: int, cores: float) -> None:
        """From now on this process and all below it have so many cores together."""
        with self._lock:
            self._held.setdefault(pid, _Held(pid=pid, cores=cores, credit_s=cores * period_s))

    def release(self, pid: int) -> None:
        """No limit any more; nothing happens where there was none."""
        with self._lock:
            held = self._held.pop(pid, None)
            if held is not None and held.stopped:
                send(held.pids, signal.SIGCONT)

    def close(self) -> None:
        """Everybody goes on."""
        self._closed.set()
        self._thread.join()
        for pid in list(self._held):
            self.release(pid)

    def _run(self) -> None:
        last_s = time.monotonic()
        while not self._closed.wait(_look_s):
            now_s = time.monotonic()
            with self._lock:
                for held in self._held.values():
                    self._settle(held, now_s, now_s - last_s)
            last_s = now_s

    def _settle(self, held: _Held, now_s: float, passed_s: float) -> None:
        if now_s - held.looked_s >= _family_s:
            held.looked_s, held.pids = now_s, family(held.pid)
        used = used_s(held.pids)
        spent_s = sum(each - held.used.get(pid, each) for pid, each in used.items())
        held.used = used
        held.credit_s = min(held.credit_s + held.cores * passed_s, held.cores * period_s) - spent_s
        if held.credit_s < 0 and not held.stopped:
            send(held.pids, signal.SIGSTOP)
            held.stopped = True
        elif held.credit_s >= 0 and held.stopped:
            send(held.pids, signal.SIGCONT)
            held.stopped = False


class Limits(Protocol):
    """CpuLimits by shape."""

    kind: str
    """In words: who keeps them."""

    def hold(self, pid: int, cores: float) -> None:
        """As CpuLimits; likewise below."""

    def release(self, pid: int) -> None: ...

    def close(self) -> None: ...


class KernelLimits:
    """The same by control groups, one for each process tree, as a kubelet makes them."""

    kind = "by the kernel, as a container is"

    def __init__(self, parent: Path) -> None:
        """`parent`: where groups can be made, as `writable_groups` finds it."""
        self._parent = parent
        self._groups: dict[int, Path] = {}

    def hold(self, pid: int, cores: float) -> None:
        """Raises OSError where the kernel refuses."""
        if pid in self._groups:
            return
        group = self._parent / f"penstock-replay-{pid}"
        group.mkdir()
        self._groups[pid] = group
        quota, period = round(cores * period_s * 1e6), round(period_s * 1e6)
        if (group / "cpu.max").exists():
            (group / "cpu.max").write_text(f"{quota} {period}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(period))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        for each in family(pid):
            with suppress(ProcessLookupError):
                (group / "cgroup.procs").write_text(str(each))

    def release(self, pid: int) -> None:
        """No limit any more; the group goes when nobody is in it."""
        group = self._groups.pop(pid, None)
        if group is None:
            return
        for each in (group / "cgroup.procs").read_text().split():
            with suppress(OSError):
                (self._parent / "cgroup.procs").write_text(each)
        with suppress(OSError):
            group.rmdir()

    def close(self) -> None:
        """Everybody goes on."""
        for pid in list(self._groups):
            self.release(pid)


def writable_groups(groups: Path = Path("/sys/fs/cgroup")) -> Path | None:
    """Where control groups with a CPU limit can be made by this process, cgroup v2 or v1; None where it may not."""
    for parent in (groups, groups / "cpu"):
        trial = parent / f"penstock-replay-trial-{os.getpid()}"
        try:
            trial.mkdir()
        except OSError:
            continue
        found = any((trial / name).exists() for name in ("cpu.max", "cpu.cfs_quota_us"))
        with suppress(OSError):
            trial.rmdir()
        if found:
            return parent
    return None


def limits_here() -> Limits:
    """The kernel's where it lets us, else by stopping and going on."""
    parent = writable_groups()
    return CpuLimits() if parent is None else KernelLimits(parent)
