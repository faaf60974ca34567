"""A verified bundle, held in Python: predict, explain and score as the stream does."""

import os
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.engine.clock import SystemClock
from penstock.engine.codec.tables.frames import RowReader
from penstock.engine.explain.chosen_output import speaks_of_the_second
from penstock.engine.explain.factory import make_explainer
from penstock.engine.features.signature import Signature
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.runtime.loader import ServedModel, open_model
from penstock.engine.ports import Attributions, Explainer
from penstock.engine.ports import Predictions as RawPredictions
from penstock.engine.python.results import Explanation, Predictions
from penstock.engine.python.rows_error import rows_error
from penstock.engine.python.stages import Scored, Stages
from penstock.engine.python.strongest import strongest_first, sum_of
from penstock.engine.settings.model import ExplainSettings
from penstock.schemas.errors import ConfigError

runtimes: Final = ("auto", "onnxruntime", "native")
threads_max: Final = 64
batch_rows_max: Final = 1024
"""The largest batch that the model is warmed up for; more rows go through it in pieces."""


_models: "weakref.WeakSet[Model]" = weakref.WeakSet()


def _after_fork() -> None:
    """In a child process no thread of the parent's is left that would give a turn back."""
    for model in _models:
        model._take_turns()


os.register_at_fork(after_in_child=_after_fork)


def load(path: Path | str, *, device: str = "auto", runtime: str = "auto", threads: int = 1) -> "Model":
    """The model in a bundle, verified, checked against its golden batch and warm.

    Args:
        path: the bundle's folder.
        device: `auto`, `cpu`, `cuda` or `cuda:1`, as `model.device` of the settings.
        runtime: `auto`, `onnxruntime` or `native`, as `model.runtime`. `auto` measures; name one where the same bits are
            wanted on every machine.
        threads: of the processor, for one call.

    Raises ConfigError, in one sentence, for a folder that is not a bundle and for anything that a worker would refuse at start.
    """
    if runtime not in runtimes:
        raise ConfigError(f"runtime is one of {', '.join(runtimes)}, not {runtime!r}")
    if not isinstance(threads, int) or not 1 <= threads <= threads_max:
        raise ConfigError(f"threads is a whole number from 1 to {threads_max}, not {threads!r}")
    return Model(Path(path), Bundle.load(path), device=device, runtime=runtime, threads=threads)


