"""Keeps looking at an engine and shows what it sees, until Ctrl+C: drawn over itself on a terminal, line by line elsewhere."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Final

from rich.console import Console, ConsoleDimensions
from rich.control import Control
from rich.segment import ControlType
from rich.text import Text

from penstock.engine.clock import Clock
from penstock.engine.console.terminal import Terminal
from penstock.engine.watch.frame import Frame, Frames, Newest
from penstock.engine.watch.look import Seen
from penstock.engine.watch.screen import plain_line, screen
from penstock.schemas.errors import UnavailableError

look_every_s: Final = 1.0


class Drawing:
    """Frames drawn over each other, into whatever size the terminal has at that moment: of each frame the lines that changed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: list[tuple[Text, str]] = []
        self._size: ConsoleDimensions | None = None

    def draw(self, frame: Frame) -> None:
        """In place of the frame before."""
        console, size = self._console, self._console.size
        lines = [
            (line, str(line.style))
            for line in screen(
                frame, width=size.width, height=size.height, ascii_only=console.options.ascii_only
            )
        ]
        with console:  # all of it is written at once
            if size != self._size:
                self._shown, self._size = [], size
                console.control(Control(ControlType.CLEAR))
            for row in range(max(len(lines), len(self._shown))):
                line = lines[row] if row < len(lines) else None
                if row < len(self._shown) and line == self._shown[row]:
                    continue
                console.control(Control((ControlType.CURSOR_MOVE_TO, 0, row), (ControlType.ERASE_IN_LINE, 2)))
                if line is not None:
                    console.print(line[0], end="", no_wrap=True, overflow="crop", crop=True)
        self._shown = lines


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
    every_s: float = look_every_s,
) -> int:
    """Look every `every_s` for `seconds`, 0: until Ctrl+C, which is the way to end it. The exit code.

    Raises UnavailableError when nobody answers the first look; later ones are shown as missing.
    """
    frames, until_s = Frames(), clock.monotonic_s() + seconds
    shown = _shown(frames.add(look()), newest())
    draws = can_draw(terminal)
    drawing = Drawing(terminal.console)
    try:
        with terminal.console.screen() if draws else nullcontext():
            while True:
                if draws:
                    drawing.draw(shown)
                elif terminal.json:
                    terminal.result_line(shown.as_dict())
                else:
                    terminal.say(plain_line(shown))
                if seconds and clock.monotonic_s() + every_s > until_s:
                    break
                clock.sleep(every_s)
                try:
                    shown = _shown(frames.add(look()), newest())
                except UnavailableError as error:
                    shown = replace(shown, notes=(f"no answer: {error}; what is shown is older",))
    except KeyboardInterrupt:
        pass
    if draws:
        terminal.say(plain_line(shown))
    return 0


def _shown(frame: Frame, newest: tuple[Newest, ...]) -> Frame:
    return replace(frame, newest=newest) if newest else frame
