"""Trains on March, packages the model, and says what the windowed feature is worth."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightgbm
import pandas as pd
from flights import events, load_flights
from last_hour import Departures, add_departure, mean_delay_min
from sklearn.metrics import roc_auc_score

from penstock.engine.models.packaging.package import package

of_the_flight = ["scheduled_hour", "distance_mi", "carrier", "airport"]
features = ["airport_delay_min", *of_the_flight]


def boardings(flights: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """What app.py will send for these flights."""
    last_hour: dict[str, Departures] = defaultdict(dict)
    for event in events(flights):
        airport, at_s = event["airport"], event["at"].timestamp()
        if event["delay_min"] is not None:
            last_hour[airport] = add_departure(last_hour[airport], event["flight"], at_s, event["delay_min"])
        else:
            yield event | {"airport_delay_min": mean_delay_min(last_hour[airport], at_s)}


def table(first_day: str, last_day: str) -> tuple[pd.DataFrame, pd.Series]:
    """The model's rows of these days, and whether each flight left more than 15 minutes late."""
    flights = load_flights(first_day, last_day)
    rows = pd.DataFrame(boardings(flights)).set_index("flight")
    late = flights.set_index("flight")["delay_min"].reindex(rows.index) > 15
    types = {"airport_delay_min": float, "carrier": "category", "airport": "category"}
    return rows[features].astype(types), late


def train(rows: pd.DataFrame, late: pd.Series) -> lightgbm.LGBMClassifier:
    return lightgbm.LGBMClassifier(n_estimators=60, max_depth=6, n_jobs=1, verbose=-1).fit(rows, late)


march, march_late = table("2013-03-01", "2013-03-31")
april, april_late = table("2013-04-01", "2013-04-14")
model = train(march, march_late)
model_without = train(march[of_the_flight], march_late)
auc = roc_auc_score(april_late, model.predict_proba(april)[:, 1])
auc_without = roc_auc_score(april_late, model_without.predict_proba(april[of_the_flight])[:, 1])
print(f"without the last hour: AUC {auc_without:.3f} on two weeks of April")
print(f"with the last hour: AUC {auc:.3f} on two weeks of April")

package(
    model,
    "models/late-departure",
    classes=("on_time", "late"),
    rows=march.head(2000),
    input_schema=Path("boarding.avsc"),
)
print("packaged in models/late-departure")
