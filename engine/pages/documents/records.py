"""The page `/records`: the newest sampled records; and one of them, or what is known of one that is not held."""

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


def absent_record(ring: RecordRing, facts: Facts, topic: str, partition: int, offset: int) -> dict[str, Any]:
    """What is said of a record that is not held: where it can still be read."""
    held, _ = ring.counts()
    where = ", ".join(name for name in (facts.predictions, facts.explanations, facts.dead_letters) if name)
    return {
        "error": sentence(
            "record.not_held", topic=topic, partition=partition, offset=offset, held=held, outputs=where, group=facts.group
        )
    }  # fmt: skip
