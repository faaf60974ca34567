"""`penstock dlq`: what was set aside and why; put it back after a fix."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from penstock.engine.cli.commands.dlq.words import (
    letter_json,
    say_letter,
    say_report,
    say_summary,
    summary_json,
)
from penstock.engine.clock import SystemClock
from penstock.engine.console.terminal import Terminal
from penstock.engine.dead_letters.letters import LetterFilter, find_letter, summarise
from penstock.engine.dead_letters.replay import Replay
from penstock.engine.dead_letters.selection import letter_filter, parse_since, reasons, stages
from penstock.engine.settings.model import Settings, load_settings
from penstock.engine.worker.letters.payload import decoded_payload
from penstock.engine.worker.permissions import replay_group
from penstock.schemas.errors import ConfigError, PenstockError
from penstock.schemas.whole_number import whole_number

if TYPE_CHECKING:
    from penstock.connectors.kafka.dead_letters import KafkaLog
    from penstock.connectors.kafka.reading.records import StoredMessage
    from penstock.engine.worker.letters.replaying import WatchedLog

summary = "dead letters: list what was set aside and why, show one of them in full, replay them after a fix"
example = """penstock dlq list penstock.yaml
  penstock dlq show penstock.yaml 3:1042
  penstock dlq replay penstock.yaml --reason unknown_schema --since 2h --dry-run"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `penstock dlq` takes."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    lister = actions.add_parser("list", help="counts by stage, reason and partition, with the newest of each")
    lister.add_argument(
        "--newest", type=int, default=3, metavar="N", help="examples of each kind (default 3)"
    )
    shower = actions.add_parser("show", help="one dead letter in full: why, headers, payload")
    replayer = actions.add_parser(
        "replay",
        help="put records back on the input topic: original key, bytes, headers and partition; each once",
    )
    for each in (lister, shower, replayer):
        each.add_argument("settings", type=Path, metavar="penstock.yaml", help="the settings of the workers")
        each.add_argument("--json", action="store_true", help="print one JSON object")
    shower.add_argument("place", metavar="PARTITION:OFFSET", help="where the record stood in the input topic")
    for each in (lister, replayer):
        _add_filters(each)
    replayer.add_argument("--dry-run", action="store_true", help="say what would be put back, and stop")
    replayer.add_argument("--yes", action="store_true", help="do not ask")
    replayer.add_argument("--again", action="store_true", help="also what was put back before")


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """List, show or replay; raises what penstock.engine.dead_letters.replay raises."""
    settings = load_settings(arguments.settings)
    _require_words(arguments)
    _require_permissions(settings, "replay" if arguments.action == "replay" else "letters")
    return _actions[arguments.action](arguments, settings, terminal)


def _require_words(arguments: argparse.Namespace) -> None:
    """What was written wrongly is said before anybody is asked. Raises ConfigError."""
    if arguments.action == "show":
        parse_place(arguments.place)
    elif arguments.since is not None:
        parse_since(arguments.since, SystemClock().wall_ms(), name="--since")


def _require_permissions(settings: Settings, role: str) -> None:
    from penstock.connectors.kafka.admin.permissions import (
        require_permissions,
    )  # late: --help needs no Kafka client
    from penstock.engine.worker.kafka import client_config
    from penstock.engine.worker.permissions import permissions

    require_permissions(client_config(settings.kafka), permissions(settings)[role])


def parse_place(text: str) -> tuple[int, int]:
    """Partition and offset. Raises ConfigError."""
    partition, _, offset = text.partition(":")
    place = whole_number(partition), whole_number(offset)
    if place[0] is None or place[1] is None:
        raise ConfigError(f"{text[:50]} is not a place like 3:1042, partition and offset in the input topic")
    return place[0], place[1]


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reason",
        action="append",
        choices=reasons,
        metavar="REASON",
        help="only this reason; repeatable",
    )
    parser.add_argument(
        "--stage",
        action="append",
        choices=stages,
        metavar="STAGE",
        help="only this stage; repeatable",
    )
    parser.add_argument("--since", metavar="TIME", help="only set aside since 30m, 2h, 1d or an ISO time")
    parser.add_argument(
        "--partition", type=int, metavar="P", help="only from this partition of the input topic"
    )
    parser.add_argument("--offset", type=int, metavar="N", help="only from this offset (with --partition)")


