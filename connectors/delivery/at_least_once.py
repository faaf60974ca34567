"""At-least-once delivery: one idempotent producer, and an account per delivery of what the broker acknowledged."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from penstock.connectors.delivery.producer_port import Clock, Delivery, RefusedError, TransactionError
from penstock.schemas.errors import AbortedError, ConfigError, InvariantError
from penstock.schemas.records import Outgoing

slice_max_s = 0.2


@dataclass(slots=True, eq=False)
class Tally:
    """What became of the messages of one delivery."""

    queued: int = 0
    reported: int = 0
    failed: int = 0
    refusal: str | None = None  # a failure that repeating cannot heal


class AcknowledgingProducer(Protocol):
    """An idempotent producer. Used by one thread; no call waits longer than asked."""

    def produce(self, outgoing: Outgoing, start: int, tally: Tally, timeout_s: float) -> int:
        """Queue messages from index `start` on, as far as there is room; the index to go on from."""

    def serve(self, timeout_s: float) -> None:
        """Take delivery reports, waiting for the first. Raises BrokenError or RefusedError."""

    def close(self) -> None:
        """Release it at once. Idempotent."""


@dataclass(slots=True, eq=False)
class _Submitted:
    delivery: Delivery
    tally: Tally
    topic: int = 0
    message: int = 0

    @property
    def sent(self) -> bool:
        return self.topic >= len(self.delivery.outgoing)

    @property
    def done(self) -> bool:
        return self.sent and self.tally.reported >= self.tally.queued


class AtLeastOnceSink:
    """The at-least-once Sink over any broker (penstock.engine.ports.Sink by shape); the source commits what was delivered.

    Promises: deliveries complete in order, each only when the broker acknowledged every message of it. The membership
    given to `submit` is not needed and not looked at.
    """

    def __init__(
        self,
        *,
        make: Callable[[], AcknowledgingProducer],
        clock: Clock,
        deliveries_max: int = 8,
        outdated: Callable[[], bool] = lambda: False,
    ) -> None:
        """`outdated`: whether the newest producer was made for topics that have other partitions by now."""
        self._outdated = outdated
        self._make = make
        self._producer = make()
        self._clock = clock
        self._deliveries_max = deliveries_max
        self._pending: deque[_Submitted] = deque()
        self._failure: TransactionError | None = None

    def has_room(self) -> bool:
        """Whether submit may be called now."""
        if not self._takes():
            return False
        if self._outdated():
            if self._pending:  # what is under way ends where it began
                return False
            self._producer.close()
            self._producer = self._make()
        return True

    def _takes(self) -> bool:
        if self._failure is not None or len(self._pending) >= self._deliveries_max:
            return False
        return all(p.sent and not p.tally.failed for p in self._pending)

    def submit(self, delivery: Delivery, membership: object) -> None:
        """Queue the messages; what goes wrong here, `advance` reports."""
        # Not `has_room` again: that topics have grown may be learnt on another thread between the two calls.
        if not self._takes():
            raise InvariantError("a delivery was submitted without room for it")
        submitted = _Submitted(delivery, Tally())
        self._pending.append(submitted)
        self._send(submitted, self._clock.monotonic_s() + slice_max_s)

    def advance(self, timeout_s: float) -> int:
        """As penstock.engine.ports.Sink asks."""
        deadline_s = self._clock.monotonic_s() + timeout_s
        while self._pending:
            for submitted in self._pending:
                self._send(submitted, deadline_s)
            if self._failure is None:
                self._serve(0.0)
            oldest = self._pending[0]
            if self._failure is not None or oldest.tally.failed:
                self._fail(oldest)
            completed = 0
            while self._pending and self._pending[0].done and not self._pending[0].tally.failed:
                self._pending.popleft()
                completed += 1
            left_s = deadline_s - self._clock.monotonic_s()
            if completed or left_s <= 0:
                return completed
            self._serve(min(left_s, slice_max_s))
        return 0

    def abort(self) -> int:
        """Give up what is not acknowledged; the number of deliveries, oldest first, that were acknowledged by now.

        Messages under way may still arrive: the promise is at least once.
        """
        delivered = 0
        for submitted in self._pending:
            if not submitted.done or submitted.tally.failed:
                break
            delivered += 1
        self._drop()
        return delivered

    def close(self, timeout_s: float) -> None:
        """Release the client; nothing is waited for. Idempotent."""
        self._pending.clear()
        self._producer.close()

    def _send(self, submitted: _Submitted, deadline_s: float) -> None:
        outgoing = submitted.delivery.outgoing
        try:
            while not submitted.sent and self._failure is None:
                left_s = min(max(deadline_s - self._clock.monotonic_s(), 0.0), slice_max_s)
                messages = outgoing[submitted.topic]
                submitted.message = self._producer.produce(
                    messages, submitted.message, submitted.tally, left_s
                )
                if submitted.message < len(messages):
                    return
                submitted.topic, submitted.message = submitted.topic + 1, 0
        except TransactionError as error:
            self._failure = error

    def _serve(self, timeout_s: float) -> None:
        try:
            self._producer.serve(timeout_s)
        except TransactionError as error:
            self._failure = error

    def _fail(self, oldest: _Submitted) -> None:
        failure, refusal = self._failure, oldest.tally.refusal
        self._drop()
        if isinstance(failure, RefusedError) or refusal:
            raise ConfigError(refusal or str(failure))
        raise AbortedError("the broker did not take every message of a delivery")

    def _drop(self) -> None:
        """Let go of everything. A client cannot take back what is under way, and is replaced."""
        clean = self._failure is None and all(p.tally.reported >= p.tally.queued for p in self._pending)
        self._pending.clear()
        self._failure = None
        if not clean:
            self._producer.close()
            self._producer = self._make()
