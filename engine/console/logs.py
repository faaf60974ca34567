"""How our processes log: our own loggers at INFO, other libraries' from WARNING on, one line a record."""

import argparse
import atexit
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final, Literal

from penstock.engine.clock import SystemClock
from penstock.engine.console.log_limit import LineLimit, on_a_timer
from penstock.engine.console.terminal import printable

own: Final = ("penstock", "penstock_bench")
levels: Final = ("debug", "info", "warning", "error")
forms: Final = ("text", "json")
Form = Literal["text", "json"]


class _Bare(logging.Formatter):
    """A traceback of a foreign library is cut down to the error's type.

    The texts of foreign errors quote addresses, settings and payloads; ours never do.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, followed by the traceback where the exception was raised in Penstock's own code."""
        if record.exc_info and record.name.split(".", 1)[0] not in own:
            kind = record.exc_info[0]
            message = record.getMessage() + (f" ({kind.__name__})" if kind else "")
            changes = {"exc_info": None, "exc_text": None, "stack_info": None, "msg": message, "args": None}
            record = logging.makeLogRecord(record.__dict__ | changes)
        return self.line(record)

    def line(self, record: logging.LogRecord) -> str:
        """The record as it is written."""
        return super().format(record)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802  # its name is logging's
        """Local time to the millisecond, with its zone."""
        return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")


class TextLines(_Bare):
    """What is not printable is shown as such."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # its name is logging's
        """The line; what is not printable in it is written out."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802  # its name is logging's
        """The traceback; what is not printable in it is written out."""
        return printable(super().formatException(ei), lines=True)


class JsonLines(_Bare):
    """An object a line, in the field names of the Elastic Common Schema."""

    def __init__(self, who: str) -> None:
        super().__init__()
        self._who = who

    def line(self, record: logging.LogRecord) -> str:
        """The record as an object."""
        import orjson  # late: text needs it not

        entry: dict[str, Any] = {
            "@timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "log.level": record.levelname.lower(),
            "message": printable(record.getMessage()),
            "ecs.version": "8.11.0",
            "service.name": "penstock",
            "service.node.name": self._who,
            "process.pid": record.process,
            "log.logger": record.name,
        }  # fmt: skip
        if (code := getattr(record, "event_code", None)) is not None:
            dataset = getattr(record, "event_dataset", "penstock.state")
            entry |= {"event.code": code, "event.kind": "event", "event.dataset": dataset}
        if record.exc_info and record.exc_info[0] is not None:
            entry["error.type"] = record.exc_info[0].__name__
            entry["error.stack_trace"] = printable(self.formatException(record.exc_info), lines=True)
        return orjson.dumps(entry, default=str).decode()


def add_logging_arguments(parser: argparse.ArgumentParser) -> None:
    """--log-format and --log-level, for commands that run for long."""
    parser.add_argument(
        "--log-format", choices=forms, default="text", help="text for people, json with the field names of ECS (default %(default)s)"
    )  # fmt: skip
    parser.add_argument(
        "--log-level", choices=levels, default="info", help="of Penstock's own lines; libraries speak from warning on (default %(default)s)"
    )  # fmt: skip


def logging_words(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The same choice, for a process that is started."""
    return ("--log-format", arguments.log_format, "--log-level", arguments.log_level)


def configure_logging(who: str, *, form: Form = "text", level: str = "info") -> None:
    """Log to standard error as `who`. HTTP clients log every address they call at INFO, so others speak from WARNING on.

    Kafka's client repeats itself while a broker is away; what there is to say of that is said once, as an event. Of what
    floods the log all the same, `LineLimit` writes one line a minute.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonLines(who) if form == "json" else TextLines(f"%(asctime)s {who} %(levelname)s %(message)s")
    )
    limit = LineLimit(monotonic_s=SystemClock().monotonic_s, later=on_a_timer)
    handler.addFilter(limit)
    atexit.register(limit.close)
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.captureWarnings(True)
    set_log_level(level)


def set_log_level(level: str) -> None:
    """How much our own loggers say from now on."""
    for name in own:
        logging.getLogger(name).setLevel(level.upper())
    logging.getLogger("penstock.kafka").setLevel(
        "DEBUG" if level == "debug" else max(logging.WARNING, getattr(logging, level.upper()))
    )


def lines_held_back() -> int:
    """How many lines this process held back since it was told how to log; each minute a line says so."""
    filters = (each for handler in logging.getLogger().handlers for each in handler.filters)
    return sum(each.held for each in filters if isinstance(each, LineLimit))
