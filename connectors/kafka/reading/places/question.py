"""A question to the brokers about where to begin."""

from collections.abc import Callable
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, TopicPartition

Places = list[TopicPartition]


@dataclass(eq=False, slots=True)
class Question:
    """To the brokers, and what is made of the answer; `take` gets None without one, and gives where to begin."""

    ask: Callable[[Consumer, float], Places]
    take: Callable[[Places | None], dict[int, int]]
    timeout_s: float
    began_s: float = 0.0
    ended_s: float = 0.0
    ended: bool = False
    answer: Places | None = None
    error: KafkaError | None = None
