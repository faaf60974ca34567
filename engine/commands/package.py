"""`penstock package`: a trained model becomes a bundle, with the proof that it predicts the same."""

import argparse
from pathlib import Path
from typing import Any

from engine.models.packaging import PackageReport, package
from engine.models.parity import tolerance_default
from engine.terminal import Terminal
from schemas.errors import ConfigError

summary = (
    "Make a model bundle from ONNX (.onnx), XGBoost (.json, .ubj), LightGBM (.txt) or scikit-learn (.skops), and prove "
    "that it predicts what the original predicts. A difference beyond the tolerance is an error, and nothing is written."
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
        "--tolerance",
        type=float,
        default=tolerance_default,
        help=f"largest difference allowed, relative to scores above 1 (default {tolerance_default:g})",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Package, and report."""
    if not 0 <= arguments.tolerance < 1:
        raise ConfigError("--tolerance is a number from 0 to 1")
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
        input_schema=arguments.input_schema,
        tolerance=arguments.tolerance,
    )
    for fact, value in _facts(report).items():
        terminal.say(f"{fact:<20}{value}")
    for note in report.notes:
        terminal.say(f"note: {note}")
    terminal.result(_json(report))
    return 0


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _facts(report: PackageReport) -> dict[str, str]:
    bundle, parity = report.bundle, report.parity
    features = bundle.signature.features
    categories = sum(feature.kind == "category" for feature in features)
    rows = f"{parity.rows_given} given, {parity.rows_made_up} on thresholds and with values missing"
    return {
        "bundle": str(report.path),
        "model": f"{bundle.name} {bundle.version}, from {bundle.manifest.provenance['source']}",
        "digest": bundle.digest,
        "features": f"{len(features)}" + (f", {categories} of them categories" if categories else ""),
        "classes": ", ".join(bundle.classes) or "none",
        "explained by": _explained_by(report),
        "native trees": _native(report),
        "compared on": f"{parity.rows_given + parity.rows_made_up} rows: {rows}",
        "largest difference": f"{parity.difference_max:.2g} (allowed: {parity.tolerance:g})",
    }


def _explained_by(report: PackageReport) -> str:
    """How the predictions of this bundle will be explained by default."""
    bundle = report.bundle
    if bundle.covers:
        return "exact tree SHAP, path-dependent (the covers are kept)"
    if bundle.background is None:
        return "nothing: it has no background"
    return "exact tree SHAP, interventional" if bundle.trees else "sampled SHAP"


def _native(report: PackageReport) -> str:
    """Whether our tree kernel may serve the model, and what that rests on."""
    proof = report.bundle.manifest.runtime.native
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
        "trees": bundle.trees,
        "covers": bundle.covers,
        "background_digest": bundle.background_digest,
        "parity": {
            "rows_given": parity.rows_given,
            "rows_made_up": parity.rows_made_up,
            "rows_narrowed": parity.rows_narrowed,
            "difference_max": parity.difference_max,
            "tolerance": parity.tolerance,
        },
        "runtime": {
            **bundle.manifest.runtime.to_json(),
            "compared": [
                {"rows": each.rows, "onnxruntime_ms": each.onnxruntime_ms, "native_ms": each.native_ms}
                for each in report.compared
            ],
        },
        "notes": list(report.notes),
    }
