"""What `top` reads of an engine is what the hints are made from."""

from dataclasses import replace

from penstock.engine.hints.causes import Cause
from penstock.engine.watch.frame import Frames
from penstock.engine.watch.hinting import sample_of
from penstock.engine.watch.look import Seen, seen
from penstock.engine.watch.screen import plain_line


def look(
    now_s: float,
    *,
    settled: int = 100,
    rejected: int = 0,
    waits: str = "",
    ahead_ms: int = -5_000,
    slot: str = "0",
) -> Seen:
    report = {
        "worker": "w", "group": "g", "topic": "t", "state": "running", "at_ms": 1_000_000,
        "balance": {"read": settled, "predicted": settled - rejected, "rejected": rejected, "skipped": 0, "in_flight": 0, "dropped": 0},
        "positions": [{"partition": 3, "offset": settled, "oldest_timestamp_ms": 1_000_000 + ahead_ms}],
        "waits_for": [{"partition": 3, "kind": waits, "since_ms": 1, "reason": "in whatever words"}] if waits else [],
    }  # fmt: skip
    worker = f'worker="{slot}"'
    metrics = f"""penstock_lag_seconds{{topic="t",partition="3",{worker}}} 5
penstock_lag_records{{topic="t",partition="3",{worker}}} 7
penstock_stage_seconds_sum{{stage="infer",{worker}}} 1.5
penstock_stage_seconds_sum{{stage="explain",{worker}}} 2.5
penstock_stage_seconds_sum{{stage="deliver",{worker}}} 3.5
penstock_stage_seconds_count{{stage="deliver",{worker}}} 9
penstock_busy_seconds_total{{{worker}}} 4.5
penstock_rebalances_total{{{worker}}} 2
penstock_ahead_records_total{{{worker}}} 6
penstock_ahead_seconds_total{{{worker}}} 70.5
penstock_age_objective_seconds{{{worker}}} 30
"""
    return seen({"workers": {slot: report}}, metrics, now_s=now_s)


def test_every_counter_comes_from_its_place() -> None:
    sample = sample_of(look(8.0, settled=100, rejected=20))
    (worker,), (partition,) = sample.workers, sample.partitions
    assert (worker.settled, worker.rejected, worker.busy_s, worker.infer_s, worker.explain_s) == (
        100,
        20,
        4.5,
        1.5,
        2.5,
    )
    assert (worker.deliver_s, worker.deliveries, worker.rebalances) == (3.5, 9, 2)
    assert (worker.ahead, worker.ahead_s) == (6, 70.5)
    assert (partition.partition, partition.end, partition.age_s) == (3, 107, 5)
    assert partition.waits == frozenset()
    assert sample_of(look(8.0, waits="of a later version")).partitions[0].waits == frozenset()
    assert sample_of(look(8.0, ahead_ms=60_000)).partitions[0].age_s == -60


def test_what_a_worker_waits_for_is_told_as_a_hint() -> None:
    kinds = {"open_transaction": Cause.OPEN_TRANSACTION, "registry": Cause.REGISTRY}
    for kind, cause in kinds.items():
        frames = Frames()
        for second in range(60):
            shown = frames.add(look(float(second), waits=kind))
        assert [hint.cause for hint in shown.hints.causes] == [cause]
        assert shown.hints.causes[0].command in plain_line(shown)
        assert shown.as_dict()["hints"]["causes"][0]["cause"] == str(cause)


def test_an_engine_that_does_not_tell_its_objective_gets_no_hint() -> None:
    frames = Frames()
    for second in range(60):
        shown = frames.add(replace(look(float(second), waits="registry"), max_age_s=None))
    assert shown.hints.causes == ()
    assert shown.hints.breach is None
