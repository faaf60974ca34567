"""A process of ours ends with everything written, whatever the Kafka client's threads are doing."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

root = Path(__file__).parents[3]
begin = "import sys, tempfile, time\nfrom penstock.engine.console.leaving import run_and_leave\n"


def ended(script: str, *, stdout: int = subprocess.PIPE) -> "subprocess.CompletedProcess[str]":
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        [sys.executable, "-c", begin + script],
        text=True, timeout=60, env=buffered, stdout=stdout, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_an_answer_that_comes_after_the_interpreter_does_not_end_the_process() -> None:
    """The client's own thread tells of an answer, or that there is none, when Python is gone and the process is not yet: the C library
    is told to wait at its end, where it has one."""
    script = (
        "import ctypes, threading\nfrom confluent_kafka.admin import AdminClient\n"
        "def hold():\n"
        "  client = AdminClient({'bootstrap.servers': '127.0.0.1:9', 'log_level': 0})\n"
        "  asked = client.describe_cluster(request_timeout=0.5)\n"
        "  held.set()\n"
        "  time.sleep(60)\n"
        "def main():\n"
        "  libc = ctypes.CDLL(None)\n"
        "  libc.__cxa_atexit(libc.sleep, 2, None)\n"
        "  threading.Thread(target=hold, daemon=True).start()\n"
        "  return 5 if held.wait(30) else 6\n"
        "held = threading.Event()\n"
        "raise SystemExit(run_and_leave(main))\n"
    )
    assert ended(script).returncode == 5


@pytest.mark.parametrize(
    ("main", "code"),
    [
        ("return 0", 0),
        ("return 3", 3),
        ("sys.exit(4)", 4),
        ("sys.exit()", 0),
        ("sys.exit('a sentence')", 1),
        ("raise ValueError('a sentence')", 1),
    ],
)
def test_the_exit_code_and_what_was_said_arrive(main: str, code: int) -> None:
    done = ended(f"def main():\n  print('x' * 100_000)\n  {main}\nraise SystemExit(run_and_leave(main))\n")
    assert done.returncode == code
    assert done.stdout == "x" * 100_000 + "\n"
    assert ("a sentence" in done.stderr) == ("a sentence" in main)


def test_what_is_registered_for_the_end_is_done(tmp_path: Path) -> None:
    script = (
        "import atexit, threading\n"
        "def late():\n"
        "  time.sleep(0.5)\n"
        "  print('late')\n"
        "def main():\n"
        "  global folder\n"
        f"  folder = tempfile.TemporaryDirectory(dir={str(tmp_path)!r})\n"
        "  atexit.register(lambda: print('registered'))\n"
        "  threading.Thread(target=late).start()\n"
        "  return 0\n"
        "raise SystemExit(run_and_leave(main))\n"
    )
    done = ended(script)
    assert (done.returncode, done.stdout) == (0, "late\nregistered\n")
    assert list(tmp_path.iterdir()) == []


def test_output_that_cannot_be_written_is_a_failure_with_a_sentence() -> None:
    with open("/dev/full", "w") as full:
        done = ended(
            "def main():\n  print('x')\n  return 0\nraise SystemExit(run_and_leave(main))\n",
            stdout=full.fileno(),
        )
    assert done.returncode == 1
    assert done.stderr == "penstock: cannot write to standard output: [Errno 28] No space left on device\n"


@pytest.mark.parametrize("gone", ["stdout", "stderr"])
def test_a_stream_that_nobody_opened_is_no_failure(gone: str) -> None:
    done = ended(f"sys.{gone} = None\ndef main(): return 0\nraise SystemExit(run_and_leave(main))\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_each_process_that_may_have_a_client_ends_so() -> None:
    scripts = tomllib.loads((root / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"penstock": "penstock.engine.cli.main:command"}
    for name in ("penstock/__main__.py", "engine/worker/main.py", "engine/worker/trial/main.py"):
        assert "raise SystemExit(main())" not in (root / name).read_text(), name
