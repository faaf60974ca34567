"""The records of the benches: 30 doubles in Avro's single-object encoding, and no two the same."""

import io
from collections.abc import Iterator
from typing import Any, Final

import fastavro
import numpy as np
from numpy.typing import NDArray

from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.simple import KafkaWriter
from penstock.engine.codec.framing import single_object_prefix
from penstock.schemas.errors import InvariantError

features: Final = 30
partitions: Final = 4
_chunk_rows: Final = 10_000


def event_schema() -> dict[str, Any]:
    """The input's schema: 30 doubles."""
    fields = [{"name": f"f{i}", "type": "double"} for i in range(features)]
    return {"type": "record", "name": "Event", "namespace": "penstock.bench", "fields": fields}


def some_rows(count: int, *, seed: int) -> NDArray[np.float64]:
    """Rows (count, 30) that differ: repeated ones would measure the branch predictor."""
    return np.random.default_rng(seed).normal(size=(count, features))


def payloads(rows: NDArray[np.float64]) -> list[bytes]:
    """The rows in Avro's single-object encoding. Doubles only: a row's own bytes are its encoding."""
    prefix = single_object_prefix(event_schema())
    return [prefix + row.tobytes() for row in rows]


def require_encoding() -> None:
    """Prove on one row that `payloads` says what fastavro would."""
    row = some_rows(1, seed=0)
    written = io.BytesIO()
    names = [f"f{i}" for i in range(features)]
    fastavro.schemaless_writer(
        written, fastavro.parse_schema(event_schema()), dict(zip(names, row[0].tolist(), strict=True))
    )
    if payloads(row)[0][10:] != written.getvalue():
        raise InvariantError("30 doubles are not encoded as their own bytes here")


def fill(config: ClientConfig, topic: str, records: int, *, seed: int) -> Iterator[int]:
    """Write the records, keyed 0, 1, 2, ... in text; yields how many more are on their way."""
    require_encoding()
    writer = KafkaWriter(config, topic)
    for start in range(0, records, _chunk_rows):
        rows = some_rows(min(_chunk_rows, records - start), seed=seed + start)
        writer.write(payloads(rows), keys=[b"%d" % (start + i) for i in range(len(rows))])
        yield len(rows)
    writer.flush(60.0)
    writer.close()
