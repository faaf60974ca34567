"""Where the output of a run over files goes: kept in a working folder until it is whole, then put in its place."""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.engine.batch.errors import ScoreError
from penstock.engine.batch.files import filesystem, is_remote
from penstock.engine.batch.part import Job, part_files
from penstock.engine.batch.write import OutputFormat, join_lines, join_parquet, make_ours, written_whole
from penstock.schemas.errors import ConfigError

_suffixes: Final[dict[str, OutputFormat]] = {".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """Where results and dead letters go, and where they are kept until then."""

    out: str
    letters: str
    work: Path
    kind: OutputFormat
    one_file: bool
    """Not a folder of parts."""


def places_of(*, out: str, dead_letters: str | None, output_format: OutputFormat | None) -> Places:
    """From --out, --dead-letters and --output-format. Raises ConfigError where they disagree."""
    out = out.removeprefix("file://")
    out = out.rstrip("/") if len(out) > 1 else out
    by_name = next((kind for suffix, kind in _suffixes.items() if out.lower().endswith(suffix)), None)
    if by_name and output_format and by_name != output_format:
        raise ConfigError(f"--out {out} is called as {by_name}, and --output-format is {output_format}")
    letters = (dead_letters or f"{out}.dead-letters.jsonl").removeprefix("file://")
    name = out.rpartition("/")[2]
    if is_remote(out):
        work = Path(tempfile.gettempdir(), f"penstock-score-{hashlib.sha256(out.encode()).hexdigest()[:16]}")
    else:
        work = Path(out).absolute().with_name(f".{name}.penstock-score")
    return Places(
        out=out,
        letters=letters,
        work=work,
        kind=by_name or output_format or "parquet",
        one_file=by_name is not None,
    )


def check_free(places: Places, *, overwrite: bool) -> None:
    """Raises ConfigError where something is there that may not be replaced, ScoreError where that cannot be seen."""
    for address in (places.out, places.letters):
        if not _exists(address):
            continue
        if not overwrite:
            raise ConfigError(f"{address} exists: give another name, or --overwrite to replace it")
        path = Path(address)
        if not is_remote(address) and path.is_dir():
            strange = [each.name for each in path.iterdir() if not each.name.startswith("part-")]
            if strange or places.one_file:
                raise ConfigError(
                    f"{address} holds {strange[0] if strange else 'parts'}, which is not replaced: give another name"
                )


def _exists(address: str) -> bool:
    if not is_remote(address):
        return Path(address).exists()
    store, path = filesystem(address)
    try:
        return bool(store.exists(path))
    except (OSError, ValueError) as error:
        raise ScoreError(f"cannot look at {address}: {error}") from error


@contextmanager
def work_folder(folder: Path, job: Job) -> Iterator[None]:
    """Hold the working folder, with what an earlier run of the same job has left there. Raises ConfigError when it is held."""
    make_ours(folder)
    with open(folder / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"another run writes the same output now (it holds {folder})") from error
        known = folder / "job.json"
        if not known.exists() or known.read_bytes() != job.to_json():
            for each in folder.iterdir():
                if each.is_dir():
                    shutil.rmtree(each)
                elif each.name != "lock":
                    each.unlink()
            with written_whole(known) as path:
                path.write_bytes(job.to_json())
        yield


def deliver(places: Places, job: Job, *, overwrite: bool) -> None:
    """The parts, or the one file made of them, and the dead letters under their final names."""
    files = [part_files(places.work, number, places.kind) for number in range(len(job.parts))]
    letters = places.work / "letters"
    with written_whole(letters) as path:
        join_lines([each.letters for each in files], path)
    results = [each.results for each in files]
    if places.one_file:
        whole = results[0]
        if len(results) > 1:
            whole = places.work / f"whole.{places.kind}"
            with written_whole(whole) as path:
                (join_parquet if places.kind == "parquet" else join_lines)(results, path)
        _move(whole, places.out)
    elif is_remote(places.out):
        if overwrite:
            _remove_remote(places.out)
        for each in results:
            _move(each, f"{places.out}/{each.name}")
    else:
        _move_folder(results, Path(places.out), places.work)
    _move(letters, places.letters)


def _move(path: Path, address: str) -> None:
    if not is_remote(address):
        target = Path(address)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.stat().st_dev == target.parent.stat().st_dev:
            os.replace(path, target)
            return
        with written_whole(target) as work:
            shutil.copyfile(path, work)
        return
    store, there = filesystem(address)
    try:  # an object store shows an object when it is whole; elsewhere the renaming does it
        store.makedirs(store._parent(there), exist_ok=True)
        store.put_file(str(path), f"{there}.partial")
        store.mv(f"{there}.partial", there)
    except (OSError, ValueError) as error:
        raise ScoreError(f"cannot write {address}: {error}") from error


def _remove_remote(address: str) -> None:
    store, there = filesystem(address)
    try:
        if store.exists(there):
            store.rm(there, recursive=True)
    except (OSError, ValueError) as error:
        raise ScoreError(f"cannot replace {address}: {error}") from error


def _move_folder(parts: list[Path], folder: Path, work: Path) -> None:
    fresh, old = work / "out", work / "old"
    for left in (fresh, old):
        shutil.rmtree(left, ignore_errors=True)
    fresh.mkdir()
    for part in parts:
        os.link(part, fresh / part.name)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
