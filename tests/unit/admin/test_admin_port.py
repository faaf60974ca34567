"""The admin port over real sockets: who is let in, who is not, and what is written down of both."""

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.connectors.embedded.secured import SecureFolder
from penstock.engine.admin.audit_verify import Stored, verify
from tests.unit.admin.open_port import Port, boss, operator, until, viewer
from tests.unit.admin.provider import Provider, audience, forged, issuer


@pytest.fixture(scope="module")
def provider() -> Provider:
    return Provider(now_s=int(time.time()))


@pytest.fixture
def jwt(monkeypatch: pytest.MonkeyPatch, provider: Provider) -> dict[str, Any]:
    monkeypatch.setattr("penstock.engine.admin.provider_keys.fetch_from", lambda *_: provider.jwks)
    return {"issuer": issuer, "audience": audience, "jwks_url": "https://identity.example/keys"}


def test_no_forged_token_is_taken_and_each_has_its_record(
    opened: Callable[..., Port], tokens: list[dict[str, Any]], jwt: dict[str, Any], provider: Provider
) -> None:
    port = opened(tokens=tokens, jwt=jwt)
    assert port.ask("POST", "restart", provider.token(), {})[0] == 200  # the true one is
    cases = dict(forged(provider))
    assert len(cases) >= 60
    answers = {name: port.ask("POST", "drain", token, {}) for name, token in cases.items()}
    assert {name: each for name, each in answers.items() if each != (401, {"error": "unauthorized"})} == {}
    assert port.workers.stops == 0
    refusals = port.topic.records("refused")
    assert len(refusals) == len(cases)
    assert all(
        each["code"] == "unauthorized" and each["origin"] == "127.0.0.1" and not each["who"]
        for each in refusals
    )
    whole = b"".join(port.topic.stored)
    assert not any(token.encode() in whole for token in cases.values() if len(token) > 20)


def test_each_kind_of_forgery_has_a_reason_of_its_own_in_the_audit_alone(
    opened: Callable[..., Port], jwt: dict[str, Any], provider: Provider
) -> None:
    port = opened(jwt=jwt)
    reasons = {}
    for name, token in forged(provider):
        port.ask("POST", "drain", token, {})
        reasons[name] = port.topic.records("refused")[-1]["reason"]
    assert reasons["expired"] == "expired"
    assert reasons["another issuer"] == "issuer"
    assert reasons["another audience"] == "audience"
    assert reasons["algorithm none"] == "algorithm"
    assert reasons["the public key as a secret, SPKI PEM"] == "algorithm"
    assert reasons["a jku"] == reasons["an embedded jwk"] == "header"
    assert reasons["a wrong type"] == "type"
    assert reasons["an unknown kid"] == "key"
    assert reasons["a changed payload"] == "signature"
    assert reasons["not before in the future"] == "not_yet_valid"
    assert reasons["over-long"] == reasons["longer than a head may be"] == "too_long"


@pytest.mark.parametrize(("role", "allowed"), [("viewer", 1), ("operator", 7), ("admin", 8), ("nobody", 0)])
def test_a_role_may_do_its_own_and_what_those_below_it_may(
    opened: Callable[..., Port], jwt: dict[str, Any], provider: Provider, role: str, allowed: int
) -> None:
    port = opened(jwt=jwt | {"roles_claim": "realm_access.roles"})
    asked = [
        ("GET", "state", None), ("POST", "pause", {"partitions": [1]}), ("POST", "resume", {"partitions": "all"}),
        ("POST", "log-level", {"level": "debug"}), ("POST", "restart", {"worker": 1}), ("GET", "replays", None),
        ("POST", "replay", {"dry_run": True}), ("POST", "drain", {}),
    ]  # fmt: skip
    token = provider.token(provider.claims(roles=None, realm_access={"roles": [role, 7]}))
    answers = [port.ask(method, path, token, body) for method, path, body in asked]
    assert [200 if status == 202 else status for status, _ in answers] == [200] * allowed + [403] * (
        8 - allowed
    )
    assert all(body == {"error": "forbidden"} for status, body in answers if status == 403)
    assert len(port.topic.records("refused")) == 8 - allowed
    assert {each["code"] for each in port.topic.records("refused")} <= {"forbidden"}
    changes = max(allowed - 1 - (allowed >= 7), 0)  # state and replays only look
    until(lambda: len(port.topic.records("done")) == changes)
    assert [len(port.topic.records(event)) for event in ("allowed", "done")] == [changes, changes]
    assert all(
        each["who"] == "anna" and each["way"] == "jwt" for each in port.topic.records("allowed", "done")
    )
    assert port.workers.stops == (role == "admin")
    assert port.workers.replaced == [[1]] * (allowed >= 7)


