"""What an alert is, and the numbers of a pipeline that alerts compare with."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from penstock.engine.settings.model import Settings

by: Final = "namespace, release, group"
"""The labels that tell pipelines apart; the scrape sets them, and without them everything is one pipeline."""
settled: Final = 'outcome=~"predicted|rejected|skipped"'
"""Every record has exactly one of these outcomes."""
runbook_file: Final = "docs/runbook.md"


class Severity(StrEnum):
    """The three grades, under the names that Alertmanager's routes commonly ask for."""

    PAGE = "critical"  # someone must act now
    TICKET = "warning"  # look at it today
    WATCH = "info"  # worth knowing with the next look


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """What a pipeline promises. Texts, so that a chart can leave places for its values."""

    max_age_s: str
    age_target: str
    complete_target: str
    runbook: str
    pages: str = ""
    """Where the pages of the engine are reached, without a slash at its end; "" where nobody has said."""
    scaler: bool = True  # whether a scaler is scraped

    @classmethod
    def of(cls, settings: Settings, *, scaler: bool = True) -> "Terms":
        """Those of these settings."""
        return cls(
            max_age_s=f"{settings.scaling.max_age_s:.15g}",
            age_target=f"{settings.alerts.age_target:.15g}",
            complete_target=f"{settings.alerts.complete_target:.15g}",
            runbook=settings.alerts.runbook_url or runbook_file,
            pages=settings.alerts.pages_url,
            scaler=scaler,
        )

    @property
    def lag_seconds(self) -> str:
        """The age per partition: the scaler's, which knows it without workers too, or the workers' own."""
        return "penstock_group_lag_seconds" if self.scaler else "penstock_lag_seconds"

    @property
    def lag_records(self) -> str:
        """The records per partition, likewise."""
        return "penstock_group_lag_records" if self.scaler else "penstock_lag_records"


@dataclass(frozen=True, kw_only=True, slots=True)
class Alert:
    """One alert: when, how bad, why, and what to type."""

    name: str
    severity: Severity
    expr: str
    held: str = ""  # for how long it has to be so
    summary: str
    cause: str
    command: str
    hinted: bool = False
    """Whether the engine's own hints name the likeliest cause of it, with its evidence."""

    def as_rule(self, terms: Terms) -> dict[str, Any]:
        """As Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.expr,
            **({"for": self.held} if self.held else {}),
            "labels": {"severity": str(self.severity)},
            "annotations": {
                "summary": self.summary,
                "description": self.cause,
                "command": self.command,
                **({"hints": f"{terms.pages}/api/v1/hints"} if self.hinted else {}),
                "runbook_url": f"{terms.runbook}#{self.name.lower()}",
            },
        }


def total(metric: str, window: str, *, labels: str = by, function: str = "rate") -> str:
    """The sum over a pipeline of how much a counter grew."""
    return f"sum by ({labels}) ({function}({metric}[{window}]))"
