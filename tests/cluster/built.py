"""The programs of a cluster, built once from the Go modules that go/go.mod names, and kept under PENSTOCK_CACHE.

`python -m tests.cluster.built` builds what is missing and prints where it lies: 20 minutes on two idle cores, the first time.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.connectors.embedded.jars import cache_folder

module: Final = Path(__file__).with_name("go")
_parts: Final = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "helm": "helm.sh/helm/v3",
    "kubernetes": "k8s.io/kubernetes",
    "keda": "github.com/kedacore/keda/v2",
}
_commands: Final = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "helm": "helm.sh/helm/v3/cmd/helm",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "keda-operator": "github.com/kedacore/keda/v2/cmd/operator",
    "keda-adapter": "github.com/kedacore/keda/v2/cmd/adapter",
    "keda-client": "./kedaclient",
}
_build_timeout_s: Final = 7200.0


class BuildError(Exception):
    """The programs cannot be had here; one sentence."""


@dataclass(frozen=True, kw_only=True)
class Programs:
    """Where each program lies, and of what it was built."""

    folder: Path
    versions: dict[str, str]
    keda_source: Path

    def __getitem__(self, name: str) -> str:
        assert name in _commands, name
        return str(self.folder / name)


def versions() -> dict[str, str]:
    """Version by part, as go.mod has them."""
    text = (module / "go.mod").read_text()
    return {
        part: re.search(rf"^\t{re.escape(path)} v(\S+)$", text, re.M)[1]  # type: ignore[index]
        for part, path in _parts.items()
    }


def programs(announce: Callable[[str], None]) -> Programs:
    """All of them; whoever comes while they are being built waits. Raises BuildError."""
    go = shutil.which("go")
    if go is None:
        raise BuildError(
            "a cluster is built from Go modules, and there is no Go here: install Go 1.26 or newer"
        )
    found = versions()
    sources = b"".join(
        path.read_bytes() for path in sorted(module.rglob("*")) if path.suffix in (".mod", ".sum", ".go")
    )
    stem = "-".join(f"{part}-{version}" for part, version in found.items())
    folder = cache_folder() / "cluster" / f"{stem}-{hashlib.sha256(sources).hexdigest()[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name, package in _commands.items():
            if not (folder / name).exists():
                announce(f"building {name} ...")
                began_s = time.monotonic()
                _build(go, package, folder / name, found)
                announce(f"built {name} in {time.monotonic() - began_s:.0f} s")
    source = _call(go, "list", "-m", "-f", "{{.Dir}}", _parts["keda"]).strip()
    return Programs(folder=folder, versions=found, keda_source=Path(source))


def _build(go: str, package: str, target: Path, found: dict[str, str]) -> None:
    major, minor, _ = found["kubernetes"].split(".")
    version = "k8s.io/component-base/version"
    flags = (
        f"-s -w -X {version}.gitVersion=v{found['kubernetes']} -X {version}.gitMajor={major} -X {version}.gitMinor={minor} "
        f"-X helm.sh/helm/v3/internal/version.version=v{found['helm']}"
    )
    scratch = target.with_suffix(".new")
    _call(go, "build", "-p", "2", "-ldflags", flags, "-o", str(scratch), package)
    scratch.rename(target)


def _call(go: str, *arguments: str) -> str:
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -mod=readonly"}
    try:
        done = subprocess.run(
            [go, *arguments], cwd=module, env=environment, capture_output=True, text=True, timeout=_build_timeout_s, check=False
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"go {arguments[0]} did not end within {_build_timeout_s:g} s") from error
    if done.returncode:
        raise BuildError(f"go {arguments[0]} failed: {' '.join(done.stderr.split())[-600:]}")
    return done.stdout


def main() -> int:
    """Build, and print where."""
    try:
        made = programs(lambda line: print(line, file=sys.stderr, flush=True))
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    print(made.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
