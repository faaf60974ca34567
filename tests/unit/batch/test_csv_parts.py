"""A CSV file read in parts is the file read whole: quoted line ends, quotes in quotes, both ends of lines, a byte order mark."""

import os
import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine.batch import csv_parts
from penstock.engine.batch import plan as batch_plan
from penstock.engine.batch.csv_parts import csv_ranges
from penstock.engine.batch.errors import ScoreError
from penstock.engine.batch.files import Part, find_files
from penstock.engine.batch.read import read_part
from penstock.engine.cli.main import main
from penstock.engine.features.signature import Feature, ModelInput, Signature
from tests.bundles import write_stump

runs = int(os.environ.get("PENSTOCK_CSV_RUNS", "200"))

two = Signature(
    features=(Feature(name="a", kind="number"), Feature(name="b", kind="number")),
    inputs=(ModelInput(name="i", dtype="float64", start=0, width=2),),
)


def parts_of(path: Path, bytes_min: int, delimiter: str) -> list[Part]:
    (file,) = find_files(str(path), "csv")
    with path.open("rb") as stream:
        return [
            Part(
                file=file,
                start=each.start,
                end=each.end,
                first_row=each.first_row,
                header_end=each.header_end,
            )
            for each in csv_ranges(stream, delimiter=delimiter, bytes_min=bytes_min)
        ]


def read(parts: Sequence[Part], delimiter: str) -> Any:
    """Every row with its number, its note and its numbers as bits, and what is no row; or that it cannot be read."""
    rows, wrong = [], []
    try:
        for part in parts:
            for block in read_part(part, "csv", two, keep=("note",), delimiter=delimiter):
                if block.decoded is None:
                    continue
                refused = {each.index: each.reason for each in block.decoded.rejections}
                matrix = iter(np.asarray(block.decoded.matrix).tolist())
                notes = block.kept.column(0).to_pylist()
                for place, number in enumerate(block.rows.tolist()):
                    bits = refused[place] if place in refused else repr(next(matrix))
                    rows.append((number, notes[place], bits))
                wrong += [(number, refusal.detail, text) for number, refusal, text in block.unreadable]
    except ScoreError as error:
        return str(error)
    return sorted(rows), sorted(wrong)


cells = st.sampled_from(
    [b"1", b"2.5", b"", b"x", b'"3"', b'""', b'"4\n5"', b'"6\r\n7"', b'"8\r9"', b'"a""b"', b'""""', b'"a,;b"', b'6" pipe', b'x"y"', b'"q"z', b'"q"z"', b'"\n""\n"']
)  # fmt: skip
line_ends = st.sampled_from([b"\n", b"\r\n", b"\r", b"\n\n", b"\r\n\r\n", b"\n\r\n"])


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, str]:
    delimiter = draw(st.sampled_from([",", ";"]))
    mark = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    names = draw(st.sampled_from([[b"a", b"b", b"note"], [b'"a"', b'"b"', b"note"]]))
    lines = [names, *draw(st.lists(st.lists(cells, min_size=3, max_size=3), max_size=30))]
    if draw(st.booleans()):
        lines.append(draw(st.lists(cells, max_size=5)))
    end = draw(st.one_of(line_ends.map(lambda each: [each]), st.lists(line_ends, min_size=5, max_size=5)))
    text = b"".join(delimiter.encode().join(line) + end[place % len(end)] for place, line in enumerate(lines))
    return mark + draw(st.sampled_from([b"", b"\n"])) + text, delimiter


@settings(max_examples=min(runs, 5000))
@given(file=files(), bytes_min=st.integers(1, 60), scan=st.integers(3, 40))
def test_parts_are_the_file(
    file: tuple[bytes, str], bytes_min: int, scan: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data, delimiter = file
    path = tmp_path_factory.mktemp("csv") / "in.csv"
    path.write_bytes(data)
    (whole,) = find_files(str(path), "csv")
    before = csv_parts._scan_bytes
    try:
        csv_parts._scan_bytes = scan  # type: ignore[misc]
        parts = parts_of(path, bytes_min, delimiter)
    finally:
        csv_parts._scan_bytes = before  # type: ignore[misc]
    assert parts[0].start == 0
    assert parts[-1].end == len(data)
    assert all(one.end == other.start for one, other in pairwise(parts))
    assert read(parts, delimiter) == read([Part(file=whole)], delimiter)


def test_bytes_by_chance_are_cut_as_arrow_reads_them(tmp_path: Path) -> None:
    """Quotes at every place, closed or not."""
    path, draws, cut, open_ends = tmp_path / "in.csv", random.Random(5), 0, 0
    (tmp_path / "in.csv").write_bytes(b"")
    for _ in range(runs):
        body = bytes(draws.choices(b'"",,\n\r1x', k=draws.randrange(60)))
        path.write_bytes(b"a,b,note\n" + body)
        (whole,) = find_files(str(path), "csv")
        wanted = read([Part(file=whole)], ",")
        try:
            parts = parts_of(path, draws.randrange(1, 30), ",")
        except ScoreError:  # a quote that does not end
            open_ends += isinstance(wanted, str)
            continue
        assert read(parts, ",") == wanted, body
        cut += len(parts) > 1
    assert cut > runs / 8
    assert open_ends > runs / 8


def test_a_big_file_of_quoted_lines_gives_the_same_output_in_parts_and_by_two_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stump(tmp_path / "bundle")
    draws = np.random.default_rng(3)
    lines = [
        f'{a},"{b}",{c},"line {n}\r\nsays ""{n}"", and\nmore"\r\n'
        for n, (a, b, c) in enumerate(draws.normal(size=(20_000, 3)).tolist())
    ]
    path = tmp_path / "in.csv"
    path.write_text("\ufeffa,b,c,note\r\n" + "".join(lines), encoding="utf-8", newline="")

    def score(out: str, *more: object) -> Any:
        words = [
            "score",
            tmp_path / "bundle",
            path,
            "--out",
            tmp_path / out,
            "--keep",
            "note",
            "--runtime",
            "native",
            *more,
        ]
        assert main([*map(str, words)]) == 0
        return pq.read_table(tmp_path / out)

    whole = score("whole.parquet")
    monkeypatch.setattr(batch_plan, "text_part_bytes", 200_000)
    in_parts, by_two = score("parts.parquet"), score("two.parquet", "--processes", 2)
    assert whole.num_rows == 20_000
    assert whole["note"][7].as_py() == 'line 7\r\nsays "7", and\nmore'
    assert in_parts.equals(whole)
    assert by_two.equals(whole)
    assert whole["source"][19_999].as_py()["row"] == 19_999
