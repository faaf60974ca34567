"""On SIGUSR1 a process writes what each of its threads is doing, and goes on."""

import faulthandler
import signal
from collections.abc import Callable


def write_stacks_on_signal(then: Callable[[], None] | None = None) -> None:
    """From now on SIGUSR1 writes the stack of every thread to standard error, also while native code holds the interpreter; then
    `then` is called, when the interpreter next comes to it. Main thread only.

    Plain lines among JSON ones: what writes them may be all that still works.
    """
    if then is not None:
        signal.signal(signal.SIGUSR1, lambda *_: then())
    faulthandler.register(signal.SIGUSR1, all_threads=True, chain=then is not None)
