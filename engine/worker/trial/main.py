"""The process that tries records: `python -m penstock.engine.worker.trial.main SETTINGS --run-folder DIR`; a line in, a line out.

It takes what time the stream leaves (nice 19) and no more memory than half of what is free, is the first to go when that runs out,
and ends with its standard input.
"""

import argparse
import os
import resource
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson

from penstock.engine.clock import SystemClock
from penstock.engine.console.faults import show_faults
from penstock.engine.console.leaving import run_and_leave
from penstock.engine.console.logs import add_logging_arguments, configure_logging
from penstock.engine.models.bundle.memory import as_text, worker_bytes
from penstock.engine.pages.sentences import sentence
from penstock.engine.python.stages import Stages
from penstock.engine.settings.model import Settings, load_settings
from penstock.engine.worker.kafka import client_config, open_registry
from penstock.engine.worker.model_copy import copied_model
from penstock.engine.worker.pages import record_documents
from penstock.engine.worker.startup.startup import Startup, walk
from penstock.engine.worker.startup.worker import worker_steps
from penstock.engine.worker.trial.free_memory import data_bytes, free_bytes
from penstock.engine.worker.trial.one_class import OfOneClass
from penstock.engine.worker.trial.trying import Trying
from penstock.schemas.errors import ConfigError, PenstockError

batch_rows_max: Final = 256
"""For explainers that evaluate the model: a record alone is one row."""
taken_max: Final = 0.5
"""Of the memory that is free: what is left is the stream's."""
start_s_max: Final = 300
answer_s_max: Final = 20
"""Then this process ends itself, in the middle of whatever hangs; who asked has ended it long before, if it still lives."""
record_call_s: Final = 2.5
"""Time-out of each of the three calls to the brokers for the record: together less than who asked waits."""


trial_steps: Final = frozenset({"bundle", "model", "input", "explanations"})
"""Of a worker's start; the rest is about its messages."""


def main(argv: Sequence[str] | None = None) -> int:
    """Answer until the other end of standard input is gone."""
    parser = argparse.ArgumentParser(prog="penstock trial")
    parser.add_argument("settings", type=Path)
    parser.add_argument("--run-folder", type=Path, required=True)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--runtime", default="auto")
    add_logging_arguments(parser)
    arguments = parser.parse_args(argv)
    show_faults()
    configure_logging("trial", form=arguments.log_format, level=arguments.log_level)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the supervisor's
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    os.nice(19)
    signal.alarm(start_s_max)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        settings = settings_of(
            load_settings(arguments.settings), bundle=arguments.bundle, runtime=arguments.runtime
        )
        with opened(settings, run_folder=None if arguments.bundle else arguments.run_folder) as trying:
            signal.alarm(0)
            _say(answers, {"ready": True})
            for line in sys.stdin.buffer:
                signal.alarm(answer_s_max)
                _say(answers, _answer(trying, orjson.loads(line)))
                signal.alarm(0)
    except PenstockError as error:
        _say(answers, {"fault": sentence("trial.not_loaded", reason=str(error))})
        return 1
    return 0


def settings_of(settings: Settings, *, bundle: Path | None, runtime: str) -> Settings:
    """The stream's, on the processor and one thread of it; with another bundle where one is given."""
    model: dict[str, Any] = {"device": "cpu", "threads": 1, "runtime": runtime, "cache_rows": 0}
    if bundle is not None:
        model |= {"path": bundle, "digest": None}
    objective = settings.objective.model_copy(update={"batch_rows_max": batch_rows_max})
    return settings.model_copy(
        update={"model": settings.model.model_copy(update=model), "objective": objective}
    )


@contextmanager
def opened(settings: Settings, *, run_folder: Path | None) -> Iterator[Trying]:
    """The model loaded and proved as a worker proves it; what it holds is released at the end. Raises PenstockError."""
    from penstock.connectors.kafka.reading.one_record import OneRecord

    clock = SystemClock()
    startup = Startup(
        settings=settings, clock=clock, copy=None if run_folder is None else copied_model(run_folder)
    )
    with ExitStack() as held:
        if settings.registry is not None:
            startup.schemas = registry = open_registry(settings.registry, clock)
            held.callback(registry.close)
        walk(startup, [each for each in worker_steps if each.name == "bundle"], "model")
        free = free_bytes()
        require_room(worker_bytes(startup.the(startup.bundle)), free)
        limit_memory(free)
        walk(startup, [each for each in worker_steps if each.name in trial_steps], "model")
        record = OneRecord(
            client_config(settings.kafka),
            topic=settings.input.topic,
            group=settings.kafka.group,
            call_s=record_call_s,
        )
        held.callback(record.close)
        yield trying_of(startup, read=record.read)


def trying_of(startup: Startup, *, read: Any) -> Trying:
    """From a start whose model, input and explanations are there. `read`: as Trying takes it."""
    settings, bundle = startup.settings, startup.the(startup.bundle)
    documents, masks = record_documents(settings, bundle=bundle, name="", schemas=startup.schemas)
    explainer = None if startup.explainer is None else OfOneClass(startup.explainer)
    stages = Stages(
        startup.the(startup.model),
        explainer=explainer,
        clock=startup.clock,
        decoder=startup.the(startup.decoder),
    )
    return Trying(
        bundle=bundle, stages=stages, explainer=explainer, documents=documents, masks=masks, read=read, clock=startup.clock,
    )  # fmt: skip


def require_room(needed: int, free: int | None) -> None:
    """Raises ConfigError where a model beside the workers' could take memory from them."""
    if free is not None and needed > free * taken_max:
        raise ConfigError(
            f"a model beside the workers' needs about {as_text(needed)}, and {as_text(free)} are free, of which half is left "
            "to the stream: give the container more memory"
        )


def limit_memory(free: int | None) -> None:
    """From now on this process can take that share of what is free and no more: what asks for more ends it, and nobody else."""
    taken = data_bytes()
    if free is None or taken is None:
        return
    limit = taken + int(free * taken_max)
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _answer(trying: Trying, asked: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return trying.answer(asked)
    except PenstockError as error:
        return {"fault": sentence("trial.not_done", reason=str(error))}


def _say(answers: BinaryIO, answer: Mapping[str, Any]) -> None:
    answers.write(orjson.dumps(answer) + b"\n")
    answers.flush()


if __name__ == "__main__":
    raise SystemExit(run_and_leave(main))
