"""A number of any length in what somebody wrote is refused in a sentence, where Python itself refuses to read it by an exception."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from penstock.connectors.kafka.admin.access import tls_fault
from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.wire.connection import host_and_port
from penstock.engine.cli.main import main
from penstock.engine.gpu.device import parse_device
from penstock.engine.settings.model import parse_settings
from penstock.schemas.errors import ConfigError, UnavailableError
from penstock.schemas.whole_number import whole_number

long = "9" * 5000
numbers = [long, "0" * 5000, "\u0661", "-1", "1 ", "", "1_0", "\u00b2", "+1", "1.0"]


def tree() -> dict[str, dict[str, str]]:
    return {
        "kafka": {"bootstrap_servers": "127.0.0.1:1", "group": "g"},
        "input": {"topic": "in"},
        "output": {"predictions": "out", "dead_letters": "dead"},
        "model": {"path": "m"},
    }


@pytest.mark.parametrize("text", numbers)
def test_what_is_no_number_is_none(text: str) -> None:
    assert whole_number(text) is None


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("007", 7), ("9" * 18, 10**18 - 1)])
def test_a_number_is_one(text: str, number: int) -> None:
    assert whole_number(text) == number


@pytest.mark.parametrize("text", numbers)
@pytest.mark.parametrize(
    "words",
    [
        lambda file, text: ["dlq", "show", file, f"0:{text}"],
        lambda file, text: ["dlq", "show", file, f"{text}:0"],
        lambda file, text: ["broker", "--topic", f"x:{text}"],
        lambda file, text: ["dlq", "list", file, f"--since={text}x"],
    ],
)  # fmt: skip
def test_a_command_refuses_it_in_a_sentence(
    text: str,
    words: Callable[[str, str], list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "penstock.yaml").write_text(yaml.safe_dump(tree()))
    assert main(words(str(tmp_path / "penstock.yaml"), text)) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_settings_and_addresses_refuse_it_in_a_sentence() -> None:
    for device in (f"cuda:{long}", "cuda:\u0661"):
        with pytest.raises(ConfigError, match="is not known"):
            parse_device(device)
    for key, value in (("objective", {"latency_slo_ms": long}), ("http", {"port": long})):
        with pytest.raises(ConfigError, match="has to be"):
            parse_settings({**tree(), key: value}, origin="x", folder=Path("/"))
    with pytest.raises(UnavailableError, match="no port"):
        host_and_port(f"127.0.0.1:{long}")
    assert tls_fault(ClientConfig(bootstrap_servers=f"127.0.0.1:{long}")) is None
