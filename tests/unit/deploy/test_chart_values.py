"""The chart takes what is right, and refuses what is wrong with its path or in a sentence, before anything is made."""

import importlib.util
import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from penstock.engine.manifest.templates import Chart, ChartError
from penstock.engine.settings.model import Settings
from tests.chart_values import bad_by_chart, bad_by_schema, good

root = Path(__file__).parents[3]
folder = root / "deploy" / "helm" / "penstock"
chart = Chart(folder)
schema = json.loads((folder / "values.schema.json").read_text())
validator = jsonschema.Draft7Validator(schema)
helm = shutil.which("helm")
needs_helm = pytest.mark.skipif(helm is None, reason="helm is not at hand")

Made = dict[tuple[str, str], Any]


def named(documents: list[Any]) -> Made:
    found = {(each["kind"], each["metadata"]["name"]): each for each in documents if each}
    assert len(found) == sum(bool(each) for each in documents), "two objects of one name"
    return found


def made(values: dict[str, Any], **release: Any) -> Made:
    texts = chart.render(values, **release)
    return named([each for name, text in texts.items() if name.endswith(".yaml") for each in yaml.safe_load_all(text)])  # fmt: skip


@cache
def made_of(name: str) -> Made:
    return made(good[name])


def complaints(values: dict[str, Any]) -> list[str]:
    """Path and message of every fault that the schema finds, those inside alternatives included."""

    def told(error: jsonschema.ValidationError) -> list[str]:
        return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}"] + [
            each for inner in error.context for each in told(inner)
        ]

    return [each for error in validator.iter_errors(chart.values(values)) for each in told(error)]


