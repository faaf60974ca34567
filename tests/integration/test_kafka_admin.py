"""Topics, permissions and access, on a real Kafka."""

import base64
import json
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, not re-exported
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)

from penstock.connectors.embedded.kafka import EmbeddedKafka
from penstock.connectors.kafka.admin.admin import KafkaAdmin
from penstock.connectors.kafka.admin.group_members import describe_group
from penstock.connectors.kafka.admin.group_offsets import KafkaOffsets
from penstock.connectors.kafka.admin.permissions import Operation, Permission, Resource, require_permissions
from penstock.connectors.kafka.client import ClientConfig, base_config
from penstock.connectors.kafka.wire.groups import GroupForbiddenError
from penstock.schemas.errors import ConfigError, UnavailableError

pytestmark = pytest.mark.kafka

ann = ("ann", 'se"cret\\1')
Grant = Callable[..., None]


@pytest.fixture
def admin(kafka: str) -> KafkaAdmin:
    return KafkaAdmin(ClientConfig(bootstrap_servers=kafka), timeout_s=30.0)


@pytest.fixture
def name() -> str:
    return f"topic-{uuid.uuid4().hex[:10]}"


def test_a_topic_is_made_counted_and_deleted(admin: KafkaAdmin, kafka: str, name: str) -> None:
    with pytest.raises(ConfigError, match=f"topic {name} does not exist"):
        admin.partitions(name)
    admin.create_topics({name: 3}, properties={"cleanup.policy": "compact"})
    assert admin.partitions(name) == 3
    assert admin.partition_counts([name, "no-such-topic"]) == {name: 3, "no-such-topic": None}
    resource = ConfigResource(ConfigResource.Type.TOPIC, name)
    client = AdminClient(base_config(ClientConfig(bootstrap_servers=kafka)))
    described = client.describe_configs([resource])[resource].result(10)
    assert described["cleanup.policy"].value == "compact"
    with pytest.raises(ConfigError, match=f"cannot create topic {name}: .*already exists"):
        admin.create_topics({name: 3})
    admin.create_topics({name: 5}, exist_ok=True)
    assert admin.partitions(name) == 3
    admin.delete_topics([name])
    admin.delete_topics([name])
    assert admin.partition_counts([name]) == {name: None}


def test_a_topic_the_cluster_cannot_carry_is_refused(admin: KafkaAdmin, name: str) -> None:
    with pytest.raises(ConfigError, match=f"cannot create topic {name}"):
        admin.create_topics({name: 1}, replication=50)
    with pytest.raises(ConfigError, match=f"cannot create topic {name}"):
        admin.create_topics({name: 1}, properties={"no.such.setting": "1"})


def test_the_cluster_has_an_id_that_stays(admin: KafkaAdmin, kafka: str) -> None:
    again = KafkaAdmin(ClientConfig(bootstrap_servers=kafka))
    assert admin.cluster_id() == again.cluster_id()
    assert len(admin.cluster_id()) > 10


def test_nobody_asks_about_nothing(admin: KafkaAdmin) -> None:
    assert admin.partition_counts([]) == {}


def test_every_missing_topic_is_named_at_once(kafka: str, new_topic: Callable[..., str]) -> None:
    there, config = new_topic("there"), ClientConfig(bootstrap_servers=kafka)
    require_permissions(config, [wants("Read", "topic", there), wants("Write", "topic", there)])
    with pytest.raises(ConfigError) as told:
        require_permissions(
            config, [wants("Read", "topic", name) for name in ("gone-1", there, "gone-2", "gone-1")]
        )
    assert str(told.value) == "; ".join(
        f"topic {name} does not exist; Penstock creates none by itself" for name in ("gone-1", "gone-2")
    )


def test_where_nobody_listens_the_answer_is_unavailable_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    admin = KafkaAdmin(ClientConfig(bootstrap_servers=f"127.0.0.1:{port}"), timeout_s=1.0)
    began_s = time.monotonic()
    with pytest.raises(UnavailableError, match=f"cannot reach Kafka at 127.0.0.1:{port}: .*refused"):
        admin.cluster_id()
    assert time.monotonic() - began_s < 5


def test_a_broker_that_never_answers_is_unavailable_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = ClientConfig(bootstrap_servers=f"127.0.0.1:{listener.getsockname()[1]}")
        began_s = time.monotonic()
        with pytest.raises(UnavailableError, match="cannot look up topic t"):
            KafkaAdmin(config, timeout_s=1.0).partition_counts(["t"])
        with pytest.raises(UnavailableError, match="cannot look up topic t"):
            KafkaOffsets(config, "g", timeout_s=1.0).read("t")
        assert time.monotonic() - began_s < 10


