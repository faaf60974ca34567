"""What ONNX Runtime means by an error, without the places in its own sources."""

import re
from typing import Final

reason_characters_max: Final = 300
_head_characters: Final = 120

_prefix = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_place = re.compile(r"(?:[A-Za-z]:)?[^\s:]*\.(?:cc|h|cpp|cu|cuh|hpp):\d+\s+")


def runtime_reason(error: Exception) -> str:
    """The error's reason on one line of at most 300 characters; where that is too short for it, its middle is left out.

    The texts quote the C++ file and the signature of the function that failed, which often is longer than the reason.
    """
    text = " ".join(_prefix.sub("", str(error).strip()).split())
    while found := _place.search(text):
        text = text[: found.start()] + text[_after_signature(text, found.end()) :]
    text = " ".join(text.split())
    if len(text) <= reason_characters_max:
        return text or type(error).__name__
    tail = reason_characters_max - _head_characters - len(" ... ")
    return f"{text[:_head_characters]} ... {text[-tail:]}"


def _after_signature(text: str, begin: int) -> int:
    """Where the C++ signature that begins here ends; `begin` when there is none."""
    opening = text.find("(", begin)
    if opening < 0 or not re.search(r"[\w>~\]]$|operator\S*$", text[begin:opening]):
        return begin
    depth = 0
    for at in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if depth == 0:
            rest = re.match(r"(?: const)?(?: noexcept)?(?: \[with [^\]]*\])?\s*", text[at + 1 :])
            return at + 1 + (rest.end() if rest else 0)
    return begin
