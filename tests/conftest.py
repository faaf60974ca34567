"""Where the tests find a broker, and what every test may ask for."""

import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings

from connectors.embedded import EmbeddedKafka
from connectors.kafka_admin import KafkaAdmin
from connectors.kafka_client import ClientConfig
from schemas.errors import ConfigError

settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("here"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

kafka_image = "apache/kafka:4.1.1"


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """Bootstrap address of a real Kafka: PENSTOCK_TEST_KAFKA, else Docker, else the embedded one.

    Where none can be had the test is skipped, but fails in CI: there a broker is part of the promise.
    """
    address = os.environ.get("PENSTOCK_TEST_KAFKA")
    if address:
        yield address
        return
    if _docker_answers():
        from testcontainers.kafka import KafkaContainer

        with KafkaContainer(kafka_image).with_kraft() as container:
            yield container.get_bootstrap_server()
        return
    try:
        broker = EmbeddedKafka()
        broker.__enter__()
    except ConfigError as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI needs a broker: {error}")
        pytest.skip(str(error))
    try:
        yield broker.bootstrap_servers
    finally:
        broker.close()


@pytest.fixture
def new_topic(kafka: str) -> Callable[..., str]:
    """Makes a topic of a name nobody else uses: `new_topic("in", partitions=4)`."""

    def make(stem: str = "topic", *, partitions: int = 1, **config: str) -> str:
        name = f"{stem}-{uuid.uuid4().hex[:10]}"
        with KafkaAdmin(ClientConfig(bootstrap_servers=kafka)) as admin:
            admin.create_topics({name: partitions}, config=config)
        return name

    return make


def _docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=5, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False
