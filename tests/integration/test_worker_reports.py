"""What a worker says of itself on the status topic, from its start to its end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.reports import ReportReader
from penstock.engine.scaling.report_message import decode_status
from penstock.engine.telemetry.worker_status import WorkerState
from tests.bundles import write_stump

pytestmark = pytest.mark.kafka
patience_s = 60.0


def test_the_last_report_of_a_worker_says_that_it_stopped(
    kafka: str, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    status = new_topic("status", **{"cleanup.policy": "compact"})
    write_stump(tmp_path / "model")
    (tmp_path / "penstock.yaml").write_text(
        f"""
kafka: {{bootstrap_servers: "{kafka}", group: {status}-group}}
input: {{topic: {new_topic("in")}, format: json}}
output: {{predictions: {new_topic("p")}, dead_letters: {new_topic("d")}, status: {status}}}
model: {{path: model}}
http: {{port: 0}}
"""
    )
    with closing(ReportReader(ClientConfig(bootstrap_servers=kafka), status)) as reader:
        states: list[str] = []

        def wait_for(state: WorkerState) -> None:
            end_s = time.monotonic() + patience_s
            while state not in states and time.monotonic() < end_s:
                states.extend(decode_status(value).state for value in reader.read() if value)
                time.sleep(0.05)
            assert state in states

        worker = subprocess.Popen(
            [sys.executable, "-P", "-m", "penstock", "run", str(tmp_path / "penstock.yaml")]
        )
        try:
            wait_for(WorkerState.RUNNING)
            os.kill(worker.pid, signal.SIGTERM)
            assert worker.wait(30) == 0
        finally:
            worker.kill()
            worker.wait()
        wait_for(WorkerState.STOPPED)
        assert states[-1] == WorkerState.STOPPED
