"""How much memory a worker needs for a bundle."""

from typing import Final, Protocol

from penstock.engine.trees.forest import Forest

_process_bytes: Final = 384 << 20
"""Interpreter, ONNX Runtime, Kafka's client and the batches on their way."""
_bytes_a_byte_of_trees: Final = 14
"""Measured with forests of 100,000 to 1.3 million nodes, of 43 bytes each in the file: while a worker loads, protobuf's copy of
the graph, ONNX Runtime's, our kernel's and the explainer's."""
_bytes_a_byte: Final = 5
"""Of any other graph: the file, protobuf's copy, ONNX Runtime's before and after it is optimized."""
_bytes_a_node: Final = 90
"""Of a table, beside the file itself: the canonical arrays, the kernel's and the explainer's."""


class Sized(Protocol):
    """A bundle."""

    @property
    def model(self) -> bytes: ...
    @property
    def trees(self) -> bool: ...
    @property
    def table(self) -> Forest | None: ...


def worker_bytes(bundle: Sized) -> int:
    """About the most that one worker has in memory, in bytes, by the size of the model."""
    if bundle.table is not None:
        return _process_bytes + len(bundle.model) + _bytes_a_node * bundle.table.nodes
    each = _bytes_a_byte_of_trees if bundle.trees else _bytes_a_byte
    return _process_bytes + each * len(bundle.model)


def as_text(count: int) -> str:
    """Bytes as people read them."""
    return f"{count / (1 << 20):,.0f} MiB" if count < 10 << 30 else f"{count / (1 << 30):,.1f} GiB"
