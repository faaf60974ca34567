"""From the settings to a Kafka client's configuration: the one place that reads the secrets' files."""

from pathlib import Path

from pydantic import SecretStr

from connectors.kafka_client import ClientConfig
from engine.settings import KafkaSettings
from schemas.errors import ConfigError

_secret_bytes_max = 65_536


def client_config(kafka: KafkaSettings) -> ClientConfig:
    """How to reach the cluster. Raises ConfigError when a secret's file cannot be read."""
    security = kafka.security
    return ClientConfig(
        bootstrap_servers=kafka.bootstrap_servers,
        properties=kafka.client,
        protocol=security.protocol,
        mechanism=security.mechanism,
        username=security.username,
        password=secret(security.password, security.password_file),
        ca_file=security.ca_file,
        certificate_file=security.certificate_file,
        key_file=security.key_file,
        key_password=secret(security.key_password, None),
        oauth_token_url=security.oauth_token_url,
        oauth_client_id=security.oauth_client_id,
        oauth_client_secret=secret(security.oauth_client_secret, security.oauth_client_secret_file),
        oauth_scope=security.oauth_scope,
    )


def secret(value: SecretStr | None, file: Path | None) -> str | None:
    """A secret given as it is or in a file, whose last line break is no part of it. Raises ConfigError."""
    if value is not None:
        return value.get_secret_value()
    if file is None:
        return None
    try:
        if file.stat().st_size > _secret_bytes_max:
            raise ConfigError(f"{file} is longer than {_secret_bytes_max} bytes, which no secret is")
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 text") from error
