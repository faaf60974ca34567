"""Why records wait: causes ranked, each with the numbers that show it. What was looked at and is as before is ruled out.

The words are the pages': a cause is `hint.CAUSE` there, what shows it `hint.CAUSE.evidence`, of the values that stand here.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from penstock.engine.hints.forecast import Breach, forecast, oldest_s
from penstock.engine.hints.rates import Rates, middle, rates
from penstock.engine.hints.sample import Sample
from penstock.schemas.waits import WaitKind

recent_s: Final = 60.0
baseline_s: Final = 120.0
"""The first so many seconds of what is known are what the last minute is compared with."""
compared_after_s: Final = baseline_s + recent_s
rejected_min: Final = 10
"""Fewer records in a minute are not many, whatever share of a quiet topic they are."""
ahead_min: Final = 3
"""Records in a minute that are stamped far ahead: fewer may be a slip."""


class Cause(StrEnum):
    """What can make records wait, or worse."""

    OPEN_TRANSACTION = "open_transaction"
    REGISTRY = "registry"
    CLOCK_AHEAD = "clock_ahead"
    POISON = "poison"
    REBALANCE_STORM = "rebalance_storm"
    BROKER_SLOW = "broker_slow"
    SLOW_MODEL = "slow_model"
    SLOW_EXPLAINER = "slow_explainer"
    SLOW_WORKER = "slow_worker"
    HOT_PARTITION = "hot_partition"
    MORE_TRAFFIC = "more_traffic"


_commands: Final = {
    Cause.OPEN_TRANSACTION: "penstock lag penstock.yaml",
    Cause.REGISTRY: "penstock doctor penstock.yaml",
    Cause.CLOCK_AHEAD: "penstock doctor penstock.yaml",
    Cause.POISON: "penstock dlq list penstock.yaml",
    Cause.REBALANCE_STORM: "penstock lag penstock.yaml",
    Cause.BROKER_SLOW: "penstock doctor penstock.yaml",
    Cause.SLOW_MODEL: "penstock check penstock.yaml",
    Cause.SLOW_EXPLAINER: "penstock check penstock.yaml",
    Cause.SLOW_WORKER: "penstock top penstock.yaml",
    Cause.HOT_PARTITION: "penstock lag penstock.yaml",
    Cause.MORE_TRAFFIC: "penstock lag penstock.yaml",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Hint:
    """A cause, how sure it is (0 to 1), and the values of its two sentences."""

    cause: Cause
    score: float
    values: Mapping[str, str | float]

    @property
    def command(self) -> str:
        """What to type next."""
        return _commands[self.cause]


@dataclass(frozen=True, kw_only=True, slots=True)
class RuledOut:
    """What was looked at and is as before; `ratio`: of now to before, None where nothing of the kind happened at all."""

    cause: Cause
    ratio: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Hints:
    """What was found: the likeliest first. Nothing of it: all is well, as far as it can be told."""

    breach: Breach | None = None
    causes: tuple[Hint, ...] = ()
    ruled_out: tuple[RuledOut, ...] = ()
    seen_s: float = 0.0  # how long the engine was looked at
    age_s: float = math.nan  # of the oldest unfinished record; NaN is not known


def hints(samples: Sequence[Sample], *, max_age_s: float) -> Hints:
    """From samples in order of time, of the last ten minutes at most. With less than three minutes of them only what needs no comparison."""
    if len(samples) < 4:
        return Hints(seen_s=samples[-1].at_s - samples[0].at_s if samples else 0.0)
    breach = forecast(samples, max_age_s=max_age_s)
    found = [*_held(samples), *_wrong_records(samples)]
    ages = sorted(oldest_s(sample) for sample in _last(samples, recent_s) if not math.isnan(oldest_s(sample)))
    if ages and ages[-1] > max_age_s / 4:  # between two pauses all may be well again
        found += _storm(samples)
    ruled_out: list[RuledOut] = []
    late = bool(ages) and ages[len(ages) * 3 // 4] > max_age_s / 2
    then, now = _compared(samples)
    if (breach is not None or late) and then is not None and now is not None:
        found += _pressing(then, now, samples[-1])
        ruled_out = _as_before(then, now, {hint.cause for hint in found})
    return Hints(
        breach=breach,
        causes=tuple(sorted(found, key=lambda hint: -hint.score)),
        ruled_out=tuple(ruled_out),
        seen_s=samples[-1].at_s - samples[0].at_s,
        age_s=oldest_s(samples[-1]),
    )


def _last(samples: Sequence[Sample], span_s: float) -> list[Sample]:
    return [sample for sample in samples if sample.at_s >= samples[-1].at_s - span_s]


def _compared(samples: Sequence[Sample]) -> tuple[Rates | None, Rates | None]:
    """The beginning of what is known, and the last minute."""
    first = [sample for sample in samples if sample.at_s <= samples[0].at_s + baseline_s]
    last = _last(samples, recent_s)
    if first[-1].at_s >= last[0].at_s:
        return None, None
    return rates(first), rates(last)


def _held(samples: Sequence[Sample]) -> Iterator[Hint]:
    """Partitions that stand still for a reason that they name."""
    last = _last(samples, recent_s / 2)
    for cause, kind in (
        (Cause.OPEN_TRANSACTION, WaitKind.OPEN_TRANSACTION),
        (Cause.REGISTRY, WaitKind.REGISTRY),
    ):
        waiting = [{each.partition for each in sample.partitions if kind in each.waits} for sample in last]
        always = sorted(set.intersection(*waiting))
        if always and len(last) >= 4:
            named = ", ".join(map(str, always[:5])) + (", ..." if len(always) > 5 else "")
            seconds = round(last[-1].at_s - last[0].at_s)
            yield Hint(cause=cause, score=0.98, values={"partitions": named, "seconds": seconds})


def _wrong_records(samples: Sequence[Sample]) -> Iterator[Hint]:
    """What is wrong with the records, whether or not any waits."""
    last = _last(samples, recent_s)
    now = rates(last)
    if ahead_s := _ahead_s(last, now):
        yield Hint(cause=Cause.CLOCK_AHEAD, score=0.96, values={"ahead_s": round(ahead_s)})
    rejected = middle([each.rejected_ratio for each in now.workers.values()])
    earlier = [sample for sample in samples if sample.at_s <= last[0].at_s]
    before = rates(earlier) if len(earlier) > 1 else None
    usual = middle([each.rejected_ratio for each in before.workers.values()]) if before is not None else 0.0
    many = sum(
        now.seconds * each.settled_per_s * each.rejected_ratio
        for each in now.workers.values()
        if each.settled_per_s
    )
    if many >= rejected_min and rejected > 0.05 and not rejected < 3 * usual:
        yield Hint(cause=Cause.POISON, score=0.95, values={"share": round(100 * rejected), "usual": 0.0 if math.isnan(usual) else round(100 * usual, 1)})  # fmt: skip


def _ahead_s(last: Sequence[Sample], now: Rates) -> float:
    """How far ahead of our clock records are stamped; 0 where none are. An engine that keeps up shows it in what it finished, one that
    stands in the oldest that it did not."""
    wrong = [each for each in now.workers.values() if each.ahead_per_s > 0]
    if sum(each.ahead_per_s for each in wrong) * now.seconds >= ahead_min - 0.5:
        return middle([each.ahead_s for each in wrong])
    unfinished = [
        min((each.age_s for each in sample.partitions if not math.isnan(each.age_s)), default=0.0)
        for sample in last
    ]
    return -middle(unfinished) if len(last) >= 6 and middle(unfinished) < -5 else 0.0


def _storm(samples: Sequence[Sample]) -> Iterator[Hint]:
    storm = rates(_last(samples, 300.0))
    if storm.rebalances >= 4:
        yield Hint(cause=Cause.REBALANCE_STORM, score=0.94, values={"rebalances": round(storm.rebalances), "minutes": round(storm.seconds / 60)})  # fmt: skip


def _pressing(then: Rates, now: Rates, last: Sample) -> Iterator[Hint]:
    """Records wait, or will: what changed."""
    both = [name for name in now.workers if name in then.workers]
    raised = {
        name: now.workers[name].cost_s / then.workers[name].cost_s
        for name in both
        if then.workers[name].cost_s > 0
    }
    typical = middle(list(raised.values()))
    slow = {
        name: each for name, each in raised.items() if each > 1.25 and each > 1.25 * _others(raised, name)
    }
    if slow and len(slow) <= max(len(raised) // 2, 1) and len(raised) > 1:
        name = max(slow, key=lambda each: slow[each])
        yield Hint(cause=Cause.SLOW_WORKER, score=0.93, values={"worker": name, "ratio": round(slow[name], 1), "others": round(_others(raised, name), 1)})  # fmt: skip
    elif not math.isnan(typical) and typical > 1.15:
        infer = middle([now.workers[name].infer_s - then.workers[name].infer_s for name in both])
        explain = middle([now.workers[name].explain_s - then.workers[name].explain_s for name in both])
        cause = Cause.SLOW_MODEL if infer >= explain else Cause.SLOW_EXPLAINER
        yield Hint(cause=cause, score=0.92, values={"us": round(max(infer, explain) * 1e6), "ratio": round(typical, 1)})  # fmt: skip
    deliver = middle([now.workers[name].deliver_s / then.workers[name].deliver_s for name in both])
    busy = middle([each.busy_ratio for each in now.workers.values()])
    if deliver > 2 and busy < 0.9:
        yield Hint(cause=Cause.BROKER_SLOW, score=0.91, values={"ratio": round(deliver, 1), "busy": round(100 * busy)})  # fmt: skip
    yield from _traffic(then, now, last)


def _traffic(then: Rates, now: Rates, last: Sample) -> Iterator[Hint]:
    grown = {p: now.arrivals[p] / then.arrivals[p] for p in now.arrivals if then.arrivals.get(p, 0.0) > 0}
    if not grown:
        return
    usual = middle(list(now.arrivals.values()))
    hottest = max(now.arrivals, key=lambda p: now.arrivals[p])
    rest = middle([each for p, each in grown.items() if p != hottest])
    alone = math.isnan(rest) or rest < 1.3
    if (
        len(now.arrivals) > 1
        and now.arrivals[hottest] > 2 * usual
        and alone
        and grown.get(hottest, 0.0) > 1.5
    ):
        owner = next((each.owner for each in last.partitions if each.partition == hottest), "")
        yield Hint(cause=Cause.HOT_PARTITION, score=0.9, values={"partition": str(hottest), "rate": round(now.arrivals[hottest]), "ratio": round(now.arrivals[hottest] / usual, 1), "owner": owner})  # fmt: skip
        return
    whole = now.arrival_per_s / then.arrival_per_s if then.arrival_per_s > 0 else math.nan
    if whole > 1.15:
        yield Hint(cause=Cause.MORE_TRAFFIC, score=min(0.5 + (whole - 1.15), 0.89), values={"rate": round(now.arrival_per_s), "ratio": round(whole, 1)})  # fmt: skip


def _others(values: dict[str, float], name: str) -> float:
    return middle([value for other, value in values.items() if other != name])


def _as_before(then: Rates, now: Rates, found: set[Cause]) -> list[RuledOut]:
    both = [name for name in now.workers if name in then.workers]
    told = []
    for cause, old, new in (
        (Cause.SLOW_MODEL, [then.workers[n].infer_s for n in both], [now.workers[n].infer_s for n in both]),
        (Cause.SLOW_EXPLAINER, [then.workers[n].explain_s for n in both], [now.workers[n].explain_s for n in both]),
        (Cause.BROKER_SLOW, [then.workers[n].deliver_s for n in both], [now.workers[n].deliver_s for n in both]),
        (Cause.MORE_TRAFFIC, [then.arrival_per_s], [now.arrival_per_s]),
    ):  # fmt: skip
        ratio = middle(new) / middle(old) if middle(old) > 0 else math.nan
        if cause not in found and ratio < 1.15:
            told.append(RuledOut(cause=cause, ratio=round(ratio, 2)))
    if Cause.REBALANCE_STORM not in found and now.rebalances == 0:
        told.append(RuledOut(cause=Cause.REBALANCE_STORM, ratio=None))
    return told
