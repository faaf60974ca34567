"""`penstock score`: every format gives the same bits, faults are one sentence, and no half-written output stands anywhere."""

import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from penstock.engine.batch import plan as batch_plan
from penstock.engine.cli.main import main
from penstock.engine.python.model import load
from tests.bundles import write_stump


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_stump(tmp_path / "bundle")
    return tmp_path / "bundle"


def table(count: int = 1000, seed: int = 0) -> Any:
    x = np.random.default_rng(seed).normal(size=(count, 3))
    x[5, 1] = np.nan
    names = {name: x[:, place] for place, name in enumerate("abc")}
    return pa.table({"id": np.arange(count), **names, "note": [f"n{i}" for i in range(count)]})


def write(data: Any, path: Path) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(data, path, row_group_size=300)
    elif path.suffix == ".csv":
        pyarrow.csv.write_csv(data, path)
    elif path.name.endswith(".csv.gz"):
        with gzip.open(path, "wb") as stream:
            pyarrow.csv.write_csv(data, stream)
    else:
        lines = b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in data.to_pylist())
        path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)
    return path


def score(*words: object) -> int:
    return main(["score", *map(str, words), "--runtime", "native"])


@pytest.mark.parametrize("name", ["in.parquet", "in.csv", "in.csv.gz", "in.jsonl", "in.jsonl.gz"])
def test_every_format_gives_the_bits_of_the_model_in_python(bundle: Path, tmp_path: Path, name: str) -> None:
    data = table()
    path = write(data, tmp_path / name)
    assert score(bundle, path, "--out", tmp_path / "out.parquet", "--explain", "--keep", "id,note") == 0
    found = pq.read_table(tmp_path / "out.parquet")
    with load(bundle, device="cpu", runtime="native") as model:
        expected = model.score(data, explain=True)
    for column in ("outputs", "base_value", "attributions", "rest", "additivity_error", "method", "space"):
        assert found[column].to_pylist() == expected[column].to_pylist(), column
    assert found["note"].to_pylist() == data["note"].to_pylist()
    assert found["source"].to_pylist()[7] == {"file": str(path), "row": 7}
    assert (tmp_path / "out.parquet.dead-letters.jsonl").read_bytes() == b""
    assert not [*tmp_path.glob(".*")]


def test_json_lines_out_say_the_same(bundle: Path, tmp_path: Path) -> None:
    path = write(table(50), tmp_path / "in.parquet")
    for out in ("out.jsonl", "out.parquet"):
        assert score(bundle, path, "--out", tmp_path / out, "--explain", "--top", 2) == 0
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert lines == json.loads(json.dumps(rows))
    assert [len(line["attributions"]) for line in lines] == [2] * 50


bad_lines = [
    (b'{"a": 1, "b": "x", "c": 1}', "validate", "wrong_type"),
    (b'{"a": 1e999, "b": 1, "c": 1}', "decode", "corrupt"),
    (b"not json", "decode", "corrupt"),
    (b"[1]", "validate", "wrong_type"),
    (b'{"a": 1e300, "b": 1, "c": 1}', "validate", "not_finite"),
]


def test_what_is_set_aside_stands_apart_with_the_reasons_of_the_stream(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = [orjson.dumps({"a": i - 3.5, "b": None, "c": 0}) for i in range(8)]
    lines = [*good[:2], *(line for line, _, _ in bad_lines), b"", *good[2:]]
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines))
    assert score(bundle, tmp_path / "in.jsonl", "--out", tmp_path / "out", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["predicted"], report["rejected"]) == (8, 5)
    letters = [json.loads(line) for line in (tmp_path / "out.dead-letters.jsonl").read_text().splitlines()]
    assert [(each["stage"], each["reason"]) for each in letters] == [(s, r) for _, s, r in bad_lines]
    assert [each["payload"].encode() for each in letters] == [line for line, _, _ in bad_lines]
    assert [each["source"]["row"] for each in letters] == [2, 3, 4, 5, 6]
    rows = pq.read_table(tmp_path / "out").to_pylist()
    assert [row["source"]["row"] for row in rows] == [0, 1, *range(8, 14)]


