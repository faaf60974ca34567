"""JSON records as tokens, and changed token by token."""

import json
import random
from typing import Any, Final

from penstock.engine.features.signature import Feature
from tests.mutants_avro import broken

_odd_json: Final = [
    b"NaN", b"-Infinity", b"1e999", b"-1e999", b"9" * 4400, b'"\\ud800"', b'"\\udfff\\ud800"', b"tru", b"nul", b"", b"{}", b"[]", b"[[]]",
    b"[" * 600 + b"]" * 600, b"[" * 5000, b'{"a":' * 1200 + b"1" + b"}" * 1200, b'"\xff"', b'"\0"', b"1.", b"01", b"0x1", b"true", b"null",
    b'"' + b"x" * 4000 + b'"', b"18446744073709551616", b"-9223372036854775809", b"1E+2", b'"\\u0000"', b"//", b"\xef\xbb\xbf", b"\0\0\0\0\1",
]  # fmt: skip
json_features: Final = [
    Feature(name="n", kind="number"), Feature(name="c", kind="category", categories=("A", "1", "true", "2.5")),
    Feature(name="v", kind="vector", width=3), Feature(name="in.ner", kind="number"), Feature(name="a.b.c", kind="number"),
]  # fmt: skip


def json_pieces(chance: random.Random) -> list[bytes]:
    """The tokens of a JSON record that is whole."""
    record: dict[str, Any] = {
        "n": chance.choice([1, -2.5, None, True]), "c": chance.choice(["A", 1, True, 2.5, None]), "v": [1, 2.5, None],
        **chance.choice([{"in.ner": 3}, {"in": {"ner": 3}}]), "a": {"b": {"c": 1e-3, "d": "ü\n"}}, "more": [{}, [1, "x"]],
    }  # fmt: skip
    text = json.dumps(record, ensure_ascii=chance.random() < 0.5)
    pieces, word = [], ""
    quoted = False
    for character in text:
        if character == '"':
            quoted = not quoted
        if not quoted and character in "{}[]:, ":
            pieces += [word.encode(), character.encode()]
            word = ""
        else:
            word += character
    return [piece for piece in [*pieces, word.encode()] if piece]


def mutate_json(chance: random.Random, pieces: list[bytes]) -> bytes:
    """The record with tokens changed, taken out, doubled or put elsewhere, or its whole text in another encoding."""
    changed = [*pieces]
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randrange(len(changed))
        way = chance.randrange(5)
        if way < 2:
            changed[at] = chance.choice(_odd_json)
        elif way == 2 and len(changed) > 1:
            del changed[at]
        elif way == 3:
            changed.insert(at, changed[chance.randrange(len(changed))])
        else:
            changed[at], changed[0] = changed[0], changed[at]
    whole = b"".join(changed)
    if chance.random() < 0.1:
        whole = whole.decode("latin-1").encode(chance.choice(["utf-16", "utf-16-le", "utf-32"]))
    return broken(chance, whole) if chance.random() < 0.2 else whole
