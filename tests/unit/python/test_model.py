"""A bundle in Python: rows in every form give the same bits, and wrong rows one sentence."""

import copy
import pickle
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow
import pytest

import penstock
from penstock.engine.codec.json_rows import JsonRows
from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.engine.python.model import Model, load
from penstock.schemas.errors import ConfigError
from tests.bundles import write_linear, write_stump


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("bundles") / "linear"
    write_linear(path)
    return load(path, device="cpu")


@pytest.fixture(scope="module")
def stump(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("bundles") / "stump"
    write_stump(path)
    return load(path, device="cpu", runtime="native")


def rows(count: int = 5) -> Any:
    return np.random.default_rng(1).normal(size=(count, 3))


class _FrameProtocol:
    """Speaks the data frame protocol, and nothing else."""

    def __init__(self, frame: Any) -> None:
        self.__dataframe__ = frame.__dataframe__


class _Capsule:
    """Speaks Arrow's PyCapsule protocol, and nothing else, as a polars frame does."""

    def __init__(self, table: Any) -> None:
        self.__arrow_c_stream__ = table.__arrow_c_stream__


forms = {
    "matrix": lambda x: x,
    "float32": lambda x: x.astype(np.float32),
    "lists": lambda x: x.tolist(),
    "objects": lambda x: x.astype(object),
    "structured": lambda x: np.rec.fromarrays(x.T, names="a,b,c"),  # type: ignore[call-overload]  # the stub asks for formats
    "pandas": lambda x: pandas.DataFrame(x, columns=["a", "b", "c"]),
    "pandas, shuffled and more": lambda x: pandas.DataFrame(x, columns=["a", "b", "c"]).assign(d="x")[["d", "c", "a", "b"]],
    "pandas nullable": lambda x: pandas.DataFrame(x, columns=["a", "b", "c"]).convert_dtypes(),
    "arrow table": lambda x: pyarrow.table(dict(zip("abc", x.T, strict=True))),
    "arrow batch": lambda x: pyarrow.record_batch(dict(zip("abc", x.T, strict=True))),
    "polars": lambda x: polars.DataFrame(dict(zip("abc", x.T, strict=True))),
    "capsule": lambda x: _Capsule(pyarrow.table(dict(zip("abc", x.T, strict=True)))),
    "frame protocol": lambda x: _FrameProtocol(pyarrow.table(dict(zip("abc", x.T, strict=True)))),
    "dictionaries": lambda x: [dict(zip("abc", row, strict=True)) for row in x.tolist()],
}  # fmt: skip


@pytest.mark.parametrize("form", forms)
def test_rows_in_every_form_give_the_same_bits(linear: Model, form: str) -> None:
    x = rows()
    expected, found = linear.predict(x), linear.predict(forms[form](x))
    assert found.outputs["scores"].tobytes() == expected.outputs["scores"].tobytes()
    assert found.classes == ("no", "yes")
    assert found.labels is not None
    assert found.labels.tolist() == [("no", "yes")[place] for place in expected.outputs["scores"].argmax(1)]


def test_no_rows_give_nothing_of_the_right_shape(linear: Model) -> None:
    empty: tuple[Any, ...] = (rows()[:0], [], pandas.DataFrame(columns=["a", "b", "c"], dtype=float))
    for nothing in empty:
        assert linear.predict(nothing).outputs["scores"].shape == (0, 2)
    assert linear.explain(rows()[:0]).values.shape == (0, 3)
    assert linear.score([], explain=True).num_rows == 0


wrong = {
    "a vector": (rows()[0], "rows[None, :]"),
    "another width": (rows()[:, :2], "3 columns"),
    "a path": ("rows.parquet", "penstock score"),
    "one dictionary": ({"a": 1.0}, "list of one dictionary"),
    "lazy": (polars.LazyFrame({"a": [1.0]}), "collect() it first"),
    "a number": (3, "not a int"),
    "lists of two lengths": ([[1, 2, 3], [1, 2]], "one length"),
    "a mixture": ([{"a": 1}, [1, 2, 3]], "row 1 is a list"),
    "no such column": (pandas.DataFrame({"a": [1.0], "bb": [1.0], "c": [1.0]}), "no column b, which the model takes; the nearest to b is bb"),
    "a column twice": (pandas.DataFrame([[1.0, 1, 1, 1]], columns=["a", "b", "c", "c"]), "two columns called c"),
}  # fmt: skip


@pytest.mark.parametrize("name", wrong)
def test_what_is_no_rows_is_one_sentence(linear: Model, name: str) -> None:
    given, words = wrong[name]
    with pytest.raises(ConfigError, match=None) as raised:
        linear.predict(given)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_first_wrong_row_is_named_with_its_column(linear: Model) -> None:
    frame = pandas.DataFrame(rows(40_000), columns=["a", "b", "c"]).astype(object)
    frame.iloc[33_333, 1] = "many"
    for ask in (linear.predict, linear.explain):
        with pytest.raises(penstock.RowsError, match="row 33333: field b is not a number") as raised:
            ask(frame)
        assert (raised.value.row, raised.value.reason) == (33_333, "wrong_type")
        assert isinstance(raised.value, ValueError)
    table = linear.score(frame)
    assert table.num_rows == 40_000
    bad = table.filter(pyarrow.compute.equal(table["outcome"], "rejected")).to_pylist()
    assert [(row["stage"], row["reason"], row["outputs"]) for row in bad] == [
        ("validate", "wrong_type", None)
    ]


def test_explanations_add_up_whatever_is_kept(stump: Model) -> None:
    x = rows(50)
    whole, few = stump.explain(x), stump.explain(x, top=1)
    score = stump.predict(x).outputs["value"][:, 0]
    for found in (whole, few):
        total = found.base_values + found.values.sum(axis=1) + found.rest
        np.testing.assert_allclose(total, score, atol=1e-6)
    assert (whole.rest == 0).all()
    assert ((few.values != 0).sum(axis=1) <= 1).all()
    assert (whole.method, whole.space, whole.background) == ("tree_path_dependent", "value", None)
    assert whole.feature_names == ("a", "b", "c")
    table = stump.score(x, explain=True)
    first = table["attributions"][0].as_py()
    assert [each["feature"] for each in first] == ["a", "b", "c"]
    assert [each["attribution"] for each in first] == whole.values[0].tolist()
    assert [each["number"] for each in first] == x[0].astype(np.float32).tolist()


def test_every_output_at_once_and_one_of_them(tmp_path: Path) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    x = rows(300)
    settings = {"objective": "multiclass", "num_class": 3, "verbose": -1, "num_threads": 1}
    booster = lightgbm.train(settings, lightgbm.Dataset(x, np.arange(300) % 3), 3)
    penstock.package(booster, tmp_path / "m", classes=["low", "mid", "high"])
    model = load(tmp_path / "m", device="cpu")
    every, one = model.explain(x[:4], output="all"), model.explain(x[:4], output="mid")
    assert every.values.shape == (4, 3, 3)
    assert every.output_names.tolist() == ["low", "mid", "high"]
    assert every.of("mid").values.tobytes() == one.values.tobytes()
    assert every.of("mid").base_values.tobytes() == one.base_values.tobytes()
    assert every[1:3].values.shape == (2, 3, 3)
    assert every.to_frame().shape == (12, 6)
    assert model.explain(x[:0], output="all").values.shape == (0, 3, 3)
    with pytest.raises(ConfigError, match="no output maybe"):
        every.of("maybe")
    with pytest.raises(ConfigError, match="maybe"):
        model.explain(x, output="maybe")


def test_an_explanation_is_a_shap_explanation_too(stump: Model) -> None:
    shap = pytest.importorskip("shap")
    found = stump.explain(rows(6))
    other = found.to_shap()
    assert isinstance(other, shap.Explanation)
    assert other.values.tolist() == found.values.tolist()
    assert other.base_values.tolist() == found.base_values.tolist()
    assert other.feature_names == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"runtime": "ntive"}, "runtime is one of auto, onnxruntime, native, not 'ntive'"),
        ({"threads": 0}, "threads is a whole number from 1 to 64, not 0"),
        ({"threads": 10**9}, "threads is a whole number"),
        ({"threads": "2"}, "threads is a whole number from 1 to 64, not '2'"),
    ],
)
def test_a_wrong_wish_at_loading_is_one_sentence(tmp_path: Path, wrong: dict[str, Any], words: str) -> None:
    write_linear(tmp_path / "linear")
    with pytest.raises(ConfigError, match=re.escape(words)):
        load(tmp_path / "linear", **wrong)


