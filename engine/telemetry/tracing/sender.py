"""Sends traces to a collector from a thread of its own: the only file that imports OpenTelemetry, which comes with the extra `traces`.

Attribute names are those of OpenTelemetry's messaging conventions, where they have one, and `penstock.` ones elsewhere.
"""

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

import penstock
from penstock.engine.clock import Clock, SystemClock
from penstock.engine.telemetry.events import Repeated
from penstock.engine.telemetry.tracing.keeping import BatchTrace
from penstock.schemas.log_codes import LogCode

send_every_s: Final = 1.0
waiting_max: Final = 32
"""Batches that wait to be sent, and so the most of a second: to make their spans takes the interpreter about a third of a millisecond each."""

logger = logging.getLogger("penstock.worker")


class _Gathered(SpanProcessor):
    """Keeps spans that ended, until they are taken."""

    def __init__(self) -> None:
        self._spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self._spans.append(span)

    def taken(self) -> list[ReadableSpan]:
        spans, self._spans = self._spans, []
        return spans


class _LastWords(logging.Handler):
    """What the exporter said last, which its answer does not tell."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = str(record.msg) if record.exc_info else record.getMessage()


class TraceSender:
    """Takes traces without ever waiting, and sends what waits once a second. `take` and `close` come from one thread, the polling one."""

    def __init__(
        self,
        *,
        endpoint: str,
        timeout_s: float,
        resource: Mapping[str, str],
        count: Callable[[str, int], None],
        token: str | None = None,
        ca_file: Path | None = None,
        every_s: float = send_every_s,
        clock: Clock | None = None,
    ) -> None:
        """`count(outcome, batches)`: sent, dropped or failed; from any thread."""
        self._endpoint = endpoint
        self._count = count
        self._every_s = every_s
        self._clock = clock or SystemClock()
        self._waiting: queue.Queue[BatchTrace] = queue.Queue(waiting_max)
        self._stop = threading.Event()
        self._gathered = _Gathered()
        self._words = _LastWords()
        self._repeated = Repeated()
        self._failing = False
        theirs = logging.getLogger("opentelemetry")
        theirs.handlers, theirs.propagate = [self._words], False  # it would say each failure anew
        self._exporter = OTLPSpanExporter(
            endpoint=endpoint,
            timeout=timeout_s,
            headers={"authorization": f"Bearer {token}"} if token else None,
            certificate_file=str(ca_file) if ca_file else None,
        )
        whose = {"service.name": "penstock", "service.version": penstock.__version__, **resource}
        provider = TracerProvider(
            resource=Resource.create(dict(whose)), sampler=ALWAYS_ON, shutdown_on_exit=False
        )
        provider.add_span_processor(self._gathered)
        self._tracer = provider.get_tracer("penstock", penstock.__version__)
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def take(self, make: Callable[[], BatchTrace]) -> None:
        """Send it soon; where enough wait it is dropped, counted, and not even made."""
        if self._waiting.full():  # nobody else puts, so there is room from here on
            self._count("dropped", 1)
        else:
            self._waiting.put_nowait(make())

    def close(self, timeout_s: float) -> None:
        """Send what waits, for so long; what was not sent by then is dropped. Idempotent."""
        self._stop.set()
        self._thread.join(timeout_s)
        if left := len(self._take_waiting()):
            self._count("dropped", left)
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _run(self) -> None:
        ended = False
        while not ended:
            ended = self._stop.wait(self._every_s)
            if batches := self._take_waiting():
                self._send(batches)

    def _take_waiting(self) -> list[BatchTrace]:
        batches: list[BatchTrace] = []
        while len(batches) < waiting_max:
            try:
                batches.append(self._waiting.get_nowait())
            except queue.Empty:
                break
        return batches

    def _send(self, batches: list[BatchTrace]) -> None:
        for batch in batches:
            self._make(batch)
        spans = self._gathered.taken()  # none where OTEL_SDK_DISABLED says so
        sent = bool(spans) and self._exporter.export(spans) is SpanExportResult.SUCCESS
        self._count("sent" if sent else "failed", len(batches))
        if not sent:
            self._failing = True
            if lost := self._repeated.add(len(batches), self._clock.monotonic_s()):
                logger.warning(
                    "the collector at %s takes no traces, %d batches' are lost: %s",
                    self._endpoint,
                    lost,
                    self._words.text or "no answer",
                    extra=LogCode.TRACES_NOT_TAKEN.extra,
                )
        elif self._failing:
            self._failing, self._repeated = False, Repeated()
            logger.warning(
                "the collector at %s takes traces again", self._endpoint, extra=LogCode.TRACES_NOT_TAKEN.extra
            )

    def _make(self, batch: BatchTrace) -> None:
        """The batch's span, with its stages as children."""
        linked = [
            trace.Link(
                trace.SpanContext(
                    trace_id=link.trace_id,
                    span_id=link.span_id,
                    is_remote=True,
                    trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
                )
            )
            for link in batch.links
        ]
        span = self._tracer.start_span(
            f"process {batch.topic}",
            context=Context(),
            kind=trace.SpanKind.CONSUMER,
            attributes=_attributes(batch),
            links=linked,
            start_time=batch.start_ns,
        )
        if batch.rejected:
            span.set_status(trace.StatusCode.ERROR, "records were set aside")
        inside = trace.set_span_in_context(span, Context())
        for stage in batch.stages:
            child = self._tracer.start_span(stage.name, context=inside, start_time=stage.start_ns)
            child.end(stage.end_ns)
        span.end(batch.end_ns)


def _attributes(batch: BatchTrace) -> dict[str, Any]:
    return {
        "messaging.system": "kafka",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": batch.topic,
        "messaging.batch.message_count": batch.rows,
        "penstock.kept": str(batch.why),
        "penstock.closed": batch.closed,
        "penstock.predicted": batch.predicted,
        "penstock.explained": batch.explained,
        "penstock.skipped": batch.skipped,
        "penstock.offsets": list(batch.places),
        **{f"penstock.rejected.{reason}": count for reason, count in batch.rejected},
    }
