"""Why a broker lets nobody in: the cause as one sentence that names the setting, found by looking at the TLS side ourselves.

librdkafka says the same for an unknown authority, an expired certificate and another host's, and nothing at all for a
plain client at a TLS port. Looked at only when a call was not answered, and for about a second.
"""

import contextlib
import socket
import ssl
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from penstock.schemas.errors import ConfigError
from penstock.schemas.whole_number import whole_number

if TYPE_CHECKING:
    from penstock.connectors.kafka.client import ClientConfig

probe_timeout_s: Final = 1.0
alert_wait_s: Final = 0.5
servers_max: Final = 3
answer_bytes_max: Final = 1 << 16
_api_versions, _metadata = 18, 3

_expired, _not_yet_valid, _wrong_host, _wrong_address = 10, 9, 62, 64  # OpenSSL's X509_V_ERR_...
_certificate_alerts: Final = (
    "CERTIFICATE_EXPIRED", "CERTIFICATE_UNKNOWN", "BAD_CERTIFICATE", "CERTIFICATE_REQUIRED", "UNKNOWN_CA", "UNSUPPORTED_CERTIFICATE",
    "CERTIFICATE_REVOKED", "HANDSHAKE_FAILURE",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class AccessFault:
    """Why nobody is let in; `settings` when a setting or its file has to change, else waiting may help."""

    sentence: str
    settings: bool


def tls_fault(config: "ClientConfig") -> AccessFault | None:
    """What stands between us and the first bootstrap servers on the side of TLS; None when nothing does, or none listens."""
    for place in config.bootstrap_servers.split(",")[:servers_max]:
        host, _, port = place.strip().rpartition(":")
        host = host.rpartition("//")[2].strip("[]")
        number = whole_number(port)
        if not host or number is None:
            continue
        try:
            connection = socket.create_connection((host, number), timeout=probe_timeout_s)
        except (OSError, UnicodeError, OverflowError):
            continue
        with connection:
            return _at(config, connection, host, place.strip())
    return None


def sasl_fault(config: "ClientConfig", text: str) -> AccessFault:
    """What the broker means by refusing a log-in with this text."""
    if ("nsupported" in text and "mechanism" in text) or "not enabled" in text:
        offered = text.partition("mechanisms:")[2].partition("(")[0].strip() or "others"
        return AccessFault(
            sentence=f"the broker does not offer {config.mechanism}; kafka.security.mechanism has to be one of {offered}",
            settings=True,
        )
    if config.mechanism == "OAUTHBEARER":
        return AccessFault(
            sentence="the broker does not accept the token; kafka.security.oauth_client_id and oauth_scope decide what is in it",
            settings=True,
        )
    return AccessFault(
        sentence=f"the broker does not accept this name and password ({config.mechanism}); they are kafka.security.username "
        "and password or password_file",
        settings=True,
    )


def require_files(config: "ClientConfig") -> None:
    """Raises ConfigError naming the setting whose file cannot be used."""
    if config.ca_file is not None and not config.ca_file.is_dir():
        _require_readable("ca_file", config.ca_file)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(config.ca_file)
        except ssl.SSLError as error:
            raise ConfigError(
                f"the Kafka client refuses its settings: kafka.security.ca_file {config.ca_file} holds no certificate"
            ) from error
    if config.certificate_file is not None:
        _require_readable("certificate_file", config.certificate_file)
        if config.key_file is not None:
            _require_readable("key_file", config.key_file)
        _load_identity(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), config, config.certificate_file)
    elif config.key_file is not None:
        raise ConfigError("kafka.security.key_file needs kafka.security.certificate_file")


def certificate_end(pem: Path) -> datetime | None:
    """Until when the first certificate in a PEM file is valid; None when that cannot be read."""
    try:
        text = pem.read_text(encoding="ascii")
        begin = text.index("-----BEGIN CERTIFICATE-----")
        end = text.index("-----END CERTIFICATE-----", begin) + len("-----END CERTIFICATE-----")
        return _not_after(ssl.PEM_cert_to_DER_cert(text[begin:end]))
    except (OSError, ValueError, IndexError):
        return None


