"""Tokens of an identity provider: a signature by one of its keys, and claims that are for us.

Needs joserfc, which comes with the extra `admin`.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from penstock.engine.admin.callers import Caller, Denial, DeniedError, Role
from penstock.engine.clock import Clock

token_characters_max: Final = 8192
name_characters_max: Final = 200
leeway_s: Final = 30.0
_header_keys: Final = frozenset({"alg", "typ", "kid", "x5t", "x5t#S256"})
"""A header may name a key, and never bring one (jwk, jku, x5u, x5c) or ask for what we do not know (crit)."""
_types: Final = frozenset({"jwt", "at+jwt", "application/at+jwt", "application/jwt"})
_key_types: Final = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}

PublicKey = RSAKey | ECKey | OKPKey


class Keys(Protocol):
    """The provider's public keys."""

    def key(self, kid: str | None) -> PublicKey | None:
        """The key of that name (None: the only one there is). Raises KeysAwayError; waits no longer than its time-out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JwtRules:
    """What a token has to be."""

    issuer: str
    audience: str
    algorithms: tuple[str, ...]
    roles_claim: str
    roles: Mapping[Role, Sequence[str]]
    lifetime_s_max: float
    single_use: bool


class JwtTokens:
    """Tells whose token it is. Thread-safe."""

    def __init__(self, rules: JwtRules, keys: Keys, *, clock: Clock) -> None:
        self._rules = rules
        self._keys = keys
        self._clock = clock

    def caller(self, token: str) -> Caller:
        """Whose token it is. Raises DeniedError, KeysAwayError."""
        if len(token) > token_characters_max:
            raise DeniedError(Denial.TOO_LONG)
        header = _header(token)
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._rules.algorithms:
            raise DeniedError(Denial.ALGORITHM)
        if not header.keys() <= _header_keys or not isinstance(kid, str | None):
            raise DeniedError(Denial.HEADER)
        if not isinstance(header.get("typ", "JWT"), str) or header.get("typ", "JWT").lower() not in _types:
            raise DeniedError(Denial.TYPE)
        key = self._keys.key(kid)
        # The key decides which algorithms it is for, never the token: else a public key could be taken for a shared secret.
        if key is None or key.key_type != _key_types[algorithm[:2]] or (key.alg or algorithm) != algorithm:
            raise DeniedError(Denial.KEY)
        try:
            claims = jwt.decode(token, key, algorithms=[algorithm]).claims
        except (JoseError, ValueError, TypeError, RecursionError) as error:
            raise DeniedError(Denial.SIGNATURE) from error
        return self._judged(claims)

    def _judged(self, claims: Mapping[str, Any]) -> Caller:
        rules, now_s = self._rules, self._clock.wall_ms() / 1000
        if claims.get("iss") != rules.issuer:
            raise DeniedError(Denial.ISSUER)
        audience = claims.get("aud")
        if rules.audience not in (audience if isinstance(audience, list) else [audience]):
            raise DeniedError(Denial.AUDIENCE)
        until_s, issued_s = _moment(claims, "exp"), _moment(claims, "iat")
        if until_s is None or issued_s is None:
            raise DeniedError(Denial.CLAIMS)
        if now_s >= until_s + leeway_s:
            raise DeniedError(Denial.EXPIRED)
        if max(issued_s, _moment(claims, "nbf") or 0.0) > now_s + leeway_s:
            raise DeniedError(Denial.NOT_YET_VALID)
        if until_s - issued_s > rules.lifetime_s_max:
            raise DeniedError(Denial.LIFETIME)
        name, jti = claims.get("sub"), claims.get("jti")
        if not isinstance(name, str) or not 0 < len(name) <= name_characters_max or not _is_utf8(name):
            raise DeniedError(Denial.CLAIMS)
        if rules.single_use and (not isinstance(jti, str) or not 0 < len(jti) <= name_characters_max):
            raise DeniedError(Denial.CLAIMS)
        return Caller(
            name=name,
            way="jwt",
            role=self._role(claims),
            token_id=str(jti) if rules.single_use else "",
            token_since_s=issued_s,
            token_until_s=until_s + leeway_s,
        )

    def _role(self, claims: Mapping[str, Any]) -> Role | None:
        found: Any = claims
        for part in self._rules.roles_claim.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        words = found.split() if isinstance(found, str) else found if isinstance(found, list) else []
        return max(
            (
                role
                for role, names in self._rules.roles.items()
                if set(names) & {w for w in words if isinstance(w, str)}
            ),
            default=None,
        )


class SingleUse:
    """Remembers which tokens have acted, for as long as they are valid. Not thread-safe: the caller holds a lock.

    A token from before our start may have acted on who was here before us, which nobody remembers: it does not act.
    """

    kept_max: Final = 10_000

    def __init__(self, *, began_s: float) -> None:
        """`began_s`: our start, in seconds since 1970."""
        self._began_s = began_s
        self._used: dict[str, float] = {}

    def use(self, caller: Caller, now_s: float) -> bool:
        """Whether the token may act now; from then on it may not. Full: none may, rather than one twice."""
        if not caller.token_id:
            return True
        if len(self._used) >= self.kept_max:
            self._used = {jti: until_s for jti, until_s in self._used.items() if until_s > now_s}
        known = caller.token_id in self._used or caller.token_since_s < self._began_s
        if known or len(self._used) >= self.kept_max:
            return False
        self._used[caller.token_id] = caller.token_until_s
        return True


def _header(token: str) -> Mapping[str, Any]:
    """The header, before anything of it is believed. Raises DeniedError."""
    parts = token.split(".")
    if len(parts) != 3 or not token.isascii():
        raise DeniedError(Denial.NOT_A_TOKEN)
    try:
        for part in parts:
            base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
        header = json.loads(base64.urlsafe_b64decode(parts[0] + "=" * (-len(parts[0]) % 4)))
    except (binascii.Error, ValueError, RecursionError) as error:
        raise DeniedError(Denial.NOT_A_TOKEN) from error
    if not isinstance(header, dict):
        raise DeniedError(Denial.NOT_A_TOKEN)
    return header


def _is_utf8(text: str) -> bool:
    """Half of a surrogate pair stands in JSON, and in no record of the audit."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _moment(claims: Mapping[str, Any], name: str) -> float | None:
    """A claim in seconds since 1970; None when it is not there. Raises DeniedError for what is no moment."""
    value = claims.get(name)
    if value is None:
        return None
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 <= value < 1e11  # NaN is in no range, and an integer of any length can be compared
    ):
        raise DeniedError(Denial.CLAIMS)
    return float(value)
