"""What a bundle promises: the same bytes from the same parts, and nothing loaded that was not packaged."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from penstock.engine.models.bundle.arrays import from_npy, to_npy
from penstock.engine.models.bundle.bundle import Bundle, Golden
from penstock.engine.models.bundle.manifest import Labels
from penstock.engine.models.bundle.run_options import NativeProof, Runtime
from penstock.schemas.errors import ConfigError
from tests.bundles import constant, graph_bytes, linear_model, tensor, write_linear


def test_what_was_written_is_loaded(tmp_path: Path) -> None:
    written = write_linear(tmp_path / "bundle")
    loaded = Bundle.load(tmp_path / "bundle")
    assert loaded.digest == written.digest
    assert (loaded.name, loaded.version, loaded.classes) == ("linear", "1", ("no", "yes"))
    assert loaded.model == linear_model()
    assert loaded.signature.columns == ("a", "b", "c")
    assert loaded.background is not None
    np.testing.assert_array_equal(loaded.background, loaded.golden.rows[:4])
    assert loaded.input_schema == {"type": "record", "name": "R", "fields": []}


def test_the_same_parts_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_linear(tmp_path / name)
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two")
    )
    assert one == two


def test_the_manifest_is_canonical(tmp_path: Path) -> None:
    write_linear(tmp_path / "bundle")
    text = (tmp_path / "bundle" / "manifest.json").read_bytes()
    options = orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    assert orjson.dumps(orjson.loads(text), option=options) == text


def test_another_model_has_another_digest(tmp_path: Path) -> None:
    assert write_linear(tmp_path / "one").digest != write_linear(tmp_path / "two", seed=1).digest


def test_a_bundle_is_replaced_in_one_step_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    old = write_linear(tmp_path / "bundle")
    new = write_linear(tmp_path / "bundle", seed=1)
    assert Bundle.load(tmp_path / "bundle").digest == new.digest != old.digest
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_something_that_is_not_a_bundle_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not a model bundle"):
        write_linear(tmp_path / "bundle")
    assert (tmp_path / "bundle" / "notes.txt").read_text() == "mine"


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    write_linear(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _folder(tmp_path: Path, files: dict[str, bytes]) -> Path:
    folder = tmp_path / "copy"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@given(data=st.data())
def test_no_changed_or_cut_byte_goes_unnoticed(
    data: st.DataObject, packaged: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    name = data.draw(st.sampled_from(sorted(packaged)))
    whole = packaged[name]
    place = data.draw(st.integers(0, len(whole) - 1))
    mask = data.draw(st.integers(0, 255))
    changed = whole[:place] if mask == 0 else bytearray(whole)
    if isinstance(changed, bytearray):
        changed[place] ^= mask
    folder = _folder(tmp_path_factory.mktemp("cut"), {**packaged, name: bytes(changed)})
    try:
        loaded = Bundle.load(folder)
    except ConfigError:
        return
    # Only the manifest is not under a digest of its own; what it says is then what the digest speaks of.
    assert name == "manifest.json"
    assert loaded.digest != Bundle.load(_folder(tmp_path_factory.mktemp("whole"), packaged)).digest


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json", "golden_rows.npy"])
def test_a_folder_in_place_of_a_file_is_one_sentence(
    tmp_path: Path, name: str, packaged: dict[str, bytes]
) -> None:
    folder = _folder(tmp_path, packaged)
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(ConfigError, match=f"{name} is a link or not a file"):
        Bundle.load(folder)


def test_the_way_to_a_bundle_may_be_a_link(tmp_path: Path) -> None:
    written = write_linear(tmp_path / "bundle")
    (tmp_path / "current").symlink_to("bundle")
    assert Bundle.load(tmp_path / "current").digest == written.digest


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_links_inside_are_refused(tmp_path: Path, name: str, packaged: dict[str, bytes]) -> None:
    for link in (os.symlink, os.link):
        base = tmp_path / link.__name__
        base.mkdir()
        folder = _folder(base, packaged)
        (folder / name).rename(base / "elsewhere")
        link(base / "elsewhere", folder / name)
        with pytest.raises(ConfigError, match="link"):
            Bundle.load(folder)


def test_a_pipe_in_place_of_a_file_is_refused_and_does_not_hang(
    tmp_path: Path, packaged: dict[str, bytes]
) -> None:
    folder = _folder(tmp_path, packaged)
    (folder / "model.onnx").unlink()
    os.mkfifo(folder / "model.onnx")
    with pytest.raises(ConfigError, match="not a file"):
        Bundle.load(folder)


def test_a_folder_that_holds_no_model_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "fraud").mkdir()  # the folder above a bundle
    with pytest.raises(ConfigError, match=r"holds no model; name the folder that penstock package wrote"):
        Bundle.load(tmp_path)


def test_extra_missing_and_oversized_files_are_refused(tmp_path: Path, packaged: dict[str, bytes]) -> None:
    folder = _folder(tmp_path, packaged)
    (folder / "weights.bin").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"weights\.bin does not belong there"):
        Bundle.load(folder)
    (folder / "weights.bin").unlink()
    with (folder / "model.onnx").open("wb") as file:
        file.truncate((1 << 30) + 1)
    with pytest.raises(ConfigError, match="more than"):
        Bundle.load(folder)
    (folder / "model.onnx").unlink()
    with pytest.raises(ConfigError, match=r"model\.onnx is missing"):
        Bundle.load(folder)
    with pytest.raises(ConfigError, match="cannot open the folder"):
        Bundle.load(tmp_path / "nowhere")


def _with_manifest(packaged: dict[str, bytes], **changes: Any) -> dict[str, bytes]:
    manifest = {**orjson.loads(packaged["manifest.json"]), **changes}
    return {**packaged, "manifest.json": orjson.dumps(manifest)}


def _runtime(**changes: Any) -> dict[str, Any]:
    return {**Runtime().to_json(), **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 1}, "format"),
        ({"more": 1}, "more"),
        ({"name": "a\nb"}, "printable"),
        ({"outputs": []}, "no output"),
        ({"outputs": [{"name": "scores", "width": 3, "meaning": "probability"}]}, "do not fit"),
        ({"labels": {"classes": ["a", "a"], "output": "scores", "values": None}}, "twice"),
        ({"labels": {"classes": ["a", "b"], "output": "l", "values": [1, "x"]}}, "wrong type"),
        ({"labels": None}, "golden_labels"),
        ({"explain": {"trees": 1, "covers": False}}, "explain"),
        ({"signature": {"features": [], "inputs": [], "cuts": []}}, "features"),
        ({"signature": {"features": [], "inputs": []}}, "no list of cuts"),
        ({"signature": {"features": [{"name": "a"}], "inputs": []}}, "a feature is"),
        ({"files": {}}, "folder only"),
        ({"runtime": {}}, "member runtime"),
        ({"runtime": _runtime(optimization="most")}, "member runtime"),
        ({"runtime": _runtime(difference_max=-1.0)}, "not a number"),
        ({"runtime": _runtime(native={"equal": True})}, "runtime.native"),
        ({"runtime": _runtime(native={**asdict(NativeProof()), "equal": True})}, "runtime.native"),
        ({"runtime": _runtime(native={**asdict(NativeProof()), "rows": 1.5})}, "not a number"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    tmp_path: Path, packaged: dict[str, bytes], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Bundle.load(_folder(tmp_path, _with_manifest(packaged, **changes)))


def _external() -> onnx.TensorProto:
    held = constant("w", np.zeros((3, 2), dtype=np.float32))
    held.ClearField("raw_data")
    held.data_location = TensorProto.EXTERNAL
    held.external_data.add(key="location", value="../../etc/passwd")
    return held


def _inside_branches(node: onnx.NodeProto) -> bytes:
    """The node two graphs deep."""
    for depth in range(2):
        branch = helper.make_graph([node], f"branch{depth}", [], [tensor("scores", ["N", 2])])
        node = helper.make_node("If", ["flag"], ["scores"], then_branch=branch, else_branch=branch)
    flag = constant("flag", np.array(True))
    return graph_bytes([node], [tensor("x", ["N", 3])], [tensor("scores", ["N", 2])], [flag])


_input, _output = [tensor("x", ["N", 3])], [tensor("scores", ["N", 2])]
hostile = {
    "weights in another file": (
        graph_bytes([helper.make_node("MatMul", ["x", "w"], ["scores"])], _input, _output, [_external()]),
        "another file",
    ),
    "weights of a constant in another file": (
        graph_bytes(
            [
                helper.make_node("Constant", [], ["w"], value=_external()),
                helper.make_node("MatMul", ["x", "w"], ["scores"]),
            ],
            _input,
            _output,
        ),
        "another file",
    ),
    "code of its author": (
        graph_bytes(
            [helper.make_node("Run", ["x"], ["scores"], domain="evil")], _input, _output, domains=["evil"]
        ),
        "domain evil",
    ),
    "code of its author, hidden": (
        _inside_branches(helper.make_node("Run", ["x"], ["scores"], domain="evil")),
        "domain evil",
    ),
    "a compiled program": (
        graph_bytes(
            [helper.make_node("EPContext", ["x"], ["scores"], domain="com.microsoft")],
            _input,
            _output,
            domains=["com.microsoft"],
        ),
        "EPContext",
    ),
    "no graph": (b"", "no graph"),
    "no ONNX": (b"\xff" * 64, "not an ONNX file"),
}


@pytest.mark.parametrize("kind", hostile)
def test_a_model_that_reaches_outside_itself_is_refused(tmp_path: Path, kind: str) -> None:
    model, message = hostile[kind]
    with pytest.raises(ConfigError, match=message):
        write_linear(tmp_path / "bundle", model=model)
    assert not (tmp_path / "bundle").exists()


def test_golden_rows_must_fit_the_signature(tmp_path: Path) -> None:
    rows = np.zeros((2, 4), dtype=np.float32)
    golden = Golden(rows=rows, outputs={"scores": np.zeros((2, 2))}, labels=np.zeros(2, dtype=np.int64))
    with pytest.raises(ConfigError, match="golden_rows"):
        write_linear(tmp_path / "bundle", golden=golden)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_arrays_come_back_as_they_were(dtype: type[np.generic]) -> None:
    array: NDArray[np.generic] = np.arange(6).reshape(2, 3).T.astype(dtype)
    back = from_npy(to_npy(array), name="x")
    np.testing.assert_array_equal(back, array)
    assert back.dtype == dtype


def _npy(header: str, body: bytes) -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04",
        _npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4000000000, 1000000), }", bytes(16)),
        _npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -4), }", bytes(16)),
        _npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"cos\nsystem\n(S'true'\ntR."),
        _npy("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2), }", bytes(16)),
        _npy("__import__('os').system('true')", bytes(16)),
        _npy("-" * 3000 + "1", bytes(16)),
        _npy("(" * 3000, bytes(16)),
        _npy("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 400 + ",), }", bytes(16)),
        _npy("{'descr': '<f4', 'fortran_order': False, 'shape': " + "-" * 3000 + "1, }", bytes(16)),
    ],
)
def test_npy_bytes_that_are_no_plain_array_are_refused(data: bytes) -> None:
    with pytest.raises(ConfigError):
        from_npy(data, name="x")


def test_labels_may_be_read_from_an_output_of_the_graph(tmp_path: Path) -> None:
    written = write_linear(tmp_path / "bundle")
    labels = Labels(classes=("no", "yes"), output="label", values=(7, 9))
    changed = type(written.manifest)(
        **{
            **{name: getattr(written.manifest, name) for name in written.manifest.__slots__},
            "labels": labels,
        }
    )
    assert write_linear(tmp_path / "other", manifest=changed).labels == labels
