"""Hints on generated loads: the first cause is the one that was put in, a well pipeline has none, and a breach is told in time."""

import math
import os
from collections import deque
from dataclasses import replace

import pytest

from penstock.engine.hints.causes import Cause, Hints, hints
from penstock.engine.hints.forecast import oldest_s
from penstock.engine.hints.sample import Sample, WorkerSample
from tests.unit.hints.load import faults, look_every_s, looks, max_age_s

many = bool(os.environ.get("PENSTOCK_HINTS"))
loads = 20 if many else 4
healthy = 200 if many else 12
kept = 600 // look_every_s


def first_hints(seed: int, fault: str) -> Hints:
    """What is said half a minute after anything is said: a person has read the first word by then."""
    held: deque[Sample] = deque(maxlen=kept)
    said_at_s: float | None = None
    found = Hints()
    for load, sample in looks(seed, fault, seconds=900):
        held.append(sample)
        if load.now_s < load.onset_s:
            continue
        found = hints(held, max_age_s=max_age_s)
        if found.causes and said_at_s is None:
            said_at_s = sample.at_s
        if said_at_s is not None and sample.at_s >= said_at_s + 30:
            return found
    return found


@pytest.mark.parametrize("fault", faults)
def test_the_first_cause_is_the_one_that_was_put_in(fault: str) -> None:
    assert fault in set(Cause)
    named = [[str(each.cause) for each in first_hints(seed, fault).causes] for seed in range(loads)]
    right = sum(causes[:1] == [fault] for causes in named)
    assert all(fault in causes[:3] for causes in named), named
    assert right >= 0.95 * loads, named


@pytest.mark.parametrize(
    "fault", ["hot_partition", "more_traffic", "slow_worker", "slow_model", "slow_explainer", "broker_slow"]
)
def test_an_engine_that_was_looked_at_before_it_knew_anything_is_compared_as_well(fault: str) -> None:
    """The first looks find no worker, then workers that do not know yet where their partitions end."""
    held: list[Sample] = []
    for load, sample in looks(1, fault, seconds=590):
        place = len(held)
        if place < 4:
            nothing = tuple(replace(each, end=math.nan, age_s=math.nan) for each in sample.partitions)
            sample = replace(sample, workers=sample.workers[:place], partitions=nothing)
        held.append(sample)
        if load.now_s > load.onset_s and fault in [
            str(each.cause) for each in hints(held, max_age_s=max_age_s).causes
        ]:
            return
    pytest.fail(f"{fault} was not named in ten minutes")


def test_a_well_pipeline_with_bursts_has_no_hint() -> None:
    wrong = []
    for seed in range(1000, 1000 + healthy):
        held: deque[Sample] = deque(maxlen=kept)
        for _, sample in looks(seed, None, seconds=900):
            held.append(sample)
            if sample.at_s % 15 == 0:
                found = hints(held, max_age_s=max_age_s)
                if found.causes or found.breach:
                    wrong.append((seed, sample.at_s, found))
    assert wrong == []


def test_a_breach_is_told_a_minute_ahead() -> None:
    leads = []
    for seed in range(2000, 2000 + loads * 2):
        held: deque[Sample] = deque(maxlen=kept)
        told_s: float | None = None
        for load, sample in looks(seed, "more_traffic", seconds=1200):
            held.append(sample)
            if (
                told_s is None
                and load.now_s > load.onset_s
                and hints(held, max_age_s=max_age_s).breach is not None
            ):
                told_s = sample.at_s
            if oldest_s(sample) > max_age_s:
                leads.append(sample.at_s - told_s if told_s is not None else 0.0)
                break
    assert len(leads) >= loads
    assert sum(lead >= 60 for lead in leads) >= 0.9 * len(leads), sorted(leads)


@pytest.mark.parametrize(("records", "named"), [(0, False), (3, False), (24, False), (300, True)])
def test_a_third_of_a_few_records_is_not_many(records: int, named: bool) -> None:
    """Records in each minute, of which a third is set aside."""
    samples = [
        Sample(
            at_s=at_s,
            partitions=(),
            workers=(
                WorkerSample(
                    name="0", settled=records * at_s / 60, rejected=records * at_s / 180, busy_s=0.0, infer_s=0.0, explain_s=0.0,
                    deliver_s=0.0, deliveries=0.0, rebalances=0.0,
                ),
            ),
        )
        for at_s in (0.0, 20.0, 40.0, 60.0)
    ]  # fmt: skip
    assert [each.cause is Cause.POISON for each in hints(samples, max_age_s=30).causes] == [True] * named
