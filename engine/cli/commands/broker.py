"""`penstock broker`: a real Apache Kafka for this machine, in the foreground."""

import argparse
import signal
import threading
from pathlib import Path
from types import FrameType

from penstock.engine.console.terminal import Terminal
from penstock.schemas.errors import UnavailableError

summary = (
    "Run a real Apache Kafka 4 (KRaft) on this machine until Ctrl-C. Without --data it leaves nothing behind."
)
example = "penstock broker --port 9092 --data ./kafka-data"

look_s = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "--port",
        type=int,
        metavar="P",
        help="port for clients; further nodes take the ones after it; default: a free one, with --data the one it had",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="keep the data here for the next time; default: a temporary folder, removed at the end",
    )
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="how many nodes (default 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object when ready")


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Serve until SIGINT or SIGTERM. Raises UnavailableError when a node ends by itself."""
    from penstock.connectors.embedded.kafka import EmbeddedKafka  # late: --help needs no Kafka client

    asked_to_stop = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        asked_to_stop.set()

    kafka = EmbeddedKafka(
        nodes=arguments.nodes,
        data=arguments.data,
        port=arguments.port,
        jvm="full",
        announce=terminal.say,
    )
    with kafka:
        # Only now: until here both signals end the program at once, and the nodes with it.
        for wish in (signal.SIGINT, signal.SIGTERM):
            signal.signal(wish, stop)
        terminal.say(f"Kafka is ready: {kafka.bootstrap_servers}   (Ctrl-C ends it)")
        terminal.result(
            {
                "bootstrap_servers": kafka.bootstrap_servers,
                "nodes": [{"number": number, "pid": kafka.pid(number)} for number in kafka.node_numbers],
                "folder": str(kafka.folder),
            }
        )
        while not asked_to_stop.wait(look_s):
            for number in kafka.node_numbers:
                if kafka.pid(number) is None:
                    raise UnavailableError(f"node {number} has ended: {kafka.fault(number)}")
    return 0
