"""The references under docs/ and the map in ARCHITECTURE.md, written from the code by `make docs`."""

import argparse
import ast
import importlib
import inspect
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import penstock
from penstock.engine.cli.laboratory import with_options
from penstock.engine.cli.main import commands
from penstock.engine.codec.contracts import contract
from penstock.engine.codec.json_schema import json_schema
from penstock.engine.settings.kafka import client_properties_allowed
from penstock.engine.settings.model import Settings
from penstock.engine.settings.source import environment_prefix
from penstock.engine.telemetry.events import Event
from penstock.engine.telemetry.metrics_reference import reference as metrics_reference
from penstock.schemas.log_codes import LogCode

Node = dict[str, Any]

_root: Final = Path(__file__).resolve().parents[1]
_names_begin: Final = "<!-- names: written by make docs -->"
_map_begins: Final = "<!-- map: written by make docs -->"
_map_ends: Final = "<!-- map ends -->"

_example: Final = """```yaml
kafka:
  bootstrap_servers: kafka-1:9092,kafka-2:9092
  group: fraud-scorer
  delivery: exactly_once
  security: {protocol: SASL_SSL, mechanism: SCRAM-SHA-512, username: fraud, password_file: /run/secrets/kafka}
  client: {linger.ms: 0, compression.type: lz4}
registry: {url: "https://registry:8081"}
input: {topic: transactions, format: avro, schema: transaction.avsc}
output:
  predictions: transactions.predictions
  explanations: transactions.explanations
  dead_letters: transactions.dead-letters
  status: penstock.status
model: {path: models/fraud, device: auto, runtime: auto}
objective: {latency_slo_ms: 50}
explain: {policy: "score>=0.8", top: 5}
workers: 2
http: {host: 0.0.0.0, port: 9464}
scaling: {max_age_s: 30, min_replicas: 1, max_replicas: 16}
```"""

_exit_codes: Final = (
    (0, "done"),
    (1, "failed while running"),
    (2, "wrong usage or settings"),
    (3, "fenced by a twin: another worker runs under the same identity"),
    (4, "not ready in time"),
)


def references() -> dict[str, str]:
    """File name under docs/ to its text."""
    return {
        "settings.md": settings_reference(),
        "settings.schema.json": json.dumps(_schema(), indent=2) + "\n",
        **{
            f"{name}.schema.json": json.dumps(json_schema(contract(name)), indent=2) + "\n"
            for name in ("prediction", "explanation", "dead_letter")
        },
        "commands.md": commands_reference(),
        "metrics.md": metrics_reference(),
        "log-codes.md": log_codes_reference(),
        "files.md": file_map(),
        "python.md": with_names((Path(__file__).parent / "python.md").read_text(encoding="utf-8")),
    }


def log_codes_reference() -> str:
    """docs/log-codes.md: what the lines of a log are called."""
    lines = [
        "# Log codes",
        "",
        "Generated from the code by `make docs`; a test keeps it up to date, and another holds that no line of `penstock run` and",
        "`penstock scaler` is without one. With `--log-format json` it stands in `event.code`.",
        "",
        "State changes of a worker have `penstock.state` as their `event.dataset`; each is counted and stands in `/status`:",
        "[what a worker logs](operations.md#what-a-worker-logs) has a row for each. They are",
        f"{', '.join(f'`{event}`' for event in Event)}.",
        "",
        "All other lines have `penstock.log` as their `event.dataset`:",
        "",
        "| event.code | when |",
        "|---|---|",
        *(f"| `{code}` | {code.meaning} |" for code in LogCode),
        "",
    ]
    return "\n".join(lines)


def with_names(text: str) -> str:
    """docs/python.md with every public name of the package, its signature and its docstring."""
    return text[: text.index(_names_begin)] + "\n".join((_names_begin, "", "## Names", *_names()))


def _names() -> Iterator[str]:
    for name in penstock.__all__:
        value = getattr(penstock, name)
        if name == "__version__":
            continue
        yield from ("", f"### penstock.{name}", "")
        if not isinstance(value, type):
            yield from _signed(f"penstock.{name}", value)
            continue
        yield from _prose(inspect.getdoc(value) or "")
        for member, inner in vars(value).items():
            if member.startswith("_") or issubclass(value, Exception) or inspect.getdoc(inner) is None:
                continue
            if isinstance(inner, property):
                yield from ("", f"`{member}`: {_words(inspect.getdoc(inner) or '')}")
            elif callable(inner) or isinstance(inner, staticmethod):
                yield ""
                yield from _signed(f"{name}.{member}", inner)
    yield ""


