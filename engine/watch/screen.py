"""Draws a frame: the balance, rate and latency against the objective, what the time goes into, partitions, the newest predictions.

What has no room is left out, the partitions first; no line is wider than the screen.
"""

import math
from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from penstock.engine.console.reasons import (
    FeatureShare,
    Phrase,
    against_style,
    strongest,
    toward_style,
)
from penstock.engine.console.terminal import printable
from penstock.engine.pages.documents.hints import breach_text, cause_text, evidence_text
from penstock.engine.watch.frame import Frame, Newest
from penstock.engine.watch.look import PartitionSeen
from penstock.engine.watch.words import reason_in_words

reasons_shown: Final = 3
_bar_cells: Final = 20
_narrow: Final = 70
_stage_marks: Final = {"decode": "d", "infer": "i", "explain": "x", "encode": "e", "idle": "."}
_stage_styles: Final = {
    "decode": "deep_sky_blue1", "infer": "green3", "explain": "dark_orange", "encode": "medium_purple1", "idle": "grey42",
}  # fmt: skip


def screen(
    frame: Frame, *, width: int, height: int, ascii_only: bool, phrase: Phrase | None = None
) -> list[Text]:
    """The lines, at most `height` of at most `width` cells."""
    lines = [_title(frame), *balance_lines(frame, width=width), rate_line(frame)]
    lines += _stage_lines(frame, ascii_only=ascii_only)
    lines += [Text(f"! {printable(hint)}", style="bold yellow") for hint in hint_lines(frame)]
    lines += [Text(f"! {printable(note)}", style="yellow") for note in frame.notes[:3]]
    if len(frame.notes) > 3:
        lines.append(Text(f"! and {len(frame.notes) - 3} more", style="yellow"))
    newest = newest_lines(frame.newest, ascii_only=ascii_only, width=width, phrase=phrase)
    room = height - len(lines)
    kept = newest[: max(room, 0)]
    room -= len(kept)
    if frame.partitions and width >= _narrow and room >= 3:
        lines += partition_lines(frame.partitions, most=room - 2)
    lines += kept
    return [fitted(line, width, ascii_only=ascii_only) for line in lines[:height]]


def plain_line(frame: Frame) -> str:
    """One line for a log, where nobody watches."""
    words = [
        f"in {_count(frame.read)} = predicted {frame.predicted:,} + rejected {frame.rejected:,} + in flight {frame.in_flight:,}"
    ]
    words[0] += "".join(
        f" + {name} {value:,}" for name, value in (("skipped", frame.skipped), ("read again", frame.dropped)) if value
    )  # fmt: skip
    if frame.missing:
        words.append(f"MISSING {frame.missing:,}")
    words.append(_rate(frame.rate_per_s))
    words.append(_latency(frame))
    if frame.stages:
        words.append(" ".join(f"{stage} {share:.0%}" for stage, share in frame.stages.items()))
    if frame.partitions:
        worst = frame.partitions[0]
        words.append(f"oldest {_age(worst.age_s)} in partition {worst.partition}")
    if frame.newest:
        first = frame.newest[0]
        kept, _ = strongest(first.reasons, 2)
        why = f" ({', '.join(map(reason_in_words, kept))})" if kept else ""
        words.append(f"{first.headline}{why}")
    words += [*hint_lines(frame), *frame.notes]
    return "  ".join(words)


def hint_lines(frame: Frame) -> list[str]:
    """When the objective will be breached, and the likeliest cause with what shows it and what to type next."""
    found = frame.hints
    lines = [] if found.breach is None else [breach_text(found.breach)["text"].rstrip(".")]
    if found.causes:
        first = found.causes[0]
        lines.append(f"{cause_text(first)['text']} ({evidence_text(first)['text']}): {first.command}")
    return lines


def balance_lines(frame: Frame, *, width: int) -> list[Text]:
    """Every record is somewhere: one line, or two where it is too narrow."""
    line, verdict = balance_line(frame), _verdict(frame)
    if cell_len(line.plain) + 3 + cell_len(verdict.plain) <= width:
        return [line + Text("   ") + verdict]
    return [line, verdict]


def balance_line(frame: Frame) -> Text:
    """Where the records are."""
    terms = [
        ("predicted", frame.predicted, "bold green3"),
        ("rejected", frame.rejected, "bold red3" if frame.rejected else "bold"),
    ]
    if frame.skipped:
        terms.append(("skipped", frame.skipped, "bold"))
    terms.append(("in flight", frame.in_flight, "bold"))
    if frame.dropped:
        terms.append(("read again", frame.dropped, "bold yellow3"))
    line = Text(f"in {_count(frame.read)} = ", style="bold")
    for place, (name, value, style) in enumerate(terms):
        line.append(f"{' + ' if place else ''}{name} ", style="none")
        line.append(f"{value:,}", style=style)
    return line


def _verdict(frame: Frame) -> Text:
    if frame.missing is None:
        return Text("how many came in is not told by this engine", style="yellow")
    if frame.missing:
        return Text(f"MISSING {frame.missing:,}: not every record is accounted for", style="bold red3")
    return Text("every record is accounted for", style="green3")


def partition_lines(partitions: Sequence[PartitionSeen], *, most: int) -> list[Text]:
    """The latest first, as many as have room."""
    lines = [Text(f"{'partition':>9}  {'behind':>12}  {'oldest':>10}  owner", style="grey62")]
    for each in partitions[:most]:
        late = not math.isnan(each.age_s) and each.age_s > 1
        records = "unknown" if math.isnan(each.records) else f"{each.records:,.0f}"
        lines.append(
            Text(
                f"{each.partition:>9}  {records:>12}  {_age(each.age_s):>10}  {printable(each.owner)}",
                style="yellow" if late else "none",
            )
        )
    if len(partitions) > most:
        lines.append(Text(f"  and {len(partitions) - most} more partitions, less late", style="grey62"))
    return lines


