"""The examples as their READMEs tell to run them: the commands in order, as written, in a copy of the folder."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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


class Examples:
    """A copy of examples/ that a user works in, with a broker."""

    def __init__(self, folder: Path, bootstrap_servers: str) -> None:
        shutil.copytree(
            root / "examples", folder, ignore=shutil.ignore_patterns("__pycache__", "models", "*.sqlite")
        )
        self.folder = folder
        self.logs: list[Path] = []
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
                    held.enter_context(self._service(example, command))
                else:
                    printed[command] = self._run(example, command)
        return printed

    def _run(self, example: str, command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder / example, env=self._environ,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        logs = "".join(f"\n{log.name}:\n{log.read_text(errors='replace')}" for log in self.logs)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}{logs}"
        return done.stdout

    @contextmanager
    def _service(self, example: str, command: str) -> Iterator[None]:
        log = self.folder / f"{len(self.logs)}.log"
        self.logs.append(log)
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"], cwd=self.folder / example, env=self._environ,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(stop_patience_s)
            finally:
                process.kill()
                process.wait()
        assert process.returncode == 0, f"{command}\n{log.read_text(errors='replace')}"