class Model:
    """A bundle's model in this process. Made by `load`.

    Any number of threads may call it: calls take turns, and what computes lets other threads run meanwhile. A process that was
    forked may go on with it. It is pickled as the path of its bundle and loaded again where it is unpickled, which fails when the folder holds another bundle.
    """

    def __init__(
        self, path: Path, bundle: Bundle, *, device: str = "auto", runtime: str = "auto", threads: int = 1
    ) -> None:
        self._path = path.absolute()
        self._asked = (device, runtime, threads)
        self._bundle: Bundle | None = bundle
        self._clock = SystemClock()
        self._served: ServedModel | None = open_model(
            bundle,
            device=device,
            runtime=runtime,
            threads=threads,
            batch_rows_max=batch_rows_max,
            clock=self._clock,
        )
        self._reader = RowReader(bundle.signature, bundle.input_schema)
        self._explainers: dict[str, Explainer] = {}
        self._take_turns()
        _models.add(self)

    def _take_turns(self) -> None:
        self._turn = threading.Lock()

    @property
    def bundle(self) -> Bundle:
        """The bundle, as it was verified. Raises ConfigError after `close`."""
        if self._bundle is None:
            raise ConfigError("the model is closed")
        return self._bundle

    @property
    def name(self) -> str:
        """The model's name."""
        return self.bundle.name

    @property
    def version(self) -> str:
        """The model's version."""
        return self.bundle.version

    @property
    def digest(self) -> str:
        """SHA-256 of the bundle's manifest, which every prediction of the stream carries."""
        return self.bundle.digest

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of the F matrix columns."""
        return self.bundle.signature.columns

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names; empty for a model without classes."""
        return self.bundle.classes

    @property
    def runtime(self) -> str:
        """What runs it: `native` or `onnxruntime`."""
        return self._open().runtime

    @property
    def device(self) -> str:
        """Where it runs: `cpu` or `cuda:0`."""
        return self._open().device.name

    def predict(self, rows: Any) -> Predictions:
        """The model's outputs for every row, in order.

        Args:
            rows: a matrix (n, F) of numbers in the order of `feature_names`, NaN missing and a category as its code; or a
                pandas, polars or Arrow table, or a list of dictionaries, by field name, with values as records have them.

        Raises RowsError, which names row and column, for the first row that the stream would set aside; ConfigError for
        anything that is not rows of this model.
        """
        parts = [scored.predictions for _, scored in self._scored(rows, None, strict=True)]
        return self._predictions([part for part in parts if part is not None])

    def explain(self, rows: Any, *, top: int | None = None, output: str = "predicted") -> Explanation:
        """Attributions of the model's output, for every row.

        Args:
            rows: as predict takes them.
            top: keep the strongest this many attributions of each row and sum the others up in `rest`; None keeps all.
            output: `predicted` (the class that wins), the name of a class or output, or `all`.

        Raises as predict does; ConfigError when the model cannot be explained, or has no such output.
        """
        _check_asked(top, output)
        scored = [part for _, part in self._scored(rows, output, strict=True)]
        found = [part.attributions for part in scored if part.attributions is not None]
        matrix = [part.matrix for part in scored if part.predictions is not None]
        return self._explanation(found, matrix, top=top, output=output)

    def score(
        self, table: Any, *, explain: bool = False, top: int | None = None, output: str = "predicted"
    ) -> Any:
        """A pyarrow.Table, a row for each row given, in order: with the content of the stream's messages.

        `outcome` is `predicted` or `rejected`; then come the columns of a prediction (`outputs`, `label`), with `explain`
        those of an explanation (`method`, `background`, `output`, `space`, `base_value`, `attributions`, `rest`,
        `additivity_error`, `sampling_error`), and those of a dead letter (`stage`, `reason`, `detail`), null where a row
        has none. A row that cannot be predicted is no error here. Arguments as of explain; needs pyarrow.
        """
        from penstock.engine.python.arrow_table import joined_table, scored_batch

        if output == "all":
            raise ConfigError("score explains one output of a row: name it, or leave output at predicted")
        _check_asked(top, output)
        batches = [
            scored_batch(part, self.bundle, explain=explain, top=top or 0)
            for _, part in self._scored(table, output if explain else None, strict=False)
        ]
        return joined_table(batches)

    def stages(self, output: str | None, *, decoder: Any = None) -> Stages:
        """The stages that score blocks of rows; `output` is what is explained, None for predictions alone."""
        explainer = None if output is None else self._explainer(output)
        return Stages(self._open(), explainer=explainer, clock=self._clock, decoder=decoder)

    def close(self) -> None:
        """Free the session and its memory. Idempotent; any later call raises ConfigError."""
        with self._turn:
            self._served, self._bundle = None, None
            self._explainers.clear()

    def __enter__(self) -> "Model":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._bundle is None:
            return f"<penstock.Model of {self._path}, closed>"
        bundle = self._bundle
        return (
            f"<penstock.Model {bundle.name} {bundle.version}: {bundle.signature.width} features, {self.runtime} on "
            f"{self.device}, digest {bundle.digest[:12]}>"
        )

    def __reduce__(self) -> tuple[Any, tuple[str, str, str, str, int]]:
        return _reopened, (str(self._path), self.digest, *self._asked)

    def _open(self) -> ServedModel:
        if self._served is None:
            raise ConfigError("the model is closed")
        return self._served

    def _explainer(self, output: str) -> Explainer:
        if output not in self._explainers:
            served = self._open()
            settings = ExplainSettings(output=output)
            self._explainers[output] = make_explainer(
                self.bundle, served, settings, device=served.device, clock=self._clock
            )
        return self._explainers[output]

    def _scored(self, rows: Any, output: str | None, *, strict: bool) -> Iterator[tuple[int, Scored]]:
        """Blocks with the place of their first row. `strict`: a rejection is an error."""
        self._open()
        start = 0
        for count, decoded in self._reader.blocks(rows):
            with self._turn:
                scored = self.stages(output).run(count, decoded)
            if strict and scored.rejections:
                first = scored.rejections[0]
                raise rows_error(first, start + first.index)
            yield start, scored
            start += count

    def _predictions(self, parts: list[RawPredictions]) -> Predictions:
        classes = self.bundle.classes
        if not parts:
            empty = {output.name: np.empty((0, output.width)) for output in self.bundle.outputs}
            index = np.empty(0, dtype=np.int64) if classes else None
        else:
            empty = {
                output.name: np.concatenate([part.outputs[output.name] for part in parts])
                for output in self.bundle.outputs
            }
            found = [part.labels for part in parts if part.labels is not None]
            index = np.concatenate(found) if found else None
        names = np.array(classes, dtype=object)
        return Predictions(
            outputs=empty, labels=None if index is None else names[index], label_index=index, classes=classes
        )

    def _explanation(
        self, parts: list[Attributions], matrices: list[NDArray[np.generic]], *, top: int | None, output: str
    ) -> Explanation:
        signature = self.bundle.signature
        width = signature.width
        if not parts:
            return self._explanation_of_nothing(output)
        matrix = np.concatenate(matrices)
        values = np.concatenate([part.values for part in parts])
        columns = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("base", "output_index", "additivity_error")
        }
        sampling = [part.sampling_error for part in parts if part.sampling_error is not None]
        sampling_error = np.concatenate(sampling) if sampling else None
        values, rest = strongest_only(values, top)
        names = output_names(self.bundle, columns["output_index"], parts[0].output_name)
        shape: tuple[int, ...] = (len(matrix),)
        if output == "all":
            each = len(values) // len(matrix)
            shape = (len(matrix), each)
            values = values.reshape(len(matrix), each, width).transpose(0, 2, 1)
            names = names[:each]
        return Explanation(
            values=values,
            base_values=columns["base"].reshape(shape),
            data=data_of(signature, matrix),
            feature_names=signature.columns,
            output_names=names,
            method=parts[0].method,
            space=parts[0].space,
            background=parts[0].background,
            additivity_error=columns["additivity_error"].reshape(shape),
            sampling_error=None if sampling_error is None else sampling_error.reshape(shape),
            rest=rest.reshape(shape),
            matrix=matrix,
        )

    def _explanation_of_nothing(self, output: str) -> Explanation:
        """The shapes of an explanation without rows, from that of a golden row."""
        golden = self.bundle.golden.rows[:1]
        with self._turn:
            served = self._open()
            found = self._explainer(output).explain(golden, served.predict(golden))
        return self._explanation([found], [golden], top=None, output=output)[:0]


