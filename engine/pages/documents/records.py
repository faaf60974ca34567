"""The page `/records`: the newest sampled records; and one of them, or what is known of one that is not held."""

import math
from collections.abc import Mapping
from typing import Any, Final

from penstock.engine.pages.record_ring import RecordRing
from penstock.engine.pages.sentences import sentence
from penstock.engine.pages.watch import Facts, Picture

outcomes: Final = ("predicted", "rejected")


def records_document(picture: Picture) -> dict[str, Any]:
    """The schema's `records`."""
    held, seen = picture.ring.counts()
    if not held:
        summary = [sentence("records.none" if picture.told else "records.no_worker")]
    else:
        summary = [sentence("records.held", held=held, seen=seen)]
        if picture.facts.explanations is None:
            summary.append(sentence("records.no_explainer"))
    return {
        "page": "records",
        "at_ms": picture.at_ms,
        "summary": summary,
        "held": held,
        "seen": seen,
        "records": picture.ring.newest(),
    }


def first_rows(document: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """A record's document with so many features, input fields and attributions at most, the strongest of these; `left_out` says
    how many others there are of each, and what the other attributions come to."""
    explanation = document["explanation"]
    found = dict(document)
    left_out: dict[str, Any] = {"attributions": 0, "attribution": 0.0}
    for name in ("features", "input"):
        found[name] = document[name][:rows]
        left_out[name] = len(document[name]) - len(found[name])
    if explanation is not None and len(explanation["attributions"]) > rows:
        every = explanation["attributions"]
        order = sorted(range(len(every)), key=lambda at: (-abs(_amount(every[at])), at))
        kept = sorted(order[:rows])
        found["explanation"] = {**explanation, "attributions": [every[at] for at in kept]}
        left_out["attributions"] = len(order) - rows
        left_out["attribution"] = math.fsum(_amount(every[at]) for at in order[rows:])
    return found | {"left_out": left_out}


def _amount(reason: Mapping[str, Any]) -> float:
    return float(reason["attribution"] or 0.0)


def absent_record(ring: RecordRing, facts: Facts, topic: str, partition: int, offset: int) -> dict[str, Any]:
    """What is said of a record that is not held: where it can still be read."""
    held, _ = ring.counts()
    where = ", ".join(name for name in (facts.predictions, facts.explanations, facts.dead_letters) if name)
    return {
        "error": sentence(
            "record.not_held", topic=topic, partition=partition, offset=offset, held=held, outputs=where, group=facts.group
        )
    }  # fmt: skip