@pytest.mark.parametrize(
    "wrong", [{"top": 1.5}, {"top": "2"}, {"top": True}, {"top": 0}, {"output": 0}, {"output": None}]
)
def test_a_wrong_wish_for_an_explanation_is_one_sentence(linear: Model, wrong: dict[str, Any]) -> None:
    for ask in (linear.explain, lambda rows, **more: linear.score(rows, explain=True, **more)):
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))} is "):
            ask(rows(), **wrong)


def test_many_threads_ask_at_once(linear: Model) -> None:
    x = rows(3000)
    expected = linear.predict(x).outputs["scores"].tobytes()
    found: list[bool] = []

    def ask() -> None:
        found.extend(linear.predict(x).outputs["scores"].tobytes() == expected for _ in range(5))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 20


def test_it_is_pickled_by_path_and_refuses_another_bundle(tmp_path: Path) -> None:
    write_linear(tmp_path / "m")
    model = load(tmp_path / "m", device="cpu", runtime="onnxruntime")
    data = pickle.dumps(model)
    assert len(data) < 1000
    again = pickle.loads(data)
    assert again.digest == model.digest
    assert (
        again.predict(rows()).outputs["scores"].tobytes() == model.predict(rows()).outputs["scores"].tobytes()
    )
    assert copy.copy(model).digest == model.digest
    write_linear(tmp_path / "m", seed=1)
    with pytest.raises(ConfigError, match="came from"):
        pickle.loads(data)


