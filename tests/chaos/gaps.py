"""Workers killed in the midst of a transaction: how long a reader of committed predictions waits for the next one of any partition."""

import itertools
import json
import os
import random
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from penstock.connectors.embedded.kafka import EmbeddedKafka
from penstock.connectors.kafka.admin.group_members import describe_group
from penstock.connectors.kafka.sessions import session_timeout_ms
from tests.bundles import write_stump
from tests.chaos.stops import Ended, tried_on_a_broker
from tests.stream import Stream, children, event, event_schema, kill, partitions

gap_s_max: Final = 12.0
session_ms: Final = session_timeout_ms  # of the settings' defaults, as the transaction's time-out
cases: Final = tuple(itertools.product(("classic", "consumer"), ("same", "other")))
"""By protocol, and by who takes up the work: the pod of the same name, which starts again at once, or one that was there."""
_patience_s: Final = 90.0
_attempts_max: Final = (
    5  # until a kill falls into a transaction: one whose commit is on its way is over all the same
)
_per_s: Final = 200
_fed_s: Final = 120.0  # at most: fed no more once every partition is read again


class Reader:
    """Reads predictions as a consumer of committed records does; when one of each input partition was there, and how far."""

    def __init__(self, servers: str, topic: str) -> None:
        self.arrivals: dict[int, list[float]] = {partition: [] for partition in range(partitions)}
        self.newest = dict.fromkeys(range(partitions), -1)
        self._consumer = Consumer(
            {
                "bootstrap.servers": servers, "group.id": "gaps", "isolation.level": "read_committed", "enable.auto.commit": False,
                "fetch.wait.max.ms": 20,
            }
        )  # fmt: skip
        self._consumer.assign(
            [TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in range(partitions)]
        )
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join()
        self._consumer.close()

    def longest_s(self, since_s: float) -> float:
        """Between two predictions of one input partition, from the last before this moment on."""
        found = 0.0
        for arrivals in self.arrivals.values():
            known = list(arrivals)
            first = max((place for place, at_s in enumerate(known) if at_s <= since_s), default=0)
            found = max(
                found,
                *(late - early for early, late in itertools.pairwise(known[first:])),
                time.monotonic() - known[-1],
            )
        return found

    def _run(self) -> None:
        while not self._closed.is_set():
            for message in self._consumer.consume(500, 0.05):
                value = message.value()
                if message.error() is None and value is not None:
                    source: dict[str, Any] = json.loads(value)["source"]
                    self.arrivals[source["partition"]].append(time.monotonic())
                    self.newest[source["partition"]] = max(self.newest[source["partition"]], source["offset"])


@dataclass(kw_only=True)
class _Ground:
    """One group of two workers with its reader."""

    stream: Stream
    reader: Reader
    running: dict[str, Any]
    began: dict[str, int]  # where in its log each began

    def start(self, identity: str) -> None:
        """A worker of this name."""
        there = self.stream.folder / f"{self.stream.name}-{identity}.log"
        self.began[identity] = len(_log(self.stream, identity)) if there.exists() else 0
        self.running[identity] = self.stream.start(identity)


class Stuck(Exception):  # noqa: N818  what happened, not an error of the test
    """Something did not happen in time."""


def gaps(folder: Path, broker: EmbeddedKafka, count: int, seed: int) -> list[Ended]:
    """So many kills in the midst of a transaction, the cases in turn."""
    chance = random.Random(seed)
    write_stump(folder / "model", input_schema=orjson.dumps(event_schema))
    ends: list[Ended] = []
    for protocol in dict.fromkeys(protocol for protocol, _ in cases):
        whose = [who for each, who in (cases[turn % len(cases)] for turn in range(count)) if each == protocol]
        if whose:
            ends += _of_protocol(folder, broker, protocol, whose, chance)
    return ends


