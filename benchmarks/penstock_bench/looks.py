"""Latency of one engine while somebody looks on and while nobody does, in turns: its own start and the broker's state are the same for both."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.connectors.kafka.simple import KafkaReader
from penstock_bench.peers.contestants import Contestant
from penstock_bench.peers.environment import BenchEnvironment
from penstock_bench.peers.latency import Latency, arrivals, latency_of, order_of, warm_up_records
from penstock_bench.peers.load import Report
from penstock_bench.peers.processes import cpu_s, family

windows: Final = 12
"""Half of them with somebody who looks on."""
settle_s: Final = 1.0
"""Of each window, left out: pages open and close."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A while in which somebody looked on, or nobody did."""

    looked: bool
    began_s: float
    """Monotonic; what belongs to it, without the time to settle."""
    ended_s: float
    cpu_s: float
    """Of all of the engine's processes."""


def latencies_in_turns(
    environment: BenchEnvironment,
    contestant: Contestant,
    *,
    rate: int,
    window_s: float,
    seed: int,
    looks: Callable[[bool], None],
) -> dict[bool, Latency]:
    """By whether somebody looked on: of one process at one rate. `looks` makes somebody look, or stop.

    Raises NotReadyError.
    """
    topic, clock = environment.empty_topic("looks"), environment.clock
    with environment.running(contestant, topic) as running:
        environment.send_probes(contestant, running)
        environment.warm_up(running, warm_up_records, seed=seed)
        reader = KafkaReader(environment.config, running.entry.output, clock, from_end=True)
        pids = family(running.pid)
        found: list[Window] = []
        began_s, used_s, looked, turned_s = 0.0, 0.0, seed % 2 == 1, clock.monotonic_s()

        def turn(sent: bool) -> None:
            nonlocal began_s, used_s, looked, turned_s
            now_s = clock.monotonic_s()
            if began_s == 0.0 and now_s >= turned_s + settle_s:
                began_s, used_s = now_s, cpu_s(pids)
            if sent or now_s < turned_s + settle_s + window_s:
                return
            found.append(Window(looked=looked, began_s=began_s, ended_s=now_s, cpu_s=cpu_s(pids) - used_s))
            looked, turned_s, began_s = not looked, now_s, 0.0
            looks(looked)

        looks(looked)
        records = int(rate * ((windows + 1) * (window_s + settle_s)))
        try:
            order = order_of(running, rate=rate, records=records, first_key=0, seed=seed)
            arrived_s, report = arrivals(environment, running, reader, order, turn)
        finally:
            reader.close()
    return {
        looked: of_windows(arrived_s, report, rate=rate, found=[each for each in found[:windows] if each.looked == looked])
        for looked in (False, True)
    }  # fmt: skip


def of_windows(arrived_s: NDArray[np.float64], report: Report, *, rate: int, found: list[Window]) -> Latency:
    """Of the records (n,) that were due in these windows, all together."""
    due_s = report.first_due_s + np.arange(len(arrived_s)) / rate
    inside = np.zeros(len(due_s), bool)
    for each in found:
        inside |= (due_s >= each.began_s) & (due_s < each.ended_s)
    lasted_s = sum(each.ended_s - each.began_s for each in found)
    cores = sum(each.cpu_s for each in found) / max(lasted_s, 1e-9)
    return latency_of((arrived_s - due_s)[inside], report, rate=rate, cores=cores)
