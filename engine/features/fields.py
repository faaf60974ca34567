"""Where a feature stands in a record: names between dots, with an escape for a dot that belongs to a name."""

from penstock.schemas.errors import ConfigError


def field_of(name: str) -> str:
    """The field of a feature that only has a name: a name that is no path is a member's name as it is."""
    if "\\" not in name and all(name.split(".")):
        return name
    return name.replace("\\", "\\\\").replace(".", "\\.")


def field_path(field: str) -> tuple[str, ...]:
    """The parts of a field between its dots; `\\.` and `\\\\` stand for a dot and a backslash of a name.

    Raises ConfigError for an escape of nothing.
    """
    parts, escaped = [""], False
    for character in field:
        if escaped or character not in ".\\":
            parts[-1] += character
            escaped = False
        elif character == "\\":
            escaped = True
        else:
            parts.append("")
    if escaped:
        raise ConfigError(f"the field {field} ends within an escape: write \\\\ for a backslash")
    return tuple(parts)
