"""A real Kafka with TLS, passwords, certificates and tokens: the right way in works, and each wrong one has its sentence."""

import os
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import orjson
import pytest

from penstock.connectors.embedded.kafka import EmbeddedKafka
from penstock.connectors.embedded.secured import SecureFolder
from penstock.connectors.kafka.admin.access import certificate_end
from penstock.connectors.kafka.admin.admin import KafkaAdmin
from penstock.connectors.kafka.admin.group_offsets import KafkaOffsets
from penstock.connectors.kafka.admin.renewed import Renewed
from penstock.connectors.kafka.client import ClientConfig
from penstock.schemas.errors import ConfigError, PenstockError, UnavailableError
from tests.bundles import write_stump
from tests.stream import Stream, children, event, event_schema
from tests.token_server import Provider

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]

away_s = float(os.environ.get("PENSTOCK_TOKENS_AWAY_S", "8"))
"""`make soak` sets a minute."""
token_s = 4
patience_s = 120.0
stopped_s_max = 5.0 + 3.0  # a slow machine gets three more
records_per_s = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Secured:
    kafka: EmbeddedKafka
    folder: Path
    alien: Path

    @property
    def password(self) -> ClientConfig:
        assert self.kafka.secure is not None
        return ClientConfig(
            bootstrap_servers=self.kafka.users_bootstrap_servers,
            protocol="SASL_SSL",
            mechanism="SCRAM-SHA-512",
            username="worker",
            password=self.kafka.secure.users["worker"],
            ca_file=self.folder / "ca.pem",
        )

    @property
    def certificate(self) -> ClientConfig:
        return ClientConfig(
            bootstrap_servers=self.kafka.certificates_bootstrap_servers,
            protocol="SSL",
            ca_file=self.folder / "ca.pem",
            certificate_file=self.folder / "worker.pem",
            key_file=self.folder / "worker.key",
        )


@pytest.fixture(scope="module")
def secured(
    start_kafka: Callable[..., EmbeddedKafka], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Secured]:
    folder, alien = tmp_path_factory.mktemp("secure"), tmp_path_factory.mktemp("alien")
    kafka = start_kafka(
        secure=folder,
        settings={
            "super.users": "User:ANONYMOUS;User:worker",
            # The broker cuts a connection off whose token has run out: without this it never looks at a token again.
            "connections.max.reauth.ms": "3600000",
        },
    )
    SecureFolder(alien).make()
    assert kafka.secure is not None
    kafka.secure.issue("expired", common_name="worker", valid_days=-1)
    yield Secured(kafka=kafka, folder=folder, alien=alien)
    kafka.close()


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_name_and_a_password_are_let_in(secured: Secured, mechanism: str) -> None:
    assert KafkaAdmin(replace(secured.password, mechanism=mechanism)).cluster_id()


def test_a_certificate_is_let_in(secured: Secured) -> None:
    assert KafkaAdmin(secured.certificate).cluster_id()


def test_files_are_for_their_owner_alone_and_settings_work_as_they_stand(
    secured: Secured, tmp_path: Path
) -> None:
    from penstock.engine.settings.model import load_settings
    from penstock.engine.worker.kafka import client_config

    kafka = secured.kafka
    assert kafka.secure is not None
    written = kafka.secure.write_settings(
        users_servers=kafka.users_bootstrap_servers, certificates_servers=kafka.certificates_bootstrap_servers
    )
    rest = "input: {topic: in}\noutput: {predictions: out, dead_letters: dead}\nmodel: {path: m}\n"
    for path in written:
        whole = tmp_path / path.name
        whole.write_text(path.read_text() + rest)
        assert KafkaAdmin(client_config(load_settings(whole, {}).kafka)).cluster_id()
    for file in secured.folder.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file


