"""The arithmetic of `penstock bench peers`, who takes part, and what is refused."""

import argparse
import io
import json
import math
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_bench import peers, pipeline
from penstock_bench.peers.contestants import chosen, contestants
from penstock_bench.peers.latency import summarize
from penstock_bench.peers.load import Report
from penstock_bench.peers.picture import draw
from penstock_bench.peers.plan import parse_rates, show
from penstock_bench.peers.processes import cpu_s, family, peak_mb, resident_mb
from penstock_bench.peers.records import event_schema, payloads, some_rows
from penstock_bench.peers.statistics import (
    Sample,
    growth_mb_per_million,
    middle,
    percentile,
    ratio,
    shuffled,
    whole,
)
from rich.console import Console

from penstock.engine.codec.framing import is_single_object
from penstock.engine.console.terminal import Terminal
from penstock.schemas.errors import ConfigError


def _sample(at_s: float, visible: int, **more: float) -> Sample:
    figures = {"engine_cpu_s": 0.0, "broker_cpu_s": 0.0, "resident_mb": 0.0} | more
    return Sample(at_s=at_s, visible=visible, **figures)


@given(st.lists(st.integers(), unique=True), st.integers())
def test_the_order_is_the_seeds(items: list[int], seed: int) -> None:
    order = shuffled(items, seed)
    assert sorted(order) == sorted(items)
    assert order == shuffled(items, seed)


def test_seeds_give_different_orders() -> None:
    assert len({tuple(shuffled(range(6), seed)) for seed in range(20)}) > 10


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60),
    st.floats(0.1, 100),
    st.integers(0, 20),
)
def test_a_percentile_is_the_smallest_value_that_enough_do_not_exceed(
    values: list[float], percent: float, missing: int
) -> None:
    found = percentile(np.array(values), percent, missing=missing)
    everything = [*values, *[math.inf] * missing]
    needed = math.ceil(round(percent * len(everything) / 100, 6))
    assert sum(value <= found for value in everything) >= needed
    assert sum(value < found for value in everything) < max(needed, 1)


def test_percentiles_of_known_values() -> None:
    values = np.arange(1.0, 1001.0)
    assert [percentile(values, percent) for percent in (50, 99, 99.9, 100)] == [500, 990, 999, 1000]
    assert percentile(values, 99.9, missing=1) == 1000
    assert percentile(values, 99.9, missing=2) == math.inf
    assert math.isnan(percentile(np.array([]), 50))


def test_the_rate_is_taken_between_two_commits() -> None:
    # A contestant that does 100 a second and commits every five, the last time only because its timer came.
    samples = [_sample(0, 0), *(_sample(5.0 * i, 500 * i) for i in range(1, 6)), _sample(30.0, 2_600)]
    window = middle(samples, total=2_600)
    assert window is not None
    assert window.records_per_s == pytest.approx(100)
    assert (window.records, window.seconds) == (1_000, 10.0)


def test_the_costs_are_those_of_the_same_time() -> None:
    samples = [_sample(i, 10 * i, engine_cpu_s=0.5 * i, broker_cpu_s=2.0 * i) for i in range(11)]
    window = middle(samples, total=100)
    assert window is not None
    assert (window.engine_cpu_s, window.broker_cpu_s, window.seconds) == (3.0, 12.0, 6)


def test_few_commits_are_judged_to_their_end_and_a_single_one_not_at_all() -> None:
    window = middle([_sample(0, 0), _sample(4, 400), _sample(9, 1_000)], total=1_000)
    assert window is not None
    assert window.records_per_s == pytest.approx(120)
    assert middle([_sample(0, 0), _sample(4, 1_000)], total=1_000) is None
    # Two commits within a few hundredths of a second, in which no CPU could be counted.
    assert middle([_sample(0, 0), _sample(0.5, 400), _sample(0.53, 900)], total=1_000) is None
    assert whole([_sample(0, 12), _sample(4, 1_012)]).records_per_s == 250  # type: ignore[union-attr]
    assert whole([_sample(0, 12), _sample(4, 12)]) is None


def test_growth_is_the_slope_after_the_first_fifth() -> None:
    start = [_sample(i, i * 10_000, resident_mb=20.0 * i) for i in range(20)]
    later = [_sample(i, i * 10_000, resident_mb=400 + 0.03 * i) for i in range(20, 100)]
    assert growth_mb_per_million([*start, *later], total=1_000_000) == pytest.approx(3.0)
    assert growth_mb_per_million(later[:5], total=1_000_000) is None


@pytest.mark.parametrize(("ours", "theirs", "found"), [(6.0, 3.0, 2.0), (None, 3.0, None), (6.0, None, None)])
def test_ratio(ours: float | None, theirs: float | None, found: float | None) -> None:
    assert ratio(ours, theirs) == found


