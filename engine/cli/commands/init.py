"""`penstock init`: a commented penstock.yaml that runs as it is, and the topics that it names."""

import argparse
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.engine.console.terminal import Terminal
from penstock.engine.settings.needed_topics import NeededTopic, needed_topics
from penstock.schemas.errors import ConfigError

if TYPE_CHECKING:
    from penstock.connectors.kafka.admin.admin import KafkaAdmin
    from penstock.engine.settings.model import Settings

_comment_column = 52
summary = "Write a commented penstock.yaml for a bundle and a topic; with --create-topics the topics as well."
example = "penstock init models/fraud --bootstrap-servers localhost:9092 --topic transactions --create-topics"

_template = """\
# Settings of Penstock: every key is described in docs/settings.md. Check them with: penstock check {file}
kafka:
  bootstrap_servers: {servers}
  group: {group}                     # the consumer group; a new name begins at the beginning of the topic
  delivery: exactly_once             # at_least_once is faster and may repeat records after a crash
{registry}input:
  topic: {topic}
{input}output:
{output}  predictions: {predictions}
  explanations: {explanations} # leave this line out and nothing is explained
  dead_letters: {dead_letters} # records that cannot be scored, whole, with the reason
  status: {status}             # the workers' reports, for the scaler
model:
  path: {model}
  device: auto                       # auto, cpu or cuda:0
objective:
  latency_slo_ms: 50                 # batches grow while they keep to it
explain:
  policy: every                      # every, none, sample:0.1, score>=0.8
  top: 0                             # only so many of the strongest reasons; 0: all
workers: 1
http:
  port: 9464                         # pages, /metrics /live /ready /status: one port for all workers
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `penstock init` takes."""
    parser.add_argument(
        "bundle", type=Path, metavar="BUNDLE", help="the folder that `penstock package` wrote"
    )
    parser.add_argument(
        "--bootstrap-servers",
        default="localhost:9092",
        metavar="HOST:PORT",
        help="the Kafka cluster (default %(default)s)",
    )
    parser.add_argument("--topic", required=True, help="the topic with the records to score")
    parser.add_argument(
        "--registry", metavar="URL", help="a Confluent-compatible schema registry; records are Avro then"
    )
    parser.add_argument(
        "--format",
        choices=("avro", "json"),
        help="of the records; default: avro where the bundle or a registry has their schema, else json",
    )
    parser.add_argument("--group", help="the consumer group (default: TOPIC-scorer)")
    parser.add_argument(
        "--out", type=Path, default=Path("penstock.yaml"), metavar="FILE", help="default %(default)s"
    )
    parser.add_argument(
        "--create-topics", action="store_true",
        help="create what does not exist: outputs with as many partitions as the input, dead letters kept for 30 days, the status topic compacted",
    )  # fmt: skip
    parser.add_argument(
        "--partitions",
        type=int,
        default=6,
        metavar="N",
        help="of the input topic where --create-topics makes it (default %(default)s)",
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Write the settings, after proving that they are ones. Raises ConfigError where the file exists already."""
    import yaml

    from penstock.engine.models.bundle.bundle import Bundle
    from penstock.engine.settings.model import load_settings, parse_settings

    if arguments.partitions < 1:
        raise ConfigError("--partitions is at least 1")
    bundle = Bundle.load(arguments.bundle)
    text = _settings_text(arguments, has_schema=bundle.input_schema is not None)
    out: Path = arguments.out
    parse_settings(yaml.safe_load(text), origin=str(out), folder=out.parent)
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise ConfigError(f"{out} exists already; choose another --out, or remove it") from error
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {error.strerror}") from error
    with ExitStack() as on_failure:
        on_failure.callback(out.unlink, missing_ok=True)  # the same command can then simply be repeated
        if arguments.create_topics:
            for line in _create_topics(load_settings(out), arguments.partitions):
                terminal.say(line)
        on_failure.pop_all()
    terminal.say(f"wrote {out}")
    terminal.say(f"next: penstock check {out}, then penstock run {out}")
    return 0


def _create_topics(settings: "Settings", partitions: int) -> list[str]:
    """`settings` with what the environment overrides, as the worker will read them."""
    from penstock.connectors.kafka.admin.admin import KafkaAdmin
    from penstock.engine.worker.kafka import client_config

    return create_missing(
        KafkaAdmin(client_config(settings.kafka)), needed_topics(settings), partitions=partitions
    )


def _settings_text(arguments: argparse.Namespace, *, has_schema: bool) -> str:
    form = arguments.format or ("avro" if has_schema or arguments.registry else "json")
    lines = {
        "json": "  format: json                       # an object per record, with the model's features by name\n",
        "avro": "  format: avro                       # of the bundle's input schema\n",
    }
    results = {
        "json": "  format: json                       # of the results; avro is smaller and has a schema\n",
        "avro": "  format: avro                       # of the results; json is read by any consumer\n",
    }
    registry = f"registry:\n  url: {_quoted(arguments.registry)}\n" if arguments.registry else ""
    model = os.path.relpath(arguments.bundle, arguments.out.parent or ".")
    text = _template.format(
        file=arguments.out,
        servers=_name(arguments.bootstrap_servers),
        group=_name(arguments.group or f"{arguments.topic}-scorer"),
        registry=registry,
        topic=_name(arguments.topic),
        predictions=_name(f"{arguments.topic}.predictions"),
        explanations=_name(f"{arguments.topic}.explanations"),
        dead_letters=_name(f"{arguments.topic}.dead-letters"),
        status=_name(f"{arguments.topic}.status"),
        input=lines[form],
        output=results[form],
        model=_name(model),
    )
    return "".join(map(_aligned, text.splitlines(keepends=True)))


def _aligned(line: str) -> str:
    """The comment behind a setting in the column of the others."""
    setting, mark, comment = line.partition(" # ")
    if not mark or line.startswith("#") or setting.count("'") % 2:  # a name may hold the mark
        return line
    return f"{setting.rstrip():<{_comment_column}} # {comment}"


def _name(text: str) -> str:
    """A name as it is, or in quotes where YAML would take it for something else, as the topic 2024."""
    import yaml

    try:
        return text if yaml.safe_load(text) == text else _quoted(text)
    except yaml.YAMLError:
        return _quoted(text)


def _quoted(text: str) -> str:
    """A YAML text that stays one, whatever stands in it."""
    return "'" + text.replace("'", "''") + "'"


def create_missing(admin: "KafkaAdmin", topics: Sequence[NeededTopic], *, partitions: int) -> list[str]:
    """Creates what does not exist, and returns a sentence for each topic; the first is the input.

    `partitions`: of the input, where it does not exist. Raises ConfigError and UnavailableError.
    """
    there = admin.partition_counts([topic.name for topic in topics])
    count = there[topics[0].name] or partitions
    said: list[str] = []
    for topic in topics:
        found = there[topic.name]
        if found is not None:
            wrong = topic.partitions is None and found != count
            said.append(
                f"topic {topic.name} exists with {found} partitions"
                + (f", the input has {count}" if wrong else "")
            )
            continue
        made = topic.partitions or count
        admin.create_topics({topic.name: made}, properties=topic.properties, exist_ok=True)
        said.append(f"created topic {topic.name} with {made} partition{'s' * (made != 1)}")
    return said