@pytest.fixture(scope="module")
def guarded(start_kafka: Callable[..., EmbeddedKafka]) -> Iterator[EmbeddedKafka]:
    """A Kafka where `ann` may do what she was granted, and nothing else."""
    kafka = start_kafka(users={ann[0]: ann[1], "bob": "x"})
    yield kafka
    kafka.close()


@pytest.fixture
def grant(guarded: EmbeddedKafka) -> Iterator[Grant]:
    client = AdminClient(base_config(ClientConfig(bootstrap_servers=guarded.bootstrap_servers)))
    bindings: list[AclBinding] = []

    def allow(kind: ResourceType, name: str, operation: AclOperation) -> None:
        pattern = ResourcePatternType.PREFIXED if name.endswith("-") else ResourcePatternType.LITERAL
        binding = AclBinding(kind, name, pattern, "User:ann", "*", operation, AclPermissionType.ALLOW)
        for future in client.create_acls([binding]).values():
            future.result(10)
        bindings.append(binding)

    yield allow
    for binding in bindings:
        found = AclBindingFilter(
            binding.restype,
            binding.name,
            binding.resource_pattern_type,
            binding.principal,
            binding.host,
            binding.operation,
            binding.permission_type,
        )
        for future in client.delete_acls([found]).values():
            future.result(10)


def as_user(guarded: EmbeddedKafka, username: str, password: str) -> ClientConfig:
    return ClientConfig(
        bootstrap_servers=guarded.users_bootstrap_servers,
        protocol="SASL_PLAINTEXT",
        mechanism="PLAIN",
        username=username,
        password=password,
    )


@pytest.fixture(scope="module")
def topics(guarded: EmbeddedKafka) -> tuple[str, str]:
    admin = KafkaAdmin(ClientConfig(bootstrap_servers=guarded.bootstrap_servers), timeout_s=30.0)
    admin.create_topics({"in": 1, "out": 1})
    return "in", "out"


least = [
    (ResourceType.TOPIC, "in", AclOperation.READ, "Read on topic in"),
    (ResourceType.TOPIC, "out", AclOperation.WRITE, "Write on topic out"),
    (ResourceType.GROUP, "app", AclOperation.READ, "Read on group app"),
]


def check_as_ann(guarded: EmbeddedKafka) -> None:
    wanted = [wants("Read", "topic", "in"), wants("Write", "topic", "out"), wants("Read", "group", "app")]
    require_permissions(as_user(guarded, *ann), wanted, timeout_s=30.0)


def wants(operation: Operation, resource: Resource, name: str) -> Permission:
    return Permission(operation=operation, resource=resource, name=name)


def test_the_least_permissions_are_enough(
    guarded: EmbeddedKafka, grant: Grant, topics: tuple[str, str]
) -> None:
    for kind, name, operation, _ in least:
        grant(kind, name, operation)
    check_as_ann(guarded)


@pytest.mark.parametrize("missing", range(len(least)), ids=[what for *_, what in least])
def test_each_missing_permission_is_named(
    guarded: EmbeddedKafka, grant: Grant, topics: tuple[str, str], missing: int
) -> None:
    for place, (kind, name, operation, _) in enumerate(least):
        if place != missing:
            grant(kind, name, operation)
    with pytest.raises(ConfigError) as told:
        check_as_ann(guarded)
    assert str(told.value) == f"this user lacks the permission {least[missing][3]}"


def test_describing_is_not_reading(guarded: EmbeddedKafka, grant: Grant, topics: tuple[str, str]) -> None:
    for kind, name, _, _ in least[:3]:
        grant(kind, name, AclOperation.DESCRIBE)
    with pytest.raises(ConfigError) as told:
        check_as_ann(guarded)
    assert str(told.value) == "; ".join(f"this user lacks the permission {what}" for *_, what in least[:3])


def test_a_wrong_password_is_a_wrong_setting_and_no_time_out(guarded: EmbeddedKafka) -> None:
    config = as_user(guarded, "ann", "wrong-canary")
    with pytest.raises(ConfigError, match=r"name and password .*kafka\.security\.username") as told:
        KafkaAdmin(config, timeout_s=3.0).cluster_id()
    assert "canary" not in str(told.value)
    assert "canary" not in repr(config)


