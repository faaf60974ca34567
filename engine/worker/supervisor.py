"""The supervisor: N worker processes, each replaced when it dies, all drained when asked to stop."""

import signal
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from penstock.engine.clock import Clock
from penstock.engine.worker.poison_records import (
    Quarantine,
    library_signals,
    read_careful_places,
    read_vitals,
)
from penstock.engine.worker.process import (
    Command,
    close_stdin,
    exit_not_ready,
    exit_retry,
    let_begin,
    not_warm,
)

_restart_first_s, _restart_max_s, _healthy_after_s = 0.1, 5.0, 60.0
_look_every_s = 0.05
_vitals_every_s = 0.5
_places_named_max = 5
beat_age_max_s = 60.0
"""The polling loop turns ten times a second; one that stands still for so long is ended."""
_kill_grace_s = 5.0
_calm = (0, exit_retry, -signal.SIGTERM)
"""Exit codes of workers that were asked to stop: one that was still starting had nothing in hand, and ends by the signal itself."""


@dataclass(slots=True)
class _Worker:
    slot: int
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    restart_at_s: float = 0.0
    restart_wait_s: float = _restart_first_s
    restarts: int = 0
    looked_s: float = 0.0
    batch: float = 0.0
    batch_held_s: float = 0.0
    beat: float = 0.0
    beat_still_s: float = 0.0
    warming_s: float = 0.0
    hung: bool = False  # it did not come back from its batch
    killed: bool = False  # by us, who said why
    warm: bool = False
    careful: int = 0  # so many died one after the other of the client library's fault, as far as can be told
    places: dict[int, tuple[int, str]] = field(default_factory=dict)  # where the last of those began
    replaced_until_s: float | None = (
        None  # asked to drain, so that another takes its place; ended then at the latest
    )


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
        warmup_s_max: float = 300.0,
        ahead: subprocess.Popen[bytes] | None = None,
    ) -> None:
        """`warmup_s_max`: how long a worker may take from its start until its model is warm. `ahead`: the first worker's process, where it was started and let begin already."""
        self._ahead = ahead
        self._command = command
        self._run_folder = run_folder
        self._drain_budget_s = drain_budget_s
        self._clock = clock
        self._say = say
        self._warmup_s_max = warmup_s_max
        self._fault_told = ""
        self._quarantine = Quarantine(run_folder / "verdicts.json")
        self._workers = [_Worker(slot=slot) for slot in range(workers)]
        self._stops = 0
        self._stops_passed_on = 0
        self._replace_due: deque[int] = deque()  # slots; other threads append

    def request_replacement(self, slots: Sequence[int]) -> None:
        """Drain these workers and start others in their places, one after the other: the next when the last one's is warm.

        Settings, secrets and certificates are read anew. Safe from any thread.
        """
        self._replace_due.extend(slot for slot in slots if slot not in self._replace_due)

    def request_stop(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Drain all workers; asked again, stop without draining. Safe in a signal handler."""
        self._stops += 1

    def pass_on(self, number: signal.Signals) -> None:
        """Send a signal to the workers that listen to it: those whose model is warm. One that still starts would die of it."""
        for worker in self._workers:
            if worker.warm and worker.process is not None and worker.process.poll() is None:
                worker.process.send_signal(number)

    def stay(self, at_most_s: float) -> None:
        """After `run` ended by itself: wait so long, or until asked to stop."""
        until_s = self._clock.monotonic_s() + at_most_s
        while self._stops < 2 and self._clock.monotonic_s() < until_s:  # the first stop was its own
            self._clock.sleep(_look_every_s)

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
                self._replace_next()
                if self._quarantine.fault:
                    self._quarantine.write()
                    self._tell_fault()
                each_turn()
                self._clock.sleep(_look_every_s)
        finally:
            stopped = self._stop_all()
        return code or stopped

    def _start(self, worker: _Worker) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            with suppress(OSError):  # what the last one left would be taken for a sign of life
                self._note(worker).unlink(missing_ok=True)
                self._places(worker).unlink(missing_ok=True)
            worker.process = self._command.start(worker.slot, self._run_folder, careful=worker.careful)
            let_begin(worker.process)
        else:
            worker.process = ahead
        worker.started_s = worker.looked_s = self._clock.monotonic_s()
        worker.batch_held_s = worker.beat_still_s = worker.warming_s = 0.0
        worker.batch = worker.beat = 0.0
        worker.hung = worker.killed = worker.warm = False
        worker.replaced_until_s = None

    def _replace_next(self) -> None:
        """One at a time, and only while all others work."""
        if not self._replace_due or not all(worker.warm for worker in self._workers):
            return
        worker = self._workers[self._replace_due.popleft()]
        if worker.process is not None and worker.process.poll() is None:
            worker.process.terminate()
            worker.warm = False
            worker.replaced_until_s = self._clock.monotonic_s() + self._drain_budget_s + _kill_grace_s
            self._say(f"worker {worker.slot} drains, to be replaced as asked")

    def _note(self, worker: _Worker) -> Path:
        return self._run_folder / f"note-{worker.slot}"

    def _places(self, worker: _Worker) -> Path:
        return self._run_folder / f"careful-{worker.slot}"

    def _look_after(self, worker: _Worker) -> int | None:
        """Replace the worker if it died and that may help; otherwise the exit code to end with."""
        now_s = self._clock.monotonic_s()
        if worker.process is None:
            if now_s >= worker.restart_at_s:
                worker.restarts += 1
                self._start(worker)
            return None
        code = worker.process.poll()
        if code is None and worker.replaced_until_s is not None:
            if now_s > worker.replaced_until_s and not worker.killed:
                self._kill_late(worker, worker.process)
            return None
        if code is None:
            return self._look_at_vitals(worker, worker.process, now_s)
        close_stdin(worker.process)
        if worker.replaced_until_s is not None:
            self._tell_death(worker, code)
            self._start(worker)
            return None
        if code >= 0 and code != exit_retry:
            return code or 1  # nobody asked it to end: even a zero is a failure of ours
        self._learn_from(worker, code)
        if now_s - worker.started_s > _healthy_after_s:
            worker.restart_wait_s = _restart_first_s
        worker.process = None
        worker.restart_at_s = now_s + worker.restart_wait_s
        worker.restart_wait_s = min(worker.restart_wait_s * 2, _restart_max_s)
        return None

    def _look_at_vitals(
        self, worker: _Worker, process: "subprocess.Popen[bytes]", now_s: float
    ) -> int | None:
        """End a worker that does not come back from its batch, whose loop stands still, or that does not get warm.

        Time is counted only as far as we saw it pass, so that a machine that was suspended kills nobody.
        """
        passed_s = now_s - worker.looked_s
        if passed_s < _vitals_every_s:
            return None
        worker.looked_s = now_s
        passed_s = min(passed_s, 2 * _vitals_every_s)
        vitals = read_vitals(self._note(worker))
        if not vitals.warm:
            # One that beats before it is warm waits for Kafka, and loads nothing yet.
            worker.warming_s = worker.warming_s + passed_s if vitals.beat == worker.beat else 0.0
            worker.beat = vitals.beat
            if worker.warming_s <= self._warmup_s_max:
                return None
            self._say(not_warm(f"worker {worker.slot}", worker.warming_s))
            _kill(worker, process)
            return exit_not_ready
        worker.warm = True
        same = vitals.ranges and vitals.batch == worker.batch
        worker.batch_held_s = worker.batch_held_s + passed_s if same else 0.0
        worker.beat_still_s = worker.beat_still_s + passed_s if vitals.beat == worker.beat else 0.0
        worker.batch, worker.beat = vitals.batch, vitals.beat
        if worker.batch_held_s > vitals.bound_s:
            worker.hung = True
            self._say(
                f"worker {worker.slot} has been computing one batch for {worker.batch_held_s:.0f} s, longer than "
                f"model.batch_s_max allows ({vitals.bound_s:.0f} s): it is ended, and its records are tried one by one"
            )
            _kill(worker, process)
        elif worker.beat_still_s > beat_age_max_s:
            self._say(
                f"worker {worker.slot} has not turned its loop for {worker.beat_still_s:.0f} s: it is ended"
            )
            _kill(worker, process)
        return None

    def _learn_from(self, worker: _Worker, code: int) -> None:
        if code >= 0:
            worker.careful, worker.places = 0, {}
            self._say(f"worker {worker.slot} asked to be started again")
            return
        name = signal.Signals(-code).name
        vitals = read_vitals(self._note(worker))
        in_hand = list(vitals.ranges)
        # To hang is a record's own doing, as a fault of the process is.
        condemned = self._quarantine.worker_died(in_hand, by_signal=signal.SIGABRT if worker.hung else -code)
        self._tell_fault()
        self._say(f"worker {worker.slot} died of {name}; starting another")
        for r in condemned:
            self._say(
                f"partition {r.partition} offset {r.first} killed its worker twice: it goes to the dead letters"
            )
        if -code in library_signals and vitals.warm and not condemned:
            self._take_care(worker, name)
        else:
            worker.careful, worker.places = 0, {}

    def _take_care(self, worker: _Worker, name: str) -> None:
        """It may have been the client library, at bytes that it cannot read: the next worker looks at those by hand first."""
        places = read_careful_places(self._places(worker))
        if worker.careful and places and places == worker.places:
            named = [f"partition {p} at offset {at} ({what})" for p, (at, what) in sorted(places.items())]
            more = f" and {len(named) - _places_named_max} more" if len(named) > _places_named_max else ""
            self._say(
                f"worker {worker.slot} read carefully and died of {name} twice at the same place, with no broken batch to pass over: "
                f"{', '.join(named[:_places_named_max])}{more}; penstock offsets reset --partition P --to-offset N moves a "
                "position with the workers stopped"
            )
        worker.places = places
        worker.careful += 1
        self._say(
            f"worker {worker.slot} died of {name}, perhaps of what its Kafka client could not read: the next one reads carefully"
        )

    def _tell_fault(self) -> None:
        if self._quarantine.fault and self._quarantine.fault != self._fault_told:
            self._say(
                f"which records kill workers cannot be noted in {self._run_folder}: {self._quarantine.fault}; "
                "trying on, and until then such a record kills again"
            )
        self._fault_told = self._quarantine.fault

    def _stop_all(self) -> int:
        """Ask, wait for the drain, then insist; the first exit code that is not 0, and 1 for a worker that a signal ended."""
        deadline_s = self._clock.monotonic_s() + self._drain_budget_s + _kill_grace_s
        stopping = [(worker, worker.process) for worker in self._workers if worker.process is not None]
        running = [process for _, process in stopping]
        self._pass_on_stops(running)
        while any(process.poll() is None for process in running):
            if self._clock.monotonic_s() > deadline_s:
                for worker, process in stopping:
                    if process.poll() is None and not worker.killed:
                        self._kill_late(worker, process)
            self._pass_on_stops(running)
            self._clock.sleep(_look_every_s)
        for worker, process in stopping:
            close_stdin(process)
            self._tell_death(worker, process.returncode)
        codes = (process.returncode for process in running if process.returncode not in _calm)
        return next((code if code > 0 else 1 for code in codes), 0)

    def _kill_late(self, worker: _Worker, process: subprocess.Popen[bytes]) -> None:
        given_s = self._drain_budget_s + _kill_grace_s
        self._say(
            f"worker {worker.slot} has not ended {given_s:.0f} s after it was asked to: it is killed; what it had "
            "not committed is read again"
        )
        _kill(worker, process)

    def _tell_death(self, worker: _Worker, code: int) -> None:
        """Of one that was asked to stop, where a signal ended it that we did not send."""
        if code < 0 and code not in _calm and not worker.killed:
            self._say(
                f"worker {worker.slot} died of {signal.Signals(-code).name} while it stopped; what it had not "
                "committed is read again"
            )

    def _pass_on_stops(self, running: Sequence[subprocess.Popen[bytes]]) -> None:
        while self._stops_passed_on < min(self._stops, 2):
            self._stops_passed_on += 1
            for process in running:
                if process.poll() is None:
                    process.terminate()


def _kill(worker: _Worker, process: subprocess.Popen[bytes]) -> None:
    worker.killed = True
    process.kill()
