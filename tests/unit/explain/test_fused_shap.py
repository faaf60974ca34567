"""The fused kernel against the oracle: its source compiled for the CPU behind a driver that is none, and on a GPU where there is one."""

import gc
import importlib.util
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from penstock.engine.explain.tree import reference as oracle
from penstock.engine.explain.tree.fused_layout import block_rows, fused_layout, shared_bytes_max
from penstock.engine.explain.tree.fused_shap import CudaLibraries, FusedShap
from penstock.engine.explain.tree.leaf_tables import LeafTables
from penstock.engine.gpu.compiler import compiled, compiler_names
from penstock.engine.gpu.device import Device, cuda_devices
from penstock.engine.trees.forest import Forest
from penstock.schemas.errors import ConfigError, InvariantError
from tests.fake_cuda import FakeCuda
from tests.forests import random_forest, random_rows

Rows = NDArray[np.float32]
MakeShap = Callable[..., FusedShap]
gpu = Device(cuda=0)


@pytest.fixture(
    params=[
        "cpu",
        pytest.param(
            "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not cuda_devices(), reason="no GPU here")]
        ),
    ]
)
def fused(request: pytest.FixtureRequest) -> MakeShap:
    """Makes a FusedShap of a forest, on the GPU that is none or on a real one."""
    if request.param == "cuda":
        libraries = CudaLibraries()
    else:
        libraries = request.getfixturevalue("cuda").libraries

    def make(forest: Forest, background: Rows | None = None, *, rows_max: int = 4096) -> FusedShap:
        return FusedShap(
            LeafTables.of(forest, background), device=gpu, libraries=libraries, rows_max=rows_max
        )

    return make


def check(found: FusedShap, X: Rows, background: Rows | None = None) -> None:
    forest = found.forest
    expected, base = (
        oracle.path_dependent(forest, X)
        if background is None
        else oracle.interventional(forest, X, background)
    )
    values, raw = found.contributions(X)
    scale = max(1.0, np.abs(expected).max(initial=0.0))
    np.testing.assert_allclose(values, expected, atol=1e-6 * scale)
    np.testing.assert_allclose(found.base, base, atol=1e-12)
    np.testing.assert_allclose(raw, forest.raw_scores(X), atol=2e-6 * scale)
    np.testing.assert_allclose(found.base + values.sum(axis=1), raw, atol=5e-6 * scale)


