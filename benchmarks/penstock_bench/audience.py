"""Who looks on during a bench: browsers that follow three pages, and a Prometheus that scrapes each second; a process of its own."""

import http.client
import json
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Final

import numpy as np

pages: Final = ("flow", "records", "model")
scrape_every_s: Final = 1.0
look_signal: Final = signal.SIGUSR1
rest_signal: Final = signal.SIGUSR2
_timeout_s: Final = 10.0
_step_s: Final = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What the audience got. Of the scrapes in which the workers' metrics were; NaN where there was none."""

    events: int
    scrapes: int
    scrape_p50_ms: float
    scrape_p99_ms: float
    series: int
    """Lines that are no comment, of the largest scrape: in the beginning and in the end no worker has any."""


class Audience:
    """Follows and scrapes until `end`; tries again where nobody listens yet."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ended = threading.Event()
        self._resting = threading.Event()
        self._events = dict.fromkeys(pages, 0)
        self._scrapes: list[tuple[float, int]] = []
        self._stood = 0

    def watch(self) -> Seen:
        """Until `end`."""
        followers = [threading.Thread(target=self._follow, args=(page,), daemon=True) for page in pages]
        for each in followers:
            each.start()
        waited_s, looked_s = scrape_every_s, time.monotonic()
        while not self._ended.wait(_step_s):
            now_s = time.monotonic()
            waited_s += min(now_s - looked_s, 2 * _step_s)  # for as long as we stood still nothing comes due
            if waited_s >= scrape_every_s:
                waited_s -= scrape_every_s  # while we rest too: what came due then is not caught up with
                if not self._resting.is_set():
                    with suppress(OSError, http.client.HTTPException):
                        self._scrape()
            looked_s = now_s
        series_max = max((series for _, series in self._scrapes), default=0)
        taken_ms = [took_ms for took_ms, series in self._scrapes if series > series_max / 2]
        p50, p99 = np.percentile(taken_ms, [50, 99]) if taken_ms else (np.nan, np.nan)
        return Seen(
            events=sum(self._events.values()),
            scrapes=len(taken_ms),
            scrape_p50_ms=float(p50),
            scrape_p99_ms=float(p99),
            series=series_max,
        )

    def end(self) -> None:
        """Now; from a signal, too."""
        self._ended.set()

    def look(self) -> None:
        """From now on; at once. From a signal, too."""
        self._resting.clear()

    def rest(self) -> None:
        """Close the pages and scrape no more, until `look`. From a signal, too."""
        self._resting.set()

    def stood(self) -> None:
        """We stood still, and what we look at as well: what was asked for then says nothing of how long it takes. From a signal, too."""
        self._stood += 1

    def _scrape(self) -> None:
        began_s, stood = time.monotonic(), self._stood
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_timeout_s)
        try:
            connection.request("GET", "/metrics")
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status == 200 and stood == self._stood:
            took_ms = (time.monotonic() - began_s) * 1e3
            self._scrapes.append(
                (took_ms, sum(bool(line) and not line.startswith(b"#") for line in body.splitlines()))
            )

    def _follow(self, page: str) -> None:
        while not self._ended.wait(0.1):
            if self._resting.is_set():
                continue
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_timeout_s)
            try:
                connection.request("GET", f"/api/v1/events?page={page}")
                response = connection.getresponse()
                while response.status == 200 and not self._over() and (line := response.readline()):
                    self._events[page] += line.startswith(b"event:")
            except (OSError, http.client.HTTPException):
                continue  # not there yet, or cut off: a browser comes back
            finally:
                connection.close()

    def _over(self) -> bool:
        return self._ended.is_set() or self._resting.is_set()


def main() -> None:
    """The arguments are a port and a file for what was seen; ends with SIGTERM."""
    audience = Audience(int(sys.argv[1]))

    def ended(_number: int, _frame: FrameType | None) -> None:
        audience.end()

    def stood(_number: int, _frame: FrameType | None) -> None:
        audience.stood()

    def told(number: int, _frame: FrameType | None) -> None:
        (audience.look if number == look_signal else audience.rest)()

    signal.signal(signal.SIGTERM, ended)
    for number in (look_signal, rest_signal):
        signal.signal(number, told)
    signal.signal(signal.SIGCONT, stood)
    report = Path(sys.argv[2])
    fresh = report.with_suffix(".part")
    fresh.write_text(json.dumps(asdict(audience.watch())), encoding="utf-8")
    fresh.replace(report)


if __name__ == "__main__":
    main()
