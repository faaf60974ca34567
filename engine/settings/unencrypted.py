"""Which secrets the settings send over a network unencrypted. Allowed, since a mesh may encrypt below; never in silence."""

from urllib.parse import urlsplit

from penstock.engine.settings.admin import is_loopback
from penstock.engine.settings.kafka import KafkaSettings
from penstock.engine.settings.model import Settings


def unencrypted_secrets(settings: Settings) -> tuple[str, ...]:
    """A sentence for each secret that leaves this machine unencrypted: what is sent, to whom, and the cure."""
    found = _kafka(settings.kafka)
    registry = settings.registry
    if registry is not None and registry.username is not None and (host := _by_http(registry.url)):
        found.append(
            f"registry.url is http: the password goes to {host} unencrypted, whoever listens on the way has it; "
            "use https"
        )
    tracing = settings.tracing
    if tracing is not None and tracing.token_file is not None and (host := _by_http(tracing.endpoint)):
        found.append(
            f"tracing.endpoint is http: the token goes to {host} unencrypted, whoever listens on the way has it; "
            "use https"
        )
    return tuple(found)


def _kafka(kafka: KafkaSettings) -> list[str]:
    security, found = kafka.security, []
    away = [host for host in map(_host, kafka.bootstrap_servers.split(",")) if not is_loopback(host)]
    # of SCRAM only proofs are sent, of which no password can be read
    sent = {"PLAIN": "password", "OAUTHBEARER": "token"}.get(security.mechanism or "")
    if security.protocol == "SASL_PLAINTEXT" and sent is not None and away:
        found.append(
            f"kafka.security.protocol is SASL_PLAINTEXT: with {security.mechanism} the {sent} goes to "
            f"{', '.join(away)} unencrypted, whoever listens on the way has it; use SASL_SSL"
        )
    url = security.oauth_token_url
    if security.mechanism == "OAUTHBEARER" and url is not None and (host := _by_http(url)):
        found.append(
            f"kafka.security.oauth_token_url is http: the client's secret goes to {host} unencrypted, whoever listens "
            "on the way has it; use https"
        )
    return found


def _host(server: str) -> str:
    return urlsplit(f"//{server.strip().rpartition('://')[2]}").hostname or ""


def _by_http(url: str) -> str | None:
    """The host, where it is another machine that is called without TLS."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return host if parts.scheme == "http" and not is_loopback(host) else None