def _of_protocol(
    folder: Path, broker: EmbeddedKafka, protocol: str, whose: Sequence[str], chance: random.Random
) -> list[Ended]:
    servers = broker.bootstrap_servers
    stream = Stream(
        folder, servers, f"gaps-{protocol}-{time.time_ns()}", folder / "model", explained=False, session_ms=session_ms,
        kafka={"protocol": protocol, "client": {"transaction.timeout.ms": session_ms}, "drain_budget_s": 3.0},
        output={"format": "json"},
    )  # fmt: skip
    ground = _Ground(
        stream=stream, reader=Reader(servers, stream.outputs["predictions"]), running={}, began={}
    )
    ends: list[Ended] = []
    try:
        for identity in ("a", "b"):
            ground.start(identity)
        for who in whose:
            name = f"{protocol}, {who} pod, kill {len(ends) + 1}"
            try:
                took_s = _kill_once(ground, who, chance)
            except Stuck as stuck:
                print(stream.said(), flush=True)
                return [*ends, Ended(took_s=_patience_s, wrong=f"{name}: {stuck}")]
            print(f"{name}: {took_s:.1f} s", flush=True)
            ends.append(Ended(took_s=took_s, wrong=f"{name}: {took_s:.1f} s" if took_s > gap_s_max else ""))
    finally:
        ground.stream.close()
        ground.reader.close()
    return ends


def _kill_once(ground: _Ground, who: str, chance: random.Random) -> float:
    """The longest that a reader waited behind a kill that left a transaction open."""
    stream, reader = ground.stream, ground.reader
    for _ in range(_attempts_max):
        stream.feed([event(number) for number in range(round(_per_s * _fed_s))], per_s=_per_s)
        before = dict(reader.newest)
        _until(
            lambda before=before: all(reader.newest[each] > before[each] for each in before),  # type: ignore[misc]
            "every partition is read",
        )
        _until(
            lambda: all(_owns(stream, each, began) for each, began in ground.began.items()),
            "both workers own partitions",
        )
        time.sleep(chance.uniform(0.0, 1.0))
        dies = chance.choice(("a", "b"))
        killed_s = _killed_within(ground, dies, chance)
        time.sleep(0.3)
        left_open = bool(stream.hidden())
        if who == "same":
            ground.start(dies)
        ends = {partition: reader.newest[partition] + 1 for partition in range(partitions)}
        _until(
            lambda ends=ends: all(reader.newest[each] > ends[each] + _per_s / partitions for each in ends),  # type: ignore[misc]
            "every partition is read again",
        )
        took_s = reader.longest_s(killed_s)
        if who == "other":
            ground.start(dies)
        stream.feed_no_more()
        if left_open:
            return took_s
    raise Stuck(f"no kill of {_attempts_max} fell into a transaction")


def _killed_within(ground: _Ground, dies: str, chance: random.Random) -> float:
    """When this worker was killed: it is held at moments drawn by chance until it is held amid a transaction, and goes on from no other."""
    process, stream = ground.running[dies], ground.stream
    pids = (process.pid, *children(process))
    mine = {partition for partition, owner in _owners(stream).items() if owner == dies}

    def amid() -> bool:
        time.sleep(chance.uniform(0.0, 0.1))
        _tell(pids, signal.SIGSTOP)
        if any(partition in mine for _, partition in stream.hidden()):
            return True
        _tell(pids, signal.SIGCONT)
        return False

    _until(amid, "a transaction of it is open")
    for pid in pids:
        kill(pid)
    killed_s = time.monotonic()
    process.wait()
    return killed_s


def _tell(pids: Sequence[int], number: int) -> None:
    for pid in pids:
        os.kill(pid, number)


def _log(stream: Stream, identity: str) -> str:
    return (stream.folder / f"{stream.name}-{identity}.log").read_text(errors="replace")


def _owners(stream: Stream) -> dict[int, str]:
    """By partition, whose it is now."""
    members = describe_group(stream.config, f"{stream.name}-group").members
    return {
        partition: identity
        for member in members
        for identity in ("a", "b")
        if f"-{identity}-" in member.client_id
        for partition in member.assigned.get(stream.name, ())
    }


def _owns(stream: Stream, identity: str, began: int) -> bool:
    """Whether a worker last said that it has partitions; its log begins at this place."""
    told = re.findall(r"(\d+) owned now", _log(stream, identity)[began:])
    return bool(told) and told[-1] != "0"


def _until(met: Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + _patience_s
    while not met():
        if time.monotonic() > end_s:
            raise Stuck(f"not within {_patience_s:g} s: {what}")
        time.sleep(0.01)


def main(argv: Sequence[str]) -> int:
    """0 when no reader waited longer than `gap_s_max`."""
    return tried_on_a_broker(argv, gaps, f"without a gap of more than {gap_s_max:g} s")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