def _at(config: "ClientConfig", connection: socket.socket, host: str, place: str) -> AccessFault | None:
    if "SSL" not in config.protocol.replace("SASL", ""):
        return _at_plain(config, connection, place)
    context = ssl.create_default_context(
        cafile=None if config.ca_file is None or config.ca_file.is_dir() else config.ca_file
    )
    if config.ca_file is not None and config.ca_file.is_dir():
        context.load_verify_locations(capath=config.ca_file)
    if config.certificate_file is not None:
        _load_identity(context, config, config.certificate_file)
    try:
        with context.wrap_socket(connection, server_hostname=host) as secured:
            secured.settimeout(alert_wait_s)
            with contextlib.suppress(TimeoutError):
                secured.recv(1)  # with TLS 1.3 a refusal of our certificate comes after the handshake
            if not config.protocol.startswith("SASL") and _asks_for_login(secured):
                return _login_wanted(config, place, "SASL_SSL")
    except ssl.SSLCertVerificationError as error:
        return _of_broker_certificate(config, error.verify_code, place)
    except ssl.SSLError as error:
        if any(alert in (error.reason or "") for alert in _certificate_alerts):
            return _of_own_certificate(config, place)
        return _no_tls(config, place)
    except OSError:
        return _no_tls(config, place)
    return None


def _no_tls(config: "ClientConfig", place: str) -> AccessFault:
    return AccessFault(
        sentence=f"{place} does not answer as TLS does; kafka.security.protocol is {config.protocol}, and it may have to be "
        "PLAINTEXT or SASL_PLAINTEXT",
        settings=False,
    )


def _asks_for_login(connection: socket.socket) -> bool:
    """Whether a broker answers which requests it knows (ApiVersions), and then ends the conversation at the first other one.

    That is how it meets those who have not logged in where they must. One that answers nothing is away, or busy.
    """
    try:
        connection.settimeout(probe_timeout_s)
        connection.sendall(_request(_api_versions, b""))
        (left,) = struct.unpack(">i", _exactly(connection, 4))
        _exactly(connection, min(left, answer_bytes_max))
    except (OSError, struct.error):
        return False
    try:
        connection.sendall(_request(_metadata, struct.pack(">i", 0)))
        return connection.recv(4) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def _request(key: int, body: bytes) -> bytes:
    """A request of version 0, about nothing, from nobody."""
    head = struct.pack(">hhih", key, 0, 1, -1)
    return struct.pack(">i", len(head) + len(body)) + head + body


def _exactly(connection: socket.socket, size: int) -> bytes:
    """So many bytes; fewer when the other side ends."""
    taken = b""
    while len(taken) < size and (piece := connection.recv(size - len(taken))):
        taken += piece
    return taken


def _login_wanted(config: "ClientConfig", place: str, protocol: str) -> AccessFault:
    return AccessFault(
        sentence=f"the broker at {place} ends the conversation with who has not logged in, and kafka.security.protocol is "
        f"{config.protocol}; it has to be {protocol}, with a mechanism",
        settings=True,
    )


def _at_plain(config: "ClientConfig", connection: socket.socket, place: str) -> AccessFault | None:
    address = connection.getpeername()[:2]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with context.wrap_socket(connection):
            pass
    except ssl.SSLError as error:
        if "ALERT" not in (error.reason or ""):
            return _at_plain_login(config, address, place)
    except OSError:
        return _at_plain_login(config, address, place)
    wanted = "SASL_SSL" if config.protocol.startswith("SASL") else "SSL or SASL_SSL"
    return AccessFault(
        sentence=f"{place} speaks TLS, and kafka.security.protocol is {config.protocol}; it has to be {wanted}",
        settings=True,
    )


