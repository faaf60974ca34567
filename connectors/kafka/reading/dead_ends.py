"""Messages for an operator when reading of a partition cannot go on, each with the cure."""

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from penstock.connectors.kafka.errors import said


def unreadable_sentence(topic: str, partition: int, head: int, error: KafkaError) -> str:
    """The bytes at offset `head` cannot be read, and `input.unreadable` is `stop`."""
    return (
        f"topic {topic}, partition {partition}: what is stored at offset {head} cannot be read ({said(error)}); with "
        "input.unreadable: set_aside it becomes a dead letter, and reading goes on behind it"
    )


def lost_range_sentence(
    consumer: Consumer, topic: str, partition: int, *, head: int, group: str, timeout_s: float
) -> str:
    """The broker does not have offset `head`; asks it once, for at most `timeout_s`, which offsets it has."""
    where = f"topic {topic}, partition {partition}"
    cure = "penstock offsets reset says where to go on"
    try:
        first, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=timeout_s)
    except KafkaException:
        return f"{where}: the next offset to read, {head}, is not on the broker any more; {cure}"
    if head < first:
        return (
            f"{where}: offsets {head} to {first - 1} were deleted before group {group} read them (retention); the "
            f"first that is left is {first}; {cure}"
        )
    return (
        f"{where}: group {group} is at offset {head}, but the partition ends at {end}: records were lost at the "
        f"broker, or the offset is of another topic; {cure}"
    )
