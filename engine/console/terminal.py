"""What a person at a terminal sees, and what a program that reads --json gets."""

import io
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

T = TypeVar("T")

_outside_ascii = re.compile(r"[^\x20-\x7e\n]+")
_unseen = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U00016fe4\U0001d159\U000e0100-\U000e01ef]"
)
"""Printable by Python's word, and drawn as nothing or as a blank: by them two names look like one."""
_marks = ("Mn", "Me")
marks_max: Final = 4
"""Marks on one character: scripts and accents put as many there, more of them only cover the lines around."""


def printable(text: str, *, lines: bool = False) -> str:
    r"""The text with whatever is not printable written out, as in `\x1b` or `\u202e`; with `lines`, line ends stay.

    Names, keys and header names are untrusted (anyone who can write to the topic chooses them), and a terminal executes control
    characters (C0 and C1), marks that turn the direction of the text, invisible ones, and marks heaped on one character are therefore
    shown, not sent.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character if sound or (lines and character == "\n") else _written(character)
        for character, sound in _judged(text, after="")
    )


def draws_as_it_is(text: str) -> bool:
    """Whether nothing in it acts on a terminal, or is invisible there; of marks nothing is said."""
    return text.isprintable() and (text.isascii() or _unseen.search(text) is None)


def _judged(text: str, *, after: str) -> Iterator[tuple[str, bool]]:
    """Each character, and whether a terminal may get it. A mark stands on a letter or its like, and on nothing before the text."""
    marks = 0 if after.isalnum() else marks_max
    for character in text:
        ascii_only = character.isascii()
        if not ascii_only and unicodedata.category(character) in _marks:
            marks += 1
        else:
            marks = 0 if not ascii_only or character.isalnum() else marks_max
        sound = character.isprintable() if ascii_only else draws_as_it_is(character) and marks <= marks_max
        if not sound:
            marks = marks_max
        yield character, sound


def write_safely() -> None:
    """Standard output and error never fail for a character that they cannot encode: it is written out instead."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def json_text(value: Any, *, indented: bool = True) -> str:
    """The value as JSON, indented or on one line, in which no character acts on a terminal, and every encoding can write each."""
    import orjson

    option = orjson.OPT_SERIALIZE_NUMPY | (orjson.OPT_INDENT_2 if indented else 0)
    text = orjson.dumps(value, option=option).decode()
    utf8 = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("_", "-") in ("utf-8", "utf8")

    def written(found: re.Match[str]) -> str:
        before = text[found.start() - 1]  # a quote, or a character of the same text
        return "".join(
            character if utf8 and sound else _json_escape(character)
            for character, sound in _judged(found.group(), after=before)
        )

    return _outside_ascii.sub(written, text)


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _written(character: str) -> str:
    code = ord(character)
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character)
    return named or (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )


class Terminal:
    """Words and progress for people; with `json`, words go to standard error and the one result to standard output.

    What draws is loaded with the first word: a command that says none, as a worker's, starts a tenth of a second sooner.
    """

    def __init__(self, *, json: bool = False, console: "Console | None" = None) -> None:
        self.json = json
        self._console = console

    @cached_property
    def console(self) -> "Console":
        """Where words go."""
        if self._console is not None:
            return self._console
        from penstock.engine.console.plain import PlainConsole

        return PlainConsole(stderr=self.json)

    @property
    def live(self) -> bool:
        """Whether a person watches: bars and live views make sense."""
        return self.console.is_terminal and not self.json

    def say(self, what: "RenderableType" = "") -> None:
        """A line, or anything rich can draw. Text is taken as it is, without markup; in a line a line end is written out."""
        if isinstance(what, str):
            self.console.print(printable(what), markup=False, emoji=False, soft_wrap=True)
        elif self.console.is_terminal:
            self.console.print(what)
        else:
            with self.console.capture() as drawn:
                self.console.print(what)
            # Cells are filled up to their column's width, the last one too.
            self.say_lines("\n".join(line.rstrip() for line in drawn.get().removesuffix("\n").split("\n")))

    def say_lines(self, text: str) -> None:
        """Several lines, as they are."""
        for line in text.split("\n"):
            self.say(line)

    def result(self, value: dict[str, Any]) -> None:
        """The command's one machine-readable object; nothing without --json."""
        if self.json:
            sys.stdout.write(json_text(value) + "\n")
            sys.stdout.flush()

    def result_line(self, value: dict[str, Any]) -> None:
        """One of many machine-readable objects, on a line of its own; nothing without --json."""
        if self.json:
            sys.stdout.write(json_text(value, indented=False) + "\n")
            sys.stdout.flush()

    def track(self, items: Iterable[T], *, label: str, total: int | None = None) -> Iterator[T]:
        """The items, with a bar that moves on a terminal and one plain line elsewhere."""
        with self.progress(label=label, total=total) as advance:
            for item in items:
                yield item
                advance(1)

    @contextmanager
    def progress(self, *, label: str, total: int | None = None) -> Iterator[Any]:
        """A function to call with how many more are done."""
        if not self.live:
            self.say(f"{label} ...")
            yield lambda _: None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as bars:
            task = bars.add_task(label, total=total)
            yield lambda done: bars.advance(task, done)
