"""Other people's readers read what Penstock writes, on a real Kafka: `make test-readers`, before a release.

One stream of records is predicted and explained twice, into Avro topics and into JSON topics. A Go and a TypeScript service read
the Avro topics; DuckDB, Spark and Flink SQL read the JSON ones as files of lines, and an OpenSearch node indexes them. What each read
is compared, value by value, with what fastavro reads. The report names the versions. Exit code 1 when a reader fails or reads anything else.
"""

import argparse
import io
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fastavro
import lightgbm
import numpy as np
import pandas as pd

import penstock
from penstock.connectors.embedded.kafka import EmbeddedKafka
from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.simple import KafkaReader
from penstock.engine.clock import SystemClock
from penstock.engine.codec.contracts import contract
from tests.stream import Stream

here = Path(__file__).parent
records = 2000
kinds = {"prediction": "predictions", "explanation": "explanations"}
header_bytes = 10
copy = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
event_schema: dict[str, Any] = {
    "type": "record", "name": "Event", "namespace": "penstock.readers", "fields": [
        {"name": "amount", "type": ["null", "double"]}, {"name": "land", "type": "string"},
    ],
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What became of one reader."""

    name: str
    version: str
    read: int
    seconds: float
    fault: str


def write_model(folder: Path) -> Path:
    """A classifier of a number that may be missing and a text, as a bundle."""
    rng = np.random.default_rng(3)
    lands = pd.Categorical(rng.choice(["DE", "NO", "SE"], 2000), categories=["DE", "NO", "SE"])
    table = pd.DataFrame({"amount": rng.normal(100, 30, 2000), "land": lands})
    table.loc[::9, "amount"] = np.nan
    answers = np.where((table["amount"].fillna(90) > 100) ^ (lands == "SE"), "fraud", "honest")
    model = lightgbm.LGBMClassifier(n_estimators=20, max_depth=4, verbose=-1).fit(table, answers)
    schema = folder / "event.avsc"
    schema.write_text(json.dumps(event_schema))
    penstock.package(model, folder / "model", rows=table[:300], input_schema=schema)
    return folder / "model"


def events() -> list[bytes]:
    """Records as producers write them, with Avro's single-object header."""
    from penstock.engine.codec.framing import single_object_prefix

    rng, prefix = np.random.default_rng(4), single_object_prefix(event_schema)
    parsed, found = fastavro.parse_schema(event_schema), []
    for number in range(records):
        out = io.BytesIO()
        amount = None if number % 11 == 0 else float(rng.normal(100, 30))
        fastavro.schemaless_writer(out, parsed, {"amount": amount, "land": ("DE", "NO", "SE")[number % 3]})
        found.append(prefix + out.getvalue())
    return found


def served(folder: Path, servers: str, bundle: Path, name: str, **output: Any) -> Stream:
    """A stream of the events whose outcomes are all there."""
    stream = Stream(folder, servers, name, bundle, explain={"policy": "every"})
    if output:
        import yaml

        tree = yaml.safe_load(stream.settings.read_text())
        tree["output"] |= output
        stream.settings.write_text(yaml.safe_dump(tree))
    stream.feed(events(), per_s=1e6)
    stream.start("a")
    stream.wait(1.0, 120.0)
    stream.await_readers(60.0)
    return stream


def messages(servers: str, topic: str) -> list[bytes]:
    """Every value of a topic."""
    reader = KafkaReader(ClientConfig(bootstrap_servers=servers), topic, SystemClock())
    try:
        return [value for part in reader.read_to_end(60.0) for value in part.values if value is not None]
    finally:
        reader.close()


def expected(kind: str, values: Sequence[bytes]) -> list[list[Any]]:
    """What fastavro reads, in the shape that every reader prints."""
    schema, rows = fastavro.parse_schema(contract(kind)), []
    for value in values:
        body: Any = fastavro.schemaless_reader(io.BytesIO(value[header_bytes:]), schema, None)
        where = [body["source"]["partition"], body["source"]["offset"]]
        if kind == "prediction":
            rows.append([*where, body["label"], body["label_index"], body["classes"], body["outputs"]])
        else:
            parts = [[a["feature"], a["number"], a["text"], a["attribution"]] for a in body["attributions"]]
            rows.append([*where, body["base_value"], parts])
    return sorted(rows, key=lambda row: (row[0], row[1]))


def call(command: Sequence[str], *, cwd: Path = here, timeout_s: float = 300.0) -> str:
    """What it prints. Raises RuntimeError with the end of what it complained of."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        raise RuntimeError(" ".join((done.stderr or done.stdout).split())[-600:])
    return done.stdout


class Reader:
    """How a reader is made ready in a folder, and asked."""

    def __init__(self, name: str, avro: bool) -> None:
        self.name, self.avro = name, avro

    def prepare(self, folder: Path) -> tuple[list[str], str]:
        """The command that its arguments follow, and what it stands on."""
        if self.name == "Go":
            call(["go", "build", "-o", str(folder / "reader"), "."], cwd=here / "go")
            return [str(folder / "reader")], "franz-go 1.21, hamba/avro 2.31, " + call(
                ["go", "version"]
            ).split()[2]
        if self.name == "TypeScript":
            shutil.copytree(
                here / "typescript", folder / "ts", ignore=shutil.ignore_patterns("node_modules", "built")
            )
            call(["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"], cwd=folder / "ts")
            call(["npx", "tsc", "-p", "."], cwd=folder / "ts")
            return ["node", str(folder / "ts/built/read.js")], "kafkajs 2.2, avsc 5.7, Node " + call(
                ["node", "--version"]
            ).strip()
        if self.name == "OpenSearch":
            of_maven = here / "opensearch" / "pom.xml"
            call(
                ["mvn", "-B", "-q", "-f", str(of_maven), copy, f"-DoutputDirectory={folder / 'lib'}"],
                timeout_s=900,
            )
            core = next((folder / "lib").glob("opensearch-[0-9]*.jar"))
            script = here / "opensearch" / "by_opensearch.py"
            return [sys.executable, str(script), str(folder)], core.stem.replace("-", " ")
        package = {"DuckDB": "duckdb", "Spark": "pyspark", "Flink SQL": "apache-flink>=2"}[self.name]
        python = folder / "venv/bin/python"
        call(["uv", "venv", "--quiet", "--python", sys.executable, str(folder / "venv")])
        call(
            ["uv", "pip", "install", "--quiet", "--python", str(python), package, "setuptools<80"],
            timeout_s=900,
        )
        listed = json.loads(
            call(["uv", "pip", "list", "--quiet", "--format", "json", "--python", str(python)])
        )
        name = package.split(">")[0]
        script = here / "sql" / f"by_{name.removeprefix('py').removeprefix('apache-')}.py"
        return [
            str(python),
            str(script),
        ], f"{name} {next(each['version'] for each in listed if each['name'] == name)}"


readers = (
    Reader("Go", avro=True),
    Reader("TypeScript", avro=True),
    Reader("DuckDB", avro=False),
    Reader("Spark", avro=False),
    Reader("Flink SQL", avro=False),
    Reader("OpenSearch", avro=False),
)


def try_reader(
    reader: Reader, servers: str, avro: Stream, lines: Path, wanted: dict[str, list[list[Any]]]
) -> Finding:
    """Let it read everything and compare."""
    began_s, read, version, fault = time.monotonic(), 0, "", ""
    with tempfile.TemporaryDirectory(prefix="reader-") as folder:
        try:
            command, version = reader.prepare(Path(folder))
            for kind, plural in kinds.items():
                topic = [servers, str(lines), avro.outputs[plural], kind, str(records)]
                told = call([*command, *(topic if reader.avro else [str(lines / f"{kind}.jsonl"), kind])])
                rows = sorted(
                    (json.loads(line) for line in told.splitlines() if line.startswith("[")),
                    key=lambda row: (row[0], row[1]),
                )
                read += len(rows)
                if rows != wanted[kind]:
                    other = next(
                        (pair for pair in zip(rows, wanted[kind], strict=False) if pair[0] != pair[1]),
                        (len(rows), records),
                    )
                    raise RuntimeError(f"{kind}: read {other[0]}, and fastavro reads {other[1]}")
        except (RuntimeError, subprocess.TimeoutExpired, OSError) as error:
            fault = str(error)
    return Finding(
        name=reader.name, version=version, read=read, seconds=time.monotonic() - began_s, fault=fault
    )


def report(findings: Sequence[Finding]) -> str:
    """The findings as a page in Markdown."""
    lines = [
        "# Other readers",
        "",
        f"`make test-readers`, {datetime.now(UTC):%d %B %Y}: {records} predictions and {records} explanations of a classifier with a missing number and a text,",
        "written by a worker to a real Kafka. Go and TypeScript read Avro from the topics; DuckDB, Spark and Flink SQL read `output.format: json`",
        "as lines, as tables inferred or declared, and an OpenSearch node takes them as documents, mapped by itself. Every value is compared with what",
        "fastavro reads. Avro for Java, on which the Avro formats of Flink, Spark and Connect stand, is part of `make test`.",
        "",
        "| reader | with | messages | outcome |",
        "|---|---|---|---|",
    ]
    for each in findings:
        outcome = "every value equal" if not each.fault else f"**fails**: {each.fault}".replace("|", "\\|")
        lines.append(f"| {each.name} | {each.version} | {each.read:,} | {outcome} |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Try every reader and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--only", action="append", default=[], choices=[reader.name for reader in readers])
    arguments = parser.parse_args(argv)
    findings: list[Finding] = []
    with tempfile.TemporaryDirectory(prefix="readers-") as name, EmbeddedKafka() as kafka:
        folder, servers = Path(name), kafka.bootstrap_servers
        bundle = write_model(folder)
        avro = served(folder, servers, bundle, "avro")
        as_json = served(folder, servers, bundle, "json", format="json")
        try:
            wanted = {}
            for kind, plural in kinds.items():
                (folder / f"{kind}.avsc").write_text(json.dumps(contract(kind)))
                wanted[kind] = expected(kind, messages(servers, avro.outputs[plural]))
                lines = messages(servers, as_json.outputs[plural])
                (folder / f"{kind}.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
                assert len(wanted[kind]) == len(lines) == records
            for reader in readers:
                if arguments.only and reader.name not in arguments.only:
                    continue
                findings.append(try_reader(reader, servers, avro, folder, wanted))
                last = findings[-1]
                print(
                    f"{last.name} ({last.version}): {last.fault or 'every value equal'} ({last.seconds:.0f} s)",
                    flush=True,
                )
        finally:
            avro.close()
            as_json.close()
    arguments.report.write_text(report(findings), encoding="utf-8")
    return int(any(each.fault for each in findings))


if __name__ == "__main__":
    raise SystemExit(main())
