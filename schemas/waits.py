"""What a partition, or a whole worker, can wait for: a closed set."""

from enum import StrEnum


class WaitKind(StrEnum):
    """The `kind` of each entry of `waits_for` in /status."""

    REGISTRY = "registry"  # a schema cannot be had
    OPEN_TRANSACTION = "open_transaction"  # a producer has not ended its transaction
    STALLED = "stalled"  # records are there, and none can be read
    UNREADABLE = "unreadable"  # what is stored is nothing that the client can read
    PAUSED = "paused"  # an operator wants it so
    STOPPED = "stopped"  # too many records in a row were set aside
    JOINING = "joining"  # the group gives this worker no place
    CLUSTER = "cluster"  # Kafka does not answer
