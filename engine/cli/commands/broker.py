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
    parser.add_argument(
        "--secure",
        type=Path,
        metavar="DIR",
        help="also listen with TLS, passwords (PLAIN, SCRAM), tokens and client certificates, under ACLs; certificates, users "
        "and settings to copy from are written to DIR",
    )
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
        secure=arguments.secure,
        announce=terminal.say,
    )
    with kafka:
        # Only now: until here both signals end the program at once, and the nodes with it.
        for wish in (signal.SIGINT, signal.SIGTERM):
            signal.signal(wish, stop)
        terminal.say(f"Kafka is ready: {kafka.bootstrap_servers}   (Ctrl-C ends it)")
        secured = {}
        if kafka.secure is not None:
            written = kafka.secure.write_settings(
                users_servers=kafka.users_bootstrap_servers,
                certificates_servers=kafka.certificates_bootstrap_servers,
            )
            terminal.say(f"with a password or a token (SASL_SSL): {kafka.users_bootstrap_servers}")
            terminal.say(f"with a certificate (SSL): {kafka.certificates_bootstrap_servers}")
            terminal.say(f"settings to copy from: {', '.join(map(str, written))}")
            terminal.say(
                "no user may do anything yet: `penstock acl` prints what to allow; the first address has no password and may do "
                "everything, and only this machine reaches it"
            )
            secured = {
                "users_bootstrap_servers": kafka.users_bootstrap_servers,
                "certificates_bootstrap_servers": kafka.certificates_bootstrap_servers,
                "secure": str(kafka.secure.folder),
            }
        terminal.result(
            {
                "bootstrap_servers": kafka.bootstrap_servers,
                **secured,
                "nodes": [{"number": number, "pid": kafka.pid(number)} for number in kafka.node_numbers],
                "folder": str(kafka.folder),
            }
        )
        while not asked_to_stop.wait(look_s):
            for number in kafka.node_numbers:
                if kafka.pid(number) is None:
                    raise UnavailableError(f"node {number} has ended: {kafka.fault(number)}")
    return 0
