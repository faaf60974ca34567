"""The same model in several forms and with several options: what each costs, how far it moves the scores, which is kept."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from penstock.engine.clock import Clock
from penstock.engine.gpu.device import Device, device_title
from penstock.engine.models.bundle.graph_checks import parse_model
from penstock.engine.models.bundle.run_options import Form, Optimization
from penstock.engine.models.packaging.converted import Converted
from penstock.engine.models.packaging.parity import other_labels, relative_difference
from penstock.engine.models.packaging.quantize import float16, int8
from penstock.engine.models.runtime.gpu_modes import bound_if_possible
from penstock.engine.models.runtime.one_thread import LimitedModel
from penstock.engine.models.runtime.session import rewritten
from penstock.engine.models.runtime.session_spec import Opening
from penstock.engine.models.runtime.timing import in_turns
from penstock.engine.ports import Model, Predictions
from penstock.schemas.errors import ConfigError, ModelError

error_allowed_default = 1e-6
gain_min = 1.1
"""How many times as fast a variant must be to be kept; less is within what timings wander."""
slower_max = 1.2
"""How much slower than the model as converted it may be on one row."""
timed_rows = (1, 256)
timed_rows_on_gpu = (*timed_rows, 1024)
timed_runs = 7
timed_run_s_max = 0.2
"""Where a run takes longer, no larger batch is timed."""
alone_rows = 64
"""Rows that are also run one by one."""
batch_rows_max = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One form of the model with one set of options, and what was found of it."""

    form: Form
    optimization: Optimization
    fault: str = ""
    """Why it cannot be had; then nothing else is known of it."""
    model: bytes = field(default=b"", repr=False)
    load_ms: float = 0.0
    ms: tuple[tuple[int, float], ...] = ()
    """Rows of a batch, and what it takes: the fastest of a few runs."""
    difference_max: float = 0.0
    """Largest difference of a score from the model as converted, relative to the score where that is above 1."""
    alone_difference_max: float = 0.0
    """Largest difference of a row's score alone from the same row's in a batch, in the same measure."""
    labels_different: int = 0
    """Rows that get another class although their scores are not a tie within the error allowed."""

    @property
    def name(self) -> str:
        """Form and option."""
        return f"{self.form}/{self.optimization}"

    @property
    def error(self) -> float:
        """How far it moves a score, alone or in company."""
        return max(self.difference_max, self.alone_difference_max)

    def keeps_to(self, error_allowed: float) -> bool:
        """Whether it says what the model as converted says."""
        return not self.fault and self.error <= error_allowed and not self.labels_different


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimized:
    """What was tried, the model as converted first, and what is kept of it."""

    variants: tuple[Variant, ...]
    chosen: Variant
    reason: str
    error_allowed: float
    device: str
    """Where it was measured."""


def optimize(
    converted: Converted,
    rows: NDArray[np.generic],
    *,
    error_allowed: float,
    device: Device,
    clock: Clock,
) -> Optimized:
    """Try every variant on these matrix rows (R, F) on the device, and choose the fastest that keeps to the error allowed.

    On a GPU a variant runs bound and captured where that can be had, as it would be served. Timings are of this machine and
    this moment: another run may choose another of two variants that are about as fast. Raises ConfigError when the model as
    converted does not run.
    """
    opening = Opening(
        device=device, threads=1, batch_rows_max=batch_rows_max
    )  # more threads: scores go by the batch
    expected = opening.open(converted).predict(rows)
    found: list[Variant] = []
    running: list[tuple[int, Model]] = []
    for form, level, make in _wanted(converted, device):
        try:
            model = make()
            parse_model(model)
            before_s = clock.monotonic_s()
            graph, as_wanted = replace(converted, model=model), replace(opening, optimization=level)
            opened: LimitedModel = (plain := as_wanted.open(graph))
            load_ms = (clock.monotonic_s() - before_s) * 1000
            if device.cuda is not None and converted.forest is None:
                opened = bound_if_possible(graph, as_wanted, plain, rows)
            compared = _compared(expected, opened, rows, error_allowed)
        except (ConfigError, ModelError) as error:
            found.append(Variant(form=form, optimization=level, fault=str(error)))
            continue
        running.append((len(found), opened))
        found.append(replace(compared, form=form, optimization=level, model=model, load_ms=load_ms))
    timed = in_turns(
        [model for _, model in running],
        rows,
        sizes=timed_rows if device.cuda is None else timed_rows_on_gpu,
        runs=timed_runs,
        run_s_max=timed_run_s_max,
        clock=clock,
    )
    for turn, (place, _) in enumerate(running):
        found[place] = replace(found[place], ms=tuple((size, ms[turn]) for size, ms in timed))
    chosen, reason = choose(found, error_allowed)
    return Optimized(
        variants=tuple(found),
        chosen=chosen,
        reason=reason,
        error_allowed=error_allowed,
        device=device_title(device),
    )


def _wanted(converted: Converted, device: Device) -> Iterator[tuple[Form, Optimization, Callable[[], bytes]]]:
    """Form, option, and how the graph is had; first the model as converted."""
    model = converted.model
    for level in ("all", "extended", "basic", "disabled"):
        yield "converted", level, lambda: model

    def of_trees() -> bytes:
        raise ConfigError(
            "the graph is trees: there is no product in it, and explanations read it as converted"
        )

    forms: tuple[tuple[Form, Callable[[bytes], bytes]], ...] = (
        ("rewritten", partial(rewritten, device=device)), ("float16", float16), ("int8", int8),
    )  # fmt: skip
    for form, make in forms:
        yield form, "all", of_trees if converted.forest is not None else partial(make, model)


def _compared(
    expected: Predictions, model: Model, rows: NDArray[np.generic], error_allowed: float
) -> Variant:
    found = model.predict(rows)
    few = rows[:alone_rows]
    company = model.predict(few)
    alone = [model.predict(few[place : place + 1]) for place in range(len(few))]
    apart = [
        relative_difference(np.concatenate([each.outputs[name] for each in alone]), scores)
        for name, scores in company.outputs.items()
    ]
    moved = [relative_difference(scores, found.outputs[name]) for name, scores in expected.outputs.items()]
    return Variant(
        form="converted",
        optimization="all",
        difference_max=max(float(each.max()) for each in moved),
        alone_difference_max=max(float(each.max()) for each in apart),
        labels_different=other_labels(expected, found, error_allowed),
    )


def choose(variants: Sequence[Variant], error_allowed: float) -> tuple[Variant, str]:
    """The fastest at the largest size timed that keeps to the error, if it gains enough on the first, and why that one."""
    baseline = variants[0]
    (_, one_ms), (rows, many_ms) = baseline.ms[0], baseline.ms[-1]
    fit = [
        variant
        for variant in variants[1:]
        if variant.keeps_to(error_allowed) and variant.ms[0][1] <= one_ms * slower_max
    ]
    best = min(fit, key=lambda variant: variant.ms[-1][1], default=baseline)
    gain = many_ms / max(best.ms[-1][1], 1e-9)
    if gain < gain_min:
        return (
            baseline,
            f"nothing else that keeps to an error of {error_allowed:g} is {gain_min:g} times as fast",
        )
    return best, f"{gain:.2f} times as fast as the model as converted at {rows} rows, error {best.error:.2g}"