def newest_lines(
    newest: Sequence[Newest], *, ascii_only: bool, width: int, phrase: Phrase | None = None
) -> list[Text]:
    """Each prediction on a line of its own, its reasons below, raised or lowered in word, sign and shape."""
    lines: list[Text] = []
    for each in newest:
        lines.append(Text(printable(each.headline), style="bold"))
        lines += reason_lines(each.reasons, ascii_only=ascii_only, width=width, phrase=phrase)
    return lines


def reason_lines(
    reasons: Sequence[FeatureShare], *, ascii_only: bool, width: int, phrase: Phrase | None = None
) -> list[Text]:
    """The strongest few, a line each."""
    kept, _ = strongest(reasons, reasons_shown)
    known = [abs(reason.attribution) for reason in kept if not math.isnan(reason.attribution)]
    full = max(known, default=1.0)
    return [
        _reason_line(reason, full=full, ascii_only=ascii_only, width=width, phrase=phrase) for reason in kept
    ]


def _reason_line(
    reason: FeatureShare, *, full: float, ascii_only: bool, width: int, phrase: Phrase | None
) -> Text:
    raised = reason.attribution >= 0
    most = 4 if width < _narrow else 8
    known = not math.isnan(reason.attribution) and full > 0
    cells = max(1, round(most * abs(reason.attribution) / full)) if known else 0
    mark, arrow = (
        ("+" if raised else "-", "^" if raised else "v") if ascii_only else ("█", "▲" if raised else "▼")
    )
    style = toward_style if raised else against_style
    line = Text("  ")
    line.append(f"{mark * cells:<{most}} {arrow} ", style=style)
    line.append(f"{'raised' if raised else 'lowered'} {reason.attribution:+.2g}  ", style=style)
    if phrase is not None:
        line.append(printable(phrase(reason.feature, reason.value)))
    else:
        line.append(reason_in_words(reason).rpartition(" ")[0])
    return line  # fmt: skip


def _title(frame: Frame) -> Text:
    title = Text("penstock", style="bold")
    title.append(f"  {printable(frame.title)}", style="grey70")
    models = list(dict.fromkeys(worker.model for worker in frame.workers if worker.model))
    if frame.workers:
        title.append(f"  {len(frame.workers)} worker{'s' * (len(frame.workers) != 1)}", style="grey70")
    if models:
        title.append(f"  {printable(', '.join(models[:2]))}", style="grey70")
    return title


def rate_line(frame: Frame) -> Text:
    """How many records a second, and how long they take, against the objective where it is known."""
    late = frame.p99_s is not None and frame.objective_s is not None and frame.p99_s > frame.objective_s
    line = Text(f"{_rate(frame.rate_per_s)}   ", style="bold")
    line.append(_latency(frame), style="yellow" if late else "none")
    return line


def _latency(frame: Frame) -> str:
    words = f"p50 {_age(frame.p50_s)}  p99 {_age(frame.p99_s)}"
    if frame.objective_s is None:
        return words
    if frame.p99_s is None:
        return f"{words}  objective {_age(frame.objective_s)}"
    return f"{words}  {'over' if frame.p99_s > frame.objective_s else 'within'} the objective of {_age(frame.objective_s)}"


def _stage_lines(frame: Frame, *, ascii_only: bool) -> list[Text]:
    """What the workers' time goes into, as a bar and in numbers."""
    if not frame.stages:
        return []
    line = Text("time ")
    cells = _shared(list(frame.stages.values()), _bar_cells)
    for (stage, _), count in zip(frame.stages.items(), cells, strict=True):
        mark = _stage_marks[stage] if ascii_only or stage == "idle" else "█"
        line.append(mark * count, style=_stage_styles[stage])
    for stage, share in frame.stages.items():
        line.append(f"  {stage} ", style=_stage_styles[stage])
        line.append(f"{share:.0%}")
    return [line]


def _shared(shares: Sequence[float], cells: int) -> list[int]:
    """Whole cells for shares that add up to 1, the largest remainders rounded up."""
    exact = [max(share, 0.0) * cells for share in shares]
    counts = [int(each) for each in exact]
    order = sorted(range(len(exact)), key=lambda place: counts[place] - exact[place])
    for place in order[: max(cells - sum(counts), 0)]:
        counts[place] += 1
    return counts


def fitted(line: Text, width: int, *, ascii_only: bool) -> Text:
    """No wider than the screen, wide characters counted as two cells; what is cut ends in dots."""
    if ascii_only and not line.plain.isascii():
        plain = line.plain.encode("ascii", "backslashreplace").decode()
        line = Text(plain, style=line.style)
    if cell_len(line.plain) <= width:
        return line
    whole = line.copy()
    whole.truncate(max(width - 3, 0))
    whole.append("..." if width >= 3 else "")
    if cell_len(whole.plain) > width:
        return Text(set_cell_size(whole.plain, width))
    return whole


def _count(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _rate(value: float | None) -> str:
    return "rate ?" if value is None else f"{value:,.0f} records/s"


def _age(value: float | None) -> str:
    """A time as people say it."""
    if value is None:
        return "?"
    if math.isnan(value):
        return "unknown"
    if math.isinf(value):
        return "over 5 min"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    return f"{value:.1f} s" if value < 100 else f"{value / 60:,.0f} min"
