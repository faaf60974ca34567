"""Python's threads of a process, told to pass the interpreter on sooner than Python has them do by itself."""

import os
import sys

turn_s = float(os.environ.get("PENSTOCK_TURN_S", "0.0005"))


def short_turns() -> None:
    """A thread that waits for the interpreter asks the one that has it to let go after this, not after 5 ms."""
    sys.setswitchinterval(turn_s)