@contextmanager
def served(certificate: Path, key: Path) -> Iterator[str]:
    """A port where this certificate is shown once; its address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with suppress(OSError), context.wrap_socket(connection, server_side=True):
                pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)


causes: dict[str, tuple[Callable[[Secured], ClientConfig], type[PenstockError], str, float]] = {
    "wrong password": (
        lambda s: replace(s.password, password="canary"), ConfigError, "does not accept this name and password .* kafka.security.username", 1.0
    ),
    "wrong password, PLAIN": (
        lambda s: replace(s.password, password="canary", mechanism="PLAIN"), ConfigError, "does not accept this name and password", 1.0
    ),
    "wrong authority": (
        lambda s: replace(s.password, ca_file=s.alien / "ca.pem"), ConfigError, "none of the authorities in kafka.security.ca_file", 1.0
    ),
    "no authority": (lambda s: replace(s.password, ca_file=None), ConfigError, "none of the system's authorities", 1.0),
    "plain client at a TLS port": (
        lambda s: ClientConfig(bootstrap_servers=s.password.bootstrap_servers),
        ConfigError, "speaks TLS, and kafka.security.protocol is PLAINTEXT", 2.0,
    ),
    "plain SASL client at a TLS port": (
        lambda s: replace(s.password, protocol="SASL_PLAINTEXT"), ConfigError, "speaks TLS, and kafka.security.protocol is SASL_PLAINTEXT", 2.0
    ),
    "TLS at a plain port": (
        lambda s: replace(s.password, bootstrap_servers=s.kafka.bootstrap_servers), UnavailableError, "does not answer as TLS does", 6.0
    ),
    "no login where one is asked for": (
        lambda s: replace(s.certificate, bootstrap_servers=s.kafka.users_bootstrap_servers), ConfigError,
        "ends the conversation with who has not logged in, and kafka.security.protocol is SSL; it has to be SASL_SSL", 4.0,
    ),
    "expired certificate of ours": (
        lambda s: replace(s.certificate, certificate_file=s.folder / "expired.pem", key_file=s.folder / "expired.key"),
        ConfigError, "kafka.security.certificate_file .*expired.pem has expired on 20", 2.0,
    ),
    "certificate of another authority": (
        lambda s: replace(s.certificate, certificate_file=s.alien / "worker.pem", key_file=s.alien / "worker.key"),
        ConfigError, "does not accept the certificate in kafka.security.certificate_file", 2.0,
    ),
    "no certificate": (
        lambda s: replace(s.certificate, certificate_file=None, key_file=None), ConfigError, "asks for a client's certificate", 2.0
    ),
    "key of another certificate": (
        lambda s: replace(s.certificate, key_file=s.folder / "scaler.key"), ConfigError, "kafka.security.key_file .* is not the key of", 1.0
    ),
}  # fmt: skip


@pytest.mark.parametrize("cause", causes)
def test_each_cause_has_its_own_sentence_in_time(secured: Secured, cause: str) -> None:
    make, kind, sentence, within_s = causes[cause]
    config = make(secured)
    began_s = time.monotonic()
    with pytest.raises(kind, match=sentence) as told:
        KafkaAdmin(config, timeout_s=4.0).cluster_id()
    assert time.monotonic() - began_s < within_s + 1.5  # a busy machine
    assert "canary" not in str(told.value)


def test_a_deployment_that_was_let_in_waits_where_tls_refuses_it(secured: Secured) -> None:
    config = replace(secured.password, ca_file=secured.alien / "ca.pem", proven=True)
    with pytest.raises(UnavailableError, match="none of the authorities"):
        KafkaAdmin(config, timeout_s=2.0).cluster_id()
    with pytest.raises(ConfigError, match="name and password"):
        KafkaAdmin(replace(secured.password, password="x", proven=True), timeout_s=4.0).cluster_id()


@pytest.mark.parametrize(
    ("stem", "addresses", "days", "sentence"),
    [
        ("late", ("IP:127.0.0.1",), -1, "the certificate of the broker at .* has expired"),
        ("astray", ("DNS:kafka.example",), 30, "is for another host; kafka.bootstrap_servers"),
    ],
)
def test_a_wrong_certificate_of_the_broker_has_its_own_sentence(
    secured: Secured, stem: str, addresses: tuple[str, ...], days: int, sentence: str
) -> None:
    from penstock.connectors.kafka.admin.access import tls_fault

    folder = SecureFolder(secured.folder)
    folder.issue(stem, common_name="broker", addresses=addresses, valid_days=days)
    with served(secured.folder / f"{stem}.pem", secured.folder / f"{stem}.key") as address:
        fault = tls_fault(replace(secured.password, bootstrap_servers=address))
    assert fault is not None
    assert re.search(sentence, fault.sentence)


def test_a_key_with_a_password_says_which_setting_is_wrong(secured: Secured) -> None:
    locked, word = secured.folder / "locked.key", secured.folder / "locked.password"
    word.write_text("right-canary")
    word.chmod(0o600)
    subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-in", secured.folder / "worker.key", "-passout", f"file:{word}", "-out", locked],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    config = replace(secured.certificate, key_file=locked)
    assert KafkaAdmin(replace(config, key_password="right-canary")).cluster_id()
    with pytest.raises(ConfigError, match=r"kafka\.security\.key_password does not open"):
        KafkaAdmin(replace(config, key_password="canary"))
    with pytest.raises(ConfigError, match=r"has a password: kafka\.security\.key_password"):
        KafkaAdmin(config)


def test_the_end_of_a_certificate_is_read(secured: Secured) -> None:
    end = certificate_end(secured.folder / "worker.pem")
    shown = subprocess.run(
        ["openssl", "x509", "-in", secured.folder / "worker.pem", "-noout", "-enddate", "-dateopt", "iso_8601"],
        check=True, capture_output=True, text=True, timeout=30,
    ).stdout  # fmt: skip
    assert end is not None
    assert f"{end:%Y-%m-%d %H:%M:%S}Z" in shown
    assert certificate_end(secured.folder / "worker.key") is None


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider(token_s=token_s, hang_s=away_s + 60)
    yield made
    made.return_()
    made.go()


def token_stream(secured: Secured, provider: Provider, folder: Path) -> Stream:
    """Workers that log in with the provider's tokens."""
    write_stump(folder / "model", input_schema=orjson.dumps(event_schema))
    security = {
        "protocol": "SASL_SSL",
        "mechanism": "OAUTHBEARER",
        "ca_file": str(secured.folder / "ca.pem"),
        "oauth_token_url": f"http://127.0.0.1:{provider.port}/token",
        "oauth_client_id": "penstock",
        "oauth_client_secret": "shh-canary",
    }
    return Stream(
        folder, secured.kafka.bootstrap_servers, f"tokens-{time.time_ns()}", folder / "model", explained=False,
        kafka={"bootstrap_servers": secured.kafka.users_bootstrap_servers, "security": security},
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["nobody listens", "fails", "hangs"] if away_s > 30 else ["nobody listens"])
def test_a_provider_that_is_away_for_longer_than_its_tokens_live_is_waited_for(
    secured: Secured, provider: Provider, tmp_path: Path, kind: str
) -> None:
    records = int((away_s + 10) * records_per_s)
    stream = token_stream(secured, provider, tmp_path)
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
        said = stream.said()
        # A commit that was under way when the brokers cut the connections off has an unknown outcome: that alone, and by
        # name, may have the worker start anew.
        unknown = said.count("the broker did not say in time whether a transaction was committed")
        assert said.count("asked to be started again") == unknown, said
        assert unknown or children(supervisor) == [worker], said
        assert " died of " not in said
        assert re.search(
            "no new token for Kafka yet|the brokers do not take the worker's token, and it waits", said
        )
        assert "canary" not in said
        supervisor.terminate()
        assert supervisor.wait(30) == 0
    finally:
        stream.close()


