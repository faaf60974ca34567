"""Where the tests find a broker, and what every test may ask for."""

import os
import subprocess
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings

from penstock.connectors.embedded.cluster import free_ports
from penstock.connectors.embedded.kafka import EmbeddedKafka
from penstock.connectors.kafka.admin.admin import KafkaAdmin
from penstock.connectors.kafka.client import ClientConfig
from penstock.schemas.errors import ConfigError, UnavailableError
from tests import fake_cuda
from tests.canaries import Canaries

settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("here"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


def pytest_configure(config: pytest.Config) -> None:
    """Whatever the suite lets out is searched for its secrets."""
    if not config.pluginmanager.has_plugin("canaries"):
        config.pluginmanager.register(Canaries(), "canaries")


_keeps_all: Final = {"log.retention.ms": "-1"}
kafka_image: Final = "apache/kafka:4.1.1"
container_ready_timeout_s: Final = 60.0


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """Bootstrap address of a real Kafka: PENSTOCK_TEST_KAFKA, else one in Docker, else the embedded one.

    Ours delete nothing for its age: tests write records of 1970, which retention takes away minutes later.
    Where none can be had the test is skipped, but fails in CI: there a broker is part of the promise.
    """
    with ExitStack() as held:
        address = os.environ.get("PENSTOCK_TEST_KAFKA") or _in_docker(held)
        yield address or _started(held, EmbeddedKafka(settings=_keeps_all)).bootstrap_servers


@pytest.fixture(scope="session")
def _fake_cuda(tmp_path_factory: pytest.TempPathFactory) -> fake_cuda.FakeCuda:
    return fake_cuda.build(tmp_path_factory.mktemp("cuda"))


@pytest.fixture
def cuda(_fake_cuda: fake_cuda.FakeCuda) -> fake_cuda.FakeCuda:
    """A GPU that is none, as new."""
    _fake_cuda.reset()
    return _fake_cuda


@pytest.fixture(scope="module")
def _own_kafkas() -> Iterator[ExitStack]:
    with ExitStack() as held:
        yield held


@pytest.fixture(scope="module")
def start_kafka(_own_kafkas: ExitStack) -> Callable[..., EmbeddedKafka]:
    """Starts an embedded Kafka of a test's own, with EmbeddedKafka's arguments, to be closed or hurt; skips as `kafka` does.

    It deletes nothing for its age, as `kafka`.
    It ends with its test, or with the module where a fixture of the module started it: idle brokers would fill the machine.
    """

    def start(*, settings: Mapping[str, str] | None = None, **arguments: Any) -> EmbeddedKafka:
        return _started(_own_kafkas, EmbeddedKafka(settings=_keeps_all | dict(settings or {}), **arguments))

    return start


@pytest.fixture(autouse=True)
def _kafkas_end_with_their_test(request: pytest.FixtureRequest) -> Iterator[None]:
    if "start_kafka" not in request.fixturenames:
        yield
        return
    held: ExitStack = request.getfixturevalue("_own_kafkas")
    of_the_module = held.pop_all()
    yield
    held.close()
    held.push(of_the_module)


@pytest.fixture(autouse=True)
def _patches_end_with_their_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module first imported while a name of another is patched keeps the patch for the whole run: that fails here, not there."""
    yield
    patched = {
        id(value): (target, name)
        for target, name, _ in monkeypatch._setattr
        if callable(value := getattr(target, name, None))
    }
    if not patched:
        return
    modules = {name: module for name, module in sys.modules.items() if name.startswith("penstock.")}
    kept = [
        f"{module_name}.{name}"
        for module_name, module in modules.items()
        for name, value in list(vars(module).items())
        if id(value) in patched
        and not any(target is module and name == own for target, own, _ in monkeypatch._setattr)
    ]
    assert not kept, f"{', '.join(kept)} would stay patched: patch the name where it is used"


@pytest.fixture
def new_topic(kafka: str) -> Callable[..., str]:
    """Makes a topic of a name nobody else uses: `new_topic("in", partitions=4, **{"cleanup.policy": "compact"})`."""
    admin = KafkaAdmin(ClientConfig(bootstrap_servers=kafka), timeout_s=30.0)

    def make(stem: str = "topic", *, partitions: int = 1, **properties: str) -> str:
        name = f"{stem}-{uuid.uuid4().hex[:10]}"
        admin.create_topics({name: partitions}, properties=properties)
        return name

    return make


def _started(held: ExitStack, kafka: EmbeddedKafka) -> EmbeddedKafka:
    try:
        return held.enter_context(kafka)
    except ConfigError as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI needs a broker: {error}")
        pytest.skip(str(error))


def _in_docker(held: ExitStack) -> str | None:
    """None where no Docker daemon answers, or it cannot give us the image."""
    if not _docker_answers():
        return None
    with warnings.catch_warnings():  # what the library says of its own dependencies is not about our code
        warnings.simplefilter("ignore")
        from docker.errors import DockerException  # type: ignore[import-untyped]
        from testcontainers.core.container import DockerContainer

        port = free_ports(1)[0]  # the broker tells clients its address, so both sides must know it beforehand
        settings = {
            "KAFKA_NODE_ID": "1",
            "KAFKA_PROCESS_ROLES": "broker,controller",
            "KAFKA_LISTENERS": f"PLAINTEXT://:{port},CONTROLLER://:19093",
            "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{port}",
            "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:19093",
            "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
            "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
            "KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS": "1000",
            "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
            "KAFKA_LOG_RETENTION_MS": "-1",
        }
        container = DockerContainer(kafka_image).with_bind_ports(port, port).with_envs(**settings)
        try:
            held.enter_context(container)
        except DockerException as error:
            warnings.warn(f"Docker gives no {kafka_image}: {error}", stacklevel=2)
            return None
    address = f"127.0.0.1:{port}"
    admin = KafkaAdmin(ClientConfig(bootstrap_servers=address), timeout_s=2.0)
    deadline_s = time.monotonic() + container_ready_timeout_s
    while True:
        try:
            admin.cluster_id()
            return address
        except UnavailableError:
            if time.monotonic() > deadline_s:
                raise


def _docker_answers() -> bool:
    try:
        asked = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            timeout=3,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0
