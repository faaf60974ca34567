"""When the objective will be breached, and why, in sentences: `/api/v1/hints`, a part of the page `/`, and `penstock top`."""

import math
from collections.abc import Sequence
from typing import Any, Final

from penstock.engine.hints.causes import Hint, Hints, RuledOut, compared_after_s
from penstock.engine.hints.forecast import Breach
from penstock.engine.pages.sentences import sentence
from penstock.engine.pages.watch import Picture

_in_minutes_from_s: Final = 120.0


def hints_document(picture: Picture) -> dict[str, Any]:
    """The schema's `hints`, of the workers of this supervisor."""
    return {
        "page": "hints",
        "at_ms": picture.at_ms,
        "max_age_s": picture.facts.max_age_s,
        **hints_shown(picture),
    }


def hints_shown(picture: Picture) -> dict[str, Any]:
    """The schema's `found_hints`, of a supervisor's picture."""
    told = picture.told
    silent = [slot for slot in picture.workers if slot not in told]
    return hints_told(picture.hints, workers=bool(told), silent=silent)


def hints_told(found: Hints, *, workers: bool, silent: Sequence[str] = ()) -> dict[str, Any]:
    """The schema's `found_hints`; `workers`: whether any answers. What was found of those that are gone is not told."""
    found = found if workers else Hints()
    summary = [_summary(found, workers=workers)]
    if workers and silent:
        summary.append(sentence("hints.silent", workers=", ".join(silent)))
    return {
        "summary": summary,
        "breach": None if found.breach is None else {"from_s": found.breach.from_s, "to_s": found.breach.to_s},
        "causes": [
            {
                "cause": str(each.cause),
                "score": round(each.score, 3),
                "text": cause_text(each),
                "evidence": evidence_text(each),
                "command": each.command,
            }
            for each in found.causes
        ],
        "ruled_out": [{"cause": str(each.cause), "text": _ruled_out(each)} for each in found.ruled_out],
    }  # fmt: skip


def breach_text(breach: Breach) -> dict[str, Any]:
    """When the oldest record will be older than it may be."""
    if breach.to_s <= 0:
        return sentence("hints.breached")
    if breach.to_s < _in_minutes_from_s:
        return sentence("hints.breach_s", first=round(breach.from_s), last=round(breach.to_s))
    return sentence("hints.breach_min", first=_minutes(breach.from_s), last=_minutes(breach.to_s))


def cause_text(hint: Hint) -> dict[str, Any]:
    """What is the matter."""
    return sentence(f"hint.{hint.cause}", **hint.values)


def evidence_text(hint: Hint) -> dict[str, Any]:
    """What shows it."""
    return sentence(f"hint.{hint.cause}.evidence", **hint.values)


def _summary(found: Hints, *, workers: bool) -> dict[str, Any]:
    if not workers:
        return sentence("hints.no_worker")
    if found.breach is not None:
        return breach_text(found.breach)
    if found.seen_s < compared_after_s:
        return sentence("hints.too_early", needed=round(compared_after_s / 60))
    if math.isnan(found.age_s):
        return sentence("hints.age_unknown")
    return sentence("hints.calm")


def _ruled_out(each: RuledOut) -> dict[str, Any]:
    code = f"ruled_out.{each.cause}"
    return sentence(code) if each.ratio is None else sentence(code, ratio=each.ratio)


def _minutes(seconds: float) -> float | int:
    minutes = seconds / 60
    return round(minutes, 1) if minutes < 3 else round(minutes)
