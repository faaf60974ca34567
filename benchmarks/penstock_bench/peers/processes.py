"""What a process and its children have used, from /proc."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

_ticks_per_s: Final = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """The process and its descendants: a supervisor has workers. Empty when it has gone."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [child for task in tasks for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [pid, *(each for child in children for each in family(int(child)))]


def cpu_s(pids: Iterable[int]) -> float:
    """Seconds of user and system time so far, of those that live."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _ticks_per_s


def compiler_cpu_s(pid: int) -> float:
    """Seconds that the compiler threads of a JVM have worked so far."""
    nanoseconds = 0
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            if (task / "comm").read_text().startswith(("C1 Compil", "C2 Compil")):
                nanoseconds += int((task / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9


def resident_mb(pids: Iterable[int]) -> float:
    """Memory now, in MB (10^6 bytes)."""
    return _status_mb(pids, "VmRSS:")


def peak_mb(pids: Iterable[int]) -> float:
    """The most memory each has had, added up, in MB."""
    return _status_mb(pids, "VmHWM:")


def _status_mb(pids: Iterable[int], field: str) -> float:
    kibibytes = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        kibibytes += sum(int(line.split()[1]) for line in lines if line.startswith(field))
    return kibibytes * 1024 / 1e6
