"""ONNX Runtime, imported here and nowhere else, when it is first needed."""

import os
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any, Final

from penstock.schemas.distribution import how_to_install
from penstock.schemas.errors import ConfigError

distributions = ("onnxruntime", "onnxruntime-gpu")
"""What installs the one import name `onnxruntime`: on CPUs, and on NVIDIA GPUs and CPUs."""

reason_characters_max: Final = 300
_head_characters: Final = 120

_prefix = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : "
)  # once more in the middle, where one of its errors carries another
_place = re.compile(r"(?:[A-Za-z]:)?[^\s:]*\.(?:cc|h|cpp|cu|cuh|hpp):\d+\s+")


reports_nothing: Final = "ORT_DISABLE_TELEMETRY"
"""Its official packages otherwise write an identifier of the machine into the home folder and send what is run to their maker."""


@cache
def onnx_runtime() -> Any:
    """The module `onnxruntime`, which reports nothing to anybody: what the environment says about that wins.

    Raises ConfigError where neither distribution is installed, or both are and overwrote each other.
    """
    os.environ.setdefault(reports_nothing, "1")  # it looks once, when it is loaded
    if all(_installed(name) for name in distributions):
        raise ConfigError(
            f"{distributions[0]} and {distributions[1]} are both installed, and each has overwritten files of the other: "
            "uninstall both, then install one of them again"
        )
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        raise ConfigError(
            f"ONNX Runtime is not installed: {how_to_install('gpu')} for NVIDIA GPUs and CPUs (340 MB), or {how_to_install('cpu')} (73 MB)"
        ) from error
    return onnxruntime


@cache
def runtime_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises; its exceptions share no base class of their own."""
    errors = vars(onnx_runtime().capi.onnxruntime_pybind11_state).values()
    found = (kind for kind in errors if isinstance(kind, type) and issubclass(kind, Exception))
    return (*found, RuntimeError, ValueError)


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
    """Index of the end of the C++ signature that begins here; `begin` when there is no signature."""
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


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
