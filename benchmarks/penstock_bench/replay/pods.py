"""The stand-in for a StatefulSet's controller and its kubelet: worker processes with names that return, started, probed, drained and replaced."""

import http.client
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.connectors.embedded.process import KeptProcesses
from penstock.engine.clock import Clock
from penstock_bench.replay.limits import Limits

probe_every_s: Final = 1.0
probe_timeout_s: Final = 2.0
failures_max: Final = 3
restart_after_s: Final = 2.0
"""Before a process that ended by itself is started again; Kubernetes begins with ten."""


@dataclass(kw_only=True)
class Pod:
    """A worker's process under the name of its ordinal."""

    ordinal: int
    revision: int
    process: str
    pid: int
    began_s: float
    ready_s: float | None = None  # when it first was
    ready: bool = False
    failures: int = 0
    stopping_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class PodPlan:
    """What the chart's StatefulSet says. `command` makes a worker's command line of its name, its revision and its port."""

    name: str
    command: Callable[[str, int, int], Sequence[str]]
    ports: Sequence[int]  # one for each ordinal; the one after it is used too
    grace_s: float
    cores: float  # its limit, from when it is ready: its start is given what there is


class Pods:
    """Promises: never two processes of one name; the highest ordinals go first; a revision is rolled out one by one, from the
    highest, and goes on only while all are ready. `turn` is called often, from one thread."""

    def __init__(
        self, plan: PodPlan, *, processes: KeptProcesses, limits: Limits, folder: Path, clock: Clock
    ) -> None:
        self.replicas = 0
        self.revision = 1
        self.startups_s: list[float] = []
        self.drains_s: list[float] = []
        self.killed = 0
        self.restarts = 0
        self._plan, self._processes, self._limits, self._folder, self._clock = (
            plan,
            processes,
            limits,
            folder,
            clock,
        )
        self._pods: dict[int, Pod] = {}
        self._again_s: dict[int, float] = {}
        self._started = 0
        self._closed = threading.Event()
        self._prober = threading.Thread(target=self._probe, name="probes", daemon=True)
        self._prober.start()

    @property
    def ready(self) -> int:
        """How many are."""
        return sum(pod.ready and pod.stopping_s is None for pod in self._pods.values())

    @property
    def running(self) -> int:
        """Processes, whatever they do."""
        return len(self._pods)

    @property
    def limited(self) -> str:
        """Who keeps their CPU limits, in words."""
        return self._limits.kind

    @property
    def rolled_out(self) -> bool:
        """Whether all that are asked for are of the newest revision, and ready."""
        pods = [self._pods.get(ordinal) for ordinal in range(self.replicas)]
        return all(pod is not None and pod.ready and pod.revision == self.revision for pod in pods)

    def turn(self) -> None:
        """Look at every process, and do what is next."""
        now_s = self._clock.monotonic_s()
        for pod in list(self._pods.values()):
            self._look(pod, now_s)
        for ordinal in range(self.replicas):
            if ordinal not in self._pods and now_s >= self._again_s.get(ordinal, 0.0):
                self._start(ordinal, now_s)
        for ordinal in sorted(self._pods, reverse=True):
            if ordinal >= self.replicas:
                self._stop(self._pods[ordinal], now_s)
        self._roll(now_s)

    def close(self) -> None:
        """All processes end."""
        self.replicas = 0
        while self._pods:
            self.turn()
            self._clock.sleep(0.1)
        self._closed.set()
        self._prober.join()

    def _look(self, pod: Pod, now_s: float) -> None:
        if self._processes.wait(pod.process, 0.0) is not None:
            self._limits.release(pod.pid)
            del self._pods[pod.ordinal]
            if pod.stopping_s is None:
                self.restarts += 1
                self._again_s[pod.ordinal] = now_s + restart_after_s
            else:
                self.drains_s.append(now_s - pod.stopping_s)
        elif pod.stopping_s is not None and now_s - pod.stopping_s > self._plan.grace_s:
            self.killed += 1
            self._processes.signal(pod.process, signal.SIGKILL)
        elif pod.ready and pod.ready_s is None:
            pod.ready_s = now_s
            self.startups_s.append(now_s - pod.began_s)
            self._limits.hold(pod.pid, self._plan.cores)

    def _start(self, ordinal: int, now_s: float) -> None:
        self._started += 1
        name = f"{self._plan.name}-{ordinal}"
        process = f"{name}.{self._started}"
        command = self._plan.command(name, self.revision, self._plan.ports[ordinal])
        self._processes.start(process, command, output=self._folder / f"{process}.log")
        pid = self._processes.pid(process) or 0
        self._pods[ordinal] = Pod(
            ordinal=ordinal, revision=self.revision, process=process, pid=pid, began_s=now_s
        )

    def _stop(self, pod: Pod, now_s: float) -> None:
        if pod.stopping_s is None:
            pod.stopping_s, pod.ready = now_s, False
            self._processes.signal(pod.process, signal.SIGTERM)

    def _roll(self, now_s: float) -> None:
        pods = [self._pods.get(ordinal) for ordinal in range(self.replicas)]
        old = [pod for pod in pods if pod is not None and pod.revision != self.revision]
        if old and self.ready == len(self._pods) == self.replicas:
            self._stop(old[-1], now_s)

    def _probe(self) -> None:
        while not self._closed.wait(probe_every_s):
            for pod in list(self._pods.values()):
                if pod.stopping_s is not None:
                    continue
                answered = self._answers(self._plan.ports[pod.ordinal])
                pod.failures = 0 if answered else pod.failures + 1
                ready = answered or (pod.ready and pod.failures < failures_max)
                pod.ready = ready and pod.stopping_s is None

    def _answers(self, port: int) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=probe_timeout_s)
        try:
            connection.request("GET", "/ready")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
