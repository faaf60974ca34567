"""Records that are nearly right, decoded in a process of their own: `python -P -m tests.mutants --mutants N --seed S`.

Avro records of drawn schemas are written as the pieces they are made of (a length, a branch, a count of items, a text, a
number), and pieces are changed for what they are; JSON texts likewise. Each batch holds records that are whole beside the
mutants: those must come out as ever, and each mutant as a row or a rejection. Prints one JSON object; exit 1 at a fault.
"""

import argparse
import json
import random
import resource
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from penstock.engine.codec.decode import RowDecoder, make_decoder
from penstock.engine.features.signature import ModelInput, Signature
from penstock.engine.settings.model import parse_settings
from penstock.schemas.records import Records
from tests.mutants_avro import Drawn, mutate
from tests.mutants_json import json_features, json_pieces, mutate_json

schemas_count: Final = 60
batch_mutants: Final = 32
batch_s_max: Final = 5.0
growth_bytes_max: Final = 64 << 20
record_bytes_max: Final = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Target:
    """A decoder, and records of its kind."""

    name: str
    decoder: RowDecoder
    whole: list[Any]
    prefix: bytes
    json: bool

    def good(self, place: int) -> bytes:
        """A record that is whole."""
        pieces = self.whole[place % len(self.whole)]
        return self.prefix + (b"".join(pieces) if self.json else b"".join(piece for _, piece in pieces))

    def mutant(self, chance: random.Random) -> bytes:
        """One that is not, most likely."""
        pieces = chance.choice(self.whole)
        if self.json:
            return mutate_json(chance, pieces)
        prefix = self.prefix if chance.random() < 0.97 else chance.randbytes(len(self.prefix))
        return prefix + mutate(chance, pieces, self.whole)


class _Schemas:
    """A registry that knows one schema."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema

    def schema(self, schema_id: int) -> Any:
        """The schema, whatever the id."""
        return self._schema


def settings(**more: Any) -> Any:
    """The least that a decoder needs."""
    tree: dict[str, Any] = {
        "kafka": {"bootstrap_servers": "localhost:9092", "group": "g"},
        "registry": {"url": "http://localhost:8081"},
        "input": {"topic": "t", **more},
        "output": {"predictions": "p", "dead_letters": "d"},
        "model": {"path": "m"},
    }
    return parse_settings(tree, origin="mutants", folder=Path("/nowhere"))


def targets(chance: random.Random) -> list[Target]:
    """A decoder for each drawn schema, every sixth of them recursive and so read by the slow path, and two for JSON."""
    made = []
    for number in range(schemas_count):
        drawn = Drawn(chance, recursive=number % 6 == 5)
        width = sum(feature.width for feature in drawn.features)
        inputs = (ModelInput(name="x", dtype=chance.choice(["float32", "float64"]), start=0, width=width),)
        signature = Signature(features=tuple(drawn.features), inputs=inputs)
        reader = None if number % 2 else drawn.schema
        decoder = make_decoder(settings(), signature, reader, _Schemas(drawn.schema), record_bytes_max)
        whole: list[Any] = [drawn.pieces() for _ in range(8)]
        made.append(
            Target(name=f"avro {number}", decoder=decoder, whole=whole, prefix=b"\0\0\0\0\7", json=False)
        )
    width = sum(feature.width for feature in json_features)
    inputs = (ModelInput(name="x", dtype="float32", start=0, width=width),)
    signature = Signature(features=tuple(json_features), inputs=inputs)
    for nan in ("reject", "missing"):
        decoder = make_decoder(
            settings(format="json", json={"nan": nan}), signature, None, None, record_bytes_max
        )
        whole = [json_pieces(chance) for _ in range(20)]
        made += [Target(name=f"json {nan}", decoder=decoder, whole=whole, prefix=b"", json=True)] * 6
    return made


def records(values: list[Any]) -> Records:
    """Records of these values."""
    count = len(values)
    return Records(
        topic="t",
        partitions=np.zeros(count, dtype=np.int32),
        offsets=np.arange(count, dtype=np.int64),
        timestamps_ms=np.zeros(count, dtype=np.int64),
        keys=[None] * count,
        values=values,
    )


def check_batch(target: Target, chance: random.Random, count: int, found: Counter[str]) -> float:
    """Decode `count` mutants among records that are whole; how long it took. Raises AssertionError at a fault."""
    batch: list[bytes] = []
    for place in range(count):
        batch += [target.good(place), target.mutant(chance)]
    alone = target.decoder.decode(records(batch[::2]))
    assert not alone.rejections, (target.name, alone.rejections[0])
    began_s = time.perf_counter()
    decoded = target.decoder.decode(records([*batch]))
    took_s = time.perf_counter() - began_s
    places = decoded.rows.tolist()
    rejected = [rejection.index for rejection in decoded.rejections]
    assert sorted([*places, *rejected]) == list(range(len(batch))), target.name
    whole = [row for row, place in enumerate(places) if place % 2 == 0]
    assert decoded.matrix[whole].tobytes() == alone.matrix.tobytes(), target.name
    found.update(str(rejection.reason) for rejection in decoded.rejections)
    found["read"] += len(places) - count
    return took_s


def main() -> int:
    """Run, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    made = targets(chance)
    found: Counter[str] = Counter()
    slowest_s, warm_bytes = 0.0, 0
    batches = max(2 * len(made), arguments.mutants // batch_mutants)
    for number in range(batches):
        took_s = check_batch(made[number % len(made)], chance, batch_mutants, found)
        slowest_s = max(slowest_s, took_s)
        if number == len(made):
            warm_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    growth_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - warm_bytes
    print(
        json.dumps({
            "seed": arguments.seed, "mutants": batches * batch_mutants, "schemas": schemas_count, "slowest_batch_s": round(slowest_s, 3),
            "growth_bytes": growth_bytes, "outcomes": dict(sorted(found.items())),
        })
    )  # fmt: skip
    return int(slowest_s > batch_s_max or growth_bytes > growth_bytes_max)


if __name__ == "__main__":
    sys.exit(main())
