"""Tree SHAP on an NVIDIA GPU by one fused kernel: tests, look-ups and sums without anything in between."""

from collections.abc import Sequence
from contextlib import ExitStack
from ctypes import c_int
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from penstock.engine.explain.tree.fused_layout import block_rows, fused_layout
from penstock.engine.explain.tree.leaf_tables import LeafTables, table_bytes_max
from penstock.engine.gpu.compiler import compiled
from penstock.engine.gpu.device import Device, driver_names
from penstock.engine.gpu.driver import Driver, Gpu
from penstock.schemas.errors import ConfigError

buffer_bytes_max = 256 << 20
"""Each of a run's rows, their sums by part, and their values."""
_source = "tree_shap.cu"
_join_columns = 8
_parts_max = 65535  # what a grid may have in its second dimension


@dataclass(frozen=True, kw_only=True, slots=True)
class CudaLibraries:
    """Where to look for the driver and the compiler; None: where they usually are."""

    driver: Sequence[str] = driver_names
    compiler: Sequence[str] | None = None


class FusedShap:
    """SHAP values of a tree ensemble by a kernel of our own on one GPU; what TreeExplainer asks of TreeShap.

    In float32, each row to the same bits whatever else is in its batch. One thread at a time.
    """

    def __init__(
        self,
        tables: LeafTables,
        *,
        device: Device,
        rows_max: int = 4096,
        libraries: CudaLibraries | None = None,
    ) -> None:
        """Compiles the kernel and puts the tables on the GPU. A batch of more than `rows_max` rows is run in pieces.

        Raises ConfigError: no GPU, no driver, no compiler, or not enough memory; InvariantError: the GPU has failed.
        """
        if device.cuda is None:
            raise ConfigError("the fused kernel needs an NVIDIA GPU")
        libraries = libraries or CudaLibraries()
        self.forest = tables.forest
        self.method, self.base = tables.method, tables.base
        self.background_digest = tables.background_digest
        self._width = (self.forest.features + 1) * self.forest.outputs
        layout = fused_layout(tables)
        self._parts, self._shared_bytes = len(layout.parts) - 1, layout.shared_bytes
        if layout.tables.nbytes > table_bytes_max or self._parts > _parts_max:
            raise ConfigError(
                f"the fused kernel needs {layout.tables.nbytes >> 20} MiB for tables of these trees"
            )
        columns = len(layout.found)
        block_bytes = max(columns, self.forest.features, self._width) * block_rows * 4
        blocks = max(1, min(-(-rows_max // block_rows), buffer_bytes_max // block_bytes))
        self._rows_max = blocks * block_rows
        source = files("penstock.engine.native").joinpath("cuda", _source).read_bytes()
        gpu = self._gpu = Gpu(device.cuda, driver=Driver(libraries.driver))
        with ExitStack() as undo:
            undo.callback(gpu.close)
            macros = {"ROWS": block_rows}
            image, _ = compiled(
                source, name=_source, capability=gpu.capability, macros=macros, names=libraries.compiler
            )
            with gpu.current():
                self._add_parts, self._join_parts = gpu.load(image, "add_parts", "join_parts")
                self._arrays = {name: gpu.put(array) for name, array in layout.arrays.items()}
                self._rows = gpu.allocate(self._rows_max * self.forest.features * 4)
                self._partial = gpu.allocate(columns * self._rows_max * 4)
                self._values = gpu.allocate(self._rows_max * self._width * 4)
                self._sent = gpu.page_locked((self._rows_max, self.forest.features))
                self._fetched = gpu.page_locked((self._rows_max, self._width))
            undo.pop_all()

    def contributions(self, rows: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Values (n, features, outputs), and the raw scores (n, outputs) that they must add up to.

        Raises InvariantError when the GPU has failed.
        """
        found = np.empty((len(rows), self._width))
        with self._gpu.current():
            for start in range(0, len(rows), self._rows_max):
                part = rows[start : start + self._rows_max]
                found[start : start + len(part)] = self._run(part)
        shaped = found.reshape(len(rows), self.forest.features + 1, self.forest.outputs)
        return shaped[:, :-1], shaped[:, -1] + self.forest.base_values

    def close(self) -> None:
        """Give back the GPU's memory; otherwise that is done when nobody knows this any more."""
        self._gpu.close()

    def _run(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        gpu, count, blocks = self._gpu, len(rows), -(-len(rows) // block_rows)
        features, stride, width = map(c_int, (self.forest.features, blocks * block_rows, self._width))
        self._sent[:count] = rows
        gpu.send(self._rows, self._sent[:count])
        tables = (self._arrays[name] for name in _of_add_parts)
        gpu.launch(
            self._add_parts, self._rows, features, stride, *tables, self._partial,
            grid=(blocks, self._parts), block=(block_rows, 1), shared_bytes=self._shared_bytes,
        )  # fmt: skip
        gpu.launch(
            self._join_parts, self._partial, stride, width, self._arrays["firsts"], self._arrays["found"], self._values,
            grid=(-(-self._width // _join_columns), blocks * block_rows // 32), block=(32, _join_columns),
        )  # fmt: skip
        gpu.fetch(self._fetched[:count], self._values)
        gpu.finish()
        return self._fetched[:count]


_of_add_parts = ("parts", "groups", "sources", "thresholds", "asked", "places", "tables")
