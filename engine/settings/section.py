"""What every section of the settings has in common, and the texts that several of them hold."""

import re
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationInfo, field_validator


class Section(BaseModel):
    """A part of the tree: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _whole(cls, value: Any, info: ValidationInfo) -> Any:
        """Text goes to libraries in C: a NUL would cut it there in silence."""
        if not isinstance(value, str):
            return value
        if "\0" in value:
            raise ValueError("holds a NUL character, which no setting may have")
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError("is not UTF-8 text")
        annotation = cls.model_fields[info.field_name].annotation if info.field_name else None
        if not value and {SecretStr, Path} & {annotation, *get_args(annotation)}:
            raise ValueError("is empty")
        return value


def address(url: str) -> str:
    """An http(s) address without a name and a password, which logs and errors of libraries would show."""
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        # what parses addresses leaves some of these out, what calls them takes another part of the text for the host
        raise ValueError("holds a character that no address may have; write it with its escape, as in %20")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError("is not an address") from error
    if "@" in parts.netloc:
        raise ValueError("may not hold a name and a password; they have settings of their own")
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError("is not an http or https address")
    return url


def shown(key: object) -> str:
    """A key as far as it is one: what follows may be a value that lost its space, as in `password:secret`."""
    whole = str(key)
    sound = re.match(r"[A-Za-z0-9_.\-]*", whole)
    start = sound.group() if sound else ""
    return whole if start == whole else f"{start}..."
