"""Records get too old though workers work: a hot partition, the explanations, too few workers, or one that is stuck."""

from collections.abc import Iterator
from typing import Final

from penstock.engine.doctor.evidence import Evidence
from penstock.engine.doctor.wrong import Cause, Wrong, partitions_text
from penstock.engine.scaling.lag import Movement

busy_min: Final = 0.85
explain_share_min: Final = 0.6
hot_share_min: Final = 0.8
hot_records_min: Final = 100


def behind(evidence: Evidence) -> Iterator[Wrong]:
    """Workers work, and it is not enough."""
    oldest_s = max((lag.lag_seconds or 0.0 for lag in evidence.lags), default=0.0)
    lag = sum(each.lag_records for each in evidence.lags)
    lag_before = sum(each.lag_records for each in evidence.before)
    owned = [each for each in evidence.lags if each.owner is not None]
    allowed_s = evidence.settings.scaling.max_age_s
    if not owned or oldest_s <= allowed_s:
        return
    told = (
        f"{lag:,} offsets wait ({lag - lag_before:+,} in {evidence.over_s:.0f} s), the oldest for {oldest_s:,.0f} s; "
        f"scaling.max_age_s is {allowed_s:g} s"
    )
    busiest = max(evidence.workers, key=lambda worker: worker.busy_ratio, default=None)
    deepest = max(owned, key=lambda each: each.lag_records)
    if (
        len(evidence.lags) > 1
        and deepest.lag_records >= hot_share_min * lag
        and deepest.lag_records >= hot_records_min
    ):
        yield Wrong(
            cause=Cause.HOT_PARTITION,
            what=f"partition {deepest.partition} gets more than one worker can do, and the others wait for work",
            evidence=(told, f"partition {deepest.partition} has {deepest.lag_records / lag:.0%} of it"),
            cure="more workers do not help: spread its keys, or make a record cheaper (explain.policy, a smaller model)",
        )
    busy = busiest is not None and busiest.busy_ratio >= busy_min
    if busiest is not None and busy:
        said = f"worker {busiest.name} computes for {busiest.busy_ratio:.0%} of its time"
        share = busiest.explain_share
        if share is not None and share >= explain_share_min:
            yield Wrong(
                cause=Cause.SLOW_EXPLAINER,
                what="the explanations take most of the time",
                evidence=(told, said, f"{share:.0%} of what its stages take is explaining"),
                cure="explain fewer records (explain.policy: sample:0.1), bound it (explain.budget_ms), or choose a "
                "cheaper explain.method",
            )
        yield Wrong(
            cause=Cause.AT_CAPACITY,
            what="the workers are at their capacity",
            evidence=(told, said),
            cure="more workers, up to the number of partitions: scaling.max_replicas, workers",
        )
        return
    stuck = [each for each in owned if each.movement is Movement.STUCK]
    if stuck:
        yield Wrong(
            cause=Cause.STUCK,
            what=f"nothing was finished: {partitions_text(stuck)}",
            evidence=(
                told,
                *(
                    f"partition {each.partition}: at offset {each.committed}, owned by {each.owner}"
                    for each in stuck[:5]
                ),
            ),
            cure="the owner's log and /status say what it does; a restart of the owner moves the partition",
        )
