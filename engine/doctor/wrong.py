"""A cause that was found: what is wrong, what shows it, what cures it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from penstock.engine.scaling.lag import PartitionLag


class Cause(StrEnum):
    """What can be wrong, in the order of depth: one of the first makes many of the last, so it is named before them."""

    BROKER_AWAY = "broker_away"
    ACCESS = "access"
    PERMISSION = "permission"
    TOPIC_MISSING = "topic_missing"
    MODEL = "model"
    DISK_FULL = "disk_full"
    REGISTRY = "registry"
    OUTPUT_TOPIC = "output_topic"
    RANGE_LOST = "range_lost"
    UNREADABLE = "unreadable"
    PARTITION_STOPPED = "partition_stopped"
    RESULTS_REFUSED = "results_refused"
    RECORDS_REJECTED = "records_rejected"
    OPEN_TRANSACTION = "open_transaction"
    WORKER_HUNG = "worker_hung"
    FOREIGN_MEMBER = "foreign_member"
    NO_WORKER = "no_worker"
    PARTITION_WAITS = "partition_waits"
    HOT_PARTITION = "hot_partition"
    SLOW_EXPLAINER = "slow_explainer"
    AT_CAPACITY = "at_capacity"
    SLOW_MODEL = "slow_model"
    SLOW_WORKER = "slow_worker"
    BROKER_SLOW = "broker_slow"
    REBALANCE_STORM = "rebalance_storm"
    STUCK = "stuck"
    TOO_OLD = "too_old"
    OUTPUT_PARTITIONS = "output_partitions"
    CLOCK = "clock"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wrong:
    """One cause that was found."""

    cause: Cause
    what: str
    evidence: tuple[str, ...]
    cure: str


def partitions_text(lags: Sequence[PartitionLag]) -> str:
    """`partitions 0, 3`."""
    numbers = [str(lag.partition) for lag in lags]
    return (
        f"partition{'s' * (len(numbers) > 1)} {', '.join(numbers[:8])}{', ...' if len(numbers) > 8 else ''}"
    )
