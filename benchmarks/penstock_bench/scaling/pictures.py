"""The comparison as SVG: what each law costs beside what it misses, and two hours of one load."""

from typing import Any, Final

import numpy as np

from penstock_bench.picture import svg, text, width

_top: Final = 40
_plot: Final = 240
_colours: Final = ("#afb8c1", "#bf8700", "#8250df", "#cf222e")


def front(found: dict[str, Any]) -> str:
    """Violation minutes over replica-minutes; every setting of every rival is a dot, its best one a larger one."""
    drawn = found["_"]
    points = [(drawn["ours"].total(), 0, "penstock", "#0969da")]
    points += [
        (rival.total(), best, rival.name, colour)
        for (rival, best), colour in zip(drawn["rivals"], _colours, strict=False)
    ]
    most_x = 2.5 * float(points[0][0][1, 0])
    most_y = max(float(np.percentile(total[0], 75)) for total, *_ in points) or 1.0
    parts = [
        text(8, 20, "Violation minutes (up) over replica-minutes (right), summed over the loads", "head")
    ]
    parts += [f'<line class="axis" x1="60" y1="{_top + _plot}" x2="{width - 170}" y2="{_top + _plot}"/>']
    parts += [
        text(60, _top + _plot + 18, "0", "small"),
        text(width - 230, _top + _plot + 18, f"{most_x:,.0f}", "small"),
    ]
    parts += [text(8, _top + 12, f"{most_y:,.0f}", "small")]
    for line, (total, best, name, colour) in enumerate(points):
        for k in range(total.shape[1]):
            x = 60 + min(float(total[1, k]) / most_x, 1.0) * (width - 230)
            y = _top + _plot - min(float(total[0, k]) / most_y, 1.0) * _plot
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{7 if k == best else 3}" fill="{colour}"/>')
        parts.append(f'<circle cx="{width - 150}" cy="{_top + 22 * line}" r="5" fill="{colour}"/>')
        parts.append(text(width - 138, _top + 22 * line + 4, name, "small"))
    return svg(
        parts, height=_top + _plot + 40, label="Violation minutes over replica-minutes of each scaling law"
    )


def timeline(found: dict[str, Any], place: int = 0) -> str:
    """Replicas of each law over one load, and where a record was older than the objective."""
    drawn = found["_"]
    load = drawn["loads"][place]
    rows = [("penstock", drawn["ours"].outcomes[place], 0, "#0969da")]
    rows += [
        (rival.name, rival.outcomes[place], best, colour)
        for (rival, best), colour in zip(drawn["rivals"], _colours, strict=False)
    ]
    parts = [
        text(
            8,
            20,
            f"Load {load.name!r}, seed {load.seed}: replicas over two hours; red below: a record older than the objective",
            "head",
        )
    ]
    for line, (name, outcome, k, colour) in enumerate(rows):
        base = _top + 80 * (line + 1)
        replicas, late = outcome.replicas[k][::6], outcome.ages[k][::6] > 30
        step = (width - 160) / len(replicas)
        path = " ".join(f"{150 + i * step:.1f},{base - r:.1f}" for i, r in enumerate(replicas.tolist()))
        parts += [
            text(8, base - 20, name),
            text(8, base - 4, f"{int(outcome.changes[k])} rebalances", "small"),
        ]
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        for i in np.flatnonzero(late).tolist():
            parts.append(
                f'<rect x="{150 + i * step:.1f}" y="{base + 3}" width="{step:.1f}" height="4" fill="#cf222e"/>'
            )
    return svg(parts, height=_top + 80 * len(rows) + 20, label="Replicas over time under each scaling law")
