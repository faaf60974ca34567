"""Signed bundles: who vouches for every file of a bundle, in the model-signing format of the OpenSSF.

`model.sig` is a Sigstore bundle around a DSSE envelope around an in-toto statement that lists each file with its SHA-256. Keys
are elliptic (P-256, P-384, P-521). Reading is strict: one spelling of each member, one signature, exactly the files there are.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from penstock.schemas.distribution import how_to_install
from penstock.schemas.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.x509 import Certificate

signature_name: Final = "model.sig"
key_bytes_max: Final = 1 << 20
_bundle_type: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
_payload_type: Final = "application/vnd.in-toto+json"
_statement_type: Final = "https://in-toto.io/Statement/v1"
_predicate_type: Final = "https://model_signing/signature/v1.0"
_hashes: Final = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}


def sign_files(files: Mapping[str, bytes], *, name: str, key: Path, password: str | None = None) -> bytes:
    """model.sig for these files, by a private key in PEM form. Raises ConfigError."""
    private = _private_key(key, password)
    resources = [
        {"name": file, "algorithm": "sha256", "digest": hashlib.sha256(data).hexdigest()}
        for file, data in sorted(files.items())
        if file != signature_name
    ]
    statement = {
        "_type": _statement_type,
        "subject": [{"name": name, "digest": {"sha256": _root_digest(resources)}}],
        "predicateType": _predicate_type,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [signature_name],
            },
            "resources": resources,
        },
    }
    payload = _json(statement)
    from cryptography.hazmat.primitives.asymmetric import ec

    public = private.public_key()
    signature = private.sign(_encoded(payload), ec.ECDSA(_hash_of(public)))
    return _json(_envelope(payload, signature, _hint(public)))


def require_signature(files: Mapping[str, bytes], keys: Sequence[Path], *, now: datetime) -> str:
    """Proves that one of these keys signed exactly these files; returns the key's file name.

    `keys` are PEM files, each with a public key or a certificate, whose key is meant; a certificate counts while it is valid. It is
    trusted as it stands there: no chain is followed, and none of an authority's other certificates is trusted. Raises ConfigError.
    """
    if signature_name not in files:
        raise ConfigError(f"it is not signed: {signature_name} is missing")
    trusted, over = _trusted(keys, now)
    payload, signature, hint = _opened(files[signature_name])
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec

    for path, public in trusted:
        if hint != _hint(public):
            continue
        try:
            public.verify(signature, _encoded(payload), ec.ECDSA(_hash_of(public)))
        except InvalidSignature:
            raise ConfigError(f"{signature_name} is not what the key in {path} has signed") from None
        _require_same(payload, files)
        return path.name
    raise ConfigError(
        f"{signature_name} is by none of the trusted keys" + "".join(f"; {fault}" for fault in over)
    )


def _trusted(
    keys: Sequence[Path], now: datetime
) -> "tuple[list[tuple[Path, EllipticCurvePublicKey]], list[str]]":
    """The keys that count now, and why others do not: one that is over keeps nobody from trusting the next."""
    found, over = [], []
    for path in keys:
        try:
            found.append((path, _public_key(path, now)))
        except _OverError as error:
            over.append(str(error))
    return found, over


class _OverError(ConfigError):
    """A certificate that is not valid now."""


def _require_same(payload: bytes, files: Mapping[str, bytes]) -> None:
    """The statement is about exactly these files. It is signed, so its faults are the signer's."""
    try:
        statement = json.loads(payload)
        if statement["_type"] != _statement_type or statement["predicateType"] != _predicate_type:
            raise ConfigError(f"{signature_name} is no statement of a model's signature")
        predicate = statement["predicate"]
        resources = predicate["resources"]
        if predicate["serialization"]["method"] != "files":
            raise ConfigError(f"{signature_name} does not list files one by one")
        found: dict[str, str] = {}
        for each in resources:
            if each["algorithm"] != "sha256" or each["name"] in found:
                raise ConfigError(f"{signature_name} lists {each['name']} twice, or not by its SHA-256")
            found[each["name"]] = each["digest"]
        (subject,) = statement["subject"]
        if subject["digest"]["sha256"] != _root_digest(resources):
            raise ConfigError(f"{signature_name} contradicts itself")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{signature_name} holds no statement that can be read") from error
    present = set(files) - {signature_name}
    for name in sorted(present ^ set(found)):
        raise ConfigError(f"{name} is {'not signed' if name in present else 'signed, and missing'}")
    for name in sorted(present):
        if hashlib.sha256(files[name]).hexdigest() != found[name]:
            raise ConfigError(f"{name} has changed since it was signed")


