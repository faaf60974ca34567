"""Trains a model of the minutes a flight will be in the air, and packages it for Penstock."""

import xgboost
from flights import features, load_flights

from penstock.engine.models.packaging.package import package

past = load_flights("2013-04-01", "2013-06-30")
rows = past[features].astype({"carrier": "category", "origin": "category", "destination": "category"})
model = xgboost.XGBRegressor(n_estimators=100, max_depth=5, enable_categorical=True, n_jobs=1)
model.fit(rows, past["air_time"])

report = package(model, "models/air-time", rows=rows.head(2000))
compared = report.parity.rows_given + report.parity.rows_made_up
print(f"trained on {len(past):,} flights, packaged in {report.path}")
print(
    f"the package says what XGBoost says: at most {report.parity.difference_max:.1g} apart on {compared:,} rows"
)
