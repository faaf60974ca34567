"""What a trial found: a record scored again, or with one value changed, beside what was said before."""

from collections.abc import Mapping
from typing import Any, Final

from penstock.engine.pages.sentences import sentence

shown_of: Final = ("outcome", "label", "outputs", "explanation", "rejection", "features")
"""Of the schema's form `record`, what a side of a trial has."""


def trial_document(
    at_ms: int,
    answer: Mapping[str, Any],
    *,
    bundle: str,
    bundles: tuple[str, ...],
    streamed: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The schema's `trial`. `answer`: as the process that tried it gave it; `streamed`: what the stream said of the record, where
    that is still held."""
    before, after = answer.get("before"), answer.get("after")
    changed = answer.get("changed")
    if changed is None and before is not None:  # tried again as it is: the stream's own beside it
        before, after = streamed, before
    before, after = _side(before), _side(after)
    document = {
        "page": "trial",
        "at_ms": at_ms,
        "state": answer["state"],
        "bundle": bundle,
        "bundles": list(bundles),
        "model": answer.get("model"),
        "took_ms": answer.get("took_ms"),
        "changed": None,
        "before": before,
        "after": after,
        "outputs": [],
        "reasons": [],
        "choices": answer.get("choices", []),
    }
    if answer["fault"] is not None:
        return document | {"summary": [answer["fault"]]}
    if changed is not None and before is not None:
        known = next((each for each in before["features"][changed["column"] : changed["column"] + 1]), None)
        document["changed"] = {
            "column": changed["column"],
            "feature": changed["feature"],
            "before": None if known is None else known["value"],
            "after": changed["value"],
        }
    if before is not None and after is not None:
        document["outputs"] = _outputs(before, after)
        document["reasons"] = _reasons(before, after)
    return document | {"summary": _summary(document)}


def _side(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if not found else {name: found[name] for name in shown_of}


def _outputs(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every number that both sides have, by output and name."""
    then = _numbers(before)
    return [
        {
            "output": output,
            "name": name,
            "before": then[output, name],
            "after": value,
            "difference": value - then[output, name],
        }
        for (output, name), value in _numbers(after).items()
        if (output, name) in then
    ]


def _numbers(side: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    return {
        (each["output"], name): value
        for each in side["outputs"]
        for name, value in zip(each["names"], each["values"], strict=True)
    }


def _reasons(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Attributions of both sides where they explain the same number, in the order of how much they changed."""
    old, new = before["explanation"], after["explanation"]
    if old is None or new is None or (old["output"], old["space"]) != (new["output"], new["space"]):
        return []
    then = {each["feature"]: each["attribution"] for each in old["attributions"]}
    found = [
        {
            "feature": each["feature"],
            "masked": each["masked"],
            "before": then[each["feature"]],
            "after": each["attribution"],
            "difference": each["attribution"] - then[each["feature"]],
        }
        for each in new["attributions"]
        if then.get(each["feature"]) is not None and each["attribution"] is not None
    ]
    return sorted(found, key=lambda each: -abs(each["difference"]))


def _summary(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    before, after, changed = document["before"], document["after"], document["changed"]
    if after is None:
        return [sentence("trial.skipped")]
    if after["rejection"] is not None:
        rejection = after["rejection"]
        return [
            sentence(
                "trial.rejected",
                stage=rejection["stage"],
                rejection=rejection["reason"],
                detail=rejection["detail"],
            )
        ]
    if before is None:
        return [
            sentence(
                "trial.nothing_held", name=document["model"]["name"], version=document["model"]["version"]
            )
        ]
    if before["rejection"] is not None:
        return [sentence("trial.was_rejected", rejection=before["rejection"]["reason"])]
    return _difference(document, changed)


def _difference(document: Mapping[str, Any], changed: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    before, after, outputs = document["before"], document["after"], document["outputs"]
    moved = [each for each in outputs if each["difference"]]
    if not outputs:
        return [sentence("trial.other_outputs")]
    if not moved:
        return [sentence("trial.same" if changed is None else "trial.no_difference")]
    most = max(moved, key=lambda each: (each["name"] == before["label"], abs(each["difference"])))
    values = {
        "output": most["name"], "before": most["before"], "after": most["after"], "difference": abs(most["difference"]),
    }  # fmt: skip
    rises = "raises" if most["difference"] > 0 else "lowers"
    if changed is None:
        found = [sentence("trial.differs", **values)]
    else:
        found = [
            sentence(
                f"trial.{rises}",
                feature=changed["feature"],
                old=changed["before"],
                new=changed["after"],
                **values,
            )
        ]
    if before["label"] != after["label"]:
        found.append(sentence("trial.label", before=before["label"], after=after["label"]))
    if document["reasons"] and document["reasons"][0]["difference"]:
        first = document["reasons"][0]
        found.append(
            sentence("trial.reason", feature=first["feature"], before=first["before"], after=first["after"])
        )
    return found
