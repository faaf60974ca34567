"""The chart on a real API server: what is right makes pods under "restricted", what is wrong makes nothing."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.chart_values import bad_by_chart, bad_by_schema, good
from tests.cluster.api import RefusedError, await_
from tests.cluster.plane import ControlPlane
from tests.cluster.releases import Helm, Values, chart
from tests.cluster.report import Report

HelmMaker = Callable[..., Helm]
settled_s = 60.0


@pytest.fixture(scope="module")
def around(plane: ControlPlane) -> None:
    """What the good values name and the cluster has to have."""
    plane.api.make("PriorityClass", {"metadata": {"name": "high"}, "value": 1000})
    plane.api.make("RuntimeClass", {"metadata": {"name": "nvidia"}, "handler": "nvidia"})


def owners(plane: ControlPlane, namespace: str) -> list[dict[str, Any]]:
    return plane.api.all_of("StatefulSet", namespace) + plane.api.all_of("Deployment", namespace)


def all_made(plane: ControlPlane, namespace: str) -> bool:
    """Whether the controllers have made every pod that the owners ask for; a refusal is told at once."""
    refusals = plane.api.refusals(namespace)
    assert not refusals, refusals
    return all(each.get("status", {}).get("replicas", 0) == each["spec"]["replicas"] for each in owners(plane, namespace))  # fmt: skip


def test_lint(plane: ControlPlane, helm: HelmMaker) -> None:
    done = helm("lint").call("lint", "--strict", str(chart))
    assert done.returncode == 0, done.stdout


@pytest.mark.usefixtures("around")
@pytest.mark.parametrize("name", good)
def test_good_values_make_pods_that_are_admitted(
    name: str, plane: ControlPlane, helm: HelmMaker, report: Report
) -> None:
    mine = helm("good")
    if good[name].get("serviceAccount", {}).get("create") is False:
        plane.api.make("ServiceAccount", {"metadata": {"name": "streaming"}}, mine.namespace)
    mine.install("prod", good[name])
    await_(lambda: all_made(plane, mine.namespace), settled_s, "every pod")
    pods = plane.api.all_of("Pod", mine.namespace)
    assert len(pods) == sum(each["spec"]["replicas"] for each in owners(plane, mine.namespace)) > 0
    for budget in plane.api.all_of("PodDisruptionBudget", mine.namespace):
        selected = plane.api.all_of("Pod", mine.namespace, labels=budget["spec"]["selector"]["matchLabels"])
        assert {owner(pod) for pod in selected} == {budget["metadata"]["name"]}
    for policy in plane.api.all_of("NetworkPolicy", mine.namespace):
        selected = plane.api.all_of(
            "Pod", mine.namespace, labels=policy["spec"]["podSelector"]["matchLabels"]
        )
        assert len(selected) == len(pods)
    report.count("accepted", sets=1, pods=len(pods))


def owner(pod: dict[str, Any]) -> str:
    """The name of what the chart made the pod by."""
    name: str = pod["metadata"]["ownerReferences"][0]["name"]
    return name.rpartition("-")[0] if pod["metadata"]["ownerReferences"][0]["kind"] == "ReplicaSet" else name


def test_a_pod_that_breaks_restricted_is_refused_here(plane: ControlPlane, helm: HelmMaker) -> None:
    """That the namespaces of the tests above do what they say."""
    container = {"name": "a", "image": "a", "securityContext": {"allowPrivilegeEscalation": True}}
    with pytest.raises(RefusedError, match="restricted"):
        plane.api.make(
            "Pod", {"metadata": {"name": "a"}, "spec": {"containers": [container]}}, helm("bad").namespace
        )


@pytest.fixture(scope="module")
def one_namespace(plane: ControlPlane) -> Helm:
    return Helm(plane, plane.api.make_namespace("refused"))


@pytest.mark.parametrize("name", [*bad_by_schema, *bad_by_chart])
def test_bad_values_are_refused_and_make_nothing(
    name: str, plane: ControlPlane, one_namespace: Helm, report: Report
) -> None:
    values, words = {**bad_by_schema, **bad_by_chart}[name]
    done = one_namespace.try_install("prod", values)
    assert done.returncode != 0
    assert all(word in done.stderr for word in words), done.stderr
    assert "hunter2" not in done.stderr
    assert owners(plane, one_namespace.namespace) == []
    assert plane.api.all_of("Secret", one_namespace.namespace) == [], "Helm kept a release"
    assert [each["metadata"]["name"] for each in plane.api.all_of("ConfigMap", one_namespace.namespace)] == ["kube-root-ca.crt"]  # fmt: skip
    report.count("refused", sets=1, **{"by_schema" if name in bad_by_schema else "by_chart": 1})


def test_two_releases_side_by_side_share_no_pod(plane: ControlPlane, helm: HelmMaker) -> None:
    mine = helm("two")
    releases: dict[str, Values] = {
        "a": {"settings": {"kafka": {"group": "a"}}},
        "a-worker": {
            "settings": {"kafka": {"group": "b"}},
            "scaler": {"replicas": 1},
        },  # a name that is part of the other's names
    }
    for release, values in releases.items():
        mine.install(release, values)
    await_(lambda: all_made(plane, mine.namespace), settled_s, "every pod")
    assert len(plane.api.all_of("Pod", mine.namespace)) == 5
    counts = {"a-worker": 1, "a-scaler": 2, "a-worker-worker": 1, "a-worker-scaler": 1}
    for kind, selector in (
        ("PodDisruptionBudget", lambda each: each["spec"]["selector"]["matchLabels"]),
        ("Service", lambda each: each["spec"]["selector"]),
    ):
        found = {
            each["metadata"]["name"]: len(plane.api.all_of("Pod", mine.namespace, labels=selector(each)))
            for each in plane.api.all_of(kind, mine.namespace)
        }
        assert found == counts, kind
    policies = plane.api.all_of("NetworkPolicy", mine.namespace)
    assert sorted(len(plane.api.all_of("Pod", mine.namespace, labels=each["spec"]["podSelector"]["matchLabels"])) for each in policies) == [2, 3]  # fmt: skip
    expected = lambda: all(  # noqa: E731  the disruption controller's own count
        each.get("status", {}).get("expectedPods") == counts[each["metadata"]["name"]]
        for each in plane.api.all_of("PodDisruptionBudget", mine.namespace)
    )
    await_(expected, settled_s, "the disruption controller")
    mine.uninstall("a")
    await_(
        lambda: len(plane.api.all_of("Pod", mine.namespace)) == 2 or None, settled_s, "the other's pods alone"
    )
    left = {owner(each) for each in plane.api.all_of("Pod", mine.namespace)}
    assert left == {"a-worker-worker", "a-worker-scaler"}
