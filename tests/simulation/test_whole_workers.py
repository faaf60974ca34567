"""Nothing is lost, doubled or out of order, whatever befalls the workers; and the loop keeps to its bounds meanwhile."""

from collections import Counter

import pytest

from tests.simulation.stages import poison
from tests.simulation.watched import Place
from tests.simulation.world import World

turns = 400


def check_outcomes(world: World) -> None:
    """Every record's outcome is the one that its kind asks for."""
    predicted, explained, rejected = (dict(world.read(topic)) for topic in ("p", "e", "d"))
    for place, (_, kind) in world.inputs.items():
        if kind in poison:
            stage, reason = poison[kind]
            assert rejected.get(place) == f"{stage} {reason}", f"{world}: {place}"
            assert place not in predicted, f"{world}: {place}"
        else:
            assert predicted.get(place) == "0", f"{world}: {place}"
            assert explained.get(place) == "0", f"{world}: {place}"
            assert place not in rejected, f"{world}: {place}"
    assert predicted.keys() | rejected.keys() == world.inputs.keys(), f"{world}"
    assert explained.keys() == predicted.keys(), f"{world}"


def check_once_and_in_order(world: World) -> None:
    for topic in ("p", "e", "d"):
        newest: dict[bytes, Place] = {}
        found = world.read(topic)
        doubled = [place for place, times in Counter(place for place, _ in found).items() if times > 1]
        assert not doubled, f"{world}: {doubled} of {topic} come twice"
        for place, _ in found:
            key = world.inputs[place][0]
            assert newest.get(key, (0, -1)) < place, f"{world}: order of {key!r} in {topic}"
            newest[key] = place


@pytest.mark.parametrize("seed", range(110))
def test_each_record_has_one_outcome_and_keeps_its_order(seed: int) -> None:
    world = World(seed).run(turns)
    check_outcomes(world)
    check_once_and_in_order(world)


@pytest.mark.parametrize("seed", range(30))
def test_at_least_once_each_record_has_an_outcome(seed: int) -> None:
    check_outcomes(World(seed, "at_least_once").run(turns))


def test_the_dangers_do_happen() -> None:
    seen: Counter[str] = Counter()
    for seed in range(15):
        seen += World(seed).run(turns).seen
    rare = {
        what: seen[what]
        for what in (
            "aborted", "revoked", "lost", "killed", "stopped", "twin", "FencedError", "the model threw", "paused",
            "shared a delivery", "delivered all the same", "rewound by abort", "rewound by revoke", "rewound by lost", "batcher was full",
            "compute was full", "delivery was full", "rewound by hold", "a partition waited", "a partition went on",
        )
        if seen[what] < 2
    }  # fmt: skip
    assert not rare
