"""`penstock score`: every part scored, by as many processes as asked, then the output put in its place in one step."""

import json
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import penstock
from penstock.engine.batch.apart import check_apart
from penstock.engine.batch.deliver import Places, check_free, deliver, places_of, work_folder
from penstock.engine.batch.errors import ScoreError
from penstock.engine.batch.files import find_files, format_of
from penstock.engine.batch.part import (
    Counts,
    Job,
    Options,
    done_parts,
    open_job_model,
    part_files,
    score_part,
)
from penstock.engine.batch.plan import make_parts
from penstock.engine.batch.write import OutputFormat
from penstock.engine.clock import Clock
from penstock.engine.codec.tables.arrow import arrow
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.pipeline.collector import calm_collector
from penstock.engine.python.arrow_table import result_columns
from penstock.schemas.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What is asked for."""

    bundle: str
    input: str
    out: str
    dead_letters: str | None
    input_format: str | None
    output_format: OutputFormat | None
    explain: bool
    output: str
    top: int
    keep: tuple[str, ...]
    delimiter: str
    device: str
    runtime: str
    processes: int
    overwrite: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What was done."""

    counts: Counts
    files: int
    parts: int
    parts_resumed: int
    out: str
    dead_letters: str
    seconds: float


Progress = Callable[[int], None]
"""Told how many more records are done."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A run that may begin: input, bundle and output are as they should be."""

    job: Job
    places: Places
    processes: int
    overwrite: bool
    files: int
    rows: int | None
    """Of the whole input, where its files say it."""


def prepare(request: Request) -> Prepared:
    """Check everything that can be checked without scoring. Raises ConfigError or ScoreError."""
    arrow("scoring files")
    if request.processes < 1:
        raise ConfigError("--processes is at least 1")
    if request.output == "all":
        raise ConfigError("--output all is for the stream: name one output here")
    bundle = Bundle.load(request.bundle)
    files = find_files(request.input, request.input_format)
    kind = format_of(files, request.input_format)
    places = places_of(
        out=request.out, dead_letters=request.dead_letters, output_format=request.output_format
    )
    check_apart(places.out, places.letters, request.input, request.bundle, files)
    check_free(places, overwrite=request.overwrite)
    _check_keep(request.keep, bundle, explain=request.explain)
    parts = make_parts(
        files,
        kind,
        bundle.signature,
        keep=request.keep,
        delimiter=request.delimiter,
        keep_alike=places.one_file and places.kind == "parquet",
    )
    options = Options(
        input_format=kind,
        output_format=places.kind,
        explain=request.explain,
        output=request.output,
        top=request.top,
        keep=request.keep,
        delimiter=request.delimiter,
    )
    job = Job(
        version=penstock.__version__,
        bundle=str(Path(request.bundle).absolute()),
        digest=bundle.digest,
        device=request.device,
        runtime=request.runtime,
        parts=tuple(parts),
        options=options,
    )
    known = [part.rows for part in parts]
    return Prepared(
        job=job,
        places=places,
        processes=min(request.processes, len(parts)),
        overwrite=request.overwrite,
        files=len(files),
        rows=None if None in known else sum(rows or 0 for rows in known),
    )


def run(prepared: Prepared, clock: Clock, on_rows: Progress) -> Report:
    """Score what is not scored yet and put the output in its place. Raises ScoreError or ConfigError."""
    began_s = clock.monotonic_s()
    job, places = prepared.job, prepared.places
    try:
        with work_folder(places.work, job):
            resumed = dict(done_parts(places.work, job))
            on_rows(sum(counts.predicted + counts.rejected for counts in resumed.values()))
            left = [number for number in range(len(job.parts)) if number not in resumed]
            if prepared.processes == 1:
                made = _here(job, places.work, left, clock, on_rows)
            else:
                made = _elsewhere(job, places.work, left, prepared.processes, on_rows)
            counts = Counts()
            for each in (*resumed.values(), *made):
                counts = counts.plus(each)
            deliver(places, job, overwrite=prepared.overwrite)
        shutil.rmtree(places.work, ignore_errors=True)
    except OSError as error:
        raise ScoreError(f"cannot write {places.out}: {error.strerror or error}") from error
    return Report(
        counts=counts,
        files=prepared.files,
        parts=len(job.parts),
        parts_resumed=len(resumed),
        out=places.out,
        dead_letters=places.letters,
        seconds=clock.monotonic_s() - began_s,
    )


def _check_keep(keep: tuple[str, ...], bundle: Bundle, *, explain: bool) -> None:
    own = ["source", *result_columns(bundle, explain=explain)]
    for name in keep:
        if name in own:
            raise ConfigError(
                f"--keep {name}: the results have a column of that name; call it otherwise in the input, or join by source.row"
            )
        if keep.count(name) > 1:
            raise ConfigError(f"--keep names {name} twice")


def _here(job: Job, folder: Path, numbers: list[int], clock: Clock, on_rows: Progress) -> list[Counts]:
    if not numbers:
        return []
    with open_job_model(job) as model, calm_collector():
        return [
            score_part(
                job.parts[number],
                part_files(folder, number, job.options.output_format),
                model,
                job.options,
                clock,
                on_rows,
            )
            for number in numbers
        ]


def _elsewhere(job: Job, folder: Path, numbers: list[int], processes: int, on_rows: Progress) -> list[Counts]:
    """Score in child processes. A thread for each hands it one part at a time; the first error ends all of them."""
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in numbers:
        todo.put(number)
    found: queue.SimpleQueue[Counts | str | None] = queue.SimpleQueue()
    started = [_start(folder) for _ in range(min(processes, len(numbers)))]
    threads = [
        threading.Thread(target=_feed, args=(process, todo, found), daemon=True) for process in started
    ]
    counts: list[Counts] = []
    try:
        for thread in threads:
            thread.start()
        ended = 0
        while ended < len(threads):
            answer = found.get()
            if isinstance(answer, str):
                raise ScoreError(answer)
            if answer is None:
                ended += 1
            else:
                counts.append(answer)
                on_rows(answer.predicted + answer.rejected)
    finally:
        for process in started:
            if process.poll() is None:
                process.terminate()
        for process, thread in zip(started, threads, strict=True):
            process.wait()
            if thread.ident is not None:
                thread.join()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with suppress(BrokenPipeError):
                    pipe.close()
    return counts


def _start(folder: Path) -> "subprocess.Popen[str]":
    # Without the working folder on its path; in a group of its own, so that Ctrl-C reaches it through us alone.
    command = [sys.executable, "-P", "-m", "penstock.engine.batch.process", str(folder)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0
    )


def _feed(
    process: "subprocess.Popen[str]",
    todo: "queue.SimpleQueue[int]",
    found: "queue.SimpleQueue[Counts | str | None]",
) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    while True:
        try:
            number = todo.get_nowait()
        except queue.Empty:
            found.put(None)
            return
        try:
            process.stdin.write(f"{number}\n")
            process.stdin.flush()
            line = process.stdout.readline()
            answer: dict[str, Any] = json.loads(line)
        except (BrokenPipeError, ValueError):  # no line, or one that was cut off
            process.terminate()
            found.put(
                f"a process that scores ended without an answer (exit code {process.wait()}); run again to go on"
            )
            return
        found.put(answer["error"] if "error" in answer else Counts(**answer["counts"]))
