"""How much memory this process may still take."""

from pathlib import Path
from typing import Final

_machine: Final = Path("/proc/meminfo")
_process: Final = Path("/proc/self/status")
_group: Final = Path("/sys/fs/cgroup")


def free_bytes(machine: Path = _machine, group: Path = _group) -> int | None:
    """What is free, of the machine's and of the container's (cgroup v2), whichever is less; None where neither is told.

    What only caches files counts as free: the system takes it back.
    """
    found = [int(line.split()[1]) << 10 for line in _lines(machine) if line.startswith("MemAvailable:")]
    limit, used = _number(group / "memory.max"), _number(group / "memory.current")
    if limit is not None and used is not None:
        cached = sum(
            int(line.split()[1])
            for line in _lines(group / "memory.stat")
            if line.startswith("inactive_file ")
        )
        found.append(max(limit - used + cached, 0))
    return min(found, default=None)


def data_bytes(process: Path = _process) -> int | None:
    """What of its own this process can write to now, as RLIMIT_DATA counts it; None where that is not told."""
    return next((int(line.split()[1]) << 10 for line in _lines(process) if line.startswith("VmData:")), None)


def _number(path: Path) -> int | None:
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdecimal() else None  # "max": no limit


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError):
        return []
