"""What a new user types first, and a little wrong."""

import json
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


def test_a_bad_record_is_named_and_the_others_are_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_stump(tmp_path / "stump")
    field = bundle.signature.features[0].field
    rows, page = tmp_path / "rows.jsonl", tmp_path / "page.html"
    rows.write_text(f'{{"{field}": 1.5}}\n{{"{field}": "x"}}\n{{"{field}": 2.5}}\nno json\n')
    words = ["explain", str(tmp_path / "stump"), str(rows)]
    assert main([*words, "--html", str(page)]) == 0
    said = capsys.readouterr().out
    assert "record 1: " in said
    assert "record 3: " in said
    assert f"record 2: set aside: field {field} is not a number (wrong_type)" in said
    assert "record 4: set aside: the value is not JSON" in said
    assert "Record 3" in page.read_text()
    assert "record 2: set aside" in page.read_text()
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["record"] for each in told["records"]] == [1, 3]
    assert [(each["record"], each["reason"]) for each in told["rejected"]] == [
        (2, "wrong_type"),
        (4, "corrupt"),
    ]
    rows.write_text(f'{{"{field}": "x"}}\n')
    assert main(words) == 2
    assert f"record 1: field {field} is not a number" in capsys.readouterr().err
