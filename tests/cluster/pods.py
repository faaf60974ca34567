"""Pods of the chart as processes of this machine: what their template says, with this machine's addresses and folders."""

import base64
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from penstock.connectors.embedded.cluster import free_ports
from tests.cluster.api import Api
from tests.cluster.names import Names

_probe_timeout_s: Final = 5.0
Object = dict[str, Any]


class Pod:
    """One container's process; its settings are the pod's ConfigMap, its files and variables the pod's Secrets."""

    def __init__(self, pod: Object, api: Api, folder: Path, hosts: Mapping[str, str], names: Names) -> None:
        """`hosts`: what the settings call a broker, and where it is. A scaler's service is pointed at this pod."""
        meta, spec = pod["metadata"], pod["spec"]
        self.name, self.component = meta["name"], meta["labels"]["app.kubernetes.io/component"]
        self._api, self._namespace = api, meta["namespace"]
        container = spec["containers"][0]
        room = folder / f"{self.name}-{meta['uid'][:8]}"
        room.mkdir(exist_ok=True)
        mounted = self._mounted(spec, container, room)
        command, path = container["args"]
        text = _moved((mounted["/etc/penstock"] / Path(path).name).read_text(), mounted)
        settings = yaml.safe_load(text)
        self._http, grpc = free_ports(2)
        settings["http"] |= {"host": "127.0.0.1", "port": self._http}
        settings["kafka"]["bootstrap_servers"] = hosts[settings["kafka"]["bootstrap_servers"]]
        service = f"{self.name.rsplit('-', 2)[0]}.{self._namespace}.svc:{settings['scaling']['port']}"
        settings["scaling"] |= {"host": "127.0.0.1", "port": grpc}
        file = room / "penstock.yaml"
        file.write_text(yaml.safe_dump(settings))
        with (folder / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "penstock", command, str(file)],
                env={**os.environ, **self._variables(pod, container, mounted)}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self._ready = False
        self._watch = threading.Thread(target=self._probe, daemon=True)
        self._done = threading.Event()
        self._watch.start()
        if self.component == "scaler":
            names.point(service, grpc)

    def is_ready(self) -> bool:
        """As /ready said last."""
        return self._ready

    def ended(self) -> bool:
        """Whether its process is gone."""
        return self._process.poll() is not None

    @property
    def code(self) -> int | None:
        """With what it ended."""
        return self._process.poll()

    def terminate(self) -> None:
        """SIGTERM."""
        self._done.set()
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL where it has not ended by itself within 30 s."""
        self._done.set()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _probe(self) -> None:
        while not self._done.wait(0.5):
            try:
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{self._http}/ready", timeout=_probe_timeout_s
                ) as answer:
                    self._ready = answer.status == 200
            except OSError:
                self._ready = False

    def _mounted(self, spec: Object, container: Object, room: Path) -> dict[str, Path]:
        """Folder by mount path, for what comes from ConfigMaps and Secrets."""
        volumes, found = {volume["name"]: volume for volume in spec["volumes"]}, {}
        for mount in container["volumeMounts"]:
            volume = volumes[mount["name"]]
            if "configMap" in volume:
                files = self._api.get("ConfigMap", volume["configMap"]["name"], self._namespace)["data"]
            elif "secret" in volume:
                files = self._secret(volume["secret"]["secretName"])
            else:
                continue
            folder = room / mount["name"]
            folder.mkdir(exist_ok=True)
            for name, text in files.items():
                (folder / name).write_text(text)
                (folder / name).chmod(0o600)
            found[mount["mountPath"]] = folder
        return found

    def _variables(self, pod: Object, container: Object, mounted: Mapping[str, Path]) -> dict[str, str]:
        found: dict[str, str] = {}
        for source in container.get("envFrom", ()):
            found |= self._secret(source["secretRef"]["name"])
        for each in container["env"]:
            if "value" in each:
                found[each["name"]] = _moved(each["value"], mounted)
            else:
                assert each["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
                found[each["name"]] = pod["metadata"]["name"]
        return found

    def _secret(self, name: str) -> dict[str, str]:
        data = self._api.get("Secret", name, self._namespace)["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}


def _moved(text: str, mounted: Mapping[str, Path]) -> str:
    for there, here in mounted.items():
        text = text.replace(f"{there}/", f"{here}/")
    return text
