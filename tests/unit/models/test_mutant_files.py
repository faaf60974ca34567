"""`penstock package` on model files that are nearly right: it packages or refuses each in a sentence, and never dies or hangs.

A few here, of each format; `make soak` runs 20,000 of each (`tests/soak/model_mutants.py`), other ones each time.
"""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants_files import mutant
from tests.soak.model_mutants import alone, fault_of, formats, words_of
from tests.warm_command import Ended

_each, _alone = 4, 2


@pytest.mark.timeout(600)
def test_no_mutant_takes_the_command_down() -> None:
    """In an interpreter that nothing else has touched: the harness forks it."""
    command = [
        sys.executable, "-P", "-m", "tests.soak.model_mutants", "--each", str(_each), "--alone", str(_alone),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=590, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-4000:]
    assert f"{_each * len(formats)} model files" in said.splitlines()[-1]


def _run(folder: Path, script: str, within_s: float = 60.0) -> Ended:
    """What the harness says of a command that is this Python code instead."""
    code = f"""
import json
from pathlib import Path
import tests.warm_command as warm
warm.main = lambda words: exec(words[0])
(found,) = warm.WarmCommand(Path({str(folder)!r}), at_once=1, within_s={within_s}).run(iter([(0, lambda _: [{script!r}])]))
print(json.dumps([found[1].code, found[1].said]))
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    ended, said = json.loads(done.stdout)
    return Ended(code=ended, said=said, took_s=0.0)


@pytest.mark.parametrize(
    ("script", "code", "fault"),
    [
        ("import os; os.abort()", -6, "ended by signal 6"),
        ("import ctypes; ctypes.string_at(0)", -11, "ended by signal 11"),
        ("import time; time.sleep(60)", None, "did not end"),
        ("raise ValueError('a b')", 1, "'Traceback'"),
        ("import os; os.write(2, b'one\\ntwo\\n'); os._exit(2)", 2, "not one line"),
        ("import os; os.write(2, b'at src/a.cc:12\\n'); os._exit(2)", 2, "'.cc:'"),
        ("import os; os._exit(3)", 3, "exit code 3"),
        ("import os; os.write(2, b'a sentence\\n'); os._exit(2)", 2, ""),
        ("import os; os._exit(0)", 0, ""),
    ],
)  # fmt: skip
def test_the_harness_sees_what_a_command_must_not_do(
    script: str, code: int | None, fault: str, tmp_path: Path
) -> None:
    ended = _run(tmp_path, script, within_s=3.0)
    assert ended.code == code
    assert fault_of(ended).startswith(fault)
    assert bool(fault_of(ended)) == bool(fault)


def test_a_command_alone_is_what_a_user_runs(tmp_path: Path) -> None:
    ended = alone(words_of(tmp_path, ".pmml", b"<html/>"))
    assert ended.code == 2
    assert "begins with html" in ended.said


def test_mutants_repeat(tmp_path: Path) -> None:
    data = bytes(range(256)) * 4
    assert mutant(data, random.Random(3)) == mutant(data, random.Random(3)) != data
