"""The files of a port that speaks TLS."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsFiles:
    """PEM files, read again when one of them changes; with `client_ca`, clients show a certificate that it signed."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    client_required: bool = True
    """Whether a client without a certificate is turned away; False where it may show a token instead."""
