"""Installs and imports the wheel beside what people run it with, each in an environment of its own: `make test-beside`.

The report says for each neighbour which versions were resolved and whether both import and Penstock predicts. Exit code 1
when one of them fails. Takes minutes and gigabytes, so it runs before a release and not in `make test`.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

install_timeout_s = 900.0
run_timeout_s = 180.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbour:
    """A distribution, and the module that it installs."""

    name: str
    module: str
    python: str = "3.11"


neighbours = (
    Neighbour(name="apache-flink>=2", module="pyflink.table"),
    Neighbour(name="apache-beam", module="apache_beam"),
    Neighbour(name="pyspark", module="pyspark.sql"),
    Neighbour(name="kserve", module="kserve"),
    Neighbour(name="tritonclient[grpc]", module="tritonclient.grpc"),
    Neighbour(name="tensorflow", module="tensorflow"),
    Neighbour(name="mlflow", module="mlflow"),
)

# Both orders of import, since a library that registers a protobuf file or loads a shared library may disturb the next one.
program = """
import sys
first, second = sys.argv[1:3]
__import__(first); __import__(second)
import penstock.schemas.externalscaler as messages
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.runtime.loader import open_model
from penstock.engine.clock import SystemClock
import numpy as np
messages.MetricValue.FromString(messages.MetricValue(metricName="m", metricValue=3).SerializeToString())
model = open_model(Bundle.load(sys.argv[3]), device="cpu", batch_rows_max=8, clock=SystemClock())
assert np.isfinite(model.predict(np.zeros((4, 3), np.float32)).outputs["value"]).all()
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What became of one neighbour."""

    name: str
    version: str
    others: str
    seconds: float
    fault: str


def try_beside(neighbour: Neighbour, wheel: Path, bundle: Path, folder: Path) -> Finding:
    """Install both, then import them in either order and predict."""
    began_s = time.monotonic()
    python = folder / "bin" / "python"
    fault = _call(["uv", "venv", "--quiet", "--python", sys.executable, str(folder)], install_timeout_s)
    if not fault:
        wanted = [f"{wheel}[cpu,scaler]", neighbour.name]
        fault = _call(
            ["uv", "pip", "install", "--quiet", "--python", str(python), *wanted], install_timeout_s
        )
    for order in (("penstock", neighbour.module), (neighbour.module, "penstock")):
        if not fault:
            fault = _call([str(python), "-P", "-c", program, *order, str(bundle)], run_timeout_s)
    versions = _versions(python) if python.exists() else {}
    shown = ("protobuf", "numpy", "onnx", "onnxruntime", "fastavro", "pyarrow")
    return Finding(
        name=neighbour.name,
        version=versions.get(re.split(r"[[>]", neighbour.name)[0], ""),
        others=", ".join(f"{name} {versions[name]}" for name in shown if name in versions),
        seconds=time.monotonic() - began_s,
        fault=fault,
    )


def _call(command: Sequence[str], timeout_s: float) -> str:
    """The last line of what went wrong; empty when nothing did."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return f"no end within {timeout_s:.0f} s"
    if done.returncode == 0:
        return ""
    lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
    return " ".join(" ".join(lines[-6:]).split())[:600]


def _versions(python: Path) -> dict[str, str]:
    done = subprocess.run(
        ["uv", "pip", "list", "--quiet", "--format", "json", "--python", str(python)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return {each["name"]: each["version"] for each in json.loads(done.stdout)}


def report(findings: Sequence[Finding], wheel: Path) -> str:
    """The findings as a page in Markdown."""
    lines = [
        "# Beside others",
        "",
        f"`make test-beside`, {datetime.now(UTC):%d %B %Y}, Python {sys.version.split()[0]}, {wheel.name}. Each in an environment of its own:",
        "the wheel with `[cpu,scaler]` and the neighbour, resolved together, imported in either order, and a prediction made.",
        "",
        "| neighbour | version | resolved with | outcome |",
        "|---|---|---|---|",
    ]
    for each in findings:
        outcome = (
            "installs, imports and predicts"
            if not each.fault
            else f"**fails**: {each.fault}".replace("|", "\\|")
        )
        lines.append(f"| {each.name} | {each.version} | {each.others} | {outcome} |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Try every neighbour and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("bundle", type=Path, help="a bundle of three features with an output `value`")
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--only", action="append", default=[])
    arguments = parser.parse_args(argv)
    findings: list[Finding] = []
    for neighbour in neighbours:
        if arguments.only and neighbour.name not in arguments.only:
            continue
        folder = Path(tempfile.mkdtemp(prefix="beside-"))
        try:
            findings.append(
                try_beside(neighbour, arguments.wheel.resolve(), arguments.bundle.resolve(), folder / "venv")
            )
        finally:
            shutil.rmtree(folder)
        last = findings[-1]
        print(
            f"{last.name} {last.version}: {last.fault or 'installs, imports and predicts'} ({last.seconds:.0f} s)",
            flush=True,
        )
    arguments.report.write_text(report(findings, arguments.wheel), encoding="utf-8")
    return int(any(each.fault for each in findings))


if __name__ == "__main__":
    raise SystemExit(main())
