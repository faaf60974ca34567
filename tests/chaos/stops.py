"""Workers killed and stopped many times over: how long until the survivor commits, and how long a drain takes."""

import argparse
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import orjson
from confluent_kafka import Consumer, KafkaException, TopicPartition

from penstock.connectors.embedded.kafka import EmbeddedKafka
from tests.bundles import write_stump
from tests.stream import Stream, children, event, event_schema, kill, partitions

session_s = 10.0  # of the settings' defaults
slack_s = 3.0
drain_s_max = 5.0
patience_s = 120.0
_answers_s = 5.0
_per_s = 60  # enough for several transactions a second in every partition
_away_every = 10  # of so many drains one is with the broker away
_stuck_max = 3  # so many times it is waited for in vain, then the run ends
_shown_max = 5


@dataclass(frozen=True, kw_only=True)
class Ended:
    """One stop or kill: how long it took, and what was wrong, in words; "" for nothing."""

    took_s: float
    wrong: str = ""


class Stuck(Exception):  # noqa: N818  what happened, not an error of the test
    """Something did not happen in `patience_s`."""


class _Ground:
    """One broker and one stream, fed for as long as it takes."""

    def __init__(self, folder: Path, broker: EmbeddedKafka) -> None:
        self.broker = broker
        write_stump(folder / "model", input_schema=orjson.dumps(event_schema))
        self.stream = Stream(
            folder, broker.bootstrap_servers, f"stops-{time.time_ns()}", folder / "model", explained=False,
            kafka={"client": {"session.timeout.ms": 8_000, "transaction.timeout.ms": 8_000}, "drain_budget_s": 3.0},
        )  # fmt: skip
        # One client for the whole time, and nothing of the product's: a new one for every look takes a core by itself.
        self._asking = Consumer(
            {
                "bootstrap.servers": broker.bootstrap_servers, "group.id": f"{self.stream.name}-group", "log_level": 0,
                "reconnect.backoff.max.ms": 500,
            }
        )  # fmt: skip
        self._places = [TopicPartition(self.stream.name, partition) for partition in range(partitions)]

    def committed(self) -> dict[int, int]:
        """What the group has committed, by partition; empty while nobody says."""
        try:
            told = self._asking.committed(self._places, timeout=_answers_s)
        except KafkaException:
            return {}
        return {place.partition: max(place.offset, 0) for place in told if place.error is None}

    def ends(self) -> dict[int, int]:
        """Where each partition's log ends; empty while nobody says."""
        try:
            return {
                place.partition: self._asking.get_watermark_offsets(place, _answers_s)[1]
                for place in self._places
            }
        except KafkaException:
            return {}

    def until(self, met: Callable[[], bool], what: str) -> float:
        """Seconds it took. Raises Stuck."""
        began_s = time.monotonic()
        while not met():
            if time.monotonic() - began_s > patience_s:
                print(self.stream.said(), flush=True)
                raise Stuck(f"not within {patience_s:g} s: {what}")
            time.sleep(0.02)
        return time.monotonic() - began_s

    def passes(self, ends: dict[int, int]) -> Callable[[], bool]:
        """Whether something was committed in every partition that was written behind these ends."""
        return lambda: (
            len(now := self.committed()) == len(ends) and all(now[p] > end for p, end in ends.items())
        )

    def known_ends(self) -> dict[int, int]:
        """The same as `ends`, waited for. Raises Stuck."""
        found: dict[int, int] = {}

        def known() -> bool:
            nonlocal found
            found = self.ends()
            return bool(found)

        self.until(known, "the broker says where the logs end")
        return found

    def close(self) -> None:
        self.stream.close()
        self._asking.close()

    def feed(self, seconds: float) -> None:
        if self.stream._feeder is not None:
            self.stream.feed_no_more()
        self.stream.feed([event(number) for number in range(round(_per_s * seconds))], per_s=_per_s)


def kills(
    folder: Path, broker: EmbeddedKafka, count: int, tell: Callable[[Ended], None] = lambda _: None
) -> list[Ended]:
    """Of two supervisors one is killed with its worker, in turn: seconds until records of every partition were committed that
    came to the broker when it was dead. What it committed itself in its last moment, or left on the wire, does not count.
    """
    ground = _Ground(folder, broker)
    ends: list[Ended] = []
    try:
        identities = ["a", "b"]
        running = {identity: ground.stream.start(identity) for identity in identities}
        for turn in range(count):
            ground.feed(45.0)
            try:
                ground.until(
                    lambda: all(len(_owned(ground, identity)) > 0 for identity in identities),
                    "both workers own partitions",
                )
                ground.until(
                    ground.passes(ground.known_ends()), "every partition is committed to by two workers"
                )
                dies = identities[turn % 2]
                killed_s = time.monotonic()
                for pid in (running[dies].pid, *children(running[dies])):
                    kill(pid)
                running[dies].wait()
                ends_then = ground.known_ends()
                ground.until(ground.passes(ends_then), "every partition is committed to after the kill")
                took_s = time.monotonic() - killed_s
            except Stuck as stuck:
                ends.append(Ended(took_s=patience_s, wrong=f"kill {turn + 1}: {stuck}"))
                tell(ends[-1])
                return ends  # in what state they are is not known
            late = f"kill {turn + 1}: after {took_s:.1f} s" if took_s > session_s + slack_s else ""
            ends.append(Ended(took_s=took_s, wrong=late))
            tell(ends[-1])
            running[dies] = ground.stream.start(dies)
    finally:
        ground.close()
    return ends


