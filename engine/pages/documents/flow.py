"""The page `/`: what flows, what each stage takes, and what limits it."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from penstock.engine.pages.counts import ages, quantile
from penstock.engine.pages.documents.hints import hints_shown
from penstock.engine.pages.sentences import sentence
from penstock.engine.pages.told_texts import as_told
from penstock.engine.pages.watch import Change, Known, Picture

stages: Final = ("wait", "decode", "infer", "explain", "encode", "deliver")
computed: Final = stages[1:5]
queues: Final = ("batcher", "compute", "delivery")
changes_told: Final = 40
busy_limits, blocked_limits, stage_limits = 0.8, 0.4, 0.5
_calm_lag_s: Final = 1.0

Sentence = dict[str, Any]


def flow_document(picture: Picture) -> dict[str, Any]:
    """The schema's `flow`."""
    told, lately = picture.told, picture.lately
    stage_rows = lately.of("rows.sum")
    buckets = ages(lately)
    batches = lately.by_label("batches")
    closed = sum(batches.values())
    quantiles = [quantile(buckets, share) for share in (0.5, 0.99)]
    return {
        "page": "flow",
        "at_ms": picture.at_ms,
        "group": picture.facts.group,
        "topic": picture.facts.topic,
        "state": state(picture),
        "objective_ms": picture.facts.objective_ms,
        "window_s": lately.span_s,
        "limit": limit(picture),
        "hints": hints_shown(picture),
        "totals": totals(told),
        "records_per_s": records_per_s(picture),
        "latency": {
            "p50_ms": None if quantiles[0] is None else quantiles[0] * 1000,
            "p99_ms": None if quantiles[1] is None else quantiles[1] * 1000,
            "records": round(buckets[-1][1]) if buckets else 0,
        },
        "workers": [worker_line(slot, known) for slot, known in picture.workers.items()],
        "stages": [_stage(picture, stage, stage_rows) for stage in stages],
        "queues": [
            {"queue": queue, "rows": round(sum(each["queues"].get(queue, 0.0) for each in told.values()))}
            for queue in queues
        ],
        "batches": [{"reason": reason, "batches": round(count)} for reason, count in sorted(batches.items())],
        "rows_per_batch": stage_rows / closed if closed else None,
        "changes": changes(picture.changes),
        "series": series(picture),
    }


def state(picture: Picture) -> str:
    """Of all workers together: the one that needs a look first."""
    if not picture.workers:
        return "none"
    told = picture.told
    if any(
        each["status"]["kafka"] is not None and not each["status"]["kafka"]["reachable"]
        for each in told.values()
    ):
        return "away"
    states = [each["status"]["state"] for each in told.values()]
    if "running" in states:
        return "waiting" if any(each["status"]["waits_for"] for each in told.values()) else "running"
    if "draining" in states:
        return "draining"
    return "stopped" if states and set(states) == {"stopped"} else "starting"


