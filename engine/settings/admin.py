"""Settings of what acts over HTTP: who may, how they show who they are, and where it is written down."""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from penstock.engine.settings.section import Section, address

Role = Literal["viewer", "operator", "admin"]
"""viewer: reads the state; operator: pause, resume, log-level, restart and replay; admin: drain besides."""

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


def _https(url: str) -> str:
    address(url)
    parts = urlsplit(url)
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise ValueError("has to be https: whoever answers there decides who is let in")
    return url


def is_loopback(host: str) -> bool:
    """Whether only this machine is reached by that name or address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class TokenSettings(Section):
    """One bearer token that does not change by itself, in a file."""

    name: str = Field(
        min_length=1,
        max_length=100,
        pattern=r"^[A-Za-z0-9._@-]+$",
        description="who it stands for, in the audit",
    )
    role: Role = Field(description="what it allows")
    file: Path = Field(description="file with the token, 32 to 1024 characters; read again at each request")


class JwtSettings(Section):
    """Tokens of an identity provider (OIDC)."""

    issuer: str = Field(min_length=1, max_length=2000, description="what `iss` has to be, exactly")
    audience: str = Field(min_length=1, max_length=2000, description="what `aud` has to be, or to hold")
    algorithms: tuple[Algorithm, ...] = Field(
        ("RS256",),
        min_length=1,
        description="signatures that are accepted; none of them works with a shared secret",
    )
    jwks_url: Annotated[str, AfterValidator(_https)] = Field(
        description="where the provider's public keys are; asked with a time-out, and kept"
    )
    jwks_ca_file: Path | None = Field(
        None,
        description="PEM file of the authorities that may have signed its certificate; default: the system's",
    )
    roles_claim: str = Field(
        "roles",
        min_length=1,
        max_length=500,
        description="claim with the roles; dots lead into objects (realm_access.roles)",
    )
    roles: dict[Role, tuple[str, ...]] = Field(
        default_factory=dict,
        description="the provider's words for each role, e.g. {admin: [sre]}; default: the roles' own names",
    )
    lifetime_s_max: float = Field(
        86_400.0,
        gt=0,
        le=30 * 86_400.0,
        description="a token that is valid for longer than this, by its `iat` and `exp`, is refused",
    )
    single_use: bool = Field(
        False,
        description="a token acts once at each supervisor: it needs a `jti`; one that was seen with an action is refused, and one that was issued before the supervisor started",
    )


class AdminSettings(Section):
    """What acts over HTTP, on a port of its own; without this section nothing does."""

    host: str = Field(
        "127.0.0.1", description="address to listen on; others than loopback need tokens, jwt or certificates"
    )
    port: int = Field(9480, ge=0, le=65_535, description="port to listen on; 0: a free one")
    hosts: tuple[str, ...] = Field(
        (),
        description="names that requests may call this port by (Host); default: loopback names, or any where callers must show who they are",
    )
    audit_topic: str = Field(
        min_length=1,
        max_length=249,
        pattern=r"^[a-zA-Z0-9._-]+$",
        description="topic of a record for each action and refusal; never compacted",
    )
    audit_key_file: Path | None = Field(
        None,
        description="file with a secret of at least 32 characters: records are chained with it, so that nobody without it can write a chain anew",
    )
    tokens: tuple[TokenSettings, ...] = Field(
        (),
        max_length=64,
        description="tokens from files: of each its `name`, for the audit, its `role`, and the `file`, with 32 to 1024 characters, which is read again at each request",
    )
    jwt: JwtSettings | None = None
    certificate_file: Path | None = Field(None, description="PEM; with key_file, the port speaks TLS")
    key_file: Path | None = Field(None, description="PEM file of the certificate's private key")
    client_ca_file: Path | None = Field(
        None, description="PEM; clients may show a certificate that it signed, as an alternative to a token"
    )
    certificates: dict[str, Role] = Field(
        default_factory=dict, description="the role of each client's certificate, by its common name"
    )

    @property
    def knows_callers(self) -> bool:
        """Whether callers must show who they are."""
        return bool(self.tokens or self.jwt or self.certificates)

    @model_validator(mode="after")
    def _guarded(self) -> "AdminSettings":
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file go together")
        if self.client_ca_file is not None and self.certificate_file is None:
            raise ValueError("client_ca_file needs certificate_file and key_file")
        if bool(self.certificates) != (self.client_ca_file is not None):
            raise ValueError("certificates and client_ca_file go together")
        if not is_loopback(self.host):
            if not self.knows_callers:
                raise ValueError("a host other than loopback needs tokens, jwt or certificates")
            if self.certificate_file is None:
                raise ValueError(
                    "a host other than loopback needs certificate_file and key_file: tokens could be read on the way"
                )
        names = [token.name for token in self.tokens]
        if len(set(names)) != len(names):
            raise ValueError("two tokens have the same name")
        return self
