"""Which partition a key belongs to: murmur2, as the Java clients and librdkafka's murmur2_random have it; and which a result."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_mask = 0xFFFFFFFF
_multiplier = 0x5BD1E995


@lru_cache(maxsize=1 << 16)
def murmur2(key: bytes) -> int:
    """Kafka's hash of a key, as an unsigned 32-bit number."""
    length = len(key)
    digest = 0x9747B28C ^ length
    whole = length & ~3
    for start in range(0, whole, 4):
        word = int.from_bytes(key[start : start + 4], "little") * _multiplier & _mask
        word = (word ^ word >> 24) * _multiplier & _mask
        digest = (digest * _multiplier & _mask) ^ word
    if length > whole:
        digest = (digest ^ int.from_bytes(key[whole:], "little")) * _multiplier & _mask
    digest = (digest ^ digest >> 13) * _multiplier & _mask
    return digest ^ digest >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that a record with this key goes to."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def rows_by_target(
    sources: NDArray[np.int32], input_partitions: int, partitions: int
) -> list[tuple[int, Sequence[int]]]:
    """Where to send which rows of results that came of these partitions (N,): as they came when the topics match, else -1, which is
    by key."""
    if len(sources) == 0:
        return []
    if input_partitions != partitions:
        return [(-1, range(len(sources)))]
    order = np.argsort(sources, kind="stable")
    targets, firsts = np.unique(sources[order], return_index=True)
    groups = np.split(order, firsts[1:])
    return [
        (target if target < partitions else -1, rows.tolist())  # the input may have grown since the start
        for target, rows in zip(targets.tolist(), groups, strict=True)
    ]
