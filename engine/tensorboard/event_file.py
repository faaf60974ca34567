"""A TensorBoard event file: scalars, histograms, texts and a graph, written whole or not at all."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.engine.console.terminal import printable
from penstock.schemas.distribution import how_to_install
from penstock.schemas.errors import ConfigError

name_characters_max: Final = 120
bins: Final = 30
_special: Final = re.compile(r"[\\`*_{}\[\]()#+!|~:@<>&-]")


def check_free(folder: Path) -> None:
    """Raises ConfigError where event files cannot be written to `folder`: it holds something, or the extra is missing."""
    try:
        import tensorboardX.proto.event_pb2  # noqa: F401  # an extra: few look in TensorBoard
    except ModuleNotFoundError as error:
        raise ConfigError(f"--tensorboard needs tensorboardX: {how_to_install('tensorboard')}") from error
    try:
        held = next(iter(sorted(folder.iterdir())), None) if folder.exists() else None
    except OSError as error:
        raise ConfigError(f"cannot write event files to {folder}: {error.strerror}") from error
    if held is not None:
        raise ConfigError(f"{folder} holds {held.name}, which is not replaced: give another name")


def shown_name(name: str) -> str:
    """A name that somebody chose, for a tag: control characters written out, cut with its length."""
    text = printable(name)
    if len(text) <= name_characters_max:
        return text
    return f"{text[:name_characters_max]}... ({len(name):,} characters)"


def as_markdown(text: str) -> str:
    """The text for TensorBoard's texts, which are Markdown, on one line: nothing in it is markup or a link."""
    return _special.sub(lambda found: f"&#{ord(found[0])};", printable(text))


def table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table; the cells are plain text."""
    lines = [heads, ("---",) * len(heads)]
    body = [tuple(as_markdown(cell) for cell in row) for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in [*lines, *body])


class EventFile:
    """What will stand in one event file, in the order of the calls. Every value is at step 0, a packaging being one step."""

    def __init__(self, *, wall_s: float) -> None:
        """`wall_s`: seconds since 1970, which the events carry. Needs what `check_free` looked for."""
        from tensorboardX.proto.event_pb2 import Event

        self._wall_s = wall_s
        self._event: Any = Event
        self._events: list[Any] = [Event(wall_time=wall_s, file_version="brain.Event:2")]
        self._tags: set[str] = set()

    def scalar(self, tag: str, number: float) -> None:
        """One number."""
        self._value(tag, simple_value=number)

    def histogram(self, tag: str, values: NDArray[np.float64]) -> None:
        """How the values (n,), n > 0 and all finite, are spread, in equal bins."""
        from tensorboardX.proto.summary_pb2 import HistogramProto

        low, high = float(values.min()), float(values.max())
        counts, edges = np.array([len(values)]), np.array([low, high])
        if high > low and (high - low) / bins > 0 and np.isfinite(high - low):
            counts, edges = np.histogram(values, bins=np.linspace(low, high, bins + 1))
        with np.errstate(over="ignore"):
            total, squares = float(values.sum()), float((values * values).sum())
        self._value(
            tag,
            histo=HistogramProto(
                min=low,
                max=high,
                num=len(values),
                sum=total,
                sum_squares=squares,
                bucket_limit=edges[1:].tolist(),
                bucket=counts.tolist(),
            ),
        )

    def text(self, tag: str, markdown: str) -> None:
        """A text in Markdown."""
        from tensorboardX.proto.plugin_text_pb2 import TextPluginData
        from tensorboardX.proto.summary_pb2 import SummaryMetadata
        from tensorboardX.proto.tensor_pb2 import TensorProto
        from tensorboardX.proto.tensor_shape_pb2 import TensorShapeProto

        plugin = SummaryMetadata.PluginData(
            plugin_name="text", content=TextPluginData(version=0).SerializeToString()
        )
        tensor = TensorProto(
            dtype="DT_STRING", string_val=[markdown.encode()], tensor_shape=TensorShapeProto()
        )
        self._value(tag, metadata=SummaryMetadata(plugin_data=plugin), tensor=tensor)

    def graph(self, graph: Any) -> None:
        """A GraphDef."""
        self._events.append(self._event(wall_time=self._wall_s, graph_def=graph.SerializeToString()))

    def write(self, folder: Path) -> Path:
        """Into `folder`, which is made; the file appears whole. Raises ConfigError."""
        from tensorboardX import RecordWriter

        path = folder / f"events.out.tfevents.{int(self._wall_s):010d}.penstock"
        part = folder / ".part"  # TensorBoard reads what is named tfevents
        try:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                writer = RecordWriter(os.fspath(part.absolute()))
                try:
                    for event in self._events:
                        writer.write(event.SerializeToString())
                    writer.flush()
                finally:
                    writer.close()
                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot write event files to {folder}: {error.strerror}") from error
        return path

    def _value(self, tag: str, **value: Any) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        wanted, number = tag, 1
        while tag in self._tags:  # names may be the same once they are cut
            number += 1
            tag = f"{wanted} ({number})"
        self._tags.add(tag)
        summary = Summary(value=[Summary.Value(tag=tag, **value)])
        self._events.append(self._event(wall_time=self._wall_s, step=0, summary=summary))


def parts_of(values: Mapping[str, str]) -> str:
    """Facts as a table of two columns."""
    return table(("what", "found"), list(values.items()))
