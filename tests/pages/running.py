"""A whole engine for the tests of the pages: a trained model, a worker on the broker in memory, and a supervisor's port."""

import itertools
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import xgboost
from prometheus_client import CollectorRegistry

import penstock
from penstock.connectors.memory.broker import MemoryBroker
from penstock.engine.clock import Clock, SystemClock
from penstock.engine.pages.supervisor import Acts, SupervisorPages, supervisor_pages
from penstock.engine.pages.watch import Facts, Watch
from penstock.engine.pages.worker.answers import WorkerAnswers
from penstock.engine.pages.worker.view import WorkerView
from penstock.engine.ports import AssignmentListener, Source
from penstock.engine.settings.model import Settings, parse_settings
from penstock.engine.telemetry.http_server import HttpServer
from penstock.engine.telemetry.port_routes import SupervisorView, worker_routes
from penstock.engine.telemetry.status import StatusBoard
from penstock.engine.telemetry.supervisor_metrics import SupervisorMetrics
from penstock.engine.telemetry.worker_status import KafkaStatus
from penstock.engine.worker.assembly import Link, Worker, event_log, make_worker, new_metrics
from penstock.engine.worker.pages import show_worker
from penstock.engine.worker.startup.startup import Startup, walk
from penstock.engine.worker.startup.worker import worker_steps
from penstock.engine.worker.trial.main import settings_of, trial_steps, trying_of
from penstock.engine.worker.trial.trying import Trying
from penstock.schemas.records import Records

countries = ["CH", "DE", "FR", "NL", "PT"]
hostile = "<img src=x onerror=alert(1)>\u202e\x07\u0000" + "x" * 300
"""A feature's name that somebody chose to do harm with."""
contract = {
    "type": "record",
    "name": "Payment",
    "fields": [
        {"name": "card_number", "type": "string", "sensitive": True},
        {"name": "note", "type": ["null", "string"], "default": None},
        {"name": "amount", "type": "double"},
        {"name": "hour", "type": "double"},
        {"name": "account_age_days", "type": ["null", "double"], "default": None},
        {"name": "country", "type": "string"},
        {"name": "limit_used", "type": "double", "confluent:tags": ["PII"]},
    ],
}


def payments(rows: int, seed: int) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "amount": draw.gamma(2.0, 60.0, rows).round(2),
            "hour": draw.integers(0, 24, rows).astype(float),
            "account_age_days": np.where(draw.random(rows) < 0.1, np.nan, draw.integers(1, 4000, rows)),
            "country": pd.Categorical(draw.choice(countries, rows), categories=countries),
            "limit_used": draw.random(rows).round(3),
        }
    )


def package_model(folder: Path, *, version: str = "7", trees: int = 40) -> None:
    """Payments, some of them fraud."""
    frame = payments(4000, seed=1)
    risk = (
        frame.amount / 150 + (frame.hour < 6) * 1.4 + (frame.country == "PT") * 0.8 + frame.limit_used * 1.5
    )
    fraud = (risk + np.random.default_rng(2).normal(0, 0.6, len(frame)) > 3.2).astype(int)
    model = xgboost.XGBClassifier(
        n_estimators=trees, max_depth=4, enable_categorical=True, tree_method="hist", random_state=3
    )
    model.fit(frame, fraud)
    penstock.package(model, folder, name="card-fraud", version=version, background=frame[:100])


def record(row: dict[str, Any], number: int) -> dict[str, Any]:
    return {
        "card_number": f"4000 1234 {number:08d}",
        "note": hostile if number % 2 == 0 else None,
        **{
            name: None if isinstance(value, float) and np.isnan(value) else value
            for name, value in row.items()
        },
    }


