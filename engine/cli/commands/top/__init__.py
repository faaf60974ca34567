"""`penstock top`: what a running engine does now."""

import argparse
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.engine.clock import SystemClock
from penstock.engine.console.terminal import Terminal
from penstock.engine.settings.model import Settings, load_settings
from penstock.schemas.errors import ConfigError

if TYPE_CHECKING:
    from penstock.connectors.kafka.simple import KafkaReader
    from penstock.engine.watch.frame import Newest
    from penstock.engine.watch.results import Results

summary = (
    "A running engine, once a second: every record accounted for, rate and latency against the objective, what its time goes into, "
    "partitions with their owners and ages, the newest predictions and why. With the settings the predictions come from the output topics; "
    "with --url alone, from the engine. Elsewhere than on a terminal: a line a second. Ends with Ctrl+C."
)
example = "penstock top penstock.yaml"

_newest_max = 5
_kept = 16
"""Messages of each partition that are looked at each second: more than are shown, and never a stream's whole rate."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `penstock top` takes."""
    parser.add_argument(
        "settings", type=Path, nargs="?", metavar="penstock.yaml", help="the settings of the workers"
    )
    parser.add_argument(
        "--url",
        metavar="URL",
        help="the engine's HTTP port (default: http.host and http.port of the settings)",
    )
    parser.add_argument("--seconds", type=_seconds, default=0.0, metavar="S", help="end after so long")
    parser.add_argument(
        "--every",
        type=_interval,
        default=1.0,
        metavar="S",
        help="look every so many seconds, 0.25 to 3600 (default: 1)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Watch; raises UnavailableError when nobody answers."""
    from penstock.engine.doctor.look import own_url  # late: --help needs none of it
    from penstock.engine.watch.live import watch
    from penstock.engine.watch.look import Engine

    settings = load_settings(arguments.settings) if arguments.settings is not None else None
    url = arguments.url or (own_url(settings) if settings is not None else None)
    if url is None:
        raise ConfigError(
            "say where the engine is: its settings, with http.port set, or --url http://HOST:PORT"
        )
    clock = SystemClock()
    with ExitStack() as held:
        engine = Engine(url)
        engine.look(now_s=clock.monotonic_s())  # before any reader: nobody there is the first thing to say
        follow = _newest(settings, held) if settings is not None else None
        return watch(
            lambda: engine.look(now_s=clock.monotonic_s()),
            terminal,
            clock,
            newest=tuple if follow is None else follow,
            seconds=arguments.seconds,
            every_s=arguments.every,
        )


class _Newest:
    """The newest predictions of the output topics, newest first."""

    def __init__(self, results: "Results", readers: "Sequence[KafkaReader]") -> None:
        self._results = results
        self._readers = readers
        self._newest: deque[Newest] = deque(maxlen=_newest_max)

    def __call__(self) -> "tuple[Newest, ...]":
        from penstock.engine.watch.frame import Newest
        from penstock.engine.watch.words import headline

        for reader in self._readers:
            reader.skip_ahead(_kept)
        for result in self._results.next(0.01):
            reasons = result.explanation.reasons if result.explanation is not None else ()
            self._newest.appendleft(Newest(headline=headline(result), reasons=reasons))
        return tuple(self._newest)


def _newest(settings: Settings, held: ExitStack) -> _Newest:
    from penstock.connectors.kafka.admin.permissions import require_permissions
    from penstock.connectors.kafka.simple import KafkaReader
    from penstock.engine.watch.results import Results
    from penstock.engine.worker.kafka import client_config
    from penstock.engine.worker.permissions import permissions

    config, clock, output = client_config(settings.kafka), SystemClock(), settings.output
    require_permissions(config, permissions(settings)["tail"])
    topics = [output.predictions, *([output.explanations] if output.explanations else [])]
    readers = [
        held.enter_context(closing(KafkaReader(config, topic, clock, from_end=True))) for topic in topics
    ]
    results = Results(
        predictions=readers[0], explanations=readers[1] if len(readers) > 1 else None, clock=clock
    )
    return _Newest(results, readers)


def _interval(text: str) -> float:
    value = float(text)
    if not 0.25 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.25 and 3600 s")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1e9:
        raise argparse.ArgumentTypeError(f"{text} is not a time")
    return value
