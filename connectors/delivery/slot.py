"""A transactional id: its producer, the delivery that it carries, and how far that has come."""

from dataclasses import dataclass
from enum import Enum, auto

from penstock.connectors.delivery.producer_port import Delivery, MakeProducer, TransactionalProducer
from penstock.schemas.errors import InvariantError


class Phase(Enum):
    RENEW = auto()  # a new producer with the same id is to be made and initialised
    READY = auto()
    PRODUCE = auto()
    OFFSETS = auto()
    FLUSH = auto()
    COMMIT = auto()
    LEARN = auto()  # the commit's outcome is unknown: the group's committed offsets tell
    ABORT = auto()


class Verdict(Enum):
    OPEN = auto()
    DELIVERED = auto()
    ABORTED = auto()


@dataclass(slots=True)
class Slot:
    """A transactional id: its producer and the delivery it carries."""

    name: str
    make: MakeProducer
    producer: TransactionalProducer | None = None
    phase: Phase = Phase.RENEW
    verdict: Verdict = Verdict.ABORTED
    delivery: Delivery | None = None
    membership: object = None
    began_s: float = 0.0
    commit_until_s: float = 0.0
    abort_until_s: float = 0.0
    topic: int = 0  # how far PRODUCE is: place in delivery.outgoing,
    message: int = 0  # and in its messages
    commit_tried: bool = False
    renewed_s: float | None = None  # when its producer took another one's place
    own_ghosts: int = 0  # fenced by a predecessor, since the last delivery
    refusal: str | None = None
    reason: str = "the caller gave it up"

    @property
    def client(self) -> TransactionalProducer:
        if self.producer is None:
            raise InvariantError("a transaction is under way without a producer")
        return self.producer

    @property
    def cargo(self) -> Delivery:
        if self.delivery is None:
            raise InvariantError("a transaction is under way without a delivery")
        return self.delivery

    def carry(self, delivery: Delivery, membership: object, now_s: float) -> None:
        self.delivery, self.membership, self.began_s = delivery, membership, now_s
        self.phase, self.verdict = Phase.PRODUCE, Verdict.OPEN
        self.topic = self.message = 0
        self.commit_tried, self.refusal = False, None
        self.reason = "the caller gave it up"

    def discard_producer(self) -> None:
        if self.producer is not None:
            self.producer.close()
            self.producer = None
        self.phase = Phase.RENEW
