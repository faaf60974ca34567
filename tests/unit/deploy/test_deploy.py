"""What is deployed agrees with the code: metrics, settings, ports, images, and the rules that KEDA punishes."""

import json
import re
import subprocess
import sys
from copy import deepcopy
from http import HTTPStatus
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from penstock.engine.manifest.templates import Chart
from penstock.engine.scaling.keda_service import metric_name
from penstock.engine.settings.model import Settings, load_settings
from penstock.engine.telemetry.http_server import Answer, HttpServer
from penstock.engine.telemetry.metric_declarations import Declared
from penstock.engine.telemetry.metrics_reference import all_declared

root = Path(__file__).parents[3]
chart = root / "deploy" / "helm" / "penstock"
declared: dict[str, Declared[Any]] = {one.name: one for process in all_declared().values() for one in process}


def expressions() -> list[tuple[str, str]]:
    """Every query of the rules and the dashboard, with where it stands."""
    rules = yaml.safe_load((root / "deploy/prometheus/penstock-rules.yaml").read_text())
    found = [
        (rule.get("alert") or rule["record"], rule["expr"])
        for group in rules["groups"]
        for rule in group["rules"]
    ]
    for dashboard in dashboards():
        for panel in dashboard["panels"]:
            found += [(panel["title"], target["expr"]) for target in panel.get("targets", ())]
    assert len(found) > 80
    return found


def dashboards() -> list[dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in sorted((root / "deploy/grafana/dashboards").iterdir())]
    assert len(found) == 2
    return found


def recorded() -> set[str]:
    rules = yaml.safe_load((root / "deploy/prometheus/penstock-rules.yaml").read_text())
    return {rule["record"] for group in rules["groups"] for rule in group["rules"] if "record" in rule}


def family_of(sample: str) -> str:
    for suffix in ("_bucket", "_sum", "_count"):
        stem = sample.removesuffix(suffix)
        if stem != sample and stem in declared and declared[stem].kind_name == "histogram":
            return stem
    return sample


@pytest.mark.parametrize(("where", "expression"), expressions())
def test_every_metric_in_a_rule_or_a_panel_exists_with_its_labels_and_values(
    where: str, expression: str
) -> None:
    names = re.findall(r"\b(penstock_\w+)", expression)
    own = set(re.findall(r"\b(penstock:[\w:]+)", expression))
    assert own <= recorded(), f"{where}: no rule records it"
    assert (
        names
        or own
        or re.search(
            r"\b(process_resident_memory_bytes|process_start_time_seconds|up)\{[^}]*job=", expression
        )
    ), where
    for name in names:
        family = declared.get(family_of(name))
        assert family is not None, f"{where}: {name} is not declared in engine/telemetry/metrics.py"
        assert family.kind_name != "histogram" or name != family.name, f"{where}: {name} is a histogram"
    for name, matchers in re.findall(r"\b(penstock_\w+)\{([^}]*)\}", expression):
        for label, values in re.findall(r'(\w+)=~?"([^"]*)"', matchers):
            if label in ("namespace", "release", "group"):  # of the scrape
                continue
            known = declared[family_of(name)].labels
            assert label in known, f"{where}: {name} has no label {label}"
            assert set(values.split("|")) <= set(known[label] or ()), f"{where}: {label}={values}"


def test_counters_are_only_asked_for_their_growth() -> None:
    for where, expression in expressions():
        for name in re.findall(r"\b(penstock_\w+_total)", expression):
            assert re.search(rf"(rate|increase)\({name}\b", expression), f"{where}: {name} only ever grows"


def test_every_panel_asks_for_the_chosen_pipelines() -> None:
    for dashboard in dashboards():
        assert [each["name"] for each in dashboard["templating"]["list"]] == [
            "source",
            "namespace",
            "release",
            "group",
        ]
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                selectors = re.findall(r"\b(?:penstock[_:]|process_)[\w:]+(\{[^}]*\})?", target["expr"])
                assert selectors
                assert all(each.startswith('{namespace=~"$namespace", release=~"$release", group=~"$group"') for each in selectors), panel["title"]  # fmt: skip


def test_every_alert_says_how_bad_it_is_and_what_happened() -> None:
    rules = yaml.safe_load((root / "deploy/prometheus/penstock-rules.yaml").read_text())
    alerts = [rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule]
    assert {rule["labels"]["severity"] for rule in alerts} == {"critical", "warning", "info"}
    for rule in alerts:
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"


