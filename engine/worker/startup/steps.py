"""What a start proves before its first poll, as one list: `penstock run` stops at the first fault, `penstock check` lists them all."""

from datetime import UTC, datetime
from typing import Final

from penstock.engine.settings.tls_files import TlsFiles
from penstock.engine.worker.startup.startup import Startup, Step
from penstock.engine.worker.startup.supervisor import supervisor_steps
from penstock.engine.worker.startup.worker import worker_steps
from penstock.schemas.distribution import how_to_install
from penstock.schemas.errors import ConfigError


def _records(startup: Startup) -> str | None:
    if startup.newest_input_schema is None:
        return None
    from penstock.engine.codec.schema_check import check_fields

    subject, bundle = f"{startup.settings.input.topic}-value", startup.bundle
    newest = startup.newest_input_schema()
    if newest is None:
        return f"nothing is registered under {subject} yet"
    version, schema = newest
    if bundle is None or startup.settings.input.format != "avro":
        return f"{subject} is at version {version}"
    check_fields(bundle.signature, schema, origin=f"the newest schema of {subject}")
    return f"{subject} is at version {version}, which has every field the model needs"


def _scaler(startup: Startup) -> str | None:
    """What the scaler's port is opened with, which `penstock run` never looks at."""
    scaling = startup.settings.scaling
    if scaling.certificate_file is None or scaling.key_file is None:
        return None
    from penstock.connectors.kafka.admin.access import certificate_end

    try:
        from penstock.engine.scaling.tls import require_tls_files
    except ModuleNotFoundError:  # a worker's machine need not have what the scaler needs
        return f"its files were not looked at: {how_to_install('scaler')}"
    require_tls_files(
        TlsFiles(certificate=scaling.certificate_file, key=scaling.key_file, client_ca=scaling.client_ca_file)
    )
    end = certificate_end(scaling.certificate_file)
    if end is not None and end < datetime.now(UTC):
        raise ConfigError(f"the certificate in scaling.certificate_file has expired on {end:%Y-%m-%d}")
    clients = " and asks clients for theirs" if scaling.client_ca_file else ""
    return f"TLS{clients}; the certificate is valid until {end:%Y-%m-%d}" if end else f"TLS{clients}"


steps: Final[tuple[Step, ...]] = (
    *supervisor_steps,
    *worker_steps,
    Step(
        name="records",
        group="records",
        prove=_records,
        proves="the newest schema of the input has what the model needs",
        needs=("registry",),
    ),
    Step(
        name="scaler",
        group="scaler",
        prove=_scaler,
        proves="the scaler's port has the certificates that it needs",
    ),
)
"""The start, in its order; the last two are looked at by `penstock check` alone."""
