"""The supervisor: N worker processes, each replaced when it dies, all drained when asked to stop."""

import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from penstock.engine.clock import Clock
from penstock.engine.worker.poison_records import Quarantine, read_note
from penstock.engine.worker.process import Command, close_stdin, exit_retry, let_begin

_restart_first_s, _restart_max_s, _healthy_after_s = 0.1, 5.0, 60.0
_look_every_s = 0.05
_kill_grace_s = 5.0


@dataclass(slots=True)
class _Worker:
    slot: int
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    restart_at_s: float = 0.0
    restart_wait_s: float = _restart_first_s
    restarts: int = 0


class Supervisor:
    """Keeps N workers running until told to stop, or until one says that starting it again would not help."""

    def __init__(
        self,
        command: Command,
        *,
        workers: int,
        run_folder: Path,
        drain_budget_s: float,
        clock: Clock,
        say: Callable[[str], None],
        ahead: subprocess.Popen[bytes] | None = None,
    ) -> None:
        """`ahead`: the first worker's process, where it was started already; it waits to be let begin."""
        self._ahead = ahead
        self._command = command
        self._run_folder = run_folder
        self._drain_budget_s = drain_budget_s
        self._clock = clock
        self._say = say
        self._quarantine = Quarantine(run_folder / "verdicts.json")
        self._workers = [_Worker(slot=slot) for slot in range(workers)]
        self._stops = 0
        self._stops_passed_on = 0

    def request_stop(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Drain all workers; asked again, stop without draining. Safe in a signal handler."""
        self._stops += 1

    @property
    def restarts(self) -> int:
        """How often a worker was replaced."""
        return sum(worker.restarts for worker in self._workers)

    def pids(self) -> dict[int, int]:
        """Process id by slot, of the workers that run now."""
        return {
            w.slot: w.process.pid for w in self._workers if w.process is not None and w.process.poll() is None
        }

    def run(self, *, each_turn: Callable[[], None] = lambda: None) -> int:
        """Supervise until stopped; the exit code of the process."""
        for worker in self._workers:
            self._start(worker)
        code = 0
        try:
            while not self._stops:
                for worker in self._workers:
                    verdict = self._look_after(worker)
                    if verdict is not None:
                        code = verdict
                        self._stops += 1
                        break
                each_turn()
                self._clock.sleep(_look_every_s)
        finally:
            stopped = self._stop_all()
        return code or stopped

    def _start(self, worker: _Worker) -> None:
        ahead, self._ahead = self._ahead, None
        worker.process = ahead or self._command.start(worker.slot, self._run_folder)
        let_begin(worker.process)
        worker.started_s = self._clock.monotonic_s()

    def _look_after(self, worker: _Worker) -> int | None:
        """Replace the worker if it died and that may help; otherwise the exit code to end with."""
        now_s = self._clock.monotonic_s()
        if worker.process is None:
            if now_s >= worker.restart_at_s:
                worker.restarts += 1
                self._start(worker)
            return None
        code = worker.process.poll()
        if code is None:
            return None
        close_stdin(worker.process)
        if code >= 0 and code != exit_retry:
            return code or 1  # nobody asked it to end: even a zero is a failure of ours
        self._learn_from(worker, code)
        if now_s - worker.started_s > _healthy_after_s:
            worker.restart_wait_s = _restart_first_s
        worker.process = None
        worker.restart_at_s = now_s + worker.restart_wait_s
        worker.restart_wait_s = min(worker.restart_wait_s * 2, _restart_max_s)
        return None

    def _learn_from(self, worker: _Worker, code: int) -> None:
        if code >= 0:
            self._say(f"worker {worker.slot} asked to be started again")
            return
        name = signal.Signals(-code).name
        in_hand = read_note(self._run_folder / f"note-{worker.slot}")
        condemned = self._quarantine.worker_died(in_hand, by_signal=-code)
        self._say(f"worker {worker.slot} died of {name}; starting another")
        for r in condemned:
            self._say(
                f"partition {r.partition} offset {r.first} killed its worker twice: it goes to the dead letters"
            )

    def _stop_all(self) -> int:
        """Ask, wait for the drain, then insist; the first exit code that is not 0."""
        deadline_s = self._clock.monotonic_s() + self._drain_budget_s + _kill_grace_s
        running = [worker.process for worker in self._workers if worker.process is not None]
        self._pass_on_stops(running)
        while any(process.poll() is None for process in running):
            if self._clock.monotonic_s() > deadline_s:
                for process in running:
                    process.kill()
            self._pass_on_stops(running)
            self._clock.sleep(_look_every_s)
        for process in running:
            close_stdin(process)
        # One that was asked while it was still starting had nothing in hand, and ends by the signal itself.
        calm = (0, exit_retry, -signal.SIGTERM)
        return next((abs(process.returncode) for process in running if process.returncode not in calm), 0)

    def _pass_on_stops(self, running: Sequence[subprocess.Popen[bytes]]) -> None:
        while self._stops_passed_on < min(self._stops, 2):
            self._stops_passed_on += 1
            for process in running:
                if process.poll() is None:
                    process.terminate()
