"""One chaos run: records flow, faults strike one after the other and at times together, and every record is counted."""

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from penstock.connectors.embedded.kafka import EmbeddedKafka
from tests.chaos.audit import Audit
from tests.chaos.faults import Fault, Heal, every_fault
from tests.chaos.world import World

_per_s = 4000.0  # records, behind each fault
_together_share = 0.25


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a run did, and found."""

    audit: Audit
    faults: Counter[str]
    drains_s: list[float]
    exits: list[int]
    took_s: float
    client_ends: int = 0
    """Stops in which the client library's own assertion ended the worker."""


def run_chaos(
    folder: Path,
    *,
    start: Callable[..., EmbeddedKafka],
    nodes: int,
    protocol: str,
    records: int,
    faults: int,
    seed: int,
    tell: Callable[[str], None] = print,
) -> Report:
    """So many records and faults on a cluster of its own. Raises AssertionError where something never ends."""
    began_s = time.monotonic()
    world = World(folder, start=start, nodes=nodes, protocol=protocol, seed=seed)
    try:
        possible = [fault for fault in every_fault if fault.nodes_min <= nodes <= fault.nodes_max]
        order = _order(world, possible, faults)
        world.may_feed = each = records / (len(order) + 1)
        world.feed(records, _per_s)
        world.revive()
        world.await_committed(1)
        done: Counter[str] = Counter()
        healing: list[Heal] = []
        for fault in order:
            if fault.alone:
                _heal(healing)
            world.may_feed += each
            healing.append(fault.strike(world))
            done[fault.name] += 1
            tell(f"{time.monotonic() - began_s:6.1f} s, {world.committed()} of {world.fed}: {fault.name}")
            time.sleep(world.chance.uniform(*fault.lasts_s))
            if world.chance.random() < _together_share:
                continue  # the next one strikes while this one lasts
            _heal(healing)
            world.revive()
        world.may_feed = math.inf
        _heal(healing)
        audit = world.finish()
        return Report(
            audit=audit,
            faults=done,
            drains_s=world.drains_s,
            exits=world.exits,
            took_s=time.monotonic() - began_s,
            client_ends=world.client_ends,
        )
    finally:
        world.close()


def _heal(healing: list[Heal]) -> None:
    for heal in healing:
        heal()
    healing.clear()


def _order(world: World, possible: list[Fault], count: int) -> list[Fault]:
    """Every kind once, as far as there is room, and then by weight; in an order by chance."""
    chosen = world.chance.sample(possible, min(count, len(possible)))
    rest = count - len(chosen)
    chosen += world.chance.choices(possible, [fault.weight for fault in possible], k=rest)
    world.chance.shuffle(chosen)
    return sorted(chosen, key=lambda fault: fault.at_the_end)