def drains(
    folder: Path, broker: EmbeddedKafka, count: int, tell: Callable[[Ended], None] = lambda _: None
) -> list[Ended]:
    """SIGTERM to a supervisor at work, every tenth time with the broker away: seconds until each had ended."""
    ground = _Ground(folder, broker)
    ends: list[Ended] = []
    stuck = 0
    try:
        for turn in range(count):
            name, away = f"drain {turn + 1}", turn % _away_every == _away_every - 1
            ground.feed(1.0)  # for this one to work on
            before = sum(ground.committed().values())
            worker = ground.stream.start("a")
            idle = ""
            try:
                ground.until(
                    lambda before=before: sum(ground.committed().values()) > before,  # type: ignore[misc]
                    "the worker commits after its start",
                )
            except Stuck as error:
                idle = f"{name}: {error}"
                stuck += 1
            if away:
                broker.kill_node(1)
                name += " (the broker away)"
            worker.send_signal(signal.SIGTERM)
            began_s = time.monotonic()
            ended = _end(worker, name, began_s)
            if away:
                broker.start_node(1)
            ends.append(
                Ended(took_s=ended.took_s, wrong="; ".join(each for each in (idle, ended.wrong) if each))
            )
            tell(ends[-1])
            if stuck == _stuck_max:
                return ends
    finally:
        ground.close()
    return ends


def _end(worker: "subprocess.Popen[bytes]", name: str, began_s: float) -> Ended:
    try:
        code = worker.wait(60)
    except subprocess.TimeoutExpired:
        for pid in (worker.pid, *children(worker)):
            kill(pid)
        worker.wait()
        return Ended(took_s=60.0, wrong=f"{name}: had not ended after 60 s")
    took_s = time.monotonic() - began_s
    if code != 0:
        return Ended(took_s=took_s, wrong=f"{name}: ended with exit code {code}")
    return Ended(took_s=took_s, wrong=f"{name}: took {took_s:.1f} s" if took_s > drain_s_max else "")


def said_of(ends: Sequence[Ended], bar: str) -> str:
    """The result in one line, with what was wrong in words."""
    wrong = [each.wrong for each in ends if each.wrong]
    more = f"; and {len(wrong) - _shown_max} more" if len(wrong) > _shown_max else ""
    told = f"; not so: {'; '.join(wrong[:_shown_max])}{more}" if wrong else ""
    longest_s = max(each.took_s for each in ends)
    return f"{len(ends) - len(wrong)} of {len(ends)} {bar}, the longest {longest_s:.1f} s{told}"


def tried_on_a_broker(
    argv: Sequence[str], attempts: Callable[[Path, EmbeddedKafka, int, int], list[Ended]], bar: str
) -> int:
    """A command whose arguments are how many, and a seed or none; 0 when nothing was wrong."""
    count, seed = int(argv[0]), int(argv[1]) if len(argv) > 1 else int(time.time())
    print(f"seed {seed}", flush=True)
    with EmbeddedKafka() as broker, tempfile.TemporaryDirectory() as folder:
        ends = attempts(Path(folder), broker, count, seed)
    print(said_of(ends, bar))
    return int(any(each.wrong for each in ends))


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
    parser.add_argument(
        "--at-once", type=int, default=1, help="on so many brokers beside each other (%(default)s)"
    )
    arguments = parser.parse_args(argv)
    at_once = min(max(arguments.at_once, 1), arguments.count)
    attempts = kills if arguments.what == "kills" else drains

    def some(turn: int) -> list[Ended]:
        with EmbeddedKafka() as broker, tempfile.TemporaryDirectory() as folder:
            count = arguments.count // at_once + (turn < arguments.count % at_once)
            return attempts(Path(folder), broker, count, lambda end: print(end, flush=True))

    with ThreadPoolExecutor(at_once) as threads:
        ends = [end for part in threads.map(some, range(at_once)) for end in part]
    bar = f"within {session_s + slack_s:g} s" if attempts is kills else f"clean within {drain_s_max:g} s"
    print(said_of(ends, bar))
    return int(any(each.wrong for each in ends))


if __name__ == "__main__":
    sys.exit(main())
