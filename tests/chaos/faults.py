"""What befalls a world: each fault strikes, lasts a while, and says how it is healed."""

import os
import resource
import signal
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, not re-exported
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewPartitions,
    ResourcePatternType,
    ResourceType,
)

from tests.chaos.world import World, identities, insist, session_s
from tests.wire.proxy import Action, Cut, Drop, Hold, Refuse, Repeat, Rule, Where

Heal = Callable[[], None]
Strike = Callable[[World], Heal]

acting_apis: Final = (
    "Produce", "InitProducerId", "AddPartitionsToTxn", "AddOffsetsToTxn", "TxnOffsetCommit", "EndTxn", "OffsetFetch",
    "Fetch", "Metadata", "FindCoordinator", "Heartbeat", "ListOffsets",
)  # fmt: skip
repeatable_apis: Final = (
    "Produce",
    "AddPartitionsToTxn",
    "AddOffsetsToTxn",
    "TxnOffsetCommit",
    "EndTxn",
    "InitProducerId",
)
passing_codes: Final = {
    "Produce": (6, 7, 19, 56), "AddPartitionsToTxn": (14, 15, 16, 51), "AddOffsetsToTxn": (14, 15, 16, 51),
    "TxnOffsetCommit": (14, 15, 16, 25, 27), "EndTxn": (14, 15, 16, 51), "Heartbeat": (15, 16, 25, 27),
}  # fmt: skip
"""What brokers say while they hand work over to each other, or the group moves on."""
_fetch_waits_s: Final = 1.0
"""Longer than a fetch waits at the broker for records (`fetch.wait.max.ms` is 500)."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A kind of trouble."""

    name: str
    strike: Strike
    lasts_s: tuple[float, float] = (0.3, 1.5)
    nodes_min: int = 1
    nodes_max: int = 9
    weight: int = 1
    alone: bool = False
    """The test asks the cluster for something itself, so what lasts is healed before."""
    at_the_end: bool = False
    """Nothing that ends a broker may follow: it would cut its log off where a byte is wrong."""


def _nothing() -> None: ...


def _kill_worker(world: World) -> Heal:
    if (pid := world.a_worker()) is not None:
        kill_now(pid)
    return _nothing


def kill_now(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _kill_supervisor(world: World) -> Heal:
    world.revive()
    world.kill_supervisor(world.chance.choice(identities))
    return world.revive


def _drain(world: World) -> Heal:
    world.revive()
    world.drain(world.chance.choice(identities))
    return world.revive


def _freeze_worker(world: World) -> Heal:
    """A zombie: when it goes on, its session is long over and its partitions are another's."""
    pid = world.a_worker()
    if pid is None:
        return _nothing
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)

    def go_on() -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    return go_on


def _join_and_leave(world: World) -> Heal:
    if "c" in world.workers:  # it has not left yet
        return _nothing
    world.start("c")
    return lambda: world.drain("c")


def _hurt_node(
    world: World, number: int | None, strike: Callable[[int], None], heal: Callable[[int], None]
) -> Heal:
    """One that nothing else hurts at the moment."""
    if number is None or number in world.hurt:
        return _nothing
    world.hurt.add(number)
    strike(number)

    def healed() -> None:
        heal(number)
        world.hurt.discard(number)

    return healed


def _a_node(world: World) -> int | None:
    unhurt = [number for number in world.broker.node_numbers if number not in world.hurt]
    return world.chance.choice(unhurt) if unhurt else None


def _kill_node(world: World) -> Heal:
    return _hurt_node(world, _a_node(world), world.broker.kill_node, world.broker.start_node)


def _stop_node(world: World) -> Heal:
    return _hurt_node(world, _a_node(world), world.broker.stop_node, world.broker.start_node)


def _freeze_node(world: World) -> Heal:
    return _hurt_node(world, _a_node(world), world.broker.pause_node, world.broker.resume_node)


def _kill_coordinator(world: World) -> Heal:
    number = insist(lambda: _coordinator(world))
    return _hurt_node(world, number, world.broker.kill_node, world.broker.start_node)


def _coordinator(world: World) -> int:
    """By a client of its own: one that had seen brokers go was once told nothing for two minutes, beside workers at work.
    It is kept for as long as its question takes, which would end with it.
    """
    group = f"{world.stream.name}-group"
    client = AdminClient({"bootstrap.servers": world.servers, "log_level": 0})
    asked = client.describe_consumer_groups([group], request_timeout=10)
    return int(asked[group].result(15).coordinator.id)


def _full_disk(world: World) -> Heal:
    """A file may not grow any more, which is what a broker sees of a full disk (and so it ends), but for the mount."""

    def fill(number: int) -> None:
        pid = world.broker.pid(number)
        assert pid is not None
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))

    def free(number: int) -> None:
        if world.broker.pid(number) is not None:  # the limit goes with the process
            world.broker.kill_node(number)
        world.broker.start_node(number)

    return _hurt_node(world, _a_node(world), fill, free)


def _rule(world: World, api: str, action: Action) -> Heal:
    rule = world.proxy.add(Rule(api=api, action=action, client_id=world.clients))

    def heal() -> None:
        rule.struck.wait(3.0)
        if not isinstance(action, Hold):  # which ends by itself
            world.proxy.remove(rule)

    return heal


def _where(world: World) -> Where:
    return world.chance.choice(("request", "answer"))


def _hold_commit(world: World) -> Heal:
    """Its transaction is long given up, and others are under way, when the broker hears of it."""
    return _rule(world, "EndTxn", Hold(where="request", seconds_max=world.chance.uniform(3.0, 9.0)))


