"""Processes that try records: started when somebody asks, ended when they hang, when nobody asks, and with their supervisor."""

import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.engine.clock import SystemClock
from penstock.engine.worker.trial.free_memory import data_bytes, free_bytes
from penstock.engine.worker.trial.main import require_room
from penstock.engine.worker.trial.trials import Bounds, Trials, processes_max
from penstock.schemas.errors import ConfigError

ready = "import json, sys, time; say = lambda **said: print(json.dumps(said), flush=True)\nsay(ready=True)\n"
echo = ready + "for line in sys.stdin: say(fault=None, asked=json.loads(line))"
scripts = {
    "served": echo,
    "second": echo,
    "third": echo,
    "hangs": ready + "time.sleep(600)",
    "hangs at its start": "import time; time.sleep(600)",
    "ends": ready + "sys.stdin.readline(); sys.exit(9)",
    "ends at its start": "raise SystemExit(1)",
    "babbles": ready + "sys.stdin.readline(); print('no JSON', flush=True); time.sleep(600)",
    "writes without end": ready + "sys.stdin.readline()\nwhile True: sys.stdout.write('x' * 65536)",
    "refuses": "import json; print(json.dumps({'fault': {'code': 'trial.not_loaded'}}), flush=True)",
}


class Bench:
    """Trials whose processes are the scripts above."""

    def __init__(self, bounds: Bounds) -> None:
        self.started: list[subprocess.Popen[bytes]] = []
        self.trials = Trials(self.start, bundles=tuple(scripts)[1:], clock=SystemClock(), bounds=bounds)

    def start(self, bundle: str) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", scripts[bundle]], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.started.append(process)
        return process

    def ask(self, bundle: str, **asked: Any) -> tuple[str, str | None]:
        """State and code, once it is more than that it starts."""
        until_s = time.monotonic() + 30
        while True:
            found = self.trials.ask(bundle, asked)
            if found["state"] != "starting" or time.monotonic() > until_s:
                return found["state"], found["fault"] and found["fault"]["code"]

    def living(self) -> int:
        return sum(each.poll() is None for each in self.started)


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = Bench(getattr(request, "param", Bounds(answer_s_max=2.0, start_s_max=0.2, start_waited_s=3.0)))
    yield made
    made.trials.close()
    assert made.living() == 0


def test_one_process_answers_all_that_is_asked_of_its_bundle(bench: Bench) -> None:
    assert bench.trials.ask("served", {"offset": 3})["asked"] == {"offset": 3}
    assert bench.trials.ask("served", {"offset": 4})["asked"] == {"offset": 4}
    assert len(bench.started) == 1


@pytest.mark.parametrize(
    ("bundle", "code"),
    [
        ("hangs", "trial.not_in_time"), ("hangs at its start", "trial.not_in_time"), ("ends", "trial.ended"),
        ("ends at its start", "trial.ended"), ("babbles", "trial.ended"), ("writes without end", "trial.ended"),
        ("refuses", "trial.not_loaded"),
    ],
)  # fmt: skip
def test_a_process_that_goes_wrong_is_ended_in_time_and_the_next_one_is_asked(
    bundle: str, code: str, bench: Bench
) -> None:
    began_s = time.monotonic()
    assert bench.ask(bundle) == ("failed", code)
    assert time.monotonic() - began_s < 25
    assert bench.living() == 0
    assert bench.ask("served") == ("done", None)


def test_there_are_never_more_processes_than_are_allowed(bench: Bench) -> None:
    for bundle in ("served", "second", "third", "served"):
        assert bench.ask(bundle) == ("done", None)
        assert bench.living() <= processes_max


@pytest.mark.parametrize("bench", [Bounds(idle_s_max=0.05)], indirect=True)
def test_a_process_that_nobody_asks_is_ended(bench: Bench) -> None:
    assert bench.ask("served") == ("done", None)
    time.sleep(0.06)
    bench.trials.turn()
    assert bench.living() == 0


@pytest.mark.parametrize("bench", [Bounds(answer_s_max=60.0)], indirect=True)
def test_who_asks_beside_others_is_told_so_and_the_end_waits_for_nobody(bench: Bench) -> None:
    found: list[tuple[str, str | None]] = []
    asking = [threading.Thread(target=lambda: found.append(bench.ask("hangs"))) for _ in range(4)]
    for each in asking:
        each.start()
    until_s = time.monotonic() + 30
    while len(found) < 3 or not bench.started:
        assert time.monotonic() < until_s
        time.sleep(0.01)
    assert found == [("busy", "trial.busy")] * 3
    began_s = time.monotonic()
    bench.trials.close()
    for each in asking:
        each.join(10)
    assert time.monotonic() - began_s < 10
    assert found[3:] == [("failed", "trial.ended")]
    assert bench.ask("served") == ("failed", "trial.ended")


def test_memory_is_what_the_machine_and_the_container_have_left(tmp_path: Path) -> None:
    machine, group = tmp_path / "meminfo", tmp_path / "group"
    assert free_bytes(machine, group) is None
    machine.write_text("MemTotal: 900 kB\nMemAvailable:     800 kB\n")
    assert free_bytes(machine, group) == 800 << 10
    group.mkdir()
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("1000\n")
    assert free_bytes(machine, group) == 800 << 10
    (group / "memory.max").write_text("5000\n")
    (group / "memory.stat").write_text("anon 900\ninactive_file 100\n")
    assert free_bytes(machine, group) == 4100
    (group / "memory.current").write_text("6000\n")
    assert free_bytes(machine, group) == 0


def test_a_model_that_would_take_the_streams_memory_is_not_loaded() -> None:
    require_room(400, None)
    require_room(400, 800)
    with pytest.raises(ConfigError, match="give the container more memory"):
        require_room(401, 800)


limited = """
import numpy as np
from penstock.engine.worker.trial.main import limit_memory
limit_memory(200 << 20)
np.ones(80 << 17)
print("fits", flush=True)
np.ones(140 << 17)
"""


def test_a_process_that_takes_more_than_its_share_ends_and_nobody_else() -> None:
    assert data_bytes() is not None
    before = resource.getrlimit(resource.RLIMIT_DATA)
    done = subprocess.run([sys.executable, "-P", "-c", limited], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "fits\n")
    assert "MemoryError" in done.stderr
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
