"""The demo itself: stream, watch, and settle the books."""

import io
import os
import tempfile
import threading
from collections import deque
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
from rich.live import Live

from penstock.engine.clock import Clock, SystemClock
from penstock.engine.codec.contracts import contract
from penstock.engine.codec.framing import single_object_header_bytes, single_object_prefix
from penstock.engine.console.reasons import FeatureShare
from penstock.engine.console.terminal import Terminal
from penstock.engine.demo.audit import Audit
from penstock.engine.demo.committed import Committed
from penstock.engine.demo.flights import Departures, departure_schema, load_departures
from penstock.engine.demo.stage import Reader, Stage, kafka_stage, memory_stage, topics
from penstock.engine.demo.train import train_and_package
from penstock.engine.demo.view import Numbers, Shown, busy_sentence, plain_line, screen, summary
from penstock.schemas.errors import NotReadyError, PenstockError
from penstock.schemas.records import Records

stream_from_month = 4
catch_up_patience_s = 60.0
first_prediction_patience_s = 60.0
warm_up_records = 200
start_up_max_s = 10.0
"""So much of the stream, but no more than a third, is told apart: a broker that has just started compiles itself while it works."""
live_window_s = 10.0
sends_per_s = 25
"""The departures of 40 ms go together, as a producer with `linger.ms` sends them. In a hundred sends a second the broker of a
machine of two cores spends more on requests than on records."""
lines_every_s = 5.0
shown_max = 3


def run_demo(terminal: Terminal, *, seconds: float, rate: int, broker: str) -> int:
    """Train, stream, show, and account; 0 only if every record has exactly one outcome and its explanation."""
    clock = SystemClock()
    if (busy := busy_sentence(os.getloadavg()[0], os.cpu_count() or 1)) is not None:
        terminal.say(busy)
    terminal.say("reading a year of departures from New York ...")
    past, stream = load_departures().split(stream_from_month)
    with tempfile.TemporaryDirectory(prefix="penstock-demo-") as name:
        folder = Path(name)
        terminal.say(f"training on {len(past):,} departures of January to March, packaging the model ...")
        report = train_and_package(past, folder / "model")
        parity = report.parity
        terminal.say(
            f"the packaged model says what LightGBM says: at most {parity.difference_max:.1g} apart on "
            f"{parity.rows_given + parity.rows_made_up:,} rows"
        )
        stage: AbstractContextManager[Stage]
        if broker == "memory":
            terminal.say("starting the worker on the broker in memory ...")
            stage = memory_stage(folder / "model", folder, clock)
        else:
            terminal.say("starting Apache Kafka and a worker ...")
            stage = kafka_stage(folder / "model", folder, clock, terminal.say)
        with stage as opened:
            return _Show(terminal, opened, stream, clock, seconds=seconds, rate=rate).run()