def _signed(name: str, function: Any) -> Iterator[str]:
    written = str(inspect.signature(getattr(function, "__func__", function), eval_str=False))
    written = re.sub(r"\bself(, )?", "", written).replace("'", "").replace("(, *", "(*")
    written = re.sub(
        r"penstock(\.\w+)+\.(\w+)", r"\2", re.sub(r"(pathlib|collections\.abc|typing)\.", "", written)
    )
    yield from ("```text", f"{name}{written}", "```", "")
    yield from _prose(inspect.getdoc(function) or "")


def _prose(text: str) -> Iterator[str]:
    """A docstring's paragraphs; what it lists under Args and Attributes becomes a list."""
    for given in text.splitlines():
        entry = re.match(r"    (\w+): (.*)", given)
        if entry:
            yield f"- `{entry[1]}`: {entry[2]}"
        elif given.rstrip() in ("Args:", "Attributes:"):
            yield ""
        elif given.startswith("    "):
            yield f"  {given.strip()}"
        else:
            yield given


def file_map() -> str:
    """docs/files.md: every Python file of the product with the first line of its docstring."""
    lines = [
        "# Files",
        "",
        "Generated from the first lines of the docstrings by `make docs`; a test keeps it up to date. What depends on what",
        "stands in [ARCHITECTURE.md](../ARCHITECTURE.md).",
    ]
    for package in packages():
        lines += ["", f"## {package.relative_to(_root)}/", "", first_line(package / "__init__.py"), ""]
        files = [path for path in sorted(package.glob("*.py")) if path.name != "__init__.py"]
        if files:
            lines += ["| file | |", "|---|---|"]
            lines += [f"| `{path.name}` | {_words(first_line(path))} |" for path in files]
        elif lines[-1] == "":
            lines.pop()
    return "\n".join(lines) + "\n"


def package_map() -> str:
    """The table of packages in ARCHITECTURE.md."""
    rows = [
        f"| `{path.relative_to(_root)}/` | {_words(first_line(path / '__init__.py'))} |"
        for path in packages()
    ]
    return "\n".join(["| folder | |", "|---|---|", *rows])


def packages() -> list[Path]:
    """The folders with code, top by top."""
    tops = ("penstock", "engine", "connectors", "schemas", "benchmarks/penstock_bench")
    return [path.parent for top in tops for path in sorted((_root / top).rglob("__init__.py"))]


