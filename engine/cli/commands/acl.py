"""`penstock acl`: the least permissions of each role, as commands for kafka-acls and as JSON."""

import argparse
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.engine.console.terminal import Terminal
from penstock.engine.settings.model import Settings, load_settings
from penstock.engine.settings.needed_topics import needed_topics
from penstock.engine.settings.roles import roles

if TYPE_CHECKING:
    from penstock.connectors.kafka.admin.permissions import Permission

summary = (
    "The least permissions that each role needs on Kafka, as kafka-acls commands, or with --json, and the topics too, for Terraform "
    "and the like. Reads the settings only; nothing is asked or changed."
)
example = "penstock acl penstock.yaml --role worker --principal User:fraud-worker"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `penstock acl` takes."""
    parser.add_argument("settings", type=Path, metavar="penstock.yaml", help="the settings of the workers")
    parser.add_argument(
        "--role",
        action="append",
        choices=roles,
        help="only this role; may be repeated (worker: run and check; lag: lag and offsets show; letters: dlq list and show; replay: dlq replay; audit: audit verify; tail: tail, top; offsets: offsets reset)",
    )
    parser.add_argument(
        "--principal", metavar="USER", help="whom to allow; default: User:ROLE, to be replaced by yours"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Print the list."""
    from penstock.engine.worker.permissions import permissions  # late: --help needs no Kafka client

    settings = load_settings(arguments.settings)
    wanted = {
        role: found for role, found in permissions(settings).items() if role in (arguments.role or roles)
    }
    terminal.result(_json(settings, wanted, arguments.principal))
    if not terminal.json:
        for role, found in wanted.items():
            terminal.say(f"# {role}")
            for each in found:
                terminal.say(f"{_command(settings, role, each, arguments.principal)}  # {each.purpose}")
    return 0


def _command(settings: Settings, role: str, permission: "Permission", principal: str | None) -> str:
    words = [
        "kafka-acls.sh", "--bootstrap-server", settings.kafka.bootstrap_servers, "--add", "--allow-principal",
        principal or f"User:{role}", "--operation", permission.operation, f"--{permission.resource}", permission.name,
    ]  # fmt: skip
    return shlex.join(words + (["--resource-pattern-type", "prefixed"] if permission.prefixed else []))


def _json(
    settings: Settings, wanted: "Mapping[str, Sequence[Permission]]", principal: str | None
) -> dict[str, Any]:
    return {
        "topics": [
            {
                "name": each.name,
                "purpose": each.purpose,
                "partitions": each.partitions,  # null: as many as the input, which is the first
                "config": dict(each.properties),
            }
            for each in needed_topics(settings)
        ],
        "roles": {
            role: [
                {
                    "principal": principal or f"User:{role}",
                    "resource_type": {"topic": "Topic", "group": "Group"}.get(
                        each.resource, "TransactionalID"
                    ),
                    "resource_name": each.name,
                    "pattern_type": "Prefixed" if each.prefixed else "Literal",
                    "operation": each.operation,
                    "permission_type": "Allow",
                    "host": "*",
                    "purpose": each.purpose,
                }
                for each in found
            ]
            for role, found in wanted.items()
        },
    }
