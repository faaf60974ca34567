"""`penstock broker`: an Apache Kafka for this machine, in the foreground."""

import argparse
import signal
import threading
from pathlib import Path

from connectors.embedded import EmbeddedKafka
from engine.terminal import Terminal

summary = (
    "Run a real Apache Kafka (KRaft) on this machine until Ctrl+C. Without --data it leaves nothing behind."
)
example = "penstock broker --port 9092 --data ./kafka-data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--port", type=int, help="port for clients; default: a free one (one node)")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="keep the data here; default: a temporary folder"
    )
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="how many nodes (default 1)")
    parser.add_argument("--json", action="store_true", help="print the address as JSON")


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Serve until SIGINT or SIGTERM."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    broker = EmbeddedKafka(
        nodes=arguments.nodes, data=arguments.data, port=arguments.port, heap_mb=1024, say=terminal.say
    )
    with broker:
        terminal.say(f"Apache Kafka is ready: {broker.bootstrap_servers}   (Ctrl+C ends it)")
        terminal.result({"bootstrap_servers": broker.bootstrap_servers})
        stop.wait()
    return 0