def _delay(world: World) -> Heal:
    seconds = world.chance.uniform(0.2, 4.0)
    return _rule(world, world.chance.choice(acting_apis), Hold(where=_where(world), seconds_max=seconds))


def _drop(world: World) -> Heal:
    return _rule(world, world.chance.choice(acting_apis), Drop(where=_where(world)))


def _cut(world: World) -> Heal:
    return _rule(world, world.chance.choice(acting_apis), Cut(where=_where(world)))


def _repeat(world: World) -> Heal:
    return _rule(world, world.chance.choice(repeatable_apis), Repeat())


def _refuse(world: World) -> Heal:
    api = world.chance.choice(sorted(passing_codes))
    return _rule(world, api, Refuse(code=world.chance.choice(passing_codes[api])))


def _silence(world: World) -> Heal:
    """Half-open: the connections of one worker stand, and nothing comes."""
    world.proxy.silence(world.clients + world.chance.choice(identities))
    return _nothing


def _cut_all(world: World) -> Heal:
    world.proxy.refuse_connections(True)
    world.proxy.cut()
    return lambda: world.proxy.refuse_connections(False)


def _add_partition(world: World) -> Heal:
    """Of every topic, the outputs first."""
    wanted = world.partitions + 1
    for topic in (*world.stream.outputs.values(), world.stream.name):
        insist(lambda topic=topic: _grow(world, topic, wanted))  # type: ignore[misc]
    world.partitions = wanted
    return _nothing


def _grow(world: World, topic: str, wanted: int) -> None:
    if len(world.admin.list_topics(topic, timeout=10).topics[topic].partitions) >= wanted:
        return  # a request that was not answered may have been carried out
    for future in world.admin.create_partitions([NewPartitions(topic, wanted)], request_timeout=10).values():
        future.result(15)


def _change_a_byte(world: World) -> Heal:
    """In the log of a running broker, of a record that nobody has read: the workers stand still for that moment.

    A fetch that waits at the broker would be answered with the record before its byte changes, so it is let out first.
    """
    pids = [pid for process in world.workers.values() for pid in _children(process.pid)]
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        world.flush()
        time.sleep(_fetch_waits_s)
        partition = world.chance.randrange(6)
        number = world.write_one(partition)
        world.flush()
        folder = world.broker.folder
        mark = b"%s" % _double(number)
        for segment in sorted(folder.glob(f"node-1/*/{world.stream.name}-{partition}/*.log")):
            place = segment.read_bytes().rfind(mark)
            if place >= 0:
                with segment.open("r+b") as file:
                    file.seek(place + 8)  # the field behind it
                    file.write(b"\xff")
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    return _nothing


def _revoke(world: World) -> Heal:
    """The permission to write predictions: workers end, and are started again when it is back."""
    denied = world.acl(
        ResourceType.TOPIC, world.stream.outputs["predictions"], AclOperation.WRITE, AclPermissionType.DENY
    )
    insist(lambda: world.add_acls([denied]))

    def allow() -> None:
        insist(lambda: _delete_denials(world))
        time.sleep(0.5)
        world.revive()

    return allow


def _delete_denials(world: World) -> None:
    denies = AclBindingFilter(
        ResourceType.TOPIC,
        None,  # type: ignore[arg-type]  # any name: the stub leaves None out, here and below
        ResourcePatternType.LITERAL,
        None,  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        AclOperation.ANY,
        AclPermissionType.DENY,
    )
    for future in world.admin.delete_acls([denies], request_timeout=10).values():
        future.result(15)


def _double(number: int) -> bytes:
    return struct.pack("<d", float(number))


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


every_fault: Final = (
    Fault(name="a worker is killed", strike=_kill_worker, weight=2),
    Fault(name="a supervisor and its worker are killed", strike=_kill_supervisor),
    Fault(name="a supervisor is stopped", strike=_drain),
    Fault(
        name="a worker stands still for longer than its session",
        strike=_freeze_worker,
        lasts_s=(session_s + 1, session_s + 3),
    ),
    Fault(name="a worker joins and leaves", strike=_join_and_leave, lasts_s=(4.0, 6.0)),
    Fault(name="a broker is killed", strike=_kill_node),
    Fault(name="a broker is stopped, its partitions move", strike=_stop_node),
    Fault(name="a broker stands still", strike=_freeze_node, lasts_s=(1.0, 4.0)),
    Fault(name="the group's coordinator is killed", strike=_kill_coordinator, alone=True, nodes_min=3),
    Fault(name="a broker's disk is full", strike=_full_disk, lasts_s=(1.0, 2.0)),
    Fault(
        name="a commit is held into the next transaction", strike=_hold_commit, lasts_s=(0.0, 0.1), weight=2
    ),
    Fault(name="a request or answer is late", strike=_delay, lasts_s=(0.0, 0.1), weight=2),
    Fault(name="a request or answer is dropped", strike=_drop, weight=2),
    Fault(name="a connection is cut in a request", strike=_cut, weight=2),
    Fault(name="a request comes twice", strike=_repeat, weight=2),
    Fault(name="a request is refused with a passing error", strike=_refuse, weight=2),
    Fault(name="connections are half open", strike=_silence),
    Fault(name="all connections are cut", strike=_cut_all, lasts_s=(0.2, 3.0)),
    Fault(name="a partition is added", strike=_add_partition, alone=True),
    Fault(name="a byte changes in the log", strike=_change_a_byte, nodes_max=1, alone=True, at_the_end=True),
    Fault(name="a permission is revoked", strike=_revoke, alone=True, lasts_s=(1.0, 3.0)),
)