def by_helm(
    values: dict[str, Any], tmp_path: Path, *, release: str = "prod"
) -> subprocess.CompletedProcess[str]:
    assert helm is not None
    (tmp_path / "values.yaml").write_text(json.dumps(values))
    return subprocess.run(
        [helm, "template", release, str(folder), "-n", "ns", "-f", str(tmp_path / "values.yaml"), "--kube-version", "1.31.0"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_there_are_enough_of_them() -> None:
    assert len(good) >= 20
    assert len(bad_by_schema) + len(bad_by_chart) >= 40


def test_what_is_written_from_the_code_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("build_chart", root / "docs" / "build_chart.py")
    assert spec is not None
    assert spec.loader is not None
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    for name, text in build.files().items():
        assert (root / name).read_text() == text, f"{name} is out of date: make docs"


def objects_in(node: Any, path: str = "") -> list[tuple[str, dict[str, Any]]]:
    found = []
    if isinstance(node, dict):
        if "properties" in node:
            found.append((path, node))
        for name, child in node.items():
            found += objects_in(child, f"{path}/{name}")
    return found


def test_the_schema_is_valid_closed_and_knows_every_value() -> None:
    jsonschema.Draft7Validator.check_schema(schema)
    known = objects_in(schema)
    assert len(known) > 30
    for path, node in known:
        assert node["additionalProperties"] is False, path
    assert schema["properties"]["global"] == {"type": "object"}
    assert set(yaml.safe_load((folder / "values.yaml").read_text())) == set(schema["properties"])
    assert "$defs" not in json.dumps(schema)


@pytest.mark.parametrize("name", good)
def test_good_values_are_taken_and_make_whole_objects(name: str, tmp_path: Path) -> None:
    assert complaints(good[name]) == []
    objects = made_of(name)
    (tmp_path / "penstock.yaml").write_text(objects[("ConfigMap", "prod-settings")]["data"]["penstock.yaml"])
    raw = yaml.safe_load((tmp_path / "penstock.yaml").read_text())
    assert raw == chart.values(good[name])["settings"]
    settings = Settings.model_validate(with_secrets(raw))
    worker = objects[("StatefulSet", "prod-worker")]
    assert worker["spec"]["podManagementPolicy"] == "Parallel"
    assert ("Service", worker["spec"]["serviceName"]) in objects
    pods = [worker] + [each for (kind, _), each in objects.items() if kind == "Deployment"]
    for owner in pods:
        pod = owner["spec"]["template"]["spec"]
        assert restricted(pod) == []
        (container,) = pod["containers"]
        volumes = [volume["name"] for volume in pod["volumes"]]
        assert len(set(volumes)) == len(volumes)
        assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
        assert len({variable["name"] for variable in container["env"]}) == len(container["env"])
        assert "PENSTOCK_IDENTITY" in {variable["name"] for variable in container["env"]}
        assert owner["spec"]["selector"]["matchLabels"].items() <= owner["spec"]["template"]["metadata"]["labels"].items()  # fmt: skip
    assert worker["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= settings.kafka.drain_budget_s + 10  # fmt: skip
    for key, each in objects.items():
        assert all_texts(each["metadata"].get("labels", {})), key
        assert all_texts(each["metadata"].get("annotations", {})), key


def test_a_mesh_leaves_the_brokers_alone_and_is_let_through() -> None:
    ports = {"k1:9093,k2:9093,k3": "9093,9092"}
    for mesh, labels, skips, let_out in (
        ("istio", {"sidecar.istio.io/inject": "true"}, "traffic.sidecar.istio.io/exclude{}Ports", {15012}),
        ("linkerd", {}, "config.linkerd.io/skip-{}-ports", {8080, 8086, 8090}),
        ("ambient", {"istio.io/dataplane-mode": "ambient"}, "", {15008}),
        ("none", {}, "", set()),
    ):
        for servers, brokers in ports.items():
            objects = made({"mesh": mesh, "settings": {"kafka": {"bootstrap_servers": servers}}})
            for key in (("StatefulSet", "prod-worker"), ("Deployment", "prod-scaler")):
                meta = objects[key]["spec"]["template"]["metadata"]
                assert labels.items() <= meta["labels"].items()
                told = {
                    name
                    for name in (*meta["labels"], *meta["annotations"])
                    if "istio" in name or "linkerd" in name
                }
                assert bool(told) == (mesh != "none")
                for way, wanted in (
                    (("Outbound", "outbound"), brokers),
                    (("Inbound", "inbound"), "9464,9090"),
                ):
                    if skips:
                        assert meta["annotations"][skips.format(way[mesh == "linkerd"])] == wanted
            policy = objects[("NetworkPolicy", "prod-penstock")]["spec"]
            out = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
            assert out == {53, 9092, 9093} | let_out
            tunnels = [
                rule for rule in policy["ingress"] if rule["ports"] == [{"port": 15008, "protocol": "TCP"}]
            ]
            assert len(tunnels) == (mesh == "ambient")


def gitops(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((root / "deploy" / "gitops" / name).read_text()))


def test_argo_cd_and_flux_give_the_chart_values_that_it_takes_and_leave_the_number_to_keda() -> None:
    (application,) = gitops("argocd.yaml")
    repository, release = gitops("flux.yaml")
    source, chart_of = application["spec"]["source"], release["spec"]["chart"]["spec"]
    assert root / source["path"] == root / chart_of["chart"] == folder
    assert chart_of["sourceRef"] == {"kind": repository["kind"], "name": repository["metadata"]["name"]}
    assert source["helm"]["valuesObject"] == release["spec"]["values"]
    values = release["spec"]["values"]
    assert complaints(values) == []
    worker = made(values, release=source["helm"]["releaseName"], namespace="fraud")[
        ("StatefulSet", "fraud-worker")
    ]
    assert "replicas" not in worker["spec"]
    (ignored,) = application["spec"]["ignoreDifferences"]
    assert ignored == {
        "group": "apps",
        "kind": "StatefulSet",
        "name": "fraud-worker",
        "jsonPointers": ["/spec/replicas"],
    }
    assert "RespectIgnoreDifferences=true" in application["spec"]["syncPolicy"]["syncOptions"]
    (no_drift,) = release["spec"]["driftDetection"]["ignore"]
    assert no_drift == {
        "paths": ["/spec/replicas"],
        "target": {"kind": "StatefulSet", "name": "fraud-worker"},
    }
    assert release["spec"]["releaseName"] == source["helm"]["releaseName"] == "fraud"


def with_secrets(raw: dict[str, Any]) -> dict[str, Any]:
    """The settings as the pods see them, with what the Secret adds as variables."""
    security = raw["kafka"].get("security", {})
    if security.get("mechanism") == "OAUTHBEARER":
        security = {"oauth_client_id": "a", "oauth_client_secret": "b", **security}
    elif "mechanism" in security:
        security = {"username": "a", "password": "b", **security}
    return {**raw, "kafka": {**raw["kafka"], "security": security}}


def all_texts(mapping: dict[str, Any]) -> bool:
    return all(isinstance(value, str) for value in mapping.values())


def restricted(pod: dict[str, Any]) -> list[str]:
    """What the restricted level of pod security would refuse, from its published table."""
    faults = []
    if not pod["securityContext"].get("runAsNonRoot"):
        faults.append("root")
    if pod["securityContext"].get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        faults.append("seccomp")
    if any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        faults.append("host")
    taken = {"name", "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret"}  # fmt: skip
    faults += [f"volume {volume}" for volume in pod["volumes"] if set(volume) - taken]
    for container in [*pod["containers"], *pod.get("initContainers", ())]:
        context = container["securityContext"]
        if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
            faults.append("privileges")
        if context["capabilities"] != {"drop": ["ALL"]}:
            faults.append("capabilities")
    return faults


@pytest.mark.parametrize("name", bad_by_schema)
def test_the_schema_refuses_with_the_path(name: str) -> None:
    values, words = bad_by_schema[name]
    found = complaints(values)
    assert any(all(word in complaint for word in words) for complaint in found), found


@pytest.mark.parametrize("name", bad_by_chart)
def test_the_chart_refuses_with_a_sentence(name: str) -> None:
    values, words = bad_by_chart[name]
    assert complaints(values) == [], "the schema refuses it: it belongs to the others"
    with pytest.raises(ChartError) as refused:
        made(values)
    (line,) = [each for each in str(refused.value).splitlines() if all(word in each for word in words)] or [
        ""
    ]
    assert line, str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ChartError) as refused:
        made({"scaler": {"replicas": 0}, "keda": {"fallback": {"replicas": 0}}})
    assert len(str(refused.value).strip().splitlines()) == 2


def test_a_long_release_name_is_refused_and_can_be_shortened() -> None:
    with pytest.raises(ChartError, match="longer than 45 characters"):
        made({}, release="r" * 50)
    assert ("StatefulSet", "short-worker") in made({"fullnameOverride": "short"}, release="r" * 50)
    assert made({}, release="r" * 45)


def test_every_file_in_the_settings_is_looked_for_among_the_mounts() -> None:
    checks = (folder / "templates" / "_checks.tpl").read_text()
    found = set()
    for section, node in Settings.model_json_schema()["properties"].items():
        found |= {f"{section}.{name}" for name in file_settings(node)}
    found.remove("model.path")
    assert "kafka.security.ca_file" in found
    for name in found:
        assert f'"{name}"' in checks, name


def file_settings(node: Any) -> set[str]:
    definitions = Settings.model_json_schema()["$defs"]
    if "$ref" in node:
        node = definitions[node["$ref"].rpartition("/")[2]]
    for choice in node.get("anyOf", ()):
        if "$ref" in choice:
            node = definitions[choice["$ref"].rpartition("/")[2]]
    found = set()
    for name, child in node.get("properties", {}).items():
        if '"format": "path"' in json.dumps(child):
            found.add(name)
        found |= {f"{name}.{inner}" for inner in file_settings(child)}
    return found


def test_every_secret_in_the_settings_is_refused_as_plain_text() -> None:
    checks = (folder / "templates" / "_checks.tpl").read_text()
    text = json.dumps(schema["definitions"])
    assert text.count('"format": "password"') == 4
    for name in ("kafka.security.password", "kafka.security.key_password", "kafka.security.oauth_client_secret", "registry.password"):  # fmt: skip
        assert f'"{name}"' in checks


@needs_helm
@pytest.mark.parametrize("name", good)
def test_helm_makes_the_same(name: str, tmp_path: Path) -> None:
    done = by_helm(good[name], tmp_path)
    assert done.returncode == 0, done.stderr
    theirs = named(list(yaml.safe_load_all(done.stdout)))
    ours = made(good[name])
    for objects in (theirs, ours):
        settings = objects[("ConfigMap", "prod-settings")]["data"]
        settings["penstock.yaml"] = Settings.model_validate(
            with_secrets(yaml.safe_load(settings["penstock.yaml"]))
        )
        for each in objects.values():  # a digest of YAML, which the two write with other spaces
            each.get("spec", {}).get("template", {}).get("metadata", {}).get("annotations", {}).pop("penstock/settings-digest", 0)  # fmt: skip
    assert theirs == ours


@needs_helm
@pytest.mark.parametrize("name", [*bad_by_schema, *bad_by_chart])
def test_helm_refuses_the_same(name: str, tmp_path: Path) -> None:
    values, words = {**bad_by_schema, **bad_by_chart}[name]
    done = by_helm(values, tmp_path)
    assert done.returncode != 0
    assert "nil pointer" not in done.stderr
    assert "hunter2" not in done.stderr
    if name in bad_by_chart:
        assert all(word in done.stderr for word in words), done.stderr
    else:
        assert "/" + words[0] in done.stderr or f"'{words[0]}'" in done.stderr, done.stderr
        assert all(word in done.stderr for word in words), done.stderr


def test_files_of_the_admin_port_have_to_be_mounted() -> None:
    token = {"name": "ops", "role": "admin", "file": "/etc/tokens/ops"}
    settings = {"admin": {"audit_topic": "audit", "tokens": [token], "jwt": {
        "issuer": "i", "audience": "a", "jwks_url": "https://i/k", "jwks_ca_file": "/etc/ca/ca.crt"}}}  # fmt: skip
    with pytest.raises(ChartError) as refused:
        made({"settings": settings})
    assert "settings.admin.tokens is /etc/tokens/ops, and nothing is mounted there" in str(refused.value)
    assert "settings.admin.jwt.jwks_ca_file is /etc/ca/ca.crt" in str(refused.value)
    mounts = [{"name": "tokens", "mountPath": "/etc/tokens"}, {"name": "ca", "mountPath": "/etc/ca"}]
    assert made({
        "settings": settings, "extraVolumeMounts": mounts,
        "extraVolumes": [{"name": "tokens", "secret": {"secretName": "t"}}, {"name": "ca", "secret": {"secretName": "c"}}],
    })  # fmt: skip


def test_bundles_to_be_tried_have_to_be_mounted() -> None:
    settings = {"http": {"bundles": {"candidate": "/models/v8", "other": "/elsewhere/v9"}}}
    with pytest.raises(ChartError) as refused:
        made({"settings": settings})
    assert "settings.http.bundles is /elsewhere/v9, and nothing is mounted there" in str(refused.value)
    mounts = [{"name": "models", "mountPath": "/models"}, {"name": "more", "mountPath": "/elsewhere"}]
    volumes = [{"name": each["name"], "persistentVolumeClaim": {"claimName": "c"}} for each in mounts]
    assert made({"settings": settings, "extraVolumeMounts": mounts, "extraVolumes": volumes})
