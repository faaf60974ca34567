"""A stream under what befalls a guarded deployment: its bundle exchanged on disk, its token server away; nothing lost, nothing mixed."""

import base64
import json
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import orjson
import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, not re-exported
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from penstock.connectors.embedded.kafka import EmbeddedKafka
from tests.bundles import write_stump
from tests.stream import Stream, children, event, event_schema, kill

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]
patience_s = 120.0
long = bool(os.environ.get("PENSTOCK_GUARDED_LONG"))
"""Minutes rather than seconds."""


@contextmanager
def stream_on(folder: Path, servers: str, **changes: object) -> Iterator[Stream]:
    write_stump(folder / "model", input_schema=orjson.dumps(event_schema))
    stream = Stream(
        folder, servers, f"guarded-{time.time_ns()}", folder / "model", explained=False, **changes
    )
    try:
        yield stream
    finally:
        stream.close()


def test_a_bundle_exchanged_under_four_workers_changes_no_output(kafka: str, tmp_path: Path) -> None:
    """Workers that are killed meanwhile come back with the model that all others have."""
    records = 60_000 if long else 12_000
    with stream_on(tmp_path, kafka, workers=4, objective={"batch_rows_max": 256}) as stream:
        served = json.loads((tmp_path / "model" / "manifest.json").read_bytes())
        stream.feed([event(number) for number in range(records)], per_s=records / 8)
        supervisor = stream.start("a")
        stream.wait(0.1, patience_s)
        other = write_stump(tmp_path / "other", cover=False, input_schema=orjson.dumps(event_schema))
        for path in sorted((tmp_path / "model").iterdir()):
            path.unlink()
        for path in (tmp_path / "other").iterdir():
            shutil.copyfile(path, tmp_path / "model" / path.name)
        assert json.loads((tmp_path / "model" / "manifest.json").read_bytes()) != served
        chance = random.Random(5)
        for share in (0.25, 0.45, 0.65):
            stream.wait(share, patience_s)
            if workers := children(supervisor):
                kill(chance.choice(workers))
        stream.wait(1.0, patience_s)
        stream.await_readers(30.0)
        books = stream.books()
        assert books.check(explained=False) == []
        digests = {seen.body["model"]["digest"] for rows in books.predictions.values() for seen in rows}
        assert len(digests) == 1
        assert other.digest not in digests
        assert supervisor.poll() is None
        supervisor.terminate()
        assert supervisor.wait(30) == 0


class TokenServer(ThreadingHTTPServer):
    """Gives tokens that are valid for a few seconds, while it is there."""

    there = True

    def __init__(self, lifetime_s: int) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.lifetime_s = lifetime_s
        self.given = self.refused = 0


class _Answer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, TokenServer)
        self.rfile.read(int(self.headers["Content-Length"]))
        if not self.server.there:
            self.server.refused += 1
            self.close_connection = True
            self.connection.close()
            return
        self.server.given += 1
        now_s = int(time.time())
        parts = ({"alg": "none"}, {"sub": "ann", "iat": now_s, "exp": now_s + self.server.lifetime_s})
        words = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
        body = {"access_token": ".".join(words) + ".", "expires_in": self.server.lifetime_s}
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def tokens() -> Iterator[TokenServer]:
    with TokenServer(lifetime_s=15 if long else 4) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def bearer(start_kafka: Callable[..., EmbeddedKafka]) -> Iterator[EmbeddedKafka]:
    """Asks for a fresh token as often as it may, and lets ann do everything."""
    module = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule"
    kafka = start_kafka(
        users={"unused": "unused-canary"},
        settings={
            "listener.name.users.sasl.enabled.mechanisms": "OAUTHBEARER",
            "listener.name.users.oauthbearer.sasl.jaas.config": f'{module} required unsecuredLoginStringClaim_sub="kafka";',
            "listener.name.users.oauthbearer.connections.max.reauth.ms": "60000",
        },
    )
    kinds = (ResourceType.TOPIC, ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID)
    everything = [
        AclBinding(
            kind, "*", ResourcePatternType.LITERAL, "User:ann", "*", AclOperation.ALL, AclPermissionType.ALLOW
        )
        for kind in kinds
    ]
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    for done in admin.create_acls(everything).values():
        done.result(30)
    yield kafka
    kafka.close()


def test_a_token_server_that_goes_away_in_mid_stream_costs_no_record_and_no_restart(
    bearer: EmbeddedKafka, tokens: TokenServer, tmp_path: Path
) -> None:
    """It stays away for three lives of a token."""
    away_s = 60.0 if long else 12.0
    records = round(1000 * (away_s + 15))
    security = {
        "protocol": "SASL_PLAINTEXT", "mechanism": "OAUTHBEARER", "oauth_client_id": "penstock", "oauth_client_secret": "s-canary",
        "oauth_token_url": f"http://127.0.0.1:{tokens.server_address[1]}/token",
    }  # fmt: skip
    kafka = {"bootstrap_servers": bearer.users_bootstrap_servers, "security": security}
    with stream_on(tmp_path, bearer.bootstrap_servers, kafka=kafka) as stream:
        stream.feed([event(number) for number in range(records)], per_s=1000)
        supervisor = stream.start("a")
        stream.wait(0.1, patience_s)
        tokens.there = False
        time.sleep(away_s)
        tokens.there = True
        given = tokens.given
        stream.wait(1.0, patience_s)
        stream.await_readers(60.0)
        assert stream.books().check(explained=False) == []
        assert tokens.refused > 0
        assert tokens.given > given
        assert supervisor.poll() is None, stream.said()
        supervisor.terminate()
        assert supervisor.wait(30) == 0
