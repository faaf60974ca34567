"""The input's files: a file, a folder, a glob, or any address that fsspec opens."""

import glob
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal

from penstock.engine.batch.errors import ScoreError
from penstock.schemas.distribution import how_to_install
from penstock.schemas.errors import ConfigError

Format = Literal["parquet", "csv", "jsonl"]
_formats: Final[dict[str, Format]] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".jsonl.gz": "jsonl",
    ".ndjson.gz": "jsonl",
    ".json.gz": "jsonl",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class InputFile:
    """One file of the input, and what tells whether it is the same as in an earlier run."""

    address: str
    bytes: int
    changed: str
    """Its time of change, or whatever its store has instead."""

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.address.rstrip("/").rpartition("/")[2]

    @property
    def compressed(self) -> bool:
        """Whether its bytes are gzip's, by its name."""
        return self.name.lower().endswith(".gz")


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A piece of one file."""

    file: InputFile
    row_groups: tuple[int, ...] = ()
    """Of a Parquet file; empty for any other."""
    start: int = 0
    end: int | None = None
    """Bytes of a file of JSON lines or CSV, whole lines or records; None: to its end."""
    header_end: int = 0
    """Of a CSV file: where the record ends that names the columns, which a part further on is read behind."""
    first_row: int = 0
    rows: int | None = None
    """None where that is not known without reading it."""


def is_remote(address: str) -> bool:
    """Whether the address is one of fsspec's and no path of this machine."""
    return "://" in address and not address.startswith("file://")


def filesystem(address: str) -> tuple[Any, str]:
    """The fsspec file system of an address, and the path in it. Raises ConfigError."""
    try:
        import fsspec
    except ImportError as error:
        raise ConfigError(f"{address} needs fsspec: {how_to_install('score')}") from error
    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{address} cannot be opened: {error}") from error
    return found


def find_files(address: str, kind: str | None = None) -> list[InputFile]:
    """The files that an address stands for, sorted. Raises ConfigError when there is none.

    In a folder, at whatever depth, those of a known kind, or with `kind` all; names that begin with `.` or `_` are markers and no data.
    """
    found = _remote(address, kind) if is_remote(address) else _local(address.removeprefix("file://"), kind)
    if not found:
        raise ConfigError(f"{address}: there is no file to score (known are {', '.join(_formats)})")
    return found


def format_of(files: Sequence[InputFile], asked: str | None) -> Format:
    """The one format of all files, by what they are called where none is asked for. Raises ConfigError."""
    if asked is not None:
        return asked  # type: ignore[return-value]
    kinds = {_by_name(each.name): each for each in files}
    if None in kinds:
        raise ConfigError(
            f"{kinds[None].address}: what it holds is not to be seen from its name: say --format"
        )
    if len(kinds) > 1:
        names = " and ".join(each.name for each in list(kinds.values())[:2])
        raise ConfigError(f"the input holds files of several formats, {names}: choose one kind with a glob")
    (kind,) = kinds
    assert kind is not None
    return kind


def check_unchanged(file: InputFile) -> None:
    """Raises ScoreError where a file of this machine is another than when it was found: of two versions no part is the whole."""
    if is_remote(file.address):
        return
    try:
        facts = os.stat(file.address)
    except OSError as error:
        raise ScoreError(f"{file.address} is gone since the run began: {error.strerror}") from error
    if stat.S_ISREG(facts.st_mode) and (facts.st_size, str(facts.st_mtime_ns)) != (file.bytes, file.changed):
        raise ScoreError(
            f"{file.address} changed while it was read: score it when it is whole, or a copy of it"
        )


@contextmanager
def opened(file: InputFile) -> Iterator[IO[bytes] | Any]:
    """The file's bytes, to be read from. Raises ScoreError."""
    try:
        if is_remote(file.address):
            store, path = filesystem(file.address)
            stream = store.open(path, "rb")
        else:
            stream = open(file.address, "rb")  # noqa: SIM115  (closed below)
    except OSError as error:
        raise ScoreError(f"cannot read {file.address}: {error.strerror or error}") from error
    with stream:
        yield stream


def _by_name(name: str) -> Format | None:
    lower = name.lower()
    return next((kind for suffix, kind in _formats.items() if lower.endswith(suffix)), None)


def _is_data(path: str, kind: str | None) -> bool:
    return (kind is not None or _by_name(path) is not None) and not is_passed_over(path)


def is_passed_over(path: str) -> bool:
    """Whether a file below an input folder is none of its data, by a hidden name on the way to it, as Spark's readers have it."""
    return any(part.startswith((".", "_")) for part in path.split("/"))


def _local(address: str, kind: str | None) -> list[InputFile]:
    path = Path(address)
    if path.is_dir():
        paths = [each for each in _below(path) if _is_data(str(each.relative_to(path)), kind)]
    elif path.exists():
        paths = [path]
    else:
        paths = [Path(each) for each in glob.glob(address, recursive=True)]
        paths = [each for each in paths if not each.is_dir()]
        if not paths and not glob.has_magic(address):
            raise ConfigError(f"{address}: there is no such file or folder")
    found, known = [], set[str]()
    for each in sorted(paths):
        real = os.path.realpath(each)  # by links, and around their circles, one file has many names
        if real in known:
            continue
        known.add(real)
        try:
            facts = os.stat(real)
        except OSError as error:
            what = "a link that leads nowhere" if each.is_symlink() else error.strerror
            raise ConfigError(f"cannot read {each}: {what}") from error
        if not stat.S_ISREG(facts.st_mode) and len(paths) > 1:
            raise ConfigError(f"{each} is no file that can be read to its end: leave it out")
        found.append(
            InputFile(address=str(each.absolute()), bytes=facts.st_size, changed=str(facts.st_mtime_ns))
        )
    return found


def _below(folder: Path) -> Iterator[Path]:
    """All that lies in the folder and is no folder, behind links too, each folder once. Raises ConfigError for what cannot be seen."""

    def refuse(error: OSError) -> None:
        raise ConfigError(f"cannot look into {error.filename}: {error.strerror}") from error

    known = set[str]()
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in known:
            folders.clear()
            continue
        known.add(real)
        folders[:] = sorted(each for each in folders if not is_passed_over(each))
        yield from (Path(place, name) for name in names)


def _remote(address: str, kind: str | None) -> list[InputFile]:
    store, path = filesystem(address)
    try:
        if glob.has_magic(path):
            paths = [each for each in store.glob(path) if store.isfile(each)]
        elif store.isdir(path):
            paths = [each for each in store.find(path) if _is_data(each.removeprefix(path).lstrip("/"), kind)]
        else:
            paths = [path] if store.exists(path) else []
        return [_remote_file(store, each) for each in sorted(paths)]
    except (OSError, ValueError) as error:
        raise ScoreError(f"cannot list {address}: {error}") from error


def _remote_file(store: Any, path: str) -> InputFile:
    facts = store.info(path)
    changed = next(
        (str(facts[name]) for name in ("ETag", "etag", "LastModified", "mtime", "created") if name in facts),
        "",
    )
    return InputFile(address=store.unstrip_protocol(path), bytes=int(facts.get("size") or 0), changed=changed)
