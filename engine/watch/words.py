"""A result in words: one line for a person, one object for a program."""

import math
from typing import Any

from penstock.engine.console.reasons import FeatureShare, plain_phrase, strongest
from penstock.engine.console.terminal import printable
from penstock.engine.watch.joined import Result
from penstock.engine.watch.messages import PredictionMessage

text_characters_max = 60


def cut(text: str, most: int = text_characters_max) -> str:
    """The text as it may be shown, cut with its length: names, categories and keys come from outside."""
    shown = printable(text)
    return shown if len(shown) <= most else f"{shown[: most - 3]}... ({len(text)} characters)"


def reason_in_words(reason: FeatureShare) -> str:
    """`amount = 912 +1.2`."""
    if isinstance(reason.value, float):
        words = plain_phrase(cut(reason.feature), reason.value)
    else:
        words = plain_phrase(cut(reason.feature), None if reason.value is None else cut(reason.value))
    return f"{words} {reason.attribution:+.2g}"


def score(message: PredictionMessage) -> str:
    """The class with its share, or the first output's numbers."""
    if not message.outputs:
        return cut(message.label) if message.label is not None else "no output"
    values = next(iter(message.outputs.values()))
    place = message.label_index
    if message.label is not None:
        known = place is not None and 0 <= place < len(values) and math.isfinite(values[place])
        return (
            f"{cut(message.label)} {values[place]:.3g}" if known and place is not None else cut(message.label)
        )
    shown = ", ".join(f"{value:.4g}" for value in values[:3])
    return shown + (f" and {len(values) - 3} more" if len(values) > 3 else "")


def headline(result: Result) -> str:
    """`transactions 3/812  fraud 0.97`, and whether its reasons are known."""
    topic, partition, offset = result.prediction.place
    line = f"{cut(topic)} {partition}/{offset}  {score(result.prediction)}"
    return line if result.explanation is not None else f"{line}  (not explained)"


def result_line(result: Result, *, top: int) -> str:
    """`transactions 3/812  fraud 0.97  amount = 912 +1.2, country = NG +0.8`."""
    if result.explanation is None:
        return headline(result)
    kept, _ = strongest(result.explanation.reasons, top)
    return headline(result) + "  " + ", ".join(map(reason_in_words, kept))


def result_object(result: Result, *, top: int) -> dict[str, Any]:
    """The same for a program; `reasons` is null where there is no explanation."""
    message, explanation = result.prediction, result.explanation
    topic, partition, offset = message.place
    kept = strongest(explanation.reasons, top)[0] if explanation is not None else None
    return {
        "topic": topic,
        "partition": partition,
        "offset": offset,
        "timestamp_ms": message.timestamp_ms,
        "predicted_at_ms": message.predicted_at_ms,
        "model": message.model,
        "label": message.label,
        "outputs": {name: list(values) for name, values in message.outputs.items()},
        "explained": explanation.target if explanation is not None else None,
        "space": explanation.space if explanation is not None else None,
        "reasons": None
        if kept is None
        else [{"feature": r.feature, "value": r.value, "attribution": r.attribution} for r in kept],
    }