def test_a_plain_client_at_a_guarded_port_is_told_something(guarded: EmbeddedKafka) -> None:
    config = ClientConfig(bootstrap_servers=guarded.users_bootstrap_servers)
    with pytest.raises((ConfigError, UnavailableError), match="cannot reach Kafka"):
        KafkaAdmin(config, timeout_s=2.0).cluster_id()


class TokenServer(ThreadingHTTPServer):
    """Gives unsigned tokens for one client and one secret."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _TokenHandler)
        self.asked: list[str] = []


class _TokenHandler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, TokenServer)
        self.server.asked.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        wanted = "Basic " + base64.b64encode(b"penstock:shh-canary").decode()
        allowed = self.headers["Authorization"] == wanted
        now_s = int(time.time())
        parts = ({"alg": "none"}, {"sub": "ann", "iat": now_s, "exp": now_s + 3600})
        token = ".".join(
            base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts
        )
        body = {"access_token": f"{token}.", "expires_in": 3600} if allowed else {"error": "invalid_client"}
        text = json.dumps(body).encode()
        self.send_response(200 if allowed else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def tokens() -> Iterator[TokenServer]:
    with TokenServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def bearer(start_kafka: Callable[..., EmbeddedKafka]) -> Iterator[EmbeddedKafka]:
    module = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule"
    kafka = start_kafka(
        users={"unused": "x"},
        settings={
            "listener.name.users.sasl.enabled.mechanisms": "OAUTHBEARER",
            "listener.name.users.oauthbearer.sasl.jaas.config": f'{module} required unsecuredLoginStringClaim_sub="kafka";',
        },
    )
    yield kafka
    kafka.close()


@pytest.mark.parametrize("secret", ["shh-canary", "wrong-canary"])
def test_a_token_is_fetched_and_accepted(bearer: EmbeddedKafka, tokens: TokenServer, secret: str) -> None:
    config = ClientConfig(
        bootstrap_servers=bearer.users_bootstrap_servers,
        protocol="SASL_PLAINTEXT",
        mechanism="OAUTHBEARER",
        oauth_token_url=f"http://127.0.0.1:{tokens.server_address[1]}/token",
        oauth_client_id="penstock",
        oauth_client_secret=secret,
        oauth_scope="kafka",
    )
    admin = KafkaAdmin(config, timeout_s=5.0)
    if secret == "shh-canary":
        plain = KafkaAdmin(ClientConfig(bootstrap_servers=bearer.bootstrap_servers))
        assert admin.cluster_id() == plain.cluster_id()
        with pytest.raises(GroupForbiddenError):  # let in by hand as well, and allowed nothing
            describe_group(config, "nobody", timeout_s=30.0)
    else:
        with pytest.raises(ConfigError, match="cannot reach Kafka") as told:
            admin.cluster_id()
        assert "canary" not in str(told.value)
        with pytest.raises(UnavailableError, match="the token server answers 401") as refused:
            describe_group(config, "nobody", timeout_s=0.5)
        assert "canary" not in str(refused.value)
    assert all("scope=kafka" in asked for asked in tokens.asked)
    assert secret not in repr(config)


def test_a_token_server_that_is_away_is_no_wrong_setting(bearer: EmbeddedKafka) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    config = ClientConfig(
        bootstrap_servers=bearer.users_bootstrap_servers,
        protocol="SASL_PLAINTEXT",
        mechanism="OAUTHBEARER",
        oauth_token_url=f"http://127.0.0.1:{port}/token",
        oauth_client_id="penstock",
        oauth_client_secret="shh-canary",
    )
    with pytest.raises(UnavailableError, match="no token yet"):
        KafkaAdmin(config, timeout_s=2.0).cluster_id()


def test_a_client_that_was_let_in_before_waits_for_a_token_server_that_forgot_it(
    bearer: EmbeddedKafka, tokens: TokenServer
) -> None:
    config = ClientConfig(
        bootstrap_servers=bearer.users_bootstrap_servers,
        protocol="SASL_PLAINTEXT",
        mechanism="OAUTHBEARER",
        oauth_token_url=f"http://127.0.0.1:{tokens.server_address[1]}/token",
        oauth_client_id="penstock",
        oauth_client_secret="wrong-canary",
        proven=True,
    )
    with pytest.raises(UnavailableError, match="no token yet") as told:
        KafkaAdmin(config, timeout_s=2.0).cluster_id()
    assert "canary" not in str(told.value)
