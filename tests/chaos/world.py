"""A stream with everything around it that can be hurt: brokers, the wire, and workers with the operator who starts them."""

import math
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, not re-exported
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from penstock.connectors.embedded.kafka import EmbeddedKafka
from tests.bundles import write_stump
from tests.chaos.audit import Audit, audit
from tests.stream import Stream, children, event, event_schema, kill
from tests.wire.proxy import Proxy

user, password = "worker", "worker-secret"
identities: Final = ("a", "b")
session_s: Final = 6.0
patience_s: Final = 120.0
Result = TypeVar("Result")
_key_count: Final = 997
_ended_by_the_client: Final = "died of SIGABRT while it stopped"
"""librdkafka 2.16 asserts that it waits for no registration of partitions (`txn_req_cnt > 0`) when an answer that was dropped on its
way is given up after its transaction was aborted: the worker had nothing in hand any more, and its supervisor says so and ends with 1."""
_settings: Final = {
    "leader.imbalance.check.interval.seconds": "3",
    "leader.imbalance.per.broker.percentage": "0",
}
"""What a broker led before it went, it leads again soon after it is back: leaders move twice for every broker that is hurt."""


def insist(call: Callable[[], Result]) -> Result:
    """What the call gives, once the brokers have settled."""
    end_s = time.monotonic() + patience_s
    while True:
        try:
            return call()
        except (KafkaException, TimeoutError):
            if time.monotonic() > end_s:
                raise
            time.sleep(0.2)


