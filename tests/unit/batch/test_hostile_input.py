"""`penstock score` on what people have: each record of each file once, no input or result replaced, no cell read by its neighbours."""

import gzip
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import penstock
from penstock.engine.batch import part as batch_part
from penstock.engine.batch.files import find_files
from penstock.engine.batch.read import read_part
from penstock.engine.cli.main import main
from penstock.engine.codec.tables.columns import ColumnRows, find_columns
from penstock.engine.codec.tables.text import text_columns
from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.schemas.errors import ConfigError
from tests.bundles import write_stump

cells = [
    "1", " 1.5", "1.5 ", "+1.5", "5.", ".5", "1e5", "1e400", "-1e400", "nan", "NaN", "NAN", "Nan", "-nan", "+nan", "nan(1)", "inf",
    "INF", "-inf", "+inf", "infinity", "-infinity", "+Infinity", "true", "TRUE", "t", "NA", "N/A", "null", "None", "", "  ", "1e",
    "0x10", "1_000", "1,000", "12-", "<NA>",
]  # fmt: skip


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_stump(tmp_path / "bundle")
    return tmp_path / "bundle"


def table(count: int = 3, **more: Any) -> Any:
    return pa.table({name: np.arange(count, dtype=np.float64) for name in "abc"} | more)


def score(*words: object) -> int:
    return main(["score", *map(str, words), "--runtime", "native"])


@pytest.mark.parametrize("cell", cells)
def test_a_cell_says_the_same_whatever_stands_beside_it(cell: str) -> None:
    feature = Feature(name="x", kind="number")
    signature = Signature(
        features=(feature,), inputs=(ModelInput(name="i", dtype="float64", start=0, width=1),)
    )
    plan = find_columns(signature, ["x"], origin="a test")

    def read(*beside: str) -> Any:
        batch = pa.record_batch({"x": pa.array([*beside, cell], pa.string())})
        matrix, rows, faults = ColumnRows(signature).read(plan, text_columns(batch, plan), batch.num_rows)
        found = dict(zip(rows.tolist(), map(float, matrix[:, 0]), strict=True)) | dict(faults)
        return str(found[len(beside)])

    assert read() == read("1") == read("no number") == read("nan") == read("", "inf")


def test_a_file_is_read_once_by_whatever_names_and_links(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "in", tmp_path / "elsewhere"
    (folder / "sub").mkdir(parents=True)
    elsewhere.mkdir()
    for path in (folder / "1.csv", folder / "sub" / "2.csv", elsewhere / "3.csv"):
        path.write_text("a\n")
    (folder / "sub" / "up").symlink_to("..")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "latest.csv").symlink_to("1.csv")
    for given in (folder, f"{folder}/**/*.csv"):
        found = [each.name for each in find_files(str(given))]
        assert sorted(found) == ["1.csv", "2.csv", "3.csv"], given


def test_what_of_a_folder_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "1.csv").write_text("a\n")
    (tmp_path / "2.csv").symlink_to("gone.csv")
    for given in (tmp_path, f"{tmp_path}/*.csv"):
        with pytest.raises(ConfigError, match=r"cannot read .*2\.csv: a link that leads nowhere"):
            find_files(str(given))
    (tmp_path / "2.csv").unlink()
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ConfigError, match=r"cannot look into .*closed: Permission denied"):
        find_files(str(tmp_path))


@pytest.mark.parametrize(
    ("given", "out", "letters", "words"),
    [
        ("in/1.parquet", "in/1.parquet", "l", "--out would replace .*1.parquet, which is read"),
        ("in/1.parquet", "in/sub/../1.parquet", "l", "--out would replace"),
        ("in", "in", "l", "--out would replace"),
        ("in/*.parquet", "in", "l", "--out would replace"),
        ("in", "o", "in/1.parquet", "--dead-letters would replace"),
        ("in", "in/more", "l", "--out lies in .*in, of which the next run would read it"),
        ("in", "o.jsonl", "in/l.jsonl", "--dead-letters lies in"),
        ("in", "o.jsonl", "o.jsonl", "the dead letters go to a file of their own"),
        ("in", "o", "o/l.jsonl", "the dead letters go to a file of their own"),
        ("in", "bundle/o.jsonl", "l", "--out lies in the bundle"),
    ],
)
def test_nothing_is_replaced_by_its_own_results(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: str, out: str, letters: str, words: str
) -> None:  # fmt: skip
    (tmp_path / "in" / "sub").mkdir(parents=True)
    pq.write_table(table(), tmp_path / "in" / "1.parquet")
    before = (tmp_path / "in" / "1.parquet").read_bytes()
    places = [tmp_path / given, "--out", tmp_path / out, "--dead-letters", tmp_path / letters]
    assert score(bundle, *places, "--overwrite") == 2
    assert re.search(words, capsys.readouterr().err.replace("\n", " "))
    assert (tmp_path / "in" / "1.parquet").read_bytes() == before


