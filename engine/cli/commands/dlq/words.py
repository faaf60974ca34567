"""What `penstock dlq` says: for people, and as JSON."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson
from rich.table import Table

from penstock.engine.console.terminal import Terminal
from penstock.engine.dead_letters.letters import Letter, Summary
from penstock.engine.dead_letters.replay import Replay
from penstock.engine.settings.model import Settings

_shown_bytes_max: Final = 2048


def summary_json(found: Summary, settings: Settings) -> dict[str, Any]:
    """What was found, for a program."""
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
                "newest": [letter_json(letter) for letter in found.newest[stage, reason]],
            }
            for (stage, reason), count in found.by_reason.most_common()
        ],
        "partitions": {str(partition): count for partition, count in sorted(found.by_partition.items())},
    }


def say_summary(found: Summary, settings: Settings, terminal: Terminal) -> None:
    """What was found, for people."""
    if not found.letters:
        terminal.say(f"no matching dead letters in {settings.output.dead_letters}")
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


def letter_json(letter: Letter) -> dict[str, Any]:
    """One letter, without its payload, for a program."""
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


def say_letter(letter: Letter, decoded: Any, why_not: str, terminal: Terminal) -> None:
    """One letter in full, for people."""
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


def say_report(report: Replay, settings: Settings, terminal: Terminal, *, verb: str) -> None:
    """What a replay did, or would do."""
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
    if report.refused:
        first = ", ".join(f"{partition}:{offset}" for partition, offset in report.refused_first)
        more = ", ..." if report.refused > len(report.refused_first) else ""
        terminal.say(
            f"{report.refused} are longer than {settings.input.topic} takes (its max.message.bytes) and stay dead letters, at "
            f"{first}{more} of {settings.output.dead_letters}"
        )
    if report.unreadable:
        terminal.say(
            f"{report.unreadable} messages are no dead letters and are passed over; penstock dlq list names them"
        )


def _time(at_ms: int) -> str:
    if at_ms < 0:
        return "no time"
    try:
        moment = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=at_ms)
    except OverflowError:  # a producer may say any number
        return f"{at_ms} ms after 1970"
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
