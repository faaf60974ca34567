"""docs/figures/cluster.md: what `make test-cluster` saw, in all of its processes."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

_titles: Final = {
    "accepted": "Value sets installed, pods admitted under Pod Security restricted",
    "refused": "Value sets refused with the path or a sentence, nothing made",
    "upgrade": "Install, upgrade, rollback",
    "client": "KEDA's own client",
    "push": "KEDA's own client, from the first record to its push",
    "ended": "KEDA's own client, when the scaler ends",
    "secured": "KEDA's own client with TLS on both sides",
    "loop": "Operator, adapter and autoscaler",
    "outage": "The broker away and back",
    "workers": "Real workers under the operator",
}
_counted: Final = {
    "accepted": "{sets} of {sets}, {pods} pods",
    "refused": "{sets} of {sets}: {by_schema} by the schema, {by_chart} by the chart",
}
"""A set that is not as it should be fails its test."""


class Report:
    """What one process saw: lines by subject, and what its control plane took."""

    def __init__(self, versions: dict[str, str]) -> None:
        self._versions = versions
        self._notes: dict[str, list[str]] = {}
        self._counts: dict[str, dict[str, int]] = {}
        self._plane: dict[str, Any] | None = None

    def note(self, subject: str, line: str) -> None:
        """Add what was seen of a subject."""
        assert subject in _titles, subject
        self._notes.setdefault(subject, []).append(line)

    def count(self, subject: str, **amounts: int) -> None:
        """Add to what all processes of the run count together; `_counted` says it."""
        counts = self._counts.setdefault(subject, {})
        for name, amount in amounts.items():
            counts[name] = counts.get(name, 0) + amount

    def note_plane(self, *, start_s: float, memory_mb: dict[str, int]) -> None:
        """What the control plane took: from nothing to the controllers' first work, and by program at the end."""
        self._plane = {"start_s": start_s, "memory_mb": memory_mb}

    def save(self, folder: Path, name: str) -> None:
        """For the page, which may be of several processes."""
        folder.mkdir(parents=True, exist_ok=True)
        seen = {
            "versions": self._versions,
            "notes": self._notes,
            "counts": self._counts,
            "plane": self._plane,
        }
        (folder / f"{name}.json").write_text(json.dumps(seen))


def page(folder: Path) -> str:
    """The page of what was saved there, subjects in the order above. What was not run has no line."""
    seen = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    parts = ", ".join(f"{part} {version}" for part, version in seen[0]["versions"].items())
    for subject, said in _counted.items():
        counts: Counter[str] = Counter()
        for each in seen:
            counts.update(each["counts"].get(subject, {}))
        if counts:
            seen[0]["notes"].setdefault(subject, []).append(said.format_map(counts))
    rows = [
        *_of_planes([each["plane"] for each in seen if each["plane"] is not None]),
        *(
            f"| {title} | {'; '.join(lines)} |"
            for key, title in _titles.items()
            if (lines := [line for each in seen for line in each["notes"].get(key, ())])
        ),
    ]
    return "\n".join([
        "# In a cluster", "",
        f"Written by `make test-cluster`: {parts}, built from their published Go modules, on this machine without containers. "
        "The API server, the controllers, Helm, and KEDA's operator, adapter and client are the real ones. A stand-in binds the pods and runs what they would run "
        "(`tests/cluster/node.py`): there is no kubelet, no scheduler and no pod network, so that network policies are stored and not enforced.",
        "", "| | seen |", "|---|---|", *rows, "",
    ])  # fmt: skip


def _of_planes(planes: list[dict[str, Any]]) -> Iterable[str]:
    if not planes:
        return
    slowest_s = max(each["start_s"] for each in planes)
    at_once = f", the slowest of {len(planes)} at once" if len(planes) > 1 else ""
    yield f"| Control plane started in | {slowest_s:.1f} s from nothing to the controllers' first work{at_once} |"
    most: dict[str, int] = {}
    for each in planes:
        for name, held_mb in each["memory_mb"].items():
            most[name] = max(most.get(name, 0), held_mb)
    held = ", ".join(f"{name} {held_mb} MB" for name, held_mb in most.items())
    yield f"| It holds, at the end | {held}{', the most of any' if at_once else ''} |"