def _at_plain_login(config: "ClientConfig", address: tuple[str, int], place: str) -> AccessFault | None:
    """Nothing of TLS there: whether a login is."""
    if config.protocol != "PLAINTEXT":
        return None
    with contextlib.suppress(OSError), socket.create_connection(address, timeout=probe_timeout_s) as again:
        if _asks_for_login(again):
            return _login_wanted(config, place, "SASL_PLAINTEXT")
    return None


def _of_broker_certificate(config: "ClientConfig", code: int, place: str) -> AccessFault:
    if code == _expired:
        return AccessFault(sentence=f"the certificate of the broker at {place} has expired", settings=False)
    if code == _not_yet_valid:
        return AccessFault(
            sentence=f"the certificate of the broker at {place} is not valid yet, or this machine's clock is wrong",
            settings=False,
        )
    if code in (_wrong_host, _wrong_address):
        return AccessFault(
            sentence=f"the certificate of the broker at {place} is for another host; kafka.bootstrap_servers has to use a name "
            "that is in it",
            settings=True,
        )
    authorities = (
        f"the authorities in kafka.security.ca_file {config.ca_file}"
        if config.ca_file
        else "the system's authorities"
    )
    return AccessFault(
        sentence=f"none of {authorities} has signed the certificate of the broker at {place}; kafka.security.ca_file has to hold "
        "the one that has",
        settings=True,
    )


def _of_own_certificate(config: "ClientConfig", place: str) -> AccessFault:
    if config.certificate_file is None:
        return AccessFault(
            sentence=f"the broker at {place} asks for a client's certificate: kafka.security.certificate_file and key_file",
            settings=True,
        )
    end = certificate_end(config.certificate_file)
    if end is not None and end < datetime.now(UTC):
        return AccessFault(
            sentence=f"the certificate in kafka.security.certificate_file {config.certificate_file} has expired on {end:%Y-%m-%d}; "
            "the file is read again at each start",
            settings=True,
        )
    return AccessFault(
        sentence=f"the broker at {place} does not accept the certificate in kafka.security.certificate_file "
        f"{config.certificate_file}: it trusts other authorities",
        settings=True,
    )


def _require_readable(name: str, file: Path) -> None:
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        raise ConfigError(f"kafka.security.{name}: cannot read {file}") from error


def _load_identity(context: ssl.SSLContext, config: "ClientConfig", certificate: Path) -> None:
    key = config.key_file
    try:
        context.load_cert_chain(certificate, key, password=lambda: config.key_password or "")
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None)
        if reason == "KEY_VALUES_MISMATCH":
            fault = f"kafka.security.key_file {key} is not the key of the certificate in {certificate}"
        elif key is not None and b"ENCRYPTED" in key.read_bytes():
            fault = (
                f"kafka.security.key_password does not open {key}"
                if config.key_password
                else f"{key} has a password: kafka.security.key_password"
            )
        elif certificate_end(certificate) is None:
            fault = f"kafka.security.certificate_file {certificate} holds no certificate"
        else:
            fault = f"kafka.security.key_file {key or certificate} holds no key in PEM form"
        raise ConfigError(f"the Kafka client refuses its settings: {fault}") from error


def _not_after(der: bytes) -> datetime:
    """The end of validity: Certificate -> TBSCertificate -> [version], serial, algorithm, issuer, validity -> the second time."""
    _, body, _ = _element(der, 0)
    _, at, _ = _element(der, body)
    if der[at] == 0xA0:
        at = _element(der, at)[2]
    for _ in range(3):
        at = _element(der, at)[2]
    _, first, _ = _element(der, at)
    kind, start, end = _element(der, _element(der, first)[2])
    text = der[start:end].decode("ascii")
    return datetime.strptime(text, "%y%m%d%H%M%SZ" if kind == 0x17 else "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Kind, and where its content begins and ends, of the DER element at a place."""
    kind, length, start = der[at], der[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length, start = int.from_bytes(der[start : start + count], "big"), start + count
    return kind, start, start + length
