"""`penstock manifest`: the Kubernetes objects of a pipeline, for those without Helm."""

import argparse
import re
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from penstock.engine.console.terminal import Terminal
from penstock.schemas.errors import ConfigError

summary = (
    "Writes what the Helm chart makes as plain Kubernetes objects, from the same values: a StatefulSet of workers, the scalers, KEDA's "
    "ScaledObject, services, disruption budgets, the network policy. Nothing is asked or changed. Needs the extra `manifest`."
)
example = "penstock manifest values.yaml --name fraud --namespace streaming > fraud.yaml"
_label: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `penstock manifest` takes."""
    parser.add_argument(
        "values",
        type=Path,
        nargs="?",
        metavar="values.yaml",
        help="as for the chart; what it does not name is as in the chart's own values.yaml, which --values prints",
    )
    parser.add_argument(
        "--name",
        default="penstock",
        help="of the pipeline: what every object's name begins with (default: %(default)s)",
    )
    parser.add_argument(
        "--namespace",
        default="default",
        help="where it is to run: KEDA asks the scaler there (default: %(default)s)",
    )
    parser.add_argument(
        "--values",
        action="store_true",
        dest="show",
        help="print the values that there are, with what each means",
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Write the objects to standard output. Raises ConfigError."""
    from penstock.engine.manifest.objects import chart_folder, manifest  # late: --help needs no chart

    if arguments.show:
        sys.stdout.write((chart_folder / "values.yaml").read_text(encoding="utf-8"))
        return 0
    for option in ("name", "namespace"):
        if not _label.fullmatch(getattr(arguments, option)):
            raise ConfigError(
                f"--{option}: small letters, digits and hyphens, a letter or digit first and last, 63 of them at most"
            )
    values = _read(arguments.values) if arguments.values else {}
    sys.stdout.write(manifest(values, name=arguments.name, namespace=arguments.namespace))
    return 0


def _read(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no text in UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"{path} is no YAML{where}") from None
    if found is not None and not isinstance(found, dict):
        raise ConfigError(f"{path} must hold keys with their values, as the chart's values.yaml does")
    return found or {}
