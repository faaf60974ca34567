"""Records of a file or of standard input, all in memory: for who looks at each of them."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.engine.batch.files import find_files, format_of
from penstock.engine.batch.part import json_decoder
from penstock.engine.batch.plan import make_parts
from penstock.engine.batch.read import read_part
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.ports import Decoded
from penstock.engine.python.stages import records_of
from penstock.schemas.errors import ConfigError
from penstock.schemas.records import Rejection

rows_max: Final = 100_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """The input's records: as rows for the model, and those that the stream would set aside."""

    matrix: NDArray[np.generic]  # (N, F)
    numbers: NDArray[np.int64]  # (N,) of the records in the input, from 1
    rejected: tuple[tuple[int, Rejection], ...]  # by number

    def told(self) -> list[str]:
        """The ones set aside, a line each."""
        return [
            f"record {number}: set aside: {rejection.detail} ({rejection.reason})"
            for number, rejection in self.rejected
        ]

    def as_json(self) -> list[dict[str, Any]]:
        """Likewise, for --json."""
        return [
            {"record": number, "reason": str(rejection.reason), "detail": rejection.detail}
            for number, rejection in self.rejected
        ]


def read_rows(file: str, bundle: Bundle, kind: str | None) -> Rows:
    """The records of the input, after the features' policies. Raises ConfigError where not one can be scored."""
    name = "standard input" if file == "-" else file
    parts: list[NDArray[np.generic]] = []
    numbers: list[NDArray[np.int64]] = []
    rejected: list[tuple[int, Rejection]] = []
    count = 0
    for rows, decoded, unreadable in _read(file, bundle, kind):
        rejected += [(row + 1, rejection) for row, rejection in unreadable]
        rejected += [(int(rows[each.index]) + 1, each) for each in decoded.rejections]
        count += len(rows) + len(unreadable)
        if count > rows_max:
            raise ConfigError(
                f"{name} holds more than {rows_max} records; up to {rows_max} are explained at once"
            )
        parts.append(decoded.matrix)
        numbers.append(rows[decoded.rows] + 1)
    if not count:
        raise ConfigError(f"{name} holds no record")
    found = Rows(
        matrix=np.concatenate(parts),
        numbers=np.concatenate(numbers),
        rejected=tuple(sorted(rejected, key=lambda each: each[0])),
    )
    if not len(found.matrix):
        number, first = found.rejected[0]
        raise ConfigError(f"{name}, record {number}: {first.detail}")
    return found


_Block = tuple[NDArray[np.int64], Decoded, list[tuple[int, Rejection]]]


def _read(file: str, bundle: Bundle, kind: str | None) -> Iterator[_Block]:
    """Blocks of records: their numbers in the file from 0, what the decoder made of them, and what are no rows at all."""
    decoder = json_decoder(bundle.signature)
    if file == "-":
        lines = [line for line in sys.stdin.buffer.read().splitlines() if line.strip()]
        yield np.arange(len(lines)), decoder.decode(records_of([*lines])), []
        return
    files = find_files(file, kind)
    form = format_of(files, kind)
    for part in make_parts(files, form, bundle.signature, keep=(), delimiter=","):
        for block in read_part(
            part, form, bundle.signature, keep=(), delimiter=",", schema=bundle.input_schema
        ):
            decoded = decoder.decode(records_of([*block.lines])) if block.decoded is None else block.decoded
            yield block.rows, decoded, [(row, rejection) for row, rejection, _ in block.unreadable]