def test_a_closed_model_says_so(tmp_path: Path) -> None:
    write_linear(tmp_path / "m")
    with load(tmp_path / "m", device="cpu") as model:
        model.predict(rows())
    model.close()
    for ask in (model.predict, model.explain, model.score):
        with pytest.raises(ConfigError, match="closed"):
            ask(rows())
    assert "closed" in repr(model)


def test_reprs_are_short(linear: Model) -> None:
    for shown in (linear, linear.bundle, linear.predict(rows()), linear.explain(rows())):
        assert len(repr(shown)) < 300
    with pytest.raises(ConfigError, match="model bundle"):
        load("no/such/bundle")


mixed = Signature(
    features=(
        Feature(name="amount", field="payment.amount", kind="number", missing="reject"),
        Feature(name="country", kind="category", categories=("de", "fr", "7"), unseen="reject"),
        Feature(name="zone", kind="category", categories=("1", "2", "10"), missing=0),
        Feature(name="place", kind="vector", width=2, infinite="pass"),
    ),
    inputs=(ModelInput(name="x", dtype="float32", start=0, width=5),),
)
values: dict[str, list[Any]] = {
    "amount": [1.5, 2, True, None, float("nan"), "3", [1.0], {"x": 1}, 1e300, 2**60 + 1, float("inf")],
    "country": ["de", "7", "xx", "", None, 7, 1.5, True, ["de"]],
    "zone": ["1", 1, 2, 10, 11, None, "x", False],
    "place": [[1.0, 2.0], [1, 2], [1.0], [1.0, None], None, "x", [1.0, "y"], [float("inf"), 1.0]],
}