def test_csv_cells_are_read_by_the_feature_they_are_for(bundle: Path, tmp_path: Path) -> None:
    text = 'c,a,b,"x, y"\n1,-1,,"a\nb"\n 2 ,NA,1e3,\n1,2\n,true,nan,z\n1,many,1,z\n5,inf,1,\n7,7,7,7\n'
    (tmp_path / "in.csv").write_text(text)
    assert score(bundle, tmp_path / "in.csv", "--out", tmp_path / "out.parquet") == 0
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [(row["source"]["row"], row["outputs"]["value"]) for row in rows] == [
        (0, [1.0]),
        (1, [2.0]),
        (3, [2.0]),
        (6, [2.0]),
    ]
    letters = [
        json.loads(line) for line in (tmp_path / "out.parquet.dead-letters.jsonl").read_text().splitlines()
    ]
    assert [(each["source"]["row"], each["reason"]) for each in letters] == [
        (2, "corrupt"),
        (4, "wrong_type"),
        (5, "not_finite"),
    ]


def _damaged(folder: Path) -> Path:
    path = write(table(), folder / "in.parquet")
    data = bytearray(path.read_bytes())
    data[200:2000] = b"\xff" * 1800
    path.write_bytes(data)
    return path


def _footer(folder: Path) -> Path:
    (folder / "in.parquet").write_bytes(b"PAR1 this is no Parquet file")
    return folder / "in.parquet"


def _mixed_types(folder: Path) -> Path:
    (folder / "in").mkdir()
    write(table(), folder / "in" / "1.parquet")
    other = table()
    write(other.set_column(1, "a", pa.array(["x"] * 1000)), folder / "in" / "2.parquet")
    return folder / "in"


def _mixed_columns(folder: Path) -> Path:
    (folder / "in").mkdir()
    write(table(), folder / "in" / "1.csv")
    (folder / "in" / "2.csv").write_text("a,b\n1,2\n")
    return folder / "in"


def _mixed_formats(folder: Path) -> Path:
    (folder / "in").mkdir()
    write(table(), folder / "in" / "1.csv")
    write(table(), folder / "in" / "2.parquet")
    return folder / "in"


def _all_bad(folder: Path) -> Path:
    (folder / "in.jsonl").write_text('{"a": "x"}\n' * 9)
    return folder / "in.jsonl"


faults = {
    "a damaged file": (_damaged, 1, "cannot be read"),
    "no Parquet": (_footer, 1, "cannot be read as Parquet"),
    "mixed types": (_mixed_types, 1, "column a is a number in 1.parquet and text in 2.parquet"),
    "mixed columns": (_mixed_columns, 2, "2.csv has no column c"),
    "mixed formats": (_mixed_formats, 2, "several formats"),
    "nothing there": (lambda folder: folder / "no.parquet", 2, "no such file"),
    "an empty folder": (lambda folder: folder, 2, "no file to score"),
    "all set aside": (_all_bad, 1, "every record was set aside"),
}


