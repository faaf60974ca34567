"""What workers told the watch, as the samples that hints are made from."""

import math
from collections.abc import Mapping
from typing import Any, Final

from penstock.engine.hints.sample import PartitionSample, Sample, WorkerSample
from penstock.schemas.waits import WaitKind

partitions_max: Final = 500
"""Of a sample, those furthest behind: what is kept of ten minutes stays within some megabytes."""
_nothing: Final[frozenset[WaitKind]] = frozenset()


def sample_of(now_s: float, told: Mapping[str, Mapping[str, Any]]) -> Sample:
    """`told`: what each worker that answered said on `/pages`."""
    partitions = [each for slot, one in told.items() for each in _partitions(slot, one)]
    if len(partitions) > partitions_max:
        partitions.sort(key=lambda each: -each.age_s if each.age_s == each.age_s else -math.inf)
    return Sample(
        at_s=now_s,
        workers=tuple(_worker(slot, one["counters"]) for slot, one in told.items()),
        partitions=tuple(partitions[:partitions_max]),
    )


def _worker(slot: str, counters: Mapping[str, float]) -> WorkerSample:
    def of(name: str) -> float:
        return counters.get(name, 0.0)

    return WorkerSample(
        name=slot,
        settled=of("records.predicted") + of("records.rejected") + of("records.skipped"),
        rejected=of("records.rejected"),
        busy_s=of("busy_s"),
        infer_s=of("stage.infer.sum"),
        explain_s=of("stage.explain.sum"),
        deliver_s=of("stage.deliver.sum"),
        deliveries=of("stage.deliver.count"),
        rebalances=of("rebalances"),
        ahead=of("ahead"),
        ahead_s=of("ahead_s"),
    )


def _partitions(slot: str, one: Mapping[str, Any]) -> list[PartitionSample]:
    waits: dict[int | None, frozenset[WaitKind]] = {}
    for each in one["status"]["waits_for"]:
        partition = each["partition"]
        waits[partition] = waits.get(partition, _nothing) | {WaitKind(each["kind"])}
    return [
        PartitionSample(
            partition=partition,
            owner=slot,
            end=math.nan if offset is None or records is None else offset + records,
            age_s=math.nan if age_s is None else -ahead_s or age_s,
            waits=waits.get(partition, _nothing),  # one set for all, since tens of thousands are kept
        )
        for partition, records, age_s, offset, ahead_s in one["lags"]
    ]
