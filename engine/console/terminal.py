"""What a person at a terminal sees, and what a program that reads --json gets."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

T = TypeVar("T")


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
        from rich.console import Console

        return Console(stderr=self.json, highlight=False)

    @property
    def live(self) -> bool:
        """Whether a person watches: bars and live views make sense."""
        return self.console.is_terminal and not self.json

    def say(self, what: "RenderableType" = "") -> None:
        """A line, or anything rich can draw. Text is taken as it is, without markup."""
        if isinstance(what, str):
            self.console.print(what, markup=False, soft_wrap=True)
        else:
            self.console.print(what)

    def result(self, value: dict[str, Any]) -> None:
        """The command's one machine-readable object; nothing without --json."""
        if self.json:
            import orjson

            sys.stdout.write(
                orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY).decode() + "\n"
            )
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

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True) as bars:
            task = bars.add_task(label, total=total)
            yield lambda done: bars.advance(task, done)
