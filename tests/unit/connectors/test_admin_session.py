"""Questions to the cluster: what is asked again, and where."""

import time
from collections.abc import Mapping
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from penstock.connectors.kafka.admin.session import AdminSession
from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.reading import log_bounds
from penstock.schemas.errors import PenstockError
from tests.clocks import HandClock

leader_errors = [
    KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.REPLICA_NOT_AVAILABLE,
    KafkaError.KAFKA_STORAGE_ERROR, KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError.OFFSET_NOT_AVAILABLE,
]  # fmt: skip
"""After each of these librdkafka's own consumer asks for metadata before it looks up offsets again (rd_kafka_handle_ListOffsets)."""


class Cluster:
    """An AdminClient whose answers are right once metadata was asked for."""

    def __init__(self, code: int, *, stale: bool) -> None:
        self._code = code
        self._stale = stale
        self._asked = 0

    def list_topics(self, **_: Any) -> None:
        self._stale = False

    def poll(self, _: float) -> None: ...

    def offsets(self) -> dict[str, "Future[int]"]:
        self._asked += 1
        answers: dict[str, Future[int]] = {"other": Future(), "place": Future()}
        answers["other"].set_result(1)
        if self._stale or (self._code not in leader_errors and self._asked == 1):
            answers["place"].set_exception(KafkaException(KafkaError(self._code)))
        else:
            answers["place"].set_result(7)
        return answers


def session(cluster: Cluster) -> AdminSession:
    made = AdminSession(ClientConfig(bootstrap_servers="127.0.0.1:1"), timeout_s=2.0)
    made.client = cluster  # type: ignore[assignment]  # answers what is asked here
    return made


@pytest.mark.parametrize("code", leader_errors)
def test_after_an_error_of_a_leader_metadata_is_asked_for_before_the_question_again(code: int) -> None:
    cluster = Cluster(code, stale=True)
    assert session(cluster).ask(cluster.offsets, "look up offsets") == {"other": 1, "place": 7}


@pytest.mark.parametrize("code", [KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.NOT_COORDINATOR])
def test_after_an_error_of_a_coordinator_the_question_is_asked_again(code: int) -> None:
    cluster = Cluster(code, stale=False)
    assert session(cluster).ask(cluster.offsets, "look up offsets") == {"other": 1, "place": 7}


def test_any_other_error_is_raised_at_once() -> None:
    cluster = Cluster(KafkaError.INVALID_REQUEST, stale=True)
    with pytest.raises(PenstockError, match="cannot look up offsets"):
        session(cluster).ask(cluster.offsets, "look up offsets")


class Leaders(Cluster):
    """The same for two partitions, of which one is led elsewhere."""

    def list_offsets(
        self, places: Mapping[TopicPartition, object], **_: Any
    ) -> "dict[TopicPartition, Future[Any]]":
        answers: dict[TopicPartition, Future[Any]] = {}
        for place in places:
            answers[place] = Future()
            if place.partition == 1 and self._stale:
                answers[place].set_exception(KafkaException(KafkaError(self._code)))
            else:
                answers[place].set_result(SimpleNamespace(offset=7 + place.partition))
        return answers


@pytest.mark.parametrize("code", leader_errors)
def test_where_a_log_begins_and_ends_is_known_soon_after_its_leader_changed(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It decides whether records are lost: a client that went on asking the old leader would make us say so."""
    cluster, clock = Leaders(code, stale=True), HandClock()
    monkeypatch.setattr(log_bounds, "AdminSession", lambda *_, **__: session(cluster))
    bounds = log_bounds.LogBounds(ClientConfig(bootstrap_servers="127.0.0.1:1"), "t", clock=clock)
    end_s = time.monotonic() + 10.0
    while len(found := bounds.of([0, 1], 0.0)) < 2:
        assert time.monotonic() < end_s, found
        time.sleep(0.01)
        clock.sleep(0.05)
    assert found == {0: (7, 7), 1: (8, 8)}
    bounds.close()
