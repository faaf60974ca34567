"""The input cut into parts: what is written whole or not at all, and what a run that was stopped need not do again."""

import os
from collections.abc import Iterator, Sequence
from typing import IO, Any, Final

from penstock.engine.batch.csv_parts import csv_ranges
from penstock.engine.batch.errors import ScoreError
from penstock.engine.batch.files import Format, InputFile, Part, is_remote, opened
from penstock.engine.batch.read import csv_names, refuse_json_array
from penstock.engine.codec.tables.arrow import arrow, leads_somewhere
from penstock.engine.codec.tables.columns import find_columns
from penstock.engine.features.signature import Signature
from penstock.schemas.errors import ConfigError

part_rows: Final = 1 << 20
"""A part of a Parquet file is at least so many rows, of whole row groups."""
text_part_bytes: Final = 64 << 20
"""A part of a file of JSON lines or CSV is at least so many bytes, of whole lines or records, where the file is local and not
compressed; else it is one part."""
_scan_bytes: Final = 4 << 20
_delimiters: Final = (";", "\t", "|", ",")


def make_parts(
    files: Sequence[InputFile],
    kind: Format,
    signature: Signature,
    *,
    keep: Sequence[str],
    delimiter: str,
    keep_alike: bool = False,
) -> list[Part]:
    """The parts in the order of the input; the files' columns are checked against the model and against each other.

    `keep_alike`: the columns that are passed through go into one table, so that their types have to be the same.

    Raises ConfigError where the model finds no column in the first file, ScoreError for a file that cannot be read or is of
    another shape than the first.
    """
    if kind == "jsonl":
        return [part for each in files for part in _json(each)]
    parts: list[Part] = []
    first: dict[str, str] | None = None
    for file in files:
        if kind == "parquet":
            kinds, pieces = _parquet(file, signature, keep, keep_alike=keep_alike)
        else:
            kinds, pieces = _csv(file, signature, keep, delimiter)
        parts += pieces
        if not kinds:
            continue
        if first is None:
            first = kinds
        elif different := _different(first, kinds):
            name, one, other = different
            raise ScoreError(
                f"the files are not of one shape: column {name} is {one} in {files[0].name} and {other} in {file.name}"
            )
    return parts


def _different(first: dict[str, str], other: dict[str, str]) -> tuple[str, str, str] | None:
    for name in {**first, **other}:
        one, two = first.get(name, "absent"), other.get(name, "absent")
        if one != two and "nothing" not in (one, two):
            return name, one, two
    return None


def _parquet(
    file: InputFile, signature: Signature, keep: Sequence[str], *, keep_alike: bool
) -> tuple[dict[str, str], list[Part]]:
    pa = arrow("a Parquet file")
    import pyarrow.parquet as pq

    with opened(file) as stream:
        try:
            metadata = pq.ParquetFile(stream).metadata
            schema = metadata.schema.to_arrow_schema()
        except (pa.ArrowException, OSError, ValueError) as error:
            raise ScoreError(f"{file.address} cannot be read as Parquet: {_first_line(error)}") from error
    columns = _model_columns(schema.names, signature, keep, file, schema)
    kinds = {name: _kind(pa, schema, name) for name in columns}
    if keep_alike:
        kinds |= {f"{name} (--keep)": str(schema.field(name).type) for name in keep}
    parts: list[Part] = []
    groups: list[int] = []
    first_row = rows = 0
    for group in range(metadata.num_row_groups):
        groups.append(group)
        rows += metadata.row_group(group).num_rows
        if rows >= part_rows or group == metadata.num_row_groups - 1:
            parts.append(Part(file=file, row_groups=tuple(groups), first_row=first_row, rows=rows))
            first_row += rows
            groups, rows = [], 0
    return kinds, parts or [Part(file=file, row_groups=(), rows=0)]


def _json(file: InputFile) -> list[Part]:
    if os.path.isfile(file.address) or is_remote(file.address):  # a pipe is read once
        refuse_json_array(file)
    if not _is_cut(file):
        return [Part(file=file)]
    try:
        with opened(file) as stream:
            ranges = [*_line_ranges(stream, text_part_bytes)]
    except OSError as error:
        raise ScoreError(f"cannot read {file.address}: {error.strerror or error}") from error
    return [Part(file=file, start=start, end=end, first_row=row) for start, end, row in ranges]


def _is_cut(file: InputFile) -> bool:
    return not is_remote(file.address) and not file.compressed and file.bytes > text_part_bytes


def _line_ranges(stream: IO[bytes], bytes_min: int) -> Iterator[tuple[int, int, int]]:
    """Where each range of whole lines starts and ends, and the number of its first line."""
    start = first = lines = at = 0
    while data := stream.read(_scan_bytes):
        begin = 0
        while (cut := data.find(b"\n", max(start + bytes_min - at - 1, begin))) >= 0:
            lines += data.count(b"\n", begin, cut + 1)
            begin = cut + 1
            yield start, at + begin, first
            start, first = at + begin, lines
        lines += data.count(b"\n", begin)
        at += len(data)
    if at > start:
        yield start, at, first


def _csv(
    file: InputFile, signature: Signature, keep: Sequence[str], delimiter: str
) -> tuple[dict[str, str], list[Part]]:
    names = csv_names(file, delimiter)
    if not names:  # nothing at all, not even a first line: no records, as in an empty file of JSON lines
        return {}, [Part(file=file)]
    _refuse_one_column(names, delimiter, file)
    columns = _model_columns(names, signature, keep, file, None)
    kinds = dict.fromkeys(columns, "text")
    if not _is_cut(file):
        return kinds, [Part(file=file)]
    try:
        with opened(file) as stream:
            ranges = [
                *csv_ranges(stream, delimiter=delimiter, bytes_min=text_part_bytes, origin=file.address)
            ]
    except OSError as error:
        raise ScoreError(f"cannot read {file.address}: {error.strerror or error}") from error
    return kinds, [
        Part(file=file, start=each.start, end=each.end, first_row=each.first_row, header_end=each.header_end)
        for each in ranges
    ]


def _refuse_one_column(names: Sequence[str], delimiter: str, file: InputFile) -> None:
    others = [each for each in _delimiters if each != delimiter and each in names[0]]
    if len(names) == 1 and others:
        shown = "a tab" if others[0] == "\t" else others[0]
        raise ConfigError(
            f"{file.name} has one column, {names[0]!r}: is it {shown} that separates them (--delimiter)?"
        )


def _model_columns(
    names: Sequence[str], signature: Signature, keep: Sequence[str], file: InputFile, schema: Any
) -> list[str]:
    def nested(path: str) -> bool:
        return schema is not None and leads_somewhere(schema, path)

    plan = find_columns(signature, names, origin=file.name, nested=nested)
    for name in keep:
        if name not in names:
            raise ConfigError(f"--keep {name}: {file.name} has no such column")
    return [name for place in plan for name in place.names]


def _kind(pa: Any, schema: Any, name: str) -> str:
    index = schema.get_field_index(name)
    if index < 0:
        return "an object's field"
    kind = schema.field(index).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_null(kind):
        return "nothing"
    if (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    ):
        return "a number"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or str(kind) == "string_view":
        return "text"
    return str(kind)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no reason given"])[0].rstrip(".")
