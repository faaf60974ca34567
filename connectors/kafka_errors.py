"""What a Kafka error asks for, in one place."""

from confluent_kafka import KafkaError, KafkaException

from connectors.kafka_client import fences, refusals
from connectors.transactions import (
    AbortableError,
    BrokenError,
    FencedProducerError,
    RefusedError,
    TransactionError,
    UnfinishedError,
)
from schemas.errors import ConfigError, FencedError, PenstockError, UnavailableError

_meanings = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "permission for a topic is missing",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "permission Read for the consumer group is missing",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "permission Write for the transactional id is missing",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "permission for the cluster is missing",
    KafkaError.UNKNOWN_TOPIC_OR_PART: "a topic or partition does not exist (any more)",
    KafkaError._UNKNOWN_TOPIC: "a topic does not exist (any more)",
    KafkaError._UNKNOWN_PARTITION: "a partition does not exist (any more)",
    KafkaError.MSG_SIZE_TOO_LARGE: "a message is longer than message.max.bytes allows",
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
    ours = _meanings.get(error.code())
    theirs = f"{error.name()}: {error.str()}"
    return f"{ours} ({theirs})" if ours else theirs


def is_refusal(error: KafkaError) -> bool:
    """Whether repeating cannot help."""
    return error.code() in refusals or error.code() == KafkaError.INVALID_RECORD


def transaction_error(exception: KafkaException) -> TransactionError:
    """Fatal, abortable, retriable, in this order; what is none of them is as good as fatal."""
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


def consumer_error(error: KafkaError, what: str) -> PenstockError:
    """For a consumer: FencedError, ConfigError, or UnavailableError for whatever may pass."""
    text = f"{what}: {said(error)}"
    if error.code() in fences:
        return FencedError(text)
    if is_refusal(error):
        return ConfigError(text)
    return UnavailableError(text)
