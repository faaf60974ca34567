"""What `penstock bench explain` should show, and what it did: one bar a line, each from the figures of the same run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

_path_dependent: Final = {"100x6": 90.0, "500x6": 60.0, "100x8": 30.0}
"""Times the rate of `shap`, by model."""
_many_rows: Final = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """`measured` has the unit of `bar`; `at_least`: else the less the better."""

    work: str
    bar: float
    measured: float
    unit: str
    at_least: bool

    @property
    def met(self) -> bool:
        """Whether what was measured reaches it; NaN does not."""
        return self.measured >= self.bar if self.at_least else self.measured <= self.bar


def bars(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The bars that the run measured something for."""
    every = [
        *(bar for model in found["models"] for bar in _of_model(model)),
        *_of_accuracy(found["models"], found["deep"]),
        *(_of_network(found["network"]) if found["network"] else ()),
    ]
    return [asdict(bar) | {"met": bar.met} for bar in every]


def _of_model(model: Mapping[str, Any]) -> Iterator[Bar]:
    name, ratios = model["model"], model["ratios"]
    rates = {peer["peer"]: peer["batches"] for peer in model["explain"] if peer["installed"]}
    large = [size for size in model["predict"]["batches"] if int(size) >= _many_rows]
    if name in _path_dependent and "shap" in ratios and large:
        least = min(ratios["shap"][size] for size in large)
        yield _times(f"{name}, batches of 256 and more, over shap", _path_dependent[name], least)
    if name != "100x6":
        return
    if "onnxruntime predict" in ratios and large:
        least = 100 * min(ratios["onnxruntime predict"][size] for size in large)
        yield Bar(work=f"{name}, of ONNX Runtime's predicting", bar=35, measured=least, unit=" %", at_least=True)  # fmt: skip
    if "16" in rates.get("penstock", {}):
        call_ms = rates["penstock"]["16"]["call_ms"]
        yield Bar(work=f"{name}, a batch of 16", bar=0.3, measured=call_ms, unit=" ms", at_least=False)
    if "shap interventional" in ratios and large and model["background_rows"] >= 100:
        least = min(ratios["shap interventional"][size] for size in large)
        yield _times(f"{name}, relative to {model['background_rows']} rows, over shap", 400, least)
    tables = model["tables"]
    yield Bar(work=f"{name}, making the tables", bar=2, measured=tables["path_dependent"]["seconds"], unit=" s", at_least=False)  # fmt: skip
    most = max(tables[kind]["bytes"] for kind in ("path_dependent", "interventional"))
    yield Bar(work=f"{name}, memory of the tables", bar=tables["bytes_max"] / 1e6, measured=most / 1e6, unit=" MB", at_least=False)  # fmt: skip


def _of_accuracy(models: Sequence[Mapping[str, Any]], deep: Sequence[Mapping[str, Any]]) -> Iterator[Bar]:
    """The worst of all models: errors and missed sums alike."""
    kinds = {
        "float32": (2e-6, ("penstock", "penstock interventional")),
        "float64": (1e-12, ("penstock float64",)),
    }
    depths = [each["depth"] for each in deep]
    until = f", to depth {max(depths)}, outliers too" if depths else ""
    for kind, (bar, names) in kinds.items():
        errors = [
            peer[key]
            for run in (*models, *deep)
            for peer in run["explain"]
            if peer["peer"] in names and peer["installed"]
            for key in ("error_relative", "error_complete_rows", "additivity_error")
        ]
        if errors:
            yield Bar(work=f"{kind}, error and missed sums{until}", bar=bar, measured=max(errors), unit="", at_least=False)  # fmt: skip


def _of_network(network: Mapping[str, Any]) -> Iterator[Bar]:
    exact = next(each for each in network["methods"] if each["method"] == "exact_enumeration")
    rate = max(each["rows_per_s"] for each in exact["batches"].values())
    work = f"a network of {network['features']} features, all coalitions, one background row"
    yield Bar(work=work, bar=300, measured=rate, unit=" rows/s", at_least=True)


def _times(work: str, bar: float, measured: float) -> Bar:
    return Bar(work=work, bar=bar, measured=measured, unit="x", at_least=True)
