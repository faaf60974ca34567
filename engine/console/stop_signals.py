"""Which signals ask a process of ours to stop."""

import signal
import sys
from types import FrameType


def stop_signals() -> tuple[signal.Signals, ...]:
    """SIGTERM, SIGINT, and SIGHUP, by which a terminal that goes away takes leave, unless whoever started us has us pass over that
    one (nohup): a process that simply died of it would leave its temporary folder behind, and its workers to find out."""
    hung_up = (signal.SIGHUP,) if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else ()
    return signal.SIGTERM, signal.SIGINT, *hung_up


class EndsAtOnce:
    """A signal handler that ends the program, for while nothing is in hand yet.

    Not always at once: what is raised amid a callback that a library makes from C is printed there and passed over. Whoever takes
    the signals over asks `heard`.
    """

    def __init__(self) -> None:
        self.heard = False
        """Whether the program was asked to end."""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.heard = True
        sys.exit(0)
