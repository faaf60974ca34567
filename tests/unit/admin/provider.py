"""An identity provider of the tests, and every token that must not be taken: written by hand, byte by byte."""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

issuer, audience = "https://identity.example/realm", "penstock"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value: int) -> str:
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def _public(key: rsa.RSAPrivateKey) -> dict[str, str]:
    numbers = key.public_key().public_numbers()
    return {"n": number(numbers.n), "e": number(numbers.e)}


@dataclass
class Provider:
    """Signs what it is told to; `jwks` is what it publishes."""

    now_s: int
    key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))
    curve: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    kid: str = "first"
    short: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 1024))

    def jwks(self) -> bytes:
        public, point = self.key.public_key().public_numbers(), self.curve.public_key().public_numbers()
        keys = [
            {"kty": "RSA", "kid": self.kid, "use": "sig", "n": number(public.n), "e": number(public.e)},
            {"kty": "EC", "kid": "curve", "crv": "P-256", "x": number(point.x), "y": number(point.y)},
            {"kty": "oct", "kid": "shared", "k": b64(b"a shared secret that nobody may use")},
            {
                "kty": "RSA",
                "kid": "for-encryption",
                "use": "enc",
                "n": number(public.n),
                "e": number(public.e),
            },
            {"kty": "RSA", "kid": "short", **_public(self.short)},
            {
                "kty": "RSA",
                "kid": "published",
                **_public(self.key),
                "d": number(self.key.private_numbers().d),
                "p": number(self.key.private_numbers().p),
                "q": number(self.key.private_numbers().q),
                "dp": number(self.key.private_numbers().dmp1),
                "dq": number(self.key.private_numbers().dmq1),
                "qi": number(self.key.private_numbers().iqmp),
            },
        ]
        return json.dumps({"keys": keys}).encode()

    def claims(self, **changes: Any) -> dict[str, Any]:
        whole = {
            "iss": issuer,
            "aud": audience,
            "sub": "anna",
            "iat": self.now_s,
            "exp": self.now_s + 300,
            "roles": ["operator"],
        }
        return {name: value for name, value in (whole | changes).items() if value is not None}

    def token(self, claims: Mapping[str, Any] | None = None, **header: Any) -> str:
        head = {"alg": "RS256", "typ": "JWT", "kid": self.kid} | header
        head = {name: value for name, value in head.items() if value is not None}
        return self.signed(
            json.dumps(head).encode(), json.dumps(self.claims() if claims is None else claims).encode()
        )

    def signed(self, head: bytes, payload: bytes, key: rsa.RSAPrivateKey | None = None) -> str:
        text = f"{b64(head)}.{b64(payload)}"
        signature = (key or self.key).sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{text}.{b64(signature)}"

    def by_curve(self, kid: str = "curve", alg: str = "ES256") -> str:
        text = (
            f"{b64(json.dumps({'alg': alg, 'kid': kid}).encode())}.{b64(json.dumps(self.claims()).encode())}"
        )
        r, s = decode_dss_signature(self.curve.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def with_secret(secret: bytes, claims: Mapping[str, Any], **header: Any) -> str:
    """A token signed with a shared secret, as who knows only the public key would."""
    head = {"alg": "HS256", "typ": "JWT"} | header
    text = f"{b64(json.dumps(head).encode())}.{b64(json.dumps(claims).encode())}"
    return f"{text}.{b64(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"


def forged(provider: Provider) -> Iterator[tuple[str, str]]:
    """Names and tokens, none of which may be taken."""
    now_s, good = provider.now_s, provider.token()
    head, payload, signature = good.split(".")
    alien = Provider(now_s=now_s, kid=provider.kid)
    public = provider.key.public_key()
    claims = provider.claims
    by_time: dict[str, dict[str, Any]] = {
        "expired": {"iat": now_s - 900, "exp": now_s - 600},
        "expired long ago": {"iat": 1, "exp": 2},
        "expired as text": {"exp": str(now_s + 300)},
        "never expires": {"exp": None},
        "expires for ever": {"exp": 1e300},
        "expires at infinity": {"exp": float("inf")},
        "expires at NaN": {"exp": float("nan")},
        "expires as a flag": {"exp": True},
        "expires before 1970": {"exp": -5},
        "issued never": {"iat": None},
        "issued in the future": {"iat": now_s + 600, "exp": now_s + 900},
        "not before in the future": {"nbf": now_s + 600},
        "not before as text": {"nbf": "0"},
        "issued behind all numbers": {"iat": 10**400},
        "expires behind all numbers": {"exp": 10**400},
        "not before a number of 4,000 digits": {"nbf": 10**4000},
        "valid for too long": {"exp": now_s + 10 * 86_400},
    }
    for name, moments in by_time.items():
        yield name, provider.token(claims(**moments))
    by_name: dict[str, dict[str, Any]] = {
        "another issuer": {"iss": "https://identity.example/other"},
        "issuer with a slash more": {"iss": issuer + "/"},
        "issuer in capitals": {"iss": issuer.upper()},
        "no issuer": {"iss": None},
        "a list of issuers": {"iss": [issuer]},
        "another audience": {"aud": "billing"},
        "an audience that begins alike": {"aud": "penstock-admin"},
        "no audience": {"aud": None},
        "other audiences": {"aud": ["billing", "mail"]},
        "an audience in an object": {"aud": {"penstock": True}},
        "no subject": {"sub": None},
        "an empty subject": {"sub": ""},
        "a subject that is a number": {"sub": 7},
        "a subject that is half a character": {"sub": "anna\ud800"},
        "a subject that is the other half": {"sub": "\udfff"},
        "a subject without end": {"sub": "a" * 5000},
    }
    for name, who in by_name.items():
        yield name, provider.token(claims(**who))
    by_head: dict[str, dict[str, Any]] = {
        "algorithm none": {"alg": "none"},
        "algorithm None": {"alg": "None"},
        "algorithm nOnE": {"alg": "nOnE"},
        "algorithm empty": {"alg": ""},
        "no algorithm": {"alg": None},
        "algorithm as a list": {"alg": ["RS256"]},
        "another algorithm of that key": {"alg": "RS512"},
        "PSS under the same key": {"alg": "PS256"},
        "an algorithm that is none": {"alg": "XX999"},
        "an unknown kid": {"kid": "second"},
        "a kid that leads to a file": {"kid": "../../../../dev/null"},
        "a kid with SQL": {"kid": "first' OR '1'='1"},
        "a kid that is a number": {"kid": 1},
        "no kid among several keys": {"kid": None},
        "the shared secret's kid": {"kid": "shared"},
        "the encryption key's kid": {"kid": "for-encryption"},
        "the curve's kid": {"kid": "curve"},
        "a jku": {"jku": "https://evil.example/keys"},
        "an x5u": {"x5u": "https://evil.example/chain.pem"},
        "an x5c": {"x5c": ["MIIB"]},
        "a critical extension": {"crit": ["exp"]},
        "an unencoded payload": {"b64": False, "crit": ["b64"]},
        "a wrong type": {"typ": "logout+jwt"},
        "a type that is a number": {"typ": 3},
        "compressed": {"zip": "DEF"},
    }
    for name, changes in by_head.items():
        yield name, provider.token(**changes)
    yield (
        "an embedded jwk",
        alien.token(jwk={"kty": "RSA", "n": number(alien.key.public_key().public_numbers().n), "e": "AQAB"}),
    )
    yield "signed by another key under our kid", alien.token()
    for form, encoding, shown in (
        (PublicFormat.SubjectPublicKeyInfo, Encoding.PEM, "SPKI PEM"),
        (PublicFormat.PKCS1, Encoding.PEM, "PKCS1 PEM"),
        (PublicFormat.SubjectPublicKeyInfo, Encoding.DER, "SPKI DER"),
    ):
        yield (
            f"the public key as a secret, {shown}",
            with_secret(public.public_bytes(encoding, form), claims(), kid=provider.kid),
        )
    yield (
        "the published shared secret",
        with_secret(b"a shared secret that nobody may use", claims(), kid="shared"),
    )
    yield "an empty secret", with_secret(b"", claims(), kid=provider.kid)
    yield "a key that was published whole", provider.token(kid="published")
    yield (
        "a key short enough to be broken",
        provider.signed(
            json.dumps({"alg": "RS256", "kid": "short"}).encode(),
            json.dumps(claims()).encode(),
            provider.short,
        ),
    )
    yield "no signature", f"{head}.{payload}."
    yield "none, and no signature", f"{b64(json.dumps({'alg': 'none'}).encode())}.{payload}."
    yield "two parts", f"{head}.{payload}"
    yield "five parts", f"{good}.{head}.{payload}"
    yield "a changed payload", f"{head}.{b64(json.dumps(claims(roles=['admin'])).encode())}.{signature}"
    yield "a changed signature", f"{head}.{payload}.{signature[:-8]}AAAAAAAA"
    yield "a signature cut short", f"{head}.{payload}.{signature[: len(signature) // 2]}"
    yield "another token's signature", f"{head}.{payload}.{provider.token(claims(sub='berta')).split('.')[2]}"
    yield "padding", f"{head}.{payload}.{signature}=="
    yield "a head that is no JSON", provider.signed(b"{", json.dumps(claims()).encode())
    yield "a head that is a list", provider.signed(b"[]", json.dumps(claims()).encode())
    yield (
        "a payload that is no JSON",
        provider.signed(json.dumps({"alg": "RS256", "kid": provider.kid}).encode(), b"{"),
    )
    yield (
        "a payload that is a list",
        provider.signed(json.dumps({"alg": "RS256", "kid": provider.kid}).encode(), b"[1]"),
    )
    yield (
        "a payload nested without end",
        provider.signed(json.dumps({"alg": "RS256", "kid": provider.kid}).encode(), b"[" * 4000),
    )
    yield "over-long", provider.token(claims(more="a" * 7000))
    yield "longer than a head may be", "a" * 30_000
    yield "dots", "." * 200
    yield "no token", "letmein"
    yield "curve under RSA's name", provider.by_curve(kid="curve", alg="RS256")
    yield "curve under RSA's kid", provider.by_curve(kid=provider.kid)
