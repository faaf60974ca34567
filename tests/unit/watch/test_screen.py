"""What `top` draws: every record accounted for, no line too wide, no character that acts, in any size of terminal."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from penstock.engine.console.reasons import FeatureShare
from penstock.engine.watch.frame import Frame, Frames, Newest, quantile
from penstock.engine.watch.look import Outline, PartitionSeen, Seen, WorkerSeen, seen
from penstock.engine.watch.screen import plain_line, screen

hostile = [
    "\x1b[2J\x1b[31m",
    "‮gnp",
    "a\nb\r\tc",
    "\x9b31m",
    "名前" * 40,
    "x" * 5000,
    "[bold]no[/bold]",
    "\U0001f600",
    "",
]


def worker(slot: str = "0", **counts: int) -> WorkerSeen:
    told: dict[str, Any] = {
        "read": 100,
        "predicted": 90,
        "rejected": 4,
        "skipped": 1,
        "in_flight": 3,
        "dropped": 2,
    } | counts
    return WorkerSeen(
        slot=slot, name=f"g-host-{slot}", state="running", kafka_fault="", waits=(), model="flights 1", **told
    )


def frame(**changes: object) -> Frame:
    reasons = tuple(FeatureShare(feature=name, value=value, attribution=share) for name, value, share in (
        ("amount", 912.0, 1.234), ("country", "NG", -0.8), ("hour", None, 0.4), ("rest", 1.0, 0.01),
    ))  # fmt: skip
    whole = Frame(
        title="g on t", read=200, predicted=180, rejected=8, skipped=2, in_flight=6, dropped=4, rate_per_s=12_345.6, p50_s=0.004,
        p99_s=0.021, objective_s=0.05, stages={"decode": 0.1, "infer": 0.3, "explain": 0.2, "encode": 0.05, "idle": 0.35},
        partitions=tuple(
            PartitionSeen(topic="t", partition=number, owner=f"g-host-{number % 2}", records=10.0 * number, age_s=0.5 * number)
            for number in range(40)
        ),
        workers=(worker("0"), worker("1")), newest=(Newest(headline="t 3/812  fraud 0.97", reasons=reasons),) * 5,
    )  # fmt: skip
    return replace(whole, **changes)  # type: ignore[arg-type]


def texts(shown: Frame, width: int, height: int = 24, ascii_only: bool = False) -> list[str]:
    return [line.plain for line in screen(shown, width=width, height=height, ascii_only=ascii_only)]


def test_at_eighty_columns_everything_is_there() -> None:
    lines = texts(frame(), 80, 40)
    whole = "\n".join(lines)
    assert lines[0] == "penstock  g on t  2 workers  flights 1"
    assert "in 200 = predicted 180 + rejected 8 + skipped 2 + in flight 6 + read again 4" in lines[1]
    assert "every record is accounted for" in whole
    assert "12,346 records/s   p50 4 ms  p99 21 ms  within the objective of 50 ms" in whole
    assert "infer 30%" in whole
    assert "▲ raised +1.2  amount = 912" in whole
    assert "▼ lowered -0.8  country = NG" in whole
    assert "rest" not in whole  # the fourth
    assert "partition" in whole


def test_sixty_columns_leave_out_the_partitions_first() -> None:
    lines = texts(frame(), 60)
    assert not any(line.lstrip().startswith("partition") for line in lines)
    assert any("amount = 912" in line for line in lines)
    assert any("accounted for" in line for line in lines)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("text", hostile)
def test_no_line_is_too_wide_and_none_acts(width: int, ascii_only: bool, text: str) -> None:
    reasons = (
        FeatureShare(feature=text, value=text, attribution=math.nan),
        FeatureShare(feature=text, value=math.inf, attribution=-1e300),
    )
    shown = frame(
        title=text, notes=(text,) * 5, newest=(Newest(headline=text, reasons=reasons),),
        partitions=(PartitionSeen(topic=text, partition=0, owner=text, records=math.nan, age_s=math.nan),),
        workers=(replace(worker(), model=text, name=text),),
    )  # fmt: skip
    for height in (1, 5, 24, 100):
        lines = texts(shown, width, height, ascii_only)
        assert len(lines) <= height
        for line in lines:
            assert cell_len(line) <= width
            assert line.isprintable()
            assert line.isascii() or not ascii_only


def test_what_is_missing_is_said_loudly() -> None:
    shown = frame(predicted=179)
    assert shown.missing == 1
    assert any("MISSING 1: not every record is accounted for" in line for line in texts(shown, 80))
    assert "MISSING 1" in plain_line(shown)
    assert shown.as_dict()["missing"] == 1


def test_what_is_not_known_is_not_zero() -> None:
    shown = frame(
        read=None,
        rate_per_s=None,
        p50_s=None,
        p99_s=None,
        objective_s=None,
        stages=None,
        partitions=(),
        newest=(),
    )
    whole = "\n".join(texts(shown, 80))
    assert "in ? =" in whole
    assert "rate ?" in whole
    assert "p50 ?" in whole
    assert "not told by this engine" in whole
    assert shown.as_dict()["missing"] is None


def look(at_s: float, *workers: WorkerSeen, **changes: object) -> Seen:
    return replace(Seen(at_s=at_s, group="g", topic="t", workers=workers), **changes)  # type: ignore[arg-type]


def test_a_worker_that_began_anew_counts_from_its_beginning() -> None:
    frames = Frames()
    frames.add(look(0.0, worker(predicted=1000), worker("1", predicted=500)))
    shown = frames.add(look(2.0, worker(predicted=10, rejected=0, skipped=0), worker("1", predicted=520)))
    assert shown.rate_per_s == pytest.approx((10 + 20) / 2)


def test_rates_are_of_the_last_ten_seconds() -> None:
    frames = Frames()
    for second in range(30):
        rate = 100 if second < 15 else 1000
        total = min(second, 15) * 100 + max(second - 15, 0) * rate
        shown = frames.add(look(float(second), worker(predicted=total)))
    assert shown.rate_per_s == pytest.approx(1000)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99]))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(ages: list[float], share: float) -> None:
    bounds = [0.5, 1.0, 2.0, 5.0, 10.0, 50.0, 100.0, math.inf]
    cumulative = {bound: float(sum(age <= bound for age in ages)) for bound in bounds}
    found = quantile(share, cumulative)
    true = sorted(ages)[max(math.ceil(share * len(ages)) - 1, 0)]
    bucket = next(place for place, bound in enumerate(bounds) if true <= bound)
    assert found is not None
    assert ([0.0, *bounds][bucket]) <= found <= bounds[bucket]


def test_both_answers_are_read_together() -> None:
    status = {
        "workers": {
            "0": {
                "worker": "g-h-0", "group": "g", "topic": "t", "state": "running", "model": {"name": "m", "version": "2"},
                "balance": {"read": 5, "predicted": 4, "rejected": 1, "skipped": 0, "in_flight": 0, "dropped": 0},
                "kafka": {"reachable": False, "address": "k:9092", "answer_age_s": 7.2, "fault": "refused"},
                "waits_for": [{"partition": 3, "kind": "registry", "since_ms": 1, "reason": "a schema"}],
            },
            "1": {"state": "starting"},
        }
    }  # fmt: skip
    metrics = """# TYPE penstock_lag_seconds gauge
