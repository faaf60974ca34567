"""Which topics a pipeline needs, from its settings: for whoever makes them, here or with Terraform."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from penstock.engine.settings.model import Settings

letters_kept_ms: Final = 30 * 24 * 3600 * 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class NeededTopic:
    """A topic, what it is for, and how it must be made."""

    name: str
    purpose: str
    partitions: int | None = None  # None: as many as the input
    properties: Mapping[str, str] = field(default_factory=dict)


def needed_topics(settings: "Settings") -> tuple[NeededTopic, ...]:
    """The input first, then what is written to; each once."""
    output = settings.output
    found = [
        NeededTopic(name=settings.input.topic, purpose="the records"),
        NeededTopic(name=output.predictions, purpose="the predictions"),
    ]
    if output.explanations:
        found.append(NeededTopic(name=output.explanations, purpose="the explanations"))
    found.append(
        NeededTopic(
            name=output.dead_letters,
            purpose="the dead letters",
            properties={"cleanup.policy": "delete", "retention.ms": str(letters_kept_ms)},
        )
    )
    if output.status:
        found.append(
            NeededTopic(
                name=output.status,
                purpose="the workers' reports to the scaler",
                partitions=1,
                properties={"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1"},
            )
        )
    if settings.admin is not None:
        found.append(
            NeededTopic(
                name=settings.admin.audit_topic,
                purpose="the audit of what acts over HTTP",
                partitions=1,
                properties={"cleanup.policy": "delete"},
            )
        )
    first: dict[str, NeededTopic] = {}
    for each in found:
        first.setdefault(each.name, each)
    return tuple(first.values())
