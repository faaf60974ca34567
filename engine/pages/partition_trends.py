"""How each partition's lag goes: its reading now against the oldest known one of the last minute."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

every_s: Final = 10.0
readings_kept: Final = 6
steady_share: Final = 0.05

Trend = Literal["falls", "steady", "rises", "unknown"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionNow:
    """One partition; None is not known."""

    partition: int
    slot: str
    lag_records: float | None
    lag_s: float | None
    offset: int | None
    records_per_s: float | None = None
    trend: Trend = "unknown"
    drain_s: float | None = None
    age_rises_per_s: float | None = None


Reading = tuple[str, float | None, float | None, int | None]
"""Slot, records and seconds behind, next offset."""


class PartitionTrends:
    """Holds seven readings of every partition told of, ten seconds apart. One thread writes, others read what was written."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._now: Mapping[int, Reading] = {}
        self._past: tuple[tuple[float, Mapping[int, Reading]], ...] = ()

    def read(self, now_s: float, lags: Mapping[str, Sequence[Sequence[Any]]]) -> None:
        """Partition, records and seconds behind and next offset (and more, which is not looked at), by worker."""
        self._now_s = now_s
        self._now = {
            each[0]: (slot, each[1], each[2], each[3]) for slot, told in lags.items() for each in told
        }
        if not self._past or now_s - self._past[-1][0] >= every_s:
            self._past = (*self._past[-readings_kept + 1 :], (now_s, self._now))

    def partitions(self, most: int) -> list[PartitionNow]:
        """Those furthest behind first; with an unknown lag last."""
        now_s, now, past = self._now_s, self._now, self._past
        found = []
        for partition, reading in now.items():
            known = (
                (at_s, before)
                for at_s, some in past
                if (before := some.get(partition)) and before[1] is not None
            )
            at_s, before = next(known, (now_s, None))
            found.append(_now(partition, reading, before, now_s - at_s))
        found.sort(key=lambda each: (-(each.lag_s or 0.0), -(each.lag_records or 0.0), each.partition))
        return found[:most]


def _now(partition: int, reading: Reading, before: Reading | None, span_s: float) -> PartitionNow:
    slot, records, age_s, offset = reading
    plain = PartitionNow(partition=partition, slot=slot, lag_records=records, lag_s=age_s, offset=offset)
    if before is None or span_s < 2.0 or records is None or before[1] is None:
        return plain
    passed = None if offset is None or before[3] is None else max(offset - before[3], 0) / span_s
    change = (records - before[1]) / span_s
    trend: Trend = "steady"
    if abs(records - before[1]) > max(steady_share * max(records, before[1]), 1.0):
        trend = "falls" if change < 0 else "rises"
    aging = None
    if age_s is not None and before[2] is not None and age_s > before[2] > 0:
        aging = (age_s - before[2]) / span_s
    return PartitionNow(
        partition=partition,
        slot=slot,
        lag_records=records,
        lag_s=age_s,
        offset=offset,
        records_per_s=passed,
        trend=trend,
        drain_s=records / -change if trend == "falls" else None,
        age_rises_per_s=aging,
    )
