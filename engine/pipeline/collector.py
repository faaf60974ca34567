"""Python's garbage collector, told to look less often while records pass in thousands."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def calm_collector() -> Iterator[None]:
    """Each batch makes thousands of objects that the collector tracks and that end without it: looking at them at its
    usual pace took a tenth of a worker's time. What is there by now stays; looking through it finds next to nothing."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(200_000, 20, 50)
    gc.enable()
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()  # or what is in cycles outlives the native libraries, which then complain of leaks


def no_collector() -> None:
    """Until `calm_collector` or `collector_again`: a start makes objects that stay, and looking through them took a tenth of it."""
    gc.disable()


def collector_again() -> None:
    """At its usual pace, for what is made from now on."""
    gc.freeze()
    gc.enable()
