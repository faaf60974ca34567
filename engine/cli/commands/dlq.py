"""`penstock dlq`: what was set aside and why; put it back after a fix."""

import argparse
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
from rich.table import Table

from penstock.engine.clock import SystemClock
from penstock.engine.console.terminal import Terminal
from penstock.engine.dead_letters.replay import (
    Letter,
    LetterFilter,
    Replay,
    Summary,
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
_shown_bytes_max: Final = 2048


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
    terminal.result(_summary_json(found, settings))
    if not terminal.json:
        _say_summary(found, settings, terminal)
    return 0


def _summary_json(found: Summary, settings: Settings) -> dict[str, Any]:
    return {
        "topic": settings.output.dead_letters,
        "letters": found.letters,
        "unreadable": found.unreadable,
        "unreadable_first": [asdict(each) for each in found.unreadable_first],
        "kinds": [
            {
                "stage": stage,
                "reason": reason,
                "letters": count,
                "newest": [_letter_json(letter) for letter in found.newest[stage, reason]],
            }
            for (stage, reason), count in found.by_reason.most_common()
        ],
        "partitions": {str(partition): count for partition, count in sorted(found.by_partition.items())},
    }


def _say_summary(found: Summary, settings: Settings, terminal: Terminal) -> None:
    if not found.letters:
        terminal.say(f"no dead letters of this kind in {settings.output.dead_letters}")
    else:
        table = Table(
            "stage", "reason", "records", "newest", "record", "detail", box=None, header_style="bold"
        )
        for (stage, reason), count in found.by_reason.most_common():
            examples: list[tuple[str, ...]] = [_row(letter) for letter in found.newest[stage, reason]]
            head = (stage, reason, str(count))
            for row in examples or [()]:
                table.add_row(*head, *row)
                head = ("", "", "")
        terminal.say(table)
        partitions = ", ".join(
            f"{partition}: {count}" for partition, count in sorted(found.by_partition.items())
        )
        terminal.say(
            f"{found.letters} dead letter{'s' * (found.letters != 1)} in {settings.output.dead_letters}; by source partition {partitions}"
        )
    if found.unreadable:
        first = ", ".join(f"{each.partition}:{each.offset} ({each.why})" for each in found.unreadable_first)
        more = ", ..." if found.unreadable > len(found.unreadable_first) else ""
        terminal.say(
            f"{found.unreadable} messages of that topic are not dead letters of this version: {first}{more}"
        )


def _row(letter: Letter) -> tuple[str, str, str]:
    source = letter.dead.source
    return _time(letter.dead.at_ms), f"{source.partition}:{source.offset}", letter.dead.detail


def _letter_json(letter: Letter) -> dict[str, Any]:
    dead = letter.dead
    return {
        "at_ms": dead.at_ms,
        "source": asdict(dead.source),
        "stage": dead.stage,
        "reason": dead.reason,
        "detail": dead.detail,
        "model": asdict(dead.model),
        "worker": dead.worker,
        "letter": {"partition": letter.partition, "offset": letter.offset},
    }


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
        _letter_json(letter)
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
        _say_letter(letter, decoded, why_not, terminal)
    return 0


def _say_letter(letter: Letter, decoded: Any, why_not: str, terminal: Terminal) -> None:
    dead = letter.dead
    source = dead.source
    terminal.say(
        f"record    {source.topic} {source.partition}:{source.offset} of {_time(source.timestamp_ms)}, cluster {source.cluster}"
    )
    terminal.say(
        f"set aside {_time(dead.at_ms)} by {dead.worker}, model {dead.model.name} {dead.model.version}"
    )
    terminal.say(f"why       {dead.reason} at {dead.stage}: {dead.detail}")
    key = "none" if letter.key is None else repr(letter.key)[1:]
    terminal.say(f"key       {'left at the source, see above' if dead.key_elsewhere else key}")
    for name, value in dead.headers:
        terminal.say(f"header    {name} = {'null' if value is None else repr(value)[1:]}")
    if dead.payload is None:
        terminal.say("payload   " + ("left at the source, see above" if dead.elsewhere else "none"))
        return
    terminal.say(f"payload   {len(dead.payload)} bytes")
    shown = dead.payload[:_shown_bytes_max]
    for start in range(0, len(shown), 16):
        part = shown[start : start + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        terminal.say(f"  {start:06x}  {part.hex(' '):<47}  {text}")
    if len(dead.payload) > len(shown):
        terminal.say(f"  ... {len(dead.payload) - len(shown)} bytes more; --json has all")
    if decoded is None:
        terminal.say(f"not decoded: {why_not}")
    else:
        terminal.say_lines(orjson.dumps(decoded, option=orjson.OPT_INDENT_2).decode())


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
        "by_reason": dict(report.by_reason),
    })  # fmt: skip
    if not terminal.json:
        _say_report(report, settings, terminal, verb="put back" if done else "to put back")
    return 0


def _say_report(report: Replay, settings: Settings, terminal: Terminal, *, verb: str) -> None:
    reasons = ", ".join(f"{reason} {count}" for reason, count in report.by_reason.most_common())
    terminal.say(f"{report.replayed} {verb} on {settings.input.topic}" + (f": {reasons}" if reasons else ""))
    if report.already:
        terminal.say(f"{report.already} were put back before and are passed over (--again includes them)")
    if report.gone:
        terminal.say(
            f"{report.gone} cannot be put back: their bytes are not in their letter, and not in {settings.input.topic} any more"
        )
    if report.foreign:
        terminal.say(
            f"{report.foreign} are of another input topic, or of a partition it does not have, and are passed over"
        )
    if report.unreadable:
        terminal.say(
            f"{report.unreadable} messages are no dead letters and are passed over; penstock dlq list names them"
        )


def _ask(plan: Replay, settings: Settings, terminal: Terminal) -> None:
    """Raises PenstockError unless the answer is yes."""
    if terminal.json or not sys.stdin.isatty():
        raise ConfigError("nobody is there to ask: --yes replays without asking, --dry-run only looks")
    _say_report(plan, settings, terminal, verb="to put back")
    if terminal.console.input("go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise PenstockError("nothing was put back")


def _time(at_ms: int) -> str:
    if at_ms < 0:
        return "no time"
    try:
        moment = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=at_ms)
    except OverflowError:  # a producer may say any number
        return f"{at_ms} ms after 1970"
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


_actions: Final[dict[str, Callable[[argparse.Namespace, Settings, Terminal], int]]] = {
    "list": _list,
    "show": _show,
    "replay": _replay,
}
