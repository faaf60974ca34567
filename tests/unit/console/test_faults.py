"""What ends a process or a thread unexpectedly is shown like every string: without what acts on a terminal, and in the log where there is one."""

import json
import subprocess
import sys

import pytest

hostile = "\x1b]0;PWNED\x07\x9b2J\u202e"
script = f"""
import sys, threading, warnings
from penstock.engine.console.faults import show_faults
show_faults()
if "log" in sys.argv:
    from penstock.engine.console.logs import configure_logging
    configure_logging("worker 0", form="json")
def fails():
    raise ValueError("cannot read " + {hostile!r})
if "thread" in sys.argv:
    thread = threading.Thread(target=fails, name="a-thread"); thread.start(); thread.join()
elif "warning" in sys.argv:
    warnings.warn("old " + {hostile!r}, FutureWarning)
elif "interrupt" in sys.argv:
    raise KeyboardInterrupt
else:
    fails()
"""


def run(*words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, timeout=60, check=False
    )
    return done.returncode, done.stderr.decode()


@pytest.mark.parametrize("where", ["process", "thread"])
def test_a_fault_is_written_without_what_acts(where: str) -> None:
    code, said = run(where)
    assert code == (1 if where == "process" else 0)
    assert "Traceback" in said
    assert r"cannot read \x1b]0;PWNED\x07\x9b2J\u202e" in said
    assert all(character == "\n" or character.isprintable() for character in said)


@pytest.mark.parametrize("where", ["process", "thread", "warning"])
def test_with_a_log_it_is_a_line_like_the_others(where: str) -> None:
    _, said = run(where, "log")
    (line,) = said.splitlines()
    told = json.loads(line)
    assert all(character.isprintable() for character in line)
    if where == "warning":
        assert told["log.level"] == "warning"
        assert r"old \x1b]0;PWNED" in told["message"]
        return
    assert (told["log.level"], told["event.code"], told["error.type"]) == (
        "critical",
        "unexpected_fault",
        "ValueError",
    )
    assert "in fails" in told["error.stack_trace"]
    assert ("a-thread" in told["message"]) == (where == "thread")


def test_an_interrupt_stays_one() -> None:
    code, said = run("interrupt", "log")
    assert code in (130, -2)
    assert "unexpected_fault" not in said
