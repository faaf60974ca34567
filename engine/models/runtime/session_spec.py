"""A graph with what a bundle says of it, and how a session on it is opened."""

from dataclasses import dataclass
from typing import Protocol

from penstock.engine.features.signature import Signature
from penstock.engine.gpu.device import Device
from penstock.engine.models.bundle.manifest import Labels, ModelOutput
from penstock.engine.models.bundle.run_options import Optimization
from penstock.engine.models.runtime.session import OnnxModel


class Graph(Protocol):
    """A graph with what a bundle says of it."""

    @property
    def model(self) -> bytes: ...
    @property
    def signature(self) -> Signature: ...
    @property
    def outputs(self) -> tuple[ModelOutput, ...]: ...
    @property
    def labels(self) -> Labels | None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Opening:
    """How sessions are opened."""

    device: Device
    threads: int
    batch_rows_max: int
    optimization: Optimization = "all"

    def open(self, graph: Graph, *, captures: bool = False) -> OnnxModel:
        """A session on the graph. Raises as OnnxModel does."""
        return OnnxModel(
            model=graph.model,
            signature=graph.signature,
            outputs=graph.outputs,
            labels=graph.labels,
            device=self.device,
            threads=self.threads,
            batch_rows_max=self.batch_rows_max,
            optimization=self.optimization,
            captures=captures,
        )
