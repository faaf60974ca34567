"""Secrets reach the client from the settings or from files, and nothing else shows them."""

from pathlib import Path
from typing import Any

import pytest

from penstock.engine.settings.kafka import KafkaSettings
from penstock.engine.worker.kafka import client_config
from penstock.schemas.errors import ConfigError


def kafka(**security: Any) -> KafkaSettings:
    return KafkaSettings.model_validate(
        {
            "bootstrap_servers": "b:1",
            "group": "g",
            "client": {"client.rack": "r1"},
            "security": {"protocol": "SASL_SSL", "mechanism": "SCRAM-SHA-512", "username": "u", **security},
        }
    )


def test_a_password_comes_from_the_settings_or_from_a_file_without_its_line_break(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(" geheim \n")
    assert client_config(kafka(password="geheim")).password == "geheim"
    assert client_config(kafka(password_file=file)).password == " geheim "
    config = client_config(kafka(password="geheim", password_file=file))
    assert (config.username, config.mechanism, config.properties) == (
        "u",
        "SCRAM-SHA-512",
        {"client.rack": "r1"},
    )
    assert "geheim" not in repr(config)


def test_a_client_secret_comes_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("token")
    settings = kafka(
        mechanism="OAUTHBEARER",
        oauth_token_url="https://login.example",
        oauth_client_id="me",
        oauth_client_secret_file=file,
    )
    assert client_config(settings).oauth_client_secret == "token"


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_secret_that_cannot_be_read_is_a_clear_error_that_names_it(
    tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match="password"):
        client_config(kafka(password_file=file))