class _Producer(threading.Thread):
    """Streams departures in order of time at a steady rate; open loop, so a slow worker shows as lag."""

    def __init__(self, stage: Stage, stream: Departures, clock: Clock, *, seconds: float, rate: int) -> None:
        super().__init__(name="producer", daemon=True)
        self._stage, self._stream, self._clock = stage, stream, clock
        self._seconds, self._rate = seconds, rate
        self.produced = 0
        self.warm_up_total = min(len(stream), warm_up_records, warm_up_records + round(seconds * rate))
        self.warm = threading.Event()
        """Set when the results of the first `warm_up_records` have been read: only then the steady stream begins."""
        self.finished = False
        self.failure: PenstockError | None = None

    def run(self) -> None:
        try:
            self._produce()
        except PenstockError as error:
            self.failure = error
        self.finished = True

    def _produce(self) -> None:
        prefix = single_object_prefix(departure_schema())
        began_s = self._clock.monotonic_s()
        keys: list[bytes | None] = []
        values: list[bytes | None] = []
        total = min(len(self._stream), warm_up_records + round(self._seconds * self._rate))
        for number, (key, body) in enumerate(self._stream.events(total)):
            keys.append(key)
            values.append(prefix + body)
            if number < warm_up_records:
                if number == warm_up_records - 1:
                    self._send(keys, values)
                    keys, values = [], []
                    self.warm.wait(first_prediction_patience_s)
                    began_s = self._clock.monotonic_s() - self.produced / self._rate
                continue
            if len(keys) >= max(self._rate // sends_per_s, 1):
                due_s = began_s + (self.produced + len(keys)) / self._rate
                self._clock.sleep(max(due_s - self._clock.monotonic_s(), 0.0))
                self._send(keys, values)
                keys, values = [], []
        self._send(keys, values)
        self._stage.writer.flush(30.0)

    def _send(self, keys: list[bytes | None], values: list[bytes | None]) -> None:
        if keys:
            self._stage.writer.write(values, keys=keys)
            self.produced += len(keys)


class _Show:
    def __init__(
        self, terminal: Terminal, stage: Stage, stream: Departures, clock: Clock, *, seconds: float, rate: int
    ) -> None:
        self._terminal, self._stage, self._clock = terminal, stage, clock
        self._seconds = seconds
        self._producer = _Producer(stage, stream, clock, seconds=seconds, rate=rate)
        frame = stream.frame
        self._audit = Audit(dict(zip(frame["key"], frame["late"], strict=True)))
        self._about = dict(
            zip(
                frame["key"],
                zip(frame["flight"], frame["origin"], frame["destination"], strict=True),
                strict=True,
            )
        )
        self._readers: list[tuple[str, Reader]] = [(topic, stage.reader(topic)) for topic in topics[1:]]
        # No more of a message than is needed: this program shares the machine with the worker whose latency it shows.
        self._schemas = {
            topics[1]: _up_to("prediction", "outputs"),
            topics[2]: _up_to("explanation", "source"),
            topics[3]: _up_to("dead_letter", "source"),
        }
        self._explanation = fastavro.parse_schema(contract("explanation"))
        self._newest: deque[Shown] = deque(maxlen=shown_max)
        self._waiting: dict[tuple[int, int], tuple[str, float]] = {}
        self._progress: deque[tuple[float, int]] = deque(maxlen=40)
        self._last_key = ""
        self._first_s = 0.0
        self._start_up_s = min(start_up_max_s, seconds / 3)
        self._steady_s: float | None = None  # since then
        self._before: Committed | None = None
        self._began_s = self._shown_s = clock.monotonic_s()

    def run(self) -> int:
        terminal = self._terminal
        terminal.say(f"streaming through {self._stage.broker}; press Ctrl+C to stop")
        self._began_s = self._clock.monotonic_s()
        self._producer.start()
        if terminal.live:
            with Live(console=terminal.console, refresh_per_second=5, transient=True) as live:
                self._watch(
                    lambda: live.update(screen(self._numbers(), tuple(self._newest), self._audit.quality()))
                )
        else:
            self._watch_in_lines()
        return self._settle()

    def _watch_in_lines(self) -> None:
        due_s = 0.0

        def line() -> None:
            nonlocal due_s
            now_s = self._clock.monotonic_s()
            if now_s >= due_s:
                due_s = now_s + lines_every_s
                self._terminal.say(plain_line(self._numbers(), tuple(self._newest)))

        self._watch(line)

    def _watch(self, draw: Any) -> None:
        """Read and show until everything that was produced has come out, or nothing comes any more."""
        drawn_s = last_news_s = self._clock.monotonic_s()
        while True:
            news = self._read()
            now_s = self._clock.monotonic_s()
            if not self._producer.warm.is_set() and self._audit.outcomes:
                self._first_s = self._first_s or now_s - self._began_s
                everything = min(self._audit.outcomes, self._audit.explained + self._audit.rejected)
                if everything >= self._producer.warm_up_total:
                    self._audit.forget_latencies()
                    self._began_s = now_s
                    self._producer.warm.set()
            elif self._steady_s is None and now_s >= self._began_s + self._start_up_s:
                self._before = self._stage.committed()
                self._steady_s = now_s
            if news:
                last_news_s = now_s
            if now_s - drawn_s >= 0.2:
                drawn_s = now_s
                self._progress.append((now_s, self._audit.outcomes))
                draw()
            if (failure := self._stage.worker_failed()) is not None:
                raise NotReadyError(f"the worker ended: {failure}")
            if self._producer.failure is not None:
                raise self._producer.failure
            complete = self._audit.outcomes >= self._producer.produced
            explained = self._audit.explained + self._audit.rejected >= self._producer.produced
            if self._producer.finished and (
                (complete and explained) or now_s - last_news_s > catch_up_patience_s
            ):
                return
            if (
                self._audit.outcomes == 0
                and now_s - self._began_s > first_prediction_patience_s + self._seconds
            ):
                raise NotReadyError("no prediction came out")

    def _read(self) -> bool:
        """What has come, predictions first: only for those is waited, so that no dead letter that nobody wrote makes them late."""
        news = False
        for number, (topic, reader) in enumerate(self._readers):
            records = reader.read(4096, 0.0 if news or number else 0.01)
            if records is not None and len(records):
                news = True
                self._take(topic, records)
        return news

    def _take(self, topic: str, records: Records) -> None:
        now_ms = self._clock.wall_ms()
        schema = self._schemas[topic]
        for key, value in zip(records.keys, records.values, strict=True):
            message = _read(value, schema)
            source = message["source"]
            place = (source["partition"], source["offset"])
            name = (key or b"").decode()
            if topic == topics[1]:
                score = message["outputs"]["probabilities"][1]
                self._audit.prediction(
                    *place,
                    key=name,
                    score=score,
                    latency_s=(now_ms - source["timestamp_ms"]) / 1000,
                    read_s=self._clock.monotonic_s(),
                )
                self._last_key = name
                self._waiting[place] = (name, score)
                if len(self._waiting) > 20_000:
                    self._waiting.pop(next(iter(self._waiting)))
            elif topic == topics[2]:
                self._audit.explanation(*place)
                if place in self._waiting:
                    self._show(*self._waiting.pop(place), value)
            else:
                self._audit.dead_letter(*place)

    def _show(self, key: str, score: float, message: bytes | None) -> None:
        now_s = self._clock.monotonic_s()
        if self._newest and now_s - self._shown_s < 0.7:  # slow enough to be read
            return
        self._shown_s = now_s
        explanation = _read(message, self._explanation)
        flight, origin, destination = self._about[key]
        due = key.split("-")[1][-4:]
        reasons = tuple(
            FeatureShare(feature=a["feature"], value=a["value"], attribution=a["attribution"])
            for a in explanation["attributions"]
        )
        self._newest.appendleft(
            Shown(
                flight=flight,
                route=f"{origin}→{destination}",
                due=f"{due[:2]}:{due[2:]}",
                probability=score,
                reasons=reasons,
            )
        )

    def _numbers(self) -> Numbers:
        rate = 0.0
        if len(self._progress) > 1:
            (first_s, first), (last_s, last) = self._progress[0], self._progress[-1]
            rate = (last - first) / max(last_s - first_s, 1e-9)
        day = self._last_key.split("-")[1][:8] if self._last_key else ""
        shown_day = (
            f"{np.datetime64(f'{day[:4]}-{day[4:6]}-{day[6:]}').astype(object):%a %-d %b %Y}"
            if day
            else "waiting for the first prediction"
        )
        return Numbers(
            produced=self._producer.produced,
            predicted=self._audit.outcomes - self._audit.rejected,
            explained=self._audit.explained,
            rejected=self._audit.rejected,
            rate_per_s=rate,
            p50_ms=self._audit.latency_ms(50, since_s=self._clock.monotonic_s() - live_window_s),
            p99_ms=self._audit.latency_ms(99, since_s=self._clock.monotonic_s() - live_window_s),
            elapsed_s=self._clock.monotonic_s() - self._began_s,
            total_s=self._seconds,
            simulated=shown_day,
        )

    def _settle(self) -> int:
        """The books: what the input topic holds against what came out."""
        ends = {reading.partition: reading.end for reading in self._stage.offsets.read(topics[0])}
        account, quality = self._audit.account(ends), self._audit.quality()
        steady_s = self._began_s if self._steady_s is None else self._steady_s
        p50_ms, p99_ms = (self._audit.latency_ms(each, since_s=steady_s) for each in (50, 99))
        start_up_ms = tuple(self._audit.latency_ms(each, until_s=steady_s) for each in (50, 99))
        after = self._stage.committed()
        committed_ms = None
        if self._before is not None and after is not None:
            committed_ms = (after.percentile_ms(50, self._before), after.percentile_ms(99, self._before))
        rate = max(account.records - self._producer.warm_up_total, 0) / max(self._seconds, 1e-9)
        self._terminal.say(
            summary(
                account,
                quality,
                p50_ms=p50_ms,
                p99_ms=p99_ms,
                committed_ms=committed_ms,
                start_up_ms=start_up_ms,
                start_up_s=self._start_up_s,
                first_s=self._first_s,
                rate_per_s=rate,
                boxed=self._terminal.live,
                guarantee="read by a read_committed consumer, delivery exactly_once",
            )
        )
        self._terminal.result(
            {
                **asdict(account),
                "latency_p50_ms": round(p50_ms, 2),
                "latency_p99_ms": round(p99_ms, 2),
                "committed_p50_ms": committed_ms and round(committed_ms[0], 2),
                "committed_p99_ms": committed_ms and round(committed_ms[1], 2),
                "start_up_p50_ms": round(start_up_ms[0], 2),
                "start_up_p99_ms": round(start_up_ms[1], 2),
                "first_result_s": round(self._first_s, 3),
                "quality": asdict(quality) if quality else None,
            }
        )
        return 0 if account.balanced and account.records else 1


def _up_to(name: str, last: str) -> Any:
    """The fields of a contract from the first to this one: a message read by them is read no further."""
    schema = contract(name)
    names = [each["name"] for each in schema["fields"]]
    return fastavro.parse_schema({**schema, "fields": schema["fields"][: names.index(last) + 1]})


def _read(message: bytes | None, schema: Any) -> Any:
    return fastavro.schemaless_reader(io.BytesIO((message or b"")[single_object_header_bytes:]), schema, None)
