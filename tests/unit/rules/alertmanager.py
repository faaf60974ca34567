"""A real Alertmanager, and the receiver that it tells: found on the machine, or built from its Go module into the cache.

`python -m tests.unit.rules.alertmanager` builds it where none is at hand.
"""

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

version: Final = "v0.28.1"
"""The newest whose module holds the pages that it is compiled with."""
built: Final = Path.home() / ".cache" / "penstock" / f"alertmanager-{version}" / "alertmanager"
_cure: Final = (
    "apt-get install prometheus-alertmanager, or install Go and run `make test-alerts`, which builds it"
)


def found() -> str | None:
    """Its path, or None."""
    return (
        shutil.which("alertmanager")
        or shutil.which("prometheus-alertmanager")
        or (str(built) if built.exists() else None)
    )


def missing() -> str:
    """What of a Prometheus and an Alertmanager is not at hand, with the cure; "" where nothing is."""
    if shutil.which("prometheus") is None:
        return "the alerts need a Prometheus: apt-get install prometheus"
    return "" if found() else f"the alerts need an Alertmanager: {_cure}"


@dataclass
class Received:
    """What the receiver was told, in the order of arrival."""

    told: list[dict[str, Any]] = field(default_factory=list)

    def with_status(self, status: str) -> dict[tuple[str, str], dict[str, Any]]:
        """The last alert that arrived as `firing` or as `resolved`, by its name and its release."""
        return {
            (each["labels"]["alertname"], each["labels"].get("release", "")): each
            for each in list(self.told)
            if each["status"] == status
        }


@contextmanager
def alertmanager(folder: Path) -> Iterator[tuple[str, Received]]:
    """Its address, and what it sends on; every alert by itself, within seconds, and once more when it is over."""
    received = Received()

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            received.told.extend(body["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hook = {"url": f"http://127.0.0.1:{server.server_port}/", "send_resolved": True}
    config = {
        "route": {"receiver": "us", "group_by": ["..."], "group_wait": "1s", "group_interval": "2s", "repeat_interval": "4h"},
        "receivers": [{"name": "us", "webhook_configs": [hook]}],
    }  # fmt: skip
    (folder / "alertmanager.yaml").write_text(yaml.safe_dump(config))
    path = found()
    assert path is not None, missing()
    with (folder / "alertmanager.log").open("wb") as log:
        process = subprocess.Popen(
            [
                path, f"--config.file={folder}/alertmanager.yaml", f"--storage.path={folder}/alertmanager",
                "--web.listen-address=127.0.0.1:0", "--cluster.listen-address=",
            ],
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        yield f"127.0.0.1:{_port(folder / 'alertmanager.log')}", received
    finally:
        process.terminate()
        process.wait(20)
        server.shutdown()
        server.server_close()


def _port(log: Path) -> int:
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        if at := re.search(r"address=127\.0\.0\.1:([1-9]\d*)", log.read_text()):
            return int(at[1])
        time.sleep(0.2)
    raise AssertionError(log.read_text()[-3000:])


def build() -> None:
    """Into the cache, by Go. Raises SystemExit with a sentence."""
    go = shutil.which("go", path=f"{os.environ.get('PATH', '')}:/usr/local/go/bin")
    if go is None:
        raise SystemExit(f"the alerts need an Alertmanager: {_cure}")
    print(f"building Alertmanager {version}, which takes minutes ...", flush=True)
    subprocess.run(
        [go, "install", "-p", "1", f"github.com/prometheus/alertmanager/cmd/alertmanager@{version}"],
        env={**os.environ, "GOBIN": str(built.parent)}, check=True,
    )  # fmt: skip


if __name__ == "__main__":
    if found() is None:
        build()
    sys.exit(missing() or 0)
