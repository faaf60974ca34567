"""Where settings come from: a YAML file, and PENSTOCK_ variables over it. Neither is ever quoted in an error."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_origin

import yaml
from pydantic import BaseModel, SecretStr

from penstock.engine.settings.section import kinds_of
from penstock.schemas.errors import ConfigError

environment_prefix: Final = "PENSTOCK_"
file_bytes_max: Final = 4 << 20

Location = tuple[str, ...]


def read_yaml(path: Path, root: type[BaseModel]) -> dict[str, Any]:
    """The mapping in a file. Raises ConfigError with line and column, which quotes nothing of the file."""
    try:
        with path.open("rb") as file:
            data = file.read(file_bytes_max + 1)  # a device gives bytes without end
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > file_bytes_max:
        raise ConfigError(f"{path} has more than {file_bytes_max} bytes, which settings never have")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path} is not UTF-8 text: line {line}") from None
    tree = _parsed(text, str(path), secret_names(root))
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds no settings; see docs/settings.md for an example")
    return tree


def override(tree: dict[str, Any], environ: Mapping[str, str], root: type[BaseModel]) -> dict[Location, str]:
    """Puts the PENSTOCK_ variables into `tree` and returns which variable set which place.

    A text, a path or a secret is taken as it is, and so is a number or a flag, which the settings' own types read. Only a
    list, a map or a whole section is parsed as YAML. Raises ConfigError, which names the variable and quotes nothing.
    """
    origins: dict[Location, str] = {}
    for name in sorted(environ):
        words = name.removeprefix(environment_prefix).lower().split("__")
        if not name.startswith(environment_prefix) or (len(words) == 1 and words[0] not in root.model_fields):
            continue
        place, annotation = tree, root
        path: list[str] = []
        for word in words[:-1]:
            key, annotation = _step(annotation, word)
            path.append(key)
            if place.get(key) is None:
                place[key] = {}
            place = place[key]
            if not isinstance(place, dict) or not (_section(annotation) or _is_collection(annotation)):
                raise ConfigError(f"{name} goes inside {'.'.join(path)}, which is not a section")
        key, annotation = _step(annotation, words[-1])
        parsed = _section(annotation) is not None or _is_collection(annotation)
        place[key] = _parsed(environ[name], name, secret_names(root)) if parsed else environ[name]
        origins[*path, key] = name
    return origins


def secret_names(section: type[BaseModel]) -> frozenset[str]:
    """The names of all settings that are secrets, wherever they stand."""
    names: set[str] = set()
    for name, info in section.model_fields.items():
        names |= {info.alias or name} if SecretStr in kinds_of(info.annotation) else set()
        below = _section(info.annotation)
        names |= secret_names(below) if below else set()
    return frozenset(names)


def _step(annotation: Any, word: str) -> tuple[str, Any]:
    """The key that a part of a variable's name stands for, and the type of what is there; None where none is known."""
    section = _section(annotation)
    for name, info in section.model_fields.items() if section else ():
        if word in (name, info.alias):
            return info.alias or name, info.annotation
    return word, None


def _section(annotation: Any) -> type[BaseModel] | None:
    for member in kinds_of(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel):
            return member
    return None


def _is_collection(annotation: Any) -> bool:
    return any(
        (get_origin(member) or member) in (dict, list, tuple, set, frozenset, Mapping)
        for member in kinds_of(annotation)
    )


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses what it would take in silence: a key that stands twice, a secret of which it would take a part."""

    secrets: frozenset[str] = frozenset()

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=_twice, problem_mark=key.start_mark)
            seen.add(key.value)
            if key.value in self.secrets and isinstance(value, yaml.ScalarNode) and value.style is None:
                text, end = value.end_mark.buffer or "", value.end_mark.pointer
                rest = text[end:].split("\n", 1)[0]
                if rest.lstrip().startswith("#") or text[value.start_mark.pointer : end] != value.value:
                    raise yaml.MarkedYAMLError(problem=_needs_quotes, problem_mark=value.start_mark)
        return super().construct_mapping(node, deep=deep)


_twice = "a key stands there twice"
_needs_quotes = "YAML would not take all of this secret: it needs quotes"


def _parsed(text: str, origin: str, secrets: frozenset[str]) -> Any:
    try:
        loader = _Loader(text)
        loader.secrets = secrets
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        why = (
            error.problem
            if error.problem in (_twice, _needs_quotes)
            else "text with special characters needs quotes"
        )
        raise ConfigError(f"{origin} is not YAML that settings can use: {where} ({why})") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            f"{origin} is not YAML: line {line} holds a character that YAML does not allow"
        ) from None
    except RecursionError:
        raise ConfigError(f"{origin} is nested too deeply") from None
    except (ValueError, OverflowError, TypeError):  # a date or a number that cannot be, a key that is a list
        raise ConfigError(f"{origin} holds a value that YAML cannot read; text needs quotes") from None
