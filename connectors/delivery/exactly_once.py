"""Exactly-once delivery: two transactional producers in turn, and a certain answer to every uncertain commit."""

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress

from penstock.connectors.delivery.producer_port import (
    AbortableError,
    BrokenError,
    Clock,
    Delivery,
    FencedProducerError,
    MakeProducer,
    ReadCommitted,
    RefusedError,
    TransactionError,
    UnfinishedError,
)
from penstock.connectors.delivery.slot import Phase, Slot, Verdict
from penstock.schemas.errors import AbortedError, ConfigError, FencedError, InvariantError, UnavailableError

slice_max_s = 0.2  # the polling thread waits no longer than this in one call
own_ghost_s = 5.0
own_ghosts_max = 2
"""A producer that was just renewed may be fenced by what its predecessor, thrown away in an outage, had still asked for."""
abort_patience_s = 3.0  # for the polite end of a transaction; a new producer ends it by force


class TransactionalSink:
    """The exactly-once Sink over any broker (penstock.engine.ports.Sink by shape).

    Promises: outputs and positions of a delivery become visible together or not at all; deliveries complete in the
    order of submission, and so do their records in every partition: the second producer sends its first record when
    the broker has acknowledged the last one of the first. If a commit's outcome is unknown the producer is
    discarded, because its EndTxn may still be in flight and end the next transaction (KIP-890 is not in librdkafka); its
    successor fences it, and the group's committed offsets then tell whether the delivery was committed.
    """

    def __init__(
        self,
        *,
        producers: Mapping[str, MakeProducer],
        read_committed: ReadCommitted,
        clock: Clock,
        transaction_timeout_s: float,
        start_timeout_s: float = 60.0,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """`producers` by transactional id. Initialises every producer at once, so that every predecessor is fenced before the first record is polled.

        Raises UnavailableError when the broker does not answer in `start_timeout_s`, or before it does once `stopping`;
        FencedError; ConfigError.
        """
        self._slots = deque(
            Slot(name=name, make=make) for name, make in producers.items()
        )  # the next one to use is at the left
        self._pending: deque[Slot] = deque()
        self._read_committed = read_committed
        self._clock = clock
        self._fence_age_s = 0.9 * transaction_timeout_s
        self._patience_s = transaction_timeout_s / 3  # to send; then the same again to commit
        self._gone = False
        self.renewals = 0
        self._started = False
        deadline_s = clock.monotonic_s() + start_timeout_s
        with ExitStack() as undo:
            undo.callback(self._release)
            self._renew_all(0.0)  # begins them all, so that they are initialised side by side
            while not self._renew_all(slice_max_s):
                if stopping():
                    raise UnavailableError("asked to stop before transactions were initialised")
                if clock.monotonic_s() >= deadline_s:
                    raise UnavailableError(f"transactions could not be initialised in {start_timeout_s:g} s")
            undo.pop_all()
        self.renewals = 0
        self._started = True

    def has_room(self) -> bool:
        """Whether submit may be called now; moves the renewal of producers on.

        A producer that was given up may have left its transaction open, and readers wait there until its successor has
        fenced it: so the successor comes before any new delivery.
        """
        if self._is_held_up():
            return False
        renewed = self._renew_all(0.0 if self._pending else slice_max_s / 4)
        return renewed and self._vacant() is not None

    def submit(self, delivery: Delivery, membership: object) -> None:
        """Open a transaction and send what may be sent by now; what goes wrong here, `advance` reports."""
        slot = self._vacant()
        # Not `has_room` again: that a producer is suspect may be learnt on another thread between the two calls.
        if slot is None or self._is_held_up():
            raise InvariantError("a delivery was submitted without room for it")
        if not delivery.positions:
            raise InvariantError("a delivery without positions could be neither committed nor verified")
        self._slots.remove(slot)
        self._slots.append(slot)
        slot.carry(delivery, membership, self._clock.monotonic_s())
        self._pending.append(slot)
        try:
            slot.client.begin()
        except TransactionError as fault:
            self._react(slot, fault)
        if slot.phase is Phase.PRODUCE and self._move(slot, slot.began_s + slice_max_s):
            # Asks for the offsets to be sent; the answer is advance's to await.
            self._move(slot, slot.began_s)

    def advance(self, timeout_s: float) -> int:
        """As penstock.engine.ports.Sink asks."""
        deadline_s = self._clock.monotonic_s() + timeout_s
        completed = 0
        while True:
            self._move_all(deadline_s)
            while self._pending and self._pending[0].verdict is Verdict.DELIVERED:
                self._pending.popleft()
                completed += 1
            if completed or not self._pending:
                return completed
            if all(slot.verdict is Verdict.ABORTED for slot in self._pending):
                refusals = [slot.refusal for slot in self._pending if slot.refusal]
                reason = self._pending[0].reason
                self._pending.clear()
                if refusals:
                    raise ConfigError(refusals[0])
                raise AbortedError(f"the transaction was aborted: {reason}")
            if self._clock.monotonic_s() >= deadline_s:
                return 0

    def abort(self) -> int:
        """Give up what is not committed; the number of deliveries, oldest first, that were delivered all the same.

        Raises UnavailableError when the outcome of a commit under way cannot be learnt in a few seconds.
        """
        if self._gone:
            self._pending.clear()
            return 0
        deadline_s = self._clock.monotonic_s() + 2 * abort_patience_s
        for slot in self._pending:
            if slot.verdict is Verdict.OPEN and not slot.commit_tried:
                self._begin_abort(slot)
            elif slot.phase is Phase.COMMIT:  # a shorter patience than a commit that is wanted
                slot.commit_until_s = min(slot.commit_until_s, self._clock.monotonic_s() + abort_patience_s)
        while any(slot.verdict is Verdict.OPEN for slot in self._pending):
            if self._clock.monotonic_s() >= deadline_s:
                raise UnavailableError("the broker did not say in time whether a transaction was committed")
            self._move_all(deadline_s)
        delivered = sum(slot.verdict is Verdict.DELIVERED for slot in self._pending)
        self._pending.clear()
        return delivered

    def close(self, timeout_s: float) -> None:
        """Abort what is open, as far as `timeout_s` allows, and release the clients. Idempotent."""
        deadline_s = self._clock.monotonic_s() + timeout_s
        for slot in self._pending:
            with suppress(
                TransactionError
            ):  # the transaction then ends by its time-out or with the next start
                if not self._gone and slot.verdict is Verdict.OPEN and not slot.commit_tried:
                    slot.client.abort(max(deadline_s - self._clock.monotonic_s(), 0.0))
        self._release()

    def _release(self) -> None:
        self._gone = True
        self._pending.clear()
        for slot in self._slots:
            slot.discard_producer()

    def _is_held_up(self) -> bool:
        """Nothing follows a delivery whose fate is not known."""
        return self._gone or any(self._in_doubt(slot) for slot in self._pending)

    @staticmethod
    def _in_doubt(slot: Slot) -> bool:
        return slot.verdict is Verdict.ABORTED or slot.phase in (Phase.LEARN, Phase.RENEW, Phase.ABORT)

    def _vacant(self) -> Slot | None:
        if len(self._pending) >= len(self._slots):
            return None
        return next((s for s in self._slots if s.phase is Phase.READY and s not in self._pending), None)

    def _renew_all(self, timeout_s: float) -> bool:
        """Whether every idle producer is ready, after trying for a while."""
        deadline_s = self._clock.monotonic_s() + timeout_s
        idle = [slot for slot in self._slots if slot not in self._pending]
        for slot in idle:
            # One whose connections broke while it was idle may wait for ten seconds before it uses them again.
            if slot.phase is Phase.READY and slot.client.suspect():
                slot.discard_producer()
            if slot.phase is Phase.RENEW:
                self._move(slot, deadline_s)
        return all(slot.phase is Phase.READY for slot in idle)

    def _move_all(self, deadline_s: float) -> None:
        for slot in tuple(self._pending):
            while self._move(slot, deadline_s):
                if slot.phase is Phase.COMMIT:
                    self._hand_over(slot)
        oldest = self._pending[0] if self._pending else None
        # One that is delivered may have lost its producer: the next one's commit is perhaps under way then.
        if oldest is not None and (
            oldest.verdict is Verdict.ABORTED
            or (oldest.verdict is Verdict.OPEN and oldest.phase in (Phase.RENEW, Phase.LEARN))
        ):
            for slot in self._pending:  # of a row of deliveries, none may stand without those before it
                if slot is not oldest and slot.verdict is Verdict.OPEN and slot.phase is not Phase.ABORT:
                    self._begin_abort(slot)
                    self._move(slot, deadline_s)

    def _hand_over(self, oldest: Slot) -> None:
        """Let the next delivery's records travel while the commit of this one is waited for."""
        for slot in self._pending:
            if slot is not oldest and slot.phase is Phase.PRODUCE:
                self._move(slot, self._clock.monotonic_s())
                return

    def _move(self, slot: Slot, deadline_s: float) -> bool:
        """One step of one slot; whether the next step may be taken at once."""
        if not self._may_move(slot):
            return False
        phase = slot.phase
        now_s = self._clock.monotonic_s()
        try:
            self._step(slot, min(max(deadline_s - now_s, 0.0), slice_max_s))
        except TransactionError as fault:
            self._react(slot, fault)
        return slot.phase is not phase and slot.phase is not Phase.READY

    def _may_move(self, slot: Slot) -> bool:
        oldest = self._pending[0] if self._pending else slot
        match slot.phase:
            case Phase.READY:
                return False
            case (
                Phase.PRODUCE
            ):  # order in a partition: nothing is sent before the older delivery is in the log
                return slot is oldest or oldest.phase in (Phase.COMMIT, Phase.READY)
            case Phase.COMMIT:
                return slot is oldest or oldest.verdict is Verdict.DELIVERED
            case Phase.LEARN:  # a younger transaction that holds offsets would hide the answer
                return all(s is slot or s.verdict is not Verdict.OPEN for s in self._pending)
            case _:
                return True

    def _step(self, slot: Slot, timeout_s: float) -> None:
        match slot.phase:
            case Phase.RENEW:
                self._renew(slot, timeout_s)
            case Phase.PRODUCE:
                self._produce(slot, timeout_s)
            case Phase.OFFSETS:
                slot.client.send_offsets(slot.cargo.positions, slot.membership, timeout_s)
                slot.phase = Phase.FLUSH
            case Phase.FLUSH:
                slot.client.flush(timeout_s)
                slot.phase = Phase.COMMIT
            case Phase.COMMIT:
                if not slot.commit_tried:
                    slot.commit_tried = True
                    slot.commit_until_s = self._clock.monotonic_s() + self._patience_s
                slot.client.commit(timeout_s)
                self._settle(slot, Verdict.DELIVERED)
            case Phase.LEARN:
                committed = self._read_committed(list(slot.cargo.positions), timeout_s)
                # Of a transaction all offsets are there or none. More than ours: the next owner went on from ours.
                there = all(committed.get(p, -1) >= offset for p, offset in slot.cargo.positions.items())
                self._settle(slot, Verdict.DELIVERED if there else Verdict.ABORTED)
            case Phase.ABORT:
                slot.client.abort(timeout_s)
                self._settle(slot, Verdict.ABORTED)
            case Phase.READY:
                pass

    def _produce(self, slot: Slot, timeout_s: float) -> None:
        outgoing = slot.cargo.outgoing
        while slot.topic < len(outgoing):
            slot.message = slot.client.produce(outgoing[slot.topic], slot.message, timeout_s)
            if slot.message < len(outgoing[slot.topic]):
                raise UnfinishedError("no room for more messages yet")
            slot.topic, slot.message = slot.topic + 1, 0
        slot.phase = Phase.OFFSETS

    def _renew(self, slot: Slot, timeout_s: float) -> None:
        if slot.producer is None:
            slot.producer = slot.make()
            self.renewals += 1
        slot.producer.initialise(timeout_s)
        slot.renewed_s = self._clock.monotonic_s() if self._started else None
        if slot.verdict is Verdict.OPEN:
            slot.phase = Phase.LEARN
        else:
            slot.phase = Phase.READY

    def _settle(self, slot: Slot, verdict: Verdict) -> None:
        slot.verdict = verdict
        if verdict is Verdict.DELIVERED:
            slot.own_ghosts = 0
        slot.delivery = slot.membership = None
        slot.phase = Phase.READY
        if slot.client.suspect():
            slot.discard_producer()

    def _begin_abort(self, slot: Slot) -> None:
        slot.phase = Phase.ABORT
        slot.abort_until_s = self._clock.monotonic_s() + abort_patience_s

    def _react(self, slot: Slot, fault: TransactionError) -> None:
        """What a fault asks for; the table of facts: fatal, abortable, retriable, and anything else is fatal."""
        now_s = self._clock.monotonic_s()
        if slot.verdict is Verdict.OPEN:
            slot.reason = str(fault)
        if isinstance(fault, RefusedError) and slot.refusal is None:
            slot.refusal = str(fault)
        if (
            isinstance(fault, FencedProducerError)
            and (slot.phase is Phase.RENEW or now_s - slot.began_s < self._fence_age_s)
            and not self._fenced_by_own_ghost(slot, now_s)
        ):
            self._gone = True
            raise FencedError(
                f"another worker uses this one's transactional id, {slot.name}: {fault}; give each worker a PENSTOCK_IDENTITY "
                "of its own, of which the id is made"
            ) from fault
        match slot.phase:
            case Phase.RENEW:
                self._renewal_failed(slot, fault)
            case Phase.LEARN:
                if isinstance(fault, RefusedError):
                    raise ConfigError(str(fault)) from fault
            case Phase.ABORT:
                if not isinstance(fault, UnfinishedError) or now_s >= slot.abort_until_s:
                    # Where a commit was asked for, its refusal is believed only with the abort: a broker that has committed
                    # all the same refuses that one, too. Then the verdict stays open, and the successor learns it.
                    if not slot.commit_tried:
                        slot.verdict = Verdict.ABORTED
                    slot.discard_producer()
            case Phase.COMMIT:
                if isinstance(fault, AbortableError | RefusedError):
                    self._begin_abort(slot)
                elif not isinstance(fault, UnfinishedError) or now_s >= slot.commit_until_s:
                    slot.discard_producer()  # the verdict stays open: the successor learns it
            case _:
                if isinstance(fault, BrokenError | FencedProducerError):
                    slot.verdict = Verdict.ABORTED
                    slot.discard_producer()
                elif (
                    isinstance(fault, AbortableError | RefusedError)
                    or now_s - slot.began_s >= self._patience_s
                ):
                    self._begin_abort(slot)

    @staticmethod
    def _fenced_by_own_ghost(slot: Slot, now_s: float) -> bool:
        """Whether the twin may be the producer that this one has just replaced; twice, then it is somebody else."""
        fresh = slot.renewed_s is not None and now_s - slot.renewed_s < own_ghost_s
        if not fresh or slot.own_ghosts >= own_ghosts_max:
            return False
        slot.own_ghosts += 1
        return True

    def _renewal_failed(self, slot: Slot, fault: TransactionError) -> None:
        if isinstance(fault, RefusedError):
            raise ConfigError(str(fault)) from fault
        if not isinstance(fault, UnfinishedError):
            slot.discard_producer()
            self._clock.sleep(slice_max_s / 4)  # a broker that refuses at once is not asked without pause
