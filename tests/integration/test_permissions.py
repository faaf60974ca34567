"""Every command with exactly the permissions that `penstock acl` lists; and each that is missing is named in time."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, not re-exported
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from penstock.connectors.embedded.kafka import EmbeddedKafka
from penstock.connectors.kafka.admin.admin import KafkaAdmin
from penstock.connectors.kafka.audit import KafkaAuditWriter
from penstock.connectors.kafka.client import ClientConfig, base_config
from penstock.connectors.kafka.reports import ReportWriter
from penstock.engine.admin.audit_record import AuditFacts
from penstock.engine.admin.audit_trail import AuditTrail
from penstock.engine.cli.main import main
from penstock.engine.clock import SystemClock
from penstock.engine.settings.model import load_settings
from penstock.engine.worker.assembly import new_metrics
from penstock.engine.worker.kafka import client_config, kafka_link
from penstock.engine.worker.startup.startup import Startup
from penstock.schemas.errors import ConfigError
from tests.bundles import write_linear

pytestmark = pytest.mark.kafka

roles = {
    "worker": "worker",
    "scaler": "scaler",
    "lag": "operator",
    "letters": "operator",
    "replay": "operator",
    "audit": "operator",
    "tail": "operator",
    "offsets": "operator",
}
of_doctor = ("worker", "scaler", "letters")
"""Whose lists `doctor` needs, all together."""
named_within_s = 3.0


class Guarded:
    """A secured broker, topics, and one settings file a user."""

    def __init__(self, kafka: EmbeddedKafka, folder: Path) -> None:
        self.kafka = kafka
        assert kafka.secure is not None
        plain = ClientConfig(bootstrap_servers=kafka.bootstrap_servers)
        self.admin = AdminClient(base_config(plain))
        KafkaAdmin(plain, timeout_s=30.0).create_topics(
            dict.fromkeys(("in", "out", "why", "dead", "status", "audit"), 2)
        )
        write_linear(folder / "model")
        self.files = {}
        for user, password in kafka.secure.users.items():
            self.files[user] = folder / f"{user}.yaml"
            self.files[user].write_text(yaml.safe_dump({
                "kafka": {
                    "bootstrap_servers": kafka.users_bootstrap_servers, "group": "app",
                    "security": {
                        "protocol": "SASL_SSL", "mechanism": "SCRAM-SHA-256", "username": user, "password": password,
                        "ca_file": str(kafka.secure.folder / "ca.pem"),
                    },
                },
                "input": {"topic": "in", "format": "json"},
                "output": {"predictions": "out", "explanations": "why", "dead_letters": "dead", "status": "status"},
                "model": {"path": str(folder / "model"), "device": "cpu"},
                "explain": {"policy": "none"},
                "http": {"port": 0},
                "scaling": {"port": 0},
                "admin": {"port": 0, "audit_topic": "audit"},
            }))  # fmt: skip

    def file(self, role: str) -> Path:
        return self.files[roles[role]]

    @contextmanager
    def allowed(self, entries: list[dict[str, Any]]) -> Iterator[None]:
        """Exactly these entries, as Terraform would write them."""
        bindings = [
            AclBinding(
                {"Topic": ResourceType.TOPIC, "Group": ResourceType.GROUP}.get(each["resource_type"], ResourceType.TRANSACTIONAL_ID),
                each["resource_name"],
                ResourcePatternType[each["pattern_type"].upper()],
                each["principal"],
                each["host"],
                AclOperation[each["operation"].upper()],
                AclPermissionType[each["permission_type"].upper()],
            )
            for each in entries
        ]  # fmt: skip
        for future in self.admin.create_acls(bindings).values() if bindings else ():
            future.result(10)
        try:
            yield
        finally:
            everything = AclBindingFilter(
                ResourceType.ANY,
                None,  # type: ignore[arg-type]  # any name: the stub leaves None out, here and below
                ResourcePatternType.ANY,
                None,  # type: ignore[arg-type]
                None,  # type: ignore[arg-type]
                AclOperation.ANY,
                AclPermissionType.ANY,
            )
            for future in self.admin.delete_acls([everything]).values():
                future.result(10)


@pytest.fixture(scope="module")
def guarded(
    start_kafka: Callable[..., EmbeddedKafka], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    kafka = start_kafka(secure=tmp_path_factory.mktemp("secure"))
    yield Guarded(kafka, tmp_path_factory.mktemp("settings"))
    kafka.close()


@pytest.fixture(scope="module")
def entries(guarded: Guarded) -> dict[str, list[dict[str, Any]]]:
    """What `penstock acl --json` says, role by role, as another process reads it."""
    found = {}
    for role, user in roles.items():
        done = subprocess.run(
            [sys.executable, "-m", "penstock", "acl", str(guarded.files[user]), "--json", "--role", role, "--principal", f"User:{user}"],
            capture_output=True, timeout=60, check=True,
        )  # fmt: skip
        found[role] = json.loads(done.stdout)["roles"][role]
    return found


def check(guarded: Guarded) -> int:
    return main(["check", str(guarded.file("worker"))])


def link(guarded: Guarded) -> int:
    """What a worker does before its first poll."""
    with ExitStack() as held:
        settings = load_settings(guarded.file("worker"), {})
        startup = Startup(
            settings=settings, clock=SystemClock(), metrics=new_metrics(settings), name="app-here-0"
        )
        kafka_link(startup, held=held)
    return 0


commands: dict[str, Callable[[Guarded], int]] = {
    "worker": check,
    "scaler": lambda guarded: scaler_permissions(guarded),
    "lag": lambda guarded: main(["lag", str(guarded.file("lag")), "--over", "0"]),
    "letters": lambda guarded: main(["dlq", "list", str(guarded.file("letters"))]),
    "replay": lambda guarded: main(["dlq", "replay", str(guarded.file("replay")), "--yes", "--again"]),
    "audit": lambda guarded: main(["audit", "verify", str(guarded.file("audit"))]),
    "tail": lambda guarded: main(["tail", str(guarded.file("tail")), "--seconds", "1"]),
    "offsets": lambda guarded: main(
        ["offsets", "reset", str(guarded.file("offsets")), "--to-earliest", "--apply"]
    ),
}
least = {"worker": 8, "scaler": 3, "lag": 2, "letters": 2, "replay": 5, "audit": 1, "tail": 2, "offsets": 2}


def scaler_permissions(guarded: Guarded) -> int:
    done = subprocess.Popen(
        [sys.executable, "-m", "penstock", "scaler", str(guarded.file("scaler"))], stderr=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert done.stdout is not None
    assert done.stderr is not None
    try:
        if "scaler of group app" in done.stdout.readline():
            return 0
        sys.stderr.write(done.stderr.read())
        return done.wait(10)
    finally:
        done.kill()
        done.communicate()


def test_the_whole_stream_runs_with_exactly_the_list(
    guarded: Guarded, entries: dict[str, list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    plain = {"bootstrap.servers": guarded.kafka.bootstrap_servers}
    producer = Producer(plain)
    names = [
        feature.name for feature in write_linear(guarded.file("worker").parent / "again").signature.features
    ]
    producer.produce("in", json.dumps(dict.fromkeys(names, 1.0)).encode(), partition=0)
    producer.produce("in", b"broken", partition=1)
    assert producer.flush(10) == 0
    with guarded.allowed(entries["worker"]):
        worker = subprocess.Popen([sys.executable, "-m", "penstock", "run", str(guarded.file("worker"))])
        try:
            assert first_of(plain, "out") is not None
            assert first_of(plain, "dead") is not None
        finally:
            worker.terminate()
            assert worker.wait(30) == 0
    for role in ("lag", "letters", "scaler", "replay", "audit", "tail", "offsets"):
        with guarded.allowed(entries[role]):
            assert commands[role](guarded) == 0, role
    assert "1 put back on in" in capsys.readouterr().out


def first_of(plain: dict[str, Any], topic: str) -> bytes | None:
    reader = Consumer(
        plain | {"group.id": "reader", "auto.offset.reset": "earliest", "isolation.level": "read_committed"}
    )
    try:
        reader.subscribe([topic])
        deadline_s = time.monotonic() + 60
        while time.monotonic() < deadline_s:
            message = reader.poll(1.0)
            if message is not None and message.error() is None:
                value = message.value()
                assert value is not None
                return value
        return None
    finally:
        reader.close()


def test_check_works_with_exactly_the_list(
    guarded: Guarded, entries: dict[str, list[dict[str, Any]]]
) -> None:
    with guarded.allowed(entries["worker"]):
        assert check(guarded) == 0
        assert link(guarded) == 0


@pytest.fixture(scope="module")
def scaler_begins_s(guarded: Guarded, entries: dict[str, list[dict[str, Any]]]) -> float:
    """What a scaler that lacks nothing takes to say so, on this machine and with what else runs there."""
    with guarded.allowed(entries["scaler"]):
        began_s = time.monotonic()
        assert commands["scaler"](guarded) == 0
        return time.monotonic() - began_s


def cases() -> Iterator[tuple[str, int]]:
    for role, count in least.items():
        for missing in range(count):
            yield role, missing


@pytest.mark.parametrize(("role", "missing"), list(cases()))
def test_each_entry_that_is_missing_is_named_in_time(
    guarded: Guarded,
    entries: dict[str, list[dict[str, Any]]],
    scaler_begins_s: float,
    role: str,
    missing: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert len(entries[role]) == least[role]
    gone = entries[role][missing]
    rest = [each for each in entries[role] if each is not gone]
    kind = {"Topic": "topic", "Group": "group"}.get(gone["resource_type"], "transactional id")
    with guarded.allowed(rest):
        began_s = time.monotonic()
        code = commands[role](guarded)
        took_s = time.monotonic() - began_s
        out = " ".join("".join(capsys.readouterr()).split())  # a narrow terminal breaks lines
        assert code == 2, out
        assert f"{kind} {gone['resource_name']}" in out, out
        assert kind == "transactional id" or f"lacks the permission {gone['operation']} on" in out
        assert took_s < named_within_s + (
            scaler_begins_s if role == "scaler" else 0.0
        )  # a process of its own
        if (
            role == "worker" and kind != "transactional id"
        ):  # the sink finds that one out, before the first delivery
            with pytest.raises(ConfigError, match=f"{gone['operation']} on {kind} {gone['resource_name']}"):
                link(guarded)


@pytest.mark.parametrize("missing", range(least["lag"]))
def test_offsets_are_shown_with_the_list_of_lag(
    guarded: Guarded,
    entries: dict[str, list[dict[str, Any]]],
    missing: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = ["offsets", "show", str(guarded.file("lag"))]
    with guarded.allowed(entries["lag"]):
        assert main(shown) == 0
    gone = entries["lag"][missing]
    with guarded.allowed([each for each in entries["lag"] if each is not gone]):
        assert main(shown) == 2
    assert (
        f"{gone['operation']} on {gone['resource_type'].lower()} {gone['resource_name']}"
        in capsys.readouterr().err
    )


def of_the_worker(entries: dict[str, list[dict[str, Any]]], *roles: str) -> list[dict[str, Any]]:
    """The lists of these roles for the worker's user, each entry once."""
    found = {
        (each["resource_type"], each["resource_name"], each["operation"]): each | {"principal": "User:worker"}
        for role in roles
        for each in entries[role]
    }
    return list(found.values())


