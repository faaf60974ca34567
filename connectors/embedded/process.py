"""The parent's end of connectors/embedded/keeper.py: child processes that cannot outlive us."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from penstock.schemas.errors import ConfigError, InvariantError

keeper: Final = Path(__file__).with_name("keeper.py")
poll_s: Final = 0.02
close_grace_s: Final = 30.0


class KeptProcesses:
    """A folder, and processes that work in it, until close() or the end of this process, whichever way it ends.

    A temporary folder goes with the processes. May be used from several threads.
    """

    def __init__(self, *, root: Path, temporary: bool, files: Mapping[str, str]) -> None:
        """Make `root` with these files in it. Raises ConfigError when that cannot be, or another one uses it."""
        self._lock = threading.Lock()
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(keeper), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # a terminal's Ctrl-C is for us alone
        )
        made = self._ask(do="create", root=str(root), temporary=temporary, files=dict(files))
        if made["wrong"]:
            self.close()
            raise ConfigError(f"the embedded Kafka cannot work in {root}: {made['wrong']}")

    def start(self, name: str, command: Sequence[str], *, output: Path) -> None:
        """Run a command; what it prints replaces what is in `output`."""
        began = self._ask(do="start", name=name, command=list(command), output=str(output))
        if began["wrong"]:
            raise ConfigError(f"cannot run {command[0]}: {began['wrong']}")

    def pid(self, name: str) -> int | None:
        """Its process id while it runs."""
        pid: int | None = self._ask(do="look")["pids"].get(name)
        return pid

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal; nothing happens when it has ended."""
        self._ask(do="signal", name=name, signal=number)

    def wait(self, name: str, timeout_s: float) -> int | None:
        """Its exit code (negative: the signal that ended it), None while it runs still."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            state = self._ask(do="look")
            if name not in state["pids"]:
                return int(state["codes"].get(name, 0))
            if time.monotonic() >= deadline_s:
                return None
            time.sleep(poll_s)

    def close(self) -> None:
        """End all processes, and wait for that. Idempotent."""
        with self._lock:
            for pipe in (self._keeper.stdin, self._keeper.stdout):
                if pipe is not None:
                    pipe.close()
            try:
                self._keeper.wait(close_grace_s)
            except subprocess.TimeoutExpired:
                self._keeper.kill()  # the processes follow
                self._keeper.wait()

    def _ask(self, **request: Any) -> dict[str, Any]:
        with self._lock:
            stdin, stdout = self._keeper.stdin, self._keeper.stdout
            if stdin is None or stdout is None or stdin.closed:
                raise InvariantError("the embedded Kafka is closed")
            try:
                stdin.write(json.dumps(request) + "\n")
                stdin.flush()
                answer: dict[str, Any] = json.loads(stdout.readline())
            except (BrokenPipeError, ValueError) as error:
                raise InvariantError("the process that keeps the embedded Kafka has ended") from error
            return answer
