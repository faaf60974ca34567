"""`penstock tail`: predictions with their reasons, as they come."""

import argparse
from contextlib import ExitStack, closing
from pathlib import Path

from penstock.engine.clock import SystemClock
from penstock.engine.console.terminal import Terminal
from penstock.engine.settings.model import load_settings
from penstock.engine.watch.results import Results
from penstock.engine.watch.words import result_line, result_object

summary = (
    "Predictions with their strongest reasons, one a line, as they are committed to the output topics. Joins no group and changes nothing; "
    "what was set aside is in `penstock dlq list`. Until Ctrl+C, or so many records or seconds."
)
example = "penstock tail penstock.yaml --top 3"

_wait_s = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `penstock tail` takes."""
    parser.add_argument("settings", type=Path, metavar="penstock.yaml", help="the settings of the workers")
    parser.add_argument(
        "--top", type=_count, default=3, metavar="N", help="reasons shown (default 3; 0: all)"
    )
    parser.add_argument("--records", type=_count, default=0, metavar="N", help="end after so many")
    parser.add_argument("--seconds", type=_seconds, default=0.0, metavar="S", help="end after so long")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Follow; raises what the readers raise."""
    from penstock.connectors.kafka.admin.permissions import (
        require_permissions,
    )  # late: --help needs no Kafka client
    from penstock.connectors.kafka.simple import KafkaReader
    from penstock.engine.worker.kafka import client_config
    from penstock.engine.worker.permissions import permissions

    settings = load_settings(arguments.settings)
    clock = SystemClock()
    config = client_config(settings.kafka)
    require_permissions(config, permissions(settings)["tail"])
    output = settings.output
    with ExitStack() as held:

        def reader(topic: str) -> KafkaReader:
            return held.enter_context(closing(KafkaReader(config, topic, clock, from_end=True)))

        explanations = reader(output.explanations) if output.explanations else None
        results = Results(predictions=reader(output.predictions), explanations=explanations, clock=clock)
        shown, until_s = 0, clock.monotonic_s() + arguments.seconds
        try:
            while not arguments.seconds or clock.monotonic_s() < until_s:
                for result in results.next(_wait_s):
                    if terminal.json:
                        terminal.result_line(result_object(result, top=arguments.top))
                    else:
                        terminal.say(result_line(result, top=arguments.top))
                    shown += 1
                    if shown == arguments.records:
                        return 0
        finally:
            if results.foreign:
                terminal.say(f"{results.foreign} messages were of another contract and are not shown")
    return 0


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1e9:
        raise argparse.ArgumentTypeError(f"{text} is not a time")
    return value
