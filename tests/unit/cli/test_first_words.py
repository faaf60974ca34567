"""What a new user types first, and a little wrong."""

from pathlib import Path

import pytest

from penstock.engine.cli.main import main
from penstock.engine.python.model import load
from tests.bundles import write_stump


@pytest.mark.parametrize(
    ("word", "hint"),
    [("lagg", "did you mean lag?"), ("scor", "did you mean score?"), ("xyz", "penstock --help lists them")],
)
def test_a_command_that_there_is_not_is_one_line(
    word: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word, "penstock.yaml"]) == 2
    assert capsys.readouterr().err == f"penstock: there is no command {word}; {hint}\n"


def test_explain_takes_its_records_as_score_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = write_stump(tmp_path / "stump")
    rows = tmp_path / "rows.jsonl"
    rows.write_text(f'{{"{bundle.signature.features[0].field}": 1.5}}\n')
    words = ["explain", str(tmp_path / "stump")]
    assert main([*words, str(rows)]) == 0
    said = capsys.readouterr().out
    assert main([*words, "--row", str(rows)]) == 0
    assert capsys.readouterr().out == said
    for wrong in ([], [str(rows), "--row", str(rows)]):
        assert main([*words, *wrong]) == 2
        assert "name the records once: penstock explain BUNDLE FILE" in capsys.readouterr().err


def test_one_row_is_not_called_rows(tmp_path: Path) -> None:
    write_stump(tmp_path / "stump")
    with load(tmp_path / "stump") as model:
        field = model.feature_names[0]
        assert "(1 row: " in repr(model.predict([{field: 1.5}]))
        assert "(2 rows: " in repr(model.predict([{field: 1.5}] * 2))


def test_the_comments_of_the_settings_stand_in_one_column(tmp_path: Path) -> None:
    write_stump(tmp_path / "stump")
    out = tmp_path / "penstock.yaml"
    topic = "a.topic.with-a-rather-long-name"
    assert main(["init", str(tmp_path / "stump"), "--topic", topic, "--out", str(out)]) == 0
    lines = [line for line in out.read_text().splitlines() if " # " in line and not line.startswith("#")]
    assert len(lines) > 8
    assert len({line.index(" # ") for line in lines if line.index(" # ") <= 52}) == 1
