"""A dashboard from rows of panels: placed by their order, every query narrowed to what the reader chose."""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from penstock.engine.rules.selectors import narrowed

schema_version: Final = 39
_columns: Final = 24
_source: Final = {"type": "prometheus", "uid": "${source}"}
_chosen: Final = 'namespace=~"$namespace", release=~"$release", group=~"$group"'


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One picture."""

    title: str
    about: str
    queries: Mapping[str, str]
    """Legend to PromQL."""
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 6
    height: int = 8

    def as_stat(self, *, width: int) -> "Panel":
        """The same as one number."""
        return replace(self, kind="stat", width=width, height=4)

    def as_dict(self, number: int, *, x: int, y: int) -> dict[str, Any]:
        """As Grafana reads it."""
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.about,
            "datasource": _source,
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "fieldConfig": {"defaults": {"unit": self.unit, "min": 0}, "overrides": []},
            "targets": [
                {
                    "refId": letter,
                    "datasource": _source,
                    "expr": narrowed(expression, _chosen),
                    "legendFormat": legend,
                }
                for letter, (legend, expression) in zip(
                    string.ascii_uppercase, self.queries.items(), strict=False
                )
            ],
            **({"options": {"reduceOptions": {"calcs": ["lastNotNull"]}}} if self.kind == "stat" else {}),
        }


def dashboard(
    *, uid: str, title: str, rows: Mapping[str, Sequence[Panel]], span: str = "now-30m"
) -> dict[str, Any]:
    """Title of a row to its panels, from left to right and on the next line where they have no room; `span`: the time shown at first."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row, members in rows.items():
        panels.append({
            "id": len(panels) + 1, "type": "row", "title": row, "gridPos": {"h": 1, "w": _columns, "x": 0, "y": y},
            "collapsed": False, "panels": [],
        })  # fmt: skip
        y += 1
        x = height = 0
        for panel in members:
            if x + panel.width > _columns:
                y, x, height = y + height, 0, 0
            panels.append(panel.as_dict(len(panels) + 1, x=x, y=y))
            x, height = x + panel.width, max(height, panel.height)
        y += height
    return {
        "uid": uid,
        "title": title,
        "tags": ["penstock"],
        "timezone": "browser",
        "schemaVersion": schema_version,
        "version": 1,
        "refresh": "10s",
        "time": {"from": span, "to": "now"},
        "templating": {"list": [_datasource(), _choice("namespace", ""), _choice("release", '{namespace=~"$namespace"}'),
            _choice("group", '{namespace=~"$namespace", release=~"$release"}'),
        ]},
        "panels": panels,
    }  # fmt: skip


def _datasource() -> dict[str, Any]:
    return {
        "name": "source", "type": "datasource", "query": "prometheus", "label": "Data source",
        "current": {"text": "Prometheus", "value": "prometheus"},
    }  # fmt: skip


def _choice(label: str, selector: str) -> dict[str, Any]:
    query = f"label_values(penstock_build_info{selector}, {label})"
    return {
        "name": label, "label": label.capitalize(), "type": "query", "datasource": _source, "query": query, "definition": query,
        "refresh": 2, "sort": 1, "multi": True, "includeAll": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"},
    }  # fmt: skip
