"""Avro's schema resolution, asked of one value at a time: which of the reader's types it is read as, or why as none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from penstock.engine.codec.avro.types import (
    AvroField,
    AvroType,
    UnsupportedSchemaError,
    absent,
    named,
    unqualified,
)

_promotions: Final = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}


def branches(schema: AvroType) -> Sequence[AvroType]:
    """What a value may be: the branches of a union, or the type itself."""
    return schema.inner if schema.kind == "union" else [schema]


def branch_for(written: AvroType, wanted: AvroType) -> AvroType | None:
    """The reader's type that a writer's value is read as: the first that it equals, else the first it promotes to."""
    for fits in (_equals, _promotes):
        for branch in branches(wanted):
            if fits(written, branch):
                return branch
    return None


def mismatch(written: AvroType, wanted: AvroType) -> str:
    """Why a written value is read as none of the reader's types."""
    if written.kind == wanted.kind and written.kind in named:
        if written.kind == "fixed" and written.size != wanted.size:
            return f"{written.name} has {written.size} bytes, the reader's {wanted.name} {wanted.size}"
        return f"a {written.kind} {written.name} is written, the reader's is {wanted.name} and no alias of it fits"
    return f"{described(written)} is written, which is not read as {described(wanted)}"


def described(schema: AvroType) -> str:
    """A type in a few words."""
    if schema.kind == "union":
        return f"a union of {', '.join(branch.name or branch.kind for branch in schema.inner) or 'nothing'}"
    if schema.kind in ("array", "map"):
        return f"{schema.kind} of {described(schema.inner[0])}"
    return f"{schema.kind} {schema.name}" if schema.name else schema.kind


def reader_fields(written: AvroType, wanted: AvroType | None) -> Mapping[str, AvroField]:
    """The reader's field for each writer's field it reads; a name counts before an alias, an alias in the order given."""
    theirs = {each.name for each in written.fields}
    found: dict[str, AvroField] = {}
    for ours in wanted.fields if wanted is not None else ():
        name = next((name for name in (ours.name, *ours.aliases) if name in theirs), None)
        if name is None:
            continue
        if name in found:
            raise UnsupportedSchemaError(f"two fields of the reader's schema are read from {name}")
        found[name] = ours
    return found


def unfilled_field(written: AvroType, wanted: AvroType) -> str | None:
    """The first of the reader's fields that the writer does not write and that has no default."""
    known = {ours.name for ours in reader_fields(written, wanted).values()}
    return next(
        (ours.name for ours in wanted.fields if ours.name not in known and ours.default is absent), None
    )


other_units: Final = "a time is written in other units than the reader's schema has"
"""How the reason begins where values would be read, and be wrong."""


def root_mismatch(written: AvroType, wanted: AvroType) -> str | None:
    """Why no record of this type can be read; None where some may."""
    if written.kind != "record":
        return f"{described(written)} is written, which is no record"
    ours = branch_for(written, wanted)
    if ours is None:
        return mismatch(written, wanted)
    unfilled = unfilled_field(written, ours)
    if unfilled is not None:
        return unfilled_reason(written, unfilled)
    return None


def unfilled_reason(written: AvroType, field: str) -> str:
    """Why a record is not read that lacks a field."""
    return f"{written.name} is written without field {field}, for which the reader's schema has no default"


def units_reason(written: AvroType, wanted: AvroType) -> str | None:
    """Why a time is not read whose units differ; None where they do not, or one side does not tell."""
    if written.instant != wanted.instant and written.instant and wanted.instant:
        return f"{other_units}: {written.instant} and {wanted.instant}"
    return None


