"""From a trained model to a bundle, with the proof that it predicts the same."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.engine.clock import SystemClock
from penstock.engine.codec.schema_check import check_fields
from penstock.engine.features.narrowing import as_fed, widened
from penstock.engine.features.overrides import read_features_file
from penstock.engine.features.policies import unseen_code
from penstock.engine.features.signature import Signature
from penstock.engine.gpu.device import Device
from penstock.engine.models.bundle.bundle import Bundle, Golden
from penstock.engine.models.bundle.manifest import Manifest, json_object
from penstock.engine.models.bundle.run_options import NativeProof, Runtime
from penstock.engine.models.packaging.answered import answered
from penstock.engine.models.packaging.convert import convert
from penstock.engine.models.packaging.converted import Converted, OwnAnswers, PackageOptions
from penstock.engine.models.packaging.optimize import Optimized, optimize
from penstock.engine.models.packaging.output_meaning import measured
from penstock.engine.models.packaging.parity import AsGiven, Expected, Parity, prove_parity, tolerance_default
from penstock.engine.models.packaging.refused_rows import refuse_other_names, refuse_values_as_codes
from penstock.engine.models.probes.boundary_rows import threshold_rows
from penstock.engine.models.probes.probe_rows import (
    columns_of,
    policies_applied,
    read_expected,
    read_rows,
    records_made_up,
    rows_made_up,
    rows_of_table,
    table_given,
)
from penstock.engine.models.runtime.loader import Comparison, compare, varied_rows
from penstock.engine.models.runtime.native_trees import NativeModel, order_of, prove
from penstock.engine.models.runtime.session import choose_device
from penstock.engine.models.runtime.session_spec import Opening
from penstock.engine.ports import Model, Predictions
from penstock.schemas.errors import ConfigError, ModelError

golden_rows = 64
tried_rows_max = 4096
"""Of the rows given, those that other forms of the graph are compared on."""
tests_met_max = 1024
"""Tests of the trees that get rows of their own when parity is proved."""
_batch_rows = 1024
_of_table = "the trees are a table that our kernel alone reads, compared with the original itself"


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class PackageReport:
    """What was made."""

    path: Path
    bundle: Bundle
    parity: Parity
    notes: tuple[str, ...]
    """What a person should know, a sentence each."""
    compared: tuple[Comparison, ...]
    """Speed of our tree kernel beside ONNX Runtime's, here and now; it is no part of the bundle, whose bytes repeat."""
    optimized: Optimized | None
    """What was tried to make it faster, where that was asked for."""

    def __repr__(self) -> str:
        return f"<PackageReport {self.path}: {'; '.join(f'{name} {value}' for name, value in self._facts().items())}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        facts = {"bundle": str(self.path), **self._facts()}
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(value)}</td></tr>"
            for name, value in facts.items()
        )
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        return f"<table>{rows}</table>" + (f"<ul>{notes}</ul>" if notes else "")

    def _facts(self) -> dict[str, str]:
        bundle, parity = self.bundle, self.parity
        return {
            "model": f"{bundle.name} {bundle.version}",
            "digest": bundle.digest[:12],
            "features": f"{bundle.signature.width}",
            "compared on": f"{parity.rows_given + parity.rows_made_up} rows",
            "largest difference": f"{parity.difference_max:.2g}",
            "notes": f"{len(self.notes)}",
        }


