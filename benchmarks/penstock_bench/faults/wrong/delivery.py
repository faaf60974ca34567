"""Wrong versions of delivery: transactions, unknown outcomes, acknowledgements."""

from penstock_bench.faults.fates import Trouble
from penstock_bench.faults.wrong.versions import Bug

_unknown = (Trouble.UNKNOWN,)
_unsure = (Trouble.UNKNOWN, Trouble.SLOW)
_away = (Trouble.UNKNOWN, Trouble.REBALANCE, Trouble.CRASH)

bugs: tuple[Bug, ...] = (
    Bug(
        name="a producer with a request that may still act is used again",
        where="KafkaTransactionalProducer.suspect",
        old="return self._disturbed_since(self._disturbed_before)",
        new="return False",
        only=_unknown,
        mode="exactly_once",
    ),
    Bug(
        name="a producer is used again after an unknown outcome",
        where="TransactionalSink._react",
        old="slot.discard_producer()  # the verdict stays open: the successor learns it",
        new="self._begin_abort(slot)",
        only=_unsure,
        mode="exactly_once",
    ),
    Bug(
        name="an unknown outcome counts as delivered",
        where="TransactionalSink._step",
        old="Verdict.DELIVERED if there else Verdict.ABORTED",
        new="Verdict.DELIVERED",
        only=_unknown,
        mode="exactly_once",
    ),
    Bug(
        name="an unknown outcome counts as aborted",
        where="TransactionalSink._step",
        old="Verdict.DELIVERED if there else Verdict.ABORTED",
        new="Verdict.ABORTED",
        only=_unknown,
        mode="exactly_once",
    ),
    Bug(
        name="the committed offset is compared one too high",
        where="TransactionalSink._step",
        old=">= offset for",
        new="> offset for",
        only=_unknown,
        mode="exactly_once",
    ),
    Bug(
        name="the second transaction is committed before the first",
        where="TransactionalSink._may_move",
        old="return slot is oldest or oldest.verdict is Verdict.DELIVERED",
        new="return True",
        only=(Trouble.SLOW, Trouble.ABORTED, Trouble.UNKNOWN),
        mode="exactly_once",
    ),
    Bug(
        name="results are committed without their offsets",
        where="TransactionalSink._step",
        old="slot.client.send_offsets(slot.cargo.positions, slot.membership, timeout_s)",
        new="pass",
        mode="exactly_once",
    ),
    Bug(
        name="offsets are committed before the results are acknowledged",
        where="TransactionalSink._step",
        old="slot.client.flush(timeout_s)",
        new="pass",
        only=(Trouble.SLOW,),
        mode="exactly_once",
    ),
    Bug(
        name="a delivery that was refused counts as delivered",
        where="TransactionalSink._step",
        old="self._settle(slot, Verdict.ABORTED)",
        new="self._settle(slot, Verdict.DELIVERED)",
        only=(Trouble.ABORTED, Trouble.REBALANCE),
        mode="exactly_once",
    ),
    Bug(
        name="the last topic of a delivery is not sent",
        where="TransactionalSink._produce",
        old="while slot.topic < len(outgoing):",
        new="while slot.topic < len(outgoing) - 1:",
        mode="exactly_once",
    ),
    Bug(
        name="a message that failed counts as acknowledged",
        where="KafkaAcknowledger.produce",
        old="tally.failed += 1",
        new="pass",
        only=(Trouble.ABORTED, Trouble.UNKNOWN),
        mode="at_least_once",
    ),
    Bug(
        name="a delivery is done when it is queued",
        where="KafkaAcknowledger.produce",
        old="tally.queued += stop - start",
        new="tally.queued += 0",
        only=(Trouble.SLOW, Trouble.UNKNOWN),
        mode="at_least_once",
    ),
    Bug(
        name="what is given up counts as acknowledged",
        where="AtLeastOnceSink.abort",
        old="if not submitted.done or submitted.tally.failed:",
        new="if False:",
        only=(Trouble.SLOW, Trouble.REBALANCE, Trouble.ABORTED),
        mode="at_least_once",
    ),
    Bug(
        name="deliveries go on behind one that failed",
        where="AtLeastOnceSink._fail",
        old="self._drop()",
        new="self._pending.popleft(); self._failure = None; return",
        only=(Trouble.ABORTED, Trouble.UNKNOWN),
        mode="at_least_once",
    ),
)
