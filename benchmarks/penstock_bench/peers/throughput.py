"""Throughput: how fast a contestant gets through a topic, what that costs, and whether every record has its output."""

from dataclasses import dataclass
from typing import Any, Final

from penstock.connectors.kafka.simple import KafkaWriter
from penstock.schemas.errors import NotReadyError
from penstock_bench.peers.contestants import Contestant
from penstock_bench.peers.environment import BenchEnvironment, Running, write_json
from penstock_bench.peers.processes import cpu_s, family, peak_mb, resident_mb
from penstock_bench.peers.records import some_rows
from penstock_bench.peers.statistics import Sample, Window, growth_mb_per_million, middle, whole
from penstock_bench.peers.topics import Count, count_outputs

sample_s: Final = 0.025
stall_s: Final = 20.0
patience_min_s: Final = 120.0
slowest_per_s: Final = 20_000
count_patience_s: Final = 10.0
growth_records_min: Final = 2_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What one contestant did. None: it is not known, and `why` may say why."""

    records: int
    records_per_s: float
    engine_us_per_record: float
    peak_mb: float
    broker_us_per_record: float | None = None
    first_process_mb: float | None = None
    """The most that the process itself had, without those that it started: of ours, the supervisor."""
    first_process_ms_per_s: float | None = None
    """Its CPU of each second in which the contestant ran."""
    growth_mb_per_million: float | None = None
    first_output_s: float | None = None
    lost: int | None = None
    duplicated: int | None = None
    why: str = ""

    def as_json(self) -> dict[str, Any]:
        """Rounded, and without what is not known."""
        fields: dict[str, Any] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {
            name: round(value, 3) if isinstance(value, float) else value
            for name, value in fields.items()
            if value is not None and value != ""
        }


def measure_throughput(
    environment: BenchEnvironment, contestant: Contestant, *, records: int, seed: int
) -> Run:
    """One run over a full topic. Raises NotReadyError when the contestant ends or gives nothing."""
    wanted = max(int(records * contestant.share), 1000)
    patience_s = patience_min_s + wanted / slowest_per_s
    if contestant.asks_in_json:
        topic = environment.empty_topic("requests")
    else:
        topic = environment.input_topic(wanted, seed=seed)
    with environment.running(contestant, topic) as running:
        first = environment.send_probes(contestant, running) if contestant.asks_in_json else 0
        began = _sample(environment, running)
        if contestant.asks_in_json:
            _ask(environment, topic, wanted, seed)
        samples = [began, *_watch(environment, running, wanted=first + wanted, label=contestant.slug, patience_s=patience_s)]  # fmt: skip
        memory_mb, first_mb = peak_mb(family(running.pid)), peak_mb([running.pid])
        counts = [_count(environment, output, wanted) for output in _outputs(contestant, running)]
    # What is asked all at once may be answered all at once: then the whole time counts.
    # What is through before there were samples of its middle is counted whole.
    window = (None if contestant.asks_in_json else middle(samples, total=wanted)) or whole(samples)
    if window is None:
        raise NotReadyError(f"of {wanted} records {counts[0].outputs} came in {patience_s:g} s")
    late = samples[-1].at_s > began.at_s + patience_s
    return Run(
        records=wanted,
        **_rates(window, counts[0], visible=samples[-1].visible - first),
        peak_mb=memory_mb,
        first_process_mb=first_mb,
        growth_mb_per_million=growth_mb_per_million(samples, total=wanted)
        if wanted >= growth_records_min
        else None,
        first_output_s=None if contestant.asks_in_json else _first(samples) - running.began_s,
        lost=None if late else max(count.lost for count in counts),
        duplicated=None if late else max(count.duplicated for count in counts),
        why=f"stopped after {patience_s:.0f} s, before it was through" if late else "",
    )


def _count(environment: BenchEnvironment, output: str, expected: int) -> Count:
    return count_outputs(
        environment.config, output, expected=expected, patience_s=count_patience_s, clock=environment.clock
    )


def _rates(window: Window, count: Count, *, visible: int) -> dict[str, Any]:
    """Of the records in the window: transactions put markers between the outputs, `visible` offsets that are no records."""
    done = window.records * min(count.outputs / max(visible, 1), 1.0)
    return {
        "records_per_s": done / window.seconds,
        "engine_us_per_record": window.engine_cpu_s / done * 1e6,
        "broker_us_per_record": window.broker_cpu_s / done * 1e6,
    }


def _outputs(contestant: Contestant, running: Running) -> list[str]:
    return [running.entry.output, *([running.entry.explanations] if contestant.explains else [])]


def _ask(environment: BenchEnvironment, topic: str, count: int, seed: int) -> None:
    writer = KafkaWriter(environment.config, topic)
    write_json(writer, some_rows(count, seed=seed), [b"%d" % index for index in range(count)])
    writer.flush(60.0)
    writer.close()


def _watch(
    environment: BenchEnvironment, running: Running, *, wanted: int, label: str, patience_s: float
) -> list[Sample]:
    """A sample each time that more is visible, until all is, or nothing new came for long."""
    clock = environment.clock
    began_s = moved_s = clock.monotonic_s()
    samples: list[Sample] = []
    seen = 0
    with environment.terminal.progress(label=label, total=wanted) as advance:
        while True:
            sample = _sample(environment, running)
            if sample.visible > seen:
                advance(sample.visible - seen)
                samples.append(sample)
                seen, moved_s = sample.visible, sample.at_s
            if seen >= wanted or sample.at_s > began_s + patience_s:
                return samples
            if seen and sample.at_s > moved_s + stall_s:
                return samples
            environment.require_alive(running)
            clock.sleep(sample_s)


def _sample(environment: BenchEnvironment, running: Running) -> Sample:
    visible = environment.ends.visible(running.entry.output)
    pids = family(running.pid)
    return Sample(
        at_s=environment.clock.monotonic_s(),
        visible=visible,
        engine_cpu_s=cpu_s(pids),
        broker_cpu_s=cpu_s(environment.broker_pids),
        resident_mb=resident_mb(pids),
    )


def _first(samples: list[Sample]) -> float:
    return next((sample.at_s for sample in samples if sample.visible), samples[-1].at_s)
