"""Runs one broker process for a parent, and ends it when the parent is gone, however it went.

Started as `python -m connectors.embedded_watch LOG TRASH -- COMMAND ...`. The parent holds the other end of our standard
input: its end, by close, exit or kill -9, is our end of file. Then the broker is stopped and TRASH is removed, if given.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

stop_patience_s = 5.0
_pr_set_pdeathsig = 1


def main(argv: list[str]) -> int:
    """Run until the command ends or the parent does; the command's exit code."""
    log, trash, _, *command = argv
    os.setsid()  # a Ctrl+C at the terminal is for the parent, which then ends us in order
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with Path(log).open("ab") as output:
        broker = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=_die_with_us,
        )
    threading.Thread(target=_end_with_parent, args=(broker,), daemon=True).start()
    code = broker.wait()
    if trash and _parent_gone.wait(0.2):
        shutil.rmtree(trash, ignore_errors=True)
    return code if code >= 0 else 128 - code


_parent_gone = threading.Event()


def _end_with_parent(broker: subprocess.Popen[bytes]) -> None:
    word = os.read(0, 1)
    if not word:
        _parent_gone.set()
    if word == b"k":
        broker.kill()
        return
    broker.terminate()
    try:
        broker.wait(stop_patience_s)
    except subprocess.TimeoutExpired:
        broker.kill()


def _die_with_us() -> None:
    """In the child, before exec: should even this watcher be killed, the kernel ends the broker."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_pr_set_pdeathsig, signal.SIGKILL)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
