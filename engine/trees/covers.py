"""Covers: how much of the training data passed each node. Where they are believed, and how a file carries them.

`nodes_hitrates` is the place for them in the older operators, but converters leave it out or write 1.0, and in
TreeEnsemble 5 it has no room for leaves; so they are also written, whole, as a property of the model.
"""

import base64
import binascii
import hashlib
import zlib

import numpy as np
from numpy.typing import NDArray

from penstock.engine.trees.forest import Forest
from penstock.schemas.errors import ConfigError

property_key = "penstock.covers"
_sum_tolerance = 1e-3
_bytes_max_per_node = 8
_zlib_level = 1
"""Higher levels take four times as long for a tenth of the bytes: with ten million nodes, most of the time of packaging."""


def plausible(cover: NDArray[np.float64], yes: NDArray[np.int32], no: NDArray[np.int32]) -> bool:
    """Whether these can be covers: not one number for all, none negative, and children that add up to their parent."""
    if not np.isfinite(cover).all() or (cover < 0).any() or cover.min() == cover.max():
        return False
    inner = yes >= 0
    rest = np.abs(cover[yes[inner]] + cover[no[inner]] - cover[inner])
    return bool((rest <= _sum_tolerance * cover[inner]).all())


def shares(forest: Forest) -> NDArray[np.float64]:
    """Cover of every node over that of its parent, (n,); 1 at a root, and a half below a node that nothing passed."""
    if forest.cover is None:
        raise ConfigError("the tree ensemble carries no covers")
    share = np.ones(forest.nodes)
    inner = np.flatnonzero(forest.leaf < 0)
    parent = forest.cover[inner]
    empty = parent == 0
    for child in (forest.yes[inner], forest.no[inner]):
        share[child] = np.where(empty, 0.5, forest.cover[child] / np.where(empty, 1.0, parent))
    return share


def structure_digest(forest: Forest) -> str:
    """SHA-256 of everything in an ordered forest that decides where a row goes and what it scores."""
    digest = hashlib.sha256()
    for array in (
        forest.roots, forest.feature, forest.threshold, forest.set_index, forest.yes, forest.no,
        forest.missing_yes, forest.leaf, forest.leaf_values, forest.set_offsets, forest.set_values,
    ):  # fmt: skip
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def to_property(forest: Forest) -> str:
    """What the file of an ordered forest says of it: the digest of its nodes, and their covers where known."""
    packed = "-"
    if forest.cover is not None:
        packed = base64.b64encode(zlib.compress(forest.cover.astype("<f8").tobytes(), _zlib_level)).decode()
    return f"1 {structure_digest(forest)} {packed}"


def from_property(text: str, forest: Forest) -> NDArray[np.float64] | None:
    """The covers of the ordered forest that was read beside this text, or None where they are not known.

    Raises ConfigError when the text is broken or speaks of other nodes.
    """
    try:
        version, digest, packed = str(text).split(" ")
        length = forest.nodes * _bytes_max_per_node
        raw = b""
        if packed != "-":
            raw = zlib.decompressobj().decompress(base64.b64decode(packed, validate=True), length + 1)
    except (ValueError, binascii.Error, zlib.error) as error:
        raise ConfigError("the covers in the model's properties are broken") from error
    if version != "1" or len(raw) != (length if packed != "-" else 0):
        raise ConfigError("the covers in the model's properties are broken, or of another format")
    if digest != structure_digest(forest):
        raise ConfigError("the covers in the model's properties belong to other trees than the model's")
    return None if packed == "-" else np.frombuffer(raw, dtype="<f8").astype(np.float64)
