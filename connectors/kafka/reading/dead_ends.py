"""Messages for an operator when reading of a partition cannot go on, each with the cure."""

from confluent_kafka import KafkaError

from penstock.connectors.kafka.errors import said


def unreadable_sentence(topic: str, partition: int, head: int, error: KafkaError) -> str:
    """The bytes at offset `head` cannot be read, and `input.unreadable` is `stop`."""
    return (
        f"topic {topic}, partition {partition}: what is stored at offset {head} cannot be read ({said(error)}); with "
        "input.unreadable: set_aside it becomes a dead letter, and reading goes on behind it"
    )


def lost_range_sentence(
    topic: str, partition: int, *, head: int, group: str, bounds: tuple[int, int] | None
) -> str:
    """The broker does not have offset `head`. `bounds`: the first offset that it has and the one behind its last, None where
    no broker said so."""
    where = f"topic {topic}, partition {partition}"
    cure = "penstock offsets reset says where to go on"
    if bounds is None:
        return f"{where}: the next offset to read, {head}, is not on the broker any more, and no broker says which are; {cure}"
    first, end = bounds
    if head < first:
        return (
            f"{where}: offsets {head} to {first - 1} were deleted before group {group} read them (retention); the "
            f"first that is left is {first}; {cure}"
        )
    return (
        f"{where}: group {group} is at offset {head}, but the partition ends at {end}: records were lost at the "
        f"broker, or the offset is of another topic; {cure}"
    )