def totals(told: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """The counters of the workers that run now, as /metrics has them."""

    def of(outcome: str) -> int:
        return round(float(sum(each["counters"].get(f"records.{outcome}", 0.0) for each in told.values())))

    found = {outcome: of(outcome) for outcome in ("predicted", "explained", "rejected", "skipped")}
    in_flight = round(sum(sum(each["queues"].values()) for each in told.values()))
    return {
        "finished": found["predicted"] + found["rejected"] + found["skipped"],
        **found,
        "in_flight": in_flight,
    }


def records_per_s(picture: Picture) -> float | None:
    """Finished, whatever became of them."""
    rates = [picture.lately.rate(f"records.{outcome}") for outcome in ("predicted", "rejected", "skipped")]
    known = [each for each in rates if each is not None]
    return sum(known) if known else None


def worker_line(slot: str, known: Known) -> dict[str, Any]:
    """The schema's `worker`."""
    if known.told is None:
        return {
            "slot": slot, "worker": None, "state": "silent", "ready": False, "reason": known.fault, "reason_said": as_told(known.fault), "records_per_s": None,
            "capacity_records_per_s": None, "busy": None, "blocked": None, "idle": None, "in_flight_batches": None,
            "partitions": 0, "model_digest": None,
        }  # fmt: skip
    status, ready = known.told["status"], known.told["ready"]
    shares = known.shares(60.0)
    busy, blocked, idle = (None, None, None) if shares is None else shares
    return {
        "slot": slot,
        "worker": status["worker"],
        "state": status["state"],
        "ready": ready["ok"],
        "reason": ready["reason"],
        "reason_said": as_told(ready["reason"]),
        "records_per_s": status["finished_records_per_s"],
        "capacity_records_per_s": status["capacity_records_per_s"] or None,
        "busy": busy,
        "blocked": blocked,
        "idle": idle,
        "in_flight_batches": status["in_flight_batches"],
        "partitions": len(status["assigned"]),
        "model_digest": None if status["model"] is None else status["model"]["digest"],
    }


def changes(known: tuple[Change, ...]) -> list[dict[str, Any]]:
    """The newest, oldest first."""
    return [asdict(each) | {"said": as_told(each.text)} for each in known[-changes_told:]]


def series(picture: Picture) -> dict[str, list[Any]]:
    """One value a second."""
    names = ("at_ms", "records_per_s", "busy", "blocked", "idle", "queue_rows", "lag_s", "p99_ms")
    return {name: [getattr(point, name) for point in picture.points] for name in names}


def _stage(picture: Picture, stage: str, rows: float) -> dict[str, Any]:
    lately = picture.lately
    spent_s, batches = lately.of(f"stage.{stage}.sum"), lately.of(f"stage.{stage}.count")
    return {
        "stage": stage,
        "batches": round(batches),
        "seconds": spent_s,
        "busy": spent_s / lately.span_s if lately.span_s > 0 else None,
        "mean_ms": spent_s / batches * 1000 if batches else None,
        "us_per_record": spent_s / rows * 1e6 if rows and stage in computed else None,
    }


def limit(picture: Picture) -> Sentence:
    """What limits the flow, with what tells so."""
    told = picture.told
    standing = _standing(picture)
    if standing is not None:
        return standing
    shares = [each for slot in told if (each := picture.workers[slot].shares(30.0)) is not None]
    if not shares:
        return sentence("limit.too_early")
    busy, blocked, _ = (max(each) for each in zip(*shares, strict=True))
    lags = [each["lag_totals"]["age_s"] for each in told.values()]
    known = [each for each in lags if each is not None]
    lag_s = max(known, default=None)
    rate = _rounded(records_per_s(picture))
    capacity = sum(each["status"]["capacity_records_per_s"] for each in told.values())
    seconds = {stage: picture.lately.of(f"stage.{stage}.sum") for stage in computed}
    spent_s = sum(seconds.values())
    if busy >= busy_limits and spent_s > 0:
        worst = max(seconds, key=lambda stage: seconds[stage])
        share = seconds[worst] / spent_s
        code = "limit.stage" if share >= stage_limits else "limit.compute"
        return sentence(code, stage=worst, share=_percent(share), busy=_percent(busy), lag_s=lag_s, rate=rate)
    if blocked >= blocked_limits:
        return sentence("limit.deliver", blocked=_percent(blocked), busy=_percent(busy), rate=rate)
    if not rate:
        code = "limit.unread" if lag_s is not None and lag_s > _calm_lag_s else "limit.no_input"
        return sentence(code, lag_s=lag_s)
    if lag_s is not None and lag_s > max(_calm_lag_s, 4 * picture.facts.objective_ms / 1000):
        return sentence("limit.input", lag_s=lag_s, busy=_percent(busy), rate=rate)
    p99_s = quantile(ages(picture.lately), 0.99)
    objective_ms = picture.facts.objective_ms
    if p99_s is not None and p99_s * 1000 > objective_ms:
        return sentence(
            "limit.late", p99_ms=float(round(p99_s * 1000)), objective_ms=objective_ms, busy=_percent(busy)
        )
    return sentence("limit.none", rate=rate, busy=_percent(busy), capacity=capacity or None)


def _standing(picture: Picture) -> Sentence | None:
    """Why nothing flows at all, where that is so."""
    told = picture.told
    if not picture.workers:
        return sentence("limit.no_worker", workers=picture.facts.workers)
    if not told:
        return sentence("limit.silent", reason=next(iter(picture.workers.values())).fault)
    for each in told.values():
        kafka = each["status"]["kafka"]
        if kafka is not None and not kafka["reachable"]:
            return sentence(
                "limit.away", address=kafka["address"], age_s=kafka["answer_age_s"], fault=kafka["fault"]
            )
    if not any(each["status"]["state"] == "running" for each in told.values()):
        first = next(iter(told.values()))
        return sentence("limit.not_running", reason=first["ready"]["reason"])
    waits = [each for one in told.values() for each in one["status"]["waits_for"]]
    assigned = sum(len(each["status"]["assigned"]) for each in told.values())
    if waits and len(waits) >= assigned:
        return sentence("limit.waits", reason=waits[0]["reason"])
    return None


def _rounded(rate: float | None) -> float | None:
    """Without digits that only flicker."""
    return rate if rate is None or rate < 10 else float(round(rate))


def _percent(share: float) -> int:
    return round(share * 100)
