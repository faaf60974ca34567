"""Why records wait: causes ranked, each with what shows it. What was looked at and is as before is ruled out."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from penstock.engine.hints.forecast import Breach, forecast, oldest_s
from penstock.engine.hints.rates import Rates, middle, rates
from penstock.engine.hints.sample import Sample

recent_s: Final = 60.0
baseline_s: Final = 120.0
"""The first so many seconds of what is known are what the last minute is compared with."""


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
    """A cause, how sure it is (0 to 1), and what shows it."""

    cause: Cause
    score: float
    what: str
    evidence: str

    @property
    def command(self) -> str:
        """What to type next."""
        return _commands[self.cause]


@dataclass(frozen=True, kw_only=True, slots=True)
class Hints:
    """What was found: the likeliest first. Nothing of it: all is well, as far as it can be told."""

    breach: Breach | None = None
    causes: tuple[Hint, ...] = ()
    ruled_out: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For a program."""
        return {
            "breach": None if self.breach is None else {"from_s": self.breach.from_s, "to_s": self.breach.to_s, "text": self.breach.sentence},
            "causes": [
                {"cause": str(each.cause), "score": round(each.score, 3), "text": each.what, "evidence": each.evidence, "command": each.command}
                for each in self.causes
            ],
            "ruled_out": list(self.ruled_out),
        }  # fmt: skip