def _opened(data: bytes) -> tuple[bytes, bytes, str]:
    """Payload, signature and the key's hint, of a file in which nothing is unknown, doubled or spelled otherwise."""
    try:
        tree = json.loads(data, object_pairs_hook=_unique)
        envelope = tree["dsseEnvelope"]
        (signed,) = envelope["signatures"]
        hint = tree["verificationMaterial"]["publicKey"]["hint"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        signature = base64.b64decode(signed["sig"], validate=True)
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error) as error:
        raise ConfigError(f"{signature_name} is no signature that can be read") from error
    signed.setdefault("keyid", "")
    tree["verificationMaterial"].setdefault("tlogEntries", [])
    if not isinstance(hint, str) or tree != _envelope(payload, signature, hint):
        raise ConfigError(f"{signature_name} holds more, or other things, than one signature by a key")
    return payload, signature, hint


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member stands there twice")
    return found


def _envelope(payload: bytes, signature: bytes, hint: str) -> dict[str, Any]:
    return {
        "mediaType": _bundle_type,
        "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": _payload_type,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }


def _encoded(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %s %d %s" % (len(_payload_type), _payload_type.encode(), len(payload), payload)


def _root_digest(resources: Sequence[Mapping[str, str]]) -> str:
    return hashlib.sha256(b"".join(bytes.fromhex(each["digest"]) for each in resources)).hexdigest()


def _json(tree: Mapping[str, Any]) -> bytes:
    return json.dumps(tree, separators=(",", ":"), ensure_ascii=True).encode()


def _hint(public: "EllipticCurvePublicKey") -> str:
    from cryptography.hazmat.primitives import serialization

    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(public.public_bytes(serialization.Encoding.PEM, form)).hexdigest()


def _hash_of(public: "EllipticCurvePublicKey") -> Any:
    from cryptography.hazmat.primitives import hashes

    return getattr(hashes, _hashes[public.curve.name])()


def _private_key(path: Path, password: str | None) -> "EllipticCurvePrivateKey":
    data = _read(path)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key = serialization.load_pem_private_key(data, None if password is None else password.encode())
    except TypeError as error:
        raise ConfigError(f"{path} {'has a password' if password is None else 'has no password'}") from error
    except ValueError as error:
        raise ConfigError(f"{path} holds no private key in PEM form, or the password is wrong") from error
    except UnsupportedAlgorithm as error:
        raise _other_kind(path) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in _hashes:
        raise _other_kind(path)
    return key


def _other_kind(path: Path) -> ConfigError:
    return ConfigError(f"{path} is not an elliptic key on P-256, P-384 or P-521")


def _public_key(path: Path, now: datetime) -> "EllipticCurvePublicKey":
    data = _read(path)
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        if b"-----BEGIN CERTIFICATE-----" in data:
            certificate = x509.load_pem_x509_certificate(data)
            _require_valid(certificate, path, now)
            key: Any = certificate.public_key()
        else:
            key = serialization.load_pem_public_key(data)
    except (ValueError, TypeError, x509.InvalidVersion) as error:
        raise ConfigError(f"{path} holds neither a public key nor a certificate in PEM form") from error
    except (
        UnsupportedAlgorithm
    ) as error:  # a curve that this build of OpenSSL has no arithmetic for, as SM2's
        raise _other_kind(path) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _hashes:
        raise _other_kind(path)
    return key


def _require_valid(certificate: "Certificate", path: Path, now: datetime) -> None:
    """A certificate ends; a key in a file of its own does not. Raises ConfigError."""
    if now > certificate.not_valid_after_utc:
        raise _OverError(
            f"the certificate in {path} has expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
        )
    if now < certificate.not_valid_before_utc:
        raise _OverError(
            f"the certificate in {path} is valid from {certificate.not_valid_before_utc:%Y-%m-%d} on"
        )


def _read(path: Path) -> bytes:
    try:
        import cryptography  # noqa: F401  # an extra: only signed bundles need it
    except ModuleNotFoundError as error:
        raise ConfigError(f"signatures need cryptography: {how_to_install('sign')}") from error
    try:
        with path.open("rb") as file:
            return file.read(key_bytes_max)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
