"""What deploy/ holds of the code: the chart's values.schema.json, the alerts, the dashboards, written by `make docs`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from penstock.engine.rules.alert import Terms, runbook_file
from penstock.engine.rules.files import dashboard_files, rules_text
from penstock.engine.settings.kafka import client_properties_allowed
from penstock.engine.settings.model import Settings

Node = dict[str, Any]

_root: Final = Path(__file__).resolve().parents[1]
_chart: Final = Path("deploy/helm/penstock")

_name: Final = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
_name_or_none: Final = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$"
_key_or_none: Final = r"^[-._a-zA-Z0-9]*$"
_quantity: Final = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
_volume_sources: Final = (
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret",
)  # fmt: skip
_pinned: Final = {
    "kafka": ["bootstrap_servers", "group", "drain_budget_s"],
    "http": ["host", "port"],
    "scaling": ["host", "port", "min_replicas", "max_replicas"],
}
"""Settings whose defaults suit no pod, or that other objects repeat: they may not be taken out of the values."""


def files() -> dict[str, str]:
    """Path under the root to its text."""
    return {
        str(_chart / "values.schema.json"): json.dumps(values_schema(), indent=2) + "\n",
        str(_chart / "files/rules.yaml"): rules_text(_of_its_values, select=_of_the_release),
        "deploy/prometheus/penstock-rules.yaml": rules_text(_sample),
        **{f"deploy/grafana/dashboards/{name}": text for name, text in dashboard_files(_sample).items()},
    }


def values_schema() -> Node:
    """Draft 7, which every Helm 3 and 4 reads. Closed everywhere but in `global` and where Kubernetes' own types are passed on."""
    settings = Settings.model_json_schema(by_alias=True)
    definitions = {**settings.pop("$defs"), **_kubernetes()}
    client = definitions["KafkaSettings"]["properties"]["client"]
    each = client.pop("additionalProperties")
    client |= {
        "additionalProperties": False,
        "properties": dict.fromkeys(sorted(client_properties_allowed), each),
    }
    for section, names in _pinned.items():
        found = definitions[settings["properties"][section]["$ref"].rpartition("/")[2]]
        found["required"] = sorted({*found.get("required", ()), *names})
    settings["required"] = sorted({*settings["required"], *_pinned})
    definitions["Settings"] = settings
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart penstock",
        **_closed(_properties(), required=[name for name in _properties() if name != "global"]),
        "definitions": definitions,
    }
    moved: Node = json.loads(json.dumps(schema).replace("#/$defs/", "#/definitions/"))
    return moved


_of_the_release: Final = {"namespace": "@namespace@", "release": "@release@"}
_of_its_values: Final = Terms(
    max_age_s="@max_age_s@",
    age_target="@age_target@",
    complete_target="@complete_target@",
    runbook="@runbook@",
    pages="@pages@",
)
_sample: Final = Terms(max_age_s="30", age_target="0.99", complete_target="0.99", runbook=runbook_file)
"""As the settings' defaults have it: for deploy/prometheus and deploy/grafana, which serve any pipeline."""


def _closed(properties: Node, *, required: Sequence[str] = ()) -> Node:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        **({"required": list(required)} if required else {}),
    }


def _whole(low: int, high: int) -> Node:
    return {"type": "integer", "minimum": low, "maximum": high}


def _text(pattern: str, longest: int = 253) -> Node:
    return {"type": "string", "pattern": pattern, "maxLength": longest}


def _list(name: str) -> Node:
    return {"type": "array", "items": {"$ref": f"#/definitions/{name}"}}


def _strings(*, taken: str = "") -> Node:
    """A map of texts, such as labels; names that the chart sets itself are refused."""
    names = (
        {"patternProperties": {taken: {"not": {}}}} if taken else {}
    )  # Helm misquotes the path of propertyNames
    return {"type": "object", "additionalProperties": {"type": "string"}, **names}


