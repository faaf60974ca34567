"""SIGUSR1: every thread's stack on standard error, also of one that holds the interpreter, and the process goes on."""

import signal
import subprocess
import sys

script = """
import signal, sys, threading, time
from penstock.engine.console.stacks import write_stacks_on_signal
told = threading.Event()
write_stacks_on_signal(then=told.set if "then" in sys.argv else None)
def waits_for_work(): threading.Event().wait(30)
threading.Thread(target=waits_for_work, daemon=True).start()
print("up", flush=True)
if "then" in sys.argv: assert told.wait(20)
else:
    def holds_the_interpreter(): sum(range(10 ** 8))
    holds_the_interpreter()
sys.stdin.readline()
print("went on", flush=True)
"""


def stacks(*words: str) -> str:
    running = subprocess.Popen(
        [sys.executable, "-c", script, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    assert running.stdout is not None
    assert running.stdout.readline() == "up\n"
    running.send_signal(signal.SIGUSR1)
    out, error = running.communicate("\n", timeout=60)
    assert (running.returncode, out) == (0, "went on\n")
    return error


def test_the_stack_of_every_thread_is_written_and_the_process_goes_on() -> None:
    found = stacks()
    assert "waits_for_work" in found
    assert found.count("most recent call first") == 2


def test_who_asked_for_it_is_called_as_well() -> None:
    assert "waits_for_work" in stacks("then")
