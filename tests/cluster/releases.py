"""Helm, on the cluster and by its command line, as a platform team uses it."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Final

from tests.cluster.plane import ControlPlane

chart: Final = Path(__file__).parents[2] / "deploy" / "helm" / "penstock"
_timeout_s: Final = 120.0

Values = dict[str, Any]


class Helm:
    """One namespace's releases."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.namespace = namespace
        self._plane = plane

    def call(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Whatever it says, of success or not."""
        home = str(self._plane.folder / "helm")
        places = {f"HELM_{what}_HOME": home for what in ("CACHE", "CONFIG", "DATA")}
        return subprocess.run(
            [self._plane.programs["helm"], *arguments, "--kubeconfig", str(self._plane.kubeconfig), "-n", self.namespace],
            env={**os.environ, **places}, capture_output=True, text=True, timeout=_timeout_s, check=False,
        )  # fmt: skip

    def try_install(self, release: str, values: Values, *more: str) -> "subprocess.CompletedProcess[str]":
        """`helm install`, which may be refused."""
        return self.call("install", release, str(chart), "-f", str(self._written(release, values)), *more)

    def install(self, release: str, values: Values) -> None:
        """`helm install`. Raises AssertionError with what it said."""
        self._require(self.try_install(release, values))

    def upgrade(self, release: str, values: Values) -> None:
        """`helm upgrade` to these values, and none of before."""
        self._require(self.call("upgrade", release, str(chart), "--reset-values", "-f", str(self._written(release, values))))  # fmt: skip

    def rollback(self, release: str, revision: int) -> None:
        """`helm rollback`."""
        self._require(self.call("rollback", release, str(revision)))

    def uninstall(self, release: str) -> None:
        """`helm uninstall`."""
        self._require(self.call("uninstall", release))

    def history(self, release: str) -> list[tuple[int, str]]:
        """Revision and state of each."""
        done = self.call("history", release, "-o", "json")
        self._require(done)
        return [(each["revision"], each["status"]) for each in json.loads(done.stdout)]

    def _written(self, release: str, values: Values) -> Path:
        file = self._plane.folder / f"{self.namespace}-{release}.values.json"
        file.write_text(json.dumps(values))
        return file

    def _require(self, done: "subprocess.CompletedProcess[str]") -> None:
        assert done.returncode == 0, done.stderr or done.stdout
