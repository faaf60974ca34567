"""The gRPC port's certificates: proved at the start, read again when they change."""

import logging
import ssl
from typing import Any

import grpc

from penstock.engine.settings.tls_files import TlsFiles
from penstock.schemas.errors import ConfigError
from penstock.schemas.log_codes import LogCode

logger = logging.getLogger("penstock.scaler")


def require_tls_files(tls: TlsFiles) -> None:
    """Raises ConfigError naming the setting whose file cannot be used; gRPC itself says only that it cannot listen."""
    trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for name, file in (
        ("certificate_file", tls.certificate),
        ("key_file", tls.key),
        ("client_ca_file", tls.client_ca),
    ):
        try:
            text = file.read_text(encoding="ascii") if file is not None else ""
        except OSError as error:
            raise ConfigError(f"scaling.{name}: cannot read {file}: {error.strerror}") from error
        except UnicodeDecodeError:
            text = "not PEM"
        if file is not None and "-----BEGIN " not in text:
            raise ConfigError(f"scaling.{name}: {file} is not in PEM form")
        if name == "key_file" and "ENCRYPTED" in text:
            raise ConfigError(f"scaling.key_file: {file} has a password, and there is no setting for one")
    try:
        trusted.load_cert_chain(tls.certificate, tls.key)
    except ssl.SSLError as error:
        mismatch = error.reason == "KEY_VALUES_MISMATCH"
        raise ConfigError(
            f"scaling.key_file: {tls.key} is not the key of the certificate in {tls.certificate}"
            if mismatch
            else f"scaling.certificate_file: {tls.certificate} and {tls.key} hold no certificate with its key"
        ) from error
    if tls.client_ca is not None:
        try:
            trusted.load_verify_locations(tls.client_ca)
        except ssl.SSLError as error:
            raise ConfigError(f"scaling.client_ca_file: {tls.client_ca} holds no certificate") from error


def credentials(tls: TlsFiles) -> Any:
    """For the server; whoever connects after a file has changed is shown the new certificate. One that cannot be used is
    named in the log, and the one before goes on. Raises ConfigError when the first cannot be used."""
    require_tls_files(tls)
    held = _Held(tls)
    return grpc.dynamic_ssl_server_credentials(
        held.configuration, held.changed, require_client_authentication=tls.client_ca is not None
    )


class _Held:
    """The files as they were last read."""

    def __init__(self, tls: TlsFiles) -> None:
        self._tls = tls
        self._stamp = self._stamps()
        self.configuration = self._read()

    def changed(self) -> Any:
        """The new configuration; None while it is the same. Called by gRPC, at each new connection."""
        stamp = self._stamps()
        if stamp == self._stamp:
            return None
        self._stamp = stamp
        try:
            require_tls_files(self._tls)
            self.configuration = self._read()
        except (ConfigError, OSError) as error:
            logger.warning("the certificate before stays: %s", error, extra=LogCode.CERTIFICATE_KEPT.extra)
            return None
        logger.info(
            "the certificate in %s was read again",
            self._tls.certificate,
            extra=LogCode.CERTIFICATE_READ.extra,
        )
        return self.configuration

    def _stamps(self) -> tuple[int, ...]:
        files = (self._tls.certificate, self._tls.key, self._tls.client_ca)
        try:
            return tuple(file.stat().st_mtime_ns for file in files if file is not None)
        except OSError:  # being exchanged
            return ()

    def _read(self) -> Any:
        client_ca = self._tls.client_ca.read_bytes() if self._tls.client_ca else None
        return grpc.ssl_server_certificate_configuration(
            [(self._tls.key.read_bytes(), self._tls.certificate.read_bytes())], root_certificates=client_ca
        )
