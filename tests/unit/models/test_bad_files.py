"""Files that are no model, or a broken one: one sentence and exit code 2; never a stack of another library, an abort or a hang."""

import json
import os
import random
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnx
import pytest
import xgboost
from onnx import TensorProto, external_data_helper, helper
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from penstock.engine.cli.main import main
from penstock.engine.models.bundle.graph_checks import parse_model
from penstock.engine.models.packaging.boosters.xgboost_model import in_silence
from penstock.engine.models.packaging.onnx_file import read_onnx
from penstock.engine.models.packaging.package import package
from penstock.engine.models.packaging.parity import ParityError, relative_difference
from penstock.engine.trees.readers.lightgbm import read_lightgbm
from penstock.engine.trees.readers.xgboost import read_xgboost
from penstock.schemas.errors import ConfigError
from tests.bundles import constant, graph_bytes, linear_model, linear_scores, tensor, weights
from tests.mutants_files import mutant
from tests.mutants_models import rows_of_two_classes, sound_files

mutants_count = int(os.environ.get("PENSTOCK_SOAK_MUTANTS", "150"))
"""Mutants a format for our own readers; 20,000 in a long run."""
rows, answers = rows_of_two_classes()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A sound file of every format, by suffix."""
    return sound_files(rows, answers, tmp_path_factory.mktemp("good"))


def _refused(data: bytes, name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    (folder / name).write_bytes(data)
    assert main(["package", str(folder / name), "--out", str(folder / "bundle")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("penstock package: ")
    assert len(said.strip().splitlines()) == 1
    assert not any(sign in said for sign in ("Traceback", "[bt]", "/workspace", ".cc:", "0x7f"))
    assert not (folder / "bundle").exists()
    return said


@pytest.mark.parametrize("suffix", [".json", ".ubj", ".txt", ".onnx"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.6, 0.85])
def test_a_file_that_is_cut_is_refused(
    suffix: str, share: float, good: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = good[suffix]
    said = _refused(data[: int(len(data) * share)], f"m{suffix}", tmp_path, capsys)
    words = ("empty", "cut off", "malformed", "not a LightGBM", "LightGBM crashes")
    assert any(word in said for word in words)


others: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "XGBoost's dump": ("m.json", lambda: json.dumps(
        [json.loads(tree) for tree in xgboost.train({}, xgboost.DMatrix(rows, answers), 2).get_dump(dump_format="json")]
    ).encode(), "save the model with save_model"),
    "LightGBM's dump": ("m.json", lambda: json.dumps(
        lightgbm.train({"verbose": -1}, lightgbm.Dataset(rows, answers), 2).dump_model()).encode(),
        "what LightGBM's dump_model says"),
    "LightGBM's dump as text": ("m.txt", lambda: b'{"name": "tree"}', "dump_model"),
    "CatBoost's JSON": ("m.json", lambda: b'{"oblivious_trees": [], "features_info": {}}', "CatBoost model is malformed"),
    "CatBoost's own": ("m.cbm", lambda: b"CBM1", "CatBoost"),
    "another JSON": ("m.json", lambda: b'{"a": 1}', "no XGBoost model"),
    "a number": ("m.json", lambda: b"7", "no XGBoost model"),
    "deep JSON": ("m.json", lambda: b"[" * 200_000, "no XGBoost model"),
    "a pickle": ("m.joblib", lambda: b"\x80\x04N.", "only Python may open"),
    "PMML": ("m.pmml", lambda: b"<PMML/>", "PMML"),
    "bytes": ("m.txt", lambda: bytes(range(256)), "not a text file"),
    "hinge": ("m.json", lambda: bytes(xgboost.train(
        {"objective": "binary:hinge"}, xgboost.DMatrix(rows, answers), 2).save_raw("json")), "binary:hinge"),
}  # fmt: skip


@pytest.mark.parametrize("kind", others)
def test_a_file_of_another_kind_is_refused_by_name(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, data, words = others[kind]
    assert words in _refused(data(), name, tmp_path, capsys)


def test_a_lightgbm_file_with_lines_of_windows_is_read(good: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_bytes(good[".txt"].replace(b"\n", b"\r\n"))
    assert package(tmp_path / "m.txt", tmp_path / "bundle").bundle.trees


@pytest.mark.parametrize(
    ("line", "instead", "said"),
    [
        ("feature_infos=.*", "feature_infos=none", "Wrong size of feature_infos"),
        ("feature_infos=.*\n", "", "doesn't contain feature_infos"),
        ("objective=.*", "objective=binary sigmoid:-1", "should be greater than zero"),
    ],
)
def test_what_lightgbm_itself_calls_fatal_is_one_sentence_of_ours(
    line: str,
    instead: str,
    said: str,
    good: dict[str, bytes],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    text = re.sub(line, instead, good[".txt"].decode())
    read_lightgbm(text, classes=None)  # our own reader has nothing against it
    (tmp_path / "m.txt").write_text(text)
    assert main(["package", str(tmp_path / "m.txt"), "--out", str(tmp_path / "bundle")]) == 2
    written = capfd.readouterr().err
    assert written.count("\n") == 1
    assert "LightGBM refuses the model" in written
    assert said in written
    assert "[LightGBM]" not in written


@pytest.mark.parametrize(
    ("line", "instead", "said"),
    [
        (r"(?m)^\[num_leaves: \d+\]$", "[num_leaves 31]", "'[num_leaves 31]' is no parameter"),
        (r"(?m)^\[num_leaves: \d+\]$", "[num_leaves: 31", "'[num_leaves: 31' is no parameter"),
        (r"(?m)^\[num_leaves: \d+\]$", "num_leaves", "'num_leaves' is no parameter"),
        (r"(?m)^\[num_leaves: \d+\]$", ":", "':' is no parameter"),
        (r"(?m)^tree_sizes=\d+", "tree_sizes=99999", "not as long as its tree_sizes say"),
        (r"(?m)^tree_sizes=\d+ ", "tree_sizes=", "not as long as its tree_sizes say"),
        (r"(?m)^tree_sizes=", "tree_sizes=-", "not as long as its tree_sizes say"),
        (r"(?m)^num_class=1$", "num_class=5", "of 5 classes with 1 trees an iteration"),
    ],
)
def test_what_lightgbm_would_read_past_the_end_of_never_reaches_it(
    line: str,
    instead: str,
    said: str,
    good: dict[str, bytes],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It ends the process now and then, as its memory happens to be, so that a trial beforehand may miss it."""
    text, count = re.subn(line, instead, good[".txt"].decode(), count=1)
    assert count == 1
    assert said in _refused(text.encode(), "m.txt", tmp_path, capsys)


