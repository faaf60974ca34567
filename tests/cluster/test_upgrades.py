"""Install, upgrade, rollback on a real API server: the number of workers, the roll-out, and who may be evicted."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster.api import RefusedError, await_
from tests.cluster.node import Node
from tests.cluster.plane import ControlPlane
from tests.cluster.releases import Helm, Values
from tests.cluster.report import Report

HelmMaker = Callable[..., Helm]
fixed: Values = {"keda": {"enabled": False}, "worker": {"replicas": 3}}
settled_s = 120.0


def worker(plane: ControlPlane, mine: Helm) -> dict[str, Any]:
    return plane.api.get("StatefulSet", "prod-worker", mine.namespace)


def rolled_out(plane: ControlPlane, mine: Helm, replicas: int) -> bool:
    """Whether so many pods are ready, all of them of the newest template."""
    found = worker(plane, mine)
    status = found["status"]
    return bool(
        found["spec"]["replicas"] == replicas
        and status.get("observedGeneration") == found["metadata"]["generation"]
        and status.get("readyReplicas", 0)
        == status.get("updatedReplicas", 0)
        == status["replicas"]
        == replicas
        and status.get("currentRevision") == status.get("updateRevision")
    )


def arguments_of(plane: ControlPlane, mine: Helm) -> set[str]:
    """The digests of the settings that the workers run with."""
    pods = plane.api.all_of("Pod", mine.namespace, labels={"app.kubernetes.io/component": "worker"})
    return {pod["metadata"]["annotations"]["penstock/settings-digest"] for pod in pods}


def test_install_upgrade_rollback(plane: ControlPlane, helm: HelmMaker, report: Report) -> None:
    mine = helm("up")
    with Node(plane.api, mine.namespace) as node:
        mine.install("prod", fixed)
        await_(lambda: rolled_out(plane, mine, 3), settled_s, "three workers")
        first = arguments_of(plane, mine)
        mine.upgrade("prod", {**fixed, "settings": {"kafka": {"drain_budget_s": 30}}})
        await_(lambda: rolled_out(plane, mine, 3), settled_s, "three new workers")
        second = arguments_of(plane, mine)
        assert len(first) == len(second) == 1
        assert first != second, "new settings replace the pods"
        grace = {pod["spec"]["terminationGracePeriodSeconds"] for pod in plane.api.all_of("Pod", mine.namespace, labels={"app.kubernetes.io/component": "worker"})}  # fmt: skip
        assert grace == {45}
        mine.rollback("prod", 1)
        await_(lambda: rolled_out(plane, mine, 3), settled_s, "the three of before")
        assert arguments_of(plane, mine) == first
        assert [state for _, state in mine.history("prod")] == ["superseded", "superseded", "deployed"]
        mine.uninstall("prod")
        await_(lambda: plane.api.all_of("Pod", mine.namespace) == [], settled_s, "no pod")
        assert node.forced == 0
    report.note("upgrade", "settings changed and rolled back with 3 workers, one after the other")


def test_from_a_fixed_number_to_keda_and_on(plane: ControlPlane, helm: HelmMaker, report: Report) -> None:
    mine = helm("keda")
    counts: list[int] = []

    def look() -> int:
        counts.append(worker(plane, mine)["spec"]["replicas"])
        return counts[-1]

    with Node(plane.api, mine.namespace):
        mine.install("prod", fixed)
        await_(lambda: rolled_out(plane, mine, 3), settled_s, "three workers")
        pods = {pod["metadata"]["uid"] for pod in plane.api.all_of("Pod", mine.namespace, labels={"app.kubernetes.io/component": "worker"})}  # fmt: skip
        mine.upgrade("prod", {})
        assert look() == 3, "KEDA starts from what runs"
        assert plane.api.find("ScaledObject", "prod-worker", mine.namespace) is not None
        await_(lambda: rolled_out(plane, mine, 3), settled_s, "the same three")
        assert pods == {pod["metadata"]["uid"] for pod in plane.api.all_of("Pod", mine.namespace, labels={"app.kubernetes.io/component": "worker"})}  # fmt: skip
        for scaled in (5, 0):
            plane.api.patch(
                "StatefulSet", "prod-worker", {"spec": {"replicas": scaled}}, mine.namespace, part="scale"
            )
            mine.upgrade("prod", {"settings": {"kafka": {"drain_budget_s": 30 + scaled}}})
            assert look() == scaled, "an upgrade keeps what KEDA has set"
        mine.upgrade("prod", fixed)
        assert look() == 3
        assert plane.api.find("ScaledObject", "prod-worker", mine.namespace) is None
    report.note(
        "upgrade", "fixed 3 to KEDA stays 3 with the same pods; 5 and 0 set by KEDA outlive an upgrade"
    )


def test_a_rollback_sets_the_number_of_its_revision(plane: ControlPlane, helm: HelmMaker) -> None:
    """As docs/operations.md says: Helm writes what it once wrote, and the autoscaler corrects it."""
    mine = helm("back")
    mine.install("prod", fixed)
    mine.upgrade("prod", {})
    plane.api.patch("StatefulSet", "prod-worker", {"spec": {"replicas": 5}}, mine.namespace, part="scale")
    mine.upgrade("prod", {"settings": {"kafka": {"drain_budget_s": 30}}})
    assert worker(plane, mine)["spec"]["replicas"] == 5
    mine.rollback("prod", 2)
    assert worker(plane, mine)["spec"]["replicas"] == 3


def test_one_worker_may_be_evicted_and_the_next_waits(
    plane: ControlPlane, helm: HelmMaker, report: Report
) -> None:
    mine = helm("evict")
    with Node(plane.api, mine.namespace):
        mine.install("prod", fixed)
        await_(lambda: rolled_out(plane, mine, 3), settled_s, "three workers")
        budget = lambda: plane.api.get("PodDisruptionBudget", "prod-worker", mine.namespace)["status"]  # noqa: E731
        await_(lambda: budget().get("disruptionsAllowed") == 1, settled_s, "one that may go")

        def evict(name: str) -> None:
            body = {
                "apiVersion": "policy/v1",
                "kind": "Eviction",
                "metadata": {"name": name, "namespace": mine.namespace},
            }
            plane.api.call("POST", f"/api/v1/namespaces/{mine.namespace}/pods/{name}/eviction", body)

        evict("prod-worker-0")
        with pytest.raises(RefusedError) as refused:
            evict("prod-worker-1")
        assert refused.value.status == 429
        await_(lambda: rolled_out(plane, mine, 3), settled_s, "the evicted one's successor")
    report.note("upgrade", "of two evictions at once the second is refused (429)")
