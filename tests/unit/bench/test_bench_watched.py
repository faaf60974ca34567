"""What being watched costs: the arithmetic of the turns, and an audience that follows, scrapes and comes back."""

import http.client
import http.server
import io
import json
import math
import os
import threading
import time
from typing import Any

import numpy as np
import pytest
from penstock_bench import watched
from penstock_bench.audience import Audience, Seen
from penstock_bench.collector import Collected, Collector
from penstock_bench.looks import Window, of_windows
from penstock_bench.peers.latency import Latency
from penstock_bench.peers.load import Report
from penstock_bench.peers.throughput import Run
from rich.console import Console

from penstock.engine.console.terminal import Terminal


def run(records_per_s: float, *, lost: int = 0, supervisor_mb: float = 80.0, records: int = 1_000_000) -> Run:
    return Run(
        records=records, records_per_s=records_per_s, engine_us_per_record=1.0, broker_us_per_record=1.0, peak_mb=1.0,
        first_process_mb=supervisor_mb, lost=lost, duplicated=0,
    )  # fmt: skip


def at(p99_ms: float, cores: float = 0.5) -> Latency:
    return Latency(
        rate=1000, records=100, unanswered=0, p50_ms=1.0, p99_ms=p99_ms, p999_ms=1.0, late_p99_ms=0.1, cores=cores,
    )  # fmt: skip


def seen(scrape_ms: float = 5.0, series: int = 400) -> Seen:
    return Seen(events=10, scrapes=4, scrape_p50_ms=1.0, scrape_p99_ms=scrape_ms, series=series)


def came(batches: int = 7) -> Collected:
    return Collected(requests=3, bytes=1000, batches=batches, spans=6 * batches)


def compare(
    ours: list[Run],
    p99: list[float],
    audience: Seen,
    *,
    traced: list[Run] | None = None,
    collected: Collected | None = None,
    looked_cores: float = 0.5,
    full: Seen | None = None,
) -> dict[str, Any]:
    return watched.compared(
        {"plain": [run(1000)] * len(ours), "watched": ours, "traced": traced or [run(1000)] * len(ours)},
        {"plain": [at(5.0)] * len(p99), "watched": [at(each, looked_cores) for each in p99]},
        [audience],
        [full or seen()],
        [collected or came()],
        seed=1,
    )


def verdicts(ours: list[Run], p99: list[float], audience: Seen, **more: Any) -> Any:
    found = compare(ours, p99, audience, **more)
    json.dumps(found)
    return found["verdicts"]


def test_every_turn_and_every_figure_is_shown_beside_its_bar() -> None:
    written = io.StringIO()
    terminal = Terminal(console=Console(file=written, width=200))
    watched.show(compare([run(990), run(995)], [5.1, math.inf], seen()), terminal)
    said = written.getvalue()
    for each in (
        "990",
        "0.99",
        "never",
        "1,500",
        "120 MB behind 1,000,000",
        "50 ms",
        "80 MB",
        "every record once",
        "one batch in 100 traced, 7 batches of 42 spans",
        "bar 0.97: undecided",
        "bar 0.98: undecided",
    ):
        assert each in said, said


def test_each_figure_is_held_against_its_own_bar() -> None:
    good = verdicts([run(990), run(995), run(1001)], [5.1, 5.2], seen())
    assert set(good.values()) == {"within"}
    for name, bad in {
        "watched": verdicts([run(975)] * 3, [5.0], seen(), traced=[run(975)] * 3),
        "traced": verdicts([run(985)] * 3, [5.0], seen(), traced=[run(965)] * 3),
        "p99_above_ms": verdicts([run(1000)], [6.5], seen()),
        "cpu_share": verdicts([run(1000)], [5.0], seen(), looked_cores=0.5 + 0.021 * (os.cpu_count() or 1)),
        "scrape_p99_ms": verdicts([run(1000)], [5.0], seen(scrape_ms=60.0)),
        "scrape_full_p99_ms": verdicts([run(1000)], [5.0], seen(), full=seen(scrape_ms=60.0)),
        "series": verdicts([run(1000)], [5.0], seen(series=1501)),
        "supervisor_mb": verdicts([run(1000, supervisor_mb=121.0, records=1000)], [5.0], seen()),
    }.items():
        assert {key for key, word in bad.items() if word == "beyond"} == {name}


def test_a_lost_record_is_never_within_and_few_records_say_nothing_of_the_memory() -> None:
    lost = verdicts([run(1000, lost=1)], [5.0], seen())
    assert (lost["watched"], lost["traced"]) == ("beyond", "beyond")
    assert verdicts([run(1000, records=999_999)], [5.0], seen())["supervisor_mb"] == "undecided"
    assert verdicts([run(900), run(1100), run(1000)], [5.0], seen())["watched"] == "undecided"
    assert verdicts([run(2000)] * 2, [5.0], seen())["watched"] == "undecided"


def test_a_longer_p99_in_some_turns_and_not_in_others_is_undecided() -> None:
    assert verdicts([run(1000)] * 3, [4.0, 9.0, 12.0], seen())["p99_above_ms"] == "undecided"
    assert verdicts([run(1000)] * 3, [6.1, 9.0, 12.0], seen())["p99_above_ms"] == "beyond"
    assert verdicts([run(1000)] * 3, [4.0, 5.0, 5.9], seen())["p99_above_ms"] == "within"


