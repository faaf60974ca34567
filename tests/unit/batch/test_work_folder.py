"""The folder that a run over files works in is its user's alone, also where everybody may write."""

import os
import stat
from pathlib import Path

import pytest

from penstock.engine.batch.write import make_ours
from penstock.schemas.errors import ConfigError


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o777])
def test_it_is_closed_to_others_whoever_made_it_so(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    folder.chmod(mode)
    make_ours(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    made = tmp_path / "a" / "b"
    make_ours(made)
    assert stat.S_IMODE(made.stat().st_mode) == 0o700


@pytest.mark.parametrize("target", ["elsewhere", "nowhere"])
def test_a_link_that_somebody_left_there_is_not_followed(tmp_path: Path, target: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "work").symlink_to(target)
    with pytest.raises(ConfigError, match=r"is a link, or another user's|cannot work in"):
        make_ours(tmp_path / "work")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ConfigError, match="another user's"):
        make_ours(tmp_path / "work")


def test_a_file_in_its_place_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("")
    with pytest.raises(ConfigError, match="cannot work in"):
        make_ours(tmp_path / "work")
