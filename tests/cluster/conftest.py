"""The cluster that the tests share, started when the first one asks for it, and the report of what was seen."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml

from tests.cluster.api import await_
from tests.cluster.built import BuildError, Programs, programs
from tests.cluster.plane import ControlPlane
from tests.cluster.releases import Helm
from tests.cluster.report import Report, page

_report_parts = "PENSTOCK_CLUSTER_REPORT_PARTS"


def pytest_configure(config: pytest.Config) -> None:
    """Where each process of this run leaves what it saw."""
    if "PENSTOCK_CLUSTER_REPORT" in os.environ and not hasattr(config, "workerinput"):
        os.environ[_report_parts] = tempfile.mkdtemp(prefix="penstock-cluster-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """One page of it all."""
    if hasattr(config, "workerinput") or _report_parts not in os.environ:
        return
    parts = Path(os.environ.pop(_report_parts))
    if any(parts.iterdir()):
        Path(os.environ["PENSTOCK_CLUSTER_REPORT"]).write_text(page(parts))
    shutil.rmtree(parts)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test-cluster` runs these. First those that wait for KEDA's pace, a process for each: the others need the processors
    meanwhile."""
    here = Path(__file__).parent
    items.sort(key=lambda item: item.path != here / "test_operator.py")
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            if "PENSTOCK_CLUSTER" not in os.environ:
                item.add_marker(pytest.mark.skip(reason="make test-cluster runs these, on a control plane"))


@pytest.fixture(scope="session")
def built() -> Programs:
    """The cluster's programs; what is missing is a failure."""
    try:
        return programs(print)
    except BuildError as error:
        pytest.fail(str(error))


@pytest.fixture(scope="session")
def report(built: Programs) -> Iterator[Report]:
    """What was seen, for the page that goes where PENSTOCK_CLUSTER_REPORT says."""
    made = Report(built.versions)
    yield made
    if parts := os.environ.get(_report_parts):
        made.save(Path(parts), os.environ.get("PYTEST_XDIST_WORKER", "main"))


@pytest.fixture(scope="session")
def plane(
    built: Programs, report: Report, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlPlane]:
    """A control plane with KEDA's kinds and the monitoring's."""
    with ControlPlane(built, tmp_path_factory.mktemp("plane")) as running:
        for file in sorted((built.keda_source / "config" / "crd" / "bases").glob("*.yaml")):
            running.api.make("CustomResourceDefinition", yaml.safe_load(file.read_text()))
        for kind, plural in (("PodMonitor", "podmonitors"), ("PrometheusRule", "prometheusrules")):
            running.api.make("CustomResourceDefinition", _any(kind, plural))
        for kind in ("ScaledObject", "TriggerAuthentication", "PodMonitor", "PrometheusRule"):
            await_(partial(running.api.all_of, kind), 60, f"the kind {kind}")
        yield running
        report.note_plane(
            start_s=running.start_s, memory_mb={each.name: each.memory_mb() for each in running.processes}
        )


@pytest.fixture
def helm(plane: ControlPlane, request: pytest.FixtureRequest) -> Callable[..., Helm]:
    """Helm in a new namespace, which goes with the test: `helm("name", restricted=True)`."""

    def make(stem: str, *, restricted: bool = True) -> Helm:
        name = f"{stem}-{time.time_ns() % 10**9}"
        plane.api.make_namespace(name, restricted=restricted)
        request.addfinalizer(lambda: plane.api.delete("Namespace", name))
        return Helm(plane, name)

    return make


def _any(kind: str, plural: str) -> dict[str, object]:
    """The Prometheus operator's kind with whatever inside: promtool reads the rules elsewhere."""
    return {
        "metadata": {"name": f"{plural}.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com", "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
            "versions": [{
                "name": "v1", "served": True, "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }],
        },
    }  # fmt: skip
