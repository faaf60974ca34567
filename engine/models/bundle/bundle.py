"""A model bundle: a folder that holds all a worker needs of a model, every file under its digest."""

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.engine.clock import SystemClock
from penstock.engine.features.signature import Signature
from penstock.engine.models.bundle.arrays import from_npy, to_npy
from penstock.engine.models.bundle.graph_checks import model_bytes_max, parse_model
from penstock.engine.models.bundle.manifest import Labels, Manifest, ModelOutput, json_object
from penstock.engine.models.bundle.signatures import require_signature, sign_files, signature_name
from penstock.engine.trees.forest import Forest
from penstock.engine.trees.table_file import is_table, read_table, table_bytes_max
from penstock.schemas.errors import ConfigError

manifest_name = "manifest.json"
graph_name = "model.onnx"
table_name = "trees.table"
"""In place of the graph: an ensemble that is too large for one."""
_bytes_max: Mapping[str, int] = {
    manifest_name: 64 << 20,
    graph_name: model_bytes_max,
    table_name: table_bytes_max,
    "golden_rows.npy": 64 << 20,
    "golden_outputs.npy": 256 << 20,
    "golden_labels.npy": 1 << 20,
    "background.npy": 1 << 30,
    "input.avsc": 1 << 20,
    signature_name: 4 << 20,
}
"""Every file that a bundle may hold, and how long it may be."""
_needed = frozenset({manifest_name, "golden_rows.npy", "golden_outputs.npy"})


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Trust:
    """Whose signatures are believed, and what happens without one of them."""

    keys: Sequence[Path]
    """PEM files with a public key or a certificate."""
    enforce: bool
    say: Callable[[str], None]
    """Told who signed, or without `enforce` that nobody did."""
    wall_ms: Callable[[], int] = SystemClock().wall_ms
    """Milliseconds since 1970: certificates count while they are valid."""

    def check(self, files: Mapping[str, bytes]) -> None:
        """Raises ConfigError where `enforce` and none of the keys signed exactly these files."""
        try:
            signer = require_signature(
                files, self.keys, now=datetime.fromtimestamp(self.wall_ms() / 1000, UTC)
            )
        except ConfigError as error:
            if self.enforce:
                raise
            self.say(f"the model bundle is served all the same (model.trust.policy is warn): {error}")
        else:
            self.say(f"the model bundle is signed by {signer}")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Golden:
    """Rows, and what the model said of them when it was packaged."""

    rows: NDArray[np.generic]  # (G, F) in the signature's dtype
    outputs: Mapping[str, NDArray[np.float64]]  # (G, width) by output name
    labels: NDArray[np.int64] | None  # (G,)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Bundle:
    """A verified bundle, in memory: nothing is read from the folder again."""

    digest: str
    """SHA-256 of the manifest, which holds the digests of all other files."""
    manifest: Manifest
    model: bytes
    """An ONNX graph, or a table of trees (penstock.engine.trees.table_file)."""
    table: Forest | None
    """The trees of the table."""
    golden: Golden
    background: NDArray[np.generic] | None  # (B, F) in the signature's dtype
    background_digest: str | None
    input_schema: dict[str, Any] | None
    """The reader's Avro schema of the input records."""

    def __repr__(self) -> str:
        parts = f"{len(self.model):,} bytes of model, {len(self.signature.features)} features"
        return f"<Bundle {self.name} {self.version}: {parts}, digest {self.digest[:12]}>"

    @staticmethod
    def load(path: Path | str, *, trust: Trust | None = None) -> "Bundle":
        """Read and verify the folder, and with `trust` who signed it.

        Raises ConfigError with one sentence for anything that is not as it should be.
        """
        folder = Path(path)
        try:
            files = _read_folder(folder)
            if trust is not None:
                trust.check(files)
            return _verified(files)
        except ConfigError as error:
            raise ConfigError(f"model bundle {folder}: {error}") from error

    @staticmethod
    def sign(path: Path | str, *, key: Path, password: str | None = None) -> None:
        """Verify the folder and write model.sig beside its files, by a private key in PEM form. Raises ConfigError."""
        folder = Path(path)
        try:
            files = _read_folder(folder)
            name = _verified(files).name
            signature = sign_files(files, name=name, key=key, password=password)
            with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.absolute().parent) as work:
                fresh = Path(work, signature_name)
                _write_durably(fresh, signature)
                fresh.chmod(0o644)
                fresh.replace(folder / signature_name)
        except ConfigError as error:
            raise ConfigError(f"model bundle {folder}: {error}") from error
        except OSError as error:
            raise ConfigError(f"cannot write {folder / signature_name}: {error.strerror}") from error

    @staticmethod
    def write(
        path: Path | str,
        *,
        manifest: Manifest,
        model: bytes,
        golden: Golden,
        background: NDArray[np.generic] | None = None,
        input_schema: bytes | None = None,
        table: Forest | None = None,
    ) -> "Bundle":
        """Write the folder in one step, in place of a bundle that stands there, and return what load() says of it.

        `table`: what `model` is read as, where it is a table of trees and has been read. The same arguments give the same bytes.
        Raises ConfigError when something else stands there, when the folder
        cannot be written, or when the parts contradict each other.
        """
        files = _files(model, golden, background, input_schema)
        files = {manifest_name: manifest.to_bytes(files), **files}
        bundle = _verified(files, table)
        folder = Path(path).absolute()
        try:
            if folder.exists() and not _is_replaceable(folder):
                raise ConfigError(
                    f"{folder} holds something that is not a model bundle; choose another --out"
                )
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as work:
                fresh, old = Path(work, "new"), Path(work, "old")
                fresh.mkdir(mode=0o755)
                for name, data in files.items():
                    _write_durably(fresh / name, data)
                if folder.exists():
                    folder.rename(old)
                fresh.rename(folder)
                shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise ConfigError(f"cannot write the model bundle {folder}: {error.strerror}") from error
        # What lies there now is what was verified: a second look at the same bytes would tell nothing more.
        return bundle if _read_folder(folder) == files else Bundle.load(folder)

    @property
    def name(self) -> str:
        """Of the model."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """Of the model."""
        return self.manifest.version

    @property
    def signature(self) -> Signature:
        """What the model is fed."""
        return self.manifest.signature

    @property
    def outputs(self) -> tuple[ModelOutput, ...]:
        """What the model answers."""
        return self.manifest.outputs

    @property
    def widths(self) -> dict[str, int]:
        """Numbers a row of each output, by its name."""
        return {output.name: output.width for output in self.outputs}

    @property
    def labels(self) -> Labels | None:
        """How a class is read from the answer."""
        return self.manifest.labels

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names of a classifier, else empty."""
        return self.manifest.labels.classes if self.manifest.labels else ()

    @property
    def trees(self) -> bool:
        """Whether the tree explainers read the model."""
        return self.manifest.trees

    @property
    def covers(self) -> bool:
        """Whether the tree ensemble carries the covers of its training."""
        return self.manifest.covers


