"""How our processes log: our own loggers at INFO, other libraries' from WARNING on, one line a record."""

import logging
import sys
from typing import Any, Final

from penstock.engine.console.terminal import printable

own: Final = ("penstock", "penstock_bench")


class _OneLine(logging.Formatter):
    """What is not printable is shown as such, and a library's traceback is cut down to the error's type.

    The texts of foreign errors quote addresses, settings and payloads; ours never do.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # its name is logging's
        """The line; what is not printable in it is written out."""
        return printable(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        """The line, and under it the traceback where it is one of ours."""
        if record.exc_info and record.name.split(".", 1)[0] not in own:
            kind = record.exc_info[0]
            fields = record.__dict__ | {"exc_info": None, "exc_text": None, "stack_info": None}
            return super().format(logging.makeLogRecord(fields)) + (f" ({kind.__name__})" if kind else "")
        return super().format(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802  # its name is logging's
        """The traceback; what is not printable in it is written out."""
        return printable(super().formatException(ei), lines=True)


def configure_logging(who: str) -> None:
    """Log to standard error as `who`. HTTP clients log every address they call at INFO, so others speak from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine(f"%(asctime)s {who} %(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    for name in own:
        logging.getLogger(name).setLevel(logging.INFO)
