"""Who needs which permissions on Kafka: the least that each role works with, from the settings."""

from collections.abc import Mapping, Sequence

from penstock.connectors.kafka.admin.permissions import Permission
from penstock.engine.settings.model import Settings
from penstock.engine.settings.roles import roles


def replay_group(settings: Settings) -> str:
    """The group, and the transactional id, of `dlq replay`."""
    return f"{settings.kafka.group}-replay"


def permissions(settings: Settings) -> Mapping[str, Sequence[Permission]]:
    """The least permissions of each role. Read and Write bring Describe with them."""
    kafka, topic, output = settings.kafka, settings.input.topic, settings.output
    letters = output.dead_letters
    worker = [
        _topic("Read", topic, "the records"),
        _group("Read", kafka.group, "to join, and to commit offsets"),
        _topic("Write", output.predictions, "the predictions"),
        _topic("Write", letters, "the dead letters"),
    ]
    if output.explanations:
        worker.append(_topic("Write", output.explanations, "the explanations"))
    if output.status:
        worker.append(_topic("Write", output.status, "the workers' reports to the scaler"))
    if settings.admin is not None:
        worker.append(_topic("Write", settings.admin.audit_topic, "the audit of what acts over HTTP"))
    if kafka.delivery == "exactly_once":
        worker.append(
            Permission(
                operation="Write",
                resource="transactional-id",
                name=f"{kafka.group}-",
                prefixed=True,
                purpose="transactions; each worker has ids of its own",
            )
        )
    lag = [
        _topic("Read", topic, "ends, and the age of the oldest record"),
        _group("Describe", kafka.group, "committed offsets and owners"),
    ]
    scaler = [*lag, _topic("Read", output.status, "the workers' reports")] if output.status else lag
    found = [
        _topic("Read", letters, "the dead letters"),
        _group("Describe", replay_group(settings), "the name that the reader goes by"),
    ]
    replay = [
        _topic("Read", letters, "the dead letters"),
        _topic("Read", topic, "payloads that were left at the source"),
        _topic("Write", topic, "to put records back"),
        _group("Read", replay_group(settings), "the notes of what was put back"),
        Permission(
            operation="Write",
            resource="transactional-id",
            name=replay_group(settings),
            purpose="records and notes go in one transaction",
        ),
    ]
    audit = [_topic("Read", settings.admin.audit_topic, "to verify it")] if settings.admin is not None else []
    tail = [_topic("Read", output.predictions, "the predictions")]
    if output.explanations:
        tail.append(_topic("Read", output.explanations, "their reasons"))
    offsets = [
        _topic("Read", topic, "ends, and to commit where reading goes on"),
        _group("Read", kafka.group, "to commit offsets while no worker runs"),
    ]
    return dict(zip(roles, (worker, scaler, lag, found, replay, audit, tail, offsets), strict=True))


def _topic(operation: str, name: str, purpose: str) -> Permission:
    return Permission(
        operation="Read" if operation == "Read" else "Write", resource="topic", name=name, purpose=purpose
    )


def _group(operation: str, name: str, purpose: str) -> Permission:
    return Permission(
        operation="Read" if operation == "Read" else "Describe", resource="group", name=name, purpose=purpose
    )