@pytest.mark.parametrize("when", ["at work", "at the start"])
@pytest.mark.parametrize("kind", ["nobody listens", "fails", "hangs"] if away_s > 30 else ["hangs"])
def test_a_stop_does_not_wait_for_a_provider(
    secured: Secured, provider: Provider, tmp_path: Path, kind: str, when: str
) -> None:
    """Who lets go of a client waits in librdkafka until its request for a token has ended: 20 s, where the provider hangs."""
    stream = token_stream(secured, provider, tmp_path)
    try:
        if when == "at the start":
            provider.leave(kind)
        supervisor = stream.start("a")
        if when == "at work":
            stream.feed([event(number) for number in range(100)], per_s=records_per_s)
            stream.wait(1.0, patience_s)
            provider.leave(kind)
        time.sleep(token_s + 6)
        began_s = time.monotonic()
        supervisor.terminate()
        assert supervisor.wait(60) == 0, stream.said()
        took_s = time.monotonic() - began_s
        assert took_s < stopped_s_max, f"{took_s:.1f} s\n{stream.said()}"
    finally:
        stream.close()


@pytest.mark.parametrize("kind", ["nobody listens", "fails", "hangs"] if away_s > 30 else ["hangs"])
def test_who_reads_offsets_without_end_reads_them_again_after_a_provider_was_away(
    secured: Secured, provider: Provider, kind: str
) -> None:
    """As the scaler does: no old token is a wrong setting, to the client that has it nor to one that is made meanwhile."""
    KafkaAdmin(secured.password).create_topics({"offsets-of-tokens": 2}, exist_ok=True)
    config = ClientConfig(
        bootstrap_servers=secured.kafka.users_bootstrap_servers, protocol="SASL_SSL", mechanism="OAUTHBEARER",
        ca_file=secured.folder / "ca.pem", oauth_token_url=f"http://127.0.0.1:{provider.port}/token", oauth_client_id="penstock",
        oauth_client_secret="shh-canary", proven=True,
    )  # fmt: skip
    with closing(
        Renewed(lambda: KafkaOffsets(config, "nobody", timeout_s=2.0), name="the offsets")
    ) as offsets:

        def read() -> list[int]:
            return [each.partition for each in offsets.use(lambda client: client.read("offsets-of-tokens"))]

        assert read() == [0, 1]
        provider.leave(kind)
        end_s, refused = time.monotonic() + token_s + 60.0, 0
        while refused < 4:  # after two without an answer there is a new client
            assert time.monotonic() < end_s, f"the brokers refused the old token {refused} times"
            try:
                read()
            except UnavailableError:
                refused += 1
            time.sleep(0.2)
        provider.return_()
        end_s = time.monotonic() + 30.0
        while True:
            try:
                assert read() == [0, 1]
                break
            except UnavailableError:
                assert time.monotonic() < end_s
