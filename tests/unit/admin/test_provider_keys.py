"""The provider's keys: kept while it is away, exchanged when it exchanges them, and never asked for in a stream."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest

from penstock.engine.admin.callers import Caller, DeniedError, KeysAwayError, Role
from penstock.engine.admin.jwt_tokens import JwtRules, JwtTokens, SingleUse
from penstock.engine.admin.provider_keys import ProviderKeys, answer_bytes_max, fetch_from, public_keys
from tests.clocks import HandClock
from tests.unit.admin.provider import Provider, audience, issuer

rules = JwtRules(
    issuer=issuer, audience=audience, algorithms=("RS256", "ES256"), roles_claim="roles", roles={Role.OPERATOR: ("operator",)},
    lifetime_s_max=3600.0, single_use=False,
)  # fmt: skip


class Away:
    """A provider that answers when it is there, and counts how often it is asked."""

    def __init__(self) -> None:
        self.provider = Provider(now_s=0)
        self.there = True
        self.asked = 0

    def __call__(self) -> bytes:
        self.asked += 1
        if not self.there:
            raise httpx.ConnectTimeout("away")
        return self.provider.jwks()


@pytest.fixture
def away() -> Away:
    return Away()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def test_keys_are_asked_for_once_and_again_after_five_minutes(away: Away, clock: HandClock) -> None:
    tokens = JwtTokens(rules, ProviderKeys(away, clock=clock), clock=clock)
    for _ in range(50):
        assert tokens.caller(away.provider.token()).name == "anna"
        assert tokens.caller(away.provider.by_curve()).role is Role.OPERATOR
    assert away.asked == 1
    clock.sleep(301)
    tokens.caller(away.provider.token())
    assert away.asked == 2


def test_a_provider_that_is_away_ends_nothing_for_a_day(away: Away, clock: HandClock) -> None:
    tokens = JwtTokens(rules, ProviderKeys(away, clock=clock), clock=clock)
    tokens.caller(away.provider.token())
    away.there = False
    for _ in range(23):
        clock.sleep(3600)
        assert tokens.caller(away.provider.token()).name == "anna"
    clock.sleep(2 * 3600)
    with pytest.raises(KeysAwayError):
        tokens.caller(away.provider.token())
    away.there = True
    clock.sleep(11)
    assert tokens.caller(away.provider.token()).name == "anna"


def test_away_from_the_start_nobody_is_let_in_and_nobody_is_called_a_forger(
    away: Away, clock: HandClock
) -> None:
    away.there = False
    tokens = JwtTokens(rules, ProviderKeys(away, clock=clock), clock=clock)
    for _ in range(100):
        with pytest.raises(KeysAwayError):
            tokens.caller(away.provider.token())
    assert away.asked == 1


def test_an_exchanged_key_is_found_at_once_and_made_up_ones_are_no_stream_of_requests(
    away: Away, clock: HandClock
) -> None:
    tokens = JwtTokens(rules, ProviderKeys(away, clock=clock), clock=clock)
    old = away.provider.token()
    tokens.caller(old)
    clock.sleep(60)
    away.provider = Provider(now_s=0, kid="second")
    assert tokens.caller(away.provider.token()).name == "anna"
    with pytest.raises(DeniedError, match="key"):
        tokens.caller(old)
    for number in range(200):
        clock.sleep(0.1)
        with pytest.raises(DeniedError):
            tokens.caller(away.provider.token(kid=f"made-up-{number}"))
    assert away.asked <= 2 + 200 * 0.1 / 10 + 1


def test_a_set_without_a_key_that_can_be_used_is_as_good_as_none() -> None:
    for body in (
        b"",
        b"[]",
        b"{}",
        b'{"keys": 3}',
        b'{"keys": []}',
        b'{"keys": [{"kty": "oct", "k": "AAAA"}]}',
        b'{"keys": [{"kty": "RSA"}]}',
    ):
        with pytest.raises(ValueError, match=r".*"):
            public_keys(body)
    many = {"keys": [{"kty": "RSA", "kid": str(n), "n": "AQAB", "e": "AQAB"} for n in range(101)]}
    with pytest.raises(ValueError, match="no set"):
        public_keys(json.dumps(many).encode())


@contextmanager
def answering(status: int, body: bytes, wait_s: float = 0.0) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(wait_s)
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:1/keys")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/keys"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_what_is_fetched_is_bounded_and_redirects_are_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(200, b"{}") as url:
        assert fetch_from(url, None)() == b"{}"
    for status in (302, 404, 500, 204):
        with answering(status, b"") as url, pytest.raises((httpx.HTTPError, OSError)):
            fetch_from(url, None)()
    with answering(200, b"x" * (answer_bytes_max + 1)) as url, pytest.raises(OSError, match="too long"):
        fetch_from(url, None)()


def test_what_acted_once_is_remembered_until_it_is_over_and_no_longer() -> None:
    used = SingleUse(began_s=-1)
    used.kept_max = 3  # type: ignore[misc]

    def caller(jti: str, until_s: float) -> Caller:
        return Caller(name="anna", way="jwt", role=Role.ADMIN, token_id=jti, token_until_s=until_s)

    assert used.use(caller("a", 10), 0)
    assert not used.use(caller("a", 10), 1)
    assert used.use(caller("b", 100), 1)
    assert used.use(caller("c", 100), 1)
    assert not used.use(caller("d", 100), 1)  # full: rather none than one twice
    assert used.use(caller("d", 100), 11)
    assert not used.use(caller("b", 100), 11)


def test_what_was_issued_before_the_start_may_have_acted_already() -> None:
    used = SingleUse(began_s=50.5)

    def caller(jti: str, since_s: float) -> Caller:
        return Caller(
            name="anna", way="jwt", role=Role.ADMIN, token_id=jti, token_since_s=since_s, token_until_s=900
        )

    assert not used.use(caller("a", 50), 51)
    assert used.use(caller("b", 51), 51)
    assert used.use(Caller(name="otto", way="token", role=Role.ADMIN), 51)  # it may act as often as it likes
