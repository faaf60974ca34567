"""What guarding the stream costs: the arithmetic of the turns, and settings that a worker takes."""

import json
from pathlib import Path

import pytest
import yaml
from penstock_bench import guarded
from penstock_bench.peers.contestants import Entry
from penstock_bench.peers.throughput import Run
from penstock_bench.peers.workload import Workload

from penstock.engine.settings.model import load_settings
from penstock.engine.worker.admin.port import require_files
from penstock.engine.worker.startup.stages import open_bundle
from tests.bundles import write_stump


def run(records_per_s: float, cpu_us: float, *, lost: int = 0) -> Run:
    return Run(
        records=1000, records_per_s=records_per_s, engine_us_per_record=cpu_us, broker_us_per_record=1.0, peak_mb=1.0, lost=lost,
        duplicated=0,
    )  # fmt: skip


def test_the_middle_turn_decides_and_a_lost_record_is_never_within() -> None:
    plain = [run(1000, 2.0), run(1000, 2.0), run(1000, 2.0)]
    found = guarded.compared({"plain": plain, "guarded": [run(500, 3.0), run(995, 2.0), run(1010, 1.9)]})
    assert found["guarded_for_plain"]["records_per_s"] == {"median": 0.995, "min": 0.5, "max": 1.01}
    assert found["guarded_for_plain"]["engine_us_per_record"]["median"] == 1.0
    assert found["within_bar"]
    slower = guarded.compared({"plain": plain, "guarded": [run(985, 2.0)] * 3})
    assert not slower["within_bar"]
    lossy = guarded.compared({"plain": plain, "guarded": [run(1000, 2.0, lost=1)] * 3})
    assert not lossy["within_bar"]
    json.dumps(found)


def test_everything_is_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, int]] = []
    monkeypatch.setattr(guarded.KafkaAdmin, "create_topics", lambda _, topics: made.append(topics))
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
