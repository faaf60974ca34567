"""What a Kafka error asks for, in one place."""

from typing import Final

from confluent_kafka import KafkaError, KafkaException

from penstock.connectors.delivery.producer_port import (
    AbortableError,
    BrokenError,
    FencedProducerError,
    RefusedError,
    TransactionError,
    UnfinishedError,
)
from penstock.schemas.errors import AbortedError, ConfigError, FencedError, PenstockError, UnavailableError

refusals: Final = frozenset({
    KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, KafkaError.SECURITY_DISABLED,
    KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION, KafkaError.TOPIC_EXCEPTION,
    KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET, KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.POLICY_VIOLATION,
    KafkaError.UNSUPPORTED_VERSION, KafkaError._UNSUPPORTED_FEATURE, KafkaError._INVALID_ARG, KafkaError._NOT_CONFIGURED,
    KafkaError.INVALID_CONFIG, KafkaError.INVALID_PARTITIONS, KafkaError.INVALID_REPLICATION_FACTOR, KafkaError.INVALID_GROUP_ID,
    KafkaError.INVALID_SESSION_TIMEOUT, KafkaError.INVALID_TRANSACTION_TIMEOUT, KafkaError.INCONSISTENT_GROUP_PROTOCOL,
    KafkaError.UNSUPPORTED_ASSIGNOR, KafkaError.GROUP_MAX_SIZE_REACHED, KafkaError.TOPIC_ALREADY_EXISTS,
    KafkaError.INVALID_RECORD,
})  # fmt: skip
"""Repeating cannot help: a person has to change a setting, a topic or a permission."""
elsewhere: Final = frozenset({
    KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH, KafkaError.OFFSET_NOT_AVAILABLE, KafkaError.REPLICA_NOT_AVAILABLE,
    KafkaError.KAFKA_STORAGE_ERROR,
})  # fmt: skip
"""A partition is led by another broker, or in another epoch, than the client knows."""

fences: Final = frozenset({
    KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.FENCED_INSTANCE_ID,
})  # fmt: skip
"""A newer client with the same transactional id or group instance id took over."""

evictions: Final = frozenset({
    KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.STALE_MEMBER_EPOCH, KafkaError.FENCED_MEMBER_EPOCH, KafkaError.TRANSACTION_ABORTABLE,
})  # fmt: skip
"""The group moved on without this member: what it was about to commit did not happen, and it may join again."""

access_faults: Final = frozenset({
    KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError.UNSUPPORTED_SASL_MECHANISM, KafkaError._SSL,
})  # fmt: skip
"""Of a connection, and said of whatever request was on its way there. librdkafka tells them through error_cb, while most calls
merely time out. Not refusals: who is at work was let in once, so a token is old or a broker ends; whether settings are at fault
is found at the start (`ClientErrors`, `await_cluster`)."""

_no_token: Final = "Failed to acquire SASL OAUTHBEARER token"

_meanings = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "permission for a topic is missing",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "permission Read for the consumer group is missing",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "permission Write for the transactional id is missing",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "permission for the cluster is missing",
    KafkaError.UNKNOWN_TOPIC_OR_PART: "a topic or partition does not exist (any more)",
    KafkaError._UNKNOWN_TOPIC: "a topic does not exist (any more)",
    KafkaError._UNKNOWN_PARTITION: "a partition does not exist (any more)",
    KafkaError.MSG_SIZE_TOO_LARGE: "a message or a batch of them is longer than the topic's max.message.bytes or the client's message.max.bytes allows",
    KafkaError.INVALID_TRANSACTION_TIMEOUT: "transaction.timeout.ms is more than the broker allows",
    KafkaError.INVALID_RECORD: "the broker refuses a record; does a compacted topic get records without a key?",
    KafkaError.INCONSISTENT_GROUP_PROTOCOL: "members of the group use another group protocol",
    KafkaError._AUTO_OFFSET_RESET: "the committed offset is not on the broker any more",
    KafkaError.OFFSET_OUT_OF_RANGE: "the committed offset is not on the broker any more",
}


