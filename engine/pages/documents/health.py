"""The page `/health`: how far behind each partition is and where that goes, what was set aside, what is waited for."""

from collections.abc import Mapping
from typing import Any, Final

from penstock.engine.pages.documents.flow import changes, state
from penstock.engine.pages.partition_trends import PartitionNow
from penstock.engine.pages.sentences import sentence
from penstock.engine.pages.told_texts import as_told
from penstock.engine.pages.watch import Picture

partitions_told_max: Final = 500
told_of: Final = frozenset(
    {
        "assigned", "revoked", "partitions_lost", "kafka_lost", "kafka_back", "rejected", "partition_waits",
        "partition_goes_on", "partition_stopped", "input_unreadable", "input_lost", "input_stalled", "open_transaction",
        "input_goes_on", "careful_reading", "topic_recreated", "new_partitions", "worker",
    }
)  # fmt: skip
"""Kinds of changes that health is about."""


def health_document(picture: Picture) -> dict[str, Any]:
    """The schema's `health`."""
    told = picture.told
    lag_records, lag_s, known = _lag(told)
    partitions = picture.trends.partitions(partitions_told_max)
    waits = [
        {"slot": slot}
        | {name: each[name] for name in ("partition", "kind", "since_ms", "reason")}
        | {"said": as_told(each["reason"])}
        for slot, one in told.items()
        for each in one["status"]["waits_for"]
    ]
    waiting = {each["partition"]: each["reason"] for each in waits if each["partition"] is not None}
    rejected = _rejected(picture)
    return {
        "page": "health",
        "at_ms": picture.at_ms,
        "state": state(picture),
        "summary": _summary(picture, lag_records, lag_s, known, rejected, len(waits)),
        "kafka": [
            {"slot": slot}
            | {name: kafka[name] for name in ("address", "reachable", "answer_age_s", "fault")}
            | {"said": as_told(kafka["fault"]) if kafka["fault"] else None}
            for slot, one in told.items()
            if (kafka := one["status"]["kafka"]) is not None
        ],
        "partitions": [_partition(each, picture.facts.max_age_s, waiting) for each in partitions],
        "partitions_known": known,
        "lag_records": lag_records,
        "lag_s": lag_s,
        "max_age_s": picture.facts.max_age_s,
        "rejected": rejected,
        "rebalances": round(sum(each["counters"].get("rebalances", 0.0) for each in told.values())),
        "rebalance_s": max((each["status"]["rebalance_s"] for each in told.values()), default=None),
        "dropped": sum((each["status"]["balance"] or {}).get("dropped", 0) for each in told.values()),
        "waits": waits,
        "changes": changes(tuple(each for each in picture.changes if each.kind in told_of)),
    }


def _lag(told: Mapping[str, Mapping[str, Any]]) -> tuple[float | None, float | None, int]:
    """Records and seconds behind, over all partitions, None where that is not known; and how many partitions."""
    sums = [each["lag_totals"] for each in told.values()]
    known = sum(each["partitions"] for each in sums)
    if not known:
        return None, None, 0
    records, ages = [each["records"] for each in sums], [each["age_s"] for each in sums]
    return (
        None if None in records else sum(records),
        None if None in ages else max(ages),
        known,
    )


def _partition(each: PartitionNow, max_age_s: float, waiting: Mapping[int, str]) -> dict[str, Any]:
    breach_s = None
    if each.lag_s is not None and each.age_rises_per_s is not None:
        breach_s = max(max_age_s - each.lag_s, 0.0) / each.age_rises_per_s
    return {
        "partition": each.partition,
        "slot": each.slot,
        "lag_records": each.lag_records,
        "lag_s": each.lag_s,
        "offset": each.offset,
        "records_per_s": each.records_per_s,
        "trend": each.trend,
        "drain_s": each.drain_s,
        "breach_s": breach_s,
        "waits_for": waiting.get(each.partition),
        "waits_said": as_told(waiting[each.partition]) if each.partition in waiting else None,
    }


def _rejected(picture: Picture) -> list[dict[str, Any]]:
    """By reason, those that there were."""
    sums: dict[str, float] = {}
    for each in picture.told.values():
        for name, count in each["counters"].items():
            if name.startswith("rejected.") and count:
                reason = name.removeprefix("rejected.")
                sums[reason] = sums.get(reason, 0.0) + count
    lately = picture.lately.by_label("rejected")
    ordered = sorted(sums.items(), key=lambda each: (-each[1], each[0]))
    examples = picture.ring.examples()
    return [
        {
            "reason": reason,
            "records": round(count),
            "lately": round(lately.get(reason, 0.0)),
            "examples": examples.get(reason, []),
        }
        for reason, count in ordered
    ]


def _summary(
    picture: Picture,
    records: float | None,
    lag_s: float | None,
    known: int,
    rejected: list[dict[str, Any]],
    waits: int,
) -> list[dict[str, Any]]:
    found = []
    silent = [slot for slot, each in picture.workers.items() if each.told is None]
    if not picture.workers:
        found.append(sentence("health.no_worker"))
    elif silent:
        found.append(
            sentence("health.silent", workers=", ".join(silent), reason=picture.workers[silent[0]].fault)
        )
    if known and records is None:
        found.append(sentence("health.lag_unknown", partitions=known))
    elif known and not records:
        found.append(sentence("health.no_lag", partitions=known))
    elif known:
        code = "health.breached" if lag_s is not None and lag_s > picture.facts.max_age_s else "health.lag"
        found.append(
            sentence(code, records=records, lag_s=lag_s, partitions=known, max_age_s=picture.facts.max_age_s)
        )
    elif picture.told:
        found.append(sentence("health.no_partition"))
    lately = sum(each["lately"] for each in rejected)
    total = sum(each["records"] for each in rejected)
    if total:
        found.append(
            sentence("health.rejected", records=total, lately=lately, topic=picture.facts.dead_letters)
        )
    elif picture.told:
        found.append(sentence("health.none_rejected"))
    if waits:
        found.append(sentence("health.waits", waits=waits))
    return found