def numbered(forest: Forest, *, features: int, outputs: int) -> Forest:
    """The forest in a wider row, each tree with leaves of one output only."""
    moved = np.where(forest.feature < 0, -1, forest.feature * features // forest.features)
    tree, at_leaf = forest.tree_of_node(), forest.leaf >= 0
    values = np.zeros((len(forest.leaf_values), outputs))
    values[forest.leaf[at_leaf], tree[at_leaf] % outputs] = forest.leaf_values[forest.leaf[at_leaf], 0]
    return replace(
        forest,
        features=features,
        outputs=outputs,
        feature=moved.astype(np.int32),
        leaf_values=values,
        base_values=np.zeros(outputs),
    )


@pytest.mark.parametrize("seed", range(7))
@pytest.mark.parametrize("with_background", [False, True])
def test_the_kernel_says_what_the_oracle_says(fused: MakeShap, seed: int, with_background: bool) -> None:
    forest = random_forest(
        seed, trees=1 + 4 * seed, depth=2 + seed, features=3 + seed, outputs=1 + seed % 3, sets=0
    )
    X = random_rows(seed, 40, features=forest.features)
    asked = np.flatnonzero(forest.leaf < 0)[:20]
    X[np.arange(len(asked)), forest.feature[asked]] = forest.threshold[asked]  # exactly
    background = random_rows(seed + 50, 12, features=forest.features) if with_background else None
    check(fused(forest, background), X, background)


def test_thresholds_without_end_and_missing_values(fused: MakeShap) -> None:
    forest = random_forest(11, trees=6, depth=4, features=4, sets=0)
    threshold = np.where(np.arange(forest.nodes) % 3 == 0, np.inf, forest.threshold)
    threshold = np.where(np.arange(forest.nodes) % 3 == 1, -np.inf, threshold)
    forest = replace(forest, threshold=np.where(forest.leaf < 0, threshold, 0).astype(np.float32))
    X = np.array(np.meshgrid(*[[np.nan, -np.inf, 0.0, np.inf]] * 4), dtype=np.float32).reshape(4, -1).T.copy()
    check(fused(forest), X)


def test_a_row_gets_the_same_bits_in_every_batch(fused: MakeShap) -> None:
    forest = random_forest(5, trees=40, depth=5, features=5, outputs=2, sets=0)
    X = random_rows(1, 3 * block_rows + 7, features=5)
    shap = fused(forest)
    values, raw = shap.contributions(X)
    for size in (1, 31, block_rows - 1, block_rows, block_rows + 1, len(X) - 1):
        some, scores = shap.contributions(X[-size:])
        assert some.tobytes() == values[-size:].tobytes()
        assert scores.tobytes() == raw[-size:].tobytes()
    pieces = fused(forest, rows_max=1)
    assert pieces.contributions(X)[0].tobytes() == values.tobytes()
    assert shap.contributions(X[:0])[0].shape == (0, 5, 2)
    assert shap.contributions(np.asfortranarray(X[::2]))[0].tobytes() == values[::2].tobytes()


def test_it_does_not_matter_in_which_order_threads_run(cuda: FakeCuda) -> None:
    forest = random_forest(6, trees=20, depth=5, features=7, outputs=2, sets=0)
    X = random_rows(2, 2 * block_rows + 3, features=7)
    shap = FusedShap(LeafTables.of(forest), device=gpu, libraries=cuda.libraries)
    forward = shap.contributions(X)[0]
    cuda.turn_backward()
    assert shap.contributions(X)[0].tobytes() == forward.tobytes()


def test_trees_that_are_one_leaf_and_trees_that_say_nothing(fused: MakeShap) -> None:
    X = random_rows(1, 5, features=2)
    check(fused(random_forest(4, trees=3, depth=0, features=2, sets=0)), X)
    check(fused(random_forest(13, trees=12, depth=1, features=2, sets=0)), X)
    silent = random_forest(13, trees=3, depth=2, features=2, sets=0)
    check(fused(replace(silent, leaf_values=np.zeros_like(silent.leaf_values))), X)


def test_rows_wider_than_a_block_has_room_for(fused: MakeShap) -> None:
    narrow = random_forest(8, trees=30, depth=4, features=400, sets=0)
    layout = fused_layout(LeafTables.of(narrow))
    assert len(layout.parts) > 3
    assert layout.shared_bytes <= shared_bytes_max
    check(fused(narrow), random_rows(3, 70, features=400))
    outputs = random_forest(
        9, trees=3, depth=4, features=9, outputs=45, sets=0
    )  # a group has more columns than fit
    check(fused(outputs), random_rows(4, 10, features=9))


def test_outputs_that_a_tree_does_not_have_take_no_room(fused: MakeShap) -> None:
    forest = numbered(random_forest(10, trees=24, depth=4, features=6, sets=0), features=60, outputs=12)
    dense = sum(table.values.size for table in LeafTables.of(forest).tables)
    assert fused_layout(LeafTables.of(forest)).tables.size < dense / 3
    check(fused(forest), random_rows(5, 20, features=60))


def test_any_thread_may_ask_and_all_is_given_back(cuda: FakeCuda) -> None:
    tables = LeafTables.of(random_forest(3, trees=6, depth=4, features=5, sets=0))
    X = random_rows(1, 30, features=5)
    shap = FusedShap(tables, device=gpu, libraries=cuda.libraries)
    here = shap.contributions(X)[0]
    with ThreadPoolExecutor(1) as other:
        assert other.submit(lambda: shap.contributions(X)[0].tobytes()).result() == here.tobytes()
    assert cuda.held > 0
    shap.close()
    shap.close()
    assert cuda.held == 0
    with pytest.raises(InvariantError, match="closed"):
        shap.contributions(X)
    forgotten = FusedShap(tables, device=gpu, libraries=cuda.libraries)
    assert cuda.held > 0
    del forgotten
    gc.collect()
    assert cuda.held == 0


@pytest.mark.parametrize(
    ("function", "status"),
    [("cuMemcpyHtoDAsync_v2", 700), ("cuLaunchKernel", 719), ("cuMemcpyDtoHAsync_v2", 700), ("cuStreamSynchronize", 700)],
)  # fmt: skip
def test_a_gpu_that_fails_under_way_is_no_fault_of_the_rows(
    cuda: FakeCuda, function: str, status: int
) -> None:
    tables = LeafTables.of(random_forest(3, trees=6, depth=4, features=5, sets=0))
    shap = FusedShap(tables, device=gpu, libraries=cuda.libraries)
    cuda.fail(function, status)
    with pytest.raises(InvariantError, match=rf"^cuda:0 has failed: {function}: .*CUDA error {status}"):
        shap.contributions(random_rows(1, 30, features=5))


@pytest.mark.parametrize(
    ("function", "after"),
    [
        ("cuInit", 0), ("cuDeviceGet", 0), ("cuDeviceGetName", 0), ("cuDeviceGetAttribute", 0),
        ("cuDeviceGetAttribute", 1), ("cuDevicePrimaryCtxRetain", 0), ("cuStreamCreate", 0), ("nvrtcCreateProgram", 0),
        ("nvrtcCompileProgram", 0), ("cuModuleLoadData", 0), ("cuModuleGetFunction", 0), ("cuModuleGetFunction", 1),
        ("cuMemAlloc_v2", 0), ("cuMemAlloc_v2", 11), ("cuMemcpyHtoDAsync_v2", 3), ("cuMemHostAlloc", 0),
        ("cuMemHostAlloc", 1),
    ],
)  # fmt: skip
def test_what_cannot_be_set_up_is_said_and_given_back(cuda: FakeCuda, function: str, after: int) -> None:
    tables = LeafTables.of(random_forest(3, trees=6, depth=4, features=5, sets=0))
    cuda.fail(function, 2, after=after)
    with pytest.raises(ConfigError, match=rf"^{function}: |^NVRTC does not compile"):
        FusedShap(tables, device=gpu, libraries=cuda.libraries)
    gc.collect()
    assert cuda.held == 0
    assert cuda.calls("programs") == 0


def test_memory_that_is_not_there_and_libraries_that_are_not_there(cuda: FakeCuda) -> None:
    tables = LeafTables.of(random_forest(3, trees=6, depth=4, features=5, sets=0))
    cuda.has_memory(100_000)
    with pytest.raises(ConfigError, match="out of memory"):
        FusedShap(tables, device=gpu, libraries=cuda.libraries)
    assert cuda.held == 0
    with pytest.raises(ConfigError, match="needs an NVIDIA GPU"):
        FusedShap(tables, device=Device())
    with pytest.raises(ConfigError, match="cuDeviceGet"):
        FusedShap(tables, device=Device(cuda=7), libraries=cuda.libraries)
    nowhere = ("libnowhere.so",)
    with pytest.raises(ConfigError, match="no NVIDIA driver"):
        FusedShap(tables, device=gpu, libraries=replace(cuda.libraries, driver=nowhere))
    with pytest.raises(ConfigError, match="no CUDA compiler"):
        FusedShap(tables, device=gpu, libraries=replace(cuda.libraries, compiler=nowhere))
    with pytest.raises(ConfigError, match="driver is too old"):
        FusedShap(tables, device=gpu, libraries=replace(cuda.libraries, driver=("libc.so.6",)))
    assert cuda.held == 0


def test_tables_have_a_bound(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = LeafTables.of(random_forest(3, trees=6, depth=4, features=5, sets=0))
    monkeypatch.setattr("penstock.engine.explain.tree.fused_shap.table_bytes_max", 1000)
    with pytest.raises(ConfigError, match="MiB for tables"):
        FusedShap(tables, device=gpu, libraries=cuda.libraries)
    assert cuda.held == 0


@pytest.mark.parametrize("capability", [(8, 0), (9, 0)])
def test_nvidias_compiler_takes_the_kernel(capability: tuple[int, int]) -> None:
    source = files("penstock.engine.native").joinpath("cuda", "tree_shap.cu").read_bytes()

    def compile_(source: bytes) -> tuple[bytes, str]:
        return compiled(
            source, name="tree_shap.cu", capability=capability, macros={"ROWS": block_rows},
            options=["--ptxas-options=-v"],
        )  # fmt: skip

    try:
        image, said = compile_(source)
    except ConfigError as error:
        if "no CUDA compiler" not in str(error):
            raise
        pytest.skip(f"{error}; looked for {', '.join(compiler_names())}")
    assert image.startswith(b"\x7fELF")
    assert "warning" not in said
    assert said.count("0 bytes spill stores, 0 bytes spill loads") == 2
    with pytest.raises(ConfigError, match=r"tree_shap.cu for sm_\d\d: tree_shap.cu\(1\): error"):
        compile_(b"no such thing;")


def test_a_compiler_that_refuses_is_quoted_in_a_line(cuda: FakeCuda) -> None:
    with pytest.raises(
        ConfigError, match=r"kernel.cu for sm_89: nvrtc: error: invalid value for --gpu-architecture$"
    ):
        compiled(b"", name="kernel.cu", capability=(8, 9), macros={"ROWS": 64}, names=cuda.libraries.compiler)
    assert cuda.calls("programs") == 0


def test_the_bench_for_a_bare_machine_runs(cuda: FakeCuda, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parents[3] / "benchmarks" / "gpu" / "fused_shap.py"
    spec = importlib.util.spec_from_file_location("fused_shap_bench", path)
    assert spec is not None
    assert spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    bench.main(["--models", "3x2,2x3", "--batches", "1,9", "--calls", "2"], cuda.libraries)
    said = capsys.readouterr().out
    assert said.startswith("fake GPU\n3x2: tables ")
    assert said.count("rows/s") == 4
    errors = [float(error) for error in re.findall(r"largest value (\S+)", said)]
    assert len(errors) == 2
    assert max(errors) < 1e-6
    assert cuda.held == 0
