"""A rich console that takes no text for markup and lets no control character out."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from penstock.engine.console.terminal import draws_as_it_is, printable

width_elsewhere = 10_000


class PlainConsole(Console):
    """Every string is shown as it is: brackets and colons mean nothing, and what is not printable is written out.

    Strings, table cells among them, are written out before they are measured; what a renderable makes of a text of its own
    is looked at again when it is drawn. Only rich's own control segments (cursor, styles) pass.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)
        if not self.is_terminal and "width" not in options:
            self.width = width_elsewhere  # nothing wraps: what reads it has lines of any length

    def render_str(self, text: str, **options: Any) -> Text:
        """The text of a string, without markup."""
        return super().render_str(printable(text, lines=True), **options | {"markup": False, "emoji": False})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is drawn, free of control characters."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text == "\n" or draws_as_it_is(segment.text):
                yield segment
            else:
                yield Segment(printable(segment.text, lines=True), segment.style)
