"""An engine that stands still: a supervisor over one worker that says the same at each look."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from penstock.engine.clock import Clock, SystemClock
from penstock.engine.pages.supervisor import supervisor_pages
from penstock.engine.pages.watch import Facts
from penstock.engine.telemetry.http_server import Answer, HttpServer, json_answer

facts = Facts(
    group="g", topic="t", objective_ms=50, max_age_s=30, workers=1, predictions="p", explanations=None, dead_letters="d",
)  # fmt: skip
waits_for_transaction = {
    "partition": 3,
    "kind": "open_transaction",
    "since_ms": 1,
    "reason": "7 offsets wait for the end of a producer's transaction",
}


class StandingEngine:
    """With the worker's status as it shall be: a partition waits for the end of a transaction, unless `status` says more."""

    def __init__(
        self,
        held: ExitStack,
        *,
        clock: Clock | None = None,
        records: Sequence[Mapping[str, Any]] = (),
        described: Mapping[str, Any] | None = None,
        ready: Mapping[str, Any] | None = None,
        **status: Any,
    ) -> None:
        status = {
            "worker": "w", "state": "running", "kafka": None, "waits_for": [waits_for_transaction], "assigned": [3, 4], "model": None,
            "events": [], "capacity_records_per_s": 1000.0, "finished_records_per_s": 0.0, "in_flight_batches": 0,
            "rebalance_s": 0.0, "balance": None, **status,
        }  # fmt: skip
        told = {
            "at_s": 1.0, "status": status, "ready": ready or {"ok": True, "reason": "running on 2 partitions"},
            "counters": {"busy_s": 1.0, "blocked_s": 0.0}, "queues": {}, "blocked_s": 0.0, "sampled": len(records), "records_sampled": len(records), "records": list(records),
            "lags": [[3, 7.0, 99.0, 100, 0.0], [4, 0.0, 0.0, 5, 0.0]], "lag_totals": {"partitions": 2, "records": 7.0, "age_s": 99.0},
        }  # fmt: skip
        others: dict[str, Mapping[str, Any]] = {} if described is None else {"/pages/model": described}

        def one(path: str) -> Answer | None:
            return json_answer(others[path]) if path in others else None

        worker = held.enter_context(
            HttpServer(
                {},
                host="127.0.0.1",
                port=0,
                reader=lambda request: json_answer(told) if request.path == "/pages" else one(request.path),
            )
        )
        made = held.enter_context(
            supervisor_pages(facts, ports=lambda: {"0": worker.port}, hosts=(), clock=clock or SystemClock())
        )
        self.watch = made.watch
        self.port = held.enter_context(HttpServer({}, host="127.0.0.1", port=0, reader=made.reader)).port
        self.url = f"http://127.0.0.1:{self.port}"

    def send(self, count: int, *, poison: int = 0, start: int = 0) -> None:
        """Nobody sends."""
