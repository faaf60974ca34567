"""What `penstock top` takes of a core while it looks four times a second at a running engine, drawn on a terminal of 200 columns."""

import argparse
import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.pages.running import Running, running_engine

bar: Final = 0.02
"""Of a core."""
every_s: Final = 0.25
columns, rows = 200, 60
sent_every_s, sent_at_once = 0.1, 20
_settled_s: Final = 5.0
"""Its modules are imported by then."""
_ticks: Final = os.sysconf("SC_CLK_TCK")


@dataclass
class Drawn:
    """What came from the terminal."""

    bytes: int = 0


def cpu_s(pid: int) -> float:
    """Of a process, in user and in kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _ticks


@contextmanager
def watching(url: str, seconds: float, drawn: Drawn) -> Iterator["subprocess.Popen[bytes]"]:
    """`penstock top` on a terminal of its own, which somebody reads."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "penstock", "top", "--url", url, "--every", str(every_s), "--seconds", str(seconds)],
        stdin=follower, stdout=follower, stderr=follower, env={**os.environ, "TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(follower)

    def read() -> None:
        with contextlib.suppress(OSError):  # the terminal's other end is gone
            while piece := os.read(leader, 65536):
                drawn.bytes += len(piece)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)
        reader.join(20)
        os.close(leader)


@contextmanager
def sending(engine: Running) -> Iterator[None]:
    """Records come all the while, some of them bad."""
    ended = threading.Event()

    def send() -> None:
        number = 0
        while not ended.wait(sent_every_s):
            engine.send(sent_at_once, poison=number % 10 == 0, start=number * 1000)
            number += 1

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def main(argv: Sequence[str] | None = None) -> int:
    """0 where it takes no more than the bar."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.terminal_cost", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="measured (default: %(default)g)")
    seconds = parser.parse_args(argv).seconds
    with tempfile.TemporaryDirectory() as folder, running_engine(Path(folder)) as engine, sending(engine):
        drawn = Drawn()
        with watching(engine.url, seconds + 3 * _settled_s, drawn) as process:
            time.sleep(_settled_s)
            began_s, before_s, before = time.monotonic(), cpu_s(process.pid), drawn.bytes
            time.sleep(seconds)
            took_s, lasted_s = cpu_s(process.pid) - before_s, time.monotonic() - began_s
            assert process.poll() is None, "penstock top ended by itself"
            shown = drawn.bytes - before
    assert shown > seconds, "penstock top drew nothing"
    share = took_s / lasted_s
    print(
        f"penstock top takes {100 * share:.2f} % of a core at {1 / every_s:g} looks a second and {columns} columns, over {lasted_s:.0f} s: "
        f"{1000 * took_s * every_s / lasted_s:.2f} ms a look, {shown / lasted_s / 1000:.1f} kB a second drawn; bar {100 * bar:g} %"
    )
    return int(share > bar)


if __name__ == "__main__":
    sys.exit(main())
