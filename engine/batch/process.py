"""A process that scores parts for another: their numbers come in by lines, what became of them goes out by lines."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from penstock.engine.batch.part import Job, no_progress, open_job_model, part_files, score_part
from penstock.engine.clock import SystemClock
from penstock.engine.console.exhausted import exhaustion_told
from penstock.engine.console.faults import show_faults
from penstock.engine.pipeline.collector import calm_collector
from penstock.schemas.errors import PenstockError


def main(argv: Sequence[str] | None = None) -> int:
    """Arguments: the working folder. Ends when its standard input does."""
    (folder,) = map(Path, sys.argv[1:] if argv is None else argv)
    show_faults()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    try:
        with exhaustion_told():
            job = Job.from_json((folder / "job.json").read_bytes())
            model = open_job_model(job)
        clock = SystemClock()
        with calm_collector():
            for line in sys.stdin:
                number = int(line)
                files = part_files(folder, number, job.options.output_format)
                counts = score_part(job.parts[number], files, model, job.options, clock, no_progress)
                _answer(answers, {"counts": asdict(counts)})
    except PenstockError as error:
        _answer(answers, {"error": str(error)})
    except KeyboardInterrupt:
        return 130
    return 0


def _answer(answers: object, value: dict[str, object]) -> None:
    print(json.dumps(value), file=answers, flush=True)  # type: ignore[call-overload]


if __name__ == "__main__":
    sys.exit(main())