def test_a_token_that_acts_once_acts_once(
    opened: Callable[..., Port], jwt: dict[str, Any], provider: Provider
) -> None:
    port = opened(jwt=jwt | {"single_use": True})
    token = provider.token(provider.claims(jti="one", iat=int(time.time()) + 1))
    assert port.ask("GET", "state", token)[0] == 200  # looking is no action
    assert port.ask("POST", "restart", token, {})[0] == 200
    assert port.ask("POST", "restart", token, {}) == (401, {"error": "unauthorized"})
    assert port.ask("POST", "restart", provider.token(), {})[0] == 401  # it has no jti
    assert [each["reason"] for each in port.topic.records("refused")] == ["replayed", "claims"]
    assert len(port.workers.replaced) == 1


def test_a_token_from_a_file_is_exchanged_while_the_port_is_open(
    opened: Callable[..., Port], tokens: list[dict[str, Any]]
) -> None:
    port = opened(tokens=tokens)
    assert port.ask("GET", "state", viewer)[0] == 200
    assert port.ask("POST", "drain", viewer, {}) == (403, {"error": "forbidden"})
    Path(tokens[0]["file"]).write_text("another-" + "x" * 40)
    assert port.ask("GET", "state", viewer) == (401, {"error": "unauthorized"})
    assert port.ask("GET", "state", "another-" + "x" * 40)[0] == 200
    Path(tokens[0]["file"]).write_text("")
    assert port.ask("GET", "state", "")[0] == 401
    for scheme in ("", "Basic " + viewer, "Bearer", "bearer  ", f"Bearer {operator} {operator}"):
        assert port.ask("GET", "state", Authorization=scheme)[0] == 401
    assert port.ask("GET", "state")[0] == 401