def test_every_scrape_says_whose_the_metrics_are() -> None:
    """No metric carries it: what the rules and panels ask for is put on by whoever scrapes, the operator its namespace itself."""
    by = {"namespace", "release", "group"}
    kubernetes, static = (
        yaml.safe_load((root / "deploy/prometheus" / name).read_text())["scrape_configs"]
        for name in ("prometheus-kubernetes.yaml", "prometheus.yaml")
    )
    for job in kubernetes:
        assert by <= {rule.get("target_label") for rule in job["relabel_configs"]}, job["job_name"]
    for job in static:
        for targets in job["static_configs"]:
            assert by <= set(targets["labels"]), job["job_name"]
            settings = load_settings(root / "deploy/compose/penstock.yaml", environ={})
            assert targets["labels"]["group"] == settings.kafka.group
    monitor = objects(podMonitor={"enabled": True})[("PodMonitor", "prod-penstock")]["spec"]
    for endpoint in monitor["podMetricsEndpoints"]:
        assert by - {"namespace"} <= {rule["targetLabel"] for rule in endpoint["relabelings"]}


def test_panels_do_not_overlap_and_have_their_own_ids() -> None:
    for panels in (dashboard["panels"] for dashboard in dashboards()):
        assert len({panel["id"] for panel in panels}) == len(panels)
        taken: set[tuple[int, int]] = set()
        for panel in panels:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, panel["title"]
            taken |= cells


def objects(**changes: Any) -> dict[tuple[str, str], Any]:
    """Everything the chart makes, by kind and name."""
    texts = Chart(chart).render(changes)
    found = [each for name, text in texts.items() if name.endswith(".yaml") for each in yaml.safe_load_all(text) if each]  # fmt: skip
    named = {(each["kind"], each["metadata"]["name"]): each for each in found}
    assert len(named) == len(found)
    return named


owners = {"worker": "StatefulSet", "scaler": "Deployment"}


def pod_of(deployment: Any) -> Any:
    return deployment["spec"]["template"]["spec"]


def test_the_chart_makes_what_it_should() -> None:
    assert set(objects()) == {
        ("ConfigMap", "prod-settings"), ("StatefulSet", "prod-worker"), ("Deployment", "prod-scaler"), ("Service", "prod-scaler"),
        ("Service", "prod-worker"), ("PodDisruptionBudget", "prod-worker"), ("PodDisruptionBudget", "prod-scaler"),
        ("ScaledObject", "prod-worker"), ("NetworkPolicy", "prod-penstock"), ("ServiceAccount", "prod-penstock"),
    }  # fmt: skip


def chart_settings(tmp_path: Path) -> Settings:
    path = tmp_path / "penstock.yaml"
    path.write_text(objects()[("ConfigMap", "prod-settings")]["data"]["penstock.yaml"])
    return load_settings(path, environ={})


def test_the_settings_in_the_chart_are_accepted_and_reach_the_pods(tmp_path: Path) -> None:
    settings = chart_settings(tmp_path)
    assert settings.http.host == settings.scaling.host == "0.0.0.0"
    for name in ("worker", "scaler"):
        pod = pod_of(objects()[(owners[name], f"prod-{name}")])
        (container,) = pod["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports["http"] == settings.http.port
        assert {container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")} == {
            "/live",
            "/ready",
        }
    worker = pod_of(objects()[("StatefulSet", "prod-worker")])
    assert worker["terminationGracePeriodSeconds"] > settings.kafka.drain_budget_s + 10
    assert "replicas" not in objects()[("StatefulSet", "prod-worker")]["spec"]


def test_pods_run_without_privileges() -> None:
    for name in ("worker", "scaler"):
        pod = pod_of(objects()[(owners[name], f"prod-{name}")])
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]


