"""The page `/model`: what the model is, and what it says for which reasons lately."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from penstock.engine.pages.sentences import sentence
from penstock.engine.pages.told_texts import as_told

features_told_max: Final = 50
features_followed_max: Final = 100
"""Of the list of features, sent to who follows the page; all of them stand in /api/v1/model."""
steady_share: Final = 0.05
"""A change of less is none, as on the page."""
records_compared_min: Final = 30
"""Fewer records are not held against the background in words."""


def model_document(
    at_ms: int,
    described: Mapping[str, Any] | None,
    reasons: Sequence[Mapping[str, Any]],
    digests: Sequence[str],
    background: Mapping[str, Any],
) -> dict[str, Any]:
    """The schema's `model`. `described`: what a worker says of its model; `reasons`: what each worker counted;
    `background`: the same of the rows that the bundle was packaged with, as far as a worker has said."""
    if described is None:
        return {
            "page": "model", "at_ms": at_ms, "known": False, "summary": [sentence("model.unknown")], "model": None,
            "features": [], "features_total": 0, "outputs": [], "classes": [], "trees": None, "graph": None, "warmup": [],
            "importance": {"space": None, "records": 0, "span_s": None, "records_before": 0, "background": "none", "background_rows": 0, "features": [], "others": 0},
            "scores": None,
        }  # fmt: skip
    importance = _importance(described["columns"], reasons, background)
    summary = [sentence("model.serves", name=described["model"]["name"], version=described["model"]["version"],
                        features=described["features_total"], runtime=described["model"]["runtime"],
                        device=described["model"]["device"])]  # fmt: skip
    if described["trees"]:
        summary.append(sentence("model.trees", **described["trees"]))
    if described["graph"]:
        summary.append(sentence("model.graph", **described["graph"]))
    if len(set(digests)) > 1:
        summary.append(sentence("model.several", digests=", ".join(sorted({each[:12] for each in digests}))))
    if importance["features"]:
        first = importance["features"][0]
        summary.append(
            sentence(
                "model.strongest",
                feature=first["feature"],
                strength=first["strength"],
                records=importance["records"],
            )
        )
        summary += _against_background(importance)
    else:
        summary.append(sentence("model.no_reasons"))
    rest = {name: value for name, value in described.items() if name not in ("columns", "complete")}
    rest["model"] = {**described["model"], "runtime_said": as_told(described["model"]["runtime_reason"])}
    return {
        "page": "model",
        "at_ms": at_ms,
        "known": True,
        "summary": summary,
        **rest,
        "importance": importance,
        "scores": _scores(described, reasons),
    }


def first_features(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The document as a page is sent it first: of thousands of features some, and their number."""
    return {**document, "features": document["features"][:features_followed_max]}


def _against_background(importance: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Which feature is further from its strength over the background than any other, or that none is far."""
    if importance["records"] < records_compared_min:
        return []
    known = [each for each in importance["features"] if each["background"] is not None]
    if not known:
        return []
    most = max(known, key=lambda each: abs(each["strength"] - each["background"]))
    if abs(most["strength"] - most["background"]) <= steady_share * max(most["strength"], most["background"]):
        return [sentence("model.as_over_background")]
    more = most["strength"] >= most["background"]
    return [
        sentence(
            "model.stronger_than_background" if more else "model.weaker_than_background",
            feature=most["feature"],
            strength=most["strength"],
            background=most["background"],
        )
    ]


def _importance(
    columns: Sequence[str], reasons: Sequence[Mapping[str, Any]], background: Mapping[str, Any]
) -> dict[str, Any]:
    now, before = _added(reasons, "lately"), _added(reasons, "before")
    rows, rows_before = (sum(each[when]["rows"] for each in reasons) for when in ("lately", "before"))
    packaged, packaged_rows = background.get("sums", []), background.get("rows", 0)
    order = sorted(range(len(now)), key=lambda at: -now[at])
    spans = [each["lately"]["span_s"] for each in reasons if each["lately"]["span_s"] is not None]
    return {
        "space": next((each["space"] for each in reasons if each["space"]), None),
        "records": rows,
        "span_s": max(spans, default=None),
        "records_before": rows_before,
        "background": background.get("state", "working"),
        "background_rows": packaged_rows,
        "features": [
            {
                "column": at,
                "feature": columns[at],
                "strength": now[at] / rows,
                "before": before[at] / rows_before if rows_before and at < len(before) else None,
                "background": packaged[at] / packaged_rows if at < len(packaged) else None,
            }
            for at in order[:features_told_max]
        ]
        if rows
        else [],
        "others": max(len(order) - features_told_max, 0) if rows else 0,
    }


def _added(reasons: Sequence[Mapping[str, Any]], when: str) -> list[float]:
    columns = [each[when]["sums"] for each in reasons if each[when]["sums"]]
    width = min((len(each) for each in columns), default=0)
    return [sum(each[at] for each in columns) for at in range(width)]


def _scores(described: Mapping[str, Any], reasons: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Of the worker that counted most: steps of different reach do not add up."""
    known = [each["scores"] for each in reasons if each["scores"]]
    if not known or not described["outputs"]:
        return None
    most = max(known, key=lambda each: sum(each["counts"]))
    return {"output": described["outputs"][0]["output"], **most, "records": sum(most["counts"])}
