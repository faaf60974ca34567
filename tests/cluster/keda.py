"""KEDA's operator and adapter on the control plane, and its client in a program of its own."""

import json
import queue
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from penstock.connectors.embedded.cluster import free_ports
from tests.cluster.api import await_
from tests.cluster.built import Programs
from tests.cluster.names import Names
from tests.cluster.plane import ControlPlane

_answer_timeout_s: Final = 60.0
metric: Final = "s0-penstock-required-replicas"


def start_keda(plane: ControlPlane, names: Names) -> None:
    """Operator, adapter and the external metrics' APIService, until the plane ends; returns when metrics are served."""
    folder = plane.folder / "keda"
    folder.mkdir()
    grpc_port, metrics_port, probe_port, adapter_port, adapter_metrics_port = free_ports(5)
    certificate, key = plane.certificate("keda", common_name="keda-operator", addresses=(
        "DNS:keda-operator.keda.svc", "DNS:keda-metrics-apiserver.keda.svc", "IP:127.0.0.1"))  # fmt: skip
    for source, target in ((certificate, "tls.crt"), (key, "tls.key"), (plane.ca, "ca.crt")):
        (folder / target).write_bytes(source.read_bytes())
    plane.api.make_namespace("keda", restricted=False)
    environment = {
        "KUBECONFIG": str(plane.kubeconfig), "POD_NAMESPACE": "keda", "WATCH_NAMESPACE": "", "POD_NAME": "keda-operator",
        "KEDA_CLUSTER_OBJECT_NAMESPACE": "keda",
    }  # fmt: skip
    plane.start("keda-operator", [
        plane.programs["keda-operator"], "--leader-elect=false", f"--cert-dir={folder}",
        f"--metrics-service-bind-address=127.0.0.1:{grpc_port}", f"--metrics-bind-address=127.0.0.1:{metrics_port}",
        f"--health-probe-bind-address=127.0.0.1:{probe_port}", "--enable-apiservice-patching=false", "--enable-webhook-patching=false",
    ], environment | names.environment)  # fmt: skip
    plane.start("keda-adapter", [
        plane.programs["keda-adapter"], f"--kubeconfig={plane.kubeconfig}", f"--lister-kubeconfig={plane.kubeconfig}",
        f"--authentication-kubeconfig={plane.kubeconfig}", f"--authorization-kubeconfig={plane.kubeconfig}",
        "--bind-address=127.0.0.1", f"--secure-port={adapter_port}", f"--port={adapter_metrics_port}",
        f"--metrics-service-address=127.0.0.1:{grpc_port}", "--metrics-service-grpc-authority=keda-operator.keda.svc",
        f"--cert-dir={folder}", f"--tls-cert-file={folder / 'tls.crt'}", f"--tls-private-key-file={folder / 'tls.key'}",
        f"--client-ca-file={plane.ca}",
    ], environment)  # fmt: skip
    plane.api.make("Service", {
        "metadata": {"name": "keda-metrics-apiserver"},
        "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": adapter_port}]},
    }, "keda")  # fmt: skip
    plane.api.make("APIService", {
        "metadata": {"name": "v1beta1.external.metrics.k8s.io"},
        "spec": {
            "service": {"name": "keda-metrics-apiserver", "namespace": "keda", "port": adapter_port},
            "group": "external.metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "insecureSkipTLSVerify": True,  # localhost is not the service's name
        },
    })  # fmt: skip

    def serves() -> bool:
        for process in plane.processes:
            process.require_alive()
        return bool(
            plane.api.call("GET", "/apis/external.metrics.k8s.io/v1beta1").get("kind") == "APIResourceList"
        )

    await_(serves, 120, "KEDA's metrics")


class KedaClient:
    """The program go/kedaclient, with a trigger."""

    def __init__(
        self, programs: Programs, metadata: dict[str, str], auth: dict[str, str] | None = None
    ) -> None:
        self._process = subprocess.Popen(
            [programs["keda-client"]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self.all: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self._write(json.dumps({"metadata": metadata, "auth": auth or {}}))

    def __enter__(self) -> "KedaClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(10)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def specs(self) -> list[dict[str, Any]]:
        """GetMetricSpecForScaling: what the autoscaler is given."""
        self._write("specs")
        found: list[dict[str, Any]] = self.next("specs")["specs"] or []
        return found

    def metrics(self, name: str = metric) -> dict[str, Any]:
        """GetMetricsAndActivity: values, active, took_ms, and error where there is one."""
        self._write(f"metrics {name}")
        return self.next("metrics")

    def run(self) -> None:
        """Run: from now on there are answers called active."""
        self._write("run")
        self.next("running")

    def next(self, what: str, timeout_s: float = _answer_timeout_s) -> dict[str, Any]:
        """The next answer of this name; those of others before it are in `all` alone."""
        end_s = time.monotonic() + timeout_s
        while True:
            try:
                line = self._lines.get(timeout=max(end_s - time.monotonic(), 0.0))
            except queue.Empty:
                raise AssertionError(f"no {what} within {timeout_s:g} s; before: {self.all[-5:]}") from None
            if line["what"] == what:
                return line

    def errors(self) -> list[str]:
        """What KEDA's code has written into its log as an error."""
        logs = [json.loads(line["line"]) for line in self.all if line["what"] == "log"]
        return [f"{each['msg']}: {each['error']}" for each in logs if "error" in each]

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            try:
                line = json.loads(text)
            except ValueError:
                line = {"what": "broken", "text": text}
            self.all.append(line)
            self._lines.put(line)


def pem(path: Path) -> str:
    """As a TriggerAuthentication hands it over."""
    return path.read_text()
