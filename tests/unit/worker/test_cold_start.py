"""A start is short: what it does not need is not loaded, and what it asks the cluster is asked at once."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from penstock.connectors.kafka.admin.topic_settings import TopicSettings
from penstock.connectors.kafka.client import ClientConfig
from penstock.engine.settings.model import Settings, parse_settings
from penstock.engine.worker.startup import kafka_facts as asked
from penstock.engine.worker.startup.stages import limits_default
from penstock.schemas.errors import ConfigError, UnavailableError

settings = parse_settings(
    {
        "kafka": {"bootstrap_servers": "nowhere:9092", "group": "g"},
        "input": {"topic": "in"},
        "output": {"predictions": "out", "dead_letters": "dead"},
        "model": {"path": "/nowhere"},
    },
    origin="here",
    folder=Path("/"),
)
config = ClientConfig(bootstrap_servers="nowhere:9092")
taken = asked.FoundLimits(limits=limits_default, batch_bytes_max=1_000_000, untold=())


def loads(code: str, *names: str) -> set[str]:
    """Which of these modules a fresh process has loaded after the code."""
    said = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; {code}; print(*{{*{names!r}}} & set(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(said.stdout.split())


def test_a_command_spends_no_time_on_metadata_before_its_worker_is_started() -> None:
    code = "import penstock.engine.cli.main, penstock.engine.cli.commands.run"
    assert loads(code, "importlib.metadata", "pydantic", "numpy", "confluent_kafka") == set()


def test_a_worker_loads_no_http_client_without_a_registry_or_a_token_server() -> None:
    code = "import penstock.engine.worker.kafka, penstock.engine.settings.model"
    assert loads(code, "httpx", "rich", "click", "pygments", "pandas", "pyarrow") == set()


class Cluster:
    """Answers only when all that a start asks is asked."""

    def __init__(self) -> None:
        self._all = threading.Barrier(4)
        self.faults: dict[str, Exception] = {}

    def answer(self, name: str, result: Any) -> Any:
        self._all.wait(timeout=20.0)
        if name in self.faults:
            raise self.faults[name]
        return result


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    found = Cluster()
    counts = {"in": 3, "out": 3, "dead": 1}

    class Admin:
        def __init__(self, config: ClientConfig) -> None:
            pass

        def partition_counts(self, topics: list[str]) -> dict[str, int]:
            assert sorted(topics) == sorted(counts)
            return found.answer("counts", counts)

        def cluster_id(self) -> str:
            return found.answer("cluster", "the-cluster")

    def limits(settings: Settings, config: ClientConfig) -> asked.FoundLimits:
        return found.answer("limits", taken)

    monkeypatch.setattr(asked, "KafkaAdmin", Admin)
    monkeypatch.setattr(asked, "output_limits", limits)
    monkeypatch.setattr(asked, "require_permissions", lambda *_: found.answer("permissions", None))
    return found


def test_all_that_a_start_asks_the_cluster_is_asked_at_once(cluster: Cluster) -> None:
    facts = asked.kafka_facts(settings, config)
    assert (facts.cluster, facts.partitions, facts.limits) == (
        "the-cluster",
        {"in": 3, "out": 3, "dead": 1},
        taken,
    )


def test_of_several_faults_the_one_is_told_that_the_others_follow_from(cluster: Cluster) -> None:
    cluster.faults = {
        "permissions": ConfigError("this user lacks the permission to describe in"),
        "counts": UnavailableError("no counts"),
        "limits": ConfigError("no limits"),
    }
    with pytest.raises(ConfigError, match="lacks the permission"):
        asked.kafka_facts(settings, config)
    del cluster.faults["permissions"]
    with pytest.raises(UnavailableError, match="no counts"):
        asked.kafka_facts(settings, config)


@pytest.mark.parametrize("topic", ["out", "dead"])
@pytest.mark.parametrize("bytes_max", [0, 1, 512])
def test_a_topic_that_takes_no_message_at_all_is_refused_by_its_name(
    topic: str, bytes_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every record would become a letter, "longer than the 0 bytes" of its topic."""
    taken = {name: TopicSettings(batch_bytes_max=1_048_588, compacted=False) for name in ("out", "dead")}
    taken[topic] = TopicSettings(batch_bytes_max=bytes_max, compacted=False)
    monkeypatch.setattr(asked, "read_topic_settings", lambda *_: taken)
    sentence = f"no message at all fits into topic {topic}: its max.message.bytes is {bytes_max}; raise it"
    with pytest.raises(ConfigError, match=sentence):
        asked.output_limits(settings, config)
