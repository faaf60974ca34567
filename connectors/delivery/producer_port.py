"""What an exactly-once sink needs of a broker's client: one transactional producer, its faults by reaction, and time."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from penstock.schemas.records import Outgoing


class Clock(Protocol):
    """Time, as an argument (penstock.engine.clock has the real one)."""

    def monotonic_s(self) -> float:
        """Seconds that never go back."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970."""

    def sleep(self, duration_s: float) -> None:
        """Wait; a simulated clock moves on instead."""


class Delivery(Protocol):
    """What is made visible together; penstock.engine.ports.Delivery by shape."""

    @property
    def outgoing(self) -> Sequence[Outgoing]:
        """Messages per output topic."""

    @property
    def positions(self) -> Mapping[int, int]:
        """Next-to-read offset per input partition."""


class TransactionError(Exception):
    """A transactional call did not do what was asked; the subclass says what to do. Never leaves a sink."""


class UnfinishedError(TransactionError):
    """Not done within the time given, or refused for now: make the same call again."""


class AbortableError(TransactionError):
    """This transaction cannot be committed any more; abort it, and the producer is good for the next one."""


class BrokenError(TransactionError):
    """The producer is of no use any more: throw it away. What its last call did is unknown."""


class FencedProducerError(TransactionError):
    """A newer producer with the same id exists, or the broker ended the transaction because it took too long."""


class RefusedError(TransactionError):
    """Permission, topic or size: repeating cannot help. The text names the fault for a person."""


class TransactionalProducer(Protocol):
    """One producer with one transactional id. Used by one thread; no call waits longer than asked.

    Every call may raise a TransactionError. After UnfinishedError the same call is made again, or `close`.
    """

    def initialise(self, timeout_s: float) -> None:
        """Fence every producer of the same id, and end what they left open."""

    def begin(self) -> None:
        """Open a transaction. Local."""

    def produce(self, outgoing: Outgoing, start: int, timeout_s: float) -> int:
        """Queue messages from index `start` on, as far as there is room; the index to go on from."""

    def send_offsets(self, positions: Mapping[int, int], membership: object, timeout_s: float) -> None:
        """Make these offsets part of the transaction."""

    def flush(self, timeout_s: float) -> None:
        """Wait for every delivery report. AbortableError or RefusedError when a message failed."""

    def commit(self, timeout_s: float) -> None:
        """Commit; only after flush."""

    def abort(self, timeout_s: float) -> None:
        """Abort; messages still queued are dropped."""

    def suspect(self) -> bool:
        """Whether a request of this producer may still be under way and act later, on a transaction it was not meant for; or
        whether it was made for topics that have other partitions by now.

        Never raises.
        """

    def close(self) -> None:
        """Release it at once, with nothing committed. Idempotent."""


MakeProducer = Callable[[], TransactionalProducer]
ReadCommitted = Callable[[Sequence[int], float], Mapping[int, int]]
"""Committed offsets of the group for these input partitions (absent: none), within this many seconds.

Waits for open transactions that hold offsets of these partitions; raises UnfinishedError when they stay open.
"""
