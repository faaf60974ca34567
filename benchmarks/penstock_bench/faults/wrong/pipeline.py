"""Wrong versions of the loop and its stages: batches, rewinds, offsets, rows and their keys."""

from penstock_bench.faults.fates import Trouble
from penstock_bench.faults.wrong.versions import Bug

_moves = (Trouble.REBALANCE, Trouble.CRASH)
_aborts = (Trouble.ABORTED, Trouble.REBALANCE)
_poison = (Trouble.POISON,)
_waits = (Trouble.SCHEMAS,)

bugs: tuple[Bug, ...] = (
    Bug(
        name="offsets are committed beyond the batch",
        where="delivery",
        old="max(span.next, positions.get(span.partition, 0))",
        new="span.next + 1",
        mode="exactly_once",
    ),
    Bug(
        name="offsets are committed short of the batch",
        where="delivery",
        old="max(span.next, positions.get(span.partition, 0))",
        new="span.first",
        mode="exactly_once",
    ),
    Bug(
        name="offsets are committed before the results are delivered",
        where="Pipeline._deliver",
        old="self._sink.submit(delivery(group), membership)",
        new="self._sink.submit(delivery(group), membership); self._commits.delivered(0.0, self._limits); "
        "[self._ledger.settle(each.batch.spans) for each in group]",
        only=(Trouble.SLOW, Trouble.UNKNOWN, Trouble.ABORTED),
        mode="at_least_once",
    ),
    Bug(
        name="dead letters are dropped",
        where="delivery",
        old="outgoing += finished.outcome.outgoing",
        new='outgoing += [each for each in finished.outcome.outgoing if each.topic != "d"]',
        only=_poison,
    ),
    Bug(
        name="letters are counted and not written",
        where="Scorer._encode",
        old="outgoing.append(messages.letters(records, indices, dead, headers))",
        new="pass",
        only=_poison,
    ),
    Bug(
        name="a record that was set aside keeps its result",
        where="OutgoingMessages.results",
        old="if failed:",
        new="if False:",
        only=_poison,
    ),
    Bug(
        name="keys are those of other rows",
        where="OutgoingMessages.results",
        old="keys=[keys[i] for i in indices]",
        new="keys=keys[: len(indices)]",
        only=_poison,
    ),
    Bug(
        name="results are paired with other rows",
        where="Survivors.drop",
        old="self.rows[kept], self.matrix[kept]",
        new="self.rows[: len(kept)], self.matrix[kept]",
        only=_poison,
    ),
    Bug(
        name="the halves of a batch that threw come back in the wrong order",
        where="infer_around_failures",
        old="[(middle, stop), (start, middle)]",
        new="[(start, middle), (middle, stop)]",
        only=_poison,
    ),
    Bug(
        name="of a mixed batch another record is set aside",
        where="RowDecoder._read",
        old="_rejection(place if places is None else int(places[place]), fault)",
        new="_rejection(place, fault)",
        only=_poison,
    ),
    Bug(
        name="polls leave a batch in the wrong order",
        where="Batcher.take",
        old="polls=tuple(self._polls)",
        new="polls=tuple(reversed(self._polls))",
        only=(Trouble.SLOW, Trouble.CRASH),
    ),
    Bug(
        name="a batch is computed and kept for the next",
        where="Batcher.take",
        old="self.clear()",
        new="pass",
    ),
    Bug(
        name="finished batches share a transaction in the wrong order",
        where="Pipeline._group",
        old="group.append(self._finished.popleft())",
        new="group.append(self._finished.pop())",
        only=(Trouble.SLOW,),
        mode="exactly_once",
    ),
    Bug(
        name="no partition is rewound on an abort",
        where="Pipeline._after_abort",
        old="self._read_again(self._ledger.rewind())",
        new="self._ledger.rewind()",
        only=_aborts,
    ),
    Bug(
        name="one partition is not rewound on an abort",
        where="Pipeline._after_abort",
        old="self._read_again(self._ledger.rewind())",
        new="self._read_again(dict(sorted(self._ledger.rewind().items())[1:]))",
        only=_aborts,
    ),
    Bug(
        name="partitions that stay are not rewound on a revocation",
        where="Pipeline._give_up",
        old="self._read_again(self._ledger.rewind())",
        new="self._ledger.rewind()",
        only=_moves,
    ),
    Bug(
        name="reading goes back to the last poll instead of the first",
        where="Ledger.rewind",
        old="partition.opened[0].first",
        new="partition.opened[-1].first",
        only=(*_aborts, Trouble.SCHEMAS),
    ),
    Bug(
        name="results of revoked partitions are delivered",
        where="Pipeline._give_up",
        old="self._forget()",
        new="pass",
        only=(Trouble.REBALANCE, Trouble.CRASH, Trouble.SLOW),
        mode="exactly_once",
    ),
    Bug(
        name="results of before a rewind are taken",
        where="Pipeline._accept",
        old="if finished.batch.generation != self._generation or self._hold_due:",
        new="if self._hold_due:",
        only=_aborts,
    ),
    Bug(
        name="finished batches survive a rewind",
        where="Pipeline._forget",
        old="self._finished.clear()",
        new="pass",
        only=_aborts,
    ),
    Bug(
        name="polled records survive a rewind",
        where="Pipeline._forget",
        old="self._batcher.clear()",
        new="pass",
        only=(*_aborts, Trouble.SCHEMAS),
    ),
    Bug(
        name="what is dropped for a partition that waits is not read again",
        where="Pipeline._hold",
        old="self._read_again(again)",
        new="pass",
        only=_waits,
    ),
    Bug(
        name="a partition that waits is never let go on",
        where="Standstill.over",
        old="[p for p, held in self._held.items() if not held.stopped and p not in waiting]",
        new="[]",
        only=_waits,
    ),
    Bug(
        name="a partition goes on behind what it waited for",
        where="Standstill.let_go",
        old="self._from.pop(p)",
        new="self._from.pop(p) + 1",
        only=_waits,
    ),
)
