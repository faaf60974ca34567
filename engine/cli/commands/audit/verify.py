"""`penstock audit verify`: whether the audit topic is as it was written."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.engine.console.terminal import Terminal
from penstock.engine.settings.model import load_settings
from penstock.schemas.errors import ConfigError

if TYPE_CHECKING:
    from penstock.engine.admin.audit_verify import Verified


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `penstock audit verify` takes."""
    parser.add_argument("settings", type=Path, metavar="penstock.yaml", help="the settings of the workers")
    parser.add_argument(
        "--holds",
        action="append",
        default=[],
        metavar="HASH",
        help="a hash from a log line that has to be there, so that a cut-off end shows; repeatable",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Verify; 0 when nothing was altered."""
    from penstock.connectors.kafka.admin.permissions import (
        require_permissions,
    )  # late: --help needs no Kafka client
    from penstock.connectors.kafka.audit import read_audit
    from penstock.engine.admin.audit_verify import Stored, verify
    from penstock.engine.clock import SystemClock
    from penstock.engine.worker.admin.port import audit_key
    from penstock.engine.worker.kafka import client_config
    from penstock.engine.worker.permissions import permissions

    settings = load_settings(arguments.settings)
    admin = settings.admin
    if admin is None:
        raise ConfigError(f"{arguments.settings} has no section admin, and so no audit")
    config = client_config(settings.kafka)
    require_permissions(config, permissions(settings)["audit"])
    stored = (
        Stored(partition=partition, offset=offset, value=value)
        for partition, offset, value in read_audit(config, admin.audit_topic, SystemClock())
    )
    found = verify(stored, key=audit_key(admin), holds=arguments.holds)
    terminal.result({
        "topic": admin.audit_topic, "records": found.records, "whole": found.whole,
        "findings": [asdict(each) for each in found.findings], "findings_left_out": found.findings_left_out,
        "missing": found.missing, "chains": {name: asdict(chain) for name, chain in found.chains.items()},
    })  # fmt: skip
    if not terminal.json:
        _say(found, admin.audit_topic, terminal)
    return 0 if found.whole else 1


def _say(found: "Verified", topic: str, terminal: Terminal) -> None:
    for each in found.findings:
        terminal.say(f"partition {each.partition} offset {each.offset}: {each.text}")
    if found.findings_left_out:
        terminal.say(f"... and {found.findings_left_out} more")
    for digest in found.missing:
        terminal.say(f"no record has the hash {digest}")
    for name, chain in found.chains.items():
        begin = f", begins at number {chain.began_at}: what is older was deleted" if chain.began_at else ""
        end = (
            "closed"
            if chain.closed
            else "not closed: its supervisor runs, was killed, or its end was cut off"
        )
        terminal.say(f"chain {name}: {chain.records} records{begin}, {end}; last hash {chain.digest}")
    altered = len(found.findings) + found.findings_left_out + len(found.missing)
    verdict = "nothing was altered" if found.whole else f"{altered} alteration{'s' * (altered != 1)}"
    terminal.say(f"{found.records} records of {topic}: {verdict}")
