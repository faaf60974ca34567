"""The replay as a table and as curves: what was measured over what the simulation says of the same load."""

from collections.abc import Sequence
from typing import Any, Final

from penstock_bench.picture import svg, text, width

_left: Final = 60
_right: Final = 20
_plot: Final = 130
_tops: Final = (70, 260)


def table(found: dict[str, Any]) -> str:
    """docs/figures/replay.md."""
    script, startup, audit, curves = found["script"], found["startup_s"], found["audit"], found["curves"]
    lines = [
        "# A replay with real workers", "",
        f"Made by `penstock bench replay{' --short' if found['short'] else ''} --figures docs/figures`. The scaler, the workers and Kafka are the real ones; KEDA, the autoscaler and",
        "the kubelet are stand-ins: they ask over gRPC, reckon as Kubernetes does, and start and stop processes whose names return. Each",
        f"worker is held to a part of a core ({found['limited']}) and then does {found['capacity_records_per_s']:.1f} records a second; the calm load is 0.4 of one worker, the step ten times that.",
        f"Autoscaler every {script['sync_s']:g} s, cool-down {script['cooldown_s']:g} s, objective 30 s, seed {found['seed']}.", "",
        "| part | records | p50 age | p99 age | oldest | replicas, at most |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, part in found["parts"].items():
        lines.append(
            f"| {name} | {part['records']:,} | {part['p50_age_s']:.1f} s | {part['p99_age_s']:.1f} s | {part['max_age_s']:.1f} s | {part['replicas_max']} |"
        )
    lines += [
        "",
        f"A start takes {startup['median']:.1f} s, {startup['max']:.1f} s at most; a drain {found['drain_s_max']:.1f} s at most; from the first record after "
        f"zero to the worker that is asked for {found['wake_s']:.2f} s.",
        f"{audit['records']:,} records: {audit['lost']} lost, {audit['doubled']} doubled, {len(audit['wrong'])} wrong, {audit['letters']} set aside; by "
        + ", ".join(f"version {version} {count:,}" for version, count in sorted(audit["versions"].items()))
        + ".",
        f"The scaler's capacity of a worker before the step: {found['capacity_reported']['records_per_s']:.1f} records a second, {'measured' if found['capacity_reported']['measured'] else 'estimated'}; "
        f"{found['capacity_reported']['records_per_s'] / found['capacity_records_per_s']:.2f} of what one did.",
        f"The simulation says {curves['simulated_max_age_s']:.0f} s for the oldest record of calm and step, and {max(curves['simulated_replicas'])} replicas at most.",
        "",
        "| must be | is |",
        "|---|---|",
        *(f"| {bar} | {'yes' if met else '**no**'} |" for bar, met in found["bars"].items()),
        "",
        "![replicas and the oldest record over time](replay.svg)",
    ]
    return "\n".join(lines) + "\n"


def picture(found: dict[str, Any]) -> str:
    """Replicas above, the oldest unfinished record below; blue measured, grey simulated."""
    curves = found["curves"]
    at_s = curves["at_s"]
    end_s = max(at_s)
    looks_s = [5.0 * place for place in range(len(curves["simulated_replicas"]))]
    parts = [text(8, 20, "Real workers under a real load: measured (blue) over simulated (grey)", "head")]
    for name, begin_s in curves["marks"].items():
        x = _left + begin_s / end_s * (width - _left - _right)
        parts += [
            f'<line class="axis" x1="{x:.1f}" y1="40" x2="{x:.1f}" y2="{_tops[1] + _plot}"/>',
            text(x + 4, 48 if name != "end" else 60, name, "small"),
        ]
    panels = (
        ("replicas", [("simulated_replicas", looks_s, "other"), ("asked", at_s, "ours")]),
        ("oldest record, s", [("simulated_oldest_s", looks_s, "other"), ("oldest_s", at_s, "ours")]),
    )
    for top, (name, rows) in zip(_tops, panels, strict=True):
        most = max(max(curves[key], default=0.0) for key, _, _ in rows) or 1.0
        parts += [
            text(8, top + 4, f"{most:.0f}", "small"),
            text(8, top + _plot, "0", "small"),
            text(_left, top - 6, name, "small"),
            f'<line class="axis" x1="{_left}" y1="{top + _plot}" x2="{width - _right}" y2="{top + _plot}"/>',
        ]
        parts += [_line(curves[key], its_s, end_s, most, top, kind) for key, its_s, kind in rows]
    parts.append(text(width - 100, _tops[1] + _plot + 18, f"{end_s:.0f} s", "small"))
    return svg(
        parts, height=_tops[1] + _plot + 30, label="Replicas and the oldest unfinished record over the replay"
    )


def _line(
    values: Sequence[float], at_s: Sequence[float], end_s: float, most: float, top: int, kind: str
) -> str:
    points = " ".join(
        f"{_left + second / end_s * (width - _left - _right):.1f},{top + _plot - value / most * _plot:.1f}"
        for second, value in zip(at_s, values, strict=True)
    )
    return f'<polyline class="{kind}" points="{points}" style="fill:none;stroke:{"#0969da" if kind == "ours" else "#8c959f"};stroke-width:1.5"/>'
