"""One bundle for all workers of a deployment: the supervisor copies it once under its digest, and workers open the copy.

So a folder that changes while they run changes nothing. Loads next to nothing: the process that opens the copy verifies it.
"""

import hashlib
import json
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.schemas.errors import ConfigError

note_name: Final = "model.json"
manifest_name: Final = "manifest.json"
manifest_bytes_max: Final = 64 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCopy:
    """What the workers of a supervisor open: a folder, and the digest it has to have."""

    folder: Path
    digest: str


def bundle_digest(folder: Path) -> str:
    """SHA-256 of the manifest, which holds the digests of all other files. Raises ConfigError."""
    try:
        with (folder / manifest_name).open("rb") as file:
            data = file.read(manifest_bytes_max + 1)
    except OSError as error:
        raise ConfigError(f"model bundle {folder}: cannot read {manifest_name}: {error.strerror}") from error
    if len(data) > manifest_bytes_max:
        raise ConfigError(f"model bundle {folder}: {manifest_name} has more than {manifest_bytes_max} bytes")
    return hashlib.sha256(data).hexdigest()


def bundle_files(folder: Path) -> list[Path]:
    """The files that make up a bundle. Raises ConfigError for what cannot be copied: a link, or a folder in it.

    A hard link is one too: its copy would be none, and be served where the bundle itself is refused.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise ConfigError(f"model bundle {folder}: cannot be listed: {error.strerror}") from error
    for entry in entries:
        try:
            found = entry.lstat()
        except OSError as error:
            raise ConfigError(
                f"model bundle {folder}: cannot look at {entry.name}: {error.strerror}"
            ) from error
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            raise ConfigError(
                f"model bundle {folder}: {entry.name} is a link or not a file; copy the file itself"
            )
    return entries


def copy_model(folder: Path, run_folder: Path) -> ModelCopy | None:
    """Copies a bundle into the run folder and leaves a note of it for the workers; None when there is no room for a copy.

    Then the workers open the folder itself, and still only with the digest it has now. Raises ConfigError: no bundle.
    """
    digest, entries = bundle_digest(folder), bundle_files(folder)
    copy = run_folder / f"model-{digest}"
    copied = True
    try:
        copy.mkdir(mode=0o700)
        for entry in entries:
            shutil.copyfile(entry, copy / entry.name, follow_symlinks=False)
            (copy / entry.name).chmod(0o400)
        copy.chmod(0o500)
    except OSError:
        _remove(copy)
        copied = False
    note = {"folder": str(copy if copied else folder.absolute()), "digest": digest}
    try:
        (run_folder / note_name).write_text(json.dumps(note), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write to {run_folder}: {error.strerror}; set TMPDIR") from error
    return ModelCopy(folder=copy, digest=digest) if copied else None


def copied_model(run_folder: Path) -> ModelCopy | None:
    """What the supervisor left for its workers; None without a supervisor."""
    try:
        note = json.loads((run_folder / note_name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return ModelCopy(folder=Path(note["folder"]), digest=str(note["digest"]))


def _remove(copy: Path) -> None:
    if copy.is_dir():
        copy.chmod(0o700)
        shutil.rmtree(copy, ignore_errors=True)
