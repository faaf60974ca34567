"""The steps of a start that the supervisor takes, before its workers begin."""

import socket
from typing import Final

from penstock.engine.console.exhausted import require_limits
from penstock.engine.worker.model_copy import bundle_digest, bundle_files
from penstock.engine.worker.startup.startup import AddressTakenError, Startup, Step


def _limits(startup: Startup) -> None:
    require_limits()


def _files(startup: Startup) -> str:
    folder = startup.settings.model.path
    return f"{len(bundle_files(folder))} files, digest {bundle_digest(folder)}"


def _port(startup: Startup) -> str | None:
    http = startup.settings.http
    return _free(http.host, http.port, "http")


def _admin(startup: Startup) -> str | None:
    admin = startup.settings.admin
    if admin is None:
        return None
    from penstock.engine.worker.admin.port import (
        require_files,  # late: without the section nothing of it is loaded
    )

    return require_files(admin)


def _admin_port(startup: Startup) -> str | None:
    admin = startup.settings.admin
    return None if admin is None else _free(admin.host, admin.port, "admin")


def _tracing(startup: Startup) -> str | None:
    if startup.settings.tracing is None:
        return None
    from penstock.engine.worker.startup.tracing import require_tracing

    return require_tracing(startup.settings.tracing)


def _free(host: str, port: int, section: str) -> str | None:
    """Whether this address can be listened at. Raises ConfigError."""
    if not port:
        return None  # a free one is taken
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        text = f"{section}: cannot listen on {host}:{port}: {reason}"
        raise AddressTakenError(text, host=host, port=port) from error
    return f"{host}:{port} is free"


supervisor_steps: Final[tuple[Step, ...]] = (
    Step(
        name="limits",
        group="supervisor",
        prove=_limits,
        proves="the system gives a process as many files and as much address space as a worker needs",
    ),
    Step(
        name="files",
        group="supervisor",
        prove=_files,
        proves="the bundle's files can be copied for the workers",
    ),
    Step(name="http", group="supervisor", prove=_port, proves="the port of metrics and health is free"),
    Step(
        name="admin",
        group="supervisor",
        prove=_admin,
        proves="tokens, keys and certificates of what acts over HTTP can be used",
    ),
    Step(
        name="tracing",
        group="supervisor",
        prove=_tracing,
        proves="what sends traces is installed, and its files can be read",
    ),
    Step(name="admin port", group="supervisor", prove=_admin_port, proves="its port is free"),
)
