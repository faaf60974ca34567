"""A worker process: `python -m penstock.engine.worker.main SETTINGS --slot K --run-folder DIR`, started by the supervisor."""

import argparse
import logging
import os
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from penstock.engine.clock import SystemClock
from penstock.engine.console.exhausted import exhaustion_told
from penstock.engine.console.faults import show_faults
from penstock.engine.console.leaving import run_and_leave
from penstock.engine.console.logs import add_logging_arguments, configure_logging
from penstock.engine.console.stacks import write_stacks_on_signal
from penstock.engine.console.terminal import write_safely
from penstock.engine.pipeline.collector import calm_collector, no_collector
from penstock.engine.worker.process import exit_retry
from penstock.schemas.errors import ConfigError, FencedError, PenstockError, UnavailableError
from penstock.schemas.log_codes import LogCode

logger = logging.getLogger("penstock.worker")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one worker until it is asked to stop; the exit code tells the supervisor what to do next."""
    parser = argparse.ArgumentParser(prog="penstock worker")
    parser.add_argument("settings", type=Path)
    parser.add_argument("--slot", type=int, required=True)
    parser.add_argument("--run-folder", type=Path, required=True)
    parser.add_argument("--http-port", type=int, default=0)
    parser.add_argument("--careful", type=int, default=0)
    add_logging_arguments(parser)
    arguments = parser.parse_args(argv)
    write_safely()
    show_faults()
    configure_logging(f"worker {arguments.slot}", form=arguments.log_format, level=arguments.log_level)
    write_stacks_on_signal()
    try:
        return _run(
            arguments.settings,
            arguments.slot,
            arguments.run_folder,
            arguments.http_port,
            careful=arguments.careful,
        )
    except ConfigError as error:
        logger.error("%s", error, extra=LogCode.WORKER_REFUSED.extra)
        return 2
    except FencedError as error:
        logger.error("%s", error, extra=LogCode.FENCED.extra)
        return 3
    except UnavailableError as error:
        logger.warning("%s", error, extra=LogCode.WORKER_AWAITS.extra)
        return exit_retry
    except PenstockError as error:
        logger.error("%s", error, extra=LogCode.WORKER_FAILED.extra)
        return 1


def _run(settings_path: Path, slot: int, run_folder: Path, http_port: int, *, careful: int) -> int:
    signals = _Signals()
    signal.signal(signal.SIGTERM, signals)
    signal.signal(signal.SIGINT, signals)
    begin = threading.Event()
    _follow_parent(begin)
    no_collector()
    # Late: a wrong argument is answered, and a stop is heard, before the libraries load.
    with exhaustion_told():
        from penstock.engine.models.runtime.onnx_runtime import onnx_runtime
        from penstock.engine.settings.model import load_settings
        from penstock.engine.worker.kafka import open_kafka_worker

        onnx_runtime()
    begin.wait()
    if signals.heard:
        return 0
    settings = load_settings(settings_path)

    def stopping() -> bool:
        return signals.heard

    opening = open_kafka_worker(
        settings,
        slot=slot,
        run_folder=run_folder,
        http_port=http_port,
        clock=SystemClock(),
        stopping=stopping,
        careful=careful,
    )
    try:
        with ExitStack() as held:
            with exhaustion_told():
                worker = held.enter_context(opening)
            signals.pass_on_to(worker.pipeline.request_stop)
            with calm_collector():
                worker.run(until=worker.over)
            if worker.over():
                logger.warning(
                    "careful reading is over; the next worker reads as ever",
                    extra=LogCode.CAREFUL_READING_STEP.extra,
                )
                return exit_retry
            return 0
    except UnavailableError:
        if stopping():  # nothing was in hand yet
            return 0
        raise


class _Signals:
    """Remembers stop signals until there is somebody to tell: a worker that is still warming up must not miss one."""

    def __init__(self) -> None:
        self._early = 0
        self._tell: Callable[[], None] | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._tell is None:
            self._early += 1
        else:
            self._tell()

    @property
    def heard(self) -> bool:
        """Whether a stop came before there was somebody to tell."""
        return self._early > 0

    def pass_on_to(self, tell: Callable[[], None]) -> None:
        self._tell = tell
        for _ in range(self._early):
            tell()


def _follow_parent(begin: threading.Event) -> None:
    """The supervisor holds the other end of our standard input: a byte lets us begin; when it is gone, we drain."""

    def follow() -> None:
        while os.read(0, 4096):
            begin.set()
        os.kill(os.getpid(), signal.SIGTERM)
        begin.set()

    threading.Thread(target=follow, name="parent", daemon=True).start()


if __name__ == "__main__":
    raise SystemExit(run_and_leave(main))
