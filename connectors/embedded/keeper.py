"""The process between Penstock and the JVMs of its embedded Kafka: they end when it ends, and it ends when Penstock does.

Run as a script by connectors/embedded/kafka.py, and speaks with it in lines of JSON: one request on standard input, one answer on
standard output. When standard input ends, or the parent is another one than at the start, it stops the JVMs and removes a
temporary folder. It imports nothing of Penstock, so that it starts in 20 ms, and has one thread: PR_SET_PDEATHSIG, by which
the JVMs follow it even into a kill -9, acts on the death of a thread.
"""

import ctypes
import fcntl
import json
import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

pr_set_pdeathsig = 1
parent_check_s = 0.5
stop_grace_s = 20.0


class Keeper:
    """Holds a folder and the processes that work in it."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)
        self._root: Path | None = None
        self._temporary = False
        self._lock = -1
        self._pids: dict[str, int] = {}
        self._codes: dict[str, int] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what is asked; what runs and what has ended, and what went wrong."""
        wrong = None
        try:
            match request["do"]:
                case "create":
                    self._create(Path(request["root"]), request["temporary"], request["files"])
                case "start":
                    self._start(request["name"], request["command"], request["output"])
                case "signal" if request["name"] in self._pids:
                    os.kill(self._pids[request["name"]], request["signal"])
        except BlockingIOError:
            wrong = "it is in use by another one"
        except OSError as error:
            wrong = error.strerror
        self._reap()
        return {"pids": self._pids, "codes": self._codes, "wrong": wrong}

    def end(self) -> None:
        """Stop everything: at once where nothing is kept, else as Kafka wants to be stopped."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self._temporary:
            self._signal_all(signal.SIGKILL)
        else:
            self._signal_all(signal.SIGTERM)
            deadline_s = time.monotonic() + stop_grace_s
            while self._pids and time.monotonic() < deadline_s:
                time.sleep(0.02)
                self._reap()
            self._signal_all(signal.SIGKILL)
        for pid in self._pids.values():
            os.waitpid(pid, 0)
        if self._temporary and self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)

    def _create(self, root: Path, temporary: bool, files: dict[str, str]) -> None:
        root.mkdir(mode=0o700, parents=not temporary, exist_ok=not temporary)
        self._root, self._temporary = root, temporary
        self._lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(text)

    def _start(self, name: str, command: list[str], output: str) -> None:
        out = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        keeper = os.getpid()
        # A signal between fork and exec would meet our handler, and be forgotten with it: it waits instead.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        pid = os.fork()
        if pid == 0:
            try:
                self._libc.prctl(pr_set_pdeathsig, signal.SIGKILL)
                if os.getppid() == keeper:
                    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                    os.dup2(out, 1)
                    os.dup2(out, 2)
                    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
                    signal.signal(signal.SIGTERM, signal.SIG_DFL)
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
                    os.execv(command[0], command)
            finally:
                os._exit(127)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        os.close(out)
        self._pids[name] = pid
        self._codes.pop(name, None)

    def _reap(self) -> None:
        for name, pid in list(self._pids.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self._pids[name]
                self._codes[name] = os.waitstatus_to_exitcode(status)

    def _signal_all(self, number: signal.Signals) -> None:
        for pid in self._pids.values():
            os.kill(pid, number)


def main(parent: int) -> None:
    """Answer until the parent is gone."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    keeper = Keeper()
    try:
        while os.getppid() == parent:
            if not select.select([sys.stdin], [], [], parent_check_s)[0]:
                continue
            line = sys.stdin.readline()  # the parent waits for each answer, so nothing is left in the buffer
            if not line.endswith("\n"):
                break
            sys.stdout.write(json.dumps(keeper.answer(json.loads(line))) + "\n")
            sys.stdout.flush()
    except BrokenPipeError:
        pass
    finally:
        keeper.end()


if __name__ == "__main__":
    main(int(sys.argv[1]))
