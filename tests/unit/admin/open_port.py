"""An admin port that is open, and what it acts on."""

import http.client
import json
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from penstock.engine.clock import SystemClock
from penstock.engine.settings.admin import AdminSettings
from penstock.engine.worker.admin import port as admin
from penstock.engine.worker.admin.actions import Told
from tests.unit.admin.replay_world import World

viewer, operator, boss = (
    "viewer-canary-" + "v" * 40,
    "operator-canary-" + "o" * 40,
    "admin-canary-" + "a" * 40,
)


class Topic:
    """An audit topic that keeps what it is given, or takes nothing."""

    def __init__(self) -> None:
        self.stored: list[bytes] = []
        self.takes = True
        self.waiting: list[Callable[[], None]] = []
        self.fault = ""
        self.renewals = 0

    def send(self, key: bytes, value: bytes, delivered: Callable[[], None]) -> bool:
        if self.fault:
            return False
        self.stored.append(value)
        self.waiting.append(delivered)
        return True

    def turn(self, timeout_s: float) -> None:
        while self.takes and self.waiting:
            self.waiting.pop(0)()
        time.sleep(0.002)

    def renew(self) -> None:
        self.renewals += 1
        self.fault = "still refused" if not self.takes else ""
        self.waiting.clear()

    def close(self, timeout_s: float) -> int:
        return len(self.waiting) if not self.takes else 0

    def records(self, *events: str) -> list[dict[str, Any]]:
        found = [json.loads(value) for value in self.stored]
        return [each for each in found if not events or each["event"] in events]


class Workers:
    def __init__(self) -> None:
        self.stops = 0
        self.replaced: list[list[int]] = []

    def pids(self) -> dict[int, int]:
        return {0: 4711}

    def request_stop(self) -> None:
        self.stops += 1

    def request_replacement(self, slots: Any) -> None:
        self.replaced.append(list(slots))


class Port:
    """An open port, and what it acted on."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], held: ExitStack) -> None:
        self.topic, self.workers, self.folder = Topic(), Workers(), folder
        self.letters = World()
        self.counted: list[str] = []
        self.settings = AdminSettings.model_validate({"port": 0, "audit_topic": "audit", **settings})
        told = Told(
            workers=self.workers,
            count=2,
            run_folder=folder,
            model_digest="d" * 64,
            set_log_level=lambda _: None,
            replays=self.letters.replays,
        )
        self.port = held.enter_context(
            admin.admin_port(
                self.settings,
                told,
                self.topic,
                instance="app-here",
                clock=SystemClock(),
                count=self.counted.append,
            )
        ).port
        self.client: ssl.SSLContext | None = None

    def ask(
        self, method: str, path: str, token: str | None = None, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, Any]]:
        if self.client is not None:
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                "localhost", self.port, context=self.client, timeout=10
            )
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        sent = {"Content-Type": "application/json"} if body is not None else {}
        sent |= {"Authorization": f"Bearer {token}"} if token is not None else {}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, f"/api/v1/{path}", None if body is None else json.dumps(body), sent)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()


def until(met: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for it, and fail when it does not come."""
    end_s = time.monotonic() + timeout_s
    while not met():
        assert time.monotonic() < end_s
        time.sleep(0.002)