def test_selectors_find_their_pods() -> None:
    made = objects()
    for name in ("worker", "scaler"):
        deployment = made[(owners[name], f"prod-{name}")]
        labels = deployment["spec"]["template"]["metadata"]["labels"].items()
        assert deployment["spec"]["selector"]["matchLabels"].items() <= labels
        assert (
            made[("PodDisruptionBudget", f"prod-{name}")]["spec"]["selector"]["matchLabels"].items() <= labels
        )
        assert (
            made[("NetworkPolicy", "prod-penstock")]["spec"]["podSelector"]["matchLabels"].items() <= labels
        )
    scaler = made[("Deployment", "prod-scaler")]["spec"]["template"]["metadata"]["labels"].items()
    assert made[("Service", "prod-scaler")]["spec"]["selector"].items() <= scaler


def test_the_scaled_object_keeps_the_rules_that_keda_punishes(tmp_path: Path) -> None:
    settings = chart_settings(tmp_path)
    spec = objects()[("ScaledObject", "prod-worker")]["spec"]
    assert spec["fallback"]["replicas"] >= 1, "with 0, KEDA scales to zero on an error"
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (
        settings.scaling.min_replicas,
        settings.scaling.max_replicas,
    )
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "prod-worker"}
    (push,) = spec["triggers"]
    assert push["type"] == "external-push"
    assert push["metricType"] == "AverageValue"
    assert push["metadata"]["scalerAddress"] == f"prod-scaler.ns.svc:{settings.scaling.port}"
    assert push["metadata"]["group"] == settings.kafka.group
    assert objects()[("Service", "prod-scaler")]["spec"]["clusterIP"] == "None"
    assert len(f"s0-{metric_name}") <= 63


def test_secrets_and_the_model_are_mounted_when_they_are_named() -> None:
    made = objects(secretName="kafka-login", modelVolume={"persistentVolumeClaim": {"claimName": "models"}})
    pod = pod_of(made[("StatefulSet", "prod-worker")])
    assert pod["containers"][0]["envFrom"] == [{"secretRef": {"name": "kafka-login"}}]
    assert {"name": "model", "persistentVolumeClaim": {"claimName": "models"}} in pod["volumes"]
    assert {"name": "model", "mountPath": "/models", "readOnly": True} in pod["containers"][0]["volumeMounts"]
    bare = pod_of(objects()[("StatefulSet", "prod-worker")])
    assert "envFrom" not in bare["containers"][0]
    assert [volume["name"] for volume in bare["volumes"]] == ["settings", "tmp"]


def test_the_workers_can_reach_dns_and_what_is_named() -> None:
    egress = objects()[("NetworkPolicy", "prod-penstock")]["spec"]["egress"]
    ports = [port["port"] for rule in egress for port in rule["ports"]]
    assert ports == [53, 53, 9092]
    settings = {"tracing": {"endpoint": "http://collector:4318/v1/traces"}}
    egress = objects(settings=settings)[("NetworkPolicy", "prod-penstock")]["spec"]["egress"]
    assert [port["port"] for rule in egress for port in rule["ports"]] == [53, 53, 9092, 4318]


compose = yaml.safe_load((root / "docker-compose.yml").read_text())


def test_compose_mounts_files_that_exist_and_settings_that_are_accepted() -> None:
    mounts = [mount for service in compose["services"].values() for mount in service.get("volumes", ())]
    model = {each["source"]: each for each in mounts if isinstance(each, dict)}
    assert list(model) == ["${PENSTOCK_MODEL:-./model}"]
    (mounted,) = model.values()
    # A folder that is not there is an error, and not made for root.
    assert (mounted["read_only"], mounted["bind"]) == (True, {"create_host_path": False})
    for mount in (each for each in mounts if isinstance(each, str)):
        source = mount.split(":")[0]
        if source.startswith("./"):
            assert (root / source).exists(), mount
    settings = load_settings(root / "deploy/compose/penstock.yaml", environ={})
    created = re.findall(r"create (\S+) --partitions", compose["services"]["topics"]["command"][0])
    output = settings.output
    named = [
        settings.input.topic,
        output.predictions,
        output.explanations,
        output.dead_letters,
        output.status,
    ]
    assert created == named
    assert settings.kafka.bootstrap_servers == "broker:29092"
    assert f"127.0.0.1:{settings.http.port}:{settings.http.port}" in compose["services"]["engine"]["ports"]
    assert (
        f"127.0.0.1:{settings.scaling.port}:{settings.scaling.port}" in compose["services"]["scaler"]["ports"]
    )


