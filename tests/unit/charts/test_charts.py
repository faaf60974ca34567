"""Pictures are well-formed SVG that fits its frame, and pages fetch and run nothing."""

import base64
import hashlib
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

import penstock
from penstock.engine.cli.main import main
from penstock.engine.python.model import Model, load
from penstock.schemas.errors import ConfigError
from tests.bundles import write_stump

kinds: tuple[Any, ...] = ("waterfall", "bar", "beeswarm", "dependence")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("bundles") / "stump"
    write_stump(path)
    return load(path, device="cpu", runtime="native")


def rows(count: int) -> Any:
    x = np.random.default_rng(1).normal(size=(count, 3))
    x[:: max(count // 5, 2), 0] = np.nan
    return x


def inside(svg: str) -> list[str]:
    """Shapes that leave the frame; the text must be XML."""
    root = ET.fromstring(svg)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    names = {
        "x": width,
        "x1": width,
        "x2": width,
        "cx": width,
        "y": height,
        "y1": height,
        "y2": height,
        "cy": height,
    }
    return [
        f"{each.tag} {name}={each.attrib[name]}"
        for each in root.iter()
        for name, most in names.items()
        if name in each.attrib and not -0.1 <= float(each.attrib[name]) <= most + 0.1
    ]


@pytest.mark.parametrize("count", [1, 2, 3000])
@pytest.mark.parametrize("kind", kinds)
def test_every_picture_fits_its_frame(model: Model, tmp_path: Path, kind: Any, count: int) -> None:
    chart = model.explain(rows(count)).plot(kind)
    assert inside(chart.to_svg()) == []
    assert len(chart.to_svg()) < 400_000
    assert chart.to_svg() == model.explain(rows(count)).plot(kind).to_svg()
    chart.save(tmp_path / "chart.svg")
    assert (tmp_path / "chart.svg").read_text().startswith("<svg")
    assert len(repr(chart)) < 120


def test_names_and_categories_are_escaped_and_shortened(tmp_path: Path) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    name = "<script>alert('x')</script> & a name of more characters than there is room for"
    frame = pandas.DataFrame({"kind": pandas.Categorical(["<a>", "b&b", "c"] * 100), "n": np.arange(300.0)})
    settings = {
        "objective": "binary",
        "verbose": -1,
        "num_threads": 1,
        "min_data_per_group": 1,
        "cat_smooth": 1,
    }
    booster = lightgbm.train(settings, lightgbm.Dataset(frame, (frame["kind"] == "c").astype(int)), 5)
    penstock.package(booster, tmp_path / "m", feature_names=["kind", name])
    explained = load(tmp_path / "m", device="cpu").explain(
        [{"kind": "<a>", name: 1.0}, {"kind": "c", name: None}, {"kind": None, name: 2.0}]
    )
    assert explained.data.tolist()[0][0] == "<a>"
    assert explained.data.tolist()[2][0] is None
    for kind in kinds:
        svg = explained.plot(kind, feature="kind").to_svg()
        assert "<script" not in svg
        assert inside(svg) == []
    assert "&lt;a&gt;" in explained.plot("waterfall").to_svg()
    assert "missing" in explained.plot("waterfall", row=2).to_svg()


def test_what_cannot_be_drawn_is_one_sentence(model: Model) -> None:
    found = model.explain(rows(3))
    for words, ask in {
        "no row 3": lambda: found.plot("waterfall", row=3),
        "no feature z": lambda: found.plot("dependence", feature="z"),
        "no picture pie": lambda: found.plot("pie"),  # type: ignore[arg-type]
        "no row to draw": lambda: found[:0].plot(),
        "at least 1": lambda: found.plot(max_display=0),
        "choose the output": lambda: model.explain(rows(3), output="all").plot(),
    }.items():
        with pytest.raises(ConfigError, match=words):
            ask()
    assert "<svg" in found._repr_html_()
    assert "<svg" in model.explain(rows(2), output="all")._repr_html_()


@pytest.mark.parametrize("words", [(), ("--global",)])
@pytest.mark.parametrize("name", ["in.jsonl", "in.csv", "in.parquet"])
def test_a_page_stands_alone(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, words: tuple[str, ...]
) -> None:
    frame = pandas.DataFrame(rows(40), columns=["a", "b", "c"])
    if name.endswith("jsonl"):
        frame.to_json(tmp_path / name, orient="records", lines=True, double_precision=15)
    elif name.endswith("csv"):
        frame.to_csv(tmp_path / name, index=False)
    else:
        frame.to_parquet(tmp_path / name)
    page_file = tmp_path / "page.html"
    bundle = str(model._path)
    assert main(["explain", bundle, "--row", str(tmp_path / name), "--html", str(page_file), *words]) == 0
    assert "page.html" in capsys.readouterr().out
    page = page_file.read_text()
    assert not re.search(r"(src|href|url\(|@import|<script|\bon\w+=|style=)", page.partition("</head>")[2])
    (style,) = re.findall(r"<style>(.*?)</style>", page)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src &#x27;sha256-{digest}&#x27;" in page
    assert "default-src &#x27;none&#x27;" in page
    assert page.count("<svg") == (5 if words else 20)
    for svg in re.findall(r"<svg.*?</svg>", page):
        assert inside(svg) == []


def test_a_record_that_is_set_aside_is_named_whatever_the_format(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.csv").write_text("a,b,c\n1,2,3\n1,x,3\n")
    (tmp_path / "in.jsonl").write_text('{"a": 1}\n{"b": "x"}\n')
    for name in ("in.csv", "in.jsonl"):
        assert main(["explain", str(model._path), "--row", str(tmp_path / name)]) == 0
        assert "record 2: set aside: field b is not a number" in capsys.readouterr().out
    (tmp_path / "in.csv").write_text("a,b,c\n1,2,3\n1,3\n")
    assert main(["explain", str(model._path), "--row", str(tmp_path / "in.csv")]) == 0
    assert "record 2: set aside: the line has 2 columns" in capsys.readouterr().out