def test_nothing_is_done_whose_record_is_not_stored(
    opened: Callable[..., Port], tokens: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.engine.admin.audit_trail.acknowledged_within_s", 0.1)
    port = opened(tokens=tokens)
    port.topic.takes = False
    assert port.ask("POST", "drain", boss, {}) == (
        503, {"error": "audit_unavailable", "detail": "the audit topic takes no record now, so nothing was done"},
    )  # fmt: skip
    assert port.workers.stops == 0
    port.topic.takes = True
    assert port.ask("POST", "drain", boss, {})[0] == 200
    assert port.workers.stops == 1
    assert [each["event"] for each in port.topic.records("allowed", "failed", "done")] == [
        "allowed",
        "failed",
        "allowed",
        "done",
    ]


def test_a_topic_that_refused_records_for_a_while_is_written_to_again_by_itself(
    opened: Callable[..., Port], tokens: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.engine.admin.audit_trail.acknowledged_within_s", 0.1)
    monkeypatch.setattr("penstock.engine.admin.audit_trail.renew_first_s", 0.05)
    monkeypatch.setattr("penstock.engine.admin.audit_trail.renew_last_s", 0.05)
    port = opened(tokens=tokens)
    port.topic.takes = False
    assert port.ask("POST", "drain", boss, {})[0] == 503
    refused = len(port.topic.stored)
    port.topic.fault = "permission for a topic is missing"
    until(lambda: port.topic.renewals > 2)
    assert port.ask("POST", "drain", boss, {})[0] == 503
    assert port.workers.stops == 0
    port.topic.takes = True
    until(lambda: not port.topic.fault)
    assert port.ask("POST", "drain", boss, {})[0] == 200
    assert port.workers.stops == 1
    assert port.counted.count("lost") >= 2
    stored = [*port.topic.stored[:1], *port.topic.stored[refused:]]  # what was refused is nowhere
    found = verify([Stored(partition=0, offset=n, value=value) for n, value in enumerate(stored)], key=None)
    assert found.whole
    begun = [each for each in port.topic.records("started") if each["code"] == "not_stored"]
    assert [each["count"] for each in begun] == [
        port.counted.count("lost")
    ]  # none is told of twice, or not at all
    assert len({each["chain"] for each in port.topic.records()}) >= 2


def test_what_strangers_can_make_us_write_is_bounded_and_counted(
    opened: Callable[..., Port], tokens: list[dict[str, Any]]
) -> None:
    port = opened(tokens=tokens)
    asked = 400
    for _ in range(asked):
        assert port.ask("POST", "drain", "guess", {})[0] == 401
    recorded = len(port.topic.records("refused"))
    assert 120 <= recorded < 160
    assert port.ask("POST", "restart", operator, {})[0] == 200
    told = port.topic.records("unrecorded")
    assert recorded + sum(each["count"] for each in told) == asked
    assert port.counted.count("unrecorded") == asked - recorded


def test_the_audit_of_all_that_is_whole(opened: Callable[..., Port], tokens: list[dict[str, Any]]) -> None:
    port = opened(tokens=tokens)
    for token in (viewer, operator, boss, "nobody"):
        port.ask("POST", "restart", token, {})
    stored = [Stored(partition=0, offset=n, value=value) for n, value in enumerate(port.topic.stored)]
    assert verify(stored, key=None).whole
    assert [each["event"] for each in port.topic.records()] == [
        "started", "refused", "allowed", "done", "allowed", "done", "refused",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"}, {"Host": "127.0.0.1.evil.example"}, {"Host": ""}, {"Origin": "https://evil.example"},
        {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"}, {"Origin": "http://[" },
    ],
)  # fmt: skip
def test_on_loopback_without_tokens_a_page_of_another_site_is_refused(
    opened: Callable[..., Port], headers: dict[str, str]
) -> None:
    port = opened()
    assert port.ask("POST", "restart", body={})[0] == 200
    assert port.ask("POST", "drain", body={}, **headers) == (401, {"error": "unauthorized"})
    assert port.workers.stops == 0
    assert port.topic.records("refused")[0]["reason"] in ("host", "origin")


def test_a_form_is_no_request(opened: Callable[..., Port]) -> None:
    port = opened()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert port.ask("POST", "drain", body={}, Content_Type=kind)[0] == 400
    assert port.ask("GET", "drain")[0] == 405
    assert port.workers.stops == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("pause", {}), ("pause", {"partitions": [-1]}), ("pause", {"partitions": [True]}), ("pause", {"partitions": "some"}),
        ("pause", {"partitions": [1], "x": 2}), ("resume", {"partitions": [10**9]}), ("log-level", {"level": "loud"}),
        ("restart", {"worker": 2}), ("restart", {"worker": True}), ("drain", {"now": True}), ("drain", []), ("pause", {"partitions": [0.5]}),
    ],
)  # fmt: skip
def test_what_is_not_asked_for_rightly_changes_nothing(
    opened: Callable[..., Port], path: str, body: Any
) -> None:
    port = opened()
    status, answer = port.ask("POST", path, body=body)
    assert (status, answer["error"]) == (400, "bad_request")
    assert answer["detail"]
    assert port.topic.records("allowed") == []
    assert not (port.folder / "control.json").exists()


def test_what_is_no_http_is_refused_and_slow_clients_take_no_place_for_long(
    opened: Callable[..., Port],
) -> None:
    port = opened()
    for data in (
        b"\x16\x03\x01\x02\x00",
        b"GET\r\n\r\n",
        b"\0" * 100 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST /api/v1/drain HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port.port), 10) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(65_536)
            assert not answer or b" 400 " in answer or b" 401 " in answer
    assert port.workers.stops == 0
    idle = [socket.create_connection(("127.0.0.1", port.port), 10) for _ in range(60)]
    began_s = time.monotonic()
    assert port.ask("GET", "state")[0] == 200
    assert time.monotonic() - began_s < 2  # they would have had five each
    for each in idle:
        each.close()