def hints(samples: Sequence[Sample], *, max_age_s: float) -> Hints:
    """From samples in order of time, of the last ten minutes at most. With less than three minutes of them only what needs no comparison."""
    if len(samples) < 4:
        return Hints()
    breach = forecast(samples, max_age_s=max_age_s)
    found = [*_held(samples), *_wrong_records(samples)]
    ages = sorted(oldest_s(sample) for sample in _last(samples, recent_s) if not math.isnan(oldest_s(sample)))
    if ages and ages[-1] > max_age_s / 4:  # between two pauses all may be well again
        found += _storm(samples)
    ruled_out: list[str] = []
    late = bool(ages) and ages[len(ages) * 3 // 4] > max_age_s / 2
    then, now = _compared(samples)
    if (breach is not None or late) and then is not None and now is not None:
        found += _pressing(then, now, samples[-1])
        ruled_out = _as_before(then, now, {hint.cause for hint in found})
    return Hints(
        breach=breach,
        causes=tuple(sorted(found, key=lambda hint: -hint.score)),
        ruled_out=tuple(ruled_out),
    )


def _last(samples: Sequence[Sample], span_s: float) -> list[Sample]:
    return [sample for sample in samples if sample.at_s >= samples[-1].at_s - span_s]


def _compared(samples: Sequence[Sample]) -> tuple[Rates | None, Rates | None]:
    """The beginning of what is known, and the last minute."""
    first = [sample for sample in samples if sample.at_s <= samples[0].at_s + baseline_s]
    last = _last(samples, recent_s)
    if first[-1].at_s >= last[0].at_s:
        return None, None
    return rates(first[0], first[-1]), rates(last[0], last[-1])


def _held(samples: Sequence[Sample]) -> Iterator[Hint]:
    """Partitions that stand still for a reason that they name."""
    last = _last(samples, recent_s / 2)
    for cause, words in (
        (Cause.OPEN_TRANSACTION, "a producer's transaction stays open"),
        (Cause.REGISTRY, "a schema cannot be had"),
    ):
        always = [
            each.partition
            for each in last[-1].partitions
            if all(_holds(sample, each.partition, cause) for sample in last)
        ]
        if always and len(last) >= 4:
            named = ", ".join(map(str, always[:5])) + (", ..." if len(always) > 5 else "")
            yield Hint(cause=cause, score=0.98, what=f"{words}, and what lies behind it waits", evidence=f"partition {named}, for at least {last[-1].at_s - last[0].at_s:.0f} s")  # fmt: skip


def _holds(sample: Sample, partition: int, cause: Cause) -> bool:
    for each in sample.partitions:
        if each.partition == partition:
            return each.open_transaction > 0 if cause is Cause.OPEN_TRANSACTION else each.waits_for_registry
    return False


def _wrong_records(samples: Sequence[Sample]) -> Iterator[Hint]:
    """What is wrong with the records, whether or not any waits."""
    last = _last(samples, recent_s)
    ahead = [
        min((each.age_s for each in sample.partitions if not math.isnan(each.age_s)), default=0.0)
        for sample in last
    ]
    if len(last) >= 6 and middle(ahead) < -5:
        yield Hint(cause=Cause.CLOCK_AHEAD, score=0.96, what="a producer's clock runs ahead: ages are not to be trusted", evidence=f"the oldest unfinished record is stamped {-middle(ahead):.0f} s ahead of this machine")  # fmt: skip
    now = rates(last[0], last[-1])
    rejected = middle([each.rejected_ratio for each in now.workers.values()])
    before = rates(samples[0], last[0]) if last[0].at_s > samples[0].at_s else None
    usual = middle([each.rejected_ratio for each in before.workers.values()]) if before is not None else 0.0
    if not math.isnan(rejected) and rejected > 0.05 and not rejected < 3 * usual:
        yield Hint(cause=Cause.POISON, score=0.95, what="many records are set aside: a writer, a schema or the model changed", evidence=f"{rejected:.0%} of the last minute's records, {0.0 if math.isnan(usual) else usual:.1%} before")  # fmt: skip


def _storm(samples: Sequence[Sample]) -> Iterator[Hint]:
    storm = rates(_last(samples, 300.0)[0], samples[-1])
    if storm.rebalances >= 4:
        yield Hint(cause=Cause.REBALANCE_STORM, score=0.94, what="the group rebalances over and over; every rebalance is a pause", evidence=f"{storm.rebalances:.0f} in {storm.seconds / 60:.0f} min")  # fmt: skip


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
        yield Hint(cause=Cause.SLOW_WORKER, score=0.93, what=f"worker {name} takes longer for the same work than the others: its machine, or what else runs there", evidence=f"{slow[name]:.1f} times as long for a record as before, the others {_others(raised, name):.1f} times")  # fmt: skip
    elif not math.isnan(typical) and typical > 1.15:
        infer = middle([now.workers[name].infer_s - then.workers[name].infer_s for name in both])
        explain = middle([now.workers[name].explain_s - then.workers[name].explain_s for name in both])
        cause = Cause.SLOW_MODEL if infer >= explain else Cause.SLOW_EXPLAINER
        words = "the model" if cause is Cause.SLOW_MODEL else "the explanations"
        yield Hint(cause=cause, score=0.92, what=f"{words} became slower on all workers", evidence=f"{max(infer, explain) * 1e6:.0f} us more for each record; all of a record takes {typical:.1f} times as long as before")  # fmt: skip
    deliver = middle([now.workers[name].deliver_s / then.workers[name].deliver_s for name in both])
    busy = middle([each.busy_ratio for each in now.workers.values()])
    if deliver > 2 and busy < 0.9:
        yield Hint(cause=Cause.BROKER_SLOW, score=0.91, what="the brokers take longer to acknowledge, and the workers wait for them", evidence=f"a delivery takes {deliver:.1f} times as long as before, the workers compute for {busy:.0%} of the time")  # fmt: skip
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
        yield Hint(cause=Cause.HOT_PARTITION, score=0.9, what=f"partition {hottest} gets more than its owner can do; more workers do not help", evidence=f"{now.arrivals[hottest]:,.0f} records/s, {now.arrivals[hottest] / usual:.1f} times the usual partition; owner {owner}")  # fmt: skip
        return
    whole = now.arrival_per_s / then.arrival_per_s if then.arrival_per_s > 0 else math.nan
    if whole > 1.15:
        yield Hint(cause=Cause.MORE_TRAFFIC, score=min(0.5 + (whole - 1.15), 0.89), what="more arrives than the workers do", evidence=f"{now.arrival_per_s:,.0f} records/s, {whole:.1f} times as many as before, on all partitions")  # fmt: skip


def _others(values: dict[str, float], name: str) -> float:
    return middle([value for other, value in values.items() if other != name])


def _as_before(then: Rates, now: Rates, found: set[Cause]) -> list[str]:
    """What was looked at and did not change: a sentence each."""
    both = [name for name in now.workers if name in then.workers]
    told = []
    for cause, what, old, new in (
        (Cause.SLOW_MODEL, "the model", [then.workers[n].infer_s for n in both], [now.workers[n].infer_s for n in both]),
        (Cause.SLOW_EXPLAINER, "the explanations", [then.workers[n].explain_s for n in both], [now.workers[n].explain_s for n in both]),
        (Cause.BROKER_SLOW, "deliveries", [then.workers[n].deliver_s for n in both], [now.workers[n].deliver_s for n in both]),
        (Cause.MORE_TRAFFIC, "arrivals", [then.arrival_per_s], [now.arrival_per_s]),
    ):  # fmt: skip
        ratio = middle(new) / middle(old) if middle(old) > 0 else math.nan
        if cause not in found and ratio < 1.15:
            told.append(f"{what}: as before ({ratio:.2f} times)")
    if Cause.REBALANCE_STORM not in found and now.rebalances == 0:
        told.append("no rebalance in the last minute")
    return told
