"""Open-loop load, in a process of its own: every record has its moment, whether or not the last one has been answered.

A record that is sent late keeps the moment at which it should have gone: whoever measures from there sees the queue that a slow
system makes, which a generator that waits would hide.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import confluent_kafka
import numpy as np

from penstock.engine.clock import Clock, SystemClock
from penstock_bench.peers.records import partitions, payloads, some_rows
from penstock_bench.peers.statistics import percentile

lead_s = 0.3
tick_s = 0.001
distinct_rows = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What to send: records keyed `first_key` and up, evenly, for so many seconds."""

    servers: str
    topic: str
    rate: int
    records: int
    first_key: int
    seed: int
    report: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """When the first record was due (monotonic seconds, the same for all processes), and how late records went."""

    first_due_s: float
    late_p99_ms: float
    late_max_ms: float


def offer(order: Order, clock: Clock) -> Report:
    """Send them all, and wait until the broker has them."""
    # With few requests in flight a broker that falls behind gets larger ones, rather than ever more small ones.
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": order.servers, "linger.ms": 0, "acks": "all", "max.in.flight": 5}
    )
    values = payloads(some_rows(distinct_rows, seed=order.seed))
    producer.list_topics(order.topic, timeout=10.0)  # connected before the first record is due
    first_due_s = clock.monotonic_s() + lead_s
    late_s = np.zeros(order.records)
    sent = 0
    while sent < order.records:
        now_s = clock.monotonic_s()
        due = min(int((now_s - first_due_s) * order.rate) + 1, order.records)
        for index in range(sent, due):
            late_s[index] = now_s - first_due_s - index / order.rate
            key = b"%d" % (order.first_key + index)
            producer.produce(order.topic, values[index % distinct_rows], key, index % partitions)
        sent = max(sent, due)
        producer.poll(0)
        clock.sleep(max(tick_s, first_due_s + sent / order.rate - clock.monotonic_s()))
    producer.flush(30.0)
    return Report(
        first_due_s=first_due_s,
        late_p99_ms=percentile(late_s, 99) * 1e3,
        late_max_ms=float(late_s.max()) * 1e3,
    )


def main() -> None:
    """The one argument is a file of JSON: an Order."""
    given: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    order = Order(**given)
    report = json.dumps(asdict(offer(order, SystemClock())))
    Path(order.report).write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()
