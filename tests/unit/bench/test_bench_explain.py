"""`penstock bench explain`: small, but whole."""

import argparse
import io
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import orjson
import pytest
from penstock_bench import explain
from penstock_bench.explain.bars import bars
from penstock_bench.explain.outside import Outside, measure, write_task
from penstock_bench.explain.workload import complete, workload
from rich.console import Console

from penstock.engine.console.terminal import Terminal
from penstock.engine.gpu.device import cuda_devices
from penstock.schemas.errors import ConfigError
from tests.clocks import SteppingClock


def _run(*words: str) -> tuple[dict[str, Any], str]:
    parser = argparse.ArgumentParser()
    explain.add_arguments(parser)
    shown = io.StringIO()
    terminal = Terminal(console=Console(file=shown, width=160))
    return explain.run(parser.parse_args(words), terminal, SteppingClock()), shown.getvalue()


inside = "penstock,penstock float64,shap,xgboost,lightgbm,penstock interventional,shap interventional"
trees = ("--sections", "trees", "--seconds", "0.002")


def _no_environments(name: str, announce: Any) -> Path:
    raise ConfigError(f"there is no {name} here")


def test_peers_are_measured_on_the_same_trees_and_judged_by_the_oracle() -> None:
    words = ("--models", "6x3", "--batches", "1,32", "--background", "5", "--peers", inside)
    found, shown = _run(*trees, *words)
    model = found["models"][0]
    peers = {peer["peer"]: peer for peer in model["explain"]}

    assert set(peers) == set(inside.split(","))
    for name, peer in peers.items():
        assert peer["installed"], name
        if name != "lightgbm":
            assert peer["error_relative"] <= 1e-5, name
            assert peer["error_complete_rows"] <= 1e-5, name
            assert peer["additivity_error"] <= 1e-5, name
    # One millisecond a call on this clock: the rates are the batch sizes in thousands, and the ratios are one.
    assert peers["penstock"]["batches"]["32"]["rows_per_s"] == pytest.approx(32_000)
    assert model["ratios"]["xgboost"]["32"] == pytest.approx(1.0)
    assert model["leaves"] > 6 * 4
    for kind in ("path_dependent", "interventional"):
        assert 0 < model["tables"][kind]["bytes"] <= model["tables"]["bytes_max"]
        assert model["tables"][kind]["seconds"] == pytest.approx(0.001)
    assert "onnxruntime predict" in shown
    orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY)


@pytest.mark.skipif(cuda_devices() > 0, reason="there is a GPU here")
def test_what_needs_a_gpu_is_named_with_the_reason_where_there_is_none() -> None:
    words = (
        "--models",
        "2x2",
        "--batches",
        "4",
        "--peers",
        "penstock,penstock cuda graph,penstock cuda fused",
    )
    found, shown = _run(*trees, *words)
    graph, fused = found["models"][0]["explain"][1:]
    assert not graph["installed"]
    assert "no GPU here" in graph["why"]
    assert not fused["installed"]
    assert f"penstock cuda fused: {fused['why']}" in shown  # no driver, or one that finds no GPU


def test_only_the_peers_that_are_asked_for() -> None:
    found, _ = _run(*trees, "--models", "2x2", "--batches", "4", "--peers", "penstock,xgboost")
    assert [peer["peer"] for peer in found["models"][0]["explain"]] == ["penstock", "xgboost"]


def test_figures_are_drawn_and_tabulated(tmp_path: Path) -> None:
    picture, page = tmp_path / "explain.svg", tmp_path / "explain.md"
    words = (*trees, "--models", "2x2,3x2", "--batches", "1,4", "--peers", "penstock,xgboost")
    _run(*words, "--picture", str(picture), "--table", str(page))
    drawn = [element.text for element in ElementTree.parse(picture).iter("{http://www.w3.org/2000/svg}text")]
    assert [words for words in drawn if words and words.startswith("2x2")] == [
        "2x2: SHAP values, rows/s in batches of 4"
    ]
    assert drawn.count("Penstock") == drawn.count("xgboost") == 2
    assert drawn.count("4,000 · Penstock 1x") == 4  # one millisecond a call, for xgboost and the prediction
    assert page.read_text().count("| xgboost | 1,000 | 4,000 |") == 2
    assert page.read_text().count("| xgboost | 1x | 1x |") == 2


