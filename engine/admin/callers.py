"""Who calls: what a caller is once it is known, and why one is not."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final


class Role(IntEnum):
    """What a caller may do; each may do what those before it may."""

    VIEWER = 0
    OPERATOR = 1
    ADMIN = 2

    @property
    def word(self) -> str:
        """As the settings and the audit write it."""
        return self.name.lower()


roles: Final = {role.word: role for role in Role}


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Someone who has shown who they are. `way`: token, jwt, certificate or loopback."""

    name: str
    way: str
    role: Role | None
    """None: known, and allowed nothing."""
    token_id: str = ""
    """The `jti` of a token that acts once, and from when until when it is valid, in seconds since 1970."""
    token_since_s: float = 0.0
    token_until_s: float = 0.0


class Denial(StrEnum):
    """Why a caller is not let in: in the audit, and never in an answer."""

    NO_TOKEN = "no_token"
    NOT_A_TOKEN = "not_a_token"
    TOO_LONG = "too_long"
    UNKNOWN_TOKEN = "unknown_token"
    ALGORITHM = "algorithm"
    HEADER = "header"
    TYPE = "type"
    KEY = "key"
    SIGNATURE = "signature"
    CLAIMS = "claims"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    LIFETIME = "lifetime"
    REPLAYED = "replayed"
    CERTIFICATE = "certificate"
    HOST = "host"
    ORIGIN = "origin"
    ROLE = "role"


class DeniedError(Exception):
    """The caller is not let in."""

    def __init__(self, denial: Denial) -> None:
        super().__init__(denial)
        self.denial = denial


class KeysAwayError(Exception):
    """The identity provider's keys cannot be had now: nobody can tell whether the token is good."""
