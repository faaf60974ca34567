"""What a process is not given ends it with one sentence and the cure, not with a traceback."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from penstock.engine.console.exhausted import exhausted, exhaustion_told
from penstock.engine.worker.preflight import Findings
from penstock.schemas.errors import ConfigError, UnavailableError
from tests.bundles import write_stump


def chained(error: BaseException) -> BaseException:
    outer = UnavailableError("nobody answers")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "files and connections, and needs more: allow it 1024 (ulimit -n 1024"),
        (OSError(errno.ENFILE, os.strerror(errno.ENFILE)), "raise fs.file-max"),
        (MemoryError(), "there is not enough memory"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "there is not enough memory"),
        (ImportError("libx.so: failed to map segment from shared object"), "there is not enough memory"),
        (RuntimeError("std::bad_alloc"), "there is not enough memory"),
        (RuntimeError("can't start new thread"), "may start no more threads"),
        (chained(OSError(errno.EMFILE, "x")), "files and connections"),
    ],
)  # fmt: skip
def test_what_ran_out_is_said_with_its_cure(error: BaseException, words: str) -> None:
    assert words in (exhausted(error) or "")
    with pytest.raises(ConfigError, match=r"memory|threads|files"), exhaustion_told():
        raise error


@pytest.mark.parametrize(
    "error", [ValueError("x"), OSError(errno.ENOENT, "gone"), ImportError("no module"), RuntimeError("x")]
)
def test_other_faults_are_shown_as_they_are(error: Exception) -> None:
    assert exhausted(error) is None
    with pytest.raises(type(error)), exhaustion_told():
        raise error


@pytest.fixture
def commands(tmp_path: Path) -> dict[str, list[str]]:
    write_stump(tmp_path / "bundle")
    model = tmp_path / "model.onnx"
    model.write_bytes((tmp_path / "bundle" / "model.onnx").read_bytes())
    tree = {
        "kafka": {"bootstrap_servers": "localhost:1", "group": "limits"},
        "input": {"topic": "in", "format": "json"},
        "output": {"predictions": "out", "dead_letters": "dead"},
        "model": {"path": "bundle", "device": "cpu"},
        "http": {"port": 0},
    }
    (tmp_path / "penstock.yaml").write_text(yaml.safe_dump(tree))
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n')
    settings = str(tmp_path / "penstock.yaml")
    return {
        "run": ["run", settings],
        "check": ["check", settings],
        "score": ["score", str(tmp_path / "bundle"), str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "o.jsonl")],
        "package": ["package", str(model), "--out", str(tmp_path / "again")],
    }  # fmt: skip


def ended(words: list[str], limit: int, value: int) -> subprocess.CompletedProcess[str]:
    """By a shell that sets the limit: a function before the command would run in a copy of this process, whose libraries mind."""
    option, unit = {resource.RLIMIT_NOFILE: ("-n", 1), resource.RLIMIT_AS: ("-v", 1024)}[limit]
    return subprocess.run(
        ["sh", "-c", f'ulimit {option} {value // unit} && exec "$@"', "sh", sys.executable, "-P", "-m", "penstock", *words],
        capture_output=True,
        text=True,
        timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("command", "limit", "value", "words"),
    [
        ("run", resource.RLIMIT_NOFILE, 16, "no more than 16 files and connections, and a worker needs 64 at least"),
        ("check", resource.RLIMIT_NOFILE, 16, "no more than 16 files and connections, and a worker needs 64 at least"),
        ("score", resource.RLIMIT_NOFILE, 6, "no more than 6 files and connections, and needs more: allow it 1024"),
        ("run", resource.RLIMIT_AS, 1_000 << 20, "limited to 1,000 MiB, and a worker needs 2,048 at least"),
        ("check", resource.RLIMIT_AS, 1_000 << 20, "limited to 1,000 MiB, and a worker needs 2,048 at least"),
        ("check", resource.RLIMIT_AS, 150 << 20, "there is not enough memory (ulimit -v is 153600)"),
        ("score", resource.RLIMIT_AS, 150 << 20, "there is not enough memory (ulimit -v is 153600)"),
        ("package", resource.RLIMIT_AS, 150 << 20, "there is not enough memory (ulimit -v is 153600)"),
    ],
)  # fmt: skip
def test_a_command_that_may_have_too_little_says_so_in_one_sentence(
    command: str, limit: int, value: int, words: str, commands: dict[str, list[str]]
) -> None:
    found = ended(commands[command], limit, value)
    said = " ".join((found.stdout + found.stderr).split())
    assert found.returncode in (1, 2)
    assert "Traceback" not in said
    assert words in said


@pytest.mark.parametrize("allowed_mib", range(200, 2_000, 150))
def test_a_check_tells_the_limit_whatever_ran_out_first(
    allowed_mib: int, commands: dict[str, list[str]]
) -> None:
    """Which library fails at which size depends on the machine: how many cores, how large a stack."""
    found = ended(commands["check"], resource.RLIMIT_AS, allowed_mib << 20)
    said = " ".join((found.stdout + found.stderr).split())
    assert found.returncode in (1, 2)
    assert "Traceback" not in said
    if "settings" in said:
        assert f"limited to {allowed_mib:,} MiB, and a worker needs 2,048 at least" in said
        assert "the model, Kafka and the registry were not looked at" in said
    else:
        assert "not enough memory" in said or "may start no more threads" in said


def test_what_runs_out_in_one_check_hides_none_of_the_others() -> None:
    findings = Findings()

    def no_threads() -> str:
        raise RuntimeError("can't start new thread")

    assert findings.look("first", lambda: "fine")
    assert not findings.look("second", no_threads)
    assert findings.good == [("first", "fine")]
    assert [what for what, _ in findings.faults] == ["second"]
    assert "may start no more threads" in findings.faults[0][1]
