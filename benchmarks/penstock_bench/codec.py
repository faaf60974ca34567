"""`penstock bench codec`: what decoding and encoding cost a record, beside fastavro and numpy."""

import argparse
import io
from collections.abc import Callable
from statistics import median
from typing import Any

import fastavro
import numpy as np
from rich.table import Table

from penstock.engine.clock import Clock, SystemClock
from penstock.engine.codec.avro.columns import NativeRows
from penstock.engine.codec.avro.encode import ExplanationEncoder, PredictionEncoder
from penstock.engine.codec.contracts import contract
from penstock.engine.codec.lineage import Lineage
from penstock.engine.console.terminal import Terminal
from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.engine.ports import Attributions, Predictions
from penstock.schemas.records import Records

summary = "Avro records to a model's matrix, and predictions and explanations to Avro: microseconds a record, one thread."
features = 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this bench."""
    parser.add_argument("--batch", type=int, default=1024, help="records a call (default: %(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=15, help="calls of each contestant, in turn (default: %(default)s)"
    )


def run(arguments: argparse.Namespace, terminal: Terminal, clock: Clock | None = None) -> dict[str, Any]:
    """Measure, show a table, and return all of it."""
    clock = clock or SystemClock()
    rng = np.random.default_rng(30)
    batch, rounds = max(1, arguments.batch), max(3, arguments.rounds)
    contestants = {**_doubles(rng, batch), **_mixed(rng, batch), **_encoders(rng, batch)}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name in rng.permutation(list(contestants)).tolist():
            began_s = clock.monotonic_s()
            contestants[name]()
            if turn:  # the first round warms up
                times[name].append((clock.monotonic_s() - began_s) / batch * 1e6)
    figures = {name: round(median(each), 4) for name, each in times.items()}
    ratios = {
        kind: round(figures[f"{kind}: fastavro"] / figures[f"{kind}: penstock"], 1)
        for kind in (
            "decode 30 doubles",
            "decode 30 mixed fields",
            "encode predictions",
            "encode explanations",
        )
    }
    table = Table("work", "penstock us/record", "fastavro us/record", "times", box=None)
    for kind, ratio in ratios.items():
        table.add_row(
            kind, f"{figures[f'{kind}: penstock']:.3f}", f"{figures[f'{kind}: fastavro']:.2f}", f"{ratio:.1f}"
        )
    terminal.say(table)
    return {"batch": batch, "us_per_record": figures, "times_fastavro": ratios}


def _doubles(rng: np.random.Generator, batch: int) -> dict[str, Callable[[], object]]:
    schema = {
        "type": "record",
        "name": "Row",
        "fields": [{"name": f"f{i}", "type": "double"} for i in range(features)],
    }
    signature = Signature(
        features=tuple(Feature(name=f"f{i}", field=f"f{i}", kind="number") for i in range(features)),
        inputs=(ModelInput(name="X", dtype="float32", start=0, width=features),),
    )
    records = [
        {f"f{i}": value for i, value in enumerate(row)} for row in rng.normal(size=(batch, features)).tolist()
    ]
    payloads, parsed = _written(schema, records)
    rows = NativeRows(schema, schema, signature, skip=0)

    def slow() -> object:
        read: Any = (fastavro.schemaless_reader(io.BytesIO(payload), parsed, None) for payload in payloads)
        return np.array([[*record.values()] for record in read], dtype=np.float32)

    return {"decode 30 doubles: penstock": lambda: rows.read(payloads), "decode 30 doubles: fastavro": slow}


def _mixed(rng: np.random.Generator, batch: int) -> dict[str, Callable[[], object]]:
    names = [f"c{i}" for i in range(4)]
    table = tuple(f"value-{i}" for i in range(40))
    fields: list[dict[str, Any]] = [{"name": name, "type": "string"} for name in names]
    fields += [{"name": f"n{i}", "type": ["null", "double"], "default": None} for i in range(13)]
    fields += [{"name": f"l{i}", "type": "long"} for i in range(13)]
    schema = {"type": "record", "name": "Row", "fields": fields}
    signature = Signature(
        features=(
            *(Feature(name=name, field=name, kind="category", categories=table) for name in names),
            *(Feature(name=f["name"], field=f["name"], kind="number") for f in fields[4:]),
        ),
        inputs=(ModelInput(name="X", dtype="float32", start=0, width=features),),
    )
    records = []
    for _ in range(batch):
        record: dict[str, Any] = {name: table[int(rng.integers(40))] for name in names}
        record |= {f"n{i}": None if rng.random() < 0.2 else float(rng.normal()) for i in range(13)}
        record |= {f"l{i}": int(rng.integers(1_000_000)) for i in range(13)}
        records.append(record)
    payloads, parsed = _written(schema, records)
    rows = NativeRows(schema, schema, signature, skip=0)
    codes = {name: float(code) for code, name in enumerate(table)}

    def slow() -> object:
        read: Any = (fastavro.schemaless_reader(io.BytesIO(payload), parsed, None) for payload in payloads)
        return np.array(
            [[codes[v] if isinstance(v, str) else v for v in record.values()] for record in read],
            dtype=np.float32,
        )

    return {
        "decode 30 mixed fields: penstock": lambda: rows.read(payloads),
        "decode 30 mixed fields: fastavro": slow,
    }


def _encoders(rng: np.random.Generator, batch: int) -> dict[str, Callable[[], object]]:
    lineage = Lineage(
        cluster="cluster", topic="events", model_name="model", model_version="1", model_digest="f" * 64
    )
    columns = [f"feature_{i}" for i in range(features)]
    classes = ("no", "yes")
    prediction = PredictionEncoder(
        prefix=b"", lineage=lineage, output_names=["probabilities"], classes=classes
    )
    explanation = ExplanationEncoder(
        prefix=b"", lineage=lineage, columns=columns, tables=[None] * features, classes={"probabilities": classes}, top=0
    )  # fmt: skip
    where = Records(
        topic="events", partitions=np.zeros(batch, np.int32), offsets=np.arange(batch),
        timestamps_ms=np.full(batch, 1_700_000_000_000), keys=[None] * batch, values=[None] * batch, topic_id="A" * 22,
    )  # fmt: skip
    scores, labels = rng.random((batch, 2)), np.ones(batch, np.int64)
    matrix, values = rng.normal(size=(batch, features)), rng.normal(size=(batch, features))
    zeros = np.zeros(batch)
    predicted = Predictions(outputs={"probabilities": scores}, labels=labels, classes=classes)
    explained = Attributions(
        values=values, base=zeros, output_index=np.ones(batch, np.int64), additivity_error=zeros, sampling_error=None,
        output_name="probabilities", method="tree_path_dependent", space="log_odds", background=None,
    )  # fmt: skip

    def predictions() -> list[bytes]:
        return prediction.encode(where, predicted, 0)

    def explanations() -> list[bytes]:
        return explanation.encode(where, matrix, explained)

    def slow(name: str, payloads: list[bytes]) -> Callable[[], object]:
        schema = fastavro.parse_schema(contract(name))
        records = [fastavro.schemaless_reader(io.BytesIO(payload), schema, None) for payload in payloads]

        def write() -> None:
            for record in records:
                fastavro.schemaless_writer(io.BytesIO(), schema, record)

        return write

    return {
        "encode predictions: penstock": predictions,
        "encode predictions: fastavro": slow("prediction", predictions()),
        "encode explanations: penstock": explanations,
        "encode explanations: fastavro": slow("explanation", explanations()),
    }


def _written(schema: dict[str, Any], records: list[dict[str, Any]]) -> tuple[list[bytes], Any]:
    parsed = fastavro.parse_schema(schema)
    payloads = []
    for record in records:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, parsed, record)
        payloads.append(out.getvalue())
    return payloads, parsed