def _properties() -> Node:
    boolean = {"type": "boolean"}
    ports = {"type": "array", "items": _whole(1, 65535), "maxItems": 64}
    return {
        "global": {"type": "object"},
        "fullnameOverride": {"type": "string"},
        "clusterName": _text(r"^[-._a-zA-Z0-9]*$", 63),
        "image": _closed({
            "name": _text(r"^[^@\s]+$", 500),
            "digest": _text(r"^(sha256:[0-9a-f]{64})?$"),
            "pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
            "pullSecrets": _list("Reference"),
            "holds": {"type": "array", "items": _text(r"^/.+", 4096)},
        }),
        "settings": {"$ref": "#/definitions/Settings"},
        "inputPartitions": _whole(0, 1_000_000),
        "secretName": _text(_name_or_none),
        "modelVolume": {"anyOf": [{"type": "object", "maxProperties": 0}, {"$ref": "#/definitions/VolumeSource"}]},
        "modelInit": _closed({
            "image": _text(r"^\S*$", 500),
            "command": {"type": "array", "items": {"type": "string"}},
            "args": {"type": "array", "items": {"type": "string"}},
            "env": _list("Variable"),
            "envFrom": _list("Variables"),
            "resources": {"$ref": "#/definitions/Resources"},
        }),
        "mesh": {"enum": ["none", "istio", "ambient", "linkerd"]},
        "extraVolumes": _list("Volume"),
        "extraVolumeMounts": _list("VolumeMount"),
        "extraEnv": _list("Variable"),
        "envFrom": _list("Variables"),
        "serviceAccount": _closed({"create": boolean, "name": _text(_name_or_none), "annotations": _strings()}),
        "worker": _closed({
            "replicas": _whole(0, 10_000),
            "terminationGracePeriodSeconds": _whole(0, 86_400),
            "gpu": _closed({
                "count": _whole(0, 16), "resource": _text(r"^[a-z0-9.-]+/[-._a-zA-Z0-9]+$"), "claimTemplate": _text(_name_or_none),
            }),
            **_placed(),
        }),
        "scaler": _closed({
            "replicas": _whole(0, 10),
            "tls": _closed({"secretName": _text(_name_or_none), "clientAuthority": boolean}),
            **_placed(),
        }),
        "keda": _closed({
            "enabled": boolean,
            "pollingInterval": _whole(1, 3_600),
            "cooldownPeriod": _whole(0, 86_400),
            "fallback": _closed(
                {
                    "failureThreshold": _whole(1, 1_000),
                    "replicas": _whole(0, 10_000),
                    "behavior": {"enum": ["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"]},
                },
                required=["failureThreshold", "replicas"],
            ),
            "tls": _closed({"secretName": _text(_name_or_none), "clientCertificate": boolean}),
            "guard": _closed({
                "enabled": boolean,
                "lagThreshold": {"anyOf": [_whole(1, 10**15), _text(r"^[1-9][0-9]{0,14}$")]},
                "login": _closed({
                    "secretName": _text(_name_or_none),
                    **{
                        key: _text(_key_or_none)
                        for key in ("usernameKey", "passwordKey", "caKey", "certificateKey", "keyKey", "keyPasswordKey")
                    },
                }),
                "authenticationRef": _closed({
                    "name": _text(_name), "kind": {"enum": ["TriggerAuthentication", "ClusterTriggerAuthentication"]},
                }),
            }),
        }, required=["enabled", "pollingInterval", "cooldownPeriod", "fallback", "tls", "guard"]),
        "networkPolicy": _closed({
            "enabled": boolean,
            "kedaNamespace": _text(_name, 63),
            "monitoringNamespace": _text(_name, 63),
            "egressPorts": ports,
            "dnsPorts": {**ports, "minItems": 1},
        }),
        "podMonitor": _closed({
            "enabled": boolean, "interval": _text(r"^[1-9][0-9]*(s|m)$"), "labels": _strings(taken=_labels_taken),
        }),
        "prometheusRule": _closed({"enabled": boolean, "labels": _strings(taken=_labels_taken)}),
    }  # fmt: skip


_labels_taken: Final = r"^(app\.kubernetes\.io/(name|instance|component|managed-by)|helm\.sh/chart)$"


def _placed() -> Node:
    """What both pods can be told about where and how they run."""
    return {
        "resources": {"$ref": "#/definitions/Resources"},
        "runtimeClassName": _text(_name_or_none),
        "priorityClassName": _text(_name_or_none),
        "nodeSelector": _strings(),
        "tolerations": _list("Toleration"),
        "affinity": _closed(
            {name: {"type": "object"} for name in ("nodeAffinity", "podAffinity", "podAntiAffinity")}
        ),
        "topologySpreadConstraints": _list("Spread"),
        "podAnnotations": _strings(
            taken=r"^(penstock/(settings-digest|group)|prometheus\.io/(scrape|port))$"
        ),
        "podLabels": _strings(taken=_labels_taken),
    }


def _kubernetes() -> Node:
    """The parts of Kubernetes' own types that are passed on as they are."""
    source = {name: {"type": "object"} for name in _volume_sources}
    one = {"minProperties": 1, "maxProperties": 1}
    reference = _closed({"name": _text(_name), "optional": {"type": "boolean"}}, required=["name"])
    amounts = {
        "type": "object",
        "additionalProperties": {"anyOf": [_text(_quantity), {"type": "number", "minimum": 0}]},
    }
    return {
        "Reference": _closed({"name": _text(_name)}, required=["name"]),
        "VolumeSource": {**_closed(source), **one},
        "Volume": {
            **_closed({"name": _text(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", 63), **source}, required=["name"]),
            "minProperties": 2,
            "maxProperties": 2,
        },
        "VolumeMount": _closed(
            {
                "name": {"type": "string"},
                "mountPath": _text(r"^/[^:]+$", 4096),
                "subPath": {"type": "string"},
                "readOnly": {"type": "boolean"},
            },
            required=["name", "mountPath"],
        ),
        "Variable": _closed(
            {"name": _text(r"^[-._a-zA-Z][-._a-zA-Z0-9]*$"), "value": {"type": "string"}, "valueFrom": {"type": "object", **one}},
            required=["name"],
        ),
        "Variables": _closed({"prefix": {"type": "string"}, "secretRef": reference, "configMapRef": reference}),
        "Resources": _closed({"requests": amounts, "limits": amounts, "claims": {"type": "array", "items": {"type": "object"}}}),
        "Toleration": _closed({
            "key": {"type": "string"},
            "operator": {"enum": ["Exists", "Equal"]},
            "value": {"type": "string"},
            "effect": {"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
            "tolerationSeconds": _whole(0, 2**31),
        }),
        "Spread": _closed(
            {
                "maxSkew": _whole(1, 10_000),
                "minDomains": _whole(1, 10_000),
                "topologyKey": {"type": "string"},
                "whenUnsatisfiable": {"enum": ["DoNotSchedule", "ScheduleAnyway"]},
                "labelSelector": {"type": "object"},
                "matchLabelKeys": {"type": "array", "items": {"type": "string"}},
                "nodeAffinityPolicy": {"enum": ["Honor", "Ignore"]},
                "nodeTaintsPolicy": {"enum": ["Honor", "Ignore"]},
            },
            required=["maxSkew", "topologyKey", "whenUnsatisfiable"],
        ),
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files."""
    parser = argparse.ArgumentParser(prog="build_chart.py", description=__doc__)
    parser.parse_args(argv)
    for name, text in files().items():
        (_root / name).parent.mkdir(exist_ok=True)
        (_root / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{name}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