class World:
    """One cluster, one stream of two supervisors, and a feeder that writes to the brokers directly.

    Workers come by the listener for users, through the proxy. All chance is from one seed.
    """

    def __init__(
        self, folder: Path, *, start: Callable[..., EmbeddedKafka], nodes: int, protocol: str, seed: int
    ) -> None:
        """`start` gives a running broker for EmbeddedKafka's arguments; it is closed with the world."""
        self.chance = random.Random(seed)
        self.nodes = nodes
        self.drains_s: list[float] = []
        self.exits: list[int] = []
        self.hurt: set[int] = set()  # nodes
        self.client_ends = 0  # stops in which the client's own assertion ended the worker
        self.broker = start(nodes=nodes, users={user: password}, settings=_settings)
        try:
            self.proxy = Proxy(self.broker.users_bootstrap_servers)
            self.admin = AdminClient({"bootstrap.servers": self.servers, "log_level": 0})
            self._permit()
            write_stump(folder / "model", input_schema=orjson.dumps(event_schema))
            self.stream = Stream(
                folder, self.servers, f"chaos-{time.time_ns()}", folder / "model",
                kafka={
                    "bootstrap_servers": self.proxy.bootstrap_servers, "protocol": protocol,
                    "security": {
                        "protocol": "SASL_PLAINTEXT", "mechanism": "PLAIN", "username": user, "password": password,
                    },
                },
                input={"unreadable": "set_aside"},
                objective={"batch_rows_max": 512},
                output={"pass_fields": ["b"]},
            )  # fmt: skip
        except BaseException:
            self.broker.close()
            raise
        self._asking = Consumer(
            {
                "bootstrap.servers": self.servers, "group.id": f"{self.stream.name}-group", "log_level": 0,
                "reconnect.backoff.max.ms": 500,
            }
        )  # fmt: skip
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.fed = 0
        self.may_feed = math.inf  # records
        self.partitions = 6
        self._feeder: threading.Thread | None = None
        self._producer = Producer(
            {
                "bootstrap.servers": self.servers, "enable.idempotence": True, "linger.ms": 5, "log_level": 0,
                "queue.buffering.max.messages": 1_000_000, "message.timeout.ms": 600_000,
                "topic.metadata.refresh.interval.ms": 1000,
                "reconnect.backoff.max.ms": 500,
            }
        )  # fmt: skip
        self._lock = threading.Lock()
        self._unfed: list[str] = []

    @property
    def servers(self) -> str:
        """Where nobody needs a password, without the proxy."""
        return self.broker.bootstrap_servers

    @property
    def clients(self) -> str:
        """How the names of all clients of the workers begin."""
        return f"{self.stream.name}-group-"

    def _permit(self) -> None:
        kinds = (ResourceType.TOPIC, ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID)
        insist(
            lambda: self.add_acls(
                [self.acl(kind, "*", AclOperation.ALL, AclPermissionType.ALLOW) for kind in kinds]
            )
        )

    @staticmethod
    def acl(kind: Any, name: str, operation: Any, permission: Any) -> AclBinding:
        return AclBinding(kind, name, ResourcePatternType.LITERAL, f"User:{user}", "*", operation, permission)

    def add_acls(self, bindings: list[AclBinding]) -> None:
        for future in self.admin.create_acls(bindings, request_timeout=30).values():
            future.result(30)

    def start(self, identity: str) -> None:
        self.workers[identity] = self.stream.start(identity)

    def revive(self) -> None:
        """What an operator's system does: start what has ended."""
        for identity in identities:
            if identity not in self.workers or self.workers[identity].poll() is not None:
                if identity in self.workers:
                    self.exits.append(self.workers[identity].wait())
                self.start(identity)

    def a_worker(self) -> int | None:
        """The process id of one worker, None while there is none."""
        alive = [pid for process in self.workers.values() for pid in children(process)]
        return self.chance.choice(alive) if alive else None

    def kill_supervisor(self, identity: str) -> None:
        process = self.workers[identity]
        for pid in (process.pid, *children(process)):
            kill(pid)
        process.wait()

    def drain(self, identity: str) -> None:
        """SIGTERM, which must end in a clean exit in time."""
        process = self.workers.pop(identity)
        if process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        began_s = time.monotonic()
        code = process.wait(60)
        self.drains_s.append(time.monotonic() - began_s)
        if code == 1 and _ended_by_the_client in self._last_said(identity):
            self.client_ends += 1
            return
        assert code == 0, f"a stop ended with {code}\n{self.stream.said()}"

    def _last_said(self, identity: str) -> str:
        """The last line of a supervisor."""
        log = self.stream.folder / f"{self.stream.name}-{identity}.log"
        return log.read_text(errors="replace").rstrip().rpartition("\n")[2]

    def feed(self, records: int, per_s: float) -> None:
        """Write so many records at this rate, from a thread, and no further than `may_feed`."""
        self._feeder = threading.Thread(target=self._feed, args=(records, per_s), daemon=True)
        self._feeder.start()

    def _feed(self, records: int, per_s: float) -> None:
        began_s, some = time.monotonic(), max(int(per_s / 20), 1)
        for first in range(0, records, some):
            while first >= self.may_feed:
                time.sleep(0.01)
            for _ in range(min(some, records - first)):
                self.write_one()
            self._producer.poll(0)
            began_s = max(began_s, time.monotonic() - (first + some) / per_s)
            time.sleep(max(began_s + (first + some) / per_s - time.monotonic(), 0.0))
        assert self._producer.flush(patience_s * 2) == 0

    def write_one(self, partition: int | None = None) -> int:
        """Write the next record; its number. Into the partition of its key, unless told."""
        with self._lock:
            number, self.fed = self.fed, self.fed + 1
        key = number % _key_count
        target = key % self.partitions if partition is None else partition
        while True:
            try:
                self._producer.produce(
                    self.stream.name, event(number), b"k%d" % key, target, on_delivery=self._report
                )
                return number
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:
                if error.args[0].code() != KafkaError._UNKNOWN_PARTITION:
                    raise
                self._producer.poll(0.1)  # it has just been added

    def flush(self) -> None:
        """Until the brokers have what was written."""
        assert self._producer.flush(patience_s) == 0

    def _report(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._unfed.append(str(error))

    def committed(self) -> int:
        """Records that the group has committed; -1 while nobody says."""
        places = [TopicPartition(self.stream.name, p) for p in range(self.partitions)]
        try:
            told = self._asking.committed(places, timeout=5.0)
        except KafkaException:
            return -1
        return sum(max(place.offset, 0) for place in told if place.error is None)

    def await_committed(self, records: int, timeout_s: float = patience_s) -> None:
        """Until so many are; what has ended meanwhile is started again."""
        end_s = time.monotonic() + timeout_s
        while (done := self.committed()) < records:
            self.revive()
            assert time.monotonic() < end_s, f"{done} of {records} were committed\n{self.stream.said()}"
            time.sleep(0.1)

    def finish(self) -> Audit:
        """Let everything come to its end, and count."""
        assert self._feeder is not None
        self._feeder.join(patience_s * 4)
        assert not self._feeder.is_alive(), "the test is still writing"
        assert not self._unfed, f"the test could not write: {self._unfed[:3]}"
        self.proxy.clear()
        self.await_committed(self.fed, patience_s * 2)
        self.revive()
        insist(lambda: self.stream.await_readers(60.0))  # a broker may just have come back
        return audit(self.servers, self.stream.name, self.stream.outputs, self.fed)

    def close(self) -> None:
        """End everything."""
        with suppress(Exception):
            self.proxy.clear()
        self.stream.close()
        self.proxy.close()
        self.broker.close()
