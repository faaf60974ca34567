"""A Kubernetes control plane of this machine: etcd, API server, controllers. No scheduler and no kubelet: see node.py."""

import os
import secrets
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from penstock.connectors.embedded.cluster import free_ports
from penstock.connectors.embedded.secured import SecureFolder
from tests.cluster.api import Api, await_
from tests.cluster.built import Programs

start_timeout_s: Final = 180.0  # of a machine that does much else
stop_timeout_s: Final = 20.0


class Process:
    """A program of the cluster, with its log."""

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name, self.log = name, folder / f"{name}.log"
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, **(environment or {})}
            )  # fmt: skip

    def require_alive(self) -> None:
        """Raises AssertionError with the end of its log."""
        if self._process.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self._process.returncode}\n{self.said()}")

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-3000:]

    def memory_mb(self) -> int:
        """What it holds now."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) // 1024

    def close(self) -> None:
        """SIGTERM, then SIGKILL."""
        self._process.terminate()
        try:
            self._process.wait(stop_timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class ControlPlane:
    """Runs from `with` to its end; `folder` holds logs, certificates and kubeconfig."""

    def __init__(self, programs: Programs, folder: Path) -> None:
        self.programs, self.folder = programs, folder
        self.kubeconfig = folder / "kubeconfig"
        self.authority = SecureFolder(folder / "authority", users={})
        self.processes: list[Process] = []
        self.start_s = 0.0
        self._held = ExitStack()

    def __enter__(self) -> "ControlPlane":
        began_s = time.monotonic()
        try:
            self._start()
        except BaseException:
            self._held.close()
            raise
        self.start_s = time.monotonic() - began_s
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def certificate(self, stem: str, *, common_name: str, addresses: Sequence[str] = ()) -> tuple[Path, Path]:
        """A certificate and its key, signed by the cluster's authority."""
        self.authority.issue(stem, common_name=common_name, addresses=addresses)
        return self.authority.folder / f"{stem}.pem", self.authority.folder / f"{stem}.key"

    @property
    def ca(self) -> Path:
        """The authority's certificate."""
        return self.authority.folder / "ca.pem"

    def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> Process:
        """Run a program until the cluster ends."""
        process = Process(name, command, self.folder, environment)
        self._held.callback(process.close)
        self.processes.append(process)
        return process

    def _start(self) -> None:
        self.authority.make()
        accounts, account_keys = self._account_keys()
        etcd_port, peer_port, port, manager_port = free_ports(4)
        etcd_url, peer_url = f"http://127.0.0.1:{etcd_port}", f"http://127.0.0.1:{peer_port}"
        self.start("etcd", [
            self.programs["etcd"], "--name=one", f"--data-dir={self.folder / 'etcd'}", "--unsafe-no-fsync", "--log-level=warn",
            f"--listen-client-urls={etcd_url}", f"--advertise-client-urls={etcd_url}",
            f"--listen-peer-urls={peer_url}", f"--initial-advertise-peer-urls={peer_url}", f"--initial-cluster=one={peer_url}",
        ])  # fmt: skip
        token = secrets.token_hex(16)
        (self.folder / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
        certificate, key = self.certificate("apiserver", common_name="kube-apiserver", addresses=("IP:127.0.0.1", "DNS:localhost"))  # fmt: skip
        front, front_key = self.certificate("front-proxy", common_name="front-proxy")
        # It is told to stop before etcd, by being started after it: without one it waits for a minute.
        server = self.start("kube-apiserver", [
            self.programs["kube-apiserver"], f"--etcd-servers={etcd_url}", "--bind-address=127.0.0.1", f"--secure-port={port}",
            "--advertise-address=127.0.0.1", f"--tls-cert-file={certificate}", f"--tls-private-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={accounts}",
            f"--service-account-signing-key-file={account_keys}", "--service-cluster-ip-range=10.0.0.0/16",
            f"--token-auth-file={self.folder / 'tokens.csv'}", "--authorization-mode=RBAC", "--endpoint-reconciler-type=none",
            f"--requestheader-client-ca-file={self.ca}", "--requestheader-allowed-names=front-proxy",
            "--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={front}", f"--proxy-client-key-file={front_key}",
        ])  # fmt: skip
        self._write_kubeconfig(f"https://127.0.0.1:{port}", token)
        self.api = Api(f"https://127.0.0.1:{port}", token, self.ca)

        def is_ready() -> bool:
            for process in self.processes:
                process.require_alive()
            return bool(self.api.call("GET", "/readyz") == "ok")

        await_(is_ready, start_timeout_s, f"the API server, which said: {server.log}")
        manager, manager_key = self.certificate("controllers", common_name="localhost", addresses=("IP:127.0.0.1",))  # fmt: skip
        self.start("kube-controller-manager", [
            self.programs["kube-controller-manager"], f"--kubeconfig={self.kubeconfig}", "--leader-elect=false",
            "--bind-address=127.0.0.1", f"--secure-port={manager_port}", f"--tls-cert-file={manager}",
            f"--tls-private-key-file={manager_key}", f"--service-account-private-key-file={account_keys}", f"--root-ca-file={self.ca}",
        ])  # fmt: skip
        await_(lambda: self.api.find("ServiceAccount", "default", "default"), start_timeout_s, "the controllers' first work")  # fmt: skip

    def _account_keys(self) -> tuple[Path, Path]:
        public, private = self.folder / "accounts.pub", self.folder / "accounts.key"
        for arguments in (["genrsa", "-out", str(private), "2048"], ["rsa", "-in", str(private), "-pubout", "-out", str(public)]):  # fmt: skip
            subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)
        return public, private

    def _write_kubeconfig(self, server: str, token: str) -> None:
        self.kubeconfig.write_text(
            f"""apiVersion: v1
kind: Config
current-context: here
clusters: [{{name: here, cluster: {{server: "{server}", certificate-authority: "{self.ca}"}}}}]
users: [{{name: admin, user: {{token: {token}}}}}]
contexts: [{{name: here, context: {{cluster: here, user: admin}}}}]
"""
        )
        self.kubeconfig.chmod(0o600)
