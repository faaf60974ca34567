"""Java and Kafka's jars on this machine: found, or fetched once by their Maven coordinates."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from penstock.schemas.errors import ConfigError

coordinates: Final = Path(__file__).with_name("kafka-jars.xml")
fetch_timeout_s: Final = 600.0


def find_java(environ: Mapping[str, str] = os.environ) -> Path:
    """The java of JAVA_HOME, else of the PATH. Raises ConfigError."""
    home = environ.get("JAVA_HOME")
    if home and (found := Path(home, "bin", "java")).is_file():
        return found
    if on_path := shutil.which("java", path=environ.get("PATH", "")):
        return Path(on_path)
    raise ConfigError(
        "the embedded Kafka needs Java 17 or newer, and there is none here: apt-get install default-jre-headless"
    )


def kafka_jars(announce: Callable[[str], None], environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of Kafka's jars, downloaded with Maven the first time (43 MB, seconds); `announce` is called before that.

    They are kept under PENSTOCK_CACHE, by default ~/.cache/penstock, and shared by all processes: whoever comes while they
    are being fetched waits. Raises ConfigError when Maven is missing, or the jars cannot be had.
    """
    digest = hashlib.sha256(coordinates.read_bytes()).hexdigest()[:16]
    cache = cache_folder(environ)
    jars = cache / f"kafka-{digest}"
    if jars.is_dir():
        return jars
    maven = shutil.which("mvn", path=environ.get("PATH", ""))
    if maven is None:
        raise ConfigError(
            "Kafka's jars are fetched with Maven, and there is none here: apt-get install maven"
        )
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / f"kafka-{digest}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not jars.is_dir():
                announce("fetching Kafka's jars with Maven, once ...")
                _fetch(maven, jars, environ)
    except OSError as error:
        raise ConfigError(
            f"cannot keep Kafka's jars in {cache}: {error.strerror}; PENSTOCK_CACHE names another folder"
        ) from error
    return jars


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where what was fetched or built once is kept: PENSTOCK_CACHE, by default ~/.cache/penstock."""
    if chosen := environ.get("PENSTOCK_CACHE"):
        return Path(chosen).absolute()
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "penstock")


def _fetch(maven: str, jars: Path, environ: Mapping[str, str]) -> None:
    with tempfile.TemporaryDirectory(dir=jars.parent, prefix="fetching-") as scratch:
        target = Path(scratch, "jars")
        command = [
            maven, "--batch-mode", "--quiet", "--strict-checksums", "--file", str(coordinates),
            "dependency:copy-dependencies", f"-DoutputDirectory={target}", "-DincludeScope=runtime",
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=dict(environ),
                timeout=fetch_timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ConfigError(f"Maven did not fetch Kafka's jars in {fetch_timeout_s:g} s") from error
        if done.returncode != 0 or not any(target.glob("kafka_*.jar")):
            raise ConfigError(f"Maven could not fetch Kafka's jars: {_complaint(done.stdout)}")
        target.rename(jars)  # all of them or none


def _complaint(output: str) -> str:
    """The first error line of Maven's output, which says most."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("[ERROR]").strip() for line in lines if line.startswith("[ERROR]")]
    return (errors or lines or ["it said nothing"])[0][:400]
