"""Dates and times as numbers: what Avro stores of its logical types, and so what every other door makes of its own types.

A date is its days since 1970-01-01, whatever it is kept in. A time stamp, a time of day and a duration are the number of the
units that they are kept in: milliseconds of a `timestamp[ms]`, nanoseconds of a `datetime64[ns]`. A time stamp counts from
1970-01-01 UTC; one without a time zone is taken for UTC. Python's own objects are kept in microseconds.
"""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_epoch: Final = datetime(1970, 1, 1, tzinfo=UTC)
_epoch_day: Final = _epoch.toordinal()
_microsecond: Final = timedelta(microseconds=1)


def time_number(value: Any) -> int | None:
    """The number of a date, time or duration of Python, numpy or pandas; None where it is none at all (NaT).

    Raises TypeError for any other value.
    """
    value = getattr(value, "asm8", value)  # what pandas keeps it in
    if isinstance(value, np.datetime64 | np.timedelta64):
        return None if np.isnat(value) else int(value.astype(np.int64))
    if isinstance(value, datetime):
        return ((value if value.tzinfo else value.replace(tzinfo=UTC)) - _epoch) // _microsecond
    if isinstance(value, date):
        return value.toordinal() - _epoch_day
    if isinstance(value, time):
        seconds = (value.hour * 60 + value.minute) * 60 + value.second
        return seconds * 1_000_000 + value.microsecond
    if isinstance(value, timedelta):
        return value // _microsecond
    raise TypeError(f"{type(value).__name__} is no date and no time")


def is_time(value: Any) -> bool:
    """Whether `time_number` takes it."""
    return isinstance(value, date | time | timedelta | np.datetime64 | np.timedelta64)


def time_numbers(values: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
    """Those of an array of datetime64 or timedelta64, and which are none at all; None: each is one."""
    missing = np.isnat(values)
    return values.astype(np.int64), missing if missing.any() else None
