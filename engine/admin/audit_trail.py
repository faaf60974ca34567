"""The audit while we run: a line and a record for everything, and a bound on what strangers can make us write."""

import logging
import threading
import uuid
from collections.abc import Callable
from typing import Final, Protocol

import orjson

from penstock.engine.admin.audit_record import AuditFacts, Chain
from penstock.engine.clock import Clock
from penstock.schemas.errors import ConfigError
from penstock.schemas.log_codes import LogCode

logger = logging.getLogger("penstock.audit")

acknowledged_within_s: Final = 3.0
outstanding_max: Final = 1000
"""Records that the topic has not taken yet."""
refusals_burst: Final = 120
refusals_per_s: Final = 1.0
"""Refusals beyond these are counted, and told of in one record: half a hundred megabytes a day is the most that strangers can write."""
renew_first_s: Final = 5.0
renew_last_s: Final = 300.0
"""Between two attempts to begin anew after the topic has refused a record; twice as long after each, until one is stored."""


class AuditWriter(Protocol):
    """A topic that takes records in order, each once."""

    def send(self, key: bytes, value: bytes, delivered: Callable[[], None]) -> bool:
        """Queue one; False when it cannot be, which is a `fault`. Never waits. `delivered` is called from `turn` once it is stored."""

    def turn(self, timeout_s: float) -> None:
        """Hear of what was stored; called from one thread, over and over."""

    def close(self, timeout_s: float) -> int:
        """Send what is queued, for as long as allowed; how many were not."""

    @property
    def fault(self) -> str:
        """Why none is taken any more, until `renew`; empty while they are."""

    def renew(self) -> None:
        """Take records again; those that were not stored are lost. Raises ConfigError."""


class AuditTrail:
    """Thread-safe. `refused` never waits; `before_acting` waits until its record is stored, for so long at most.

    Where the topic has refused a record, its chain ends there, and another one is begun as soon as it takes records again.
    """

    def __init__(
        self,
        writer: AuditWriter,
        *,
        instance: str,
        key: bytes | None,
        clock: Clock,
        count: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`count` is told of each event: the names of AuditFacts.event, and `lost` for what could not be recorded."""
        self._writer = writer
        self._clock = clock
        self._count = count
        self._lock = threading.RLock()  # what the writer says while it is renewed comes on our own thread
        self._begin_chain: Callable[[], Chain] = lambda: Chain(f"{instance}/{uuid.uuid4().hex[:12]}", key=key)
        self._chain = self._begin_chain()
        self._pause_s, self._renew_at_s = renew_first_s, 0.0
        self._outstanding = 0
        self._lost = 0  # of those that nobody was told of in a record
        self._allowance = float(refusals_burst)
        self._allowance_s = clock.monotonic_s()
        self._unrecorded = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._turn, name="audit", daemon=True)
        self._thread.start()
        self._write(AuditFacts(event="started"))

    def refused(self, facts: AuditFacts) -> None:
        """A refusal: a record and a line, or one more of those that are only counted."""
        with self._lock:
            self._refill()
            allowed = self._allowance >= 1.0 and self._outstanding < outstanding_max
            if allowed:
                self._allowance -= 1.0
            else:
                self._unrecorded += 1
        if not allowed:
            self._count("unrecorded")
            return
        self._tell_unrecorded()
        self._write(facts)

    def before_acting(self, facts: AuditFacts) -> bool:
        """Whether the record of what is about to be done is stored: without it nothing is done."""
        self._tell_unrecorded()
        stored = threading.Event()
        return self._write(facts, delivered=stored.set) and stored.wait(acknowledged_within_s)

    def after_acting(self, facts: AuditFacts) -> None:
        """What became of it."""
        self._write(facts)

    def close(self, timeout_s: float) -> None:
        """The chain's last record, and everything before it stored, for as long as allowed."""
        self._tell_unrecorded()
        self._write(AuditFacts(event="stopped"))
        self._ended.set()
        self._thread.join()
        left = self._writer.close(timeout_s)
        if left:
            logger.error(
                "%d records of the audit were not stored; the lines of this log have them",
                left,
                extra=LogCode.AUDIT_NOT_STORED.extra,
            )

    def _write(self, facts: AuditFacts, delivered: Callable[[], None] = lambda: None) -> bool:
        def stored() -> None:
            with self._lock:
                self._outstanding -= 1
                self._pause_s = renew_first_s
            delivered()

        with self._lock:
            full = self._outstanding >= outstanding_max
            if not full:
                value, digest = self._chain.next(facts, self._clock.wall_ms())
                full = not self._writer.send(self._chain.name.encode(), value, stored)
                self._outstanding += not full
            self._lost += full
        if full:
            self._count("lost")
            logger.error(
                "%s (no record: the audit topic takes none now)",
                _line(facts),
                extra=LogCode.AUDIT_NOT_STORED.extra,
            )
            return False
        if facts.event != "unrecorded":  # each of those was counted when it came
            self._count(facts.event)
        logger.log(
            logging.WARNING if facts.event == "refused" else logging.INFO,
            "%s, hash %s",
            _line(facts),
            digest,
            extra=LogCode.AUDIT.extra,
        )
        return True

    def _refill(self) -> None:
        now_s = self._clock.monotonic_s()
        self._allowance = min(refusals_burst, self._allowance + (now_s - self._allowance_s) * refusals_per_s)
        self._allowance_s = now_s

    def _tell_unrecorded(self) -> None:
        with self._lock:
            count, self._unrecorded = self._unrecorded, 0
        if count:
            self._write(AuditFacts(event="unrecorded", count=count))

    def _turn(self) -> None:
        while not self._ended.is_set():
            self._writer.turn(0.1)
            if self._writer.fault:
                self._renew(self._writer.fault)

    def _renew(self, fault: str) -> None:
        now_s = self._clock.monotonic_s()
        with self._lock:
            if now_s < self._renew_at_s:
                return
            self._renew_at_s = now_s + self._pause_s
            self._pause_s = min(2 * self._pause_s, renew_last_s)
            try:
                self._writer.renew()
            except ConfigError as error:
                logger.error("the audit cannot go on: %s", error, extra=LogCode.AUDIT_NOT_STORED.extra)
                return
            lost, self._outstanding = self._outstanding, 0
            self._lost += lost
            told, self._chain = self._lost, self._begin_chain()
        for _ in range(lost):
            self._count("lost")
        logger.error(
            "%d records of the audit were not stored (%s); the lines of this log have them, and another chain begins",
            lost,
            fault,
            extra=LogCode.AUDIT_NOT_STORED.extra,
        )
        self._write(AuditFacts(event="started", code="not_stored", count=max(told, 1)), self._told_of(told))

    def _told_of(self, lost: int) -> Callable[[], None]:
        def stored() -> None:
            with self._lock:
                self._lost -= lost

        return stored


def _line(facts: AuditFacts) -> str:
    """A line for the log: what is not empty, in the order of importance."""
    parts = [f"audit: {facts.event}"]
    parts += [facts.action] if facts.action else []
    parts += [orjson.dumps(facts.target).decode()] if facts.target else []
    parts += [f"by {facts.who} ({facts.role or 'no role'}, {facts.way})"] if facts.who else []
    parts += [f"from {facts.origin}"] if facts.origin else []
    parts += [f"{facts.code}: {facts.reason}" if facts.reason else facts.code] if facts.code else []
    parts += [f"{facts.count} times"] if facts.count != 1 else []
    return " ".join(parts)
