"""JSON records as the stream reads them for a bundle."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from penstock.engine.codec.decode import RowDecoder
from penstock.engine.codec.json_rows import JsonRows
from penstock.engine.models.bundle.bundle import Bundle
from penstock.schemas.records import Records


def read_records(
    bundle: Bundle, records: Sequence[dict[str, Any]]
) -> tuple[NDArray[np.int64], NDArray[np.generic]]:
    """Which records the stream takes (R,), and their matrix rows (R, F)."""
    rows = JsonRows(bundle.signature)
    decoder = RowDecoder(
        signature=bundle.signature,
        header_bytes=0,
        compile_rows=lambda _: rows,
        skips_null=False,
        record_bytes_max=1 << 20,
    )
    count = len(records)
    decoded = decoder.decode(
        Records(
            topic="in",
            partitions=np.zeros(count, dtype=np.int32),
            offsets=np.arange(count),
            timestamps_ms=np.full(count, -1),
            keys=[None] * count,
            values=[orjson.dumps(record) for record in records],
        )
    )
    return decoded.rows, decoded.matrix
