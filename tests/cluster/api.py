"""The API server, as a client of few words sees it."""

import contextlib
import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

Object = dict[str, Any]
T = TypeVar("T")
_timeout_s: Final = 30.0
_piece_bytes: Final = 65_536
_groups: Final = {
    "v1": "Namespace Pod Service ConfigMap Secret ServiceAccount Event Node",
    "apps/v1": "StatefulSet Deployment ReplicaSet",
    "autoscaling/v2": "HorizontalPodAutoscaler",
    "policy/v1": "PodDisruptionBudget",
    "networking.k8s.io/v1": "NetworkPolicy",
    "node.k8s.io/v1": "RuntimeClass",
    "scheduling.k8s.io/v1": "PriorityClass",
    "coordination.k8s.io/v1": "Lease",
    "keda.sh/v1alpha1": "ScaledObject TriggerAuthentication",
    "monitoring.coreos.com/v1": "PodMonitor PrometheusRule",
    "apiextensions.k8s.io/v1": "CustomResourceDefinition",
    "apiregistration.k8s.io/v1": "APIService",
}
_group_of: Final = {kind: group for group, kinds in _groups.items() for kind in kinds.split()}
_plurals: Final = {
    "NetworkPolicy": "networkpolicies",
    "RuntimeClass": "runtimeclasses",
    "PriorityClass": "priorityclasses",
}


class RefusedError(Exception):
    """What the API server answers instead: `status` and its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status, self.message = status, message


class Api:
    """Reads and writes objects; times out after 30 s."""

    def __init__(self, server: str, token: str, authority: Path) -> None:
        self._server, self._token = server, token
        context = ssl.create_default_context(cafile=str(authority))
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )

    def call(self, method: str, path: str, body: Any = None, *, form: str = "application/json") -> Any:
        """The answer's JSON, or its text. Raises RefusedError, or OSError while nobody answers."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": form}
        request = urllib.request.Request(self._server + path, data=data, method=method, headers=headers)
        try:
            with self._opener.open(request, timeout=_timeout_s) as answer:
                text = _body(answer, kept="/secrets" in path).decode()
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode(errors="replace")
            with contextlib.suppress(ValueError, KeyError, TypeError):
                text = json.loads(text)["message"]
            raise RefusedError(error.code, text) from error
        return json.loads(text) if text.startswith(("{", "[")) else text

    def get(self, kind: str, name: str, namespace: str = "") -> Object:
        """One object. Raises RefusedError with status 404 where there is none."""
        found: Object = self.call("GET", path(kind, namespace, name))
        return found

    def find(self, kind: str, name: str, namespace: str = "") -> Object | None:
        """The same, or None."""
        try:
            return self.get(kind, name, namespace)
        except RefusedError as refused:
            if refused.status != 404:
                raise
            return None

    def all_of(self, kind: str, namespace: str = "", *, labels: dict[str, str] | None = None) -> list[Object]:
        """All of a kind; without a namespace those of every namespace."""
        selector = ",".join(f"{key}={value}" for key, value in (labels or {}).items())
        query = "?" + urllib.parse.urlencode({"labelSelector": selector}) if selector else ""
        found: list[Object] = self.call("GET", path(kind, namespace) + query)["items"]
        return found

    def make(self, kind: str, body: Object, namespace: str = "") -> Object:
        """Create it, strictly: an unknown field is refused."""
        body = {"apiVersion": _group_of[kind], "kind": kind, **body}
        made: Object = self.call("POST", path(kind, namespace) + "?fieldValidation=Strict", body)
        return made

    def patch(self, kind: str, name: str, body: Object, namespace: str = "", *, part: str = "") -> Object:
        """Merge into it, or into its `part` (status, scale)."""
        where = path(kind, namespace, name) + (f"/{part}" if part else "")
        patched: Object = self.call("PATCH", where, body, form="application/merge-patch+json")
        return patched

    def delete(self, kind: str, name: str, namespace: str = "", **options: Any) -> None:
        """Delete it; one that is gone is none to delete."""
        try:
            self.call("DELETE", path(kind, namespace, name), options or None)
        except RefusedError as refused:
            if refused.status != 404:
                raise

    def make_namespace(self, name: str, *, restricted: bool = True) -> str:
        """A namespace, by default one whose pods must keep to Pod Security "restricted"."""
        labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
        self.make("Namespace", {"metadata": {"name": name, "labels": labels if restricted else {}}})
        await_(lambda: self.find("ServiceAccount", "default", name), 60, f"the account of namespace {name}")
        return name

    def refusals(self, namespace: str) -> list[str]:
        """What controllers were refused there."""
        return [
            event["message"] for event in self.all_of("Event", namespace) if event["reason"] == "FailedCreate"
        ]


def _body(answer: Any, *, kept: bool) -> bytes:
    """All of it. tests/canaries.py takes what `read` gets for served by Penstock, and the cluster's own Secrets are not."""
    if not kept:
        whole: bytes = answer.read()
        return whole
    return b"".join(iter(lambda: answer.read1(_piece_bytes), b""))


def path(kind: str, namespace: str = "", name: str = "") -> str:
    """Of a kind's list, or of one object."""
    group = _group_of[kind]
    parts = ["/api/v1" if group == "v1" else f"/apis/{group}"]
    if namespace:
        parts.append(f"namespaces/{namespace}")
    parts.append(_plurals.get(kind, kind.lower() + "s"))
    if name:
        parts.append(name)
    return "/".join(parts)


def await_(what: Callable[[], T | None], timeout_s: float, name: str, *, every_s: float = 0.1) -> T:
    """Ask until the answer is neither None nor false. Raises AssertionError with the last answer or error."""
    end_s = time.monotonic() + timeout_s
    while True:
        last: Any = None
        try:
            last = what()
            if last is not None and last is not False:
                return last
        except (OSError, RefusedError) as error:
            last = error
        assert time.monotonic() < end_s, f"{name}: not within {timeout_s:g} s, at last {last!r}"
        time.sleep(every_s)
