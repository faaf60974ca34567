"""One part scored: read, run through the stream's stages, written under its own name when it is whole."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from penstock.engine.batch.errors import ScoreError
from penstock.engine.batch.files import Format, InputFile, Part, check_unchanged
from penstock.engine.batch.read import read_part
from penstock.engine.batch.write import LetterWriter, OutputFormat, ResultWriter, written_whole
from penstock.engine.clock import Clock
from penstock.engine.codec.decode import RowDecoder
from penstock.engine.codec.json_rows import JsonRows
from penstock.engine.features.signature import Signature
from penstock.engine.python.model import Model
from penstock.engine.settings.topics import InputSettings
from penstock.schemas.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How to score; the same options on the same input give the same files."""

    input_format: Format
    output_format: OutputFormat
    explain: bool
    output: str = "predicted"
    top: int = 0
    keep: tuple[str, ...] = ()
    delimiter: str = ","


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """What became of a part's records."""

    predicted: int = 0
    rejected: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def plus(self, other: "Counts") -> "Counts":
        """Both together."""
        reasons = dict(self.reasons)
        for reason, count in other.reasons.items():
            reasons[reason] = reasons.get(reason, 0) + count
        return Counts(
            predicted=self.predicted + other.predicted,
            rejected=self.rejected + other.rejected,
            reasons=reasons,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PartFiles:
    """Where a part is kept in the working folder."""

    results: Path
    letters: Path
    counts: Path
    """Written last: it says that the other two are whole."""


def part_files(folder: Path, number: int, kind: OutputFormat) -> PartFiles:
    """The files of part `number`."""
    name = f"part-{number:05d}"
    return PartFiles(
        results=folder / f"{name}.{kind}", letters=folder / f"{name}.letters", counts=folder / f"{name}.done"
    )


def score_part(
    part: Part, files: PartFiles, model: Model, options: Options, clock: Clock, on_rows: Callable[[int], None]
) -> Counts:
    """Score the part and leave its files; `on_rows` is called with the number of records of each block. Raises ScoreError."""
    explained = options.output if options.explain else None
    stages = model.stages(explained, decoder=json_decoder(model.bundle.signature))
    predicted, reasons = 0, dict[str, int]()
    try:
        with written_whole(files.results) as results_path, written_whole(files.letters) as letters_path:
            results = ResultWriter(
                results_path, options.output_format, model.bundle, explain=options.explain, top=options.top
            )
            letters = LetterWriter(letters_path, model.bundle)
            with closing(results), closing(letters):
                for block in read_part(
                    part,
                    options.input_format,
                    model.bundle.signature,
                    keep=options.keep,
                    delimiter=options.delimiter,
                    schema=model.bundle.input_schema,
                ):
                    if block.decoded is None:
                        scored = stages.run_records(block.lines)
                    else:
                        scored = stages.run(len(block.rows), block.decoded)
                    results.write(block, scored, part.file.address)
                    letters.write(block, scored.rejections, part.file.address, clock.wall_ms())
                    predicted += len(scored.rows)
                    for rejection in (*scored.rejections, *(each for _, each, _ in block.unreadable)):
                        reasons[str(rejection.reason)] = reasons.get(str(rejection.reason), 0) + 1
                    on_rows(scored.count + len(block.unreadable))
                check_unchanged(part.file)
        counts = Counts(predicted=predicted, rejected=sum(reasons.values()), reasons=reasons)
        with written_whole(files.counts) as path:
            path.write_bytes(orjson.dumps(asdict(counts)))
    except OSError as error:
        raise ScoreError(f"cannot write {files.results.parent}: {error.strerror or error}") from error
    return counts


def json_decoder(signature: Signature) -> RowDecoder:
    """The stream's decoder of JSON records, with the bounds that it has by default."""
    rows = JsonRows(signature)
    bytes_max = InputSettings.model_fields["record_bytes_max"].default
    return RowDecoder(
        signature=signature,
        header_bytes=0,
        compile_rows=lambda _: rows,
        skips_null=False,
        record_bytes_max=bytes_max,
    )


def read_counts(path: Path) -> Counts | None:
    """What a part that is done says of itself; None where it is not done."""
    try:
        return Counts(**orjson.loads(path.read_bytes()))
    except FileNotFoundError:
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """All that a process needs to score parts."""

    version: str
    """Of Penstock: parts of another one are done again."""
    bundle: str
    digest: str
    device: str
    runtime: str
    parts: tuple[Part, ...]
    options: Options

    def to_json(self) -> bytes:
        """As it is handed to another process, and compared with that of an earlier run."""
        return orjson.dumps(asdict(self), option=orjson.OPT_SORT_KEYS)

    @staticmethod
    def from_json(data: bytes) -> "Job":
        """Undo to_json."""
        tree: dict[str, Any] = orjson.loads(data)
        parts = tuple(_part(each) for each in tree["parts"])
        options = Options(**{**tree["options"], "keep": tuple(tree["options"]["keep"])})
        return Job(**{**tree, "parts": parts, "options": options})


def _part(tree: dict[str, Any]) -> Part:
    return Part(**{**tree, "file": InputFile(**tree["file"]), "row_groups": tuple(tree["row_groups"])})


def open_job_model(job: Job) -> Model:
    """The job's model. Raises ConfigError, also when the bundle has changed since the job was made."""
    from penstock.engine.python.model import load

    model = load(job.bundle, device=job.device, runtime=job.runtime)
    if model.digest != job.digest:
        raise ConfigError(f"the bundle {job.bundle} changed while it was in use")
    return model


def no_progress(_: int) -> None:
    """A progress callback that shows nothing."""


def done_parts(folder: Path, job: Job) -> Iterator[tuple[int, Counts]]:
    """The parts of the job that an earlier run has finished."""
    for number in range(len(job.parts)):
        counts = read_counts(part_files(folder, number, job.options.output_format).counts)
        if counts is not None:
            yield number, counts
