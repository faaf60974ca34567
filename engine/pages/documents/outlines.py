"""A record's line in the list."""

from collections.abc import Mapping
from typing import Any


def outline(document: Mapping[str, Any]) -> dict[str, Any]:
    """Of a document of the schema's form `record`, its form `outline`."""
    explanation = document["explanation"]
    reasons = [] if explanation is None else explanation["attributions"]
    strongest = sorted(reasons, key=lambda reason: -abs(reason["attribution"] or 0.0))[:3]
    rejection = document["rejection"]
    return {
        name: document[name] for name in ("topic", "partition", "offset", "at_ms", "slot", "outcome", "label")
    } | {
        "score": _score(document),
        "reasons": strongest,
        "reason": None if rejection is None else rejection["reason"],
    }


def _score(document: Mapping[str, Any]) -> float | None:
    for output in document["outputs"]:
        if document["label"] in output["names"]:
            value: float | None = output["values"][output["names"].index(document["label"])]
            return value
    return (
        document["outputs"][0]["values"][0]
        if document["outputs"] and document["outputs"][0]["values"]
        else None
    )
