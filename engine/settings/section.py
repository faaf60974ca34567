"""What every section of the settings has in common, and the texts that several of them hold."""

import re
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

_placeholder: Final = re.compile(r"\$\{[^{}]*\}|\$\([A-Za-z_]\w*\)|\{\{.*\}\}", re.DOTALL)


class Section(BaseModel):
    """A part of the tree: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _whole(cls, value: Any, info: ValidationInfo) -> Any:
        """Text goes to libraries in C: a NUL would cut it there in silence. A flag is no number to us, though it is one to Python."""
        if isinstance(value, bool | int | float):
            return cls._of_its_kind(value, info)
        if not isinstance(value, str):
            return value
        if "\0" in value:
            raise ValueError("holds a NUL character, which no setting may have")
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError("is not UTF-8 text")
        annotation = cls.model_fields[info.field_name].annotation if info.field_name else None
        kinds = {annotation, *get_args(annotation)}
        if not value and {SecretStr, Path} & kinds:
            raise ValueError("is empty")
        if SecretStr not in kinds and _placeholder.search(value):  # a secret may be whatever it likes
            raise ValueError(
                "holds a placeholder, as ${NAME}, and none is filled in here: set the PENSTOCK_ variable of this setting, or fill "
                "the file in before"
            )
        return value

    @classmethod
    def _of_its_kind(cls, value: Any, info: ValidationInfo) -> Any:
        """`workers: true` would be one worker, and `single_use: 1` true."""
        kinds = kinds_of(cls.model_fields[info.field_name].annotation) if info.field_name else []
        numbers, flags = int in kinds or float in kinds, bool in kinds
        if (numbers and not flags) if isinstance(value, bool) else (flags and not numbers):
            raise PydanticCustomError("other_kind", "a flag for a number, or a number for a flag")
        return value


def kinds_of(annotation: Any) -> list[Any]:
    """The types that a value may have, without Annotated and the bars between them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return kinds_of(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [kind for each in get_args(annotation) for kind in kinds_of(each)]
    return [annotation]


def plain_name(text: str) -> str:
    """A name without white space at its ends, which a secret or a file leaves there and nobody sees."""
    if text != text.strip() or not text.isprintable():
        raise ValueError("begins or ends with white space, or holds a character that is not shown")
    return text


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
