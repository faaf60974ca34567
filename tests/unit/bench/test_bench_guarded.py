"""What guarding the stream costs: the arithmetic of the turns, and settings that a worker takes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from penstock_bench import guarded
from penstock_bench.peers.contestants import Entry
from penstock_bench.peers.throughput import Run
from penstock_bench.peers.workload import Workload

from penstock.connectors.kafka.admin.admin import KafkaAdmin
from penstock.engine.settings.model import load_settings
from penstock.engine.worker.admin.port import require_files
from penstock.engine.worker.startup.stages import open_bundle
from tests.bundles import write_stump


def run(records_per_s: float, cpu_us: float, *, lost: int = 0, supervisor_ms: float | None = None) -> Run:
    return Run(
        records=1000, records_per_s=records_per_s, engine_us_per_record=cpu_us, broker_us_per_record=1.0, peak_mb=1.0, lost=lost,
        duplicated=0, first_process_ms_per_s=supervisor_ms,
    )  # fmt: skip


def compare(plain: list[Run], ours: list[Run]) -> Any:
    return guarded.compared({"plain": plain, "plain again": plain, "guarded": ours}, seed=1)


def test_the_interval_decides_and_a_lost_record_is_never_within() -> None:
    plain = [run(1000, 2.0)] * 3
    found = compare(plain, [run(500, 3.0), run(995, 2.0), run(1010, 1.9)])
    rate = found["guarded_for_plain"]["records_per_s"]
    assert (rate["median"], rate["min"], rate["max"]) == (0.995, 0.5, 1.01)
    assert rate["mean"] == pytest.approx((0.5 * 0.995 * 1.01) ** (1 / 3), abs=1e-4)
    assert rate["low"] <= rate["mean"] <= rate["high"]
    assert found["guarded_for_plain"]["engine_us_per_record"]["median"] == 1.0
    assert found["verdict"] == "undecided"
    assert compare(plain, [run(995, 2.0)] * 3)["verdict"] == "within"
    assert compare(plain, [run(985, 2.0)] * 3)["verdict"] == "beyond"
    assert compare(plain, [run(1000, 2.0, lost=1)] * 3)["verdict"] == "beyond"
    json.dumps(found)


def test_the_interval_holds_the_ratio_that_noise_hides() -> None:
    random, inside, same = np.random.default_rng(5), 0, 0
    for seed in range(100):
        plain, again = (
            [run(1000 * float(np.exp(noise)), 2.0) for noise in random.normal(0, 0.05, 40)] for _ in range(2)
        )
        ours = [run(980 * float(np.exp(noise)), 2.0) for noise in random.normal(0, 0.05, 40)]
        found = guarded.compared({"plain": plain, "plain again": again, "guarded": ours}, seed=seed)
        rate, control = (
            found[each]["records_per_s"] for each in ("guarded_for_plain", "plain_again_for_plain")
        )
        inside += rate["low"] <= 0.98 <= rate["high"]
        same += control["low"] <= 1.0 <= control["high"]
    assert 85 <= inside < 100
    assert 85 <= same < 100


def test_everything_is_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, int]] = []
    monkeypatch.setattr(KafkaAdmin, "create_topics", lambda _, topics: made.append(topics))
    bundle = write_stump(tmp_path / "plain")
    workload = Workload(**dict.fromkeys(Workload.__dataclass_fields__, tmp_path) | {"bundle": tmp_path / "plain"})  # fmt: skip
    (tmp_path / "run").mkdir()
    entry = Entry(
        servers="nowhere:1", group="g", input="in", output="out", explanations="why", dead_letters="dead",
        folder=tmp_path / "run", workload=workload,
    )  # fmt: skip
    file = Path(guarded.guarded(entry)[-1])
    assert made == [{"g-audit": 1}]
    settings = load_settings(file, {})
    assert settings.model.trust.in_force == "enforce"
    assert settings.model.digest == bundle.digest
    assert open_bundle(settings).digest == bundle.digest
    assert settings.admin is not None
    assert "1 tokens from files" in require_files(settings.admin)
    tree = yaml.safe_load(file.read_text())
    (entry.folder / "bundle" / "model.sig").unlink()
    assert tree["model"]["runtime"] == "native"
    with pytest.raises(Exception, match="signed"):
        open_bundle(settings)


def test_a_second_start_of_the_plain_stream_is_the_control() -> None:
    found = guarded.compared(
        {"plain": [run(1000, 2.0)] * 3, "plain again": [run(810, 2.42)] * 3, "guarded": [run(900, 2.2)] * 3},
        seed=1,
    )
    assert found["guarded_for_plain"]["records_per_s"]["mean"] == 1.0
    assert found["guarded_for_plain"]["engine_us_per_record"]["mean"] == 1.0
    assert found["plain_again_for_plain"]["records_per_s"]["mean"] == 0.81


def test_what_the_supervisor_takes_is_told_apart() -> None:
    plain = [run(1000, 2.0, supervisor_ms=each) for each in (3.0, 9.0, 4.0)]
    ours = [run(1000, 2.0, supervisor_ms=each) for each in (6.0, 5.0, 5.5)]
    found = guarded.compared({"plain": plain, "plain again": [run(1000, 2.0)] * 3, "guarded": ours}, seed=1)
    assert found["supervisor_ms_per_s"] == {"plain": 4.0, "guarded": 5.5}
