"""ONNX Runtime, imported here and nowhere else, when it is first needed."""

from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from penstock.schemas.distribution import how_to_install
from penstock.schemas.errors import ConfigError

distributions = ("onnxruntime", "onnxruntime-gpu")
"""What installs the one import name `onnxruntime`: on CPUs, and on NVIDIA GPUs and CPUs."""


@cache
def onnx_runtime() -> Any:
    """The module `onnxruntime`. Raises ConfigError where there is none, or two that overwrote each other."""
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


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
