"""The examples as their READMEs tell to run them: the commands in order, as written, in a copy of the folder."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

root = Path(__file__).parents[1]
stop_patience_s = 30.0
services = ("penstock run ", "python app.py worker ")  # what a README starts in a terminal of its own


def blocks(example: str, kind: str) -> list[str]:
    """The fenced blocks of an example's README."""
    readme = (root / "examples" / example / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{kind}\n(.*?)```", readme, flags=re.DOTALL)


def commands(example: str) -> list[str]:
    """The commands of an example's README, in order."""
    return [line for block in blocks(example, "sh") for line in block.splitlines()]


class Service:
    """What a README starts in a terminal of its own."""

    def __init__(self, command: str, *, folder: Path, environ: dict[str, str], log: Path) -> None:
        self.command, self._folder, self._environ, self.log = command, folder, environ, log
        self._process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as output:
            return subprocess.Popen(
                ["bash", "-c", f"exec {self.command}"], cwd=self._folder, env=self._environ,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip

    def stop(self) -> None:
        """Ends it by SIGTERM, and asserts that it ends well."""
        self._process.terminate()
        try:
            self._process.wait(stop_patience_s)
        finally:
            self._process.kill()
            self._process.wait()
        assert self._process.returncode == 0, f"{self.command}\n{self.log.read_text(errors='replace')}"

    def restart(self) -> None:
        """Once more."""
        self.stop()
        self._process = self._start()


class Examples:
    """A copy of examples/ that a user works in, with a broker."""

    def __init__(self, folder: Path, bootstrap_servers: str) -> None:
        left_out = shutil.ignore_patterns("__pycache__", "models", "*-data", "*.sqlite")
        shutil.copytree(root / "examples", folder, ignore=left_out)
        self.folder = folder
        self.services: list[Service] = []
        self._environ = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PENSTOCK_KAFKA__BOOTSTRAP_SERVERS": bootstrap_servers,
            "PENSTOCK_HTTP__PORT": "0",
        }

    def follow(self, example: str, *, before: Callable[[str], None] = lambda command: None) -> dict[str, str]:
        """Runs an example's README; what each command printed. `before` is called ahead of each command."""
        printed = {}
        with ExitStack() as held:
            for command in commands(example):
                before(command)
                if command.startswith(services):
                    log = self.folder / f"{len(self.services)}.log"
                    service = Service(command, folder=self.folder / example, environ=self._environ, log=log)
                    held.callback(service.stop)
                    self.services.append(service)
                else:
                    printed[command] = self._run(example, command)
        return printed

    def _run(self, example: str, command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder / example, env=self._environ,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        logs = "".join(f"\n{each.command}:\n{each.log.read_text(errors='replace')}" for each in self.services)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}{logs}"
        return done.stdout
