"""docs/python.md: its blocks run one after the other as they stand there, and every public name is described."""

import re
from pathlib import Path

import pytest

import penstock

page = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8")


def test_the_examples_run_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lightgbm")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) > 8
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert "row 0: field amount is not a number (wrong_type)" in capsys.readouterr().out
    for name in ("waterfall", "bar", "beeswarm", "dependence"):
        assert (tmp_path / f"{name}.svg").read_text().startswith("<svg")


def test_every_public_name_is_described() -> None:
    described = set(re.findall(r"^### penstock\.(\w+)$", page, flags=re.MULTILINE))
    assert described == {name for name in penstock.__all__ if not name.startswith("_")}
