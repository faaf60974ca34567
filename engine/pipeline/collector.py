"""Python's garbage collector, told to look less often while records pass in thousands."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def calm_collector() -> Iterator[None]:
    """Each batch makes thousands of objects that the collector tracks and that end without it: looking at them at its
    usual pace took a tenth of a worker's time."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()  # or what is in cycles outlives the native libraries, which then complain of leaks