def test_a_scrape_before_any_worker_answers_says_nothing_of_how_long_one_takes() -> None:
    audience = Audience(0)
    audience._scrapes = [(500.0, 20), (10.0, 300), (12.0, 313), (900.0, 25)]
    audience.end()
    found = audience.watch()
    assert (found.scrapes, found.series, found.scrape_p50_ms) == (2, 313, 11.0)


def test_a_stream_of_which_no_trace_came_says_nothing_of_what_traces_cost() -> None:
    assert verdicts([run(1000)] * 3, [5.0], seen(), collected=came(0))["traced"] == "undecided"
    assert verdicts([run(1000)] * 3, [5.0], seen(), collected=came(1))["traced"] == "within"


def test_an_audience_counts_what_it_got_and_comes_back_when_it_is_cut_off() -> None:
    class Engine(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            if self.path == "/metrics":
                self.wfile.write(b'# HELP a b\n# TYPE a counter\na 1\nb{x="#"} 2\n')
            else:  # one event, and the end of the stream
                self.wfile.write(b"id: 1\nevent: snapshot\ndata: {}\n\n")

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    audience = Audience(server.server_port)
    found: list[Seen] = []
    watching = threading.Thread(target=lambda: found.append(audience.watch()))
    watching.start()
    until_s = time.monotonic() + 10
    while sum(audience._events.values()) < 7 and time.monotonic() < until_s:
        time.sleep(0.02)
    audience.end()
    watching.join(10)
    server.shutdown()
    server.server_close()
    assert found[0].events >= 7  # of three pages: each of them was opened more than once
    assert found[0].series == 2
    assert found[0].scrapes >= 1
    assert found[0].scrape_p50_ms > 0


@pytest.mark.parametrize("turns", [0, 101])
def test_turns_out_of_range_are_refused_in_a_sentence(turns: int) -> None:
    with pytest.raises(Exception, match="--watched is from 1 to 100 turns"):
        watched.measure(turns=turns, records=1, rate=1, seconds=1.0, seed=1, terminal=None, clock=None)  # type: ignore[arg-type]


def test_a_scrape_while_all_stood_still_is_not_counted() -> None:
    asked = threading.Event()

    class Engine(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.set()
            audience.stood()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"a 1\n")

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Engine) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        audience = Audience(server.server_port)
        audience._scrape()
        assert asked.is_set()
        assert audience._scrapes == []
        server.shutdown()


def test_a_collector_counts_batches_and_spans() -> None:
    proto = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    request = proto.ExportTraceServiceRequest()
    for trace, spans in ((b"one", 2), (b"two", 1)):
        for number in range(spans):
            span = request.resource_spans.add().scope_spans.add().spans.add()
            span.trace_id, span.span_id = trace.ljust(16), b"%8d" % number
    body = request.SerializeToString()
    with Collector(0) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        for _ in range(2):
            connection = http.client.HTTPConnection("127.0.0.1", collector.server_port, timeout=10)
            connection.request("POST", "/v1/traces", body=body)
            assert connection.getresponse().status == 200
            connection.close()
        collector.shutdown()
    assert collector.collected() == Collected(requests=2, bytes=2 * len(body), batches=2, spans=6)


def test_an_audience_that_rests_asks_for_nothing() -> None:
    asked: list[str] = []

    class Engine(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"a 1\n")

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Engine) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        audience = Audience(server.server_port)
        audience.rest()
        watching = threading.Thread(target=audience.watch)
        watching.start()
        time.sleep(1.5)
        assert asked == []
        audience.look()
        deadline_s = time.monotonic() + 10
        while len({path.partition("?")[2] for path in asked}) < 4 and time.monotonic() < deadline_s:
            time.sleep(0.05)
        assert {path.partition("?")[2] for path in asked} == {"", "page=flow", "page=records", "page=model"}
        audience.end()
        watching.join(10)
        assert not watching.is_alive()
        server.shutdown()


def test_a_window_has_the_records_that_were_due_in_it_and_no_others() -> None:
    due_s = 100.0 + np.arange(1000) / 100
    arrived_s = due_s + np.where((due_s >= 103) & (due_s < 104), 0.5, 0.01)
    arrived_s[750] = np.inf
    report = Report(first_due_s=100.0, late_p99_ms=0.1, late_max_ms=0.2)
    windows = {
        False: [Window(looked=False, began_s=101.0, ended_s=103.0, cpu_s=0.5)],
        True: [
            Window(looked=True, began_s=103.0, ended_s=104.0, cpu_s=0.4),
            Window(looked=True, began_s=107.0, ended_s=108.0, cpu_s=0.6),
        ],
    }
    left, looked = (of_windows(arrived_s, report, rate=100, found=windows[each]) for each in (False, True))
    assert (left.records, left.unanswered, round(left.p99_ms, 6), left.cores) == (200, 0, 10.0, 0.25)
    assert (looked.records, looked.unanswered, round(looked.p50_ms), looked.cores) == (200, 1, 500, 0.5)