@pytest.mark.parametrize(
    ("line", "word", "said"),
    [
        ("cat_threshold", str(2**32 + 6), "sets of categories are not where it says"),
        ("cat_threshold", "-1", "sets of categories are not where it says"),
        ("cat_boundaries", "-1", "sets of categories are not where it says"),
        ("cat_boundaries", "99", "sets of categories are not where it says"),
        ("threshold", "-1", "no set of categories -1"),
        ("threshold", "9", "no set of categories 9"),
    ],
)
def test_a_set_of_categories_that_is_not_there_is_not_another(line: str, word: str, said: str) -> None:
    rows = np.random.default_rng(0).integers(0, 8, size=(400, 1)).astype(float)
    data = lightgbm.Dataset(rows, np.isin(rows[:, 0], (1, 4, 6)).astype(float), categorical_feature=[0])
    booster = lightgbm.train({"objective": "binary", "verbose": -1, "num_leaves": 2}, data, 1)
    text = booster.model_to_string()
    read_lightgbm(text)
    broken, count = re.subn(rf"(?m)^{line}=(.*?)\S+$", rf"{line}=\g<1>{word}", text, count=1)
    assert count == 1
    with pytest.raises(ConfigError, match=said):
        read_lightgbm(broken)


@pytest.mark.parametrize("byte", [b"\x94", b"\xda", b"\xff", b"\x1b"])
def test_what_catboost_says_in_bytes_that_are_no_text_is_one_sentence(
    byte: bytes, good: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = good[".cbm"].replace(b"FlabuffersModel_v1", b"FlabuffersModel_" + byte + b"1")
    assert data != good[".cbm"]
    said = _refused(data, "m.cbm", tmp_path, capsys)
    assert "CatBoost refuses the model: Unsupported model format: FlabuffersModel_" in said
    assert "\x1b" not in said


def test_parameters_that_catboosts_own_python_trips_over_are_one_sentence(
    good: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = good[".cbm"].replace(b'"boosting_options":{', b'"boosting_options":\xad')
    assert data != good[".cbm"]
    assert "CatBoost refuses the model: it is malformed" in _refused(data, "m.cbm", tmp_path, capsys)


def test_answers_of_another_shape_are_no_difference_but_a_refusal() -> None:
    """One column compared with two would be compared with each."""
    with pytest.raises(ParityError, match=r"\(3, 1\).*\(3, 2\)"):
        relative_difference(np.zeros((3, 1)), np.zeros((3, 2)))


def _with_circle(data: bytes) -> bytes:
    model = onnx.load_from_string(data)
    node = next(node for node in model.graph.node if node.op_type.startswith("TreeEnsemble"))
    lists = {item.name: item for item in node.attribute}
    inner = [place for place, mode in enumerate(lists["nodes_modes"].strings) if mode != b"LEAF"]
    first = lists["nodes_nodeids"].ints[inner[0]]
    lists["nodes_truenodeids"].ints[inner[1]] = first
    return bytes(model.SerializeToString())


def test_a_tree_that_leads_in_a_circle_is_refused_before_any_runtime_sees_it(
    good: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "circle" in _refused(_with_circle(good[".onnx"]), "m.onnx", tmp_path, capsys)
    pipeline = make_pipeline(StandardScaler(), RandomForestClassifier(2, random_state=0)).fit(rows, answers)
    packaged = package(pipeline, tmp_path / "first").bundle
    assert "circle" in _refused(_with_circle(packaged.model), "m.onnx", tmp_path, capsys)
    with pytest.raises(ConfigError, match="circle"):
        parse_model(_with_circle(packaged.model))


def test_a_child_that_is_not_there_and_a_deep_chain_are_refused() -> None:
    def ensemble(yes: list[int], no: list[int], count: int) -> bytes:
        node = helper.make_node(
            "TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=1, nodes_treeids=[0] * count,
            nodes_nodeids=list(range(count)), nodes_truenodeids=yes, nodes_falsenodeids=no,
            nodes_modes=["BRANCH_LEQ" if a else "LEAF" for a in yes],
        )  # fmt: skip
        return graph_bytes([node], [tensor("x", ["N", 1])], [tensor("y", ["N", 1])])

    parse_model(ensemble([1, 0, 0], [2, 0, 0], 3))
    with pytest.raises(ConfigError, match="child that is not there"):
        parse_model(ensemble([1, 0, 0], [7, 0, 0], 3))
    long = 20_001
    yes = [place + 1 if place % 2 == 0 and place + 2 < long else 0 for place in range(long)]
    no = [place + 2 if place % 2 == 0 and place + 2 < long else 0 for place in range(long)]
    with pytest.raises(ConfigError, match="path of more than"):
        parse_model(ensemble(yes, no, long))


def test_weights_beside_the_file_are_taken_in_and_none_from_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = onnx.load_from_string(linear_model())
    external_data_helper.convert_model_to_external_data(model, location="weights.bin", size_threshold=0)
    onnx.save_model(model, str(tmp_path / "m.onnx"))
    assert (tmp_path / "weights.bin").exists()
    bundle = package(tmp_path / "m.onnx", tmp_path / "bundle").bundle
    np.testing.assert_allclose(bundle.golden.outputs["scores"], linear_scores(bundle.golden.rows), atol=1e-6)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "weights.bin").rename(tmp_path / "elsewhere" / "weights.bin")
    import shutil

    shutil.rmtree(tmp_path / "bundle")
    for location in (
        "elsewhere/weights.bin",
        str(tmp_path / "elsewhere" / "weights.bin"),
        "../x",
        "weights.bin",
    ):
        for held in model.graph.initializer:
            for item in held.external_data:
                if item.key == "location":
                    item.value = location
        assert "read" in _refused(model.SerializeToString(), "m.onnx", tmp_path, capsys)
    (tmp_path / "weights.bin").symlink_to(tmp_path / "elsewhere" / "weights.bin")
    assert "links are refused" in _refused(model.SerializeToString(), "m.onnx", tmp_path, capsys)


def _graphs() -> dict[str, tuple[bytes, dict[str, Any]]]:
    product = [helper.make_node("MatMul", ["x", "w"], ["scores"])]
    w = constant("w", weights)
    half = constant("h", weights.astype(np.float16))
    return {
        "a fixed batch of one": (graph_bytes(product, [tensor("x", [1, 3])], [tensor("scores", [1, 2])], [w]), {}),
        "a fixed batch of seven": (graph_bytes(product, [tensor("x", [7, 3])], [tensor("scores", [7, 2])], [w]), {}),
        "an output of symbolic width": (
            graph_bytes(product, [tensor("x", ["N", 3])], [tensor("scores", ["N", "C"])], [w]), {}),
        "an output without a shape": (
            graph_bytes(product, [tensor("x", ["N", 3])],
                        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, None)], [w]), {}),
        "float16": (
            graph_bytes([helper.make_node("MatMul", ["x", "h"], ["s"]),
                         helper.make_node("Cast", ["s"], ["scores"], to=TensorProto.FLOAT)],
                        [tensor("x", ["N", 3], TensorProto.FLOAT16)], [tensor("scores", ["N", 2])], [half]), {}),
        "int64": (
            graph_bytes([helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
                         helper.make_node("MatMul", ["f", "w"], ["scores"])],
                        [tensor("x", ["N", 3], TensorProto.INT64)], [tensor("scores", ["N", 2])], [w]), {}),
        "several inputs": (
            graph_bytes([helper.make_node("Concat", ["a", "b"], ["x"], axis=1), *product],
                        [tensor("a", ["N", 1]), tensor("b", ["N", 2])], [tensor("scores", ["N", 2])], [w]), {}),
        "a rank of three": (
            graph_bytes([helper.make_node("Flatten", ["t"], ["x"]), *product],
                        [tensor("t", ["N", 3, 1])], [tensor("scores", ["N", 2])], [w]), {}),
        "a symbolic width with names": (
            graph_bytes(product, [tensor("x", ["N", "F"])], [tensor("scores", ["N", 2])], [w]),
            {"feature_names": ["a", "b", "c"]}),
    }  # fmt: skip


