"""The jars of the embedded broker: fetched once by Maven, kept in a cache that every checkout shares."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path

from schemas.errors import ConfigError

java_least = 17
fetch_timeout_s = 600.0


def cache_folder() -> Path:
    """Where downloads are kept: PENSTOCK_CACHE, else .cache/penstock in the home folder."""
    return Path(os.environ.get("PENSTOCK_CACHE") or Path.home() / ".cache" / "penstock")


def find_java() -> str:
    """The java to run. Raises ConfigError with one sentence when there is none, or it is too old."""
    home = os.environ.get("JAVA_HOME")
    java = (
        str(Path(home, "bin", "java"))
        if home and Path(home, "bin", "java").exists()
        else shutil.which("java")
    )
    if java is None:
        raise ConfigError(
            f"Kafka needs Java {java_least} or newer: apt-get install openjdk-{java_least}-jre-headless"
        )
    said = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=False).stderr
    version = said.partition('"')[2].partition('"')[0]
    major = version.partition(".")[0]
    if not major.isdigit() or int(major) < java_least:
        raise ConfigError(
            f"Kafka needs Java {java_least} or newer, and {java} is {version or 'something else'}: "
            f"apt-get install openjdk-{java_least}-jre-headless"
        )
    return java


def kafka_jars(say: Callable[[str], None] = lambda _: None) -> Path:
    """The folder of jars, fetched when it is not there yet. Raises ConfigError: no Maven, or Maven's own error."""
    pom = files("connectors").joinpath("kafka-jars.xml")
    digest = hashlib.sha256(pom.read_bytes()).hexdigest()[:16]
    folder = cache_folder() / f"kafka-jars-{digest}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "kafka-jars.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several that start at once, one fetches
        if not folder.is_dir():
            say("fetching Apache Kafka's jars (43 MB, once) ...")
            with as_file(pom) as pom_path:
                _fetch(pom_path, folder)
    return folder


def _fetch(pom: Path, folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise ConfigError("fetching Apache Kafka needs Maven, once: apt-get install maven")
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        own_pom = Path(
            work, "pom.xml"
        )  # Maven wants to write beside the pom, which may stand in a read-only place
        shutil.copyfile(pom, own_pom)
        command = [
            maven,
            "-q",
            "-B",
            "-f",
            str(own_pom),
            "dependency:copy-dependencies",
            f"-DoutputDirectory={work}/jars",
        ]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=fetch_timeout_s, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ConfigError(f"Maven did not fetch Apache Kafka within {fetch_timeout_s:.0f} s") from error
        if done.returncode != 0:
            lines = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line]
            raise ConfigError(
                f"Maven could not fetch Apache Kafka: {lines[0] if lines else done.stderr[-300:]}"
            )
        Path(work, "jars").rename(folder)
