"""The page `/scaling` as a supervisor knows it: its own workers, and what the scaler would be told of them."""

from typing import Any

from penstock.engine.pages.documents.flow import worker_line
from penstock.engine.pages.sentences import sentence
from penstock.engine.pages.told_texts import as_told
from penstock.engine.pages.watch import Picture


def scaling_document(picture: Picture) -> dict[str, Any]:
    """The schema's `scaling`."""
    told, wanted = picture.told, picture.facts.workers
    running = len(told)
    rate = picture.lately
    finished = [rate.rate(f"records.{outcome}") for outcome in ("predicted", "rejected", "skipped")]
    known = [each for each in finished if each is not None]
    capacities = [
        each["status"]["capacity_records_per_s"]
        for each in told.values()
        if each["status"]["capacity_records_per_s"]
    ]
    capacity = sum(capacities) / len(capacities) if capacities else None
    lags = [each["lag_totals"] for each in told.values()]
    backlog = (
        None
        if not lags or None in (each["records"] for each in lags)
        else sum(each["records"] for each in lags)
    )
    oldest_s = (
        None if not lags or None in (each["age_s"] for each in lags) else max(each["age_s"] for each in lags)
    )
    summary = [sentence("scaling.supervisor", running=running, wanted=wanted)]
    if capacity is not None and known:
        busy = round(100 * sum(known) / (capacity * max(running, 1)))
        summary.append(sentence("scaling.capacity", capacity=capacity, rate=sum(known), busy=busy))
    else:
        summary.append(sentence("scaling.capacity_unknown"))
    spare = sum(
        1 for each in told.values() if each["status"]["state"] == "running" and not each["status"]["assigned"]
    )
    if spare:
        summary.append(sentence("scaling.spare", spare=spare))
    summary.append(sentence("scaling.see_scaler"))
    return {
        "page": "scaling",
        "at_ms": picture.at_ms,
        "role": "supervisor",
        "summary": summary,
        "wanted": wanted,
        "asked": wanted,
        "running": running,
        "trusted": running == wanted,
        "demand": {
            "arrival_records_per_s": None,
            "forecast_records_per_s": None,
            "backlog_records": backlog,
            "oldest_age_s": oldest_s,
            "capacity_records_per_s": capacity,
        },
        "decisions": [
            {
                "at_ms": each.at_ms,
                "from": None,
                "to": None,
                "text": as_told(each.text),
            }
            for each in picture.changes
            if each.kind in ("worker", "draining", "stopped")
        ],
        "series": {
            "at_ms": [each.at_ms for each in picture.points],
            "running": [each.running for each in picture.points],
            "wanted": [wanted for _ in picture.points],
        },
        "workers": [worker_line(slot, each) for slot, each in picture.workers.items()],
    }
