"""The files that `penstock rules` writes: rules for Prometheus, dashboards for Grafana."""

import json
from collections.abc import Mapping
from typing import Any, Final

import yaml

from penstock.engine.rules.alert import Terms
from penstock.engine.rules.alerts import alerts
from penstock.engine.rules.burn_rate import recording_rules
from penstock.engine.rules.dashboards import dashboards
from penstock.engine.rules.selectors import matchers, narrowed

rules_file: Final = "penstock-rules.yaml"
_first_lines: Final = (
    "# Written by `penstock rules`: change the settings, not this file.\n"
    "# critical means someone must act now, warning means look today, info is worth knowing. What to do stands in docs/runbook.md.\n"
    "# Pipelines are told apart by the labels namespace, release and group of the scrape; without them everything is one pipeline.\n"
)


def rules(terms: Terms, *, select: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The groups of a rules file. `select`: labels that every series has to carry, to keep pipelines of one Prometheus apart."""
    recorded = recording_rules(terms)
    alerting = [alert.as_rule(terms) for alert in alerts(terms)]
    for rule in (*recorded, *alerting):
        rule["expr"] = narrowed(rule["expr"], matchers(select or {}))
    return {
        "groups": [{"name": "penstock-objective", "rules": recorded}, {"name": "penstock", "rules": alerting}]
    }


def rules_text(terms: Terms, *, select: Mapping[str, str] | None = None) -> str:
    """The rules file."""
    return _first_lines + yaml.safe_dump(rules(terms, select=select), sort_keys=False, width=10_000)


def files(terms: Terms, *, select: Mapping[str, str] | None = None) -> dict[str, str]:
    """File name to text: the rules, and the dashboards beside them."""
    return {rules_file: rules_text(terms, select=select), **dashboard_files(terms)}


def dashboard_files(terms: Terms) -> dict[str, str]:
    """File name to text, of the dashboards alone."""
    return {
        f"{each['uid']}.json": json.dumps(each, indent=1, ensure_ascii=False) + "\n"
        for each in dashboards(terms)
    }
