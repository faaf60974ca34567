"""What a secured embedded Kafka needs: an authority, certificates, users with passwords, and settings for each way in.

Made with openssl, once a folder: the next start finds the same files. For trying things out; the keys have no password.
"""

import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from penstock.schemas.errors import ConfigError

openssl_timeout_s: Final = 30.0
days: Final = 825
users_made: Final = ("worker", "scaler", "operator")
scram_mechanisms: Final = ("SCRAM-SHA-256", "SCRAM-SHA-512")
mechanisms: Final = ("PLAIN", *scram_mechanisms, "OAUTHBEARER")
_curve: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class SecureFolder:
    """DIR of `penstock broker --secure DIR`.

    Holds ca.pem, broker.pem, for each user NAME.pem, NAME.key and NAME.password, and settings to copy from. Only the owner
    may read the keys and the passwords.
    """

    def __init__(self, folder: Path, users: Mapping[str, str] | None = None) -> None:
        """`users` are names and passwords; by default worker, scaler and operator with passwords of chance."""
        self.folder = folder.absolute()
        self._given = users
        self.users: dict[str, str] = {}

    def make(self) -> None:
        """Write what is missing. Raises ConfigError: no openssl, or the folder cannot be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in self._given or users_made:
                self.users[name] = self._password(name)
            if not (self.folder / "ca.pem").exists():
                self._openssl(
                    ["req", "-x509", *_curve, "-days", str(days), "-subj", "/CN=penstock-broker-authority"],
                    "ca",
                )
            if not (self.folder / "broker.pem").exists():
                self.issue("broker", common_name="localhost", addresses=("DNS:localhost", "IP:127.0.0.1"))
                chain = (self.folder / "broker.key").read_text() + (self.folder / "broker.pem").read_text()
                self._write("broker-store.pem", chain)
            for name in self.users:
                if not (self.folder / f"{name}.pem").exists():
                    self.issue(name, common_name=name)
        except OSError as error:
            raise ConfigError(f"cannot write {error.filename}: {error.strerror}") from error

    def issue(
        self, stem: str, *, common_name: str, addresses: Sequence[str] = (), valid_days: int = days
    ) -> None:
        """STEM.pem and STEM.key, signed by the folder's authority. With `valid_days` below 0 it has expired already."""
        request = self.folder / f"{stem}.csr"
        extra = ["-addext", f"subjectAltName={','.join(addresses)}"] if addresses else []
        self._openssl(["req", "-new", *_curve, "-subj", f"/CN={common_name}", *extra], stem, out=request)
        self._openssl(
            [
                "x509", "-req", "-in", str(request), "-CA", str(self.folder / "ca.pem"), "-CAkey", str(self.folder / "ca.key"),
                "-CAcreateserial", "-copy_extensions", "copy", "-days", str(valid_days),
            ],
            stem,
            keyout=False,
        )  # fmt: skip
        request.unlink()

    def write_settings(self, *, users_servers: str, certificates_servers: str) -> list[Path]:
        """A part of a penstock.yaml for each way in: kafka-scram.yaml, kafka-certificate.yaml."""
        name = next(iter(self.users))
        ways = {
            "kafka-scram.yaml": (
                f"  bootstrap_servers: {users_servers}\n"
                "  security:\n"
                "    protocol: SASL_SSL\n"
                "    mechanism: SCRAM-SHA-512\n"
                f"    username: {name}\n"
                f"    password_file: {self.folder / name}.password\n"
                f"    ca_file: {self.folder / 'ca.pem'}\n"
            ),
            "kafka-certificate.yaml": (
                f"  bootstrap_servers: {certificates_servers}\n"
                "  security:\n"
                "    protocol: SSL\n"
                f"    ca_file: {self.folder / 'ca.pem'}\n"
                f"    certificate_file: {self.folder / name}.pem\n"
                f"    key_file: {self.folder / name}.key\n"
            ),
        }
        for file, text in ways.items():
            self._write(file, "kafka:\n  group: my-group\n" + text)
        return [self.folder / file for file in ways]

    def properties(self) -> dict[str, str]:
        """The broker's own settings: listeners USERS (SASL_SSL, every mechanism) and CERTIFICATES (SSL, both sides)."""
        logins = " ".join(f'user_{name}="{password}"' for name, password in self.users.items())
        security = "org.apache.kafka.common.security"
        modules = {
            "plain": f"{security}.plain.PlainLoginModule required {logins};",
            "scram-sha-256": f"{security}.scram.ScramLoginModule required;",
            "scram-sha-512": f"{security}.scram.ScramLoginModule required;",
            # Kafka's development validator: it takes unsigned tokens, so that any token server will do.
            "oauthbearer": f'{security}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="kafka";',
        }
        made = {
            f"listener.name.users.{mechanism}.sasl.jaas.config": module
            for mechanism, module in modules.items()
        }
        for listener in ("users", "certificates"):
            made |= {
                f"listener.name.{listener}.ssl.keystore.type": "PEM",
                f"listener.name.{listener}.ssl.keystore.location": str(self.folder / "broker-store.pem"),
                f"listener.name.{listener}.ssl.truststore.type": "PEM",
                f"listener.name.{listener}.ssl.truststore.location": str(self.folder / "ca.pem"),
            }
        return made | {
            "listener.name.users.sasl.enabled.mechanisms": ",".join(mechanisms),
            "listener.name.certificates.ssl.client.auth": "required",
            "listener.name.certificates.ssl.principal.mapping.rules": "RULE:^CN=([^,]+).*$/$1/,DEFAULT",
        }

    def format_options(self) -> list[str]:
        """For StorageTool: the SCRAM users."""
        return [
            word
            for name, password in self.users.items()
            for mechanism in scram_mechanisms
            for word in ("--add-scram", f"{mechanism}=[name={name},password={password}]")
        ]

    def _password(self, name: str) -> str:
        path = self.folder / f"{name}.password"
        given = (self._given or {}).get(name)
        if given is None and path.exists():
            return path.read_text(encoding="utf-8")
        password = given or secrets.token_hex(16)
        self._write(path.name, password)
        return password

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)

    def _openssl(
        self, words: Sequence[str], stem: str, *, out: Path | None = None, keyout: bool = True
    ) -> None:
        openssl = shutil.which("openssl")
        if openssl is None:
            raise ConfigError(
                "a secured broker needs openssl, and there is none here: apt-get install openssl"
            )
        key = ["-keyout", str(self.folder / f"{stem}.key")] if keyout else []
        command = [openssl, *words, *key, "-out", str(out or self.folder / f"{stem}.pem")]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=openssl_timeout_s, check=False, umask=0o077
            )
        except subprocess.TimeoutExpired as error:
            raise ConfigError(f"openssl did not end within {openssl_timeout_s:g} s") from error
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or ["without a word"])[-1]
            raise ConfigError(f"openssl cannot make {stem}.pem: {said}")
