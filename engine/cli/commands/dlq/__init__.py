"""`penstock dlq`: what was set aside and why; put it back after a fix."""

import argparse
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
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
from penstock.engine.dead_letters.replay import (
    LetterFilter,
    Replay,
    find_letter,
    replay,
    summarise,
)
from penstock.engine.settings.model import Settings, load_settings
from penstock.engine.worker.letter_payload import decoded_payload
from penstock.schemas.errors import ConfigError, PenstockError
from penstock.schemas.reasons import Reason, Stage

if TYPE_CHECKING:
    from penstock.connectors.kafka.dead_letters import KafkaLog, StoredMessage

summary = "dead letters: list what was set aside and why, show one of them in full, replay them after a fix"
example = """penstock dlq list penstock.yaml
  penstock dlq show penstock.yaml 3:1042
  penstock dlq replay penstock.yaml --reason unknown_schema --since 2h --dry-run"""

_units: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


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
    _require_permissions(settings, "replay" if arguments.action == "replay" else "letters")
    return _actions[arguments.action](arguments, settings, terminal)


def _require_permissions(settings: Settings, role: str) -> None:
    from penstock.connectors.kafka.admin.permissions import (
        require_permissions,
    )  # late: --help needs no Kafka client
    from penstock.engine.worker.kafka import client_config
    from penstock.engine.worker.permissions import permissions

    require_permissions(client_config(settings.kafka), permissions(settings)[role])


def parse_since(text: str, now_ms: int) -> int:
    """Milliseconds since 1970 of `30m`, `2h`, `1d` ago, or of an ISO time (UTC where it says no zone). Raises ConfigError."""
    if text[-1:] in _units and text[:-1].isdecimal():
        return now_ms - int(text[:-1]) * _units[text[-1]] * 1000
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"--since {text} is neither a time nor like 30m, 2h or 1d") from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def parse_place(text: str) -> tuple[int, int]:
    """Partition and offset. Raises ConfigError."""
    partition, _, offset = text.partition(":")
    if not (partition.isdecimal() and offset.isdecimal()):
        raise ConfigError(f"{text} is not a place like 3:1042, partition and offset in the input topic")
    return int(partition), int(offset)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reason",
        action="append",
        choices=[*map(str, Reason)],
        metavar="REASON",
        help="only this reason; repeatable",
    )
    parser.add_argument(
        "--stage",
        action="append",
        choices=[*map(str, Stage)],
        metavar="STAGE",
        help="only this stage; repeatable",
    )
    parser.add_argument("--since", metavar="TIME", help="only set aside since 30m, 2h, 1d or an ISO time")
    parser.add_argument(
        "--partition", type=int, metavar="P", help="only from this partition of the input topic"
    )
    parser.add_argument("--offset", type=int, metavar="N", help="only from this offset (with --partition)")


def _filter(arguments: argparse.Namespace) -> LetterFilter:
    if arguments.offset is not None and arguments.partition is None:
        raise ConfigError("--offset needs --partition: offsets are counted in each")
    since = arguments.since
    return LetterFilter(
        reasons=frozenset(arguments.reason or ()),
        stages=frozenset(arguments.stage or ()),
        since_ms=None if since is None else parse_since(since, SystemClock().wall_ms()),
        partition=arguments.partition,
        offset=arguments.offset,
    )


@contextmanager
def _log(settings: Settings, topic: str) -> Iterator["KafkaLog"]:
    from penstock.connectors.kafka.dead_letters import KafkaLog  # late: --help needs no Kafka client
    from penstock.engine.worker.kafka import client_config

    log = KafkaLog(client_config(settings.kafka), topic=topic, group=_replay_group(settings))
    try:
        yield log
    finally:
        log.close()


class _Watched:
    """A log whose reading shows as a bar where somebody watches."""

    def __init__(self, log: "KafkaLog", terminal: Terminal) -> None:
        self._log = log
        self._terminal = terminal

    def read(self) -> "Iterator[StoredMessage]":
        if not self._terminal.live:
            return self._log.read()
        return self._terminal.track(self._log.read(), label="reading dead letters", total=self._log.size())

    def partitions(self) -> "Collection[int]":
        return self._log.partitions()

    def one(self, partition: int, offset: int) -> "StoredMessage | None":
        return self._log.one(partition, offset)


def _replay_group(settings: Settings) -> str:
    return f"{settings.kafka.group}-replay"


def _list(arguments: argparse.Namespace, settings: Settings, terminal: Terminal) -> int:
    wanted = _filter(arguments)
    with _log(settings, settings.output.dead_letters) as log:
        found = summarise(_Watched(log, terminal), wanted, newest_max=max(0, arguments.newest))
    terminal.result(summary_json(found, settings))
    if not terminal.json:
        say_summary(found, settings, terminal)
    return 0


def _show(arguments: argparse.Namespace, settings: Settings, terminal: Terminal) -> int:
    partition, offset = parse_place(arguments.place)
    with _log(settings, settings.output.dead_letters) as log:
        letter = find_letter(_Watched(log, terminal), partition=partition, offset=offset)
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
    from penstock.connectors.kafka.dead_letters import ReplayWriter
    from penstock.engine.worker.kafka import client_config

    wanted = _filter(arguments)
    returns = ReplayWriter(
        client_config(settings.kafka),
        group=_replay_group(settings),
        letters_topic=settings.output.dead_letters,
        topic=settings.input.topic,
    )
    with ExitStack() as stack:
        stack.callback(returns.close)
        log = _Watched(stack.enter_context(_log(settings, settings.output.dead_letters)), terminal)
        source = stack.enter_context(_log(settings, settings.input.topic))

        def go(*, dry_run: bool) -> Replay:
            return replay(
                log,
                source,
                returns,
                wanted,
                topic=settings.input.topic,
                again=arguments.again,
                dry_run=dry_run,
            )

        plan = go(dry_run=True)
        done = bool(plan.replayed) and not arguments.dry_run
        if done and not arguments.yes:
            _ask(plan, settings, terminal)
        report = go(dry_run=False) if done else plan
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
