"""How a model runs on a GPU: as ONNX Runtime runs any graph, or in a way that says the same and is faster."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from penstock.engine.clock import Clock
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.runtime.golden import disagreement
from penstock.engine.models.runtime.io_binding import BoundModel
from penstock.engine.models.runtime.native_trees import apart, check_rows
from penstock.engine.models.runtime.one_thread import LimitedModel, OneThread
from penstock.engine.models.runtime.session import OnnxModel
from penstock.engine.models.runtime.session_spec import Graph, Opening
from penstock.engine.models.runtime.tensor_trees import RawScores, TensorTrees, rows_at_once
from penstock.engine.models.runtime.timing import batch_of, buckets, compared_rows_on_gpu, compared_times
from penstock.engine.models.runtime.tree_outputs import TreeAnswers
from penstock.engine.ports import Predictions
from penstock.schemas.errors import ConfigError, InvariantError, ModelError
from penstock.schemas.log_codes import LogCode

logger = logging.getLogger(__name__)

checked_s_max = 2.0
"""Where comparing one batch size takes longer than this, no larger batch will be run at once."""
slower_max, slower_ms_max = 1.2, 1.0
"""How much slower than a plain run a way may be at a size, by a factor or in milliseconds: a record is on its way for
much longer than that."""
_refusals = (ConfigError, ModelError, InvariantError)
_no_kernels = "ONNX Runtime has no kernels for trees on a GPU and runs them on the CPU"

Differs = Callable[[Predictions, Predictions], str]
"""In words, how the second prediction differs from the first; empty when it does not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecutionMode:
    """A way to run the model, and what was found of it."""

    name: str
    fault: str = ""
    """Why it cannot be taken; then nothing else is known of it."""
    ms: tuple[tuple[int, float], ...] = ()
    """Rows of a batch, and what it takes: the fastest of a few runs."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ChosenMode:
    """The model as it is to run, with every way that was tried, plain runs first."""

    model: LimitedModel
    ways: tuple[ExecutionMode, ...]
    reason: str
    """Why this way, in a sentence."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Candidate:
    """A way that may be faster than plain runs. `make` raises ConfigError, ModelError or InvariantError where it cannot be had."""

    name: str
    make: Callable[[], LimitedModel]


def fastest_way(
    bundle: Bundle,
    plain: OnnxModel,
    opening: Opening,
    *,
    rows: NDArray[np.generic],
    slack: float,
    clock: Clock,
) -> ChosenMode:
    """`plain`, or its graph bound and captured; for trees, which ONNX Runtime runs on the CPU, a graph of tensors.

    `rows` (R, F) are what to compare and to time on. `slack`: what scores may wander by more than rounding. Whatever is
    taken runs on a thread of its own. What cannot be taken is logged with the reason.
    """
    checked, remark = bundle.golden.rows, ""
    differs: Differs = partial(disagreement, slack=slack)
    candidates = of_graph(bundle, opening, plain, rows)
    if bundle.trees:
        plain.fills_up = False
        remark, differs = _no_kernels, lambda expected, found: apart(expected, found).reason
        try:
            answers = TreeAnswers(bundle)
            candidates = of_trees(answers, opening, rows)
            checked = check_rows(bundle, answers.forest, bundle.golden.rows)
        except ConfigError as error:
            candidates, remark = [], f"{remark}; {error}"
    return choose_way(
        OneThread(plain),
        candidates,
        where=opening.device.name,
        remark=remark,
        checked=checked,
        rows=rows,
        differs=differs,
        batch_rows_max=opening.batch_rows_max,
        clock=clock,
    )


def of_graph(graph: Graph, opening: Opening, plain: OnnxModel, rows: NDArray[np.generic]) -> list[Candidate]:
    """The graph bound, best with its runs captured; `plain` is a session on it that does not capture."""

    def bound(open_session: Callable[[], OnnxModel]) -> LimitedModel:
        return OneThread(BoundModel(open_session(), rows, rows_max=opening.batch_rows_max))

    return [
        Candidate(name="captured", make=lambda: bound(lambda: opening.open(graph, captures=True))),
        Candidate(name="bound", make=lambda: bound(lambda: plain)),
    ]


def bound_if_possible(
    graph: Graph, opening: Opening, plain: OnnxModel, rows: NDArray[np.generic]
) -> LimitedModel:
    """The first of `of_graph` that can be had, else `plain`; nothing is compared."""
    for candidate in of_graph(graph, opening, plain, rows):
        try:
            model = candidate.make()
            model.predict(rows[:1])
        except _refusals as error:
            logger.info(
                "on %s the model does not run %s: %s",
                opening.device.name,
                candidate.name,
                error,
                extra=LogCode.GPU_MODE_PASSED_OVER.extra,
            )
        else:
            return model
    return plain


