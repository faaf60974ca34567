"""docs/figures/cluster.md: what `make test-cluster` saw."""

from typing import Final

_titles: Final = {
    "start": "Control plane started in",
    "memory": "It holds, at the end",
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


class Report:
    """Lines by subject, in the order above."""

    def __init__(self, versions: dict[str, str]) -> None:
        self._versions = versions
        self._notes: dict[str, list[str]] = {}

    def note(self, subject: str, line: str) -> None:
        """Add what was seen of a subject."""
        assert subject in _titles, subject
        self._notes.setdefault(subject, []).append(line)

    def text(self) -> str:
        """The page. What was not run has no line."""
        parts = ", ".join(f"{part} {version}" for part, version in self._versions.items())
        rows = [
            f"| {title} | {'; '.join(self._notes[key])} |"
            for key, title in _titles.items()
            if key in self._notes
        ]
        return "\n".join([
            "# In a cluster", "",
            f"Written by `make test-cluster`: {parts}, built from their published Go modules, on this machine without containers. "
            "The API server, the controllers, Helm, and KEDA's operator, adapter and client are the real ones. A stand-in binds the pods and runs what they would run "
            "(`tests/cluster/node.py`): there is no kubelet, no scheduler and no pod network, so that network policies are stored and not enforced.",
            "", "| | seen |", "|---|---|", *rows, "",
        ])  # fmt: skip