class InProcess:
    """Trials as their processes make them, in this one: the broker in memory can be read from no other."""

    bundles = ("served", "candidate")

    def __init__(self, settings: Settings, broker: MemoryBroker, folder: Path) -> None:
        self._settings, self._broker, self._folder = settings, broker, folder
        self._trying: dict[str, Trying] = {}
        self._lock = threading.Lock()

    def ask(self, bundle: str, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        with self._lock:
            if bundle not in self._trying:
                self._trying[bundle] = self._load(bundle)
            answer = self._trying[bundle].answer(asked)
        return {"state": "failed" if answer["fault"] else "done", **orjson.loads(orjson.dumps(answer))}

    def _load(self, bundle: str) -> Trying:
        path = None if bundle == "served" else self._folder / bundle
        if path is not None and not path.exists():
            package_model(path, version="8", trees=10)
        startup = Startup(
            settings=settings_of(self._settings, bundle=path, runtime="auto"), clock=SystemClock()
        )
        walk(startup, [each for each in worker_steps if each.name in trial_steps], "model")
        return trying_of(startup, read=self._read)

    def _read(self, partition: int, offset: int) -> Records | None:
        for read in self._broker.reader("payments").read_to_end(5.0):
            found = np.flatnonzero((read.partitions == partition) & (read.offsets == offset))
            if len(found):
                return read.take(found)
        return None


@dataclass(kw_only=True)
class Running:
    """What a test may do with it."""

    port: int
    broker: MemoryBroker
    board: StatusBoard
    worker: Worker
    watch: Watch
    pages: SupervisorPages

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def send(self, count: int, *, poison: int = 0, start: int = 0) -> None:
        """Records, in JSON; the last `poison` of them are none."""
        rows = payments(count, seed=start + 5).to_dict("records")
        values = [json.dumps(record(row, start + at)).encode() for at, row in enumerate(rows)]
        if poison:
            values[-poison:] = [b"not json <b>at all</b>"] * poison
        writer = self.broker.writer("payments")
        writer.write(
            values,
            keys=[f"customer-{at % 50}".encode() for at in range(count)],
            timestamp_ms=int(time.time() * 1000),
        )

    def finished(self) -> int:
        return int(self.board.status().records)

    def wait_for(self, records: int, *, at_most_s: float = 20.0) -> None:
        until_s = time.monotonic() + at_most_s
        while self.finished() < records:
            assert time.monotonic() < until_s, f"{self.finished()} of {records} records are finished"
            time.sleep(0.01)


@contextmanager
def running_engine(
    folder: Path,
    *,
    hosts: tuple[str, ...] = (),
    masked: tuple[str, ...] = (),
    guarded: bool = False,
    clock: Clock | None = None,
    max_age_s: float = 30.0,
) -> Iterator[Running]:
    clock = clock or SystemClock()
    broker = MemoryBroker(clock)
    for topic in ("payments", "scores", "reasons", "set-aside"):
        broker.create_topic(topic, partitions=3)
    (folder / "payment.avsc").write_text(json.dumps(contract))
    if not (folder / "model").exists():
        package_model(folder / "model")
    tree = {
        "kafka": {"bootstrap_servers": "memory", "group": "fraud-scorer"},
        "input": {"topic": "payments", "format": "json", "schema": str(folder / "payment.avsc")},
        "output": {"predictions": "scores", "explanations": "reasons", "dead_letters": "set-aside"},
        "model": {"path": str(folder / "model"), "device": "cpu"},
        "objective": {"batch_rows_max": 256},
        "http": {"masked": list(masked)},
    }
    settings = parse_settings(tree, origin="test", folder=folder)

    def open_source(listener: AssignmentListener) -> Source:
        return broker.source(group="fraud-scorer", topic="payments", listener=listener)

    link = Link(
        open_source=open_source,
        ends=lambda partitions: {each: broker.high("payments", each) for each in partitions},
        report=lambda _: None,
    )
    metrics = new_metrics(settings)
    events = event_log(metrics, clock)
    board = StatusBoard(
        worker="fraud-scorer-host-0",
        group="fraud-scorer",
        topic="payments",
        clock=clock,
        rows_max=256,
        events=events.newest,
    )
    board.kafka(KafkaStatus(address="kafka:9092", reachable=True, answer_age_s=0.2))
    view = WorkerView(board=board, metrics=metrics, clock=clock)
    answers = WorkerAnswers(view, clock=clock)
    startup = Startup(
        settings=settings,
        clock=clock,
        metrics=metrics,
        name="fraud-scorer-host-0",
        cluster=broker.cluster_id,
        open_sink=lambda: broker.exactly_once_sink(
            group="fraud-scorer", topic="payments", transactional_ids=("a", "b")
        ),
    )
    worker = make_worker(startup, link, run_folder=folder, board=board, events=events, view=view)
    show_worker(
        view,
        answers,
        settings,
        bundle=worker.bundle,
        model=worker.model,
        name="fraud-scorer-host-0",
        schemas=None,
        clock=clock,
    )
    facts = Facts(
        group="fraud-scorer", topic="payments", objective_ms=50.0, max_age_s=max_age_s, workers=1, predictions="scores",
        explanations="reasons", dead_letters="set-aside",
    )  # fmt: skip
    stop = threading.Event()
    loop = threading.Thread(target=lambda: worker.run(until=stop.is_set), name="polling")
    with HttpServer(
        worker_routes(metrics=metrics, board=board), host="127.0.0.1", port=0, reader=answers.answer
    ) as inner:
        ports = {"0": inner.port}
        acts = Acts(trials=InProcess(settings, broker, folder), guarded=guarded)
        with supervisor_pages(facts, ports=lambda: ports, hosts=hosts, clock=clock, acts=acts) as pages:
            front = SupervisorView(metrics=SupervisorMetrics(CollectorRegistry()), ports=lambda: ports)
            with HttpServer(
                front.routes(), host="127.0.0.1", port=0, reader=pages.reader, posts=True
            ) as outer:
                loop.start()
                try:
                    yield Running(
                        port=outer.port,
                        broker=broker,
                        board=board,
                        worker=worker,
                        watch=pages.watch,
                        pages=pages,
                    )
                finally:
                    stop.set()
                    loop.join(10)


def serve(folder: Path, rate: float = 200.0) -> None:
    """For a person who looks: records at a rate, some of them bad, until Ctrl-C."""
    with running_engine(folder) as engine:
        print(engine.url, flush=True)
        for number in itertools.count():
            engine.send(int(rate / 10), poison=1 if number % 30 == 0 else 0, start=number * 1000)
            time.sleep(0.1)
