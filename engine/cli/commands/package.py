"""`penstock package`: a trained model becomes a bundle, with the proof that it predicts the same."""

import argparse
import math
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from penstock.engine.clock import SystemClock
from penstock.engine.console.terminal import Terminal
from penstock.engine.explain.additive.explainer import AdditiveExplainer
from penstock.engine.explain.chosen_output import usual_choice
from penstock.engine.explain.factory import make_explainer
from penstock.engine.explain.gradient.explainer import GradientExplainer
from penstock.engine.explain.sampled.explainer import SampledExplainer
from penstock.engine.gpu.device import Device
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.bundle.memory import as_text, worker_bytes
from penstock.engine.models.packaging.optimize import Optimized, error_allowed_default
from penstock.engine.models.packaging.package import PackageReport, package
from penstock.engine.models.packaging.parity import tolerance_default
from penstock.engine.models.runtime.session_spec import Opening
from penstock.engine.settings.model import ExplainSettings
from penstock.engine.tensorboard.packaged import check_folder, write_event_file
from penstock.schemas.errors import ConfigError, ModelError

tried_rows = 16
"""Golden rows that the method of explaining is tried on, for its error."""

summary = (
    "Make a model bundle from ONNX (.onnx), XGBoost (.json, .ubj), LightGBM (.txt), CatBoost (.cbm), scikit-learn (.skops) or "
    "PMML (.pmml), and prove that it predicts what the original predicts. A difference beyond the tolerance is an error, and nothing is written."
)
example = "penstock package fraud.txt --out models/fraud --background train.parquet --classes honest,fraud"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="the model file")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the bundle; an older one is replaced"
    )
    parser.add_argument("--name", help="default: the name of DIR")
    parser.add_argument("--version", default="1", help="default: 1")
    parser.add_argument(
        "--background",
        type=Path,
        metavar="FILE",
        help="rows that explanations are relative to: .npy, .csv or .parquet",
    )
    parser.add_argument("--rows", type=Path, metavar="FILE", help="more rows to prove parity on")
    parser.add_argument(
        "--expected",
        type=Path,
        metavar="FILE",
        help="what the original answers to --rows: .npy, .csv or .parquet, a column for each class or output",
    )
    parser.add_argument(
        "--unproved",
        action="store_true",
        help="accept outputs that could be compared with nothing of the original's (else exit code 1)",
    )
    parser.add_argument(
        "--missing",
        type=float,
        metavar="NUMBER",
        help="a number that stands for a missing value, as XGBoost's missing=-999, which a model file does not keep; of one "
        'feature only: "sentinel" in --features',
    )
    parser.add_argument(
        "--input-schema", type=Path, metavar="FILE", help="Avro schema of the input records (.avsc)"
    )
    parser.add_argument(
        "--features",
        type=Path,
        metavar="FILE",
        help='JSON list of features: [{"name": "carrier", "kind": "category", "categories": ["AA", "UA"]}, ...]',
    )
    parser.add_argument(
        "--feature-names", type=_words, metavar="A,B,...", help="names of the columns, in order"
    )
    parser.add_argument("--classes", type=_words, metavar="A,B,...", help="names of the classes, in order")
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="TYPE",
        help="a type that may be built from a .skops file besides scikit-learn's own, by its full name; once for each. Building "
        "it runs code of its package: only for types that you know",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=tolerance_default,
        help=f"largest difference allowed, relative to scores above 1 (default {tolerance_default:g})",
    )
    parser.add_argument(
        "--optimize",
        action="store_true",
        help="try other forms of the graph (rewritten, float16, int8) and options of its session, and keep the fastest that "
        "keeps to --allow-error",
    )
    parser.add_argument(
        "--allow-error",
        type=float,
        metavar="X",
        help=f"with --optimize: how far a score may move, relative to scores above 1 (default {error_allowed_default:g})",
    )
    parser.add_argument(
        "--device",
        metavar="DEVICE",
        help="with --optimize: where the variants are run and timed, cpu or cuda:INDEX (default cpu)",
    )
    parser.add_argument(
        "--sign",
        type=Path,
        metavar="KEY",
        help="sign the bundle with this private key, as `penstock sign` does",
    )
    parser.add_argument(
        "--key-password-file", type=Path, metavar="FILE", help="holds the password of the key"
    )
    parser.add_argument(
        "--tensorboard",
        type=Path,
        metavar="DIR",
        help="write the graph, the importance of the features and the parity as event files for TensorBoard, into a new or an "
        "empty folder",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def read_password(file: Path | None) -> str | None:
    """What is in a file, without one line end; None without a file. Raises ConfigError."""
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the password in {file}") from error


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Package, and report."""
    if not 0 <= arguments.tolerance < 1:
        raise ConfigError("--tolerance is a number from 0 to 1")
    if arguments.allow_error is not None and not (arguments.optimize and 0 <= arguments.allow_error < 1):
        raise ConfigError("--allow-error is a number from 0 to 1, and goes with --optimize")
    if arguments.device is not None and not arguments.optimize:
        raise ConfigError("--device goes with --optimize")
    if arguments.tensorboard is not None:
        check_folder(arguments.tensorboard, bundle=arguments.out)
    within = error_allowed_default if arguments.allow_error is None else arguments.allow_error
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # what other libraries warn of is no sentence of ours; the report has notes
        report = package(
            arguments.model,
            arguments.out,
            name=arguments.name,
            version=arguments.version,
            feature_names=arguments.feature_names,
            features=arguments.features,
            classes=arguments.classes,
            background=arguments.background,
            rows=arguments.rows,
            expected=arguments.expected,
            missing=arguments.missing,
            trusted=arguments.trust,
            input_schema=arguments.input_schema,
            tolerance=arguments.tolerance,
            optimize_within=within if arguments.optimize else None,
            optimize_on=arguments.device or "cpu",
        )
    if arguments.sign is not None:
        Bundle.sign(arguments.out, key=arguments.sign, password=read_password(arguments.key_password_file))
    facts = _facts(report)
    events = None
    if arguments.tensorboard is not None:
        events = write_event_file(report, facts, arguments.tensorboard, clock=SystemClock())
        facts["TensorBoard"] = str(events)
    for fact, value in facts.items():
        terminal.say(f"{fact:<20}{value}")
    for note in report.notes:
        terminal.say(f"note: {note}")
    if report.optimized is not None:
        terminal.say()
        terminal.say(_variants(report.optimized))
        for each in report.optimized.variants:
            if each.fault:
                terminal.say(f"{each.name}: {each.fault}")
        kept = report.optimized
        terminal.say(f"kept: {kept.chosen.name}: {kept.reason}; measured on {kept.device}")
    unproved = report.parity.not_compared and not arguments.unproved
    if unproved:
        terminal.say(
            f"not compared with the original: {', '.join(report.parity.not_compared)}; the bundle is written. Give the "
            "original's answers (--rows FILE --expected FILE), or accept it (--unproved)"
        )
    terminal.result({**_json(report), "tensorboard": None if events is None else str(events)})
    return 1 if unproved else 0


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _facts(report: PackageReport) -> dict[str, str]:
    bundle, parity = report.bundle, report.parity
    features = bundle.signature.features
    categories = sum(feature.kind == "category" for feature in features)
    rows = f"{parity.rows_given} given, {parity.rows_made_up} made up (on thresholds, of other decimals, with gaps)"
    markers = sorted({feature.sentinel for feature in features if feature.sentinel is not None})
    return {
        "bundle": str(report.path),
        "model": f"{bundle.name} {bundle.version}, from {bundle.manifest.provenance['source']}",
        "digest": bundle.digest,
        "features": f"{len(features)}"
        + (f", {categories} of them categories" if categories else "")
        + "".join(f", {each.name} a text of {each.width} words" for each in features if each.kind == "text"),
        "classes": ", ".join(bundle.classes) or "none",
        "outputs": ", ".join(
            f"{output.name} ({output.meaning.replace('_', ' ')})" for output in bundle.outputs
        ),
        "missing values": ", ".join(["null, absent, NaN", *(f"{marker:g}" for marker in markers)]),
        "explained by": _explained_by(report),
        "worker's memory": f"about {as_text(worker_bytes(bundle))} (an estimate, by the size of the model)",
        "native trees": _native(report),
        "compared on": f"{parity.rows_given + parity.rows_made_up} rows: {rows}",
        "compared with": _compared_with(report),
        "largest difference": f"{parity.difference_max:.2g} (allowed: {parity.tolerance:g})"
        if parity.compared
        else "not compared",
    }


def _compared_with(report: PackageReport) -> str:
    """Which output was compared with what."""
    parity = report.parity
    parts = [f"{name}: {what}" for name, what in parity.compared.items()]
    return "; ".join([*parts, *(f"{name}: not compared" for name in parity.not_compared)])


def _explained_by(report: PackageReport) -> str:
    """How the predictions of this bundle will be explained by default."""
    bundle = report.bundle
    if not bundle.covers and bundle.background is None:
        return "nothing: it has no background"
    if bundle.covers:
        words = "exact tree SHAP, path-dependent (the covers are kept)"
    else:
        words = "exact tree SHAP, interventional" if bundle.trees else _sampled_by(bundle)
    wanted = usual_choice(bundle.widths, bundle.classes, trees=bundle.trees)
    if wanted == "predicted":
        return words
    ways = "all, or the number of one" if wanted == "all" else "one by its name"
    return f"{words}; it has several {'targets' if wanted == 'all' else 'outputs'}: explain.output chooses {ways}"


def _sampled_by(bundle: Bundle) -> str:
    """The method that `auto` takes for a model that is no tree ensemble, tried on a few of the golden rows."""
    golden = bundle.golden
    model = Opening(device=Device(), threads=1, batch_rows_max=tried_rows).open(bundle)
    try:
        wanted = usual_choice(bundle.widths, bundle.classes, trees=False)
        explainer = make_explainer(bundle, model, ExplainSettings(output=wanted))
        rows = golden.rows[:tried_rows]
        found = explainer.explain(rows, model.predict(rows))
    except (ConfigError, ModelError) as error:
        return f"nothing yet: {error}"
    words = found.method.replace("_", " ")
    background_rows = 0 if bundle.background is None else len(bundle.background)
    if isinstance(explainer, AdditiveExplainer):
        words = f"exact, a part for each feature, in {found.space}"
    if isinstance(explainer, (AdditiveExplainer, SampledExplainer, GradientExplainer)):
        words += f", relative to {explainer.background_rows} of {background_rows} background rows"
    if found.sampling_error is not None and len(found.sampling_error):
        words += f"; sampling error about {float(np.median(found.sampling_error)):.2g} a feature"
    return words


def _native(report: PackageReport) -> str:
    """Whether our tree kernel may serve the model, and what that rests on."""
    proof = report.bundle.manifest.runtime.native
    if report.bundle.table is not None:
        return f"yes: {proof.reason}"
    if not proof.rows:
        return f"no: {proof.reason}"
    found = (
        f"compared on {proof.rows} rows, {proof.tests_hit} of {proof.tests} tests met head-on: "
        f"at most {proof.difference_max:g} of the span apart, {proof.labels_different} labels differ"
    )
    if not proof.equal:
        return f"no: {proof.reason} ({found})"
    fast = report.compared[-1]
    return f"equal to ONNX Runtime ({found}); {fast.speed_up:.1f} times as fast here at {fast.rows} rows"


def _variants(optimized: Optimized) -> Table:
    sizes = [size for size, _ in optimized.variants[0].ms]
    columns = ["variant", "KB", "load, ms", *(f"{size} rows, ms" for size in sizes), "error", "alone", "fits"]
    table = Table(*columns, box=None)
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for each in optimized.variants:
        if each.fault:
            continue
        table.add_row(
            each.name,
            f"{len(each.model) / 1000:,.0f}",
            f"{each.load_ms:.1f}",
            *(f"{took_ms:.3f}" for _, took_ms in each.ms),
            f"{each.difference_max:.1g}",
            f"{each.alone_difference_max:.1g}",
            "yes" if each.keeps_to(optimized.error_allowed) else "no",
        )
    return table


def _variants_json(optimized: Optimized) -> dict[str, Any]:
    return {
        "device": optimized.device,
        "error_allowed": optimized.error_allowed,
        "chosen": {"form": optimized.chosen.form, "optimization": optimized.chosen.optimization},
        "reason": optimized.reason,
        "variants": [
            {
                "form": each.form,
                "optimization": each.optimization,
                "fault": each.fault or None,
                "bytes": len(each.model),
                "load_ms": each.load_ms,
                "ms": [{"rows": size, "ms": took_ms} for size, took_ms in each.ms],
                "difference_max": _finite(each.difference_max),
                "alone_difference_max": _finite(each.alone_difference_max),
                "labels_different": each.labels_different,
                "keeps_to_error": each.keeps_to(optimized.error_allowed),
            }
            for each in optimized.variants
        ],
    }


def _finite(number: float) -> float | None:
    """JSON has no infinity: a score that became NaN differs by nothing that could be written."""
    return number if math.isfinite(number) else None


def _json(report: PackageReport) -> dict[str, Any]:
    bundle, parity = report.bundle, report.parity
    return {
        "path": str(report.path),
        "name": bundle.name,
        "version": bundle.version,
        "digest": bundle.digest,
        "source": bundle.manifest.provenance["source"],
        "features": list(bundle.signature.columns),
        "classes": list(bundle.classes),
        "outputs": [asdict(output) for output in bundle.outputs],
        "trees": bundle.trees,
        "worker_bytes": worker_bytes(bundle),
        "covers": bundle.covers,
        "background_digest": bundle.background_digest,
        "parity": {
            "rows_given": parity.rows_given,
            "rows_made_up": parity.rows_made_up,
            "difference_max": parity.difference_max if parity.compared else None,
            "differences": dict(parity.differences),
            "compared": dict(parity.compared),
            "not_compared": list(parity.not_compared),
            "tolerance": parity.tolerance,
        },
        "runtime": {
            **bundle.manifest.runtime.to_json(),
            "compared": [
                {"rows": each.rows, "onnxruntime_ms": each.onnxruntime_ms, "native_ms": each.native_ms}
                for each in report.compared
            ],
        },
        "optimized": None if report.optimized is None else _variants_json(report.optimized),
        "notes": list(report.notes),
    }