def package(
    model: Any,
    out: Path | str,
    *,
    name: str | None = None,
    version: str = "1",
    feature_names: Sequence[str] | None = None,
    features: Path | Sequence[Mapping[str, Any]] | None = None,
    classes: Sequence[str] | None = None,
    background: Any = None,
    rows: Any = None,
    expected: Any = None,
    missing: float | None = None,
    trusted: Sequence[str] = (),
    input_schema: Path | None = None,
    tolerance: float = tolerance_default,
    optimize_within: float | None = None,
    optimize_on: str = "cpu",
) -> PackageReport:
    """Make the bundle `out` from a model file or a live XGBoost, LightGBM or scikit-learn object.

    `features`: a features file, or what would stand in it. `background` and `rows`: a path (.npy, .csv, .parquet), a data
    frame, or an array of matrix rows (R, F), a category as its code; explanations are relative to the background, and
    parity is proved on both and on rows made up around every threshold. The original gets every row as it is, in double
    precision, the packaged model what the stream would make of it. `expected`: what the original answers to `rows`, a path or
    an array (R,) or (R, K), or a data frame, for where the file cannot be asked (.onnx) or has no method for an output.
    `missing`: a number that stands for a missing value (XGBoost's `missing=`). `trusted`: full names of types that may
    be built from a .skops file besides scikit-learn's own. `name`: default, the folder's name.
    `optimize_within`: try other forms of the graph and options of its session, and keep the fastest whose scores differ by
    no more than this from the graph's as converted; as that goes by the clock, the same input need not give the same bytes
    then. None: keep it as converted. `optimize_on`: the device where that is measured, and whose scores the golden batch
    keeps.

    Raises ConfigError for what cannot be packaged, ParityError when the packaged model would predict something else.
    """
    device = Device() if optimize_within is None else choose_device(optimize_on)
    overrides = read_features_file(features) if isinstance(features, Path) else list(features or ())
    background, rows = table_given(background), table_given(rows)
    converted = convert(
        model,
        PackageOptions(
            feature_names=None if feature_names is None else tuple(feature_names),
            overrides=overrides,
            classes=None if classes is None else tuple(classes),
            missing=missing,
            trusted=tuple(trusted),
            tables=tuple(each for each in (background, rows) if each is not None),
            columns=tuple(found for each in (background, rows) if (found := columns_of(each))),
        ),
    )
    signature = converted.signature
    schema_bytes, schema = (None, None) if input_schema is None else _schema(input_schema, signature)
    given_background = None if background is None else _rows(background, signature, "the background", schema)
    given_rows = None if rows is None else _rows(rows, signature, "the rows", schema)
    known = None if given_background is None else given_background.matrix
    more = np.empty((0, signature.width)) if given_rows is None else given_rows.matrix
    given = more if known is None else np.concatenate((known, more))
    opening = Opening(device=Device(), threads=1, batch_rows_max=_batch_rows)
    if converted.table is not None and optimize_within is not None:
        raise ConfigError("an ensemble of so many nodes has one form only: leave --optimize out")
    runner: Model = opening.open(converted) if converted.table is None else NativeModel(converted)
    made_up = records_made_up(signature, converted.forest, given)
    head_on = _head_on(converted, given, made_up)
    tried_on = np.concatenate((made_up, head_on))
    is_answered = answered(converted.score, tried_on)  # the original refuses some values: a logarithm's, say
    if len(tried_on) and not is_answered.any() and not len(given):
        converted.score(tried_on[:1])  # it refuses all, and says why
    tried_on = tried_on[is_answered]
    parity = prove_parity(
        converted,
        runner,
        given=given,
        made_up=tried_on,
        tolerance=tolerance,
        expected=[
            *([] if expected is None else [_expected(expected, converted, given_rows)]),
            *([] if converted.own_answers is None else [_own(converted.own_answers, signature)]),
        ],
        tables=[
            AsGiven(table=each.table, rows=each.matrix, places=each.places, unchanged=each.unchanged)
            for each in (given_background, given_rows)
            if each is not None and hasattr(each.table, "iloc")
        ],
    )
    fed = as_fed(given, signature).astype(np.float64)
    alike = rows_made_up(signature, converted.forest, fed)
    tried = np.concatenate((fed[:tried_rows_max], alike)).astype(signature.dtype)
    optimized, kept = None, Runtime()
    if optimize_within is not None:
        optimized = optimize(
            converted, tried, error_allowed=optimize_within, device=device, clock=SystemClock()
        )
        kept = _runtime(optimized)
        converted = replace(converted, model=optimized.chosen.model)
        opening = replace(opening, optimization=kept.optimization)
        runner = opening.open(converted)
    keeper = runner if device.cuda is None else replace(opening, device=device).open(converted)
    proof, native = (NativeProof(reason=_of_table), None)
    if converted.table is None:
        proof, native = prove(converted, runner, fed)
    bundle = Bundle.write(
        out,
        manifest=Manifest(
            name=name or Path(out).absolute().name,
            version=version,
            signature=signature,
            outputs=measured(converted.outputs, converted.labels, _predicted(runner, tried)),
            labels=converted.labels,
            trees=converted.forest is not None,
            covers=converted.forest is not None and converted.forest.cover is not None,
            provenance=_provenance(converted, parity),
            runtime=replace(kept, native=proof),
        ),
        model=converted.model,
        golden=_golden(keeper, np.concatenate((fed[: golden_rows // 2], alike)).astype(signature.dtype)),
        background=None if known is None else as_fed(known, signature),
        input_schema=schema_bytes,
        table=converted.table,
    )
    notes = [*converted.notes, *parity.notes]
    if not bundle.covers and bundle.background is None:
        notes.append("without a background (--background) its predictions cannot be explained")
    if kept.form != "converted":
        notes.append(
            f"the graph is stored in the form {kept.form}, which explanations by gradients cannot read"
        )
    if optimized is not None and optimized.chosen.alone_difference_max > 0:
        notes.append(
            "a row's scores depend a little on the other rows of its batch, which differ from run to run"
        )
    return PackageReport(
        path=Path(out),
        bundle=bundle,
        parity=parity,
        notes=tuple(notes),
        compared=_compared(bundle, runner, native),
        optimized=optimized,
    )


def _runtime(optimized: Optimized) -> Runtime:
    chosen = optimized.chosen
    return Runtime(
        form=chosen.form,
        optimization=chosen.optimization,
        difference_max=order_of(chosen.error),
        measured_on=optimized.device,
    )


def _compared(bundle: Bundle, runner: Model, native: NativeModel | None) -> tuple[Comparison, ...]:
    if native is None or not bundle.manifest.runtime.native.equal:
        return ()
    clock = SystemClock()
    return compare(runner, native, varied_rows(bundle, runner, clock), _batch_rows, clock)


def _head_on(
    converted: Converted, given: NDArray[np.float64], made_up: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Rows that meet the tests of the trees from both sides, as records hold them: one double apart where that counts."""
    signature = converted.signature
    base = given[:tried_rows_max] if len(given) else made_up
    if converted.forest is None or signature.dtype != np.float32 or not len(base):
        return np.empty((0, signature.width))
    fed = as_fed(base, signature).astype(np.float64)
    rows = threshold_rows(converted.forest, signature, fed, tests_max=tests_met_max).rows
    return widened(rows.astype(np.float32), signature)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Rows:
    """Rows that somebody gave, those left out that a policy rejects."""

    table: Any
    """As they were given."""
    matrix: NDArray[np.float64]  # (R, F), replacements in place
    count: int
    """Rows of the table."""
    places: NDArray[np.int64]  # (R,), which of them
    unchanged: NDArray[np.bool_]  # (R,), no policy changed a value


def _expected(expected: Any, converted: Converted, rows: _Rows | None) -> Expected:
    """What the original is said to answer to the rows given. Raises ConfigError where it does not fit them."""
    if rows is None:
        raise ConfigError("--expected is the original's answers to the rows of --rows: give both")
    outputs = read_expected(expected, converted.outputs, converted.labels)
    for answers in outputs.values():
        if len(answers) != rows.count:
            raise ConfigError(f"there are {len(answers)} expected answers to {rows.count} rows")
    origin = str(expected) if isinstance(expected, (str, Path)) else "the answers given"
    return Expected(
        rows=rows.matrix,
        outputs={name: answers[rows.places] for name, answers in outputs.items()},
        origin=origin,
    )


def _own(answers: OwnAnswers, signature: Signature) -> Expected:
    """What the file says of itself. Raises ConfigError where the bundle would set such a record aside."""
    rows, kept = policies_applied(answers.rows, signature)
    if not kept.all():
        raise ConfigError(
            f"{answers.origin} has an answer to row {int(np.argmin(kept))}, which the bundle would set aside: the file is read "
            "in another way than it was meant, or says what it does not do"
        )
    return Expected(
        rows=rows, outputs=answers.outputs, labels=answers.labels, precision=answers.precision, origin=answers.origin
    )  # fmt: skip


def _rows(rows: Any, signature: Signature, what: str, schema: dict[str, Any] | None = None) -> _Rows:
    """The rows that no policy rejects, replacements in place, and which of those given they are."""
    refuse_other_names(rows, signature, what)
    if isinstance(rows, (str, Path)):
        matrix = read_rows(Path(rows), signature, schema)
    elif hasattr(rows, "columns"):
        matrix = rows_of_table(rows, signature, origin=what, schema=schema)
    else:
        matrix = np.asarray(rows, dtype=np.float64)
        refuse_values_as_codes(matrix, signature, what)
    if matrix.ndim != 2 or matrix.shape[1] != signature.width or not len(matrix):
        raise ConfigError(f"{what} must be rows of {signature.width} columns, and at least one")
    for column, feature in enumerate(signature.column_features):
        codes = matrix[~np.isnan(matrix[:, column]), column]
        codes = codes[codes != unseen_code]  # the feature's policy decides on those
        known = (codes == np.floor(codes)) & (codes >= 0) & (codes < len(feature.categories))
        if feature.kind == "category" and not known.all():
            raise ConfigError(f"{what} hold a code of {feature.name} that is not in its table")
    filled, kept = policies_applied(matrix, signature)
    if not kept.any():
        raise ConfigError(f"every one of {what} has a value that the model's policies reject")
    replaced = ~np.isnan(filled) & (filled != matrix)
    replaced[:, [feature.kind == "category" for feature in signature.column_features]] = False
    return _Rows(
        table=rows,
        matrix=filled[kept],
        count=len(kept),
        places=np.flatnonzero(kept),
        unchanged=~replaced.any(axis=1)[kept],
    )


def _golden(model: Model, rows: NDArray[np.generic]) -> Golden:
    """Rows spread over those given, with what the model says of them; rows that it answers with NaN teach nothing."""
    found = _predicted(model, rows)
    finite = np.ones(len(rows), dtype=np.bool_)
    for output in found.outputs.values():
        finite &= np.isfinite(output).all(axis=1)
    places = np.flatnonzero(finite)[:golden_rows]
    if not len(places):
        raise ConfigError("the packaged model answers NaN or an infinity on every row tried; give --rows")
    found = _predicted(model, rows[places])  # in the batch in which it will be asked again
    return Golden(rows=rows[places], outputs=found.outputs, labels=found.labels)


def _predicted(model: Model, rows: NDArray[np.generic]) -> Predictions:
    try:
        return model.predict(rows)
    except ModelError as error:
        raise ConfigError(f"the packaged model cannot run: {error}") from error


def _provenance(converted: Converted, parity: Parity) -> dict[str, Any]:
    return {
        "source": converted.source,
        "onnx_sha256" if converted.table is None else "table_sha256": hashlib.sha256(
            converted.model
        ).hexdigest(),
        "parity": {
            **asdict(parity),
            "difference_max": order_of(parity.difference_max),
            "differences": {name: order_of(each) for name, each in parity.differences.items()},
        },
        "notes": list(converted.notes),
        **converted.facts,
    }


def _schema(path: Path, signature: Signature) -> tuple[bytes, dict[str, Any]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    schema = json_object(data, str(path))
    check_fields(signature, schema, origin=str(path))
    return data, schema