def test_latency_runs_from_the_moment_a_record_was_due() -> None:
    # 1,000 a second; record i is answered 5 ms after it was due, but the last two never.
    due_s = 100.0 + np.arange(1_000) / 1_000
    arrived_s = due_s + 0.005
    arrived_s[:200] += 7.0  # a slow start, which does not count
    arrived_s[-2:] = np.inf
    report = Report(first_due_s=100.0, late_p99_ms=0.2, late_max_ms=1.0)
    found = summarize(arrived_s, report, rate=1_000, dropped=200, cores=0.5)
    assert (found.records, found.unanswered) == (800, 2)
    assert found.p50_ms == pytest.approx(5.0)
    assert found.p99_ms == pytest.approx(5.0)
    assert found.p999_ms == math.inf
    assert found.as_json()["p999_ms"] is None


def test_a_row_is_its_own_encoding() -> None:
    rows = some_rows(3, seed=5)
    schema = fastavro.parse_schema(event_schema())
    for row, payload in zip(rows, payloads(rows), strict=True):
        assert is_single_object(payload)
        read: Any = fastavro.schemaless_reader(io.BytesIO(payload[10:]), schema, None)
        assert [*read.values()] == row.tolist()
    assert not np.array_equal(rows[0], rows[1])


def test_a_family_is_the_process_and_all_below_it() -> None:
    script = (
        "import subprocess, sys; x = b'x' * 30_000_000; del x\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import sys; sys.stdin.read()'], stdin=sys.stdin)\n"
        "print(child.pid, flush=True); child.wait()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        child = int(process.stdout.readline())
        pids = family(process.pid)
        assert pids == [process.pid, child]
        now_mb = resident_mb(pids)
        assert now_mb > 5
        assert peak_mb(pids) > now_mb + 20
        assert cpu_s([os.getpid()]) > 0
        process.stdin.close()
    assert family(process.pid) == []
    assert cpu_s([process.pid]) == resident_mb([process.pid]) == 0


def test_contestants_are_chosen_by_name_and_shown_in_the_order_of_the_table() -> None:
    assert [each.slug for each in chosen("java-loop,penstock")] == ["penstock", "java-loop"]
    assert chosen("") == list(contestants)
    with pytest.raises(ConfigError, match="--only nobody is not one of penstock"):
        chosen("nobody")


@pytest.mark.parametrize(
    ("bench", "words"),
    [
        (peers, ("--only", "nobody")), (peers, ("--records", "10")), (peers, ("--rates", "fast")), (peers, ("--rates", "0")),
        (peers, ("--seconds", "0")), (peers, ("--picture", "/nowhere/at/all.svg")), (pipeline, ("--records", "10")),
        (pipeline, ("--only", "onnx")),
    ],
)  # fmt: skip
def test_wrong_words_are_refused(bench: Any, words: tuple[str, str]) -> None:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    with pytest.raises(ConfigError, match=words[0]):
        bench.run(parser.parse_args(words), Terminal(console=Console(file=io.StringIO())))


def test_rates_ascend_and_may_be_none() -> None:
    assert parse_rates("10000,1000,1000") == (1_000, 10_000)
    assert parse_rates("") == ()


def _found() -> dict[str, Any]:
    lap = {
        "engine_us_per_record": 2.5,
        "broker_us_per_record": 3.0,
        "peak_mb": 300.0,
        "lost": 0,
        "duplicated": 1,
    }
    latency = {
        "rate": 1_000,
        "p50_ms": 5.0,
        "p99_ms": 12.5,
        "p999_ms": None,
        "unanswered": 3,
        "late_p99_ms": 0.3,
    }
    return {
        "machine": {"cores": 2},
        "records": 5_000,
        "contestants": {
            "penstock": {"title": "Penstock <fast>", "guarantee": "exactly-once", "records_per_s": 200_000.0, "penstock_is_times": 1.0, "first_output_s": 1.4, "latency": [latency], **lap},
            "java-loop": {"title": "Java", "guarantee": "exactly-once", "records_per_s": 100_000.0, "penstock_is_times": 2.0, "latency": [latency | {"p99_ms": None}], **lap},
            "penstock-explained": {"title": "explained", "guarantee": "exactly-once", "records_per_s": 60_000.0, "growth_mb_per_million": 0.25, "latency": [], **lap},
        },
        "onnxruntime_alone": {"1024": {"rows_per_s": 370_000, "us_per_row": 2.7}},
        "skipped": {"faust": "no network"},
    }  # fmt: skip


def test_the_tables_tell_everything() -> None:
    shown = io.StringIO()
    show(_found(), Terminal(console=Console(file=shown, width=200)))
    for word in ("200,000", "2.00x", "370,000", "+0.25 MB", "12.5", "never", "not measured: faust: no network", "0/1"):  # fmt: skip
        assert word in shown.getvalue()


def test_the_picture_is_drawn_to_scale() -> None:
    root = ElementTree.fromstring(draw(json.loads(json.dumps(_found()))))
    bars = [float(bar.attrib["width"]) for bar in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert bars[0] == pytest.approx(2 * bars[1], rel=0.01)
    words = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "Penstock <fast> (exactly-once)" in words
    assert "falls behind" in words
    assert "5.0 to 12.5" in words


def test_an_environment_that_cannot_be_had_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path))
    contestant = chosen("java-loop")[0]
    with pytest.raises(ConfigError, match="built by Maven, and there is none here"):
        contestant.prepare(lambda _: None)
