"""Fields whose values nobody is shown: marked in the contract, or named in the settings."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from penstock.engine.features.signature import Feature

sensitive_tags: Final = frozenset({"pii", "private", "sensitive"})
"""Of Confluent's field tags, in any case of letters, with or without a prefix as in PUBLIC.PII."""
schema_depth_max: Final = 200


def sensitive_names(schema: Any) -> frozenset[str]:
    """Names and aliases of the fields of an Avro schema that carry `"sensitive": true` or one of Confluent's tags."""
    found: set[str] = set()
    todo: list[tuple[Any, int]] = [(schema, 0)]
    while todo:
        part, depth = todo.pop()
        if depth > schema_depth_max:
            continue
        if isinstance(part, list):
            todo += [(each, depth + 1) for each in part]
        elif isinstance(part, Mapping):
            if _is_marked(part) and isinstance(part.get("name"), str):
                aliases = part.get("aliases", [])
                found |= {part["name"], *(each for each in aliases if isinstance(each, str))}
            todo += [
                (part[name], depth + 1) for name in ("type", "items", "values", "fields") if name in part
            ]
    return frozenset(found)


def _is_marked(field: Mapping[str, Any]) -> bool:
    tags = field.get("confluent:tags", [])
    words = (
        {each.rsplit(".", 1)[-1].lower() for each in tags if isinstance(each, str)}
        if isinstance(tags, list)
        else set()
    )
    return field.get("sensitive") is True or bool(words & sensitive_tags)


class Masks:
    """Which names are masked. A name masks every member of it, at whatever depth of the record; too much rather than too little.

    Thread-safe: names are only ever added.
    """

    def __init__(self, names: Iterable[str]) -> None:
        """`names` of fields; `key` masks the record's key as well."""
        self._names = frozenset(names)

    def add(self, names: frozenset[str]) -> None:
        """These as well from now on."""
        if not names <= self._names:
            self._names |= names

    @property
    def any(self) -> bool:
        """Whether anything is masked at all."""
        return bool(self._names)

    def hides(self, name: str) -> bool:
        """Whether a member of this name is masked."""
        return name in self._names

    def hides_feature(self, feature: Feature) -> bool:
        """Whether a feature's value would show a masked field."""
        return not self._names.isdisjoint((*feature.path, feature.field, feature.name))


class _Masked(str):
    """Told from a text that reads the same by being this one object."""


masked: Final = _Masked("•••")


def without_masked(value: Any, masks: Masks) -> Any:
    """A record with dots in place of every masked member; bounded by the depth of what `plain` returns."""
    if isinstance(value, dict):
        return {
            name: masked if masks.hides(str(name)) else without_masked(each, masks)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [without_masked(each, masks) for each in value]
    return value
