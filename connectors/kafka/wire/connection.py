"""A connection to a broker for the few requests that are written by hand, after a login where one is asked for."""

import base64
import hashlib
import hmac
import secrets
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from penstock.connectors.kafka.client import ClientConfig
from penstock.schemas.errors import UnavailableError

timeout_s: Final = 3.0
answer_bytes_max: Final = 1 << 20
iterations_max: Final = 1_000_000
token_bytes_max: Final = 1 << 16
_default_port: Final = 9092
_port_max: Final = 65_535
_piece_bytes: Final = 1 << 20  # read at once: no length in an answer makes us ask for more memory than came

_sasl_handshake, _sasl_authenticate = 17, 36


@contextmanager
def connected(config: ClientConfig, host: str, port: int, doing: str) -> Iterator["Connection"]:
    """A connection that is logged in. Raises UnavailableError (`doing` completes "cannot ...") for whatever goes wrong on it."""
    try:
        with (
            socket.create_connection((host, port), timeout_s) as plain,
            _secured(plain, config, host) as wire,
        ):
            connection = Connection(wire)
            if config.protocol.startswith("SASL"):
                _log_in(connection, config)
            yield connection
    except (OSError, ValueError, struct.error) as error:
        raise UnavailableError(f"cannot {doing}: {error}") from error


class Connection:
    """Asks one question after the other."""

    def __init__(self, wire: socket.socket) -> None:
        self._wire = wire
        self._number = 0

    def ask(
        self,
        key: int,
        version: int,
        body: bytes,
        *,
        flexible: bool = False,
        bytes_max: int = answer_bytes_max,
    ) -> bytes:
        """The answer's body. `flexible`: a version whose heads have room for tags; none are sent, and those that come stay in
        the body. `bytes_max`: a longer answer is refused."""
        self._number += 1
        head = struct.pack(">hhi", key, version, self._number) + text("penstock") + b"\0" * flexible
        self._wire.sendall(struct.pack(">i", len(head) + len(body)) + head + body)
        (size,) = struct.unpack(">i", self._read(4))
        if not 4 <= size <= bytes_max:
            raise ValueError(f"an answer of {size} bytes")
        answer = self._read(size)
        if struct.unpack_from(">i", answer) != (self._number,):
            raise ValueError("an answer to another question")
        return answer[4:]

    def _read(self, size: int) -> bytes:
        taken = bytearray()
        while len(taken) < size:
            piece = self._wire.recv(min(size - len(taken), _piece_bytes))
            if not piece:
                raise ValueError("the connection was closed")
            taken += piece
        return bytes(taken)


def _secured(plain: socket.socket, config: ClientConfig, host: str) -> socket.socket:
    if config.protocol not in ("SSL", "SASL_SSL"):
        return plain
    context = ssl.create_default_context(
        cafile=None if config.ca_file is None or config.ca_file.is_dir() else config.ca_file
    )
    if config.ca_file is not None and config.ca_file.is_dir():
        context.load_verify_locations(capath=config.ca_file)
    if config.certificate_file is not None:
        context.load_cert_chain(config.certificate_file, config.key_file, config.key_password)
    return context.wrap_socket(plain, server_hostname=host)


def _log_in(connection: Connection, config: ClientConfig) -> None:
    mechanism = config.mechanism or ""
    answer = connection.ask(_sasl_handshake, 1, text(mechanism))
    (code,) = struct.unpack_from(">h", answer)
    if code:
        raise ValueError(f"error {code} at login")
    username, password = config.username or "", config.password or ""
    if mechanism == "PLAIN":
        _authenticate(connection, f"\0{username}\0{password}".encode())
        return
    if mechanism == "OAUTHBEARER":
        _authenticate(connection, f"n,,\1auth=Bearer {_token(config)}\1\1".encode())
        return
    _scram(connection, mechanism.removeprefix("SCRAM-").replace("-", "").lower(), username, password)


def _token(config: ClientConfig) -> str:
    """A new one by the client-credentials grant, as librdkafka fetches its own."""
    import httpx  # slow to load, and most have no token server

    asked = {"grant_type": "client_credentials"} | (
        {"scope": config.oauth_scope} if config.oauth_scope else {}
    )
    login = httpx.BasicAuth(config.oauth_client_id or "", config.oauth_client_secret or "")
    try:
        answer = httpx.post(config.oauth_token_url or "", data=asked, auth=login, timeout=timeout_s)
        token = answer.json()["access_token"] if answer.is_success else None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"no token: {type(error).__name__}") from error
    if not isinstance(token, str) or len(token) > token_bytes_max:
        raise ValueError(f"no token: the token server answers {answer.status_code}")
    return token


def _scram(connection: Connection, digest: str, username: str, password: str) -> None:
    """RFC 5802, without channel binding, as Kafka speaks it; the server's proof is checked as well."""
    nonce = secrets.token_urlsafe(24)
    name = username.replace("=", "=3D").replace(",", "=2C")
    bare = f"n={name},r={nonce}"
    first = _authenticate(connection, f"n,,{bare}".encode()).decode()
    told = dict(part.split("=", 1) for part in first.split(","))
    rounds = int(told["i"])
    if not told["r"].startswith(nonce) or not 1 <= rounds <= iterations_max:
        raise ValueError("a login that does not follow SCRAM")
    salted = hashlib.pbkdf2_hmac(digest, password.encode(), base64.b64decode(told["s"]), rounds)
    client_key = hmac.digest(salted, b"Client Key", digest)
    final = f"c=biws,r={told['r']}"
    whole = f"{bare},{first},{final}".encode()
    signature = hmac.digest(hashlib.new(digest, client_key).digest(), whole, digest)
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    last = _authenticate(connection, f"{final},p={base64.b64encode(proof).decode()}".encode()).decode()
    expected = hmac.digest(hmac.digest(salted, b"Server Key", digest), whole, digest)
    if last.split(",")[0] != f"v={base64.b64encode(expected).decode()}":
        raise ValueError("a server that does not know the password")


def _authenticate(connection: Connection, payload: bytes) -> bytes:
    answer = connection.ask(_sasl_authenticate, 0, struct.pack(">i", len(payload)) + payload)
    code, length = struct.unpack_from(">hh", answer)
    place = 4 + max(length, 0)
    if code:
        raise ValueError(f"error {code} at login")
    (size,) = struct.unpack_from(">i", answer, place)
    return answer[place + 4 : place + 4 + size]


def text(said: str) -> bytes:
    """A string as it stands in a message: its length in two bytes, then itself."""
    data = said.encode()
    return struct.pack(">h", len(data)) + data


def host_and_port(server: str) -> tuple[str, int]:
    """Of a bootstrap address as the client library takes it: the port may be left out, a protocol may stand before it, and an
    IPv6 address stands in brackets. Raises UnavailableError."""
    address = server.strip().rpartition("://")[2]
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        host, port = address, str(_default_port)
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) <= _port_max):
        raise UnavailableError(f"no port in the address {server.strip()}")
    return host.strip("[]"), int(port)
