"""Whether our way of counting words gives the numbers of a vectorizer, on texts made to tell them apart."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from penstock.engine.features.texts import TextColumns, TextPart
from penstock.schemas.errors import ConfigError

_difference_max = 1e-14
_texts = 400
_words_each = 12
_strange = (
    "", " ", "\t\n\r\x0b\x0c", "a", "A.", "don't stop-me_now", "x1 2y 3.5 1,000", "ÄÖÜ ß ẞ ŸÉÈ", "İstanbul ISTANBUL ıİ", "ﬁne ﬂow Ǆ ǅ",
    "e\u0301 a\u0308 n\u0303o", "\u200bzero\u200bwidth\u200d \ufeffmark", "日本語 の テキスト", "한국어 텍스트", "العربية ١٢٣", "עִבְרִית", "हिन्दी १२३",
    "ไทย", "Ωμέγα ΣΑΣ ς", "😀 🏳️‍🌈 👩‍👩‍👧", "\u00a0no\u00a0break\u2003em\u3000wide", "½ ² Ⅷ ㎏", "a\x00b \x1f\x85 \u2028line\u2029", "__ _ _a a_", "\ud800", "𝒜𝓫 𐐀𐐨",
    "tab\tand\nline", "two  spaces   three", "ALL CAPS word Word WORD", "ſ K Å",
)  # fmt: skip
_between = (" ", "  ", ", ", ".", "-", "\n", "\u00a0", "_", "'", " \t ", "")


def prove_part(part: TextPart, steps: Sequence[Any], name: str) -> None:
    """Compare `part` with the fitted steps that it stands for. Raises ConfigError where a text tells them apart."""
    texts = [*_made_up(part)]
    wanted: Any = texts
    for step in steps:
        wanted = step.transform(wanted)
    columns = TextColumns([part])
    found = np.full((len(texts), columns.width), np.nan)
    columns.fill(texts, np.arange(len(texts)), found, 0)
    wanted = np.asarray(wanted.toarray() if hasattr(wanted, "toarray") else wanted, dtype=np.float64)
    if wanted.shape != found.shape or not np.allclose(found, wanted, rtol=_difference_max, atol=0.0):
        raise ConfigError(
            f"the words of {name} are counted otherwise than by the {type(steps[0]).__name__}, and no bundle can keep that: train "
            "it anew with scikit-learn 1.5 or newer"
        )


def _made_up(part: TextPart) -> Iterator[str]:
    """Strange texts, and texts of the vocabulary's words in all cases, parted in all ways."""
    yield from _strange
    yield " ".join(_strange)
    random = np.random.default_rng(0)
    words = part.words
    for number in range(_texts):
        chosen = [words[place] for place in random.integers(0, len(words), random.integers(1, _words_each))]
        pieces = []
        for word in chosen:
            case = random.integers(0, 5)
            pieces.append(
                (
                    word,
                    word.upper(),
                    word.title(),
                    word.swapcase(),
                    f"{word}{_strange[int(random.integers(len(_strange)))]}",
                )[case]
            )
            pieces.append(_between[int(random.integers(len(_between)))] if number % 2 else " ")
        yield "".join(pieces * int(random.integers(1, 4)))
