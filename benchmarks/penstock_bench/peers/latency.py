"""End-to-end latency: from the moment at which a record was due to the moment at which a read_committed reader has its output."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.connectors.kafka.simple import KafkaReader
from penstock.schemas.errors import NotReadyError
from penstock_bench import module_command
from penstock_bench.peers.contestants import Contestant
from penstock_bench.peers.environment import BenchEnvironment, Running
from penstock_bench.peers.load import Order, Report
from penstock_bench.peers.processes import compiler_cpu_s, cpu_s, family
from penstock_bench.peers.statistics import percentile

warm_up_records: Final = 30_000
warm_up_s: Final = 2.0
drain_s: Final = 6.0
compiled_share: Final = 0.05
"""Of a core, over `compiled_look_s`: with less the JVM's compilers are done with what the load needs."""
compiled_look_s: Final = 5.0
compiled_patience: Final = 30.0
"""Times as long as is measured: what is measured for a moment only is not worth minutes."""
behind_share: Final = 0.01
"""With more than this share of the records unanswered in the end, higher rates are not tried."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """Of one contestant at one offered rate; infinite where so many records never came."""

    rate: int
    records: int
    unanswered: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    late_p99_ms: float
    cores: float
    """CPU seconds a second of all the contestant's processes, while the records came."""

    def as_json(self) -> dict[str, Any]:
        """Rounded; an infinite figure is null."""
        return {
            name: (round(value, 3) if np.isfinite(value) else None) if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }


def latencies(
    environment: BenchEnvironment, contestant: Contestant, *, rates: Sequence[int], seconds: float, seed: int
) -> list[Latency]:
    """One process through all rates, ascending, after a warm-up. Raises NotReadyError."""
    found: list[Latency] = []
    topic = environment.empty_topic("offered")
    with environment.running(contestant, topic) as running:
        environment.send_probes(contestant, running)
        environment.warm_up(running, warm_up_records, seed=seed)
        reader = KafkaReader(environment.config, running.entry.output, environment.clock, from_end=True)
        try:
            first_key = 0
            for rate in environment.terminal.track(
                sorted(rates), label=f"{contestant.slug}, offered rates", total=len(rates)
            ):
                records = int(rate * (seconds + warm_up_s))
                found.append(
                    _at(
                        environment,
                        running,
                        reader,
                        rate=rate,
                        records=records,
                        first_key=first_key,
                        seed=seed,
                    )
                )
                first_key += records
                if found[-1].unanswered > behind_share * found[-1].records:
                    break
        finally:
            reader.close()
    return found


def settle_broker(
    environment: BenchEnvironment, contestant: Contestant, *, rate: int, seconds: float, seed: int
) -> None:
    """Let the broker's JVM compile what a load of so many records a second needs, as one that has run for minutes has: for
    `compiled_patience` times these seconds at most.

    Its compilers take a core while they work: on two cores p99 was 140 ms in the first half minute of a rate, and 35 ms a minute later. Raises NotReadyError.
    """
    topic, clock, terminal = environment.empty_topic("compiled"), environment.clock, environment.terminal
    patience_s = compiled_patience * seconds
    terminal.say(f"{rate:,} records a second until the broker's JVM has compiled what they need ...")
    with environment.running(contestant, topic) as running:
        environment.send_probes(contestant, running)
        began_s = clock.monotonic_s()
        order = order_of(running, rate=rate, records=int(rate * patience_s), first_key=0, seed=seed)
        with environment.beside(f"compiled-{running.name}", _load(running, order)):
            share = 1.0
            while share > compiled_share and clock.monotonic_s() < began_s + patience_s:
                before_s, since_s = _compilers_s(environment), clock.monotonic_s()
                clock.sleep(min(compiled_look_s, patience_s))
                environment.require_alive(running)
                share = (_compilers_s(environment) - before_s) / (clock.monotonic_s() - since_s)
    if share > compiled_share:
        terminal.say(
            f"its compilers still take {share:.0%} of a core: the latencies are of a broker that warms up"
        )


def _compilers_s(environment: BenchEnvironment) -> float:
    return sum(compiler_cpu_s(pid) for pid in environment.broker_pids)