def _read_folder(folder: Path) -> dict[str, bytes]:
    try:
        # The way to the folder may be a link (a mounted volume's is); nothing inside it may be.
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigError(f"cannot open the folder: {error.strerror}") from error
    try:
        names = sorted(os.listdir(descriptor))
        if not (_needed | {graph_name, table_name}) & set(names):
            raise ConfigError("this folder holds no model; name the folder that penstock package wrote")
        for name in names:
            if name not in _bytes_max:
                raise ConfigError(f"{name} does not belong there")
        for name in sorted(_needed - set(names)):
            raise ConfigError(f"{name} is missing")
        if (graph_name in names) == (table_name in names):
            raise ConfigError(
                f"{graph_name} is missing"
                if graph_name not in names
                else f"{table_name} does not belong there"
            )
        return {name: _read_file(name, descriptor) for name in names}
    finally:
        os.close(descriptor)


def _read_file(name: str, folder_descriptor: int) -> bytes:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=folder_descriptor)
    except OSError as error:
        raise ConfigError(f"cannot read {name}: {error.strerror} (links are refused)") from error
    with ExitStack() as held:
        held.callback(os.close, descriptor)  # not fdopen's work: it raises for a folder
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise ConfigError(f"{name} is a link or not a file; copy the file itself")
        if status.st_size > _bytes_max[name]:
            raise ConfigError(f"{name} has {status.st_size} bytes, more than {_bytes_max[name]}")
        file = held.enter_context(os.fdopen(descriptor, "rb", closefd=False))
        try:
            data = file.read(status.st_size + 1)
        except OSError as error:
            raise ConfigError(f"cannot read {name}: {error.strerror}") from error
    if len(data) != status.st_size:
        raise ConfigError(f"{name} changed while it was read")
    return data


