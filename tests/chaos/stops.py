"""Workers killed and stopped many times over: how long until the survivor commits, and how long a drain takes."""

import argparse
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson

from penstock.connectors.embedded.kafka import EmbeddedKafka
from penstock.schemas.errors import PenstockError
from tests.bundles import write_stump
from tests.stream import Stream, children, event, event_schema, kill

session_s = 10.0  # of the settings' defaults
slack_s = 3.0
drain_s_max = 5.0
patience_s = 120.0
_per_s = 200
_away_every = 10  # of so many drains one is with the broker away


class _Ground:
    """One broker and one stream, fed for as long as it takes."""

    def __init__(self, folder: Path, broker: EmbeddedKafka) -> None:
        self.broker = broker
        write_stump(folder / "model", input_schema=orjson.dumps(event_schema))
        self.stream = Stream(
            folder, broker.bootstrap_servers, f"stops-{time.time_ns()}", folder / "model", explained=False,
            kafka={"client": {"session.timeout.ms": 10_000, "transaction.timeout.ms": 10_000}, "drain_budget_s": 3.0},
        )  # fmt: skip

    def committed(self) -> dict[int, int]:
        try:
            return self.stream.committed_by_partition()
        except PenstockError:
            return {}

    def until(self, met: Callable[[], bool]) -> float:
        """Seconds it took."""
        began_s = time.monotonic()
        while not met():
            assert time.monotonic() - began_s < patience_s, self.stream.said()
            time.sleep(0.02)
        return time.monotonic() - began_s

    def moves(self, before: dict[int, int]) -> Callable[[], bool]:
        """Whether every partition has gone on since."""
        return lambda: bool(now := self.committed()) and all(now[p] > offset for p, offset in before.items())

    def feed(self, seconds: float) -> None:
        if self.stream._feeder is not None:
            self.stream._feeder.join()
        self.stream.feed([event(number) for number in range(round(_per_s * seconds))], per_s=_per_s)


def kills(folder: Path, broker: EmbeddedKafka, count: int) -> list[float]:
    """Of two supervisors one is killed with its worker, in turn: seconds until every partition was committed to again."""
    ground = _Ground(folder, broker)
    took_s = []
    try:
        identities = ["a", "b"]
        running = {identity: ground.stream.start(identity) for identity in identities}
        for turn in range(count):
            ground.feed(45.0)
            ground.until(lambda: all(len(_owned(ground, identity)) > 0 for identity in identities))
            before = ground.committed()
            ground.until(ground.moves(before))
            dies = identities[turn % 2]
            before = ground.committed()
            for pid in (running[dies].pid, *children(running[dies])):
                kill(pid)
            running[dies].wait()
            took_s.append(ground.until(ground.moves(before)))
            running[dies] = ground.stream.start(dies)
    finally:
        ground.stream.close()
    return took_s


def drains(folder: Path, broker: EmbeddedKafka, count: int) -> list[tuple[int, float]]:
    """SIGTERM to a supervisor at work, every tenth time with the broker away: exit code and seconds of each."""
    ground = _Ground(folder, broker)
    found = []
    try:
        for turn in range(count):
            ground.feed(1.0)  # for this one to work on
            before = ground.committed()
            worker = ground.stream.start("a")
            ground.until(lambda before=before: sum(ground.committed().values()) > sum(before.values()))  # type: ignore[misc]
            away = turn % _away_every == _away_every - 1
            if away:
                broker.kill_node(1)
            worker.send_signal(signal.SIGTERM)
            began_s = time.monotonic()
            code = worker.wait(60)
            found.append((code, time.monotonic() - began_s))
            if away:
                broker.start_node(1)
    finally:
        ground.stream.close()
    return found


def _owned(ground: _Ground, identity: str) -> str:
    """What a worker last said that it owns, "" for nothing."""
    log = ground.stream.settings.parent / f"{ground.stream.name}-{identity}.log"
    told = re.findall(r"(\d+) owned now", log.read_text(errors="replace"))
    return "" if not told or told[-1] == "0" else told[-1]


def main(argv: Sequence[str] | None = None) -> int:
    """0 when every one was in time."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.stops", description=__doc__)
    parser.add_argument("what", choices=["kills", "drains"])
    parser.add_argument("count", type=int)
    arguments = parser.parse_args(argv)
    with EmbeddedKafka() as broker, tempfile.TemporaryDirectory() as folder:
        if arguments.what == "kills":
            took_s = kills(Path(folder), broker, arguments.count)
            late = [each for each in took_s if each > session_s + slack_s]
            print(
                f"{len(took_s) - len(late)} of {len(took_s)} within {session_s + slack_s:g} s, the longest {max(took_s):.1f} s"
            )
            return int(bool(late))
        ends = drains(Path(folder), broker, arguments.count)
        bad = [each for each in ends if each[0] != 0 or each[1] > drain_s_max]
        print(
            f"{len(ends) - len(bad)} of {len(ends)} clean within {drain_s_max:g} s, the longest {max(s for _, s in ends):.1f} s"
            + (f"; not so: {bad[:5]}" if bad else "")
        )
        return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