def order_of(running: Running, *, rate: int, records: int, first_key: int, seed: int) -> Order:
    """For the process that sends."""
    return Order(
        servers=running.entry.servers,
        topic=running.entry.input,
        rate=rate,
        records=records,
        first_key=first_key,
        seed=seed,
        report=str(running.entry.folder / f"report-{rate}.json"),
    )


def _load(running: Running, order: Order) -> list[str]:
    """The command of the process that sends them."""
    file = running.entry.folder / f"order-{order.rate}.json"
    file.write_text(json.dumps(asdict(order)), encoding="utf-8")
    return module_command("penstock_bench.peers.load", str(file))


def _at(
    environment: BenchEnvironment,
    running: Running,
    reader: KafkaReader,
    *,
    rate: int,
    records: int,
    first_key: int,
    seed: int,
) -> Latency:
    order = order_of(running, rate=rate, records=records, first_key=first_key, seed=seed)
    clock, pids = environment.clock, family(running.pid)
    began_s, used_s, used_last_s = clock.monotonic_s(), cpu_s(pids), 0.0
    last_s = began_s

    def look(sent: bool) -> None:
        nonlocal last_s, used_last_s
        now_s = clock.monotonic_s()
        if not sent and now_s >= last_s + 0.5:
            last_s, used_last_s = now_s, cpu_s(pids) - used_s

    arrived_s, report = arrivals(environment, running, reader, order, look)
    return summarize(
        arrived_s,
        report,
        rate=rate,
        dropped=int(rate * warm_up_s),
        cores=used_last_s / max(last_s - began_s, 1e-9),
    )


def arrivals(
    environment: BenchEnvironment,
    running: Running,
    reader: KafkaReader,
    order: Order,
    look: Callable[[bool], None],
) -> tuple[NDArray[np.float64], Report]:
    """Send what is ordered and read what comes of it: the moments (records,), in seconds, infinite for what never came.

    `look` is called ten times a second and more often, with whether all is sent. Raises NotReadyError.
    """
    report_file, clock = Path(order.report), environment.clock
    arrived_s = np.full(order.records, np.inf)
    came = 0
    with environment.beside(f"load-{running.name}-{order.rate}", _load(running, order)):
        deadline_s = clock.monotonic_s() + order.records / order.rate + 30.0
        while came < order.records and clock.monotonic_s() < deadline_s:
            batch = reader.read(10_000, 0.1)
            now_s = clock.monotonic_s()
            if sent := report_file.exists():
                deadline_s = min(deadline_s, now_s + drain_s)
            look(sent)
            if batch is None:
                environment.require_alive(running)
                continue
            keys = np.array([int(key) for key in batch.keys if key], np.int64) - order.first_key
            keys = keys[(keys >= 0) & (keys < order.records)]
            came += int(np.count_nonzero(np.isinf(arrived_s[keys])))
            arrived_s[keys] = np.minimum(arrived_s[keys], now_s)
        while not report_file.exists() and clock.monotonic_s() < deadline_s:
            clock.sleep(0.05)
    if not report_file.exists():
        raise NotReadyError(f"the load of {order.rate} records a second did not end in time")
    return arrived_s, Report(**json.loads(report_file.read_text(encoding="utf-8")))


def summarize(
    arrived_s: NDArray[np.float64], report: Report, *, rate: int, dropped: int, cores: float
) -> Latency:
    """Percentiles from the due times of the records (n,), the first `dropped` of which warmed things up; infinite: never came."""
    due_s = report.first_due_s + np.arange(len(arrived_s)) / rate
    return latency_of((arrived_s - due_s)[dropped:], report, rate=rate, cores=cores)


def latency_of(taken_s: NDArray[np.float64], report: Report, *, rate: int, cores: float) -> Latency:
    """Percentiles of what records (n,) took, in seconds; infinite: never came."""
    answered = taken_s[np.isfinite(taken_s)] * 1e3
    missing = len(taken_s) - len(answered)
    p50, p99, p999 = (percentile(answered, percent, missing=missing) for percent in (50, 99, 99.9))
    return Latency(
        rate=rate,
        records=len(taken_s),
        unanswered=missing,
        p50_ms=p50,
        p99_ms=p99,
        p999_ms=p999,
        late_p99_ms=report.late_p99_ms,
        cores=cores,
    )
