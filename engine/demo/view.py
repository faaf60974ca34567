"""What the demo shows: counts, rate, latency and lag, and the newest predictions with their reasons."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from penstock.engine.console.reasons import FeatureShare, in_words, strongest
from penstock.engine.demo.audit import Account, Quality
from penstock.engine.demo.flights import phrase
from penstock.engine.watch.frame import Frame
from penstock.engine.watch.screen import balance_line, fitted, rate_line, reason_lines


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """One prediction as it is shown."""

    flight: str
    route: str
    due: str
    probability: float
    reasons: tuple[FeatureShare, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Numbers:
    """The counters of one moment."""

    produced: int
    predicted: int
    explained: int
    rejected: int
    rate_per_s: float
    p50_ms: float
    """Of the last ten seconds, like p99_ms."""
    p99_ms: float
    elapsed_s: float
    total_s: float | None
    simulated: str  # the date that the stream has come to


def gauge_of(probability: float, cells: int = 20) -> Text:
    """A bar for a probability, calm to alarming."""
    style = "green3" if probability < 0.3 else "yellow3" if probability < 0.6 else "red3"
    filled = round(probability * cells)
    text = Text("━" * filled, style=f"bold {style}")
    text.append("─" * (cells - filled), style="grey27")  # another glyph: without colours it must still tell
    text.append(f" {probability:4.0%}", style=f"bold {style}")
    return text


def screen(numbers: Numbers, newest: Sequence[Shown], quality: Quality | None) -> RenderableType:
    """The whole live view, drawn as `penstock top` draws a running engine."""
    return _Screen(numbers, newest, quality)


class _Screen:
    def __init__(self, numbers: Numbers, newest: Sequence[Shown], quality: Quality | None) -> None:
        self._numbers, self._newest, self._quality = numbers, newest, quality

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The lines, none wider than the screen."""
        width, ascii_only = options.max_width, options.ascii_only
        numbers = self._numbers
        title = Text("penstock", style="bold")
        title.append("  will the flight arrive more than 15 minutes late?", style="grey70")
        clock = f"{numbers.simulated}   {numbers.elapsed_s:.0f} s" + (
            f" of {numbers.total_s:.0f} s" if numbers.total_s else ""
        )
        frame = frame_of(numbers)
        lines = [title, Text(clock, style="grey70"), balance_line(frame)]
        lines.append(rate_line(frame) + Text(f"   explained {numbers.explained:,}", style="dark_orange"))
        for shown in self._newest:
            headline = Text(f"{shown.flight:<7}", style="bold")
            headline.append(f" {shown.route}  due {shown.due}   late? ", style="grey70")
            headline.append_text(gauge_of(shown.probability))
            lines += [Text(), headline]
            lines += reason_lines(shown.reasons, ascii_only=ascii_only, width=width, phrase=phrase)
        yield Text("\n").join(fitted(line, width, ascii_only=ascii_only) for line in lines)
        if self._quality is not None:
            yield Text()
            yield _quality_line(self._quality)


def frame_of(numbers: Numbers) -> Frame:
    """The demo's own books as a frame: what is neither predicted nor set aside is on its way."""
    return Frame(
        title="demo",
        read=numbers.produced,
        predicted=numbers.predicted,
        rejected=numbers.rejected,
        in_flight=max(numbers.produced - numbers.predicted - numbers.rejected, 0),
        rate_per_s=numbers.rate_per_s,
        p50_s=numbers.p50_ms / 1000,
        p99_s=numbers.p99_ms / 1000,
    )


def plain_line(numbers: Numbers, newest: Sequence[Shown]) -> str:
    """One line for a log, where nobody watches."""
    line = (
        f"{numbers.elapsed_s:4.0f} s  {numbers.simulated}  in {numbers.produced:,}  predicted {numbers.predicted:,}  "
        f"explained {numbers.explained:,}  {numbers.rate_per_s:,.0f}/s  p50 {numbers.p50_ms:.0f} ms  p99 {numbers.p99_ms:.0f} ms"
    )
    if newest:
        shown = newest[0]
        kept, _ = strongest(shown.reasons, 2)
        why = ", ".join(in_words(reason, phrase) for reason in kept)
        line += f"  |  {shown.flight} {shown.route}: {shown.probability:.0%} late ({why})"
    return line


def busy_sentence(load: float, cores: int) -> str | None:
    """What to say of other programs: `load` is the machine's average over the last minute, before the demo began."""
    if load < cores / 2:
        return None
    return f"other programs keep this machine busy (load {load:.1f} on {cores} cores): the latencies below are theirs as well"


def summary(
    account: Account,
    quality: Quality | None,
    *,
    p50_ms: float,
    p99_ms: float,
    committed_ms: tuple[float, float] | None,
    start_up_ms: tuple[float, ...],
    start_up_s: float,
    first_s: float,
    rate_per_s: float,
    guarantee: str,
    boxed: bool,
) -> RenderableType:
    """What the demo ends with, in a box where a person watches. `committed_ms`: p50 and p99 from the record's timestamp to the commit of its results, by the
    worker's own histogram, of the steady part; `start_up_ms`: p50 and p99 of the first `start_up_s` seconds; `first_s`: from the first warm-up record to its result."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="grey70")
    table.add_column(justify="right", style="bold")
    table.add_column(style="grey62")
    good, bad = "bold green3", "bold red3"
    rows = [
        ("records in", f"{account.records:,}", "", "bold"),
        ("predicted", f"{account.predicted:,}", "", "bold"),
        ("explained", f"{account.explained:,}", "with all their features", "bold"),
        ("rejected", f"{account.rejected:,}", "to the dead letters", "bold"),
        ("lost", f"{account.lost:,}", guarantee, good if account.lost == 0 else bad),
        ("duplicated", f"{account.duplicated:,}", "", good if account.duplicated == 0 else bad),
        ("throughput", f"{rate_per_s:,.0f}/s", "as offered by the producer", "bold"),
        (
            "latency p50 / p99",
            f"{p50_ms:.0f} / {p99_ms:.0f} ms",
            f"after the first {start_up_s:.0f} s: record's timestamp to read from the output topic",
            "bold",
        ),
        *(
            [
                (
                    "of it, to the commit",
                    f"{committed_ms[0]:.0f} / {committed_ms[1]:.0f} ms",
                    "by the worker's histogram; the rest is this program, which reads and decodes",
                    "bold",
                )
            ]
            if committed_ms is not None
            else []
        ),
        (
            f"in the first {start_up_s:.0f} s",
            f"{start_up_ms[0]:.0f} / {start_up_ms[1]:.0f} ms",
            "while everything has just started, told apart",
            "bold",
        ),
        (
            "first result",
            f"{first_s:.1f} s",
            "after the first record",
            "bold",
        ),
    ]
    for name, value, note, style in rows:
        table.add_row(name, Text(value, style=style), note)
    parts: list[RenderableType] = [table]
    if quality is not None:
        parts.append(_quality_line(quality))
    title = "every departure accounted for" if account.balanced else "not every departure is accounted for"
    return Panel(Group(*parts), title=title) if boxed else Group(Text(title), *parts)


def _quality_line(quality: Quality) -> Text:
    return Text(
        f"so far right: {quality.precision:.0%} of the {quality.flagged:,} flights flagged were late; "
        f"{quality.recall:.0%} of the late ones were flagged; AUC {quality.auc:.3f} over {quality.known:,} arrivals",
        style="grey70",
    )
