"""The supervisor over real processes: who is replaced, who ends everything, and what the exit code says."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.engine.clock import SystemClock
from penstock.engine.worker.process import Command, exit_retry, let_begin, started_ahead
from penstock.engine.worker.supervisor import Supervisor

patience_s = 20.0
listens = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); up(); sys.stdin.read()"


class House:
    """A supervisor on a thread, over processes that run a script; `up()` in it says that it has come so far."""

    def __init__(
        self,
        folder: Path,
        script: str,
        *,
        workers: int = 1,
        drain_budget_s: float = 5.0,
        warmup_s_max: float = 300.0,
    ) -> None:
        self.said: list[str] = []
        self.folder = folder
        begin = (
            "import os, pathlib, signal, sys\n"
            f"folder = pathlib.Path({str(folder)!r})\n"
            "def up(): (folder / f'up-{os.getpid()}').touch()\n"
            "try: (folder / 'first').touch(exist_ok=False); first = True\n"
            "except FileExistsError: first = False\n"
        )
        self.supervisor = Supervisor(
            Command(argv=(sys.executable, "-c", begin + script)),
            workers=workers, run_folder=folder, drain_budget_s=drain_budget_s, clock=SystemClock(), say=self.said.append,
            warmup_s_max=warmup_s_max,
        )  # fmt: skip
        self._code: int | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self._code = self.supervisor.run()

    def up(self) -> list[int]:
        """Workers that run and said so."""
        return [pid for pid in self.supervisor.pids().values() if (self.folder / f"up-{pid}").exists()]

    def until(self, met: Callable[[], bool]) -> None:
        end_s = time.monotonic() + patience_s
        while not met():
            assert time.monotonic() < end_s
            time.sleep(0.01)

    def end(self) -> int | None:
        self._thread.join(patience_s)
        assert not self._thread.is_alive()
        return self._code


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Callable[..., House]]:
    opened: list[House] = []

    def make(script: str, **how: float) -> House:
        opened.append(House(tmp_path, script, **how))  # type: ignore[arg-type]
        return opened[-1]

    yield make
    for each in opened:
        each.supervisor.request_stop()
        for pid in each.supervisor.pids().values():
            os.kill(pid, signal.SIGKILL)
        each.end()


def test_a_worker_that_is_killed_is_replaced(house: Callable[..., House]) -> None:
    running = house(listens)
    running.until(lambda: len(running.up()) == 1)
    (pid,) = running.up()
    os.kill(pid, signal.SIGKILL)
    running.until(lambda: running.supervisor.restarts == 1 and len(running.up()) == 1)
    running.supervisor.request_stop()
    assert running.end() == 0
    assert running.said == ["worker 0 died of SIGKILL; starting another"]


def test_a_worker_may_ask_to_be_started_again(house: Callable[..., House]) -> None:
    running = house(f"if first: sys.exit({exit_retry})\n{listens}")
    running.until(lambda: len(running.up()) == 1)
    assert running.supervisor.restarts == 1
    running.supervisor.request_stop()
    assert running.end() == 0


@pytest.mark.parametrize(("ends_with", "code"), [(2, 2), (3, 3), (1, 1), (0, 1)])
def test_a_worker_whose_fault_stays_ends_all_of_them(
    house: Callable[..., House], ends_with: int, code: int
) -> None:
    """Even a zero, which nobody asked for."""
    running = house(f"if first: sys.exit({ends_with})\n{listens}", workers=2)
    assert running.end() == code
    assert running.supervisor.pids() == {}


def test_after_a_fenced_worker_it_stays_for_a_scrape_or_until_it_is_stopped(
    house: Callable[..., House],
) -> None:
    running = house("sys.exit(3)")
    assert running.end() == 3
    began_s = time.monotonic()
    running.supervisor.stay(0.2)
    assert time.monotonic() - began_s >= 0.2
    stopper = threading.Timer(0.1, running.supervisor.request_stop)
    stopper.start()
    running.supervisor.stay(10 * patience_s)
    assert time.monotonic() - began_s < patience_s
    stopper.join()


def test_a_worker_stopped_while_it_still_starts_is_no_failure(house: Callable[..., House]) -> None:
    running = house("up(); sys.stdin.read()")  # has not come so far as to listen to signals
    running.until(lambda: len(running.up()) == 1)
    running.supervisor.request_stop()
    assert running.end() == 0


def test_a_worker_that_does_not_drain_in_time_is_killed(house: Callable[..., House]) -> None:
    running = house(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); up()\nwhile True: signal.pause()", drain_budget_s=-4.8
    )
    running.until(lambda: len(running.up()) == 1)
    running.supervisor.request_stop()
    assert running.end() == 1
    assert running.said == [
        "worker 0 has not ended 0 s after it was asked to: it is killed; what it had not committed is read again"
    ]


def test_a_worker_that_dies_while_it_stops_is_told_and_is_a_failure(house: Callable[..., House]) -> None:
    running = house(
        "signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGSEGV)); up()\nwhile True: signal.pause()"
    )
    running.until(lambda: len(running.up()) == 1)
    running.supervisor.request_stop()
    assert running.end() == 1
    assert running.said == [
        "worker 0 died of SIGSEGV while it stopped; what it had not committed is read again"
    ]


def test_a_second_stop_reaches_the_workers(house: Callable[..., House]) -> None:
    running = house(
        "stops = []\n"
        "def stop(*_):\n  stops.append(1)\n  (folder / f'stops-{len(stops)}').touch()\n  len(stops) == 2 and sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop); up()\nwhile True: signal.pause()"
    )
    running.until(lambda: len(running.up()) == 1)
    running.supervisor.request_stop()
    running.until(lambda: (running.folder / "stops-1").exists())
    running.supervisor.request_stop()
    assert running.end() == 0
    assert (running.folder / "stops-2").exists()


waits = "import pathlib, sys\nsys.stdin.buffer.read(1) and pathlib.Path(sys.argv[-1], 'began').touch()\nsys.stdin.read()"


def test_a_worker_started_ahead_does_nothing_until_it_is_let_begin(tmp_path: Path) -> None:
    command = Command(argv=(sys.executable, "-c", waits))
    with started_ahead(command, tmp_path) as process:
        assert process.poll() is None
    assert process.returncode is not None  # gone, and without having begun
    assert not (tmp_path / "began").exists()
    with started_ahead(command, tmp_path) as process:
        let_begin(process)
        end_s = time.monotonic() + patience_s
        while not (tmp_path / "began").exists():
            assert time.monotonic() < end_s
            time.sleep(0.01)


def test_a_process_started_ahead_is_the_first_worker_and_is_replaced_like_any(tmp_path: Path) -> None:
    command = Command(argv=(sys.executable, "-c", waits))
    with started_ahead(command, tmp_path) as process:
        let_begin(process)
        supervisor = Supervisor(
            command, workers=2, run_folder=tmp_path, drain_budget_s=5.0, clock=SystemClock(), say=lambda _: None, ahead=process,
        )  # fmt: skip
        seen: list[dict[int, int]] = []

        def turn() -> None:
            seen.append(supervisor.pids())
            if len(seen) == 1:
                process.kill()
            elif len(seen[-1]) == 2 and seen[-1][0] != process.pid:
                supervisor.request_stop()

        supervisor.run(each_turn=turn)
    assert seen[0][0] == process.pid
    assert len({pid for pids in seen for pid in pids.values()}) == 3


def test_a_worker_that_is_never_let_begin_leaves_with_its_supervisor(tmp_path: Path) -> None:
    """The real one: its supervisor may find the settings wrong, or be gone, while it still loads its libraries."""
    process = Command(arguments=("absent.yaml",)).start(0, tmp_path)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(patience_s) in (0, -signal.SIGTERM)


noted = (
    "from penstock.engine.worker.poison_records import InFlightLog, Isolation, Range\n"
    "note = InFlightLog(folder / 'note-0'); note.warm(bound_s=1.0)\n"
)


def test_a_worker_that_does_not_come_back_from_a_batch_is_ended_and_its_record_is_isolated(
    house: Callable[..., House],
) -> None:
    """In company first, then alone: the second time the record is condemned, and the third worker lives."""
    running = house(
        f"{noted}import json, time\n"
        "verdicts = json.loads((folder / 'verdicts.json').read_text())\n"
        "if not verdicts['condemned']:\n"
        "  note.write([Range(partition=3, first=7, next=8 if verdicts['suspects'] else 9)]); up(); time.sleep(60)\n"
        f"{listens.replace('up();', 'up(); [(note.beat(), time.sleep(0.1)) for _ in range(30)];')}"
    )
    running.until(lambda: len(running.said) == 5)
    assert "has been computing one batch for" in running.said[0]
    assert "model.batch_s_max allows (1 s)" in running.said[0]
    assert running.said[4].startswith("partition 3 offset 7 killed its worker twice")
    running.until(lambda: len(running.up()) == 1)
    assert running.supervisor.restarts == 2


def test_a_worker_that_takes_batch_after_batch_is_left_alone(house: Callable[..., House]) -> None:
    running = house(
        f"{noted}import time\nup()\n"
        "for number in range(30): note.write([Range(partition=0, first=number, next=number + 2)]); note.beat(); time.sleep(0.1)\n"
        f"{listens}"
    )
    running.until(lambda: len(running.up()) == 1)
    time.sleep(2.5)
    assert running.said == []


def test_a_worker_that_does_not_get_warm_ends_everything_with_one_sentence(
    house: Callable[..., House],
) -> None:
    running = house("import time; up(); time.sleep(60)", warmup_s_max=1.0)
    assert running.end() == 4
    (said,) = running.said
    assert "was not ready in" in said
    assert "model.warmup_s_max" in said


def test_a_full_disk_when_a_worker_dies_does_not_end_the_others(
    house: Callable[..., House], tmp_path: Path
) -> None:
    """Something else stands where the verdicts are written, which is the same to whoever writes them."""
    running = house(f"{listens}")
    running.until(lambda: len(running.up()) == 1)
    (pid,) = running.up()
    blocked = tmp_path / "verdicts.new"
    blocked.mkdir()
    os.kill(pid, signal.SIGKILL)
    running.until(lambda: running.supervisor.restarts == 1 and len(running.up()) == 1)
    assert any("cannot be noted" in said for said in running.said)
    blocked.rmdir()
    written_s = (tmp_path / "verdicts.json").stat().st_mtime
    running.until(lambda: (tmp_path / "verdicts.json").stat().st_mtime > written_s)  # made good


def test_a_worker_that_waits_for_kafka_is_not_taken_for_one_that_does_not_get_warm(
    house: Callable[..., House],
) -> None:
    """It beats meanwhile; its time begins when it stops to."""
    running = house(
        "from penstock.engine.worker.poison_records import InFlightLog\n"
        "import time\nnote = InFlightLog(folder / 'note-0')\nup()\n"
        "for _ in range(30): note.beat(); time.sleep(0.1)\n"
        "(folder / 'waited').touch(); time.sleep(60)",
        warmup_s_max=1.5,
    )
    assert running.end() == 4
    assert (running.folder / "waited").exists()


works = (
    "import threading, time\n"
    "from penstock.engine.worker.poison_records import InFlightLog\n"
    "note = InFlightLog(folder / f'note-{sys.argv[sys.argv.index(\"--slot\") + 1]}')\n"
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); note.warm(bound_s=60.0); up()\n"
    "while True: note.beat(); time.sleep(0.1)\n"
)


def test_a_signal_is_passed_on_to_warm_workers_and_kills_none_that_starts(
    house: Callable[..., House],
) -> None:
    listening = works.replace(
        "up()", "signal.signal(signal.SIGUSR1, lambda *_: (folder / 'heard').touch()); up()"
    )
    running = house(f"if first: up(); sys.stdin.read()\n{listening}", workers=2)
    running.until(lambda: len(running.up()) == 2)
    running.until(lambda: running.supervisor.pass_on(signal.SIGUSR1) or (running.folder / "heard").exists())
    assert running.supervisor.restarts == 0
    assert len(running.up()) == 2


def test_workers_are_replaced_one_after_the_other_as_asked_and_that_is_no_failure(
    house: Callable[..., House],
) -> None:
    running = house(works, workers=3)
    running.until(lambda: len(running.up()) == 3)
    before = set(running.up())
    running.supervisor.request_replacement([0, 1, 2])
    running.supervisor.request_replacement([0])  # it is on its way already
    fewest = 3
    while set(running.up()) & before or len(running.up()) < 3:
        fewest = min(fewest, len(running.supervisor.pids()))
        running.until(lambda: True)
        time.sleep(0.01)
    assert fewest >= 2
    assert running.supervisor.restarts == 0
    running.supervisor.request_stop()
    assert running.end() == 0
    assert len([line for line in running.said if "to be replaced as asked" in line]) == 3


def test_a_worker_that_does_not_drain_when_it_is_to_be_replaced_is_ended(house: Callable[..., House]) -> None:
    running = house(works.replace("lambda *_: sys.exit(0)", "signal.SIG_IGN"), drain_budget_s=-4.8)
    running.until(lambda: len(running.up()) == 1)
    (before,) = running.up()
    running.supervisor.request_replacement([0])
    running.until(lambda: running.up() not in ([], [before]))
    assert running.supervisor.restarts == 0
    assert any("it is killed; what it had not committed is read again" in line for line in running.said)
    running.supervisor.request_stop()
    running.end()


lives = """
from penstock.engine.worker.poison_records import CarefulPlaces, InFlightLog, Range
life = len(list(folder.glob('life-*')))
(folder / f'life-{life}').write_text(' '.join(a for a in sys.argv[1:] if a != str(folder)))
note = InFlightLog(folder / 'note-0')
def die(number, *ranges, warm=True, places=()):
    if warm: note.warm(bound_s=60.0)
    note.write([Range(partition=0, first=first, next=behind) for first, behind in ranges])
    told = CarefulPlaces(folder / 'careful-0')
    for partition, offset in places: told.note(partition, offset, 'sound')
    os.kill(os.getpid(), number)