def first_line(file: Path) -> str:
    """The first line of a module's docstring. Raises ValueError where there is none."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    if not text:
        raise ValueError(f"{file} has no docstring")
    return text.split("\n", 1)[0]


def with_map(text: str) -> str:
    """ARCHITECTURE.md with its map between the two markers renewed."""
    before, rest = text.split(_map_begins, 1)
    _, after = rest.split(_map_ends, 1)
    return f"{before}{_map_begins}\n\n{package_map()}\n\n{_map_ends}{after}"


def settings_reference() -> str:
    """docs/settings.md: every key with its type, default, meaning and environment variable."""
    schema = _schema()
    lines = [
        "# Settings",
        "",
        "Generated from `engine/settings/model.py` by `make docs`; a test keeps it up to date. An unknown key is an error that names",
        "the nearest known one. Editors check and complete a `penstock.yaml` with [settings.schema.json](settings.schema.json):",
        "put `# yaml-language-server: $schema=` and its address on the first line.",
        "",
        f"Every key can be overridden by an environment variable: `{environment_prefix}` and the path in capitals, sections separated",
        f"by two underscores (`{environment_prefix}KAFKA__BOOTSTRAP_SERVERS`). A variable's text is taken as it is, secrets",
        "included: no quotes, no escapes. Only a list, a map or a whole section is YAML. Relative paths are relative to the settings",
        "file. Secrets come from files (`*_file`, where one line end does not count) or the environment; no message quotes a value.",
        "",
        _example,
    ]
    rows = list(_keys(schema, schema, ()))
    for section in dict.fromkeys(path[:-1] for path, _, _ in rows):
        title = ".".join(section) or "top level"
        told = _at(schema, section).get("description", "") if section else "Keys beside the sections."
        if section == ("kafka",):
            told += (
                " Under `client`: "
                + ", ".join(f"`{name}`" for name in sorted(client_properties_allowed))
                + "."
            )
        lines += ["", f"## {title}", "", told, "", "| key | type | default | meaning |", "|---|---|---|---|"]
        for path, node, required in rows:
            if path[:-1] == section:
                default = "required" if required else f"`{_default(node)}`"
                meaning = _words(node.get("description", ""))
                lines.append(f"| `{path[-1]}` | {_type(node)} | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def commands_reference() -> str:
    """docs/commands.md: every command with its arguments and an example."""
    lines = [
        "# Commands",
        "",
        "Generated from `engine/cli/commands/` by `make docs`; a test keeps it up to date.",
        "",
    ]
    lines += ["| exit code | means |", "|---|---|"]
    lines += [f"| {code} | {meaning} |" for code, meaning in _exit_codes]
    for name in commands:
        module = importlib.import_module(f"penstock.engine.cli.commands.{name}")
        parser = argparse.ArgumentParser(prog=f"penstock {name}")
        module.add_arguments(parser)
        lines += ["", f"## penstock {name}", "", _sentence(module.summary), ""]
        lines += ["```text", *(part.strip() for part in module.example.splitlines()), "```"]
        lines += list(_arguments(parser))
    return "\n".join(lines) + "\n"


def _arguments(parser: argparse.ArgumentParser, depth: int = 3) -> Iterator[str]:
    with_options(parser)
    nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    plain = [
        action
        for action in parser._actions
        if action not in nested and not isinstance(action, argparse._HelpAction)
    ]
    if plain:
        yield from ("", "| argument | meaning |", "|---|---|")
    for action in plain:
        yield f"| `{_usage(action)}` | {_words(_help(action))} |"
    for action in nested:
        told = {choice.dest: choice.help for choice in action._choices_actions}
        for name, child in action.choices.items():
            yield from ("", f"{'#' * depth} {child.prog}", "", _sentence(told.get(name) or ""))
            yield from _arguments(child, depth + 1)


def _usage(action: argparse.Action) -> str:
    takes: str = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    if action.choices is not None:
        takes = "{" + ",".join(map(str, action.choices)) + "}"
    if not action.option_strings:
        return takes
    names = ", ".join(action.option_strings)
    return names if action.nargs == 0 else f"{names} {takes}"


def _help(action: argparse.Action) -> str:
    text = action.help or ""
    for name, value in vars(action).items():
        text = text.replace(f"%({name})s", str(value)).replace(f"%({name})d", str(value))
    return text.replace("%%", "%")


def _schema() -> Node:
    schema = Settings.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _keys(schema: Node, node: Node, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Node, bool]]:
    """Path, node and whether it is required, of every key that is no section."""
    for name, child in node["properties"].items():
        section = _section(schema, child)
        if section is None:
            yield (*path, name), child, name in node.get("required", ())
        else:
            yield from _keys(schema, section, (*path, name))


def _section(schema: Node, node: Node) -> Node | None:
    for candidate in (node, *node.get("anyOf", ()), *node.get("allOf", ())):
        if "$ref" in candidate:
            found: Node = schema["$defs"][candidate["$ref"].rpartition("/")[2]]
            return found if "properties" in found else None
    return None


def _at(schema: Node, path: Sequence[str]) -> Node:
    node = schema
    for name in path:
        section = _section(schema, node["properties"][name])
        assert section is not None
        node = section
    return node


def _type(node: Node) -> str:
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    if "anyOf" in node:
        return " or ".join(dict.fromkeys(_type(each) for each in node["anyOf"] if each.get("type") != "null"))
    if node.get("format") == "password":
        return "secret"
    kind: dict[str, str] = {
        "string": "text",
        "integer": "whole number",
        "boolean": "true or false",
        "object": "map",
    }
    plain = str(node.get("type", "string"))
    name = "path" if node.get("format") == "path" else kind.get(plain, plain)
    low = [f"{word} {node[key]:,.15g}" for key, word in (("minimum", "at least"), ("exclusiveMinimum", "more than")) if key in node]  # fmt: skip
    high = [f"{word} {node[key]:,.15g}" for key, word in (("maximum", "at most"), ("exclusiveMaximum", "less than")) if key in node]  # fmt: skip
    return ", ".join([name, *low, *high])


def _default(node: Node) -> str:
    value = node.get("default", {} if node.get("type") == "object" else None)
    return "none" if value is None else json.dumps(value).strip('"')


def _sentence(text: str) -> str:
    text = text.strip()
    return text if not text else text[0].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _words(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main(argv: Sequence[str] | None = None) -> int:
    """Write every reference into a folder."""
    parser = argparse.ArgumentParser(prog="build_reference.py", description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args(argv).folder
    for name, text in references().items():
        (folder / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{folder / name}\n")
    architecture = _root / "ARCHITECTURE.md"
    architecture.write_text(with_map(architecture.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
