"""Child processes that cannot outlive us, whichever way we end."""

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from penstock.connectors.embedded.process import KeptProcesses
from penstock.schemas.errors import ConfigError, InvariantError

forever = ["/bin/sleep", "1000"]

parent_program = """
import os, sys, threading
from pathlib import Path
from penstock.connectors.embedded.process import KeptProcesses

root, temporary, how, *command = sys.argv[1:]

def start():
    global kept
    kept = KeptProcesses(root=Path(root), temporary=temporary == "temporary", files={})
    kept.start("child", command, output=Path(root, "output"))

starter = threading.Thread(target=start)
starter.start()
starter.join()
if how == "fork" and os.fork() == 0:  # a copy of us that holds the pipe open, and outlives us
    sys.stdin.read()
    os._exit(0)
child = kept.pid("child")
status = Path(f"/proc/{child}/status").read_text()
keeper = next(line.split()[1] for line in status.splitlines() if line.startswith("PPid:"))
print(child, keeper, flush=True)
if how == "ends":
    sys.exit(0)
sys.stdin.read()
"""


@dataclass(frozen=True, kw_only=True)
class Family:
    parent: subprocess.Popen[str]
    keeper: int
    child: int


def start_family(root: Path, *, how: str = "waits", temporary: bool = True, command: list[str]) -> Family:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            parent_program,
            str(root),
            "temporary" if temporary else "kept",
            how,
            *command,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    child, keeper = map(int, parent.stdout.readline().split())
    return Family(parent=parent, keeper=keeper, child=child)


def await_end(*pids: int) -> None:
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            assert select.select([handle], [], [], 20.0)[0], f"process {pid} is still there"
        finally:
            os.close(handle)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[KeptProcesses]:
    processes = KeptProcesses(root=tmp_path / "root", temporary=True, files={"a/b.txt": "hello\n"})
    yield processes
    processes.close()


@pytest.mark.parametrize("how", ["waits", "fork"])
def test_a_parent_killed_dead_takes_the_processes_and_the_folder_with_it(tmp_path: Path, how: str) -> None:
    family = start_family(tmp_path / "root", how=how, command=forever)
    family.parent.kill()
    await_end(family.child, family.keeper)
    assert not (tmp_path / "root").exists()
    family.parent.communicate()


def test_a_parent_that_ends_without_closing_takes_them_too(tmp_path: Path) -> None:
    family = start_family(tmp_path / "root", how="ends", command=forever)
    await_end(family.child, family.keeper)
    assert not (tmp_path / "root").exists()
    assert family.parent.wait(20) == 0
    family.parent.communicate()


def test_processes_live_on_when_only_the_thread_that_started_them_ends(tmp_path: Path) -> None:
    family = start_family(
        tmp_path / "root", command=forever
    )  # the program starts it on a thread that has ended
    handle = os.pidfd_open(family.child)
    assert not select.select([handle], [], [], 1.5)[0]
    os.close(handle)
    family.parent.kill()
    await_end(family.child, family.keeper)
    family.parent.communicate()


def test_the_processes_follow_even_a_killed_keeper(tmp_path: Path) -> None:
    family = start_family(tmp_path / "root", command=forever)
    os.kill(family.keeper, signal.SIGKILL)
    await_end(family.child)
    family.parent.kill()
    family.parent.communicate()


def test_a_folder_to_keep_stays_and_its_processes_are_asked_to_stop_first(tmp_path: Path) -> None:
    word = tmp_path / "word"
    polite = [
        sys.executable,
        "-c",
        f"import signal, sys; signal.signal(15, lambda *_: (open({str(word)!r}, 'w').write('bye'), sys.exit())); "
        f"open({str(word)!r}, 'w').write('here'); signal.pause()",
    ]
    family = start_family(tmp_path / "root", temporary=False, command=polite)
    while not word.exists() or word.read_text() != "here":
        threading.Event().wait(0.01)
    family.parent.kill()
    await_end(family.child, family.keeper)
    assert word.read_text() == "bye"
    assert (tmp_path / "root" / "output").exists()
    family.parent.communicate()


def test_files_are_written_for_their_owner_only(kept: KeptProcesses, tmp_path: Path) -> None:
    file = tmp_path / "root" / "a" / "b.txt"
    assert file.read_text() == "hello\n"
    assert file.stat().st_mode & 0o077 == 0
    assert (tmp_path / "root").stat().st_mode & 0o077 == 0


def test_signals_and_exit_codes_pass_through(kept: KeptProcesses, tmp_path: Path) -> None:
    output = tmp_path / "root" / "output"
    kept.start("seven", ["/bin/sh", "-c", "echo said; echo more >&2; exit 7"], output=output)
    assert kept.wait("seven", 10.0) == 7
    assert output.read_text() == "said\nmore\n"
    kept.start("long", forever, output=output)
    assert kept.wait("long", 0.0) is None
    assert kept.pid("long") is not None
    kept.signal("long", signal.SIGKILL)
    assert kept.wait("long", 10.0) == -signal.SIGKILL
    assert kept.pid("long") is None
    kept.signal("long", signal.SIGKILL)  # it is gone: nothing happens
    kept.start("long", forever, output=output)
    assert kept.wait("long", 0.0) is None


def test_a_signal_right_after_the_start_is_not_lost(kept: KeptProcesses, tmp_path: Path) -> None:
    for _ in range(50):
        kept.start("long", forever, output=tmp_path / "root" / "output")
        kept.signal("long", signal.SIGTERM)
        assert kept.wait("long", 5.0) == -signal.SIGTERM


def test_a_command_that_cannot_run_ends_at_once(kept: KeptProcesses, tmp_path: Path) -> None:
    kept.start("none", ["/no/such/program"], output=tmp_path / "root" / "output")
    assert kept.wait("none", 10.0) == 127


def test_closing_ends_everything_and_may_be_repeated(tmp_path: Path) -> None:
    kept = KeptProcesses(root=tmp_path / "root", temporary=True, files={})
    kept.start("long", forever, output=tmp_path / "root" / "output")
    pid = kept.pid("long")
    assert pid is not None
    kept.close()
    kept.close()
    await_end(pid)
    assert not (tmp_path / "root").exists()
    with pytest.raises(InvariantError):
        kept.pid("long")


def test_a_folder_serves_one_at_a_time(tmp_path: Path) -> None:
    first = KeptProcesses(root=tmp_path / "root", temporary=False, files={})
    with pytest.raises(ConfigError, match="in use"):
        KeptProcesses(root=tmp_path / "root", temporary=False, files={})
    first.close()
    KeptProcesses(root=tmp_path / "root", temporary=False, files={}).close()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="Not a directory"):
        KeptProcesses(root=tmp_path / "file" / "root", temporary=False, files={})
