"""What the scaler saw, asked for and expected at each turn; and which expectations came true."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

due_min: Final = 10
"""Fewer forecasts that came due say nothing of the others."""
exceeded_above: Final = 1.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One reading and one decision."""

    at_ms: int
    running: int  # replicas
    published: int  # the number that was asked for
    arrival_records_per_s: float
    forecast_records_per_s: float  # for `horizon_s` later
    horizon_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CameTrue:
    """What became of the forecasts that came due."""

    minutes: float
    exceeded: float  # share of the readings at which more than a tenth more arrived
    ratio: float  # what arrived for each record that was forecast, in the middle


def forecasts_due(turns: Sequence[Turn]) -> list[float | None]:
    """For each turn what had been forecast for its moment, None where that was before the first forecast came due; records a second."""
    due = sorted((turn.at_ms + turn.horizon_s * 1000, turn.forecast_records_per_s) for turn in turns)
    found: list[float | None] = []
    place, newest = 0, None
    for turn in turns:
        while place < len(due) and due[place][0] <= turn.at_ms:
            newest = due[place][1]
            place += 1
        found.append(newest)
    return found


def came_true(turns: Sequence[Turn]) -> CameTrue | None:
    """None where too little came due, or nothing was forecast at all."""
    pairs = [(turn, forecast) for turn, forecast in zip(turns, forecasts_due(turns), strict=True) if forecast]
    if len(pairs) < due_min:
        return None
    ratios = [turn.arrival_records_per_s / forecast for turn, forecast in pairs]
    return CameTrue(
        minutes=(pairs[-1][0].at_ms - pairs[0][0].at_ms) / 60_000,
        exceeded=sum(each > exceeded_above for each in ratios) / len(ratios),
        ratio=statistics.median(ratios),
    )
