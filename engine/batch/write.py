"""A part's results and dead letters: under a working name until they are whole."""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, Literal

import orjson

from penstock.engine.batch.read import Block
from penstock.engine.codec.tables.arrow import arrow
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.python.arrow_table import predicted_columns, text_columns
from penstock.engine.python.stages import Scored
from penstock.schemas.errors import ConfigError
from penstock.schemas.records import Rejection

OutputFormat = Literal["parquet", "jsonl"]
_group_values_max: Final = 2 << 20
"""Attributions in a row group, which the writer keeps in memory until it is full."""
_compression: Final = "snappy"
_group_rows: Final = (8192, 1 << 17)


class ResultWriter:
    """Writes the predicted rows of a part, in order."""

    def __init__(self, path: Path, kind: OutputFormat, bundle: Bundle, *, explain: bool, top: int) -> None:
        self._path, self._kind = path, kind
        self._bundle, self._explain, self._top = bundle, explain, top
        self._stream: IO[bytes] | None = None
        self._parquet: Any = None
        self._waiting: list[Any] = []
        self._waiting_rows = 0
        width = min(top or bundle.signature.width, bundle.signature.width) if explain else 1
        self._rows_max = min(max(_group_values_max // width, _group_rows[0]), _group_rows[1])

    def write(self, block: Block, scored: Scored, file: str) -> None:
        """Append the block's predicted rows."""
        pa = arrow("a file of scores")
        count = len(scored.rows)
        source = pa.StructArray.from_arrays(
            [
                pa.repeat(pa.scalar(file, pa.string()), count),
                pa.array(block.rows[scored.rows]),
            ],
            ["file", "row"],
        )
        columns = {"source": source}
        if block.kept is not None:
            kept = block.kept if count == scored.count else block.kept.take(pa.array(scored.rows))
            columns |= dict(zip(kept.schema.names, kept.columns, strict=True))
        columns |= predicted_columns(scored, self._bundle, explain=self._explain, top=self._top)
        batch = pa.RecordBatch.from_arrays([*columns.values()], names=[*columns])
        if self._kind == "jsonl":
            self._json(batch)
        else:
            self._table(batch)

    def close(self) -> None:
        """End the file."""
        if self._parquet is not None:
            self._flush()
            self._parquet.close()
        if self._stream is not None:
            self._stream.close()

    def _table(self, batch: Any) -> None:
        import pyarrow.parquet as pq

        if self._parquet is None:
            self._parquet = pq.ParquetWriter(str(self._path), batch.schema, **_options(batch.schema))
        self._waiting.append(batch)
        self._waiting_rows += batch.num_rows
        if self._waiting_rows >= self._rows_max:
            self._flush()

    def _flush(self) -> None:
        """A row group of what waits: of small ones a reader has more to do, and so has the writer."""
        if self._waiting:
            pa = arrow("a file of scores")
            self._parquet.write_table(
                pa.Table.from_batches(self._waiting), row_group_size=max(self._waiting_rows, 1)
            )
        self._waiting, self._waiting_rows = [], 0

    def _json(self, batch: Any) -> None:
        if self._stream is None:
            self._stream = open(self._path, "wb")  # noqa: SIM115  (close() does)
        lines = [
            orjson.dumps(row, default=str, option=orjson.OPT_APPEND_NEWLINE) for row in batch.to_pylist()
        ]
        self._stream.write(b"".join(lines))


class LetterWriter:
    """Writes what is set aside, a JSON object a line: the fields of a dead letter of the stream."""

    def __init__(self, path: Path, bundle: Bundle) -> None:
        self._stream = open(path, "wb")  # noqa: SIM115  (close() does)
        self._model = {"name": bundle.name, "version": bundle.version, "digest": bundle.digest}

    def write(self, block: Block, rejections: Sequence[Rejection], file: str, at_ms: int) -> None:
        """Append the block's rejections, those of unreadable lines among them, in the order of the file."""
        found = [(int(block.rows[each.index]), each, block.payload(each.index)) for each in rejections]
        for row, rejection, payload in sorted([*found, *block.unreadable], key=lambda each: each[0]):
            letter = {
                "source": {"file": file, "row": row},
                "stage": str(rejection.stage),
                "reason": str(rejection.reason),
                "detail": rejection.detail,
                "payload": payload,
                "model": self._model,
                "at_ms": at_ms,
            }
            self._stream.write(orjson.dumps(letter, option=orjson.OPT_APPEND_NEWLINE))

    def close(self) -> None:
        """End the file."""
        self._stream.close()


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A working name beside `path`; the file stands under `path` when the block ends well, and nowhere when it does not."""
    work = path.with_name(path.name + ".partial")
    try:
        yield work
        with open(work, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(work, path)
    finally:
        work.unlink(missing_ok=True)


def join_parquet(parts: Sequence[Path], out: Path) -> None:
    """The parts behind each other in one file, a row group at a time."""
    import pyarrow.parquet as pq

    writer: Any = None
    try:
        for part in parts:
            file = pq.ParquetFile(part, pre_buffer=False)
            if writer is None:
                schema = file.schema_arrow
                writer = pq.ParquetWriter(str(out), schema, **_options(schema))
            for group in range(file.num_row_groups):
                writer.write_table(file.read_row_group(group))
    finally:
        if writer is not None:
            writer.close()


def join_lines(parts: Sequence[Path], out: Path) -> None:
    """The parts behind each other in one file."""
    with open(out, "wb") as stream:
        for part in parts:
            with open(part, "rb") as more:
                while data := more.read(1 << 20):
                    stream.write(data)


def _options(schema: Any) -> dict[str, Any]:
    """How a file is written. Smallest and largest values are noted of what a reader may look for, not of scores and attributions,
    which every row group has from end to end."""
    noted = [
        field.name for field in schema if field.name not in ("source", "outputs", "output", "attributions")
    ]
    return {
        "compression": _compression,
        "use_dictionary": _dictionaries(schema),
        "write_statistics": [*noted, "source.file", "source.row"],
        "write_page_checksum": True,  # damaged numbers are numbers too: without it nobody would notice
    }


def _dictionaries(schema: Any) -> list[str]:
    """The columns that repeat: those of texts."""
    pa = arrow("a file of scores")
    own = {"source.file", *text_columns}
    for field in schema:
        if pa.types.is_string(field.type) or pa.types.is_dictionary(field.type):
            own.add(field.name)
    return sorted(own)


def make_ours(folder: Path) -> None:
    """Make the folder, or take the one of an earlier run; nobody else may read or change what lies there. Raises ConfigError.

    Its name can be foretold, and it may stand where everybody writes: what somebody else had made would be taken for parts of ours.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise ConfigError(f"{folder} is a link, or another user's: remove it, or set TMPDIR")
        folder.chmod(0o700)
    except OSError as error:
        raise ConfigError(f"cannot work in {folder}: {error.strerror}") from error