def of_trees(answers: TreeAnswers, opening: Opening, rows: NDArray[np.generic]) -> list[Candidate]:
    """The trees as a graph of tensors, best bound, with its runs captured. Raises ConfigError where there is no such graph."""
    graph = RawScores.of(answers.forest)
    rows_max = rows_at_once(answers.forest, opening.batch_rows_max)
    tensors = replace(
        opening, batch_rows_max=rows_max, optimization="all"
    )  # the bundle's option is for its own graph

    def made(*, binds: bool, captures: bool) -> LimitedModel:
        session = tensors.open(graph, captures=captures)
        run = BoundModel(session, rows, rows_max=rows_max) if binds else session
        return OneThread(TensorTrees(answers, run))

    return [
        Candidate(name="tensors, captured", make=partial(made, binds=True, captures=True)),
        Candidate(name="tensors, bound", make=partial(made, binds=True, captures=False)),
        Candidate(name="tensors", make=partial(made, binds=False, captures=False)),
    ]


def choose_way(
    plain: LimitedModel,
    candidates: Sequence[Candidate],
    *,
    where: str,
    remark: str = "",
    checked: NDArray[np.generic],
    rows: NDArray[np.generic],
    differs: Differs,
    batch_rows_max: int,
    clock: Clock,
) -> ChosenMode:
    """The first candidate that can be had and says what `plain` says, on `checked` rows and at every batch size, if it is
    faster than `plain` at the largest size timed and nowhere much slower; else `plain`."""
    faults: list[ExecutionMode] = []
    for candidate in candidates:
        try:
            model = candidate.make()
            fault = _fault(plain, model, checked, rows, differs, batch_rows_max, clock)
            level = logging.WARNING
        except _refusals as error:
            fault, level = str(error), logging.INFO
        if fault:
            logger.log(
                level,
                "on %s the model does not run %s: %s",
                where,
                candidate.name,
                fault,
                extra=LogCode.GPU_MODE_PASSED_OVER.extra,
            )
            faults.append(ExecutionMode(name=candidate.name, fault=fault))
            continue
        found = _timed(plain, model, candidate.name, rows, batch_rows_max, clock)
        chosen, reason = _faster(plain, model, found, where)
        break
    else:
        found, chosen, reason = [ExecutionMode(name="plain")], plain, f"plain runs on {where}"
    reason = f"{reason}; {remark}" if remark else reason
    logger.info("%s", reason, extra=LogCode.GPU_MODE_CHOSEN.extra)
    return ChosenMode(model=chosen, ways=(found[0], *faults, *found[1:]), reason=reason)


def _fault(
    plain: LimitedModel,
    other: LimitedModel,
    checked: NDArray[np.generic],
    rows: NDArray[np.generic],
    differs: Differs,
    batch_rows_max: int,
    clock: Clock,
) -> str:
    if fault := differs(plain.predict(checked), other.predict(checked)):
        return fault
    sizes = buckets(batch_rows_max)
    for run in range(2):  # the second time around, what was captured is replayed after much else has happened
        for place, size in enumerate(sizes):
            before_s = clock.monotonic_s()
            batch = batch_of(rows, size, run=run)
            if fault := differs(plain.predict(batch), other.predict(batch)):
                return f"in batches of {size} {fault}"
            if clock.monotonic_s() - before_s > checked_s_max:
                other.batch_rows_max = size
                sizes = sizes[: place + 1]
                break
    return ""


def _timed(
    plain: LimitedModel,
    other: LimitedModel,
    name: str,
    rows: NDArray[np.generic],
    batch_rows_max: int,
    clock: Clock,
) -> list[ExecutionMode]:
    timed = compared_times(
        (plain, other), rows, sizes=compared_rows_on_gpu, batch_rows_max=batch_rows_max, clock=clock
    )
    return [
        ExecutionMode(name=way, ms=tuple((size, ms[place]) for size, ms in timed))
        for place, way in enumerate(("plain", name))
    ]


def _faster(
    plain: LimitedModel, other: LimitedModel, timed: Sequence[ExecutionMode], where: str
) -> tuple[LimitedModel, str]:
    pairs = [
        (size, was_ms, is_ms) for (size, was_ms), (_, is_ms) in zip(*(way.ms for way in timed), strict=True)
    ]
    name = timed[1].name
    slower = [pair for pair in pairs if pair[2] > max(pair[1] * slower_max, pair[1] + slower_ms_max)]
    size, was_ms, is_ms = slower[0] if slower else pairs[-1]
    if is_ms >= was_ms:
        return (
            plain,
            f"plain runs on {where}: {name} it takes {is_ms:.3f} ms for {size} rows, plain {was_ms:.3f} ms",
        )
    gain = was_ms / max(is_ms, 1e-9)
    return other, f"{name} on {where}, {gain:.1f} times as fast as plain runs at {size} rows"
