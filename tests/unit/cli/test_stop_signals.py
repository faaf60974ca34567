"""What asks `penstock run` to stop ends it in order: its workers too, and nothing is left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.bundles import write_linear

pytestmark = pytest.mark.timeout(120)


def start(tmp_path: Path, before: Callable[[], object] | None = None) -> "subprocess.Popen[bytes]":
    """One that waits for a cluster that is not there, once its worker does."""
    write_linear(tmp_path / "model")
    (tmp_path / "runs").mkdir()
    settings = {
        "kafka": {"bootstrap_servers": "127.0.0.1:1", "group": "g"},
        "input": {"topic": "in", "format": "json"},
        "output": {"predictions": "p", "dead_letters": "d"},
        "model": {"path": str(tmp_path / "model")},
        "http": {"port": 0},
    }
    (tmp_path / "penstock.yaml").write_text(yaml.safe_dump(settings))
    log = tmp_path / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "penstock", "run", str(tmp_path / "penstock.yaml")],
            env={**os.environ, "TMPDIR": str(tmp_path / "runs")},
            stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, preexec_fn=before,
        )  # fmt: skip
    deadline_s = time.monotonic() + 60
    while b"pages, metrics and health" not in log.read_bytes() and time.monotonic() < deadline_s:
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path)
    process.send_signal(number)
    assert process.wait(30) == 0
    assert [*(tmp_path / "runs").iterdir()] == []


def test_under_nohup_it_goes_on_when_the_terminal_goes_away(tmp_path: Path) -> None:
    process = start(tmp_path, before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    process.terminate()
    assert process.wait(30) == 0
