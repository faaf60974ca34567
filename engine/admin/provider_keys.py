"""The identity provider's public keys: fetched with a time-out, kept while it is away, fetched anew when a key is not known."""

import base64
import logging
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey

from penstock.engine.admin.callers import KeysAwayError
from penstock.engine.admin.jwt_tokens import PublicKey
from penstock.engine.clock import Clock
from penstock.schemas.log_codes import LogCode

logger = logging.getLogger("penstock.admin")

fresh_s: Final = 300.0
"""So long keys are used without asking again."""
kept_s: Final = 86_400.0
"""So long they are used while the provider does not answer; then nobody is let in."""
ask_again_s: Final = 10.0
"""Not more often than this, whatever tokens name: made-up keys are no stream of requests."""
answer_timeout_s: Final = 3.0
answer_bytes_max: Final = 256 << 10
keys_max: Final = 100
rsa_bits_min: Final = 2048
"""RFC 7518 asks for as many."""

Fetch = Callable[[], bytes]
"""The provider's answer. Raises OSError or httpx.HTTPError."""


def fetch_from(url: str, ca_file: Path | None) -> Fetch:
    """Asks a provider over HTTP. No redirects: the address in the settings is the one that is believed."""

    def fetch() -> bytes:
        verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=ca_file) if ca_file else True
        with (
            httpx.Client(
                verify=verify, timeout=answer_timeout_s, follow_redirects=False, trust_env=False
            ) as client,
            client.stream("GET", url) as answer,
        ):
            answer.raise_for_status()
            body = b""
            for piece in answer.iter_bytes():
                body += piece
                if len(body) > answer_bytes_max:
                    raise OSError("its answer is too long")
            if answer.status_code != httpx.codes.OK:
                raise OSError(f"its answer has status {answer.status_code}")
            return body

    return fetch


class ProviderKeys:
    """`Keys` of one provider. Thread-safe; one request asks, the others go on with what is known."""

    def __init__(self, fetch: Fetch, *, clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: dict[str | None, PublicKey] = {}
        self._fetched_s: float | None = None
        self._asked_s: float | None = None

    def key(self, kid: str | None) -> PublicKey | None:
        """As JwtTokens asks."""
        now_s = self._clock.monotonic_s()
        stale = self._fetched_s is None or now_s - self._fetched_s >= fresh_s
        if stale or self._found(kid) is None:
            self._refresh(now_s)
        if self._fetched_s is None or now_s - self._fetched_s >= kept_s:
            raise KeysAwayError
        return self._found(kid)

    def _found(self, kid: str | None) -> PublicKey | None:
        keys = self._keys
        if kid is None:
            return next(iter(keys.values())) if len(keys) == 1 else None
        return keys.get(kid)

    def _refresh(self, now_s: float) -> None:
        if not self._lock.acquire(timeout=answer_timeout_s if self._fetched_s is None else 0.0):
            return
        try:
            if self._asked_s is not None and now_s - self._asked_s < ask_again_s:
                return
            self._asked_s = now_s
            self._keys = public_keys(self._fetch())
            self._fetched_s = now_s
        except (OSError, httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            logger.warning(
                "the keys of admin.jwt.jwks_url cannot be had: %s; known ones stay",
                type(error).__name__,
                extra=LogCode.PROVIDER_KEYS_KEPT.extra,
            )
        finally:
            self._lock.release()


def public_keys(body: bytes) -> dict[str | None, PublicKey]:
    """The keys for signatures in a JWKS, by name. What is for something else, or secret, or so short that it can be broken, is passed
    over. Raises ValueError: none is left."""
    document = orjson.loads(body)
    listed: Any = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or len(listed) > keys_max:
        raise ValueError("no set of keys")
    found: dict[str | None, PublicKey] = {}
    for each in listed:
        if (
            not isinstance(each, dict)
            or each.get("kty") not in ("RSA", "EC", "OKP")
            or each.get("use", "sig") != "sig"
            or "d" in each  # whoever reads it there can sign with it
            or (each["kty"] == "RSA" and not _is_long(each.get("n")))
        ):
            continue
        try:
            key = JWKRegistry.import_key(each)
        except (JoseError, ValueError, TypeError, KeyError):
            continue
        if isinstance(key, RSAKey | ECKey | OKPKey):
            found[each.get("kid") if isinstance(each.get("kid"), str) else None] = key
    if not found:
        raise ValueError("no key that could have signed a token")
    return found


def _is_long(modulus: Any) -> bool:
    """Whether an RSA key's modulus, in base64url, is no shorter than it has to be; what is no base64 is for the import to refuse."""
    try:
        data = (
            base64.urlsafe_b64decode(modulus + "=" * (-len(modulus) % 4)) if isinstance(modulus, str) else b""
        )
    except ValueError:
        return False
    return int.from_bytes(data, "big").bit_length() >= rsa_bits_min
