"""What asks `penstock run` to stop ends it in order: its workers too, and nothing is left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from tests.bundles import write_linear

pytestmark = pytest.mark.timeout(120)


def settings_file(tmp_path: Path) -> Path:
    """Of a worker whose cluster is not there."""
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
    return tmp_path / "penstock.yaml"


def begin(tmp_path: Path, *words: str, before: Sequence[str] = ()) -> "subprocess.Popen[bytes]":
    """An interpreter with these words, its output in `log`."""
    log = tmp_path / "log"
    with log.open("wb") as stream:
        return subprocess.Popen(
            [*before, sys.executable, "-P", *words],
            env={**os.environ, "TMPDIR": str(tmp_path / "runs")},
            stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
        )  # fmt: skip


def start(tmp_path: Path, before: Sequence[str] = ()) -> "subprocess.Popen[bytes]":
    """One that waits for a cluster that is not there, once its worker does."""
    process = begin(tmp_path, "-m", "penstock", "run", str(settings_file(tmp_path)), before=before)
    log = tmp_path / "log"
    deadline_s = time.monotonic() + 60
    while b"pages, metrics and health" not in log.read_bytes() and time.monotonic() < deadline_s:
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    process = start(
        tmp_path, before=("env", "--default-signal=HUP")
    )  # these tests may run under nohup themselves
    process.send_signal(number)
    assert process.wait(30) == 0
    assert [*(tmp_path / "runs").iterdir()] == []


def test_under_nohup_it_goes_on_when_the_terminal_goes_away(tmp_path: Path) -> None:
    process = start(tmp_path, before=("sh", "-c", "trap '' HUP; exec \"$@\"", "sh"))
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    process.terminate()
    assert process.wait(30) == 0


deaf = """
import os, signal, sys, time
from penstock.engine.cli.main import main
from penstock.engine.worker import model_copy

class Callback:
    def __del__(self):  # what is raised in here is printed and passed over, as in a callback that C code makes
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)

copy = model_copy.copy_model

def copy_model(*given):
    Callback()
    return copy(*given)

model_copy.copy_model = copy_model
sys.exit(main(["run", sys.argv[1]]))
"""


def test_a_stop_amid_a_librarys_callback_is_not_lost(tmp_path: Path) -> None:
    process = begin(tmp_path, "-c", deaf, str(settings_file(tmp_path)))
    try:
        assert process.wait(30) == 0, (tmp_path / "log").read_text()
    finally:
        process.kill()
        process.wait()
    said = (tmp_path / "log").read_text()
    assert "Exception ignored" in said, "the signal came at another moment than is tried here"
    assert [*(tmp_path / "runs").iterdir()] == []
