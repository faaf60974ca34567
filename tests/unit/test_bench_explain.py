"""`penstock bench explain`: small, but whole."""

import argparse
import io
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import orjson
import pytest
from rich.console import Console

from engine.bench import explain
from engine.models.device import cuda_devices
from engine.terminal import Terminal
from schemas.errors import ConfigError


class _SteppingClock:
    """A millisecond passes with every look."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def monotonic_s(self) -> float:
        self._now_s += 0.001
        return self._now_s

    def wall_ms(self) -> int:
        return int(self._now_s * 1000)

    def sleep(self, duration_s: float) -> None:
        self._now_s += duration_s


def _run(*words: str) -> tuple[dict[str, Any], str]:
    parser = argparse.ArgumentParser()
    explain.add_arguments(parser)
    shown = io.StringIO()
    terminal = Terminal(console=Console(file=shown, width=160))
    return explain.run(parser.parse_args(words), terminal, _SteppingClock()), shown.getvalue()


def test_peers_are_measured_on_the_same_trees_and_judged_by_the_oracle() -> None:
    found, shown = _run("--models", "6x3", "--batches", "1,32", "--seconds", "0.002", "--background", "5")
    model = found["models"][0]
    peers = {peer["peer"]: peer for peer in model["explain"]}

    assert {
        "penstock",
        "penstock interventional",
        "shap",
        "shap interventional",
        "xgboost",
        "lightgbm",
    } <= set(peers)
    for name, peer in peers.items():
        if peer["installed"] and name != "lightgbm":
            assert peer["error_relative"] <= 1e-5, name
            assert peer["additivity_error"] <= 1e-4, name
    # One millisecond a call on this clock: the rates are the batch sizes in thousands, and the ratios are one.
    assert peers["penstock"]["batches"]["32"]["rows_per_s"] == pytest.approx(32_000)
    assert model["ratios"]["xgboost"]["32"] == pytest.approx(1.0)
    assert model["leaves"] > 6 * 4
    assert "penstock / onnxruntime predict" in shown
    if not cuda_devices():
        assert "no GPU here" in peers["penstock cuda graph"]["why"]
        assert "penstock cuda fused: ConfigError: " in shown  # no driver, or one that finds no GPU
    orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY)


def test_only_the_peers_that_are_asked_for() -> None:
    found, _ = _run("--models", "2x2", "--batches", "4", "--peers", "penstock,xgboost", "--seconds", "0.001")
    assert [peer["peer"] for peer in found["models"][0]["explain"]] == ["penstock", "xgboost"]


def test_figures_are_drawn_and_tabulated(tmp_path: Path) -> None:
    picture, page = tmp_path / "explain.svg", tmp_path / "explain.md"
    words = ("--models", "2x2,3x2", "--batches", "1,4", "--peers", "penstock,xgboost", "--seconds", "0.001")
    _run(*words, "--picture", str(picture), "--table", str(page))
    drawn = [element.text for element in ElementTree.parse(picture).iter("{http://www.w3.org/2000/svg}text")]
    assert [words for words in drawn if words and words.startswith("2x2")] == [
        "2x2: SHAP values, rows/s in batches of 4"
    ]
    assert drawn.count("Penstock") == drawn.count("xgboost") == 2
    assert drawn.count("4,000 · Penstock 1x") == 4  # one millisecond a call, for xgboost and the prediction
    assert page.read_text().count("| xgboost | 1,000 | 4,000 |") == 2
    assert page.read_text().count("| xgboost | 1x | 1x |") == 2


@pytest.mark.parametrize(
    "words",
    [
        ("--models", "100"), ("--models", "5x40"), ("--models", "0x3"), ("--batches", "0"), ("--batches", "9000"),
        ("--batches", "many"), ("--peers", "nobody"), ("--seconds", "0"), ("--background", "0"),
        ("--picture", "/nowhere/at/all.svg"), ("--table", "/nowhere/at/all.md"),
    ],
)  # fmt: skip
def test_wrong_words_are_refused(words: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match=words[0]):
        _run(*words)
