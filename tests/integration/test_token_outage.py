"""An identity provider that goes away under a working stream, for longer than its tokens live: waited for, nothing lost."""

import base64
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import orjson
import pytest

from penstock.connectors.embedded.kafka import EmbeddedKafka
from penstock.schemas.errors import UnavailableError
from tests.bundles import write_stump
from tests.stream import Stream, children, event, event_schema

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]

away_s = float(os.environ.get("PENSTOCK_TOKENS_AWAY_S", "12"))
"""`make soak` sets a minute."""
token_s = 6
patience_s = 120.0
records_per_s = 200


class Provider:
    """A token server that can be away: nobody listens, an error is answered, or nothing is."""

    def __init__(self) -> None:
        self.given = 0
        self._server: _Server | None = None
        self._back = threading.Event()
        self.come()
        assert self._server is not None
        self.port = self._server.server_address[1]

    def come(self, answer: Callable[["_Handler"], None] | None = None) -> None:
        """Listen, with tokens or with another answer."""
        self._server = _Server(("127.0.0.1", getattr(self, "port", 0)), self, answer or _Handler.give)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def go(self) -> None:
        """Nobody listens any more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def leave(self, kind: str) -> None:
        """Be away in one of its ways."""
        self.go()
        self._back.clear()
        if kind == "fails":
            self.come(_Handler.fail)
        elif kind == "hangs":
            self.come(lambda _: bool(self._back.wait(away_s + 60)))

    def return_(self) -> None:
        """Give tokens again."""
        self._back.set()
        self.go()
        self.come()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(
        self, address: tuple[str, int], provider: Provider, answer: Callable[["_Handler"], None]
    ) -> None:
        super().__init__(address, _Handler)
        self.provider, self.answer = provider, answer

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.answer(self)

    def give(self) -> None:
        self.server.provider.given += 1
        now_s = int(time.time())
        parts = ({"alg": "none"}, {"sub": "worker", "iat": now_s, "exp": now_s + token_s})
        token = ".".join(
            base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts
        )
        self._send(200, {"access_token": f"{token}.", "expires_in": token_s, "token_type": "Bearer"})

    def fail(self) -> None:
        self._send(503, {"error": "temporarily_unavailable"})

    def _send(self, status: int, body: dict[str, object]) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *arguments: object) -> None:
        """Silent."""


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.return_()
    made.go()


@pytest.fixture(scope="module")
def guarded(
    start_kafka: Callable[..., EmbeddedKafka], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedKafka]:
    kafka = start_kafka(
        secure=tmp_path_factory.mktemp("secure"),
        settings={
            "super.users": "User:ANONYMOUS;User:worker",
            # The broker cuts a connection off whose token has run out: without this it never looks at a token again.
            "connections.max.reauth.ms": "3600000",
        },
    )
    yield kafka
    kafka.close()


@pytest.mark.parametrize("kind", ["nobody listens", "fails", "hangs"] if away_s > 30 else ["nobody listens"])
def test_a_provider_that_is_away_for_longer_than_its_tokens_live_is_waited_for(
    guarded: EmbeddedKafka, provider: Provider, tmp_path: Path, kind: str
) -> None:
    assert guarded.secure is not None
    write_stump(tmp_path / "model", input_schema=orjson.dumps(event_schema))
    security = {
        "protocol": "SASL_SSL",
        "mechanism": "OAUTHBEARER",
        "ca_file": str(guarded.secure.folder / "ca.pem"),
        "oauth_token_url": f"http://127.0.0.1:{provider.port}/token",
        "oauth_client_id": "penstock",
        "oauth_client_secret": "shh-canary",
    }
    records = int((away_s + 10) * records_per_s)
    stream = Stream(
        tmp_path, guarded.bootstrap_servers, f"tokens-{time.time_ns()}", tmp_path / "model", explained=False,
        kafka={"bootstrap_servers": guarded.users_bootstrap_servers, "security": security},
    )  # fmt: skip
    try:
        supervisor = stream.start("a")
        (worker,) = children(supervisor)
        stream.feed([event(number) for number in range(records)], per_s=records_per_s)
        stream.wait(0.05, patience_s)
        provider.leave(kind)
        given, left_s = provider.given, time.monotonic()
        done = []
        while time.monotonic() - left_s < away_s:
            time.sleep(0.25)
            with suppress(UnavailableError):  # a busy machine
                done.append(stream.committed())
        assert provider.given == given
        assert done[-1] == done[-5] < records, "the brokers never refused the old token: nothing was tried"
        provider.return_()
        stream.wait(1.0, patience_s)
        stream.wait_fed()
        stream.await_readers(60.0)
        assert stream.books().check(explained=False) == []
        assert children(supervisor) == [worker], stream.said()
        said = stream.said()
        assert re.search(
            "no new token for Kafka yet|the brokers do not take the worker's token, and it waits", said
        )
        assert "canary" not in said
        supervisor.terminate()
        assert supervisor.wait(30) == 0
    finally:
        stream.close()
