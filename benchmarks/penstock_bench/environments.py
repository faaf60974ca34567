"""An environment of its own for each rival: Java by Maven, Python by uv, made once and kept in the cache."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from penstock.connectors.embedded.jars import cache_folder
from penstock.schemas.errors import ConfigError
from penstock_bench import folder

sources: Final = folder
build_timeout_s: Final = 900.0
_made: Final = "made"


def java_rivals(announce: Callable[[str], None], environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of the rivals in Java and of all that they need, built by Maven the first time.

    Raises ConfigError in one sentence when that cannot be.
    """
    maven = shutil.which("mvn", path=environ.get("PATH", ""))
    if maven is None:
        raise ConfigError("the rivals in Java are built by Maven, and there is none here")
    if shutil.which("javac", path=environ.get("PATH", "")) is None:
        raise ConfigError("the rivals in Java need a JDK, and there is none here")

    def build(folder: Path) -> None:
        work = folder / "work"
        shutil.copytree(sources / "java", work, ignore=shutil.ignore_patterns("target"))
        command = [
            maven,
            "--batch-mode",
            "--quiet",
            "--strict-checksums",
            "--file",
            str(work / "pom.xml"),
            "package",
        ]
        _run(command, "Maven could not build the rivals in Java", environ)
        (work / "target" / "lib").rename(folder / "lib")
        (work / "target" / "rivals.jar").rename(folder / "lib" / "rivals.jar")
        shutil.rmtree(work)

    return _cached("java", build, announce, environ) / "lib"


def python_of(name: str, announce: Callable[[str], None], environ: Mapping[str, str] = os.environ) -> Path:
    """The interpreter of a rival's own virtual environment, made by uv from its requirements the first time.

    Raises ConfigError in one sentence when that cannot be.
    """
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.is_file() else shutil.which("uv", path=environ.get("PATH", ""))
    if uv is None:
        raise ConfigError(f"the environment of {name} is made by uv, and there is none here")

    def build(folder: Path) -> None:
        python = folder / "bin" / "python"
        failed = f"uv could not make the environment of {name}"
        _run(
            [uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(folder)],
            failed,
            environ,
        )
        requirements = sources / name / "requirements.txt"
        _run(
            [uv, "pip", "install", "--quiet", "--python", str(python), "-r", str(requirements)],
            failed,
            environ,
        )

    return _cached(name, build, announce, environ) / "bin" / "python"


def _cached(
    name: str, build: Callable[[Path], None], announce: Callable[[str], None], environ: Mapping[str, str]
) -> Path:
    """The folder that `build` fills in place (an environment cannot be moved), known as whole by a file written last."""
    folder = cache_folder(environ) / "peers" / f"{name}-{_digest(sources / name)}"
    if (folder / _made).exists():
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder.parent / f"{folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / _made).exists():
                announce(f"making the environment of {name}, once ...")
                shutil.rmtree(folder)
                folder.mkdir()
                build(folder)
                (folder / _made).touch()
    except OSError as error:
        raise ConfigError(f"cannot keep the environment of {name} in {folder}: {error.strerror}") from error
    return folder


def _digest(folder: Path) -> str:
    """Of all that an environment is made from."""
    if not folder.is_dir():
        raise ConfigError(
            f"{folder.name} needs the folder benchmarks of a clone, and this Penstock was installed without"
        )
    digest = hashlib.sha256(sys.version.encode())
    kinds = {".java", ".xml", ".txt"}
    for file in sorted(
        file for file in folder.rglob("*") if file.suffix in kinds and "target" not in file.parts
    ):
        digest.update(file.relative_to(folder).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _run(command: Sequence[str], failed: str, environ: Mapping[str, str]) -> None:
    try:
        done = subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=dict(environ),
            timeout=build_timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"{failed} in {build_timeout_s:g} s") from error
    if done.returncode != 0:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        errors = [line.removeprefix("[ERROR] ") for line in lines if "error" in line.lower() or "×" in line]
        raise ConfigError(f"{failed}: {' '.join((errors or lines or ['it said nothing'])[0].split())[:300]}")
