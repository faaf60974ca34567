"""Leaf tables laid out for the fused kernel: see engine/native/cuda/tree_shap.cu, which reads these arrays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from penstock.engine.explain.tree.leaf_tables import GroupTable, LeafTables
from penstock.engine.trees.forest import Forest

block_rows = 64
"""Rows of a block of threads. Two warps: few enough for small batches to spread over the GPU."""
shared_bytes_max = 48 << 10
"""What every GPU gives a block without being asked for more."""
_part_groups_min = 32
_parts_max = 128  # bounds what is written for a row between the two kernels
_columns_at_once = 96
_missing_yes = 1 << 30
_quad_line = 8  # quads of 16 bytes in a cache line


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FusedLayout:
    """The kernel's arrays, C-contiguous, under the names that it gives them. P parts with C columns in all.

    Every number in them that says where something is stays inside the array, or the part's shared memory, that it means.
    """

    parts: NDArray[np.int32]  # (P + 1, 4)
    groups: NDArray[np.int32]  # (G, 4)
    sources: NDArray[np.int32]
    thresholds: NDArray[np.float32]  # (packs, 4)
    asked: NDArray[np.uint16]  # (packs, 4)
    places: NDArray[np.uint16]  # (quads, 4)
    tables: NDArray[np.float32]  # (quads, 4)
    firsts: NDArray[np.int32]  # (width + 1,)
    found: NDArray[np.int32]  # (C,)
    shared_bytes: int
    """What the largest part needs."""

    @property
    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Those that go to the GPU, by name."""
        return {
            field.name: getattr(self, field.name) for field in fields(self) if field.name != "shared_bytes"
        }


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Piece:
    """A group, with as many of its columns as a part has room for."""

    tests: tuple[tuple[int, float], ...]  # source, threshold
    columns: NDArray[np.int64]  # of all (F + 1) K
    rows: NDArray[np.float32]  # (2^b, columns)


class _Part:
    """Pieces that one block adds up, and what of it they use."""

    def __init__(self) -> None:
        self.pieces: list[_Piece] = []
        self.sources: set[int] = set()
        self.columns: set[int] = set()

    def takes(self, piece: _Piece, groups_max: int) -> bool:
        sources = self.sources.union(source for source, _ in piece.tests)
        columns = self.columns.union(piece.columns.tolist())
        return len(self.pieces) < groups_max and _shared_bytes(len(sources), len(columns)) <= shared_bytes_max

    def add(self, piece: _Piece) -> None:
        self.pieces.append(piece)
        self.sources.update(source for source, _ in piece.tests)
        self.columns.update(piece.columns.tolist())


def fused_layout(tables: LeafTables) -> FusedLayout:
    """The arrays of the fused kernel, for a forest of any width."""
    forest = tables.forest
    parts = _parts([piece for table in tables.tables for piece in _pieces(table, forest)])
    writer = _Writer()
    for part in parts:
        writer.write(part)
    owner = np.concatenate([np.array(sorted(part.columns), dtype=np.int64) for part in parts])
    width = (forest.features + 1) * forest.outputs
    return FusedLayout(
        parts=np.array([*writer.parts, writer.here()], dtype=np.int32),
        groups=np.array(writer.groups, dtype=np.int32).reshape(-1, 4),
        sources=np.array(writer.sources, dtype=np.int32),
        thresholds=np.array(writer.thresholds, dtype=np.float32).reshape(-1, 4),
        asked=np.array(writer.asked, dtype=np.uint16).reshape(-1, 4),
        places=np.array([*writer.places, *(0,) * 4], dtype=np.uint16).reshape(-1, 4),
        tables=np.concatenate([*writer.tables, np.zeros((1, 4), dtype=np.float32)]),
        firsts=np.searchsorted(np.sort(owner), np.arange(width + 1)).astype(np.int32),
        found=np.argsort(owner, kind="stable").astype(np.int32),
        shared_bytes=max(_shared_bytes(len(part.sources), len(part.columns)) for part in parts),
    )


def _shared_bytes(sources: int, columns: int) -> int:
    return ((block_rows + 1) * sources + block_rows * (columns + 1)) * 4


def _pieces(table: GroupTable, forest: Forest) -> Iterator[_Piece]:
    """A group's columns that are ever other than 0: trees of several outputs often have leaves of one only."""
    outputs = np.arange(forest.outputs)
    features = np.append(table.features, forest.features)
    columns = (features[:, None] * forest.outputs + outputs).reshape(-1)
    rows = table.values.reshape(len(table.values), -1)
    used = np.flatnonzero(rows.any(axis=0))
    tests = tuple(
        (
            int(forest.feature[node]) | (_missing_yes if forest.missing_yes[node] else 0),
            float(forest.threshold[node]),
        )
        for node in table.group.nodes
    )
    for start in range(0, len(used), _columns_at_once):
        some = used[start : start + _columns_at_once]
        yield _Piece(tests=tests, columns=columns[some], rows=rows[:, some])


def _parts(pieces: Sequence[_Piece]) -> list[_Part]:
    groups_max = max(_part_groups_min, -(-len(pieces) // _parts_max))
    parts = [_Part()]
    for piece in pieces:
        if not parts[-1].takes(piece, groups_max):
            parts.append(_Part())
        parts[-1].add(piece)
    for part in parts:
        part.sources |= {0} if not part.sources else set()  # a test that is not there asks too
    return parts


class _Writer:
    """Puts part after part at the ends of the arrays."""

    def __init__(self) -> None:
        self.parts: list[tuple[int, int, int, int]] = []
        self.groups: list[tuple[int, int, int, int]] = []
        self.sources: list[int] = []
        self.thresholds: list[float] = []
        self.asked: list[int] = []
        self.places: list[int] = []
        self.tables: list[NDArray[np.float32]] = []
        self._quads = 0
        self._columns = 0

    def here(self) -> tuple[int, int, int, int]:
        """Where the next part begins: first group, first input, first column."""
        return len(self.groups), len(self.sources), self._columns, 0

    def write(self, part: _Part) -> None:
        self.parts.append(self.here())
        # By feature, so that a warp reads neighbours of a row.
        sources = sorted(part.sources, key=lambda source: (source & ~_missing_yes, source))
        columns = np.array(sorted(part.columns), dtype=np.int64)
        place_of = {source: place * (block_rows + 1) for place, source in enumerate(sources)}
        for piece in part.pieces:
            self._write_piece(piece, place_of, columns)
        self.sources += sources
        self._columns += len(columns)

    def _write_piece(self, piece: _Piece, place_of: dict[int, int], columns: NDArray[np.int64]) -> None:
        missing = -len(piece.tests) % 4 if piece.tests else 4
        packs, quads = (len(piece.tests) + missing) // 4, -(-len(piece.columns) // 4)
        self.groups.append(
            (len(self.thresholds) // 4, len(self.places) // 4, quads | packs << 16, self._quads)
        )
        self.thresholds += [*(threshold for _, threshold in piece.tests), *(float("nan"),) * missing]
        self.asked += [*(place_of[source] for source, _ in piece.tests), *(0,) * missing]
        spare = len(columns) * block_rows
        places = (np.searchsorted(columns, piece.columns) * block_rows).tolist()
        self.places += [*places, *(spare,) * (4 * quads - len(places))]
        rows = len(piece.rows) * quads
        filled = np.zeros((-(-rows // _quad_line) * _quad_line, 4), dtype=np.float32)
        filled[:rows].reshape(len(piece.rows), -1)[:, : len(places)] = piece.rows
        self.tables.append(filled)
        self._quads += len(filled)
