"""Every metric there is, for docs/metrics.md and for checks on dashboards."""

from typing import Any

from penstock.engine.telemetry.metric_declarations import Declared, bound_text
from penstock.engine.telemetry.metrics import Metrics
from penstock.engine.telemetry.scaler_metrics import ScalerMetrics
from penstock.engine.telemetry.supervisor_metrics import SupervisorMetrics

series_max = 1_500
"""Of two workers of a supervisor with 64 partitions and 30 features."""


def all_declared() -> dict[str, tuple[Declared[Any], ...]]:
    """Every metric by the process that serves it, for the documentation and for checks on dashboards."""
    return {
        "Worker": Metrics.declared(),
        "Supervisor": SupervisorMetrics.declared(),
        "Scaler": ScalerMetrics.declared(),
    }


def reference() -> str:
    """docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "Generated from `engine/telemetry/metrics.py` and `scaler_metrics.py` beside it by `make docs`; a test keeps it up to date.",
        "",
        "With several workers, the supervisor's one port serves all of them, each with a label `worker`. Workers and the",
        "scaler also export the `process_*` family (resident memory, CPU seconds, open files).",
    ]
    for process, declared in all_declared().items():
        lines += ["", f"## {process}", "", "| metric | kind | labels | meaning |", "|---|---|---|---|"]
        lines += [f"| `{one.name}` | {one.kind_name} | {_labels(one)} | {one.help} |" for one in declared]
    lines += [
        "",
        "## Forms, examples, cost",
        "",
        "`/metrics` answers in Prometheus' text form, and in the OpenMetrics form where the `Accept` header asks for `application/openmetrics-text`. There, buckets of",
        "`penstock_end_to_end_seconds` past the objective carry an exemplar: partition and offset of the oldest record that was acknowledged last.",
        f"Two workers with 64 partitions and a model of 30 features make at most {series_max:,} series, held by a test; features past the first 200 count together.",
    ]
    lines += ["", "## Buckets", "", "| histogram | upper bounds |", "|---|---|"]
    for declared in all_declared().values():
        lines += [
            f"| `{one.name}` | {', '.join(map(bound_text, one.buckets))} |" for one in declared if one.buckets
        ]
    lines += [
        "",
        "`penstock_end_to_end_seconds` has `objective.latency_slo_ms`, its half and its double among its bounds besides.",
    ]
    return "\n".join(lines) + "\n"


def _labels(declared: Declared[Any]) -> str:
    return "; ".join(
        f"`{label}`" + (f": {', '.join(values)}" if values else "")
        for label, values in declared.labels.items()
    )
