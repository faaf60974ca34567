"""`penstock bench peers` and `pipeline` on a real Kafka, small: who takes part is measured, and every record counted."""

import argparse
import io
import itertools
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from penstock_bench import peers
from penstock_bench.peers.contestants import chosen
from penstock_bench.peers.environment import open_environment
from penstock_bench.peers.topics import StableEnds, count_outputs
from penstock_bench.slices import measure_in_slices, slice_s
from rich.console import Console

from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.simple import KafkaWriter
from penstock.engine.clock import SystemClock
from penstock.engine.console.terminal import Terminal

pytestmark = pytest.mark.kafka


def test_what_is_missing_and_what_came_twice_is_counted(kafka: str, new_topic: Callable[..., str]) -> None:
    topic, config = new_topic("outputs", partitions=4), ClientConfig(bootstrap_servers=kafka)
    writer = KafkaWriter(config, topic)
    keys = [b"-1", *(b"%d" % key for key in range(100) if key != 40), b"7", b"7", b"8"]
    writer.write([b"x"] * len(keys), keys=keys)
    writer.flush(30)
    writer.close()
    assert StableEnds(config).visible(topic) == len(keys)
    count = count_outputs(config, topic, expected=100, patience_s=1.0, clock=SystemClock())
    assert (count.outputs, count.lost, count.duplicated) == (102, 1, 3)


@pytest.mark.slow
@pytest.mark.timeout(
    900
)  # four programs, each given its two minutes of patience on a machine that does much else
@pytest.mark.usefixtures("kafka")  # skips where no Kafka can be had
def test_penstock_the_loop_and_the_limits_are_measured_side_by_side(tmp_path: Path) -> None:
    picture = tmp_path / "peers.svg"
    words = [
        "--only", "penstock,python-loop,echo,onnxruntime", "--records", "40000", "--rates", "300", "--seconds", "1",
        "--picture", str(picture),
    ]  # fmt: skip
    parser = argparse.ArgumentParser()
    peers.add_arguments(parser)
    shown = io.StringIO()
    found: dict[str, Any] = peers.run(
        parser.parse_args(words), Terminal(console=Console(file=shown, width=200))
    )

    assert found["skipped"] == {}
    assert sorted(found["order"]) == ["echo", "onnxruntime", "penstock", "python-loop"]
    assert set(found["contestants"]) == {"penstock", "python-loop", "echo"}
    for slug, each in found["contestants"].items():
        assert (each["lost"], each["duplicated"]) == (0, 0), slug
        assert each["records_per_s"] > 100, slug
        assert each["engine_us_per_record"] > 0, slug
        assert each["peak_mb"] > 20, slug
        (latency,) = each["latency"]
        assert (latency["rate"], latency["records"], latency["unanswered"]) == (300, 300, 0), slug
        assert 0 < latency["p50_ms"] <= latency["p99_ms"] <= latency["p999_ms"], slug
    assert {"1", "256", "1024"} == set(found["onnxruntime_alone"])
    assert "onnxruntime, by 1024" in shown.getvalue()
    assert picture.read_text().startswith("<svg")


ticker = """
import sys, time
with open(sys.argv[1], "w", buffering=1) as file:
    while True:
        print(time.monotonic(), file=file)
        time.sleep(0.02)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("kafka")
def test_streams_that_take_turns_are_each_measured_whole_and_go_on() -> None:
    with open_environment(
        Terminal(console=Console(file=io.StringIO(), width=200)), SystemClock()
    ) as environment:
        loop = chosen("python-loop")[0]
        both = {"one": loop, "other": replace(loop, slug="python-loop-too")}
        ticks = environment.folder / "ticks"
        with environment.beside("ticker", [sys.executable, "-u", "-c", ticker, str(ticks)]) as pid:
            found = measure_in_slices(environment, both, records=150_000, seed=1, beside={"other": pid})
            told_s = [float(line) for line in ticks.read_text().split()]
    assert set(found) == {"one", "other"}
    for run in found.values():
        assert (run.lost, run.duplicated) == (0, 0)
        assert run.records_per_s > 1000
        assert run.engine_us_per_record > 0
        assert run.first_process_mb is not None
        assert "broker_us_per_record" not in run.as_json()
    pauses_s = [after - before for before, after in itertools.pairwise(told_s)]
    assert (
        sum(each > 0.8 * slice_s for each in pauses_s) >= 2
    )  # it stood still with its contestant, and went on with it