def _files(
    model: bytes, golden: Golden, background: NDArray[np.generic] | None, input_schema: bytes | None
) -> dict[str, bytes]:
    files = {
        table_name if is_table(model) else graph_name: model,
        "golden_rows.npy": to_npy(golden.rows),
        "golden_outputs.npy": to_npy(np.concatenate(list(golden.outputs.values()), axis=1)),
    }
    if golden.labels is not None:
        files["golden_labels.npy"] = to_npy(golden.labels)
    if background is not None:
        files["background.npy"] = to_npy(background)
    if input_schema is not None:
        files["input.avsc"] = input_schema
    return files


def _verified(files: Mapping[str, bytes], table: Forest | None = None) -> Bundle:
    """The bundle in these files, every one checked against the manifest and the manifest against itself.

    `table`: the forest of the table, where it has been read.
    """
    rest = {name: data for name, data in files.items() if name not in (manifest_name, signature_name)}
    manifest = Manifest.from_bytes(files[manifest_name], rest)
    if table_name in files:
        table = table or read_table(files[table_name])
    else:
        parse_model(files[graph_name])
    background = schema = None
    if "background.npy" in files:
        background = _matrix(files, "background.npy", manifest.signature)
    if "input.avsc" in files:
        schema = json_object(files["input.avsc"], "input.avsc")
    return Bundle(
        digest=hashlib.sha256(files[manifest_name]).hexdigest(),
        manifest=manifest,
        model=files[table_name if table_name in files else graph_name],
        table=table,
        golden=_golden(files, manifest),
        background=background,
        background_digest=None if background is None else hashlib.sha256(files["background.npy"]).hexdigest(),
        input_schema=schema,
    )


def _golden(files: Mapping[str, bytes], manifest: Manifest) -> Golden:
    rows = _matrix(files, "golden_rows.npy", manifest.signature)
    numbers = from_npy(files["golden_outputs.npy"], name="golden_outputs.npy")
    widths = [output.width for output in manifest.outputs]
    if numbers.dtype != np.float64 or numbers.shape != (len(rows), sum(widths)):
        raise ConfigError("golden_outputs.npy does not fit the golden rows and the outputs")
    columns = np.split(numbers.astype(np.float64, copy=False), np.cumsum(widths)[:-1], axis=1)
    if (manifest.labels is None) != ("golden_labels.npy" not in files):
        raise ConfigError("golden_labels.npy is there without classes, or missing with them")
    answers = None
    if manifest.labels is not None:
        found = from_npy(files["golden_labels.npy"], name="golden_labels.npy")
        if found.dtype != np.int64 or found.shape != (len(rows),):
            raise ConfigError("golden_labels.npy does not fit the golden rows")
        answers = found.astype(np.int64, copy=False)
        if (answers < 0).any() or (answers >= len(manifest.labels.classes)).any():
            raise ConfigError("golden_labels.npy names a class that is not there")
    return Golden(
        rows=rows,
        outputs={output.name: column for output, column in zip(manifest.outputs, columns, strict=True)},
        labels=answers,
    )


def _matrix(files: Mapping[str, bytes], name: str, signature: Signature) -> NDArray[np.generic]:
    matrix = from_npy(files[name], name=name)
    if matrix.dtype != signature.dtype or matrix.ndim != 2 or matrix.shape[1] != signature.width:
        raise ConfigError(f"{name} is not rows of {signature.width} columns of {signature.dtype}")
    if not len(matrix):
        raise ConfigError(f"{name} holds no row")
    return matrix


def _is_replaceable(folder: Path) -> bool:
    names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else {""}
    return not names or (manifest_name in names and names <= set(_bytes_max))


def _write_durably(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
