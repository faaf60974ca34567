"""What the engine itself says of its future: its forecast and its causes, joined with what was seen from outside."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from penstock.engine.doctor.evidence import Evidence
from penstock.engine.doctor.wrong import Cause, Wrong
from penstock.engine.hints.causes import Cause as Hinted
from penstock.engine.watch.told_hints import ToldCause, ToldHints

_causes: Final = {
    Hinted.OPEN_TRANSACTION: (
        Cause.OPEN_TRANSACTION,
        "end that producer, or wait for its transaction.timeout.ms; kafka-transactions.sh find-hanging names it",
    ),
    Hinted.REGISTRY: (
        Cause.REGISTRY,
        "bring the registry back, or register the schema; partitions that need it wait, and nothing is lost",
    ),
    Hinted.CLOCK_AHEAD: (
        Cause.CLOCK,
        "set that producer's clock, or message.timestamp.type=LogAppendTime on the topic",
    ),
    Hinted.POISON: (
        Cause.RECORDS_REJECTED,
        "penstock dlq list has the reasons; mend the writer, then penstock dlq replay",
    ),
    Hinted.REBALANCE_STORM: (
        Cause.REBALANCE_STORM,
        "find who comes and goes: members in penstock lag, restarts in the supervisor's log, and the scaler's decisions",
    ),
    Hinted.BROKER_SLOW: (
        Cause.BROKER_SLOW,
        "look at the brokers: their disks, replicas that fall behind, quotas on this client",
    ),
    Hinted.SLOW_MODEL: (
        Cause.SLOW_MODEL,
        "compare with the warm-up table of penstock check: what else runs on these machines, or a limit on their CPU",
    ),
    Hinted.SLOW_EXPLAINER: (
        Cause.SLOW_EXPLAINER,
        "explain fewer records (explain.policy: sample:0.1), or bound it (explain.budget_ms)",
    ),
    Hinted.SLOW_WORKER: (
        Cause.SLOW_WORKER,
        "look at that worker's machine; started elsewhere, its partitions move on",
    ),
    Hinted.HOT_PARTITION: (
        Cause.HOT_PARTITION,
        "more workers do not help: spread its keys, or make a record cheaper (explain.policy, a smaller model)",
    ),
    Hinted.MORE_TRAFFIC: (
        Cause.AT_CAPACITY,
        "more workers, up to the number of partitions: scaling.max_replicas, workers",
    ),
}


def with_told(wrongs: Sequence[Wrong], evidence: Evidence) -> list[Wrong]:
    """A cause that the engine names as well gets its words as evidence; one that was not seen from outside is another cause."""
    found = list(wrongs)
    for told in evidence.hints:
        for wrong in _wrongs(told):
            at = next((place for place, each in enumerate(found) if each.cause is wrong.cause), None)
            if at is None:
                found.append(wrong)
            else:
                found[at] = replace(found[at], evidence=(*found[at].evidence, *wrong.evidence))
    return found


def _wrongs(told: ToldHints) -> Iterator[Wrong]:
    known = [each for each in told.causes if each.cause in set(Hinted)]
    for place, each in enumerate(known):
        yield _wrong(each, told.forecast if place == 0 and told.breach_s is not None else "")
    if told.breach_s is not None and not known:
        yield Wrong(
            cause=Cause.TOO_OLD,
            what="records are too old, or will be soon",
            evidence=(f"the engine says: {told.forecast}", *told.ruled_out),
            cure="penstock top shows whether workers are busy; where they are: more workers (workers, scaling.max_replicas)",
        )


def _wrong(each: ToldCause, forecast: str) -> Wrong:
    cause, cure = _causes[Hinted(each.cause)]
    said = (f"the engine says: {each.evidence}", *([forecast] if forecast else []))
    return Wrong(cause=cause, what=each.text[:1].lower() + each.text[1:], evidence=said, cure=cure)
