"""An OpenSearch node indexes JSON lines of predictions or explanations by dynamic mapping, and prints one JSON line a message.

python by_opensearch.py FOLDER FILE KIND; in FOLDER stand the jars, under lib/, and what the node writes.
"""

import json
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from math import isclose
from pathlib import Path
from typing import Any

timeout_s = 120.0
found_max = 10_000  # more, a search does not bring
float_digits = 1e-6  # a number is mapped to a column of 32 bits, by itself


def ask(address: str, path: str, body: bytes | None = None) -> Any:
    """The answer to a request; raises for any that is not 200 or 201."""
    asked = urllib.request.Request(f"http://{address}{path}", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=timeout_s) as answer:
        return json.load(answer)


def index(address: str, kind: str, lines: list[bytes]) -> None:
    """Every line a document of the index `kind`; raises SystemExit with the reason where one is not taken."""
    order = b'{"index": {}}\n'
    told = ask(address, f"/{kind}/_bulk?refresh=true", b"".join(order + line + b"\n" for line in lines))
    refused = [item["index"]["error"] for item in told["items"] if item["index"]["status"] != 201]
    if refused or len(told["items"]) != len(lines):
        raise SystemExit(f"took {len(lines) - len(refused)} of {len(lines)} {kind}s: {refused[:1]}")


def rows(address: str, kind: str) -> Iterator[list[Any]]:
    """What the index holds: where a record stood and what it is called from the index's own columns, the rest as it was sent."""
    columns = [
        "source.partition",
        "source.offset",
        *(["label.keyword"] if kind == "prediction" else ["base_value"]),
    ]
    search = {"size": found_max, "query": {"match_all": {}}, "docvalue_fields": columns}
    for hit in ask(address, f"/{kind}/_search", json.dumps(search).encode())["hits"]["hits"]:
        sent, (partition, offset, third) = hit["_source"], (hit["fields"][column][0] for column in columns)
        if kind == "prediction":
            yield [partition, offset, third, sent["label_index"], sent["classes"], sent["outputs"]]
        else:
            parts = [
                [each[name] for name in ("feature", "number", "text", "attribution")]
                for each in sent["attributions"]
            ]
            yield [
                partition,
                offset,
                sent["base_value"] if isclose(third, sent["base_value"], rel_tol=float_digits) else third,
                parts,
            ]


def main(folder: str, path: str, kind: str) -> None:
    """Start a node, fill it, ask it, end it."""
    with tempfile.TemporaryDirectory(dir=folder) as home:
        command = [
            "java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dlog4j2.level=ERROR", "-cp", f"{folder}/lib/*",
            str(Path(__file__).with_name("OneNode.java")), home,
        ]  # fmt: skip
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as node:
            try:
                address = next(line for line in node.stdout or () if line.startswith("answers at ")).split()[
                    -1
                ]
                index(address, kind, Path(path).read_bytes().splitlines())
                for row in rows(address, kind):
                    print(json.dumps(row))
            finally:
                node.communicate()


main(*sys.argv[1:])