def test_compose_s_own_schema_takes_it() -> None:
    schema = json.loads((Path(__file__).parent / "compose_spec.json").read_text())
    check = jsonschema.Draft7Validator(schema)
    assert [f"{fault.json_path}: {fault.message}" for fault in check.iter_errors(compose)] == []
    misspelt = deepcopy(compose)
    misspelt["services"]["engine"]["healthchek"] = misspelt["services"]["engine"].pop("healthcheck")
    assert not check.is_valid(misspelt)


def test_the_gpu_profile_is_the_same_engine_on_a_device() -> None:
    plain, gpu = (dict(compose["services"][name]) for name in ("engine", "engine-gpu"))
    assert gpu.pop("profiles") == ["gpu"], "nobody without a GPU is asked for one"
    (device,) = gpu.pop("deploy")["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert gpu.pop("networks") == {"default": {"aliases": ["engine"]}}
    targets = set(re.findall(r"^FROM base AS (\S+)$", (root / "deploy/Dockerfile").read_text(), re.MULTILINE))
    for service, kind in ((plain, "cpu"), (gpu, "gpu")):
        assert service.pop("image") == f"penstock:{kind}"
        assert service.pop("build") == {"context": ".", "dockerfile": "deploy/Dockerfile", "target": kind}
        assert kind in targets
    assert gpu == plain
    assert load_settings(root / "deploy/compose/penstock.yaml", environ={}).model.device == "auto"


@pytest.mark.parametrize("service", ["engine", "engine-gpu", "scaler"])
@pytest.mark.parametrize("status", [200, 503])
def test_a_health_check_says_what_ready_says(service: str, status: int) -> None:
    """The command of the file, on a port of our own."""
    settings = load_settings(root / "deploy/compose/penstock.yaml", environ={})
    kind, program, *words = compose["services"][service]["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python"), "no shell, and no curl, is in the image"
    asked = []

    def ready() -> Answer:
        asked.append(1)
        return Answer(status=HTTPStatus(status), body=b"")

    with HttpServer({"/ready": ready}, host="127.0.0.1", port=0) as server:
        told = [word.replace(f":{settings.http.port}/", f":{server.port}/") for word in words]
        assert told != words
        done = subprocess.run([sys.executable, *told], capture_output=True, timeout=60, check=False)
    assert asked == [1]
    assert (done.returncode == 0) == (status == 200)


def test_nothing_is_published_beyond_this_machine() -> None:
    for name, service in compose["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name


def test_images_are_pinned_and_name_no_registry() -> None:
    images = {service["image"] for service in compose["services"].values()} - {"penstock:cpu", "penstock:gpu"}
    dockerfile = (root / "deploy/Dockerfile").read_text()
    (base,) = re.findall(r"^ARG BASE=(\S+)", dockerfile, re.MULTILINE)
    assert re.fullmatch(r"[^@]+@sha256:[0-9a-f]{64}", base)
    for image in {*images, base.partition("@")[0]}:
        name, _, tag = image.partition(":")
        assert re.search(r"\d+\.\d+", tag), f"{image} is not pinned"
        assert "." not in name.split("/")[0], f"{image} names a registry"


def test_the_broker_is_the_one_that_the_tests_and_the_demo_use() -> None:
    version = compose["services"]["broker"]["image"].removeprefix("apache/kafka:")
    jars = "".join((root / "connectors/embedded/kafka-jars.xml").read_text().split())
    assert f"<artifactId>kafka_2.13</artifactId><version>{version}</version>" in jars
    assert f'"apache/kafka:{version}"' in (root / "tests/conftest.py").read_text()


def test_the_image_runs_as_nobody_special_and_is_built_from_what_the_wheel_needs() -> None:
    dockerfile = (root / "deploy/Dockerfile").read_text()
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", dockerfile, re.MULTILINE)
    assert [target for base, target in stages if base == "base"] == ["gpu", "cpu"]
    assert "USER 10001" in dockerfile
    ignored = (root / "deploy/Dockerfile.dockerignore").read_text()
    for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (root / source).exists(), source
            assert re.search(rf"^!{re.escape(source)}(/\*\*)?$", ignored, re.MULTILINE), source
    for package in re.findall(r"s/\^([a-z-]+)==", dockerfile):
        assert re.search(rf"^{package}==", (root / "requirements.txt").read_text(), re.MULTILINE), package
