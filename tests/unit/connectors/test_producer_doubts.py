"""When a producer counts as suspect: not for what its client said before it had done anything."""

import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from penstock.connectors.delivery.producer_port import BrokenError, UnfinishedError
from penstock.connectors.kafka import producers
from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.group import KafkaMembership
from penstock.connectors.kafka.producers import KafkaTransactionalProducer


class HandClient:
    """One of the addresses it is given is dead, as in a cluster of which a broker is down."""

    def __init__(self, properties: dict[str, Any]) -> None:
        self._say: Callable[[KafkaError], None] = properties["error_cb"]
        self.news: list[KafkaError] = []

    def list_topics(self, topic: str, timeout: float) -> None:
        self.news.append(KafkaError(KafkaError._TRANSPORT, "connection refused"))

    def init_transactions(self, timeout_s: float) -> None: ...
    def begin_transaction(self) -> None: ...
    def send_offsets_to_transaction(self, *_: object) -> None: ...
    def flush(self, timeout_s: float) -> int:
        return 0

    def commit_transaction(self, timeout_s: float) -> None: ...
    def purge(self) -> None: ...

    def poll(self, timeout_s: float) -> None:
        while self.news:
            self._say(self.news.pop(0))


@pytest.fixture
def producer(monkeypatch: pytest.MonkeyPatch) -> KafkaTransactionalProducer:
    monkeypatch.setattr(producers, "open_client", lambda _, properties: HandClient(properties))
    return KafkaTransactionalProducer(
        ClientConfig(bootstrap_servers="dead:1,alive:1"), transactional_id="x", topic="t", partition_counts={"t": 1},
        transaction_timeout_s=10.0, memory_bytes_max=1 << 20,
    )  # fmt: skip


def finished(call: Callable[[], object]) -> None:
    while True:
        try:
            call()
        except UnfinishedError:
            continue
        return


def initialise(producer: KafkaTransactionalProducer) -> None:
    finished(lambda: producer.initialise(5.0))


def test_a_producer_that_was_just_made_is_none_for_a_broker_that_is_down(
    producer: KafkaTransactionalProducer,
) -> None:
    """It would be thrown away and made anew for as long as that broker is down, and nothing could be delivered."""
    initialise(producer)
    assert not producer.suspect()
    producer.close()


def test_one_whose_connections_break_afterwards_is(producer: KafkaTransactionalProducer) -> None:
    initialise(producer)
    client: HandClient = producer._queue.client  # type: ignore[assignment]
    client.news.append(KafkaError(KafkaError._TRANSPORT, "connection reset"))
    assert producer.suspect()
    producer.begin()
    assert not producer.suspect()
    producer.close()


@pytest.mark.parametrize("broken", ["before the offsets", "before the commit", "nowhere"])
def test_offsets_that_were_perhaps_sent_twice_are_not_left_to_the_next_transaction(
    producer: KafkaTransactionalProducer, broken: str
) -> None:
    """The client sends them again over a new connection, and the first ones may arrive later: in the transaction that follows,
    of which they would take the group back, to records that are then predicted once more."""
    initialise(producer)
    client: HandClient = producer._queue.client  # type: ignore[assignment]
    membership: Any = KafkaMembership(metadata=b"", note="")

    producer.begin()
    if broken == "before the offsets":
        client.news.append(KafkaError(KafkaError._TRANSPORT, "connection reset"))
    finished(lambda: producer.send_offsets({0: 7}, membership, 5.0))
    if broken == "before the commit":
        client.news.append(KafkaError(KafkaError._TRANSPORT, "connection reset"))
    finished(lambda: producer.flush(5.0))
    finished(lambda: producer.commit(5.0))
    assert producer.suspect() == (broken != "nowhere")
    producer.close()


@pytest.mark.parametrize(
    ("answer", "known"),
    [
        (None, True),
        (KafkaError(KafkaError.TRANSACTION_ABORTABLE, "refused", False, False, True), True),
        (KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED, "refused", False, False, True), True),
        (KafkaError(KafkaError._TIMED_OUT, "no answer", False, True), False),
        (KafkaError(KafkaError._TRANSPORT, "broken"), False),
        (KafkaError(KafkaError._AUTHENTICATION, "broken off"), False),
    ],
)
def test_offsets_of_which_nothing_is_known_end_their_producer_with_the_abort(
    producer: KafkaTransactionalProducer,
    monkeypatch: pytest.MonkeyPatch,
    answer: KafkaError | None,
    known: bool,
) -> None:
    """No connection broke, so it is not suspect; and what is still on its way would be committed with the next transaction."""
    initialise(producer)
    client: HandClient = producer._queue.client  # type: ignore[assignment]
    membership: Any = KafkaMembership(metadata=b"", note="")
    allowed, aborted = threading.Event(), []

    def send(*_: object) -> None:
        allowed.wait(10.0)
        if answer is not None:
            raise KafkaException(answer)

    monkeypatch.setattr(client, "send_offsets_to_transaction", send)
    monkeypatch.setattr(client, "abort_transaction", lambda _: aborted.append(1), raising=False)
    producer.begin()
    with pytest.raises(UnfinishedError):
        producer.send_offsets({0: 7}, membership, 0.0)
    with pytest.raises(UnfinishedError):
        producer.abort(0.0)
    assert aborted == []
    allowed.set()
    if known:
        finished(lambda: producer.abort(1.0))
    else:
        with pytest.raises(BrokenError):
            finished(lambda: producer.abort(1.0))
    assert bool(aborted) == known
    producer.close()


@pytest.mark.parametrize(
    "code",
    [KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError.UNSUPPORTED_SASL_MECHANISM, KafkaError._SSL],
)  # fmt: skip
@pytest.mark.parametrize("flag", list(itertools.product([False, True], repeat=3)))
def test_a_commit_that_breaks_off_with_the_login_has_an_unknown_outcome(
    producer: KafkaTransactionalProducer,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    flag: tuple[bool, bool, bool],
) -> None:
    """`flag`: the error is fatal, may be tried again, asks for an abort."""
    text = "Failed to end transaction: EndTxn failed: Local: Authentication failure"

    def commit(_: float) -> None:
        raise KafkaException(KafkaError(code, text, *flag))

    initialise(producer)
    monkeypatch.setattr(producer._queue.client, "commit_transaction", commit)
    producer.begin()
    with pytest.raises(BrokenError, match="outcome unknown"):
        finished(lambda: producer.commit(5.0))
    producer.close()
