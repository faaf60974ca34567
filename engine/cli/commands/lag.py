"""`penstock lag`: how far behind the group is, per partition, and what does not move."""

import argparse
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from penstock.engine.clock import Clock, SystemClock
from penstock.engine.console.terminal import Terminal, printable
from penstock.engine.scaling.lag import (
    Movement,
    PartitionLag,
    compare,
    measure,
    oldest_s,
    with_foreign,
)
from penstock.engine.settings.model import Settings, load_settings
from penstock.engine.settings.worker_names import is_worker
from penstock.schemas.errors import UnavailableError

if TYPE_CHECKING:
    from penstock.engine.watch.told_hints import ToldHints

summary = (
    "How far behind the group is: records and seconds per partition, who owns it, and what is stuck. Of a running engine also when "
    "its records will be older than they may be, and the likeliest cause."
)
example = "penstock lag penstock.yaml --watch"

_watch_every_s = 2.0
_notes_max = 20
_standing = (Movement.STUCK, Movement.UNREADABLE, Movement.OUT_OF_RANGE)
_colours = dict.fromkeys((*_standing, Movement.FOREIGN), "bold red") | {
    Movement.UNOWNED: "yellow",
    Movement.CAUGHT_UP: "green",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `penstock lag` takes."""
    parser.add_argument("settings", type=Path, metavar="penstock.yaml", help="the settings of the workers")
    parser.add_argument(
        "--over",
        type=_seconds,
        default=3.0,
        metavar="S",
        help="look twice, this many seconds apart, to tell what is stuck from what moves; 0 looks once (default 3)",
    )
    parser.add_argument(
        "--url",
        metavar="URL",
        help="the engine's HTTP port, for the forecast (default: http.host and http.port of the settings)",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--watch", action="store_true", help="look again every two seconds, until Ctrl-C")
    how.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Show the lag; raises what KafkaOffsets.read raises."""
    from penstock.connectors.kafka.admin.group_offsets import (
        KafkaOffsets,  # late: --help needs no Kafka client
    )
    from penstock.connectors.kafka.admin.permissions import require_permissions
    from penstock.engine.worker.kafka import client_config
    from penstock.engine.worker.permissions import permissions

    settings = load_settings(arguments.settings)
    forecast = _asker(arguments.url, settings)
    clock = SystemClock()
    config = client_config(settings.kafka)
    require_permissions(config, permissions(settings)["lag"])
    with closing(KafkaOffsets(config, settings.kafka.group)) as offsets:

        def look() -> list[PartitionLag]:
            readings = offsets.read(settings.input.topic)
            lags = measure(readings, now_ms=clock.wall_ms(), start=settings.kafka.start)
            return with_foreign(lags, lambda client_id: is_worker(client_id, settings.kafka))

        if arguments.watch:
            _watch(look, forecast, settings, terminal)
            return 0
        lags = _look_twice(look, arguments.over, clock)
        told = forecast()
        terminal.result(as_json(lags, settings, told))
        if not terminal.json:
            terminal.say(as_table(lags, settings))
            noted = [lag for lag in lags if lag.note]
            for lag in noted[:_notes_max]:
                terminal.say(f"partition {lag.partition}: {lag.note}")
            if len(noted) > _notes_max:
                terminal.say(f"and {len(noted) - _notes_max} more partitions; --json has all")
            for line in told.lines():
                terminal.say(line)
    return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What the engine says, or why that cannot be known."""

    told: "ToldHints | None" = None
    unknown: str = ""

    def lines(self) -> list[str]:
        """For a person."""
        if self.told is None:
            return [f"forecast and cause: cannot be known: {self.unknown}"]
        return self.told.lines()


def _asker(url: str | None, settings: Settings) -> Callable[[], Forecast]:
    """Raises ConfigError for what is no address."""
    from penstock.engine.doctor.look import own_url  # late: --help needs none of it
    from penstock.engine.watch.look import Engine
    from penstock.engine.watch.told_hints import ask_hints

    at = url or own_url(settings)
    if at is None:
        return lambda: Forecast(
            unknown="no running engine to ask: give --url, or an http.port in the settings"
        )
    Engine(at)  # what is no address is refused at once

    def ask() -> Forecast:
        try:
            return Forecast(told=ask_hints(at))
        except UnavailableError as error:
            return Forecast(unknown=f"{error}; --url says where the engine is")

    return ask


def as_json(lags: Sequence[PartitionLag], settings: Settings, forecast: Forecast) -> dict[str, Any]:
    """The lag as the one object of --json."""
    return {
        "group": settings.kafka.group,
        "topic": settings.input.topic,
        "lag_records": sum(lag.lag_records for lag in lags),
        "lag_seconds": oldest_s(lags),
        "stuck": [lag.partition for lag in lags if lag.movement in _standing],
        "foreign": [lag.partition for lag in lags if lag.movement is Movement.FOREIGN],
        "partitions": [asdict(lag) for lag in lags],
        "hints": None if forecast.told is None else asdict(forecast.told),
        "hints_unknown": forecast.unknown or None,
    }


def as_table(lags: Sequence[PartitionLag], settings: Settings) -> Table:
    """The lag for people, with its sum below."""
    total = sum(lag.lag_records for lag in lags)
    table = Table(
        title=f"{settings.kafka.group} on {settings.input.topic}",
        show_footer=True,
        box=None,
        title_justify="left",
    )
    table.add_column("part", justify="right")
    table.add_column("committed", justify="right")
    table.add_column("end", justify="right", footer="in all")
    table.add_column("lag", justify="right", footer=f"{total:,}")
    table.add_column("seconds", justify="right", footer=f"{oldest_s(lags):,.1f}")
    table.add_column("")
    table.add_column("owner", overflow="fold")
    for lag in lags:
        table.add_row(
            str(lag.partition),
            "-" if lag.committed is None else str(lag.committed),
            str(lag.end),
            f"{lag.lag_records:,}",
            "unknown" if lag.lag_seconds is None else f"{lag.lag_seconds:,.1f}",
            str(lag.movement),
            lag.owner or "-",
            style=_colours.get(lag.movement),
        )
    return table


def _look_twice(look: Callable[[], list[PartitionLag]], over_s: float, clock: Clock) -> list[PartitionLag]:
    lags = look()
    if over_s == 0 or all(lag.movement is not Movement.BEHIND for lag in lags):
        return lags
    clock.sleep(over_s)
    return compare(lags, look())


def _watch(
    look: Callable[[], list[PartitionLag]],
    forecast: Callable[[], Forecast],
    settings: Settings,
    terminal: Terminal,
) -> None:
    """On a terminal the table is drawn over itself; elsewhere one line for each look."""
    pause, before = threading.Event(), look()
    if not terminal.live:
        while True:
            total = sum(lag.lag_records for lag in before)
            stuck = [str(lag.partition) for lag in before if lag.movement in _standing]
            foreign = [str(lag.partition) for lag in before if lag.movement is Movement.FOREIGN]
            others = f", another program's: {', '.join(foreign)}" if foreign else ""
            terminal.say(
                f"lag {total} records, {oldest_s(before):.1f} s, stuck: {', '.join(stuck) or 'none'}{others}"
                f"; {'; '.join(forecast().lines())}"
            )
            pause.wait(_watch_every_s)
            before = compare(before, look())

    def drawn() -> Group:
        return Group(as_table(before, settings), *(Text(printable(line)) for line in forecast().lines()))

    with Live(drawn(), console=terminal.console, auto_refresh=False) as live:
        while True:
            pause.wait(_watch_every_s)
            before = compare(before, look())
            live.update(drawn(), refresh=True)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 3600")
    return value
