"""A secret that is sent unencrypted is said by name, and nothing else is."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock.engine.settings.model import parse_settings
from penstock.engine.settings.unencrypted import unencrypted_secrets
from tests.bundles import write_stump


def _settings(tmp_path: Path, *, security: Any = None, servers: str = "kafka:9092", **more: Any) -> Any:
    tree = {
        "kafka": {"bootstrap_servers": servers, "group": "g"} | ({"security": security} if security else {}),
        "input": {"topic": "in"},
        "output": {"predictions": "out", "dead_letters": "dead"},
        "model": {"path": str(tmp_path)},
    } | more
    return parse_settings(tree, origin="test", folder=tmp_path)


def _login(protocol: str, mechanism: str) -> dict[str, str]:
    return {"protocol": protocol, "mechanism": mechanism, "username": "u", "password": "s3cret"}


def _tokens(url: str, protocol: str = "SASL_SSL") -> dict[str, str]:
    return {
        "protocol": protocol,
        "mechanism": "OAUTHBEARER",
        "oauth_token_url": url,
        "oauth_client_id": "c",
        "oauth_client_secret": "s3cret",
    }


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"security": _login("SASL_PLAINTEXT", "PLAIN")}, ["kafka.security.protocol", "kafka", "SASL_SSL"]),
        (
            {"security": _login("SASL_PLAINTEXT", "PLAIN"), "servers": "127.0.0.1:9092, b.bank:9092"},
            ["to b.bank unencrypted"],
        ),
        ({"security": _tokens("https://t.bank/x", "SASL_PLAINTEXT")}, ["the token goes to kafka"]),
        ({"security": _tokens("http://t.bank/x")}, ["kafka.security.oauth_token_url", "t.bank", "https"]),
        (
            {"registry": {"url": "http://r.bank:8081", "username": "u", "password": "s3cret"}},
            ["registry.url", "r.bank"],
        ),
        (
            {"tracing": {"endpoint": "http://c.bank:4318/v1/traces", "token_file": "token"}},
            ["tracing.endpoint"],
        ),
    ],
)
def test_what_is_sent_unencrypted_is_named(change: Any, named: list[str], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret")
    (sentence,) = unencrypted_secrets(_settings(tmp_path, **change))
    for part in named:
        assert part in sentence
    assert "s3cret" not in sentence


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"security": _login("SASL_SSL", "PLAIN")},
        {"security": _login("SASL_PLAINTEXT", "SCRAM-SHA-512")},
        {
            "security": _login("SASL_PLAINTEXT", "PLAIN"),
            "servers": "localhost:9092,[::1]:9093,127.1.2.3:9094",
        },
        {"security": _tokens("https://t.bank/x")},
        {"security": _tokens("http://localhost:8080/x")},
        {"registry": {"url": "http://r.bank:8081"}},
        {"registry": {"url": "https://r.bank:8081", "username": "u", "password": "s3cret"}},
        {"tracing": {"endpoint": "http://c.bank:4318/v1/traces"}},
    ],
)
def test_what_is_encrypted_stays_here_or_holds_no_secret_is_not(change: Any, tmp_path: Path) -> None:
    assert unencrypted_secrets(_settings(tmp_path, **change)) == ()


@pytest.mark.parametrize("command", ["run", "scaler"])
def test_a_start_warns_of_it(command: str, tmp_path: Path) -> None:
    write_stump(tmp_path / "bundle")
    (tmp_path / "penstock.yaml").write_text(
        yaml.safe_dump(
            {
                "kafka": {
                    "bootstrap_servers": "kafka.invalid:9092",
                    "group": "g",
                    "security": _login("SASL_PLAINTEXT", "PLAIN"),
                },
                "input": {"topic": "in", "format": "json"},
                "output": {"predictions": "out", "dead_letters": "dead"},
                "model": {"path": "bundle"},
                "http": {"port": 0},
            }
        )
    )
    words = [sys.executable, "-P", "-m", "penstock", command, "penstock.yaml", "--log-format", "json"]
    codes = []
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        timer = threading.Timer(60.0, process.kill)
        timer.start()
        assert process.stderr is not None
        for line in process.stderr:
            codes.append(json.loads(line).get("event.code") if line.startswith("{") else None)
            if codes[-1] == "secret_unencrypted":
                process.terminate()
        process.wait()
        timer.cancel()
    assert codes.count("secret_unencrypted") == 1
