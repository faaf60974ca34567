"""An Avro schema whose named types stand in other registry entries, made whole."""

from collections.abc import Mapping
from typing import Any, Final

Named = Any
"""A definition of a named type (record, enum, fixed), as parsed JSON."""

depth_max: Final = 64
primitives: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})


def inline_references(schema: Any, named: Mapping[str, Named]) -> Any:
    """`schema` with the definition of each name in `named` put where it is first used; later uses stay names.

    Names are full names (`com.example.Address`). Raises ValueError, whose text ends a sentence, when nesting is too deep
    or a name stands for nothing.
    """
    return _Walk(named).whole(schema, namespace="", depth=0)


class _Walk:
    def __init__(self, named: Mapping[str, Named]) -> None:
        self._named = named
        self._defined: set[str] = set()

    def whole(self, schema: Any, *, namespace: str, depth: int) -> Any:
        if depth > depth_max:
            raise ValueError(f"is nested deeper than {depth_max}")
        if isinstance(schema, str):
            return self._name(schema, namespace, depth)
        if isinstance(schema, list):
            return [self.whole(branch, namespace=namespace, depth=depth + 1) for branch in schema]
        if not isinstance(schema, dict):
            raise ValueError("has something in it that is no schema")
        kind = schema.get("type")
        if kind in ("record", "error"):
            return self._record(schema, namespace, depth)
        if kind in ("enum", "fixed"):
            self._defined.add(_full_name(schema, namespace))
            return schema
        if kind in ("array", "map"):
            inner = "items" if kind == "array" else "values"
            return {**schema, inner: self.whole(schema.get(inner), namespace=namespace, depth=depth + 1)}
        if isinstance(kind, str) and kind in primitives:
            return schema
        return {**schema, "type": self.whole(kind, namespace=namespace, depth=depth + 1)}

    def _record(self, schema: dict[str, Any], namespace: str, depth: int) -> dict[str, Any]:
        name, fields = _full_name(schema, namespace), schema.get("fields")
        self._defined.add(name)
        if not isinstance(fields, list) or not all(isinstance(field, dict) for field in fields):
            raise ValueError(f"has a record {name} without fields")
        inside = name.rpartition(".")[0]
        whole = [
            {**field, "type": self.whole(field.get("type"), namespace=inside, depth=depth + 1)}
            for field in fields
        ]
        return {**schema, "fields": whole}

    def _name(self, name: str, namespace: str, depth: int) -> Any:
        if name in primitives:
            return name
        full = name if "." in name or not namespace else f"{namespace}.{name}"
        if full in self._defined:
            return full
        if full in self._named:
            definition = self._named[full]
            if isinstance(definition, dict) and _full_name(definition, "") != full:
                raise ValueError(f"refers to {full}, and is sent {_full_name(definition, '')}")
            return self.whole(definition, namespace="", depth=depth + 1)
        raise ValueError(f"names {full}, which is defined nowhere")


def _full_name(schema: Mapping[str, Any], namespace: str) -> str:
    name = schema.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError("has a named type without a name")
    if "." in name:
        return name
    own = schema.get("namespace", namespace)
    return f"{own}.{name}" if own else name
