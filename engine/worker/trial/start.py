"""Trials of a supervisor: which process tries which bundle."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from penstock.engine.clock import SystemClock
from penstock.engine.settings.model import Settings
from penstock.engine.worker.trial.trials import Trials, served


@contextmanager
def started_trials(
    settings_path: Path,
    settings: Settings,
    run_folder: Path,
    logging_words: Sequence[str],
    *,
    runtime: Callable[[], str],
) -> Iterator[Trials]:
    """Trials whose processes are gone in the end. `logging_words`: options that say how a process of ours logs; `runtime`: what runs
    the model in the workers."""

    def start(bundle: str) -> "subprocess.Popen[bytes]":
        which = (
            ("--runtime", runtime()) if bundle == served else ("--bundle", str(settings.http.bundles[bundle]))
        )
        # In a group of its own a terminal's Ctrl-C does not reach it: it ends with its standard input, however we go.
        return subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "penstock.engine.worker.trial.main", str(settings_path)),
                *("--run-folder", str(run_folder), *which, *logging_words),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ,
            process_group=0,
        )

    trials = Trials(start, bundles=tuple(settings.http.bundles), clock=SystemClock())
    try:
        yield trials
    finally:
        trials.close()
