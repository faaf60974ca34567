"""How a process ends that has a Kafka client in it."""

import atexit
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress

from penstock.engine.console.terminal import printable


def run_and_leave(main: Callable[[], int]) -> int:
    """What `main` returns, in a process that ends without taking the interpreter down.

    The client's own threads call back into the interpreter, for an answer that nobody waits for any more, say. Python waits for its own
    threads at the end and knows nothing of these: where one of them calls while it takes the interpreter down, the process dies of
    SIGSEGV (in PyGILState_Ensure, under librdkafka's background thread). What is registered for the end is done as ever,
    standard output and error are flushed, and then the process is gone.
    """
    leaving = _Leaving()
    atexit.register(leaving.leave)  # the first to be registered, and so the last to be called
    try:
        leaving.code = main()
    except SystemExit as stop:
        leaving.code = 0 if stop.code is None else stop.code if isinstance(stop.code, int) else 1
        raise
    return leaving.code


class _Leaving:
    def __init__(self) -> None:
        self.code = 1  # of whom an exception ends

    def leave(self) -> None:
        logging.shutdown()
        try:
            if sys.stdout is not None:  # closed by whoever started us
                sys.stdout.flush()
        except (OSError, ValueError) as error:
            self.code = self.code or 1
            if not isinstance(error, BrokenPipeError):  # who reads no further knows it
                with suppress(OSError, ValueError, AttributeError):
                    sys.stderr.write(f"penstock: cannot write to standard output: {printable(str(error))}\n")
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()
        os._exit(self.code)
