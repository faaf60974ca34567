"""An ONNX file as a model on its way into a bundle: its own original."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.engine.features.narrowing import as_fed
from penstock.engine.models.bundle.graph_checks import parse_model
from penstock.engine.models.packaging.converted import Converted, PackageOptions
from penstock.engine.models.packaging.onnx_file import read_onnx
from penstock.engine.models.packaging.trial import try_file
from penstock.engine.models.runtime.session import raw_runner


def convert_onnx(data: bytes, wishes: PackageOptions) -> Converted:
    """The graph in our form; it is compared with itself. Raises ConfigError."""
    parse_model(data)  # circles and foreign operators, before any runtime sees them
    try_file("onnx", data)
    graph = read_onnx(
        data, feature_names=wishes.feature_names, overrides=wishes.overrides, classes=wishes.classes
    )
    run = raw_runner(graph.model if graph.widened else data, graph.signature)
    labels = graph.labels if graph.labels and graph.labels.values is not None else None

    def score(rows: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        found = run(as_fed(rows, graph.signature))
        return {
            output.name: np.concatenate(
                [_plain(found[name], len(rows)) for name in graph.joined.get(output.name, (output.name,))],
                axis=1,
            )
            for output in graph.outputs
        }

    def score_labels(rows: NDArray[np.float64]) -> NDArray[np.int64]:
        assert labels is not None
        assert labels.values is not None
        places = {value: place for place, value in enumerate(labels.values)}
        found = run(as_fed(rows, graph.signature))[labels.output]
        return np.array([places[value] for value in np.asarray(found).reshape(-1).tolist()], dtype=np.int64)

    return Converted(
        source="onnx",
        model=graph.model,
        forest=graph.forest,
        signature=graph.signature,
        outputs=graph.outputs,
        labels=graph.labels,
        score=score,
        is_its_own_original=True,
        score_labels=score_labels if labels else None,
        notes=graph.notes,
    )


def _plain(answers: Any, rows: int) -> NDArray[np.float64]:
    """Scores as a matrix; a ZipMap answers a dictionary for each row, classes in order."""
    if isinstance(answers, list):
        answers = [list(answer.values()) for answer in answers]
    return np.asarray(answers, dtype=np.float64).reshape(rows, -1)
