"""A graph with what a bundle says of it, and how a session on it is opened."""

from dataclasses import dataclass
from typing import Protocol

from penstock.engine.features.signature import Signature
from penstock.engine.gpu.device import Device
from penstock.engine.models.bundle.manifest import Labels, ModelOutput
from penstock.engine.models.bundle.run_options import Optimization
from penstock.engine.models.runtime.session import OnnxModel
from penstock.engine.trees.forest import Forest
from penstock.engine.trees.onnx.read import read_forest
from penstock.engine.trees.table_file import with_output
from penstock.schemas.errors import ConfigError


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
    @property
    def table(self) -> Forest | None:
        """The trees in `model`, where that is a table of them and no ONNX graph."""


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


def forest_behind(graph: Graph, output: str | None = None) -> Forest:
    """The trees behind an output of a graph, by default behind the scores that add up.

    Raises NotATreeError where the graph is anything else, ConfigError where it is broken.
    """
    inputs = [(each.name, each.width) for each in graph.signature.inputs]
    if graph.table is None:
        return read_forest(graph.model, output, inputs=inputs)
    if [width for _, width in inputs] != [graph.table.features]:
        raise ConfigError(
            f"the table of trees tests {graph.table.features} columns, the signature names others"
        )
    return with_output(graph.model, graph.table, output)
