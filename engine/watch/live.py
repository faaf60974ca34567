"""Keeps looking at an engine and shows what it sees, until Ctrl+C: drawn over itself on a terminal, a line a second elsewhere."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from penstock.engine.clock import Clock
from penstock.engine.console.terminal import Terminal
from penstock.engine.watch.frame import Frame, Frames, Newest
from penstock.engine.watch.look import Seen
from penstock.engine.watch.screen import plain_line, screen
from penstock.schemas.errors import UnavailableError

look_every_s: Final = 1.0


class Drawn:
    """A frame as rich draws it, into whatever size the terminal has at that moment."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The lines, each drawn to its end."""
        height = options.height or options.size.height
        lines = screen(self._frame, width=options.max_width, height=height, ascii_only=options.ascii_only)
        yield Text("\n").join(lines)


def can_draw(terminal: Terminal) -> bool:
    """Whether a person watches on a terminal that can be drawn over."""
    return terminal.live and not terminal.console.is_dumb_terminal


def watch(
    look: Callable[[], Seen],
    terminal: Terminal,
    clock: Clock,
    *,
    newest: Callable[[], tuple[Newest, ...]] = tuple,
    seconds: float = 0.0,
) -> int:
    """Look once a second for so long, 0: until Ctrl+C, which is the way to end it. The exit code.

    Raises UnavailableError when nobody answers the first look; later ones are shown as missing.
    """
    frames, until_s = Frames(), clock.monotonic_s() + seconds
    shown = _shown(frames.add(look()), newest())
    drawn = (
        Live(Drawn(shown), console=terminal.console, screen=True, auto_refresh=False)
        if can_draw(terminal)
        else nullcontext()
    )
    try:
        with drawn as live:
            while True:
                if live is not None:
                    live.update(Drawn(shown), refresh=True)
                elif terminal.json:
                    terminal.result_line(shown.as_dict())
                else:
                    terminal.say(plain_line(shown))
                if seconds and clock.monotonic_s() + look_every_s > until_s:
                    break
                clock.sleep(look_every_s)
                try:
                    shown = _shown(frames.add(look()), newest())
                except UnavailableError as error:
                    shown = replace(shown, notes=(f"no answer: {error}; what is shown is older",))
    except KeyboardInterrupt:
        pass
    if can_draw(terminal):
        terminal.say(plain_line(shown))
    return 0


def _shown(frame: Frame, newest: tuple[Newest, ...]) -> Frame:
    return replace(frame, newest=newest) if newest else frame
