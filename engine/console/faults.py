"""A fault that nobody expected: its traceback in the log, or on standard error, without what acts on a terminal."""

import logging
import sys
import threading
import traceback
from types import TracebackType

from penstock.engine.console.terminal import printable
from penstock.schemas.log_codes import LogCode

logger = logging.getLogger("penstock.faults")


def show_faults() -> None:
    """From now on what ends this process, or a thread of it, goes through the door that all strings go through.

    The text of an exception holds what somebody wrote, a record's bytes for one. Where this process logs, the fault is a line of its
    log, in the form of the others, and so are the warnings of libraries; who looks at threads already (a test's runner) goes on to.
    """
    sys.excepthook = _of_process
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _of_thread


def _of_process(kind: type[BaseException], fault: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, Exception):  # an interrupt
        sys.__excepthook__(kind, fault, trace)
        return
    _show("ended by a fault of its own", fault)


def _of_thread(told: threading.ExceptHookArgs) -> None:
    if told.exc_value is not None and not isinstance(told.exc_value, SystemExit):
        _show(
            f"the thread {told.thread.name if told.thread else '?'} ended by a fault of its own",
            told.exc_value,
        )


def _show(what: str, fault: BaseException) -> None:
    if logging.getLogger().handlers:
        logger.critical("%s", what, exc_info=fault, extra=LogCode.UNEXPECTED_FAULT.extra)
        return
    text = "".join(traceback.format_exception(fault))
    sys.stderr.write(f"{printable(text, lines=True)}")
