"""JSON that the fast parser refuses: read with care where only a value that nobody asks for is at fault, else named."""

import json
from typing import Any, Final, Literal

from penstock.engine.codec.framing import foreign_bytes
from penstock.engine.features.values import Unreadable
from penstock.schemas.errors import RecordError
from penstock.schemas.reasons import Reason, Stage

Nan = Literal["reject", "missing"]

byte_order_mark: Final = b"\xef\xbb\xbf"
_utf16_begins: Final = frozenset({b"\xff\xfe", b"\xfe\xff", b"{\0", b"\0{", b"[\0", b"\0["})
_int_digits_max: Final = 20
_past_a_double: Final = Unreadable(detail="a number past what a double holds")
_half_a_pair: Final = Unreadable(detail="half of a surrogate pair, which is no text")


def parse_with_care(value: bytes, nan: Nan) -> Any:
    """The JSON text in `value`, which the fast parser refused.

    A number past a double, half of a surrogate pair and, unless `nan` is missing, the literals NaN and Infinity are each
    an Unreadable in their place: only a record whose feature stands there is at fault. Raises RecordError (CORRUPT,
    LIMIT_EXCEEDED, BAD_FRAMING) that names what the text is.
    """
    text = value.removeprefix(byte_order_mark)
    foreign = foreign_json(text)
    if foreign is not None:
        raise _corrupt(foreign, Reason.BAD_FRAMING)
    try:
        parsed = json.loads(
            text.decode("utf-8"),
            parse_constant=_missing if nan == "missing" else _refused,
            parse_float=_float,
            parse_int=_int,
        )
        return _without_surrogates(parsed) if b"\\u" in text else parsed
    except UnicodeDecodeError as error:
        raise _corrupt(f"the value is not UTF-8, which JSON is, before byte {error.start}") from error
    except RecursionError as error:
        raise _corrupt("the value is nested deeper than is read", Reason.LIMIT_EXCEEDED) from error
    except json.JSONDecodeError as error:
        raise _corrupt(_named(error)) from error


def foreign_json(value: bytes) -> str | None:
    """What a value is that is no JSON text, where its first bytes tell, and what to do; None where they do not."""
    if value[:2] in _utf16_begins:
        return "the value is UTF-16 or UTF-32, and JSON is UTF-8: let the producer encode it so"
    if value[:1] == b"\0" and value[5:6] in (b"{", b"["):
        return (
            "the value begins with a zero byte and a schema id, as Confluent's JSON Schema serializer writes: "
            "set input.framing: confluent"
        )
    return foreign_bytes(value)


def _named(error: json.JSONDecodeError) -> str:
    if not error.doc.strip():
        return "the value is empty, which is not JSON"
    if error.pos >= len(error.doc.rstrip()):
        return "the value ends before its JSON does"
    if error.msg == "Extra data":
        return f"more follows the JSON value, from character {error.pos}"
    return f"the value is not JSON, from character {error.pos}"


def _missing(literal: str) -> float:
    return float(literal.replace("Infinity", "inf"))


def _refused(literal: str) -> Unreadable:
    word = literal.removeprefix("-")
    cure = "set input.json.nan: missing to read it, or let the producer write null"
    return Unreadable(detail=f"the literal {word}, which JSON does not have: {cure}")


def _float(text: str) -> float | Unreadable:
    number = float(text)
    return _past_a_double if number in (float("inf"), float("-inf")) else number


def _int(text: str) -> int | float | Unreadable:
    return int(text) if len(text) <= _int_digits_max else _float(text)


def _without_surrogates(value: Any) -> Any:
    """The value with Unreadable in place of each string that is not valid text; names of members are not checked."""
    if isinstance(value, str):
        return value if value.isprintable() or not _has_surrogate(value) else _half_a_pair
    if isinstance(value, list):
        return [_without_surrogates(each) for each in value]
    if isinstance(value, dict):
        return {name: _without_surrogates(each) for name, each in value.items()}
    return value


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _corrupt(detail: str, reason: Reason = Reason.CORRUPT) -> RecordError:
    return RecordError(stage=Stage.DECODE, reason=reason, detail=detail)
