"""`penstock offsets`: where the group is in every partition of the input, and setting it somewhere else."""

import argparse
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.engine.clock import SystemClock
from penstock.engine.console.terminal import Terminal
from penstock.engine.dead_letters.selection import parse_since
from penstock.engine.scaling.lag import OffsetReading, PartitionLag, measure
from penstock.engine.settings.model import Settings, load_settings
from penstock.schemas.errors import ConfigError

if TYPE_CHECKING:
    from penstock.connectors.kafka.offset_reset import OffsetReset

summary = "the group's committed offsets: show them, or set them while no worker runs"
example = """penstock offsets show penstock.yaml
  penstock offsets reset penstock.yaml --to-offset 1043 --partition 3
  penstock offsets reset penstock.yaml --to-earliest --apply"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `penstock offsets` takes."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    shower = actions.add_parser(
        "show", help="committed offset, first and last of each partition, and what is wrong with them"
    )
    setter = actions.add_parser(
        "reset",
        help="say what would be committed, and what would be skipped or read again; commit it with --apply",
    )
    for each in (shower, setter):
        each.add_argument("settings", type=Path, metavar="penstock.yaml", help="the settings of the workers")
        each.add_argument("--json", action="store_true", help="print one JSON object")
    where = setter.add_mutually_exclusive_group(required=True)
    where.add_argument("--to-earliest", action="store_true", help="to the first record that is left")
    where.add_argument("--to-latest", action="store_true", help="to the end: only what comes is read")
    where.add_argument("--to-offset", type=int, metavar="N", help="to this offset")
    where.add_argument(
        "--to-time", metavar="TIME", help="to the first record since 30m, 2h, 1d ago or an ISO time"
    )
    setter.add_argument(
        "--partition", type=int, action="append", metavar="P", help="only this partition; repeatable"
    )
    setter.add_argument("--apply", action="store_true", help="commit; without it nothing is changed")


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Show or reset. Raises ConfigError while the group lives, for a partition or an offset that is not there, or a missing permission."""
    from penstock.connectors.kafka.admin.group_offsets import (
        KafkaOffsets,  # late: --help needs no Kafka client
    )
    from penstock.connectors.kafka.admin.permissions import require_permissions
    from penstock.connectors.kafka.offset_reset import OffsetReset
    from penstock.engine.worker.kafka import client_config
    from penstock.engine.worker.permissions import permissions

    settings = load_settings(arguments.settings)
    config, group, topic = client_config(settings.kafka), settings.kafka.group, settings.input.topic
    require_permissions(config, permissions(settings)["lag" if arguments.action == "show" else "offsets"])
    with ExitStack() as stack:
        offsets = stack.enter_context(closing(KafkaOffsets(config, group)))
        readings = offsets.read(topic)
        if arguments.action == "show":
            return _show(readings, settings, terminal)
        reset = stack.enter_context(closing(OffsetReset(config, group=group, topic=topic)))
        return _reset(arguments, readings, reset, settings, terminal)


def _show(readings: Sequence[OffsetReading], settings: Settings, terminal: Terminal) -> int:
    lags = measure(readings, now_ms=SystemClock().wall_ms(), start=settings.kafka.start)
    terminal.result(
        {
            "group": settings.kafka.group,
            "topic": settings.input.topic,
            "partitions": [
                asdict(lag) | {"earliest": reading.earliest, "high": reading.high}
                for reading, lag in zip(readings, lags, strict=True)
            ],
        }
    )
    if not terminal.json:
        terminal.say(f"group {settings.kafka.group} on {settings.input.topic}")
        for reading, lag in zip(readings, lags, strict=True):
            terminal.say(_line(reading, lag))
    return 0


def _line(reading: OffsetReading, lag: PartitionLag) -> str:
    committed = "none" if reading.committed is None else str(reading.committed)
    note = f"; {lag.note}" if lag.note else ""
    return (
        f"partition {reading.partition}: committed {committed}, first {reading.earliest}, end {reading.end}"
        f"{note}"
    )


def _reset(
    arguments: argparse.Namespace,
    readings: Sequence[OffsetReading],
    reset: "OffsetReset",
    settings: Settings,
    terminal: Terminal,
) -> int:
    by_partition = {reading.partition: reading for reading in readings}
    chosen = sorted(set(arguments.partition)) if arguments.partition else sorted(by_partition)
    if unknown := [partition for partition in chosen if partition not in by_partition]:
        raise ConfigError(
            f"topic {settings.input.topic} has no partition {unknown[0]}; it has {len(by_partition)}"
        )
    if members := reset.members():
        raise ConfigError(
            f"group {settings.kafka.group} is alive ({', '.join(members)}): stop its workers first"
        )
    targets = _targets(arguments, [by_partition[partition] for partition in chosen], reset)
    changes = [_change(by_partition[partition], offset) for partition, offset in targets.items()]
    if arguments.apply:
        reset.commit(targets, topic_id=readings[0].topic_id)
    terminal.result(
        {
            "group": settings.kafka.group,
            "topic": settings.input.topic,
            "applied": arguments.apply,
            "partitions": changes,
        }
    )
    if not terminal.json:
        for change in changes:
            before = "none" if change["from"] is None else change["from"]
            terminal.say(f"partition {change['partition']}: {before} to {change['to']}; {change['effect']}")
        terminal.say("committed" if arguments.apply else "nothing was changed; --apply commits it")
    return 0


def _targets(
    arguments: argparse.Namespace, readings: Sequence[OffsetReading], reset: "OffsetReset"
) -> dict[int, int]:
    if arguments.to_time is not None:
        time_ms = parse_since(arguments.to_time, SystemClock().wall_ms(), name="--to-time")
        return reset.at_time([reading.partition for reading in readings], time_ms)
    if arguments.to_offset is None:
        return {r.partition: r.earliest if arguments.to_earliest else r.high for r in readings}
    for reading in readings:
        if not reading.earliest <= arguments.to_offset <= reading.high:
            raise ConfigError(
                f"offset {arguments.to_offset} is not in partition {reading.partition}, which has "
                f"{reading.earliest} to {reading.high}; choose partitions with --partition"
            )
    return {reading.partition: arguments.to_offset for reading in readings}


def _change(reading: OffsetReading, to: int) -> Mapping[str, Any]:
    known = reading.committed is not None and reading.committed_topic_id in (None, reading.topic_id)
    start = reading.committed if known and reading.committed is not None else reading.earliest
    if not reading.earliest <= start <= reading.high:
        start = reading.earliest
    if to > start:
        effect = f"offsets {start} to {to - 1} are skipped"
    elif to < start:
        effect = f"offsets {to} to {start - 1} are read again"
    else:
        effect = "the next record stays the same"
    return {"partition": reading.partition, "from": reading.committed, "to": to, "effect": effect}
