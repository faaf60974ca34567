"""What stands in the way of reading the input, at one moment."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """Counts are since the start of the worker; keys are partitions."""

    doubts: Mapping[int, str] = field(default_factory=dict)  # what the client could not read, in words
    unreadable_offsets: int = 0  # set aside
    lost_offsets: int = 0  # deleted before the group read them
    recreations: int = 0  # how often the topic was found deleted and made anew
    stalled_s: Mapping[int, float] = field(default_factory=dict)  # behind, and nothing was read for so long
    unplaced_s: Mapping[int, float] = field(
        default_factory=dict
    )  # assigned, and where to begin could not be found out for so long
    open_transactions: Mapping[int, int] = field(
        default_factory=dict
    )  # offsets behind an open transaction of a producer
