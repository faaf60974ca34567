"""The manifest of a bundle: what its JSON says, checked member by member."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import orjson

from penstock.engine.features.signature import Signature
from penstock.engine.models.bundle.run_options import Runtime
from penstock.schemas.errors import ConfigError

format_number = 4
output_width_max = 1 << 20
_text_characters_max = 256


Meaning = Literal["probability", "decision", "log_odds", "log", "value", "anomaly_score", "cluster", "rank"]
"""What the numbers of an output are: shares of one; a classifier's margin, which is no probability; log odds; the logarithm
of a value; a value; how usual a record is (low: an anomaly); distances to, or numbers of, clusters; a score to sort by."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelOutput:
    """A numeric output of the graph, `width` numbers a row."""

    name: str
    width: int
    meaning: Meaning = "value"
    """What explanations and messages call it, and the space in which they add up where the output itself is explained."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Labels:
    """Where a classifier's answer comes from.

    `output` is a graph output with one of `values` a row, in the order of `classes`; or, without values, a numeric
    output with a column for each class, whose highest wins (the first of equals).
    """

    classes: tuple[str, ...]
    output: str
    values: tuple[int, ...] | tuple[str, ...] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a bundle says of itself. Nothing in it depends on the time or the machine."""

    name: str
    version: str
    signature: Signature
    outputs: tuple[ModelOutput, ...]
    labels: Labels | None
    trees: bool
    """The graph is a tree ensemble that the tree explainers read."""
    covers: bool
    """The tree ensemble carries the covers of its training."""
    provenance: Mapping[str, Any]
    runtime: Runtime = field(default_factory=Runtime)

    def to_bytes(self, files: Mapping[str, bytes]) -> bytes:
        """Canonical JSON, with the digests of these files."""
        labels = self.labels
        tree = {
            "format": format_number,
            "name": self.name,
            "version": self.version,
            "signature": self.signature.to_json(),
            "outputs": [asdict(output) for output in self.outputs],
            "labels": labels
            and {
                "classes": list(labels.classes),
                "output": labels.output,
                "values": None if labels.values is None else list(labels.values),
            },
            "explain": {"trees": self.trees, "covers": self.covers},
            "runtime": self.runtime.to_json(),
            "provenance": self.provenance,
            "files": {name: _facts(data) for name, data in files.items()},
        }
        return orjson.dumps(
            tree, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
        )

    @staticmethod
    def from_bytes(data: bytes, files: Mapping[str, bytes]) -> "Manifest":
        """Undo to_bytes. Raises ConfigError when it is malformed, or these are not the files it speaks of."""
        tree = json_object(data, "manifest.json")
        _check_members(tree)
        _check_files(tree["files"], files)
        outputs = _outputs(tree["outputs"])
        return Manifest(
            name=tree["name"],
            version=tree["version"],
            signature=Signature.from_json(tree["signature"]),
            outputs=outputs,
            labels=None if tree["labels"] is None else _labels(tree["labels"], outputs),
            trees=tree["explain"]["trees"],
            covers=tree["explain"]["covers"],
            provenance=tree["provenance"],
            runtime=Runtime.from_json(tree["runtime"]),
        )


def json_object(data: bytes, name: str) -> dict[str, Any]:
    """The object in a JSON text. Raises ConfigError naming the file."""
    try:
        tree = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{name} is not JSON: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{name} does not hold a JSON object")
    return tree


def _facts(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _check_members(tree: Mapping[str, Any]) -> None:
    if tree.get("format") != format_number:
        raise ConfigError(
            f"its format is {tree.get('format')}, this program reads {format_number}; package the model again"
        )
    members: dict[str, Any] = {
        "format": int,
        "name": str,
        "version": str,
        "signature": dict,
        "outputs": list,
        "labels": dict | None,
        "explain": dict,
        "runtime": dict,
        "provenance": dict,
        "files": dict,
    }
    if set(tree) != set(members):
        odd = sorted(set(tree) ^ set(members))[0]
        raise ConfigError(f"the manifest {'lacks' if odd in members else 'has an unknown member'} {odd}")
    for member, kind in members.items():
        if not isinstance(tree[member], kind):
            raise ConfigError(f"member {member} of the manifest has the wrong type")
    for member in ("name", "version"):
        if not 1 <= len(tree[member]) <= _text_characters_max or not tree[member].isprintable():
            raise ConfigError(f"the {member} in the manifest is empty, too long or not printable")
    explain = tree["explain"]
    if set(explain) != {"trees", "covers"} or any(type(value) is not bool for value in explain.values()):
        raise ConfigError("member explain of the manifest is not trees and covers, true or false")


def _check_files(facts: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    if set(facts) != set(files):
        odd = sorted(set(facts) ^ set(files))[0]
        raise ConfigError(f"{odd} is in the {'manifest' if odd in facts else 'folder'} only")
    for name, data in files.items():
        if facts[name] != _facts(data):
            raise ConfigError(f"{name} is not the file that was packaged: its digest differs")


def _outputs(items: list[Any]) -> tuple[ModelOutput, ...]:
    outputs = []
    for item in items:
        if (
            not isinstance(item, dict)
            or set(item) != {"name", "width", "meaning"}
            or not isinstance(item["name"], str)
            or type(item["width"]) is not int
            or not 1 <= item["width"] <= output_width_max
            or item["meaning"] not in get_args(Meaning)
        ):
            raise ConfigError("an output in the manifest is not a name, a width and a meaning")
        outputs.append(ModelOutput(**item))
    if not outputs or len({output.name for output in outputs}) != len(outputs):
        raise ConfigError("the manifest names no output, or one twice")
    return tuple(outputs)


def _labels(tree: Mapping[str, Any], outputs: tuple[ModelOutput, ...]) -> Labels:
    if set(tree) != {"classes", "output", "values"}:
        raise ConfigError("member labels of the manifest is not classes, output and values")
    classes, output, values = tree["classes"], tree["output"], tree["values"]
    kinds = {type(value) for value in values} if isinstance(values, list) else {type(values)}
    if (
        not isinstance(output, str)
        or not isinstance(classes, list)
        or not classes
        or any(not isinstance(name, str) for name in classes)
        or len(set(classes)) != len(classes)
        or kinds not in ({int}, {str}, {type(None)})
    ):
        raise ConfigError("member labels of the manifest has a member of the wrong type, or a class twice")
    if values is None:
        widths = {each.name: each.width for each in outputs}
        if widths.get(output) != len(classes):
            raise ConfigError(f"the classes do not fit the output {output} that they are read from")
    elif len(values) != len(classes) or len(set(values)) != len(values):
        raise ConfigError("the label values in the manifest do not fit the classes")
    return Labels(classes=tuple(classes), output=output, values=None if values is None else tuple(values))
