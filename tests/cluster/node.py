"""A node of the cluster that stands in for scheduler and kubelet: pods become ready, and may be processes of this machine.

It binds every pod, says that it runs, and on deletion ends it with SIGTERM within the pod's grace before the name is free for
the next: as a kubelet does. What it does not do: images, volumes, networks, probes.
"""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from tests.cluster.api import Api, RefusedError

name: Final = "here"
_turn_s: Final = 0.2
_beat_s: Final = 5.0

Object = dict[str, Any]


class Running(Protocol):
    """A pod's process."""

    def is_ready(self) -> bool:
        """As its readiness probe has it."""
        ...

    def ended(self) -> bool:
        """Whether it is gone."""
        ...

    def terminate(self) -> None:
        """SIGTERM."""
        ...

    def kill(self) -> None:
        """SIGKILL, and wait."""
        ...


class Nothing:
    """A pod that runs nothing and is ready at once."""

    def __init__(self) -> None:
        self._told = False

    def is_ready(self) -> bool:
        """Always."""
        return True

    def ended(self) -> bool:
        """Once it is told to."""
        return self._told

    def terminate(self) -> None:
        """End."""
        self._told = True

    kill = terminate


class Node:
    """Serves the pods of some namespaces from `with` to its end; `start` runs a pod."""

    def __init__(self, api: Api, *namespaces: str, start: Callable[[Object], Running] | None = None) -> None:
        self._api, self._namespaces = api, namespaces
        self._run = start or (lambda pod: Nothing())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._pods: dict[str, Running] = {}
        self._killed_at_s: dict[str, float] = {}
        self.faults: list[str] = []
        self.forced = 0
        self.most = 0

    def __enter__(self) -> "Node":
        if self._api.find("Node", name) is None:
            self._api.make("Node", {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}})
        self._beat()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        for running in self._pods.values():
            running.terminate()
        for running in self._pods.values():
            running.kill()
        assert not self.faults, self.faults

    def _serve(self) -> None:
        beat_s = time.monotonic()
        while not self._stop.wait(_turn_s):
            try:
                if time.monotonic() > beat_s + _beat_s:
                    self._beat()
                    beat_s = time.monotonic()
                for namespace in self._namespaces:
                    pods = self._api.all_of("Pod", namespace)
                    self.most = max(self.most, len(pods))
                    for pod in pods:
                        self._look_at(pod)
            except RefusedError as refused:
                if refused.status not in (404, 409):  # a pod that went, or changed, meanwhile
                    self.faults.append(str(refused))
            except (OSError, RuntimeError) as error:
                self.faults.append(repr(error))

    def _beat(self) -> None:
        now = _now()
        condition = {
            "type": "Ready",
            "status": "True",
            "reason": "StandIn",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        self._api.patch("Node", name, {"status": {"conditions": [condition]}}, part="status")

    def _look_at(self, pod: Object) -> None:
        meta = pod["metadata"]
        uid, where = meta["uid"], (meta["name"], meta["namespace"])
        if meta.get("deletionTimestamp"):
            self._end(pod)
        elif uid not in self._pods:
            binding = {"metadata": {"name": where[0]}, "target": {"kind": "Node", "name": name}}
            base = f"/api/v1/namespaces/{where[1]}/pods/{where[0]}"
            self._api.call("POST", f"{base}/binding", {"apiVersion": "v1", "kind": "Binding", **binding})
            self._pods[uid] = self._run(pod)
            self._tell(pod, ready=False)
        else:
            running = self._pods[uid]
            if running.ended():
                self.faults.append(f"{meta['name']} ended by itself")
                self._pods[uid] = Nothing()
            if (ready := running.is_ready()) != _is_ready(pod):
                self._tell(pod, ready=ready)

    def _end(self, pod: Object) -> None:
        uid, meta = pod["metadata"]["uid"], pod["metadata"]
        running = self._pods.get(uid)
        if running is not None and not running.ended():
            if uid not in self._killed_at_s:
                running.terminate()
                self._killed_at_s[uid] = time.monotonic() + meta.get("deletionGracePeriodSeconds", 30)
                return
            if time.monotonic() < self._killed_at_s[uid]:
                return
            self.forced += 1
            running.kill()
        self._pods.pop(uid, None)
        self._api.delete(
            "Pod", meta["name"], meta["namespace"], gracePeriodSeconds=0, preconditions={"uid": uid}
        )

    def _tell(self, pod: Object, *, ready: bool) -> None:
        now, word = _now(), "True" if ready else "False"
        kinds = ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        conditions = [
            {"type": kind, "status": word if "Ready" in kind else "True", "lastTransitionTime": now}
            for kind in kinds
        ]
        status = {
            "phase": "Running", "hostIP": "127.0.0.1", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}], "startTime": now,
            "conditions": conditions,
        }  # fmt: skip
        meta = pod["metadata"]
        self._api.patch("Pod", meta["name"], {"status": status}, meta["namespace"], part="status")


def _is_ready(pod: Object) -> bool:
    return any(
        each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", ())
    )


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