@pytest.mark.parametrize("seed", range(4))
def test_every_door_gives_a_value_the_same_outcome(seed: int) -> None:
    """Records as JSON (the stream), as dictionaries, as an object column and as a typed Arrow column."""
    import orjson

    from penstock.engine.codec.tables.frames import RowReader

    rng = np.random.default_rng(seed)
    reader = RowReader(mixed)
    for feature in ("amount", "country", "zone", "place"):
        for value in values[feature]:
            record = {
                name: value if name == feature else values[name][int(rng.integers(2))] for name in values
            }
            nested = {**record, "payment": {"amount": record["amount"]}}
            del nested["amount"]
            line = orjson.dumps(nested)
            plain = orjson.loads(line)  # JSON has no NaN and no infinity: they are null there
            stream = reader.decoded(*JsonRows(mixed).read([line]))
            doors = {"dictionaries": next(iter(reader.blocks([plain])))[1]}
            doors["pandas"] = next(
                iter(
                    reader.blocks(
                        pandas.DataFrame(
                            {
                                k: pandas.Series(
                                    [plain["payment"]["amount"] if k == "amount" else plain[k]], dtype=object
                                )
                                for k in values
                            }
                        )
                    )
                )
            )[1]
            try:
                table = pyarrow.Table.from_pylist([plain])
            except pyarrow.ArrowInvalid:
                table = None  # Arrow has no column of such values
            if table is not None:
                doors["arrow"] = next(iter(reader.blocks(table)))[1]
            for door, found in doors.items():
                words = f"{door}: {feature} = {value!r}"
                assert [each.reason for each in found.rejections] == [
                    each.reason for each in stream.rejections
                ], words
                assert [each.detail for each in found.rejections] == [
                    each.detail for each in stream.rejections
                ], words
                assert found.matrix.tobytes() == stream.matrix.tobytes(), words


def test_importing_penstock_loads_nothing_of_weight() -> None:
    code = (
        "import sys, penstock; heavy = {'numpy', 'pandas', 'pyarrow', 'onnxruntime', 'onnx', 'rich'} & set(sys.modules); "
        "assert not heavy, heavy; assert set(penstock.__all__) <= set(dir(penstock)); "
        "[getattr(penstock, name) for name in ('load', 'Model', 'Predictions')]; "
        "assert not {'pandas', 'pyarrow', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True, timeout=60)


def test_the_public_names_are_there_and_no_others() -> None:
    stub = Path(penstock.__file__).with_suffix(".pyi").read_text()
    typed = set(re.findall(r" import \w+ as (\w+)$", stub, flags=re.MULTILINE))
    assert typed == {name for name in penstock.__all__ if name != "__version__"}
    for name in penstock.__all__:
        assert getattr(penstock, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        penstock.lode  # type: ignore[attr-defined]  # noqa: B018


def test_the_report_of_a_package_is_short(tmp_path: Path) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    x = rows(200)
    booster = lightgbm.train(
        {"objective": "binary", "verbose": -1, "num_threads": 1}, lightgbm.Dataset(x, x[:, 0] > 0), 3
    )
    report = penstock.package(booster, tmp_path / "m", background=x[:20])
    assert len(repr(report)) < 400
    assert "<table>" in report._repr_html_()
    assert isinstance(report, penstock.PackageReport)
    shap = penstock.TreeShap.from_bundle(tmp_path / "m")
    values, _ = shap.shap_values(x[:5])
    model = penstock.load(tmp_path / "m")
    assert np.abs(model.explain(x[:5], output="1").values).tolist() == np.abs(values).tolist()


def test_a_table_with_every_outcome_joins_blocks(stump: Model) -> None:
    x = rows(40_000)
    x[17] = np.inf
    table = stump.score(x, explain=True, top=1)
    assert table.num_rows == len(x)
    assert table["outcome"].to_pylist().count("rejected") == 1
    assert {*table["method"].to_pylist()} == {"tree_path_dependent", None}