@pytest.mark.parametrize("fault", faults)
def test_a_fault_is_one_sentence_and_leaves_no_output(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    make, code, words = faults[fault]
    assert score(bundle, make(folder), "--out", tmp_path / "out.parquet") == code
    error = capsys.readouterr().err.strip()
    assert words in error
    assert "\n" not in error
    assert fault == "all set aside" or not (tmp_path / "out.parquet").exists()


wrong_words = {
    ("--top", "2"): "go with --explain",
    ("--explain", "--output", "all"): "for the stream",
    ("--explain", "--output", "maybe"): "maybe",
    ("--keep", "nothing"): "no such column",
    ("--processes", "0"): "at least 1",
    ("--delimiter", ";;"): "one character",
    ("--output-format", "jsonl"): "is called as parquet",
}


@pytest.mark.parametrize("words", wrong_words)
def test_what_makes_no_sense_is_exit_2(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    path = write(table(10), tmp_path / "in.parquet")
    assert score(bundle, path, "--out", tmp_path / "out.parquet", *words) == 2
    assert wrong_words[words] in capsys.readouterr().err


def test_an_output_that_exists_is_replaced_when_asked_and_only_then(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(table(10), tmp_path / "in.parquet")
    for out in ("out.parquet", "out"):
        assert score(bundle, path, "--out", tmp_path / out) == 0
        before = (tmp_path / out).stat().st_mtime_ns
        assert score(bundle, path, "--out", tmp_path / out) == 2
        assert "--overwrite" in capsys.readouterr().err
        assert (tmp_path / out).stat().st_mtime_ns == before
        assert score(bundle, path, "--out", tmp_path / out, "--overwrite") == 0
        assert pq.read_table(tmp_path / out).num_rows == 10
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("mine")
    assert score(bundle, path, "--out", tmp_path / "home", "--overwrite") == 2
    assert (tmp_path / "home" / "letter.txt").exists()


def test_a_full_disk_is_one_sentence_and_the_next_run_goes_on(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        write(table(4000, seed=number), folder / f"{number}.parquet")
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)); "
        "from penstock.engine.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    words = [
        "score",
        str(bundle),
        str(folder),
        "--out",
        str(tmp_path / "out"),
        "--runtime",
        "native",
        "--explain",
    ]
    ended = subprocess.run(
        [sys.executable, "-P", "-c", script, *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.count("\n") == 1
    assert "File too large" in ended.stderr
    assert not (tmp_path / "out").exists()
    assert not [*tmp_path.rglob("*.partial")]
    assert score(bundle, folder, "--out", tmp_path / "out", "--explain") == 0
    assert pq.read_table(tmp_path / "out").num_rows == 12_000


def test_a_run_that_was_killed_goes_on_with_the_parts_that_are_left(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(4):
        write(table(500, seed=number), folder / f"{number}.jsonl")
    os.mkfifo(folder / "9.jsonl")  # never ends: the run stands there until it is killed
    words = ["score", str(bundle), str(folder), "--out", str(tmp_path / "out"), "--runtime", "native"]
    process = subprocess.Popen([sys.executable, "-P", "-m", "penstock", *words], stdout=subprocess.DEVNULL)
    (folder / "9.jsonl").unlink()
    process.kill()
    process.wait()
    work = tmp_path / ".out.penstock-score"
    assert score(bundle, folder, "--out", tmp_path / "whole") == 0

    words[2] = str(folder)
    process = subprocess.Popen([sys.executable, "-P", "-m", "penstock", *words], stdout=subprocess.DEVNULL)
    end_s = time.monotonic() + 60
    while not (work / "part-00000.done").exists() and time.monotonic() < end_s and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    process.wait()
    capsys.readouterr()
    assert score(bundle, folder, "--out", tmp_path / "out", "--json", "--overwrite") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["predicted"] == 2000
    assert not work.exists()
    assert (
        pq.read_table(tmp_path / "out")
        .drop_columns("source")
        .equals(pq.read_table(tmp_path / "whole").drop_columns("source"))
    )


def test_parts_that_are_done_are_not_done_again_unless_something_changed(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        write(table(100, seed=number), folder / f"{number}.parquet")
    good = (folder / "2.parquet").read_bytes()
    bad = bytearray(good)
    bad[20:1500] = b"\xff" * 1480
    (folder / "2.parquet").write_bytes(bad)
    os.utime(folder / "2.parquet", ns=(1, 1))
    assert score(bundle, folder, "--out", tmp_path / "out.parquet") == 1
    (folder / "2.parquet").write_bytes(good)
    os.utime(folder / "2.parquet", ns=(1, 1))
    capsys.readouterr()
    assert score(bundle, folder, "--out", tmp_path / "out.parquet", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["parts"], report["parts_resumed"], report["predicted"]) == (3, 2, 300)
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 300


def test_several_processes_give_the_same_file(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_plan, "part_rows", 500)
    path = write(table(2000), tmp_path / "in.parquet")
    assert score(bundle, path, "--out", tmp_path / "one.parquet", "--explain") == 0
    assert score(bundle, path, "--out", tmp_path / "two.parquet", "--explain", "--processes", 2) == 0
    one, two = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("one", "two"))
    assert one.equals(two)
    assert one["source"].to_pylist()[1999]["row"] == 1999


def test_a_process_that_cannot_go_on_says_why(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write(table(100), folder / "1.parquet")
    damaged = bytearray(write(table(100), folder / "2.parquet").read_bytes())
    damaged[20:1500] = b"\xff" * 1480
    (folder / "2.parquet").write_bytes(damaged)
    assert score(bundle, folder, "--out", tmp_path / "out", "--processes", 2) == 1
    error = capsys.readouterr().err
    assert "2.parquet cannot be read" in error
    assert not (tmp_path / "out").exists()


def test_numbers_damaged_on_the_disk_are_found_by_their_checksum(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the input where its writer noted checksums, and of the results always."""
    path = tmp_path / "in.parquet"
    pq.write_table(table(1000), path, compression="none", use_dictionary=False, write_page_checksum=True)
    assert score(bundle, path, "--out", tmp_path / "out.parquet") == 0
    out = tmp_path / "out.parquet"
    for each, read in (
        (path, lambda: score(bundle, path, "--out", tmp_path / "again.parquet")),
        (out, lambda: pq.ParquetFile(out, page_checksum_verification=True).read()),
    ):
        data = bytearray(each.read_bytes())
        column = pq.ParquetFile(each).metadata.row_group(0).column(1)
        end = column.data_page_offset + column.total_compressed_size
        data[end - 9 : end - 1] = bytes(byte ^ 1 for byte in data[end - 9 : end - 1])
        each.write_bytes(data)
        if each == out:
            with pytest.raises(OSError, match="checksum"):
                read()
        else:
            assert read() == 1
            assert "could not verify page integrity" in capsys.readouterr().err
    assert not (tmp_path / "again.parquet").exists()


def test_no_rows_give_an_output_without_rows(bundle: Path, tmp_path: Path) -> None:
    for name in ("in.parquet", "in.csv", "in.jsonl"):
        path = write(table(10).slice(0, 0), tmp_path / name)
        assert score(bundle, path, "--out", tmp_path / f"{name}.parquet", "--explain") == 0
        found = pq.read_table(tmp_path / f"{name}.parquet")
        assert found.num_rows == 0
        assert "attributions" in found.column_names


@pytest.mark.parametrize("name", ["in.csv", "in.jsonl"])
@pytest.mark.parametrize("text", ["", "\n\n"], ids=["no byte", "blank lines"])
def test_a_file_without_anything_is_a_file_without_records(
    bundle: Path, tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    assert score(bundle, tmp_path / name, "--out", tmp_path / "out.parquet", "--keep", "id") == 0
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.num_rows == 0


def test_a_glob_and_a_remote_address(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        write(table(10, seed=number), tmp_path / f"in-{number}.parquet")
    assert score(bundle, tmp_path / "in-*.parquet", "--out", tmp_path / "out.parquet") == 0
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 20
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    store.pipe("/score/in/1.parquet", (tmp_path / "in-0.parquet").read_bytes())
    store.pipe("/score/in/_SUCCESS", b"")
    for out in ("memory://score/out.parquet", "memory://score/out"):
        assert score(bundle, "memory://score/in", "--out", out, "--explain") == 0, capsys.readouterr().err
        assert score(bundle, "memory://score/in", "--out", out) == 2
        assert score(bundle, "memory://score/in", "--out", out, "--overwrite") == 0
    assert pq.read_table(store.open("/score/out.parquet")).num_rows == 10
    assert pq.read_table(store.open("/score/out/part-00000.parquet")).num_rows == 10
    assert not [name for name in store.find("/score") if "partial" in name]


@pytest.mark.parametrize("bytes_min", [1, 40, 500])
def test_a_file_of_json_lines_is_cut_at_ends_of_lines(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    bytes_min: int,
) -> None:
    good = [orjson.dumps({"a": i - 3.5, "b": None, "c": 0, "pad": "p" * (i * 37 % 90)}) for i in range(40)]
    lines = [b"", *good[:9], *(line for line, _, _ in bad_lines), b" ", b"", *good[9:]]
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\n".join(lines))  # the last one without its end

    def found(out: str, parts_min: int, *words: object) -> tuple[Any, ...]:
        assert score(bundle, path, "--out", tmp_path / out, "--json", *words) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["parts"] >= parts_min
        text = (tmp_path / f"{out}.dead-letters.jsonl").read_text()
        letters = [json.loads(line) for line in text.splitlines()]
        return pq.read_table(tmp_path / out).to_pylist(), [{**letter, "at_ms": 0} for letter in letters]

    whole = found("whole.parquet", 1)
    monkeypatch.setattr(batch_plan, "text_part_bytes", bytes_min)
    monkeypatch.setattr(batch_plan, "_scan_bytes", 64)
    assert found("cut.parquet", 5) == whole
    if bytes_min == 500:
        assert found("shared.parquet", 5, "--processes", 2) == whole


def test_a_result_of_several_row_groups_is_read_back_whole(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of dictionaries inside lists or objects, Arrow reads no file of several row groups."""
    monkeypatch.setattr(batch_plan, "part_rows", 300)
    path = write(table(1000), tmp_path / "in.parquet")
    assert score(bundle, path, "--out", tmp_path / "out.parquet", "--explain") == 0
    file = pq.ParquetFile(tmp_path / "out.parquet")
    assert file.num_row_groups > 1
    assert file.read().num_rows == 1000
