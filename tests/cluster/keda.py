"""KEDA's own client of external scalers, in a program of its own."""

import json
import queue
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from tests.cluster.built import Programs

_answer_timeout_s: Final = 60.0
metric: Final = "s0-penstock-required-replicas"


class KedaClient:
    """The program go/kedaclient, with a trigger."""

    def __init__(
        self, programs: Programs, metadata: dict[str, str], auth: dict[str, str] | None = None
    ) -> None:
        self._process = subprocess.Popen(
            [programs["keda-client"]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self.all: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self._write(json.dumps({"metadata": metadata, "auth": auth or {}}))

    def __enter__(self) -> "KedaClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(10)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def specs(self) -> list[dict[str, Any]]:
        """GetMetricSpecForScaling: what the autoscaler is given."""
        self._write("specs")
        found: list[dict[str, Any]] = self.next("specs")["specs"] or []
        return found

    def metrics(self, name: str = metric) -> dict[str, Any]:
        """GetMetricsAndActivity: values, active, took_ms, and error where there is one."""
        self._write(f"metrics {name}")
        return self.next("metrics")

    def run(self) -> None:
        """Run: from now on there are answers called active."""
        self._write("run")
        self.next("running")

    def next(self, what: str, timeout_s: float = _answer_timeout_s) -> dict[str, Any]:
        """The next answer of this name; those of others before it are in `all` alone."""
        end_s = time.monotonic() + timeout_s
        while True:
            try:
                line = self._lines.get(timeout=max(end_s - time.monotonic(), 0.0))
            except queue.Empty:
                raise AssertionError(f"no {what} within {timeout_s:g} s; before: {self.all[-5:]}") from None
            if line["what"] == what:
                return line

    def errors(self) -> list[str]:
        """What KEDA's code has written into its log as an error."""
        logs = [json.loads(line["line"]) for line in self.all if line["what"] == "log"]
        return [f"{each['msg']}: {each['error']}" for each in logs if "error" in each]

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            try:
                line = json.loads(text)
            except ValueError:
                line = {"what": "broken", "text": text}
            self.all.append(line)
            self._lines.put(line)


def pem(path: Path) -> str:
    """As a TriggerAuthentication hands it over."""
    return path.read_text()
