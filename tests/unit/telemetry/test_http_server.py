"""The HTTP server is small, bounded, and one port can speak for several workers."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from penstock.engine.clock import SystemClock
from penstock.engine.telemetry import ask_workers as engine_asking
from penstock.engine.telemetry import http_server as engine_http
from penstock.engine.telemetry.http_server import Answer, HttpServer
from penstock.engine.telemetry.metric_declarations import render
from penstock.engine.telemetry.metrics import Metrics
from penstock.engine.telemetry.port_routes import SupervisorView, merge_expositions, serve_worker
from penstock.engine.telemetry.status import StatusBoard
from penstock.engine.telemetry.supervisor_metrics import SupervisorMetrics
from penstock.engine.telemetry.worker_status import ModelIdentity, WorkerState
from penstock.schemas.errors import ConfigError


def ask(port: int, path: str, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def new_board(worker: str = "w") -> StatusBoard:
    return StatusBoard(worker=worker, group="g", topic="t", clock=SystemClock(), rows_max=100)


def make_ready(board: StatusBoard) -> None:
    board.verified(ModelIdentity(name="m", version="1", digest="d", device="cpu"))
    board.set_state(WorkerState.JOINING)
    board.beat(in_flight_batches=0)
    board.rebalanced([0])


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with HttpServer({"/x": lambda: Answer(body=b"hello")}, host="127.0.0.1", port=0) as running:
        yield running


def test_a_worker_answers_its_four_paths() -> None:
    board, metrics = new_board(), Metrics(CollectorRegistry())
    with serve_worker(metrics=metrics, board=board, host="127.0.0.1", port=0) as server:
        assert ask(server.port, "/live")[0] == 200
        status, body = ask(server.port, "/ready")
        assert (status, json.loads(body)["ok"]) == (503, False)
        make_ready(board)
        assert ask(server.port, "/ready")[0] == 200
        assert json.loads(ask(server.port, "/status")[1])["state"] == "running"
        status, body = ask(server.port, "/metrics")
        assert status == 200
        assert b"\npenstock_ready 1.0\n" in body
        board.set_state(WorkerState.DRAINING)
        assert b"\npenstock_ready 0.0\n" in ask(server.port, "/metrics")[1]


def test_a_port_that_is_taken_is_a_clear_error(server: HttpServer) -> None:
    with pytest.raises(ConfigError, match=f"127.0.0.1:{server.port}"):
        HttpServer({}, host="127.0.0.1", port=server.port)


def test_a_host_that_does_not_exist_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match="cannot listen on"):
        HttpServer({}, host="256.1.1.1", port=0)


def test_the_port_is_free_again_after_close(server: HttpServer) -> None:
    with HttpServer({}, host="127.0.0.1", port=0) as other:
        port = other.port
    with HttpServer({}, host="127.0.0.1", port=port) as again:
        assert again.port == port


def test_only_get_and_head_on_known_paths(server: HttpServer) -> None:
    assert ask(server.port, "/x?y=1") == (200, b"hello")
    assert ask(server.port, "/x", "HEAD") == (200, b"")
    assert ask(server.port, "/x", "POST")[0] == 405
    assert ask(server.port, "/../etc/passwd")[0] == 404


def raw(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        received = b""
        with suppress(OSError):  # the server may have hung up already
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            while piece := client.recv(65536):
                received += piece
        return received


def test_requests_that_are_none_or_too_long_are_refused(server: HttpServer) -> None:
    assert raw(server.port, b"\x16\x03\x01 not http\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert raw(server.port, b"GET /x HTTP/1.1\r\n" + b"A: b\r\n" * 5000 + b"\r\n") == b""
    assert raw(server.port, b"GET /x HTTP") == b""
    assert ask(server.port, "/x")[0] == 200


def test_a_client_that_sends_nothing_is_dropped_in_time(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_http, "request_time_max_s", 0.05)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(b"GET /x HTTP/1.1\r\n")
        assert client.recv(100) == b""


def test_more_answers_than_allowed_are_refused_and_given_again_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_http, "answers_queued_max", 2)
    inside, leave = threading.Semaphore(0), threading.Event()

    def slow() -> Answer:
        inside.release()
        leave.wait(10)
        return Answer(body=b"slow")

    with HttpServer({"/slow": slow}, host="127.0.0.1", port=0) as server:
        answers: list[tuple[int, bytes]] = []
        clients = [
            threading.Thread(target=lambda: answers.append(ask(server.port, "/slow"))) for _ in range(2)
        ]
        for client in clients:
            client.start()
        for _ in clients:
            assert inside.acquire(timeout=10)
        assert raw(server.port, b"GET /slow HTTP/1.1\r\n\r\n") == b""
        leave.set()
        for client in clients:
            client.join(10)
        assert answers == [(200, b"slow")] * 2
        for _ in range(3):
            assert ask(server.port, "/slow") == (200, b"slow")


def families(text: bytes) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text.decode()):
        assert family.name not in found, f"{family.name} stands twice"
        found[family.name] = [(dict(sample.labels), sample.value) for sample in family.samples]
    return found


def test_neither_slow_clients_nor_slow_answers_keep_a_probe_waiting() -> None:
    """Three hundred that send a byte now and then, and as many slow answers as may be under way."""
    leave = threading.Event()

    def slow() -> Answer:
        leave.wait(20)
        return Answer(body=b"slow")

    routes = {"/live": lambda: Answer(body=b"live"), "/metrics": slow}
    with HttpServer(routes, host="127.0.0.1", port=0) as server, ExitStack() as held:
        for number in range(300):
            client = held.enter_context(socket.create_connection(("127.0.0.1", server.port), 5))
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n" if number % 10 == 0 else b"G")
        took_s = []
        for _ in range(20):
            began_s = time.monotonic()
            assert ask(server.port, "/live") == (200, b"live")
            took_s.append(time.monotonic() - began_s)
        assert sorted(took_s)[10] < 1.0  # any one of them may wait for a busy machine
        leave.set()


def test_merged_expositions_keep_every_sample_under_one_head_per_family() -> None:
    texts = {}
    for worker, lag in (("0", 3), ('odd"\\', 4)):
        metrics = Metrics(CollectorRegistry())
        metrics.lag_records.labels(topic='a"b{c} d', partition="1").set(lag)
        metrics.batch_rows.observe(7)
        texts[worker] = render(metrics.registry).decode()
    merged = families(merge_expositions(texts))
    for worker, text in texts.items():
        for name, expected in families(text.encode()).items():
            mine = [
                ({k: v for k, v in labels.items() if k != "worker"}, value)
                for labels, value in merged[name]
                if labels["worker"] == worker
            ]
            assert mine == expected, name
    lags = {labels["worker"]: value for labels, value in merged["penstock_lag_records"]}
    assert lags == {"0": 3, 'odd"\\': 4}


def test_merging_nothing_gives_nothing() -> None:
    assert merge_expositions({}) == b""


def test_the_supervisor_speaks_for_its_workers() -> None:
    boards = {"0": new_board("a"), "1": new_board("b")}
    with ExitStack() as stack:
        ports = {
            worker: stack.enter_context(
                serve_worker(metrics=Metrics(CollectorRegistry()), board=board, host="127.0.0.1", port=0)
            ).port
            for worker, board in boards.items()
        }
        view = SupervisorView(metrics=SupervisorMetrics(CollectorRegistry()), ports=lambda: ports)
        front = stack.enter_context(HttpServer(view.routes(), host="127.0.0.1", port=0))
        make_ready(boards["0"])
        status, body = ask(front.port, "/ready")
        assert status == 503
        assert list(json.loads(body)["faults"]) == ["1"]
        make_ready(boards["1"])
        assert ask(front.port, "/ready")[0] == 200
        assert ask(front.port, "/live")[0] == 200
        reports = json.loads(ask(front.port, "/status")[1])["workers"]
        assert {worker: report["worker"] for worker, report in reports.items()} == {"0": "a", "1": "b"}
        merged = families(ask(front.port, "/metrics")[1])
        assert [value for _, value in merged["penstock_workers_running"]] == [2]
        assert {labels["worker"] for labels, _ in merged["penstock_ready"]} == {"0", "1"}


def test_a_worker_that_does_not_listen_yet_is_live_but_not_ready() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        ports = {"0": reserved.getsockname()[1]}
        view = SupervisorView(metrics=SupervisorMetrics(CollectorRegistry()), ports=lambda: ports)
        with HttpServer(view.routes(), host="127.0.0.1", port=0) as front:
            assert ask(front.port, "/live")[0] == 200
            assert ask(front.port, "/ready")[0] == 503
            assert json.loads(ask(front.port, "/status")[1]) == {"workers": {"0": {"state": "starting"}}}


def test_a_worker_that_accepts_and_never_answers_is_not_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_asking, "ask_timeout_s", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        ports = {"0": mute.getsockname()[1]}
        view = SupervisorView(metrics=SupervisorMetrics(CollectorRegistry()), ports=lambda: ports)
        with HttpServer(view.routes(), host="127.0.0.1", port=0) as front:
            assert ask(front.port, "/live")[0] == 503


def test_without_any_worker_the_supervisor_is_live_and_not_ready() -> None:
    view = SupervisorView(metrics=SupervisorMetrics(CollectorRegistry()), ports=dict)
    with HttpServer(view.routes(), host="127.0.0.1", port=0) as front:
        assert ask(front.port, "/live")[0] == 200
        assert ask(front.port, "/ready")[0] == 503


def test_a_fault_of_ours_is_an_answer_and_a_line(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Answer:
        raise ZeroDivisionError("a fault of ours")

    with HttpServer({"/status": broken, "/live": broken}, host="127.0.0.1", port=0) as server:
        for count, path in enumerate(("/status", "/live"), start=1):
            assert ask(server.port, path)[0] == 500
            end_s = time.monotonic() + 10
            while len(caplog.records) < count:
                assert time.monotonic() < end_s
                time.sleep(0.01)
    assert {record.__dict__["event_code"] for record in caplog.records} == {"answer_failed"}
    assert all(record.exc_info and record.exc_info[0] is ZeroDivisionError for record in caplog.records)