"""


def careful_lives(running: House) -> list[bool]:
    """Of each life, whether it was told to read carefully."""
    return ["--careful" in file.read_text() for file in sorted(running.folder.glob("life-*"))]


@pytest.mark.parametrize(
    ("death", "careful"),
    [
        ("signal.SIGABRT", True),
        ("signal.SIGSEGV, (3, 40)", True),  # they may be innocent of it
        ("signal.SIGKILL", False),
        ("signal.SIGABRT, warm=False", False),  # before it had read anything
    ],
)
def test_after_a_death_that_may_be_the_clients_the_next_worker_reads_carefully(
    house: Callable[..., House], death: str, careful: bool
) -> None:
    running = house(f"{lives}\nif life == 0: die({death})\n{listens}")
    running.until(lambda: len(running.up()) == 1)
    running.supervisor.request_stop()
    assert running.end() == 0
    assert careful_lives(running) == [False, careful]
    assert any("the next one reads carefully" in line for line in running.said) == careful


def test_a_record_that_is_condemned_leaves_nothing_to_be_careful_about(house: Callable[..., House]) -> None:
    running = house(f"{lives}\nif life < 2: die(signal.SIGABRT, (7, 8))\n{listens}")
    running.until(lambda: len(running.up()) == 1)
    running.supervisor.request_stop()
    assert running.end() == 0
    assert careful_lives(running) == [False, True, False]
    assert "partition 0 offset 7 killed its worker twice: it goes to the dead letters" in running.said


def test_a_careful_worker_that_gets_nowhere_is_said_with_its_places(house: Callable[..., House]) -> None:
    """Until one asks for another, which reads as ever."""
    running = house(
        f"{lives}\nplaces = [(0, 12), (5, 900 + (life == 1))]\n"
        "if life < 4: die(signal.SIGABRT, places=places if life else ())\n"
        f"if life == 4: sys.exit({exit_retry})\n{listens}"
    )
    running.until(lambda: len(running.up()) == 1)
    running.supervisor.request_stop()
    assert running.end() == 0
    assert careful_lives(running) == [False, True, True, True, True, False]
    assert (running.folder / "life-4").read_text().endswith("--careful 4")
    (sentence,) = [line for line in running.said if "at the same place" in line]
    assert (
        "partition 0 at offset 12 (sound), partition 5 at offset 900 (sound); penstock offsets reset"
        in sentence
    )
