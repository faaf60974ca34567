"""How many lines of one kind a process writes: a flood becomes one line a minute that says how many were held back."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from penstock.schemas.log_codes import LogCode

burst_lines: Final = 30
"""Of one code within a minute, before lines are held back."""
texts_max: Final = 300
"""Of warnings and errors of one code that were not said in these words before; they are written beyond the burst."""
told_every_s: Final = 60.0
unlimited: Final = frozenset(
    str(code)
    for code in (
        LogCode.WORKER_REFUSED, LogCode.WORKER_AWAITS, LogCode.WORKER_FAILED, LogCode.FENCED,
        LogCode.AUDIT, LogCode.AUDIT_NOT_STORED, LogCode.LINES_HELD_BACK,
    )
)  # fmt: skip
"""Codes whose every line is written: why a process ends, and the record of who acted."""

logger = logging.getLogger("penstock.log")

Later = Callable[[float, Callable[[], None]], None]


@dataclass(kw_only=True, slots=True)
class _Lines:
    """Lines of one code since `began_s`."""

    began_s: float
    room: int = burst_lines
    came: int = 0
    held: int = 0
    level: int = logging.NOTSET
    newest: logging.LogRecord | None = None
    texts: set[int] = field(default_factory=set)

    def again(self, now_s: float) -> None:
        """Another minute begins. One that brought no more than a burst ends the flood."""
        calm = self.came <= burst_lines
        self.began_s, self.room = now_s, burst_lines if calm else 0
        self.came = self.held = 0
        self.level, self.newest = logging.NOTSET, None
        if calm:
            self.texts.clear()


class LineLimit(logging.Filter):
    """Holds back lines of a code, or of a library's logger, beyond `burst_lines` a minute, and says each minute how many they were.

    Warnings and errors in words that were not said since the flood began are written all the same, `texts_max` of them; what was
    asked for with the level debug, and `unlimited` codes, always. Thread-safe; never waits.
    """

    def __init__(self, *, monotonic_s: Callable[[], float], later: Later) -> None:
        """`later(seconds, call)` makes a call after so many seconds, from any thread."""
        super().__init__()
        self._monotonic_s = monotonic_s
        self._later = later
        self._lock = threading.RLock()  # a signal's handler may log while its thread holds it
        self._lines: dict[str, _Lines] = {}
        self._due = self._closed = False
        self.held = 0
        """Lines held back since the start."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        code = getattr(record, "event_code", None)
        if self._closed or record.levelno <= logging.DEBUG or code in unlimited:
            return True
        now_s = self._monotonic_s()
        with self._lock:
            lines = self._lines.get(code or record.name)
            if lines is None:
                lines = self._lines[code or record.name] = _Lines(began_s=now_s)
            elif not lines.held and now_s - lines.began_s >= told_every_s:
                lines.again(now_s)
            lines.came += 1
            new = record.levelno >= logging.WARNING and _is_new(_words(record), lines)
            if lines.came <= lines.room or new:
                return True
            self.held += 1
            lines.held += 1
            lines.level = max(lines.level, record.levelno)
            lines.newest = record
            ask, self._due = not self._due, True
        if ask:
            self._later(told_every_s, self.tell)
        return False

    def tell(self) -> None:
        """One line for each code of which lines were held back."""
        now_s = self._monotonic_s()
        told = []
        with self._lock:
            self._due = False
            for code, lines in self._lines.items():
                if lines.newest is not None:
                    took_s = now_s - lines.began_s
                    told.append((lines.level, lines.held, code, took_s, _words(lines.newest)))
                    lines.again(now_s)
        for level, held, code, took_s, newest in told:
            logger.log(
                level,
                "%d lines of %s within %.0f s are not written here; the newest: %s",
                held,
                code,
                took_s,
                newest,
                extra=LogCode.LINES_HELD_BACK.extra,
            )

    def close(self) -> None:
        """The process ends: what was held back is told now, and whatever still comes is written."""
        self._closed = True
        self.tell()


def _words(record: logging.LogRecord) -> str:
    """What a line of ours says. Of a library's the text without its values: putting them in may fail, and that is the formatter's to catch."""
    return record.getMessage() if hasattr(record, "event_code") else str(record.msg)


def _is_new(text: str, lines: _Lines) -> bool:
    mark = hash(text)
    if mark in lines.texts or len(lines.texts) >= texts_max:
        return False
    lines.texts.add(mark)
    return True


def on_a_timer(delay_s: float, call: Callable[[], None]) -> None:
    """Make the call from a thread of its own, which does not keep the process alive."""
    timer = threading.Timer(delay_s, call)
    timer.daemon = True
    timer.name = "log-limit"
    timer.start()
