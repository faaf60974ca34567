"""How long a member of a group may be silent, and how often it speaks: the defaults, and what of them has to agree."""

from collections.abc import Mapping
from typing import Final

session_timeout_ms: Final = 8_000
"""So long the partitions of a worker that was killed stand still; heartbeats come from a thread of the client. With the time that its
successor takes to join, on a busy machine too, this stays below 12 s; eight heartbeats have to be missed in turn, and no broker
that is left as it comes asks for more than 6 s (`group.min.session.timeout.ms`)."""
heartbeat_ms: Final = 1000
"""How soon a rebalance is heard of."""
heartbeats_min: Final = 3
"""In a session: with one, a member that is well is taken for dead whenever its heartbeat takes a little longer than the last."""


def session_ms(properties: Mapping[str, object], *, poll_interval_max_ms: float) -> float:
    """The session of a member with these client properties (librdkafka's names), in milliseconds."""
    chosen = properties.get("session.timeout.ms")
    return float(str(chosen)) if chosen is not None else min(session_timeout_ms, int(poll_interval_max_ms))


def heartbeat_fault(properties: Mapping[str, object], *, poll_interval_max_ms: float) -> str | None:
    """What is wrong with the chosen heartbeat, in a sentence; None when nothing is, or none is chosen."""
    chosen = properties.get("heartbeat.interval.ms")
    session = session_ms(properties, poll_interval_max_ms=poll_interval_max_ms)
    if chosen is None or float(str(chosen)) < session:
        return None
    unset = "" if "session.timeout.ms" in properties else " unless set"
    return (
        f"heartbeat.interval.ms, {chosen}, has to be less than session.timeout.ms, which is {session:.0f}{unset}, at most a third "
        "of it: else a member that is well is taken for dead between two heartbeats"
    )
