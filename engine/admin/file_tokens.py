"""Bearer tokens that stand in files."""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.engine.admin.callers import Caller, Role
from penstock.engine.settings.secret_file import read_secret_bytes
from penstock.schemas.errors import ConfigError

characters_min: Final = 32
characters_max: Final = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class FileToken:
    """One token, and who it stands for."""

    name: str
    role: Role
    file: Path


class FileTokens:
    """Compares in constant time, against every token: how long it takes tells nothing."""

    def __init__(self, tokens: Sequence[FileToken]) -> None:
        """Raises ConfigError for a file that cannot be read or holds no token."""
        self._tokens = tokens
        found = [read_secret(token.file, what=f"the admin token {token.name}") for token in tokens]
        if len(set(found)) != len(found):
            raise ConfigError("two files of admin.tokens hold the same token")

    def caller(self, token: str) -> Caller | None:
        """Whose token it is; files are read again, so that a token can be exchanged while we run. None: nobody's."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        caller = None
        for each in self._tokens:
            try:
                known = read_secret(each.file, what="")
            except ConfigError:  # between two tokens: nobody is let in with this one
                continue
            if hmac.compare_digest(hashlib.sha256(known.encode()).digest(), digest):
                caller = Caller(name=each.name, way="token", role=each.role)
        return caller


def read_secret(file: Path, *, what: str) -> str:
    """A secret of one line. Raises ConfigError, which quotes nothing of it."""
    try:
        data = read_secret_bytes(file, characters_max + 3)
    except OSError as error:
        raise ConfigError(f"cannot read {what} in {file}: {error.strerror}") from error
    text = data.removesuffix(b"\n").removesuffix(b"\r")
    if not text.isascii() or not all(33 <= byte <= 126 for byte in text):
        raise ConfigError(f"{what} in {file} has to be one line of printable ASCII without blanks")
    if not characters_min <= len(text) <= characters_max:
        raise ConfigError(
            f"{what} in {file} has {len(text)} characters; it needs {characters_min} to {characters_max}: openssl rand -hex 32"
        )
    return text.decode("ascii")
