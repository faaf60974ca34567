"""The memory that packaging and check name for a worker, against what a process takes that loads the bundle as a worker does."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor

from penstock.engine.cli.main import main
from penstock.engine.models.bundle.memory import as_text, worker_bytes
from penstock.engine.models.packaging.package import package

_loads = """
import sys
from penstock.engine.clock import SystemClock
from penstock.engine.explain.factory import make_explainer
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.runtime.loader import open_model
from penstock.engine.settings.model import ExplainSettings
bundle = Bundle.load(sys.argv[1])
model = open_model(bundle, device="cpu", batch_rows_max=1024, clock=SystemClock())
make_explainer(bundle, model, ExplainSettings())
# Not getrusage: its maximum is inherited from the process that started this one.
(line,) = [line for line in open('/proc/self/status') if line.startswith('VmHWM:')]
print(int(line.split()[1]) << 10)
"""


def test_a_deep_forest_takes_about_what_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(12_000, 8))
    forest = RandomForestRegressor(10, random_state=0).fit(rows, random.normal(size=12_000))
    bundle = package(forest, tmp_path / "bundle", background=rows[:50]).bundle
    said = worker_bytes(bundle)
    ran = subprocess.run(
        [sys.executable, "-P", "-c", _loads, str(tmp_path / "bundle")],
        capture_output=True,
        check=True,
        timeout=120,
    )
    taken = int(ran.stdout)
    # What it says has room for Kafka's client and the batches on their way, which this process does not have.
    assert taken <= said <= taken + (384 << 20)
    import skops.io

    skops.io.dump(forest.estimators_[0], tmp_path / "m.skops")
    assert main(["package", str(tmp_path / "m.skops"), "--out", str(tmp_path / "other")]) == 0
    assert "worker's memory" in capsys.readouterr().out


def test_bytes_are_said_as_people_read_them() -> None:
    assert as_text(300 << 20) == "300 MiB"
    assert as_text(20 << 30) == "20.0 GiB"