def _check_asked(top: Any, output: Any) -> None:
    if top is not None and (not isinstance(top, int | np.integer) or isinstance(top, bool) or top < 1):
        raise ConfigError(f"top is the number of attributions to keep, at least 1, not {top!r}")
    if not isinstance(output, str):
        raise ConfigError(f"output is predicted, all, or the name of a class or an output, not {output!r}")


def strongest_only(
    values: NDArray[np.float64], top: int | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The values (E, F) with all but the `top` strongest of each row put to 0, and the sum of those (E,)."""
    if not top or top >= values.shape[1]:
        return values, np.zeros(len(values))
    _, weakest = strongest_first(values, top)
    kept = values.copy()
    np.put_along_axis(kept, weakest, 0.0, axis=1)
    return kept, sum_of(values, weakest)


def data_of(signature: Signature, matrix: NDArray[np.generic]) -> NDArray[Any]:
    """The values of matrix rows (R, F) as people know them: float64, or object with the names of categories."""
    owners = signature.column_features
    if not any(feature.kind == "category" for feature in owners):
        return matrix.astype(np.float64)
    data = matrix.astype(np.float64).astype(object)
    for column, feature in enumerate(owners):
        if feature.kind == "category":
            names = np.array([*feature.categories, None], dtype=object)
            codes = matrix[:, column].astype(np.float64)
            known = (codes >= 0) & (codes < len(feature.categories))
            data[:, column] = names[np.where(known, codes, len(feature.categories)).astype(np.int64)]
    return data


def output_names(bundle: Bundle, index: NDArray[np.int64], name: str) -> NDArray[np.object_]:
    """What is explained of each row, (E,), by name: a class (one number for two classes is the second one's), else the output,
    and of several numbers the place in it."""
    classes = bundle.classes
    width = bundle.widths.get(name, len(classes) or 1)
    width = max(width, int(index.max(initial=0)) + 1)
    if width == len(classes):
        names = [*classes]
    elif width == 1:
        second = speaks_of_the_second(name, bundle.widths, classes, trees=bundle.trees)
        names = [classes[1] if second else name]
    else:
        names = [f"{name}[{place}]" for place in range(width)]
    return np.array(names, dtype=object)[index]


def _reopened(path: str, digest: str, device: str, runtime: str, threads: int) -> Model:
    """Undo pickling. Raises ConfigError when another bundle stands at the path now."""
    bundle = Bundle.load(path)
    if bundle.digest != digest:
        raise ConfigError(
            f"the bundle {path} has the digest {bundle.digest[:12]}, and the pickled model came from {digest[:12]}"
        )
    return Model(Path(path), bundle, device=device, runtime=runtime, threads=threads)