def test_a_certificate_of_our_authority_is_a_caller_and_others_are_not(
    opened: Callable[..., Port], tmp_path: Path
) -> None:
    ours, alien = SecureFolder(tmp_path / "ours"), SecureFolder(tmp_path / "alien")
    ours.make(), alien.make()
    port = opened(
        certificate_file=ours.folder / "broker.pem", key_file=ours.folder / "broker.key", client_ca_file=ours.folder / "ca.pem",
        certificates={"operator": "operator", "worker": "viewer"},
    )  # fmt: skip

    def client(folder: SecureFolder, name: str | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=ours.folder / "ca.pem")
        if name:
            context.load_cert_chain(folder.folder / f"{name}.pem", folder.folder / f"{name}.key")
        return context

    port.client = client(ours, "operator")
    assert port.ask("POST", "restart", body={})[0] == 200
    assert port.ask("POST", "drain", body={}) == (403, {"error": "forbidden"})
    port.client = client(ours, "worker")
    assert port.ask("GET", "state")[0] == 200
    port.client = client(ours, "scaler")  # signed, and nobody's
    assert port.ask("GET", "state") == (401, {"error": "unauthorized"})
    refused = len(port.topic.records("refused"))
    for context in (client(alien, "operator"), client(ours, None)):
        port.client = context
        with pytest.raises((ssl.SSLError, OSError)):
            port.ask("GET", "state")
    end_s = time.monotonic() + 10
    while len(port.topic.records("refused")) < refused + 2:
        assert time.monotonic() < end_s
        time.sleep(0.01)
    assert {each["way"] for each in port.topic.records("allowed")} == {"certificate"}


def test_a_certificate_is_exchanged_while_the_port_is_open(
    opened: Callable[..., Port], tmp_path: Path
) -> None:
    ours = SecureFolder(tmp_path / "ours")
    ours.make()
    file = tmp_path / "admin.token"
    file.write_text(boss)
    port = opened(
        certificate_file=ours.folder / "broker.pem", key_file=ours.folder / "broker.key",
        tokens=[{"name": "ada", "role": "admin", "file": str(file)}],
    )  # fmt: skip
    port.client = ssl.create_default_context(cafile=ours.folder / "ca.pem")
    assert port.ask("GET", "state", boss)[0] == 200

    def serial() -> str:
        shown = ssl.get_server_certificate(("127.0.0.1", port.port))
        read = subprocess.run(["openssl", "x509", "-noout", "-serial"], input=shown, capture_output=True, text=True, check=True, timeout=30)  # fmt: skip
        return read.stdout

    before = serial()
    ours.issue("broker", common_name="localhost", addresses=("DNS:localhost", "IP:127.0.0.1"))
    assert serial() != before
    assert port.ask("GET", "state", boss)[0] == 200


def test_a_fault_of_ours_is_an_answer_a_line_and_a_record(
    opened: Callable[..., Port], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    port = opened()

    def broken() -> None:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(port.workers, "request_stop", broken)
    assert port.ask("POST", "drain", body={}) == (500, {"error": "internal"})
    until(lambda: any(getattr(each, "event_code", "") == "answer_failed" for each in caplog.records))
    assert [each["action"] for each in port.topic.records("failed")] == ["drain"]


def test_what_is_refused_to_a_known_caller_is_a_record_too(
    opened: Callable[..., Port], tokens: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = opened(tokens=tokens)
    assert port.ask("POST", "shutdown", boss, {})[0] == 404
    assert port.ask("GET", "drain", boss)[0] == 405
    assert port.ask("POST", "pause", operator, {"partitions": "canary"})[0] == 400
    began, may_end = threading.Event(), threading.Event()

    def slow() -> None:
        began.set()
        may_end.wait(30)

    monkeypatch.setattr(port.workers, "request_stop", slow)
    first = threading.Thread(target=port.ask, args=("POST", "drain", boss, {}))
    first.start()
    assert began.wait(10)
    assert port.ask("POST", "restart", operator, {})[0] == 409
    may_end.set()
    first.join()
    refused = [
        (each["code"], each["who"], each["action"], each["target"]) for each in port.topic.records("refused")
    ]
    assert refused == [
        ("not_found", "ada", "other", {}), ("method_not_allowed", "ada", "drain", {}),
        ("bad_request", "otto", "pause", {}), ("busy", "otto", "restart", {"worker": "all"}),
    ]  # fmt: skip
    assert port.workers.replaced == []
