"""The admin port of a supervisor, put together from the settings."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from penstock.engine.admin.audit_trail import AuditTrail, AuditWriter
from penstock.engine.admin.callers import Caller, roles
from penstock.engine.admin.file_tokens import FileToken, FileTokens, read_secret
from penstock.engine.admin.gate import Gate, Tokens, loopback_names
from penstock.engine.admin.server import AdminServer, Certificates
from penstock.engine.clock import Clock
from penstock.engine.settings.admin import AdminSettings
from penstock.engine.settings.tls_files import TlsFiles
from penstock.engine.worker.admin.actions import Actions, Told

audit_close_s: Final = 2.0
replay_close_s: Final = 2.0
"""For the letters in hand of a replay that goes on."""


def audit_key(settings: AdminSettings) -> bytes | None:
    """The secret that the audit is chained with. Raises ConfigError."""
    if settings.audit_key_file is None:
        return None
    return read_secret(settings.audit_key_file, what="the audit's key").encode()


def tls_files(settings: AdminSettings) -> TlsFiles | None:
    """The files of the port's TLS side."""
    if settings.certificate_file is None or settings.key_file is None:
        return None
    return TlsFiles(
        certificate=settings.certificate_file,
        key=settings.key_file,
        client_ca=settings.client_ca_file,
        client_required=not settings.tokens and settings.jwt is None,
    )


def require_files(settings: AdminSettings) -> str:
    """What `penstock check` says: every file can be used, and how callers show who they are. Raises ConfigError."""
    token_ways(settings, clock=None)
    audit_key(settings)
    if (files := tls_files(settings)) is not None:
        Certificates(files)
    ways = [
        *([f"{len(settings.tokens)} tokens from files"] if settings.tokens else []),
        *(["an identity provider"] if settings.jwt else []),
        *([f"{len(settings.certificates)} client certificates"] if settings.certificates else []),
    ]
    return f"{' and '.join(ways) or 'anyone on this machine'} may act on {settings.host}; audit on {settings.audit_topic}"


def token_ways(
    settings: AdminSettings, *, clock: Clock | None
) -> tuple[tuple[Tokens, ...], Callable[[Caller, float], bool]]:
    """The ways to show a token, and who remembers those that act once; without a clock only what can be checked at once.

    Raises ConfigError.
    """
    ways: list[Tokens] = []
    if settings.tokens:
        ways.append(
            FileTokens([FileToken(name=t.name, role=roles[t.role], file=t.file) for t in settings.tokens])
        )
    if settings.jwt is None:
        return tuple(ways), lambda *_: True
    from penstock.engine.admin.jwt_tokens import JwtRules, JwtTokens, SingleUse  # late: they need an extra
    from penstock.engine.admin.provider_keys import ProviderKeys, fetch_from

    asked = settings.jwt
    fetch = fetch_from(asked.jwks_url, asked.jwks_ca_file)
    if clock is None:
        return tuple(ways), lambda *_: True
    rules = JwtRules(
        issuer=asked.issuer,
        audience=asked.audience,
        algorithms=asked.algorithms,
        roles_claim=asked.roles_claim,
        roles={role: asked.roles.get(word, () if asked.roles else (word,)) for word, role in roles.items()},  # type: ignore[call-overload]
        lifetime_s_max=asked.lifetime_s_max,
        single_use=asked.single_use,
    )
    ways.append(JwtTokens(rules, ProviderKeys(fetch, clock=clock), clock=clock))
    return tuple(ways), SingleUse(began_s=clock.wall_ms() / 1000).use


@contextmanager
def admin_port(
    settings: AdminSettings,
    told: Told,
    writer: AuditWriter,
    *,
    instance: str,
    clock: Clock,
    count: Callable[[str], None],
    let_in: Callable[[Gate], None] = lambda _: None,
) -> Iterator[AdminServer]:
    """The port, answering; at the end the audit's last record is stored, or counted as lost. Raises ConfigError.

    `let_in` is given its gate, for another port that acts.
    """
    tokens, use_once = token_ways(settings, clock=clock)
    trail = AuditTrail(writer, instance=instance, key=audit_key(settings), clock=clock, count=count)
    try:
        anonymous = not settings.knows_callers
        gate = Gate(
            actions=Actions(told).table(),
            tokens=tokens,
            certificates={name: roles[role] for name, role in settings.certificates.items()},
            anonymous=anonymous,
            hosts=frozenset(map(str.lower, settings.hosts)) or (loopback_names if anonymous else frozenset()),
            use_once=use_once,
            trail=trail,
            clock=clock,
            lock=threading.Lock(),
        )
        server = AdminServer(
            gate.answer, refused=gate.refused, host=settings.host, port=settings.port, tls=tls_files(settings)
        )
        server.start()
        let_in(gate)
        try:
            yield server
        finally:
            server.close()
            told.replays.close(replay_close_s)
    finally:
        trail.close(audit_close_s)