def test_doctor_sees_all_with_three_lists_and_names_each_entry_that_is_missing(
    guarded: Guarded, entries: dict[str, list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["doctor", str(guarded.file("worker")), "--over", "0", "--json"]
    whole = of_the_worker(entries, *of_doctor)
    with guarded.allowed(whole):
        main(asked)
    told = json.loads(capsys.readouterr().out)
    assert [each["what"] for each in told["not_seen"]] == ["workers"]
    assert not any("permission" in each["what"] for each in told["wrong"])
    beside = [each for each in whole if each["resource_name"] in ("dead", "app-replay", "status")]
    for gone in [
        each for each in beside if each["operation"] != "Write"
    ]:  # the others `check` names, in the same words
        with guarded.allowed([each for each in whole if each is not gone]):
            main(asked)
        out = capsys.readouterr().out
        entry = f"{gone['operation']} on {gone['resource_type'].lower()} {gone['resource_name']}"
        assert f"lacks the permission {entry}" in out, out


def written(guarded: Guarded, topic: str) -> int:
    reader = Consumer({"bootstrap.servers": guarded.kafka.bootstrap_servers, "group.id": "count"})
    try:
        return sum(
            reader.get_watermark_offsets(TopicPartition(topic, part), timeout=10)[1] for part in (0, 1)
        )
    finally:
        reader.close()


def test_a_client_of_reports_that_is_at_its_end_ends_no_worker_and_is_replaced(
    guarded: Guarded, entries: dict[str, list[dict[str, Any]]]
) -> None:
    settings = load_settings(guarded.file("worker"), {})
    before = written(guarded, "status")
    with guarded.allowed([]):  # not even an idempotent producer may be one: librdkafka calls that fatal
        writer = ReportWriter(client_config(settings.kafka), "status")
        end_s = time.monotonic() + 30
        while writer._ended is None:
            assert time.monotonic() < end_s
            writer.send(worker="w", payload=b"x")
            time.sleep(0.1)
        for _ in range(20):
            writer.send(worker="w", payload=b"x")
    with guarded.allowed(entries["worker"]):
        while written(guarded, "status") == before:
            assert time.monotonic() < end_s
            writer.send(worker="w", payload=b"x")
            time.sleep(0.1)
        writer.close()


def test_the_audit_goes_on_when_its_permission_is_back(
    guarded: Guarded, entries: dict[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.engine.admin.audit_trail.renew_first_s", 0.2)
    settings, counted = load_settings(guarded.file("worker"), {}), list[str]()
    with guarded.allowed(entries["worker"]):
        writer = KafkaAuditWriter(client_config(settings.kafka), "audit")
        trail = AuditTrail(writer, instance="app-here", key=None, clock=SystemClock(), count=counted.append)
        assert trail.before_acting(AuditFacts(event="allowed", action="pause"))
    with guarded.allowed([]):
        assert not trail.before_acting(AuditFacts(event="allowed", action="resume"))
    with guarded.allowed(entries["worker"]):
        end_s = time.monotonic() + 30
        while not trail.before_acting(AuditFacts(event="allowed", action="drain")):
            assert time.monotonic() < end_s
            time.sleep(0.1)
        trail.close(5.0)
    assert counted.count("lost") >= 1
    with guarded.allowed(entries["audit"]):
        assert main(["audit", "verify", str(guarded.file("audit"))]) == 0
