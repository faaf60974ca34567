"""The rows of a part, a block at a time, as the stream's decoder would leave them."""

import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from penstock.engine.batch.csv_parts import WatchedCsv
from penstock.engine.batch.errors import ScoreError
from penstock.engine.batch.files import Format, InputFile, Part, is_remote, opened
from penstock.engine.codec.tables.arrow import (
    arrow,
    arrow_columns,
    leads_somewhere,
    top_columns,
    valid_texts,
)
from penstock.engine.codec.tables.columns import Column, ColumnRows, FeatureColumns, find_columns
from penstock.engine.codec.tables.frames import RowReader
from penstock.engine.codec.tables.text import text_columns
from penstock.engine.features.signature import Signature
from penstock.engine.ports import Decoded
from penstock.schemas.reasons import Reason, Stage
from penstock.schemas.records import Rejection

_block_rows: Final = (1024, 1 << 14)
_block_values: Final = 1 << 19
"""A block of a table: so many values, within these bounds of rows. Each block costs every column the same, in Python."""
_read_rows: Final = (1 << 12, 1 << 16)
_read_values: Final = 1 << 22
"""Decoded from a Parquet file at a time, likewise."""
_line_block_rows: Final = 4096
_json_read_bytes: Final = 4 << 20
_line_bytes_max: Final = 256 << 20
"""Bytes read without a line feed, after which the file is refused: it is not JSON lines."""
_csv_block_bytes: Final = 4 << 20
_array_begins: Final = re.compile(rb"(\xef\xbb\xbf)?\s*\[\s*\{")
_blank_bytes: Final = 4096  # a CSV file that begins with so much white space holds something


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Rows that were read together: decoded, or as the bytes of JSON records."""

    rows: NDArray[np.int64]  # (N,) their numbers in the file
    decoded: Decoded | None
    lines: Sequence[bytes]
    kept: Any
    """A pyarrow.RecordBatch of the columns that are passed through, N rows; None where there are none."""
    payload: Callable[[int], str]
    """The record of a row as text, for a dead letter."""
    unreadable: tuple[tuple[int, Rejection, str], ...] = ()
    """Records that are no rows at all: their number in the file, what is wrong, their text."""


def read_part(
    part: Part,
    kind: Format,
    signature: Signature,
    *,
    keep: Sequence[str],
    delimiter: str,
    schema: dict[str, Any] | None = None,
) -> Iterator[Block]:
    """The blocks of a part, in order. `schema`: of the stream's records in Avro, which says the units of times.

    Raises ScoreError where the file cannot be read, ConfigError for times in another unit than the schema has.
    """
    if kind == "jsonl":
        yield from _json_blocks(part, keep)
        return
    pa = arrow("a table")
    reader = _TableReader(signature, keep, schema)
    try:
        with opened(part.file) as stream:
            if kind == "parquet":
                # Arrow reads a file of this machine without Python in between.
                source = stream if is_remote(part.file.address) else pa.OSFile(part.file.address)
                yield from _parquet_blocks(part, source, reader, signature)
            else:
                yield from _csv_blocks(part, stream, reader, signature, delimiter)
    except (pa.ArrowException, OSError, EOFError, zlib.error) as error:
        words = (str(error).splitlines() or ["no reason given"])[0].rstrip(".")
        raise ScoreError(f"{part.file.address} cannot be read: {words}") from error


def csv_names(file: InputFile, delimiter: str) -> list[str]:
    """The names in the first line of a CSV file, none of a file that holds nothing. Raises ScoreError."""
    pa = arrow("a CSV file")
    try:
        with opened(file) as stream:
            if not _plain(file, stream).read(_blank_bytes).strip():
                return []
        with opened(file) as stream:
            names: list[str] = _csv_reader(pa, _plain(file, stream), delimiter, None, None).schema.names
            return names
    except UnicodeDecodeError as error:
        raise ScoreError(f"{file.address} cannot be read as CSV: its first line is not UTF-8 text") from error
    except (pa.ArrowException, OSError, EOFError, zlib.error) as error:
        words = (str(error).splitlines() or ["no reason given"])[0].rstrip(".")
        raise ScoreError(f"{file.address} cannot be read as CSV: {words}") from error


def refuse_json_array(file: InputFile) -> None:
    """Raises ScoreError for a file that is one array of records, of which each line would be set aside."""
    try:
        with opened(file) as stream:
            begins = _plain(file, stream).read(_blank_bytes)
    except (OSError, EOFError, zlib.error) as error:
        raise ScoreError(f"{file.address} cannot be read: {error}") from error
    if _array_begins.match(begins):
        raise ScoreError(
            f"{file.address} is one JSON array, and a record on each line is read: jq -c '.[]' makes lines of it"
        )


class _TableReader:
    def __init__(self, signature: Signature, keep: Sequence[str], schema: dict[str, Any] | None) -> None:
        self._columns, self._rows, self._keep = ColumnRows(signature, schema), RowReader(signature), [*keep]

    def block(
        self,
        batch: Any,
        columns: dict[str, Column],
        plan: Sequence[FeatureColumns],
        rows: NDArray[np.int64],
        unreadable: tuple[tuple[int, Rejection, str], ...] = (),
    ) -> Block:
        decoded = self._rows.decoded(*self._columns.read(plan, columns, batch.num_rows))

        def payload(row: int) -> str:
            one = batch.slice(row, 1)
            try:
                record = one.to_pylist()[0]
            except UnicodeDecodeError:
                record = valid_texts(one).to_pylist()[0]
            return orjson.dumps(record, default=str).decode()

        return Block(
            rows=rows,
            decoded=decoded,
            lines=(),
            kept=valid_texts(batch.select(self._keep)) if self._keep else None,
            payload=payload,
            unreadable=unreadable,
        )

    def kept_of_nothing(self) -> Any:
        """The columns that are passed through, of a file without a line."""
        return _kept_of([], self._keep) if self._keep else None

    def wanted(self, plan: Sequence[FeatureColumns], names: Sequence[str]) -> list[str]:
        model = set(top_columns(plan, names))
        return [name for name in names if name in model or name in self._keep]


def _rows_of(values: int, bounds: tuple[int, int], columns: int) -> int:
    return min(max(values // max(columns, 1), bounds[0]), bounds[1])


def _parquet_blocks(part: Part, stream: Any, reader: _TableReader, signature: Signature) -> Iterator[Block]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(stream, pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True)
    schema = file.schema_arrow
    plan = find_columns(
        signature, schema.names, origin=part.file.name, nested=lambda path: leads_somewhere(schema, path)
    )
    columns = reader.wanted(plan, schema.names)
    if not part.rows:
        nothing = file.schema_arrow.empty_table().select(columns).to_batches() or [
            arrow("a table").RecordBatch.from_pylist([], schema=schema)
        ]
        yield reader.block(nothing[0], arrow_columns(nothing[0], plan), plan, np.empty(0, dtype=np.int64))
        return
    pieces = file.iter_batches(
        batch_size=_rows_of(_read_values, _read_rows, len(columns)),
        row_groups=[*part.row_groups],
        columns=columns,
        use_threads=False,
    )
    at, block_rows = part.first_row, _rows_of(_block_values, _block_rows, len(columns))
    for piece in pieces:
        for start in range(0, piece.num_rows, block_rows):
            batch = piece.slice(start, block_rows)
            rows = np.arange(at, at + batch.num_rows, dtype=np.int64)
            yield reader.block(batch, arrow_columns(batch, plan), plan, rows)
            at += batch.num_rows


def _csv_blocks(
    part: Part, stream: Any, reader: _TableReader, signature: Signature, delimiter: str
) -> Iterator[Block]:
    pa = arrow("a CSV file")
    file = part.file
    names = csv_names(file, delimiter)
    if not names:  # as a file of JSON lines without a line
        yield Block(
            rows=np.empty(0, dtype=np.int64),
            decoded=None,
            lines=[],
            kept=reader.kept_of_nothing(),
            payload=str,
        )
        return
    plan = find_columns(signature, names, origin=file.name)
    wrong: list[tuple[int, Rejection, str]] = []

    def set_aside(row: Any) -> str:
        detail = f"the line has {row.actual_columns} columns, and the first line names {row.expected_columns}"
        rejection = Rejection(index=0, stage=Stage.DECODE, reason=Reason.CORRUPT, detail=detail)
        number = part.first_row + row.number - 2  # counted from 1, the header among them
        wrong.append((number, rejection, row.text))
        return "skip"

    wanted = reader.wanted(plan, names)
    records = _records_of(part, stream)
    watched = WatchedCsv(records, delimiter=delimiter) if part.end is None else None
    batches = _csv_reader(pa, watched or records, delimiter, wanted, set_aside)
    at, told, block_rows = part.first_row, 0, _rows_of(_block_values, _block_rows, len(wanted))
    while True:
        try:
            batch = batches.read_next_batch()
        except StopIteration:
            break
        for start in range(0, batch.num_rows, block_rows):
            some = batch.slice(start, block_rows)
            skipped = np.array([number for number, _, _ in wrong], dtype=np.int64)
            rows = _numbers_around(at, some.num_rows, skipped)
            at = int(rows[-1]) + 1
            yield reader.block(some, text_columns(some, plan), plan, rows, tuple(wrong[told:]))
            told = len(wrong)
    if watched is not None:
        watched.refuse_open(part.file.address)
    if told < len(wrong) or at == part.first_row:
        nothing = pa.RecordBatch.from_pylist([], schema=pa.schema([(name, pa.string()) for name in wanted]))
        rows = np.empty(0, dtype=np.int64)
        yield reader.block(nothing, text_columns(nothing, plan), plan, rows, tuple(wrong[told:]))


def _numbers_around(at: int, count: int, skipped: NDArray[np.int64]) -> NDArray[np.int64]:
    """`count` numbers from `at` on, without the skipped ones."""
    reach = np.arange(at, at + count + len(skipped), dtype=np.int64)
    return reach[~np.isin(reach, skipped)][:count]


def _csv_reader(pa: Any, stream: Any, delimiter: str, wanted: list[str] | None, invalid: Any) -> Any:
    import pyarrow.csv as csv

    convert: dict[str, Any] = {}
    if wanted is not None:
        convert = {"include_columns": wanted, "column_types": dict.fromkeys(wanted, pa.string())}
    return csv.open_csv(
        stream,
        read_options=csv.ReadOptions(use_threads=False, block_size=_csv_block_bytes),
        parse_options=csv.ParseOptions(
            delimiter=delimiter, newlines_in_values=True, invalid_row_handler=invalid or (lambda _: "skip")
        ),
        convert_options=csv.ConvertOptions(
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
            check_utf8=False,  # one bad byte is a fault of its record
            **convert,
        ),
    )


class _Ranges(io.RawIOBase):
    """Ranges of a file behind each other, as one stream."""

    def __init__(self, stream: Any, *ranges: tuple[int, int]) -> None:
        self._stream = stream
        self._left = [each for each in ranges if each[0] < each[1]]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            return 0
        start, end = self._left[0]
        self._stream.seek(start)
        read: int = self._stream.readinto(memoryview(buffer)[: end - start])
        self._left[:1] = [(start + read, end)] if read and start + read < end else []
        return read


def _records_of(part: Part, stream: Any) -> Any:
    """A part of a CSV file as a file of its own, which begins with the names of the columns."""
    if part.end is None:
        return _plain(part.file, stream)
    ranges = [(part.start, part.end)] if part.start == 0 else [(0, part.header_end), (part.start, part.end)]
    return io.BufferedReader(_Ranges(stream, *ranges), buffer_size=1 << 20)


def _plain(file: InputFile, stream: Any) -> Any:
    return gzip.GzipFile(fileobj=stream) if file.compressed else stream


def _json_blocks(part: Part, keep: Sequence[str]) -> Iterator[Block]:
    file = part.file
    try:
        with opened(file) as stream:
            if part.start:
                stream.seek(part.start)
            for numbers, lines in _line_blocks(part, _plain(file, stream)):
                yield Block(
                    rows=np.array(numbers, dtype=np.int64),
                    decoded=None,
                    lines=lines,
                    kept=_kept_of(lines, keep) if keep else None,
                    payload=lambda row, lines=lines: lines[row].decode("utf-8", "replace"),  # type: ignore[misc]
                )
    except (OSError, EOFError, zlib.error) as error:
        raise ScoreError(f"{file.address} cannot be read: {error}") from error


def _line_blocks(part: Part, stream: io.BufferedIOBase) -> Iterator[tuple[list[int], list[bytes]]]:
    number, left = part.first_row, b""
    unread = None if part.end is None else part.end - part.start
    numbers: list[int] = []
    lines: list[bytes] = []
    while True:
        data = stream.read(_json_read_bytes if unread is None else min(_json_read_bytes, unread))
        if unread is not None:
            unread -= len(data)
        pieces = (left + data).split(b"\n")
        left = pieces.pop() if data else b""
        if len(left) > _line_bytes_max:
            raise ScoreError(
                f"{part.file.address} has no end of a line in {_line_bytes_max} bytes: it holds no JSON lines"
            )
        for piece in pieces:
            if piece and not piece.isspace():
                numbers.append(number)
                lines.append(piece)
            number += 1
            if len(lines) == _line_block_rows:
                yield numbers, lines
                numbers, lines = [], []
        if not data:
            break
    yield numbers, lines


def _kept_of(lines: Sequence[bytes], keep: Sequence[str]) -> Any:
    """The members that are passed through, as text: JSON has no columns whose types would hold for all lines."""
    pa = arrow("--keep")
    columns: dict[str, list[str | None]] = {name: [] for name in keep}
    for line in lines:
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            record = {}
        for name in keep:
            value = record.get(name) if isinstance(record, dict) else None
            text = value if value is None or isinstance(value, str) else orjson.dumps(value).decode()
            columns[name].append(text)
    return pa.RecordBatch.from_pydict(
        {name: pa.array(values, pa.string()) for name, values in columns.items()}
    )