def cause_of(exception: KafkaException) -> KafkaError:
    """The error inside."""
    error: KafkaError = exception.args[0]
    return error


def said(error: KafkaError) -> str:
    """The error as part of a sentence: our words where we have some, then the library's."""
    ours, theirs = _meanings.get(error.code()), _plain(error)
    if (
        "failed to query logical offset" in theirs
    ):  # the client uses one code for an offset that is gone and for no answer
        ours = "the broker does not say where the log begins"
    return f"{ours} ({theirs})" if ours else theirs


def is_refusal(error: KafkaError) -> bool:
    """Whether repeating cannot help."""
    return error.code() in refusals


def is_fatal(error: KafkaError) -> bool:
    """Whether the client that reports it is at its end. To a consumer's `poll` it does so with a code of its own."""
    return error.fatal() or error.code() == KafkaError._FATAL


def lacks_token(error: KafkaError) -> bool:
    """Whether no token could be had: librdkafka uses one code for that and for a broker that refuses us."""
    return error.code() == KafkaError._AUTHENTICATION and _no_token in str(error.str())


def refuses_client(error: KafkaError) -> bool:
    """Whether the token server rejected this client id and secret explicitly (invalid_client and the like)."""
    return lacks_token(error) and "invalid_client" in str(error.str())


def translate(error: KafkaError | KafkaException, doing: str) -> PenstockError:
    """What to raise here for an error of the client; `doing` completes "cannot ...".

    FencedError, ConfigError and AbortedError where the code says so; everything else is UnavailableError. An error that
    is fatal to the client has to be asked about before: such a client is thrown away whatever the reaction.
    """
    fault = error.args[0] if isinstance(error, KafkaException) else error
    if not isinstance(fault, KafkaError):
        return UnavailableError(f"cannot {doing}: {fault}")
    sentence = f"cannot {doing}: {said(fault)}"
    passing = AbortedError if fault.code() in evictions or fault.txn_requires_abort() else UnavailableError
    return _lasting(fault, sentence) or passing(sentence)


def consumer_error(error: KafkaError, what: str) -> PenstockError:
    """For a consumer: FencedError, ConfigError, or UnavailableError for whatever may pass, an eviction included."""
    sentence = f"{what}: {said(error)}"
    return _lasting(_inner(error), sentence) or UnavailableError(sentence)


def transaction_error(exception: KafkaException) -> TransactionError:
    """Fatal, abortable, retriable, checked in this order; any other error is treated as fatal."""
    error = cause_of(exception)
    text = said(error)
    if error.fatal() and error.code() in fences:
        return FencedProducerError(text)
    if is_refusal(error):
        return RefusedError(text)
    if error.fatal():
        return BrokenError(text)
    if error.txn_requires_abort():
        return AbortableError(text)
    if error.retriable():
        return UnfinishedError(text)
    return BrokenError(text)


def _inner(error: KafkaError) -> KafkaError:
    """The error that ended a consumer's client: of its code, only the words are left in what `poll` reports."""
    if error.code() != KafkaError._FATAL:
        return error
    text = str(error.str())
    causes = (KafkaError(code) for code in sorted(fences | refusals))
    return next((cause for cause in causes if str(cause.str()) in text), error)


def _lasting(error: KafkaError, sentence: str) -> PenstockError | None:
    if error.code() in fences:
        return FencedError(sentence)
    return ConfigError(sentence) if is_refusal(error) else None


def _plain(error: KafkaError) -> str:
    text = str(error.str() or error.name()).strip().rstrip(".")
    for prefix in ("Broker: ", "Local: "):
        text = text.removeprefix(prefix)
    return " ".join(text.split()) if not text.endswith(":") else f"{text} {error.name()}"
