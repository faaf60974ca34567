"""The proxy that the chaos tests stand on: what it says it does to a request, it does, and to no other."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.messages import apis, message
from tests.wire.proxy import Action, Cut, Drop, Hold, Proxy, Refuse, Repeat, Rule, Say

kafka_test = pytest.mark.kafka
patience_s = 20.0


@pytest.fixture
def proxy(kafka: str) -> Iterator[Proxy]:
    with Proxy(kafka) as made:
        yield made


class Sender:
    """A producer behind the proxy, without idempotence, so that what comes twice is there twice."""

    def __init__(self, proxy: Proxy, topic: str, **properties: Any) -> None:
        self.name = f"sender-{uuid.uuid4().hex[:8]}"
        self.topic = topic
        self.reports: list[KafkaError | None] = []
        self.producer = Producer(
            {
                "bootstrap.servers": proxy.bootstrap_servers, "client.id": self.name, "linger.ms": 0, "log_level": 0,
                "enable.idempotence": False, "retry.backoff.ms": 10, "reconnect.backoff.ms": 10, **properties,
            }
        )  # fmt: skip

    def send(self, value: bytes = b"1", wait_s: float = patience_s) -> None:
        self.producer.produce(
            self.topic, value, partition=0, on_delivery=lambda error, _: self.reports.append(error)
        )
        self.producer.flush(wait_s)

    def error(self) -> int:
        """The code of the only report, 0 for none."""
        (report,) = self.reports
        return 0 if report is None else int(report.code())


def count(kafka: str, topic: str) -> int:
    reader = Consumer({"bootstrap.servers": kafka, "group.id": "wire-test"})
    try:
        return reader.get_watermark_offsets(TopicPartition(topic, 0), timeout=patience_s)[1]
    finally:
        reader.close()


def await_count(kafka: str, topic: str, wanted: int) -> None:
    end_s = time.monotonic() + patience_s
    while (found := count(kafka, topic)) != wanted:
        assert time.monotonic() < end_s, f"{found} records, not {wanted}"
        time.sleep(0.05)


@kafka_test
@pytest.mark.parametrize(
    ("action", "error", "records", "requests"),
    [
        (Refuse(code=87), 87, 0, 1),
        (Say(code=87), 87, 1, 1),
        (Refuse(code=6), 0, 1, 2),  # not the leader: asked again
        (Repeat(), 0, 2, 1),
        (Cut(where="request"), 0, 1, 2),
        (Cut(where="answer"), 0, 2, 2),
        (Drop(where="request"), 0, 1, 2),
        (Drop(where="answer"), 0, 2, 2),
    ],
    ids=lambda value: str(value),
)
def test_one_request_is_touched(
    kafka: str,
    new_topic: Callable[..., str],
    proxy: Proxy,
    action: Action,
    error: int,
    records: int,
    requests: int,
) -> None:
    topic = new_topic("wire")
    sender, other = Sender(proxy, topic, **{"socket.timeout.ms": 1000}), Sender(proxy, new_topic("wire"))
    rule = proxy.add(Rule(api="Produce", action=action, client_id=sender.name))
    other.send()
    assert rule.fired == 0, "a rule about one client touched another"
    sender.send()
    assert (sender.error(), count(kafka, topic)) == (error, records)
    assert (rule.fired, proxy.seen["Produce"]) == (1, requests + 1)
    sender.send()
    assert count(kafka, topic) == records + 1, "the rule was used up"


@kafka_test
def test_a_held_request_arrives_when_its_client_is_gone(
    kafka: str, new_topic: Callable[..., str], proxy: Proxy
) -> None:
    topic, hold = new_topic("wire"), Hold(where="request")
    sender = Sender(proxy, topic)
    rule = proxy.add(Rule(api="Produce", action=hold, client_id=sender.name))
    sender.send(wait_s=0.0)
    assert rule.struck.wait(patience_s)
    proxy_seen = proxy.seen["Produce"]
    sender.producer.purge()
    del sender
    assert count(kafka, topic) == 0
    hold.release.set()
    await_count(kafka, topic, 1)
    assert proxy.seen["Produce"] == proxy_seen == 1


@kafka_test
def test_a_held_answer_keeps_those_behind_it_waiting(
    kafka: str, new_topic: Callable[..., str], proxy: Proxy
) -> None:
    topic, hold = new_topic("wire"), Hold(where="answer")
    sender = Sender(proxy, topic)
    proxy.add(Rule(api="Produce", action=hold, client_id=sender.name))
    sender.send(wait_s=0.0)
    await_count(kafka, topic, 1)
    sender.send(wait_s=0.0)
    await_count(kafka, topic, 2)
    assert sender.producer.flush(0.3) == 2
    hold.release.set()
    assert sender.producer.flush(patience_s) == 0
    assert sender.reports == [None, None]


@kafka_test
def test_a_hold_ends_by_itself(kafka: str, new_topic: Callable[..., str], proxy: Proxy) -> None:
    sender = Sender(proxy, new_topic("wire"))
    proxy.add(Rule(api="Produce", action=Hold(where="request", seconds_max=0.5), client_id=sender.name))
    began_s = time.monotonic()
    sender.send()
    assert sender.error() == 0
    assert 0.5 <= time.monotonic() - began_s < 5.0


@kafka_test
def test_a_broker_that_is_far_away_takes_longer_and_as_much(
    kafka: str, new_topic: Callable[..., str]
) -> None:
    """Every answer comes a round trip later, and requests that follow each other do not wait for it."""
    away_s, many = 0.25, 20
    with Proxy(kafka, delay_s=away_s) as proxy:
        sender = Sender(
            proxy,
            new_topic("wire"),
            **{"max.in.flight.requests.per.connection": many, "batch.num.messages": 1},
        )
        sender.send()  # connects, and asks who leads
        began_s = time.monotonic()
        sender.send()
        took_s = time.monotonic() - began_s
        assert 2 * away_s <= took_s < 10 * away_s
        began_s, before = time.monotonic(), proxy.seen["Produce"]
        for _ in range(many - 1):
            sender.send(wait_s=0.0)
        sender.send()
        assert time.monotonic() - began_s < many * away_s, "each waited for the one before"
        assert proxy.seen["Produce"] - before >= many / 2
        assert sender.reports == [None] * (many + 2)


@kafka_test
def test_connections_go_silent_or_break_and_new_ones_work(
    kafka: str, new_topic: Callable[..., str], proxy: Proxy
) -> None:
    topic = new_topic("wire")
    sender, bystander = Sender(proxy, topic, **{"socket.timeout.ms": 1000}), Sender(proxy, new_topic("wire"))
    sender.send()
    bystander.send()
    assert proxy.silence(sender.name) >= 1
    sender.send()  # after its time-out, on a connection of its own
    assert sender.reports == [None, None]
    assert proxy.cut(sender.name) >= 1
    sender.send()
    assert sender.reports == [None, None, None]
    proxy.refuse_connections(True)
    assert proxy.cut() >= 1
    sender.send(wait_s=1.0)
    assert len(sender.reports) == 3
    proxy.refuse_connections(False)
    assert sender.producer.flush(patience_s) == 0
    bystander.send()
    assert bystander.reports == [None, None]


@kafka_test
def test_a_client_never_hears_of_the_brokers_own_addresses(kafka: str, proxy: Proxy) -> None:
    client = AdminClient({"bootstrap.servers": proxy.bootstrap_servers, "log_level": 0})
    named = {f"{each.host}:{each.port}" for each in client.list_topics(timeout=patience_s).brokers.values()}
    described = client.describe_cluster(request_timeout=patience_s).result(patience_s).nodes
    assert named == {f"{each.host}:{each.port}" for each in described}
    assert not named & set(kafka.split(","))


@kafka_test
def test_what_clients_ask_is_written_again_as_it_came(
    kafka: str, new_topic: Callable[..., str], proxy: Proxy
) -> None:
    """Real requests of every API that a consumer and a producer need, byte by byte."""
    wrong: list[str] = []
    seen: set[str] = set()
    lock = threading.Lock()

    def same(exchange: Any) -> bool:
        head = exchange.head
        again = message(head.api, "Request").write(exchange.request(), head.version)
        with lock:
            seen.add(head.name)
            if again != exchange.frame[head.body :]:
                wrong.append(f"{head.name} {head.version}")
        return False

    for name in apis.values():
        proxy.add(Rule(api=name, action=Repeat(), about=same))
    topic = new_topic("wire")
    servers = {"bootstrap.servers": proxy.bootstrap_servers, "log_level": 0}
    reader = Consumer(
        {
            **servers,
            "group.id": f"wire-{uuid.uuid4().hex}",
            "auto.offset.reset": "earliest",
            "heartbeat.interval.ms": 100,
        }
    )
    reader.subscribe([topic])
    writer = Producer({**servers, "transactional.id": f"wire-{uuid.uuid4().hex}"})
    writer.init_transactions(patience_s)
    writer.begin_transaction()
    writer.produce(topic, b"value", b"key", headers=[("name", b"value")])
    writer.send_offsets_to_transaction([], reader.consumer_group_metadata(), patience_s)
    writer.commit_transaction(patience_s)
    end_s = time.monotonic() + patience_s
    while (got := reader.poll(0.5)) is None or got.error() is not None:
        assert time.monotonic() < end_s
    time.sleep(0.3)
    writer.begin_transaction()
    offsets = [TopicPartition(topic, 0, 1, "note")]
    writer.send_offsets_to_transaction(offsets, reader.consumer_group_metadata(), patience_s)
    writer.commit_transaction(patience_s)
    reader.commit(message=got, asynchronous=False)
    reader.close()
    assert wrong == []
    assert seen >= {
        "Produce", "Fetch", "ListOffsets", "Metadata", "OffsetCommit", "OffsetFetch", "FindCoordinator", "JoinGroup",
        "Heartbeat", "LeaveGroup", "SyncGroup", "ApiVersions", "InitProducerId", "AddPartitionsToTxn", "AddOffsetsToTxn",
        "EndTxn", "TxnOffsetCommit",
    }  # fmt: skip


@given(st.data())
def test_messages_of_every_version_are_read_as_they_were_written(data: st.DataObject) -> None:
    api = data.draw(st.sampled_from(sorted(apis)))
    described = message(api, data.draw(st.sampled_from(["Request", "Response"])))
    version = data.draw(st.integers(described.versions.first, min(described.versions.last, 20)))
    tree = data.draw(_trees(described.fields, version))
    written = b"head" + described.write(tree, version)
    assert described.read(written, 4, version) == tree


def _trees(fields: Any, version: int) -> st.SearchStrategy[dict[str, Any]]:
    always = {
        f.name: _values(f, version) for f in fields if version in f.versions and version not in f.tagged
    }
    tagged = {f.name: _values(f, version) for f in fields if version in f.tagged}
    return st.fixed_dictionaries(always, optional=tagged)


def _values(field: Any, version: int) -> st.SearchStrategy[Any]:
    bits = {"int8": 7, "int16": 15, "uint16": 16, "int32": 31, "uint32": 32, "int64": 63}
    if field.kind in bits:
        low = 0 if field.kind.startswith("u") else -(1 << bits[field.kind])
        one: st.SearchStrategy[Any] = st.integers(low, (1 << bits[field.kind]) - 1)
    else:
        plain: dict[str, st.SearchStrategy[Any]] = {
            "bool": st.booleans(), "float64": st.floats(allow_nan=False), "uuid": st.uuids(),
            "string": st.text(max_size=200), "bytes": st.binary(max_size=200), "records": st.binary(max_size=200),
        }  # fmt: skip
        one = plain[field.kind] if field.kind in plain else _trees(field.fields, version)
    value = st.lists(one, max_size=3) if field.array else one
    return st.none() | value if version in field.nullable else value