def test_a_column_that_is_kept_is_never_exchanged_for_one_of_ours(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(table(outputs=["theirs"] * 3, id=[1, 2, 3]), tmp_path / "1.parquet")
    for keep, words in (("outputs", "the results have a column of that name"), ("id,id", "names id twice")):
        assert score(bundle, tmp_path / "1.parquet", "--out", tmp_path / "o.parquet", "--keep", keep) == 2
        assert words in capsys.readouterr().err


def test_kept_columns_of_two_types_are_found_before_anything_is_scored(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(table(id=[1, 2, 3]), tmp_path / "in" / "1.parquet")
    pq.write_table(table(id=["1", "2", "3"]), tmp_path / "in" / "2.parquet")
    given = [bundle, tmp_path / "in", "--keep", "id", "--out"]
    assert score(*given, tmp_path / "o.parquet") == 1
    assert "column id (--keep) is int64 in 1.parquet and string in 2.parquet" in capsys.readouterr().err
    assert score(*given, tmp_path / "o.jsonl") == 0
    assert score(*given, tmp_path / "folder") == 0


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("x.csv", b'a,b,c\n1,2,3\n4,5,"6\n7,8,9\n', "ends inside a quoted text that begins at byte 16"),
        ("x.csv.gz", gzip.compress(b'a,b,c\n1,2,3\n4,5,"6\n7,8,9\n', mtime=0), "ends inside a quoted text"),
        ("x.csv", "a,b,c\n1,2,3\n".encode("utf-16"), "its first line is not UTF-8 text"),
        ("x.csv", b"a;b;c\n1;2;3\n", "has one column, 'a;b;c': is it ; that separates them (--delimiter)?"),
        ("x.csv", b"a\tb\tc\n1\t2\t3\n", "is it a tab that separates them"),
        ("x.json", b'[\n {"a": 1},\n {"a": 2}]', "is one JSON array, and a record on each line is read"),
        ("x.JSON.GZ", gzip.compress(b'[{"a": 1}]', mtime=0), "is one JSON array"),
    ],
)
def test_a_file_of_another_shape_is_one_sentence(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, data: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(data)
    assert score(bundle, tmp_path / name, "--out", tmp_path / "o.parquet") in (1, 2)
    assert words in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "o.parquet").exists()


def test_names_in_capitals_and_addresses_of_files_mean_the_same(bundle: Path, tmp_path: Path) -> None:
    lines = b"".join(json.dumps({"a": 1.0, "b": place, "c": 2}).encode() + b"\n" for place in range(3))
    (tmp_path / "X.JSONL.GZ").write_bytes(gzip.compress(lines))
    assert score(bundle, tmp_path / "X.JSONL.GZ", "--out", f"file://{tmp_path}/o.jsonl") == 0
    assert len((tmp_path / "o.jsonl").read_bytes().splitlines()) == 3


def test_a_file_that_changes_while_it_is_read_gives_no_result(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "1.parquet"
    pq.write_table(table(), path)

    def replaced(*arguments: Any, **named: Any) -> Any:
        pq.write_table(table(5), tmp_path / "new")
        os.replace(tmp_path / "new", path)
        return read_part(*arguments, **named)

    monkeypatch.setattr(batch_part, "read_part", replaced)
    assert score(bundle, path, "--out", tmp_path / "o.parquet") == 1
    assert "1.parquet changed while it was read" in capsys.readouterr().err
    assert not (tmp_path / "o.parquet").exists()


@pytest.mark.parametrize(("other", "resumed"), [("1", 1), ("2", 0)])
def test_what_another_version_has_left_is_done_again(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], other: str, resumed: int
) -> None:  # fmt: skip
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("1", "2"):
        pq.write_table(table(), folder / f"{name}.parquet")
    good = (folder / "2.parquet").read_bytes()
    os.utime(folder / "2.parquet", ns=(1, 1))
    monkeypatch.setattr(penstock, "__version__", "1")
    (folder / "2.parquet").write_bytes(good[:4] + b"\xff" * 40 + good[44:])
    os.utime(folder / "2.parquet", ns=(1, 1))
    assert score(bundle, folder, "--out", tmp_path / "o.parquet") == 1
    (folder / "2.parquet").write_bytes(good)
    os.utime(folder / "2.parquet", ns=(1, 1))
    monkeypatch.setattr(penstock, "__version__", other)
    capsys.readouterr()
    assert score(bundle, folder, "--out", tmp_path / "o.parquet", "--json") == 0
    assert json.loads(capsys.readouterr().out)["parts_resumed"] == resumed


@pytest.mark.parametrize("out", ["o.parquet", "o.jsonl"])
@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
def test_a_text_that_is_not_utf8_is_its_own_records_fault(
    bundle: Path, tmp_path: Path, name: str, out: str
) -> None:
    """As Excel and older writers leave them: in a feature a dead letter, in a column that is passed through the usual sign."""
    csv = "a,b,c,note\n1,2,3,caf\xe9\n\xe9,2,3,x\n1,2,3,\n".encode("latin-1")
    if name.endswith(".csv"):
        (tmp_path / name).write_bytes(csv)
    else:
        texts = pa.array([b"caf\xe9", b"x", None], pa.binary()).view(pa.string())
        a = pa.array([b"1", b"\xe9", b"1"], pa.binary()).view(pa.string())
        pq.write_table(table(note=texts).set_column(0, "a", a), tmp_path / name)
    code = score(bundle, tmp_path / name, "--out", tmp_path / out, "--keep", "note")
    letters = [json.loads(line) for line in (tmp_path / f"{out}.dead-letters.jsonl").read_text().splitlines()]
    corrupt = [each for each in letters if each["reason"] == "corrupt"]
    assert [each["detail"] for each in corrupt] == ["field a holds bytes that are not UTF-8, which text is"]
    assert json.loads(corrupt[0]["payload"])["a"] == "\ufffd"
    if name.endswith(".csv"):
        assert code == 0
        found = tmp_path / out
        rows = (
            pq.read_table(found).to_pylist()
            if out.endswith(".parquet")
            else [json.loads(line) for line in found.read_text().splitlines()]
        )
        assert [row["note"] for row in rows] == ["caf\ufffd", None]