def unresolved(written: AvroType, wanted: AvroType) -> list[tuple[str, str]]:
    """Every reason for which a value of the writer's may not be read, each with the reader's field it is about, once."""
    found: dict[tuple[str, str], None] = {}
    visited: set[tuple[int, int]] = set()

    def walk(theirs: AvroType, reader: AvroType, place: str) -> None:
        if (id(theirs), id(reader)) in visited:
            return
        visited.add((id(theirs), id(reader)))
        if theirs.kind == "union":
            for branch in theirs.inner:
                walk(branch, reader, place)
            return
        ours = branch_for(theirs, reader)
        if ours is None:
            found[mismatch(theirs, reader), place] = None
        elif theirs.kind in ("array", "map"):
            walk(theirs.inner[0], ours.inner[0], place)
        elif theirs.kind == "record":
            unfilled = unfilled_field(theirs, ours)
            if unfilled is not None:
                found[unfilled_reason(theirs, unfilled), place] = None
            kinds = {each.name: each.type for each in theirs.fields}
            for name, field in reader_fields(theirs, ours).items():
                walk(kinds[name], field.type, f"{place}.{field.name}" if place else field.name)
        elif theirs.kind == "enum":
            if ours.default is None and not set(theirs.symbols) <= set(ours.symbols):
                found[symbol_reason(theirs), place] = None
        elif (units := units_reason(theirs, ours)) is not None:
            found[units, place] = None

    walk(written, wanted, "")
    return [*found]


def symbol_reason(written: AvroType) -> str:
    """Why an enum's value is not read."""
    return f"a symbol of {written.name} is written that the reader's enum does not have"


def is_called(schema: AvroType, name: str) -> bool:
    """Whether `name` is the type's full name, an alias of it, or, without a namespace, the last part of its full name."""
    return name in (schema.name, *schema.aliases) or ("." not in name and unqualified(schema.name) == name)


def is_of_type(written: AvroType, wanted: AvroType, record_type: str) -> bool:
    """Whether records of this writer's type are the chosen ones: called so, or read as the reader's record that is."""
    if is_called(written, record_type):
        return True
    ours = branch_for(written, wanted)
    return ours is not None and ours.kind == "record" and is_called(ours, record_type)


@dataclass(frozen=True, slots=True)
class Branch:
    """A value of a union, and which of its branches it is of."""

    place: int
    value: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Writes:
    """Whether a value of a writer's type writes one of the reader's fields that are looked for; defaults do not count."""

    always: bool = False  # it is one of them
    branches: tuple["Writes", ...] = ()  # of a union
    fields: tuple[tuple[str, "Writes"], ...] = ()  # of a record: those below which one may stand

    def __call__(self, value: Any) -> bool:
        """Of one value: records are dictionaries by the writer's names, values of unions Branch."""
        if self.always:
            return True
        if self.branches:
            branch: Writes = self.branches[value.place]
            return branch(value.value)
        return any(inner(value[name]) for name, inner in self.fields)


def writes_any(written: AvroType, wanted: AvroType, paths: Sequence[Sequence[str]]) -> Writes:
    """What finds out of a record whether it holds one of these fields of the reader's; a field that is null is held.

    Raises UnsupportedSchemaError.
    """
    if not all(paths):
        return Writes(always=True)
    if written.kind == "union":
        return Writes(branches=tuple(writes_any(branch, wanted, paths) for branch in written.inner))
    ours = branch_for(written, wanted) if paths else None
    if ours is None or ours.kind != "record":
        return Writes()
    found = []
    kinds = {each.name: each.type for each in written.fields}
    for name, field in reader_fields(written, ours).items():
        below = [path[1:] for path in paths if path[0] == field.name]
        inner = writes_any(kinds[name], field.type, below)
        if inner != Writes():
            found.append((name, inner))
    return Writes(fields=tuple(found))


def _equals(written: AvroType, wanted: AvroType) -> bool:
    if written.kind != wanted.kind or written.size != wanted.size:
        return False
    if written.kind in ("array", "map"):
        theirs, ours = written.inner[0], wanted.inner[0]
        return "union" in (theirs.kind, ours.kind) or branch_for(theirs, ours) is not None
    if not written.name or written.name == wanted.name:
        return True
    # An alias is relative to the namespace of its type; one that is written without a namespace is taken as it stands, too.
    return written.name in wanted.aliases or unqualified(written.name) in wanted.aliases


def _promotes(written: AvroType, wanted: AvroType) -> bool:
    if written.kind != wanted.kind:
        return wanted.kind in _promotions.get(written.kind, ())
    same_size = written.size == wanted.size
    return written.kind in named and same_size and unqualified(written.name) == unqualified(wanted.name)
