"""The windowed feature. Training and the stream both use this file, so both mean the same by it."""

window_s = 3600.0
kept_s = 2 * window_s  # after a restart some events are read again, and find the departures of their own hour
departures_max = 1000

Departures = dict[str, list[float]]
"""An airport's newest departures: by flight, when it left (seconds since 1970) and how late (minutes)."""


def add_departure(departures: Departures, flight: str, left_s: float, delay_min: float) -> Departures:
    """One more, and without those that are too old. A departure that is read twice counts once."""
    departures = {**departures, flight: [left_s, delay_min]}
    newest_s = max(left_s for left_s, _ in departures.values())
    kept = [(flight, entry) for flight, entry in departures.items() if entry[0] > newest_s - kept_s]
    return dict(kept[-departures_max:])


def mean_delay_min(departures: Departures, now_s: float) -> float | None:
    """The mean delay of those that left in the hour up to now; None when none did."""
    delays_min = [delay for left_s, delay in departures.values() if now_s - window_s < left_s <= now_s]
    return sum(delays_min) / len(delays_min) if delays_min else None