def _filter(arguments: argparse.Namespace) -> LetterFilter:
    since, now_ms = arguments.since, SystemClock().wall_ms()
    return letter_filter(
        reasons=arguments.reason,
        stages=arguments.stage,
        since_ms=None if since is None else parse_since(since, now_ms, name="--since"),
        partition=arguments.partition,
        offset=arguments.offset,
    )


@contextmanager
def _log(settings: Settings, terminal: Terminal) -> Iterator["WatchedLog"]:
    from penstock.connectors.kafka.dead_letters import KafkaLog  # late: --help needs no Kafka client
    from penstock.engine.worker.kafka import client_config
    from penstock.engine.worker.letters.replaying import WatchedLog

    log = KafkaLog(
        client_config(settings.kafka), topic=settings.output.dead_letters, group=replay_group(settings)
    )
    try:
        yield WatchedLog(log=log, watch=lambda each: _watch(each, terminal))
    finally:
        log.close()


def _watch(log: "KafkaLog", terminal: Terminal) -> "Iterator[StoredMessage]":
    """Its messages, and a bar where somebody watches."""
    if not terminal.live:
        return log.read()
    return terminal.track(log.read(), label="reading dead letters", total=log.size())


def _list(arguments: argparse.Namespace, settings: Settings, terminal: Terminal) -> int:
    wanted = _filter(arguments)
    with _log(settings, terminal) as log:
        found = summarise(log, wanted, newest_max=max(0, arguments.newest))
    terminal.result(summary_json(found, settings))
    if not terminal.json:
        say_summary(found, settings, terminal)
    return 0


def _show(arguments: argparse.Namespace, settings: Settings, terminal: Terminal) -> int:
    partition, offset = parse_place(arguments.place)
    with _log(settings, terminal) as log:
        letter = find_letter(log, partition=partition, offset=offset)
    if letter is None:
        raise PenstockError(
            f"no dead letter of {settings.input.topic} {arguments.place} in {settings.output.dead_letters}"
        )
    dead = letter.dead
    decoded, why_not = decoded_payload(dead, settings)
    terminal.result(
        letter_json(letter)
        | {
            "key_hex": None if letter.key is None else letter.key.hex(),
            "headers": [[name, None if value is None else value.hex()] for name, value in dead.headers],
            "payload_hex": None if dead.payload is None else dead.payload.hex(),
            "payload_elsewhere": asdict(dead.elsewhere) if dead.elsewhere else None,
            "key_elsewhere": asdict(dead.key_elsewhere) if dead.key_elsewhere else None,
            "payload": decoded,
        }
    )
    if not terminal.json:
        say_letter(letter, decoded, why_not, terminal)
    return 0


def _replay(arguments: argparse.Namespace, settings: Settings, terminal: Terminal) -> int:
    from penstock.engine.worker.letters.replaying import replaying  # late: --help needs no Kafka client

    wanted, again = _filter(arguments), bool(arguments.again)
    with replaying(settings, watch=lambda log: _watch(log, terminal)) as letters:
        plan = letters.look(wanted, again=again)
        done = bool(plan.replayed) and not arguments.dry_run
        if done and not arguments.yes:
            _ask(plan, settings, terminal)
        report = letters.put_back(wanted, again=again) if done else plan
    terminal.result({
        "topic": settings.input.topic,
        "dry_run": bool(arguments.dry_run),
        "replayed": report.replayed if done else 0,
        "to_replay": plan.replayed,
        "already": report.already,
        "gone": report.gone,
        "foreign": report.foreign,
        "unreadable": report.unreadable,
        "refused": report.refused,
        "refused_first": [f"{partition}:{offset}" for partition, offset in report.refused_first],
        "by_reason": dict(report.by_reason),
    })  # fmt: skip
    if not terminal.json:
        say_report(report, settings, terminal, verb="put back" if done else "to put back")
    return 0


def _ask(plan: Replay, settings: Settings, terminal: Terminal) -> None:
    """Raises PenstockError unless the answer is yes."""
    if terminal.json or not sys.stdin.isatty():
        raise ConfigError("nobody is there to ask: --yes replays without asking, --dry-run only looks")
    say_report(plan, settings, terminal, verb="to put back")
    if terminal.console.input("go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise PenstockError("nothing was put back")


_actions: Final[dict[str, Callable[[argparse.Namespace, Settings, Terminal], int]]] = {
    "list": _list,
    "show": _show,
    "replay": _replay,
}
