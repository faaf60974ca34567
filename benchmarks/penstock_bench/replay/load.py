"""The load: records at moments drawn from a seed, sent then whether or not the last ones were answered."""

import json
import math
import threading
from typing import Final

import confluent_kafka
import numpy as np

from penstock.engine.clock import Clock

_tick_s: Final = 0.02
_flush_s: Final = 60.0


def record(number: int) -> tuple[float, float, float]:
    """The fields a, b and c of a record; b is its number."""
    return float(number % 7), float(number), 0.5


class Load:
    """A rate that may be changed while it runs; every record's time stamp is the moment at which it was due."""

    def __init__(self, servers: str, topic: str, *, partitions: int, seed: int, clock: Clock) -> None:
        self.rate_per_s = 0.0
        self.at_once = 0  # so many more are sent now, and it is 0 again
        self.due_s: list[float] = []  # of each number, seconds since 1970
        self.partition: list[int] = []  # of each number
        self.refused: list[int] = []
        self._topic, self._partitions, self._clock = topic, partitions, clock
        self._chance = np.random.default_rng(seed)
        self._producer = confluent_kafka.Producer(
            {"bootstrap.servers": servers, "acks": "all", "enable.idempotence": True, "linger.ms": 0, "log_level": 0}
        )  # fmt: skip
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._thread.start()

    def close(self) -> int:
        """How many records the broker has, once it has all of them."""
        self._closed.set()
        self._thread.join()
        left = self._producer.flush(_flush_s)
        self.refused += [-1] * left
        return len(self.due_s)

    def _run(self) -> None:
        next_s = math.inf
        while not self._closed.is_set():
            rate = self.rate_per_s  # before the clock: a record is never due before somebody wanted it
            now_s = self._clock.wall_ms() / 1e3
            count, self.at_once = self.at_once, 0
            for _ in range(count):
                self._send(now_s)
            if rate <= 0:
                next_s = math.inf
            elif next_s == math.inf:
                next_s = now_s
            while rate > 0 and next_s <= now_s:
                self._send(next_s)
                next_s += float(self._chance.exponential(1.0 / rate))
            self._producer.poll(0)
            self._closed.wait(_tick_s)

    def _send(self, due_s: float) -> None:
        number = len(self.due_s)
        self.due_s.append(due_s)
        partition = int(self._chance.integers(self._partitions))
        self.partition.append(partition)
        body = json.dumps(dict(zip("abc", record(number), strict=True))).encode()

        def reported(error: confluent_kafka.KafkaError | None, _: confluent_kafka.Message) -> None:
            if error is not None:
                self.refused.append(number)

        self._producer.produce(
            self._topic, body, b"%d" % number, partition, timestamp=int(due_s * 1000), on_delivery=reported
        )
