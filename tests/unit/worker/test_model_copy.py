"""The copy of a bundle that a supervisor makes is refused for whatever the bundle itself is refused for."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.worker.model_copy import copied_model, copy_model
from penstock.schemas.errors import ConfigError
from tests.bundles import write_linear


def hard_link(path: Path) -> None:
    os.link(path, path.parent.parent / "elsewhere")


def symlink(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to("../elsewhere")


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def unix_socket(path: Path) -> None:
    path.unlink()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.close()


@pytest.mark.parametrize("change", [hard_link, symlink, fifo, folder, unix_socket])
@pytest.mark.parametrize("name", ["model.onnx", "golden_rows.npy"])
def test_what_is_no_file_of_its_own_is_not_copied(
    change: Callable[[Path], None], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_linear(tmp_path / "b")
    run = tmp_path / "run"
    run.mkdir()
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    change(Path("b", name))
    with pytest.raises(ConfigError, match=f"{name} is a link or not a file|cannot read {name}"):
        Bundle.load(tmp_path / "b")
    with pytest.raises(ConfigError, match=f"{name} is a link or not a file"):
        copy_model(tmp_path / "b", run)
    assert copied_model(run) is None


def test_the_copy_stays_what_it_was(tmp_path: Path) -> None:
    digest = write_linear(tmp_path / "b").digest
    run = tmp_path / "run"
    run.mkdir()
    copy = copy_model(tmp_path / "b", run)
    assert copy is not None
    assert (copy.digest, copied_model(run)) == (digest, copy)
    write_linear(tmp_path / "b", seed=1)
    assert Bundle.load(copy.folder).digest == digest