penstock_lag_seconds{topic="t",partition="3",worker="0"} 4.5
penstock_lag_seconds{topic="t",partition="4",worker="0"} NaN
penstock_lag_records{topic="t",partition="3",worker="0"} 12
penstock_end_to_end_seconds_bucket{le="0.05",worker="0"} 3
penstock_end_to_end_seconds_bucket{le="+Inf",worker="0"} 4
penstock_stage_seconds_sum{stage="infer",worker="0"} 1.5
penstock_latency_objective_seconds{worker="0"} 0.05
"""
    frames = Frames()
    frames.add(seen(status, "", now_s=0.0))
    shown = frames.add(seen(status, metrics, now_s=1.0))
    assert [each.partition for each in shown.partitions] == [4, 3]  # what is not known comes first
    assert shown.partitions[1].owner == "g-h-0"
    assert shown.partitions[1].records == 12
    assert shown.objective_s == 0.05
    assert shown.missing == 0
    assert shown.p50_s == pytest.approx(0.05 * 2 / 3)
    assert shown.notes == (
        "worker 1: starting", "Kafka at k:9092 has not answered for 7 s: refused", "partition 3: a schema",
    )  # fmt: skip


def test_the_engine_s_own_records_are_shown_where_it_tells_them() -> None:
    newest = Outline(place="t 1/2", outcome="predicted", label="late", score=0.9, reasons=())
    shown = Frames().add(look(0.0, worker(), newest=(newest,)))
    assert shown.newest == (Newest(headline="t 1/2  late  0.9", reasons=()),)