def test_deep_trees_a_network_and_lime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "python_of", _no_environments)
    page = tmp_path / "explain.md"
    words = ("--sections", "deep,network,lime", "--models", "4x3", "--batches", "2", "--seconds", "0.001")
    found, shown = _run(*words, "--peers", "penstock,penstock float64,shapiq", "--table", str(page))

    assert [run["features_on_a_path"] for run in found["deep"]] == [16, 32, 48, 64]
    for run in found["deep"]:
        close, exact, absent = run["explain"]
        assert max(close["error_relative"], close["additivity_error"]) <= 2e-6
        assert max(exact["error_relative"], exact["additivity_error"]) <= 1e-12
        assert absent == {"peer": "shapiq", "installed": False, "why": "there is no explain/shapiq here"}
    methods = {each["method"]: each for each in found["network"]["methods"]}
    assert methods["exact_enumeration"]["additivity_error"] <= 1e-6
    assert 0 < methods["sampled"]["error_relative"] < 0.1
    assert methods["deeplift_rescale"]["batches"]["2"]["rows_per_s"] == pytest.approx(2_000)
    assert found["lime"]["penstock"]["rows_per_s"] == pytest.approx(16_000)
    assert "there is no explain/lime here" in shown
    text = page.read_text()
    assert all(heading in text for heading in ("## Deep trees", "## A network, 14-64-32-1", "## LIME"))
    assert {bar["work"].split(",")[0]: bar["met"] for bar in found["bars"]} == {
        "float32": True,
        "float64": True,
        "a network of 14 features": True,
    }


_explainer = """
import numpy as np

row_by_row = True

def fine(folder):
    weights = np.load(folder / "background.npy")[0]
    return lambda rows: rows * weights

def broken(folder):
    raise RuntimeError("no such model")

def endless(folder):
    while True:
        pass

def version():
    return "7.1"
"""


def _asked(tmp_path: Path, maker: str, timeout_s: float = 60) -> Any:
    rivals = tmp_path / "rivals"
    (rivals / "one").mkdir(parents=True)
    (rivals / "one" / "explainer.py").write_text(_explainer)
    root = Path(__file__).parents[3]
    (rivals / "measure.py").write_text((root / "benchmarks" / "explain" / "measure.py").read_text())
    work = workload(2, 2, rows=64, background=3)
    sample = complete(work.rows[:5])
    write_task(tmp_path, work, sample, batches=(1, 8), seconds=0.001, calls_max=3)
    rival = Outside(folder="one", maker=maker)
    found = measure(Path(sys.executable), rival, tmp_path, rivals=rivals, timeout_s=timeout_s)
    return found, sample * work.background[0]


def test_a_package_outside_times_itself_on_the_rows_it_is_given(tmp_path: Path) -> None:
    found, expected = _asked(tmp_path, "fine")
    np.testing.assert_array_equal(found.values, expected.astype(np.float64))
    assert (found.version, set(found.batches)) == ("7.1", {"1", "8"})
    for batch, each in found.batches.items():
        assert each["rows_per_s"] * each["call_ms"] == pytest.approx(int(batch) * 1e3)
        assert 1 <= each["calls"] <= 3


@pytest.mark.parametrize(
    ("maker", "timeout_s", "says"),
    [
        ("broken", 60, "one failed: RuntimeError: no such model"),
        ("absent", 60, "one failed: AttributeError"),
        ("endless", 0.5, "one took more than 0.5 s"),
    ],
)
def test_a_package_outside_that_fails_is_a_sentence(
    tmp_path: Path, maker: str, timeout_s: float, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        _asked(tmp_path, maker, timeout_s)


def test_bars_say_what_was_met_and_what_was_not() -> None:
    def peer(name: str, rate: float, error: float) -> dict[str, Any]:
        batches = {size: {"rows_per_s": rate, "call_ms": 1e3 * int(size) / rate} for size in ("16", "256")}
        errors = dict.fromkeys(("error_relative", "error_complete_rows", "additivity_error"), error)
        return {"peer": name, "installed": True, "batches": batches} | errors

    model = {
        "model": "100x6",
        "background_rows": 100,
        "explain": [peer("penstock", 40_000, 3e-6), peer("penstock float64", 1_000, 1e-13)],
        "predict": {"batches": {"16": {}, "256": {}}},
        "ratios": {
            "shap": {"16": 5, "256": 89},
            "onnxruntime predict": {"16": 0.1, "256": 0.36},
            "shap interventional": {"16": 1, "256": 401},
        },
        "tables": {
            "bytes_max": 1_000,
            "path_dependent": {"seconds": 2.5, "bytes": 900},
            "interventional": {"seconds": 9, "bytes": 1_001},
        },
    }
    found = {bar["work"]: bar["met"] for bar in bars({"models": [model], "deep": [], "network": None})}
    assert found == {
        "100x6, batches of 256 and more, over shap": False,
        "100x6, of ONNX Runtime's predicting": True,
        "100x6, a batch of 16": False,  # 0.4 ms
        "100x6, relative to 100 rows, over shap": True,
        "100x6, making the tables": False,
        "100x6, memory of the tables": False,
        "float32, error and missed sums": False,
        "float64, error and missed sums": True,
    }


@pytest.mark.parametrize(
    "words",
    [
        ("--models", "100"), ("--models", "5x40"), ("--models", "0x3"), ("--batches", "0"), ("--batches", "9000"),
        ("--batches", "many"), ("--peers", "nobody"), ("--seconds", "0"), ("--background", "0"),
        ("--sections", "everything"), ("--sections", ","),
        ("--picture", "/nowhere/at/all.svg"), ("--table", "/nowhere/at/all.md"),
    ],
)  # fmt: skip
def test_wrong_words_are_refused(words: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match=words[0]):
        _run(*words)