@pytest.mark.parametrize("kind", _graphs())
def test_graphs_as_people_export_them_are_packaged(kind: str, tmp_path: Path) -> None:
    data, more = _graphs()[kind]
    (tmp_path / "m.onnx").write_bytes(data)
    bundle = package(tmp_path / "m.onnx", tmp_path / "bundle", **more).bundle
    assert [(output.name, output.width) for output in bundle.outputs] == [("scores", 2)]
    expected = bundle.golden.rows.astype(np.float64) @ weights.astype(np.float64)
    np.testing.assert_allclose(
        bundle.golden.outputs["scores"],
        expected,
        rtol=1e-2 if kind == "float16" else 1e-5,
        atol=1e-2 if kind == "float16" else 1e-5,
    )


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        (graph_bytes([helper.make_node("ReduceSum", ["x"], ["y"], keepdims=1)], [tensor("x", [4])], [tensor("y", [1])]),
         "one row without a batch"),
        (graph_bytes([helper.make_node("Identity", ["x"], ["y"])], [tensor("x", ["N", "F"])], [tensor("y", ["N", "F"])]),
         "name the features"),
    ],
)  # fmt: skip
def test_a_graph_that_cannot_be_fed_says_what_is_missing(
    graph: bytes, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in _refused(graph, "m.onnx", tmp_path, capsys)


readers: dict[str, Callable[[bytes], Any]] = {
    ".json": read_xgboost,
    ".ubj": read_xgboost,
    ".txt": lambda data: read_lightgbm(data.decode("utf-8", "replace")),
    ".onnx": read_onnx,
}


@pytest.mark.parametrize("suffix", readers)
def test_our_own_readers_take_or_refuse_every_mutant(suffix: str, good: dict[str, bytes]) -> None:
    taken = 0
    for seed in range(mutants_count):
        try:
            readers[suffix](mutant(good[suffix], random.Random(seed)))
            taken += 1
        except ConfigError:
            continue
    assert taken < mutants_count


def test_a_tree_that_xgboost_reads_and_does_not_write_is_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = sound_files(*rows_of_two_classes(), tmp_path)[".json"]
    path = tmp_path / "model.json"
    path.write_bytes(mutant(sound, random.Random(1229)))
    assert main(["package", str(path), "--out", str(tmp_path / "bundle"), "--unproved"]) == 2
    said = capsys.readouterr().err
    assert "XGBoost refuses the model" in said
    assert len(said.strip().splitlines()) == 1


@pytest.mark.parametrize("ends", [[0, 1, 99], [0, 3, 1, 4], [1, 4], [0, 2]], ids=str)
def test_rounds_that_do_not_end_where_the_trees_do_are_refused_before_xgboost_sees_them(
    ends: list[int], good: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = json.loads(good[".json"])
    model = tree["learner"]["gradient_booster"]["model"]
    assert len(model["trees"]) == model["iteration_indptr"][-1] > 2
    model["iteration_indptr"] = ends
    said = _refused(json.dumps(tree).encode(), "model.json", tmp_path, capsys)
    assert "its rounds do not end where its trees do" in said


def test_what_xgboost_says_of_a_model_is_one_sentence_without_its_code(
    good: dict[str, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    booster = xgboost.Booster()
    booster.load_model(bytearray(good[".json"]))

    def asked() -> None:
        with in_silence("rows"):
            warnings.warn("[10:00:00] WARNING: /src/a.cc:1: strange", UserWarning, stacklevel=1)
            booster.predict(xgboost.DMatrix(np.zeros((2, 90))), iteration_range=(0, 10_000))

    with pytest.raises(ConfigError, match=r"^XGBoost refuses the rows: (?!\[)"):
        asked()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("seed", [2000262, 2000263, 2000382])
def test_catboost_says_nothing_beside_the_one_sentence(
    seed: int, good: dict[str, bytes], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.cbm").write_bytes(mutant(good[".cbm"], random.Random(seed)))
    assert main(["package", str(tmp_path / "m.cbm"), "--out", str(tmp_path / "bundle"), "--unproved"]) == 2
    assert len(capfd.readouterr().err.strip().splitlines()) == 1


def test_a_model_that_refuses_every_row_is_refused_in_its_own_words(tmp_path: Path) -> None:
    broken = make_pipeline(StandardScaler(), GradientBoostingClassifier(n_estimators=2, random_state=0))
    broken.fit(rows, answers)
    broken.steps[0][1].mean_ = np.full(rows.shape[1], np.nan)  # as in a file that was changed by hand
    with pytest.raises(ConfigError, match="Input X contains NaN"):
        package(broken, tmp_path / "bundle")


@pytest.mark.parametrize(
    "ending", ["pandas_categorical:[[1]] x", "pandas_categorical:[", "pandas_categorical:nul"]
)
def test_what_stands_behind_lightgbm_s_trees_is_read_or_refused_in_a_sentence(
    ending: str, good: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = good[".txt"].decode()
    changed = text[: text.index("pandas_categorical:")] + ending + "\n"
    said = _refused(changed.encode(), "m.txt", tmp_path, capsys)
    assert "LightGBM" in said
