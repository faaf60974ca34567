"""The objects of a pipeline as plain YAML: the chart's own templates over a user's values, refused as Helm would refuse them."""

import difflib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from penstock.engine.manifest.templates import Chart, ChartError
from penstock.schemas.errors import ConfigError

if TYPE_CHECKING:
    from jsonschema import ValidationError

chart_folder: Final = Path(__file__).with_name("chart")
_first: Final = ("ServiceAccount", "ConfigMap")
"""Kinds that the others name."""
_faults_max: Final = 20
_must: Final = {
    "type": "be of type {0}", "enum": "be one of {0}", "minimum": "be at least {0}", "maximum": "be at most {0}",
    "exclusiveMinimum": "be more than {0}", "exclusiveMaximum": "be less than {0}", "pattern": "be written as {0}",
    "maxLength": "be no longer than {0}", "minLength": "be no shorter than {0}", "minItems": "have at least {0} entries",
    "maxItems": "have at most {0} entries", "required": "have all of {0}", "minProperties": "have at least {0} keys",
    "maxProperties": "have at most {0} keys", "const": "be {0}",
}  # fmt: skip


def manifest(values: Mapping[str, Any], *, name: str, namespace: str) -> str:
    """Every object of the pipeline `name`, as YAML that says of itself how it is applied.

    Raises ConfigError with every fault of the values: those that their schema finds, by their path, or else those that the chart
    finds, in a sentence each. No value is quoted.
    """
    chart = Chart(chart_folder)
    faults = list(_against_schema(chart.values(dict(values))))
    if faults:
        more = f"; and {len(faults) - _faults_max} more" if len(faults) > _faults_max else ""
        raise ConfigError("; ".join(faults[:_faults_max]) + more)
    try:
        texts = chart.render(dict(values), release=name, namespace=namespace, service="penstock")
    except ChartError as error:
        raise ConfigError("; ".join(str(error).split("\n")[1:])) from None
    parts = [
        part.strip("\n")
        for file, text in texts.items()
        if file.endswith(".yaml")
        for part in text.split("\n---\n")
        if yaml.safe_load(part)
    ]
    parts.sort(key=lambda part: yaml.safe_load(part)["kind"] not in _first)
    head = f"# Made by `penstock manifest`: kubectl apply --namespace {namespace} --filename FILE"
    return "\n---\n".join([f"{head}\n{parts[0]}", *parts[1:]]) + "\n"


def _against_schema(values: dict[str, Any]) -> Iterator[str]:
    from jsonschema import Draft7Validator  # late: an extra brings it

    schema = json.loads((chart_folder / "values.schema.json").read_text(encoding="utf-8"))
    for error in Draft7Validator(schema).iter_errors(values):
        yield from _told(error)


def _told(error: "ValidationError") -> Iterator[str]:
    path = ".".join(str(part) for part in error.absolute_path) or "the values"
    if error.validator == "additionalProperties" and isinstance(error.schema, Mapping):
        known = list(error.schema.get("properties", ()))
        for name in sorted(set(error.instance) - set(known)):
            near = difflib.get_close_matches(str(name), known, n=1)
            meant = f": {near[0]}?" if near else f"; there are {', '.join(known)}" if known else ""
            yield f"{path}.{name} is not known{meant}".removeprefix("the values.")
    elif error.context and all(inner.validator == "type" for inner in error.context):
        yield f"{path} must be of type {' or '.join(str(inner.validator_value) for inner in error.context)}"
    elif error.context:
        found = [told for inner in error.context for told in _told(inner)]
        yield " or ".join(dict.fromkeys(found))
    elif error.validator in _must:
        wanted = error.validator_value
        shown = ", ".join(map(str, wanted)) if isinstance(wanted, list) else str(wanted)
        yield f"{path} must {_must[str(error.validator)].format(shown)}"
    else:
        yield f"{path} is not allowed here"
