"""How many cores this process may use: what Kubernetes calls `resources.limits.cpu`, as the kernel keeps it for a container."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

_groups: Final = Path("/sys/fs/cgroup")
_own: Final = Path("/proc/self/cgroup")


def cpu_limit_cores(groups: Path = _groups, own: Path = _own) -> float | None:
    """Of the process's control group and those around it, the least (cgroup v2, and v1 as older nodes have it); None without one.

    A container sees its own group as the root of all; a process outside of one is told where its group is.
    """
    return min((limit for limit in _limits(groups, own) if limit is not None), default=None)


def _limits(groups: Path, own: Path) -> Iterator[float | None]:
    for line in _text(own).splitlines():
        _, controllers, path = ([*line.split(":", 2), "", ""])[:3]
        inside = [part for part in path.split("/") if part not in ("", "..")]
        if controllers == "":
            root = groups
        elif "cpu" in controllers.split(","):
            root = groups / controllers if (groups / controllers).is_dir() else groups / "cpu"
        else:
            continue
        for depth in range(len(inside) + 1):
            group = root.joinpath(*inside[:depth])
            yield _cores(_text(group / "cpu.max").split())
            yield _cores([_text(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")])


def _cores(told: list[str]) -> float | None:
    """Of microseconds in each period; `max` and -1 are no limit."""
    if len(told) != 2 or not all(word.isdecimal() for word in told) or not int(told[1]):
        return None
    return int(told[0]) / int(told[1]) or None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
