"""A secret that lies in a file."""

import os
import stat
from pathlib import Path


def read_secret_bytes(file: Path, bytes_max: int) -> bytes:
    """The first bytes of a file, at most so many. Raises OSError, of what is no file (a folder, a pipe, in which nobody may ever
    write) too."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as opened:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "it is no file")
        return opened.read(bytes_max)
