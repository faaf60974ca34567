"""What the port of a worker answers, and the one of its supervisor, which speaks for several: /metrics, /live, /ready, /status."""

from collections.abc import Callable, Mapping
from http import HTTPStatus

import orjson

from penstock.engine.clock import SystemClock
from penstock.engine.telemetry.ask_workers import Reply, ask_workers, reason_of
from penstock.engine.telemetry.http_server import Answer, HttpServer, Routes, json_answer, openmetrics_path
from penstock.engine.telemetry.metric_declarations import (
    content_type,
    openmetrics_type,
    render,
    render_openmetrics,
)
from penstock.engine.telemetry.metrics import Metrics
from penstock.engine.telemetry.status import StatusBoard
from penstock.engine.telemetry.supervisor_metrics import SupervisorMetrics
from penstock.engine.telemetry.worker_status import Verdict


def verdict_answer(verdict: Verdict) -> Answer:
    """200 or 503, with the reason."""
    return json_answer({"ok": verdict.ok, "reason": verdict.reason}, ok=verdict.ok)


def worker_routes(*, metrics: Metrics, board: StatusBoard) -> Routes:
    """What one worker answers."""

    clock = SystemClock()

    def exposition(openmetrics: bool) -> Answer:
        began_s = clock.monotonic_s()
        metrics.ready.set(
            board.ready().ok
        )  # the loop that keeps the gauges may not have begun, or have ended
        body = render_openmetrics(metrics.registry) if openmetrics else render(metrics.registry)
        metrics.telemetry_seconds.labels(part="scrape").inc(clock.monotonic_s() - began_s)
        return Answer(body=body, content_type=openmetrics_type if openmetrics else content_type)

    return {
        "/metrics": lambda: exposition(False),
        openmetrics_path: lambda: exposition(True),
        "/live": lambda: verdict_answer(board.live()),
        "/ready": lambda: verdict_answer(board.ready()),
        "/status": lambda: json_answer(board.status().as_dict()),
    }


def serve_worker(*, metrics: Metrics, board: StatusBoard, host: str, port: int) -> HttpServer:
    """A worker's server, to be entered with `with`. Raises ConfigError when the port cannot be had."""
    return HttpServer(worker_routes(metrics=metrics, board=board), host=host, port=port)


class SupervisorView:
    """One port for N workers: asks each on its loopback port and puts the answers together."""

    def __init__(self, *, metrics: SupervisorMetrics, ports: Callable[[], Mapping[str, int]]) -> None:
        """`ports`: worker to the loopback port it serves, of the workers that run now."""
        self._metrics = metrics
        self._ports = ports
        self._clock = SystemClock()

    def routes(self) -> Routes:
        """What the supervisor answers."""
        return {
            "/metrics": lambda: self._exposition("/metrics"),
            openmetrics_path: lambda: self._exposition(openmetrics_path),
            "/live": lambda: self._combined("/live"),
            "/ready": lambda: self._combined("/ready"),
            "/status": self._status,
        }

    def _exposition(self, path: str) -> Answer:
        began_s = self._clock.monotonic_s()
        replies = self._ask_all(path)
        self._metrics.workers_running.set(len(replies))
        bodies = {
            worker: reply.body.decode()
            for worker, reply in replies.items()
            if reply.body and reply.status == HTTPStatus.OK
        }
        merged = merge_expositions(bodies)
        self._metrics.scrape_seconds.inc(self._clock.monotonic_s() - began_s)
        if path == openmetrics_path:
            return Answer(
                body=merged + render_openmetrics(self._metrics.registry), content_type=openmetrics_type
            )
        return Answer(body=merged + render(self._metrics.registry), content_type=content_type)

    def _combined(self, path: str) -> Answer:
        """Well when every worker is. One that does not listen yet is starting: live, since we look after it, but not ready."""
        replies = self._ask_all(path)
        faults = {}
        for worker, reply in replies.items():
            if reply.status is None and path == "/live" and not reply.timed_out:
                continue
            if reply.status != HTTPStatus.OK:
                faults[worker] = reason_of(reply)
        ok = not faults and (bool(replies) or path == "/live")
        return json_answer({"ok": ok, "workers": len(replies), "faults": faults}, ok=ok)

    def _status(self) -> Answer:
        replies = self._ask_all("/status")
        reports = {
            worker: orjson.loads(reply.body) if reply.body else {"state": reason_of(reply)}
            for worker, reply in replies.items()
        }
        return json_answer({"workers": reports})

    def _ask_all(self, path: str) -> dict[str, Reply]:
        return ask_workers(self._ports(), lambda _: path)


def merge_expositions(expositions: Mapping[str, str]) -> bytes:
    """The workers' expositions as one: each sample gains worker="..."; a family's HELP and TYPE stand once, before its samples."""
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for worker, text in expositions.items():
        family = ""
        for line in text.split(
            "\n"
        ):  # and at no other sign: label values may hold any that Python counts as a line's end
            if line == "# EOF":  # of the OpenMetrics form: there is one, at the end of all
                continue
            if line.startswith("# "):
                family = line.split(" ", 3)[2]
                known = heads.setdefault(family, [])
                if line not in known and len(known) < 2:
                    known.append(line)
            elif line:
                samples.setdefault(family, []).append(_with_worker(line, worker))
    lines = [line for family, head in heads.items() for line in (*head, *samples.get(family, ()))]
    return "".join(f"{line}\n" for line in lines).encode()


def _with_worker(sample: str, worker: str) -> str:
    escaped = worker.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    name, brace, rest = sample.partition("{")
    if brace:
        return f'{name}{{worker="{escaped}"{"" if rest.startswith("}") else ","}{rest}'
    name, _, value = sample.partition(" ")
    return f'{name}{{worker="{escaped}"}} {value}'
