"""Values that the chart takes and values that it refuses, the latter with what the refusal must name."""

from typing import Any

import yaml

digest = "sha256:" + "0123456789abcdef" * 4

_tls = """
secretName: kafka-login
extraVolumes: [{name: kafka-tls, secret: {secretName: kafka-tls}}]
extraVolumeMounts: [{name: kafka-tls, mountPath: /etc/kafka-tls, readOnly: true}]
"""

_good = {
    "as it is": "",
    "topic that looks like a number": 'settings: {input: {topic: "2024"}}',
    "group that looks like a truth": 'settings: {kafka: {group: "on"}}',
    "group that looks like a float": 'settings: {kafka: {group: "1e3"}}',
    "group with a dollar": 'settings: {kafka: {group: "a$1b"}}\npodMonitor: {enabled: true}',
    "guard": "keda: {guard: {enabled: true, lagThreshold: 1000000}}",
    "guard with a text": 'keda: {guard: {enabled: true, lagThreshold: "2500000"}}',
    "guard, SASL": _tls + """
settings: {kafka: {security: {protocol: SASL_SSL, mechanism: SCRAM-SHA-512, username: "0123", ca_file: /etc/kafka-tls/ca.crt}}}
keda: {guard: {enabled: true, login: {caKey: ca.crt}}}
""",
    "guard, SASL with the name in the Secret": """
secretName: kafka-login
settings: {kafka: {security: {protocol: SASL_PLAINTEXT, mechanism: PLAIN}}}
keda: {guard: {enabled: true, login: {usernameKey: PENSTOCK_KAFKA__SECURITY__USERNAME}}}
""",
    "guard, mTLS": _tls + """
settings: {kafka: {security: {protocol: SSL, ca_file: /etc/kafka-tls/ca.crt, certificate_file: /etc/kafka-tls/tls.crt, key_file: /etc/kafka-tls/tls.key}}}
keda: {guard: {enabled: true, login: {secretName: kafka-tls, caKey: ca.crt, certificateKey: tls.crt, keyKey: tls.key}}}
""",
    "guard, own TriggerAuthentication": """
settings: {kafka: {security: {protocol: SASL_SSL, mechanism: OAUTHBEARER, oauth_token_url: "https://id.example:8443/token"}}}
keda: {guard: {enabled: true, authenticationRef: {name: kafka, kind: ClusterTriggerAuthentication}}}
""",
    "TLS to the scaler": "scaler: {tls: {secretName: scaler-tls}}\nkeda: {tls: {secretName: scaler-tls}}",
    "mTLS to the scaler": """
scaler: {tls: {secretName: scaler-tls, clientAuthority: true}}
keda: {tls: {secretName: keda-tls, clientCertificate: true}}
""",
    "without KEDA": "keda: {enabled: false}\nworker: {replicas: 3}",
    "without KEDA and scaler": "keda: {enabled: false}\nscaler: {replicas: 0}\nsettings: {output: {status: null}}",
    "secured cluster, Avro schema and registry": _tls + """
settings:
  kafka: {bootstrap_servers: "k1.example:9093, k2.example:9094", security: {protocol: SASL_SSL, mechanism: OAUTHBEARER, ca_file: /etc/kafka-tls/ca.crt, oauth_token_url: "https://id.example/token"}}
  registry: {url: "https://registry.example:8081/path", ca_file: /etc/kafka-tls/ca.crt}
  input: {topic: t, format: avro, schema: /etc/kafka-tls/input.avsc}
networkPolicy: {egressPorts: [9095], dnsPorts: [53, 5353]}
""",
    "GPU": "worker: {gpu: {count: 1}, runtimeClassName: nvidia, tolerations: [{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]}",
    "part of a GPU": 'worker: {gpu: {count: 2, resource: nvidia.com/mig-1g.10gb}, resources: {limits: {memory: 4Gi}, requests: {cpu: 2}}}',
    "GPU by a claim": "worker: {gpu: {claimTemplate: one-gpu}, runtimeClassName: nvidia}",
    "image by digest": f"image: {{name: 'a.example/penstock:1', digest: '{digest}', pullSecrets: [{{name: pull}}]}}",
    "model from a claim": "modelVolume: {persistentVolumeClaim: {claimName: models}}",
    "model from an image": "modelVolume: {image: {reference: 'a.example/model:7', pullPolicy: IfNotPresent}}",
    "model by a container": """
modelInit:
  image: a.example/aws-cli:2
  command: [aws, s3, cp, --recursive]
  args: ["s3://models/fraud/7", /models/current]
  env: [{name: AWS_SECRET_ACCESS_KEY, valueFrom: {secretKeyRef: {name: store, key: secret}}}, {name: HOME, value: /tmp}]
  envFrom: [{secretRef: {name: store, optional: true}}]
  resources: {limits: {memory: 256Mi}}
networkPolicy: {egressPorts: [443]}
""",
    "Istio with sidecars": "mesh: istio\nsettings: {kafka: {bootstrap_servers: 'k1:9093,k2:9093,k3:9094'}}",
    "Istio without sidecars": "mesh: ambient",
    "Linkerd": "mesh: linkerd\nworker: {podLabels: {team: a}, podAnnotations: {a/b: c}}",
    "account of the cloud": "serviceAccount: {annotations: {eks.amazonaws.com/role-arn: 'arn:aws:iam::1:role/a'}}",
    "account that exists": "serviceAccount: {create: false, name: streaming}",
    "placed": """
worker:
  priorityClassName: high
  nodeSelector: {pool: streaming}
  affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}]}}}
  topologySpreadConstraints: [{maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {a: b}}}]
  podAnnotations: {sidecar.istio.io/inject: "false"}
  podLabels: {team: "007"}
""",
    "variables": """
extraEnv: [{name: HTTPS_PROXY, value: "http://proxy:3128"}, {name: PENSTOCK_REGISTRY__PASSWORD, valueFrom: {secretKeyRef: {name: r, key: p}}}]
envFrom: [{secretRef: {name: more}}, {configMapRef: {name: less, optional: true}}]
""",
    "monitored": "podMonitor: {enabled: true, labels: {release: kube-prometheus}}\nprometheusRule: {enabled: true, labels: {role: alerts}}",
    "no policy": "networkPolicy: {enabled: false}",
    "long drain": "settings: {kafka: {drain_budget_s: 120}}",
    "grace as told": "worker: {terminationGracePeriodSeconds: 60}",
    "partitions known": "inputPartitions: 64\nsettings: {workers: 4}",
    "big numbers": "settings: {dead_letters: {window: 10000000, share_max: 0.000001}, model: {path: /models/m, cache_rows: 1000000}}",
    "sub-chart": "global: {storageClass: fast, anything: [1]}",
    "two clusters, one group": "clusterName: east",
    "files of the image": "image: {holds: [/opt/tls]}\nsettings: {kafka: {security: {protocol: SSL, ca_file: /opt/tls/ca.crt}}}",
}  # fmt: skip

# What a schema sees: the words of the path.
_bad_by_schema = {
    "top-level typo": ("setings: {}", ["setings"]),
    "keda typo": ("keda: {poolingInterval: 5}", ["keda", "poolingInterval"]),
    "worker typo": ("worker: {resource: {}}", ["worker", "resource"]),
    "guard typo": ("keda: {guard: {enable: true}}", ["keda", "guard", "enable"]),
    "settings typo": ("settings: {kafka: {bootstrap: a}}", ["settings", "kafka", "bootstrap"]),
    "settings of the output typo": ("settings: {output: {prediction: a}}", ["settings", "output", "prediction"]),
    "forbidden client property": ("settings: {kafka: {client: {enable.auto.commit: true}}}", ["settings", "kafka", "client"]),
    "negative grace": ("worker: {terminationGracePeriodSeconds: -5}", ["worker", "terminationGracePeriodSeconds"]),
    "guard many": ("keda: {guard: {lagThreshold: many}}", ["keda", "guard", "lagThreshold"]),
    "guard 0": ("keda: {guard: {lagThreshold: 0}}", ["keda", "guard", "lagThreshold"]),
    "guard taken out": ("keda: {guard: null}", ["keda", "guard"]),
    "port as text": ('settings: {http: {port: "9464"}}', ["settings", "http", "port"]),
    "port too high": ("settings: {scaling: {port: 70000}}", ["settings", "scaling", "port"]),
    "host taken out": ("settings: {http: {host: null}}", ["settings", "http", "host"]),
    "scaling host taken out": ("settings: {scaling: {host: null}}", ["settings", "scaling", "host"]),
    "topic as a number": ("settings: {input: {topic: 2024}}", ["settings", "input", "topic"]),
    "topic with a space": ("settings: {input: {topic: 'a b'}}", ["settings", "input", "topic"]),
    "group as a truth": ("settings: {kafka: {group: true}}", ["settings", "kafka", "group"]),
    "group taken out": ("settings: {kafka: {group: null}}", ["settings", "kafka"]),
    "no delivery": ("settings: {kafka: {delivery: sometimes}}", ["settings", "kafka", "delivery"]),
    "mechanism unknown": ("settings: {kafka: {security: {mechanism: GSSAPI}}}", ["settings", "kafka", "security", "mechanism"]),
    "negative replicas": ("settings: {scaling: {min_replicas: -1}}", ["settings", "scaling", "min_replicas"]),
    "half a replica": ("worker: {replicas: 1.5}", ["worker", "replicas"]),
    "replicas as text": ('scaler: {replicas: "2"}', ["scaler", "replicas"]),
    "drain of nothing": ("settings: {kafka: {drain_budget_s: 0}}", ["settings", "kafka", "drain_budget_s"]),
    "polling 0": ("keda: {pollingInterval: 0}", ["keda", "pollingInterval"]),
    "behaviour unknown": ("keda: {fallback: {behavior: sometimes}}", ["keda", "fallback", "behavior"]),
    "keda as a truth": ("keda: true", ["keda"]),
    "enabled as text": ('keda: {enabled: "false"}', ["keda", "enabled"]),
    "pull policy": ("image: {pullPolicy: Sometimes}", ["image", "pullPolicy"]),
    "digest cut": ("image: {digest: 'sha256:12'}", ["image", "digest"]),
    "digest in the name": ("image: {name: 'penstock@sha256:12'}", ["image", "name"]),
    "egress as text": ("networkPolicy: {egressPorts: ['9092']}", ["networkPolicy", "egressPorts"]),
    "no DNS": ("networkPolicy: {dnsPorts: []}", ["networkPolicy", "dnsPorts"]),
    "variable as a number": ("extraEnv: [{name: A, value: 5}]", ["extraEnv", "value"]),
    "variables as a map": ("extraEnv: {A: b}", ["extraEnv"]),
    "volume of two kinds": ("extraVolumes: [{name: a, secret: {}, configMap: {}}]", ["extraVolumes"]),
    "volume of the host": ("extraVolumes: [{name: a, hostPath: {path: /}}]", ["extraVolumes", "hostPath"]),
    "mount typo": ("extraVolumeMounts: [{name: a, path: /x}]", ["extraVolumeMounts"]),
    "mount without a slash": ("extraVolumeMounts: [{name: a, mountPath: x}]", ["extraVolumeMounts", "mountPath"]),
    "model volume unknown": ("modelVolume: {s3: {bucket: b}}", ["modelVolume"]),
    "amount of memory": ("worker: {resources: {limits: {memory: 2GB}}}", ["worker", "resources", "limits", "memory"]),
    "half a GPU": ("worker: {gpu: {count: 0.5}}", ["worker", "gpu", "count"]),
    "claim's name": ("worker: {gpu: {claimTemplate: One_GPU}}", ["worker", "gpu", "claimTemplate"]),
    "mesh unknown": ("mesh: consul", ["mesh"]),
    "mesh as a truth": ("mesh: true", ["mesh"]),
    "command as a text": ("modelInit: {image: a, command: cp -r}", ["modelInit", "command"]),
    "init typo": ("modelInit: {imge: a}", ["modelInit", "imge"]),
    "toleration effect": ("worker: {tolerations: [{effect: Never}]}", ["worker", "tolerations", "effect"]),
    "spread without a key": ("worker: {topologySpreadConstraints: [{maxSkew: 1}]}", ["worker", "topologySpreadConstraints"]),
    "affinity typo": ("worker: {affinity: {nodeAfinity: {}}}", ["worker", "affinity", "nodeAfinity"]),
    "label as a number": ("worker: {podLabels: {team: 7}}", ["worker", "podLabels", "team"]),
    "label of the chart": ("worker: {podLabels: {app.kubernetes.io/name: a}}", ["worker", "podLabels"]),
    "annotation of the chart": ("scaler: {podAnnotations: {penstock/group: a}}", ["scaler", "podAnnotations"]),
    "secret's name": ("secretName: Kafka_Login", ["secretName"]),
    "interval": ("podMonitor: {interval: often}", ["podMonitor", "interval"]),
    "partitions negative": ("inputPartitions: -1", ["inputPartitions"]),
}  # fmt: skip

# What only the chart sees: words of the sentence.
_bad_by_chart = {
    "loopback http": ("settings: {http: {host: 127.0.0.1}}", ["settings.http.host", "0.0.0.0"]),
    "loopback scaling": ("settings: {scaling: {host: localhost}}", ["settings.scaling.host", "0.0.0.0"]),
    "loopback brokers": ("settings: {kafka: {bootstrap_servers: 'localhost:9092'}}", ["bootstrap_servers"]),
    "loopback among brokers": ("settings: {kafka: {bootstrap_servers: 'k:9092,127.0.0.1:9092'}}", ["bootstrap_servers"]),
    "login in brokers": ("settings: {kafka: {bootstrap_servers: 'a:b@k:9092'}}", ["bootstrap_servers", "settings.kafka.security"]),
    "login in the registry": ("settings: {registry: {url: 'https://a:b@r'}}", ["registry.url", "PENSTOCK_REGISTRY__PASSWORD"]),
    "equal ports": ("settings: {http: {port: 9090}}", ["settings.http.port", "settings.scaling.port", "9090"]),
    "any port": ("settings: {http: {port: 0}}", ["settings.http.port"]),
    "ports past the end": ("settings: {http: {port: 65535}}", ["settings.http.port", "65535"]),
    "min over max": ("settings: {scaling: {min_replicas: 20}}", ["min_replicas", "20", "16"]),
    "grace under the drain": ("settings: {kafka: {drain_budget_s: 120}}\nworker: {terminationGracePeriodSeconds: 45}", ["terminationGracePeriodSeconds", "45", "130"]),
    "fallback 0": ("keda: {fallback: {replicas: 0}}", ["keda.fallback.replicas"]),
    "fallback over max": ("keda: {fallback: {replicas: 17}}", ["keda.fallback.replicas", "max_replicas"]),
    "no scaler for KEDA": ("scaler: {replicas: 0}", ["scaler.replicas", "keda.enabled"]),
    "no status for KEDA": ("settings: {output: {status: null}}", ["settings.output.status"]),
    "more pods than partitions": ("inputPartitions: 12", ["inputPartitions", "12", "16", "max_replicas"]),
    "more workers than partitions": ("inputPartitions: 16\nsettings: {workers: 2}", ["inputPartitions", "32"]),
    "more fixed pods than partitions": ("inputPartitions: 2\nkeda: {enabled: false}\nworker: {replicas: 3}", ["worker.replicas"]),
    "plain password": ("settings: {kafka: {security: {password: hunter2}}}", ["settings.kafka.security.password", "PENSTOCK_KAFKA__SECURITY__PASSWORD", "secretName"]),
    "plain password of the registry": ("settings: {registry: {url: 'https://r', password: hunter2}}", ["PENSTOCK_REGISTRY__PASSWORD"]),
    "plain secret in a variable": ("extraEnv: [{name: PENSTOCK_KAFKA__SECURITY__PASSWORD, value: hunter2}]", ["extraEnv", "PENSTOCK_KAFKA__SECURITY__PASSWORD", "secretKeyRef"]),
    "identity set": ("extraEnv: [{name: PENSTOCK_IDENTITY, value: a}]", ["PENSTOCK_IDENTITY"]),
    "authority not mounted": ("settings: {kafka: {security: {protocol: SSL, ca_file: /etc/kafka-tls/ca.crt}}}", ["settings.kafka.security.ca_file", "/etc/kafka-tls/ca.crt", "extraVolumes"]),
    "schema not mounted": ("settings: {input: {topic: t, schema: in.avsc}}", ["settings.input.schema", "/etc/penstock/in.avsc"]),
    "key of a model not mounted": ("settings: {model: {path: /models/m, trust: {keys: [/usr/a.pem, /etc/keys/b.pem]}}}", ["settings.model.trust.keys", "/etc/keys/b.pem"]),
    "mounted beside": (_tls + "settings: {kafka: {security: {protocol: SSL, ca_file: /etc/kafka-tls2/ca.crt}}}", ["/etc/kafka-tls2/ca.crt"]),
    "mount without its volume": ("extraVolumeMounts: [{name: a, mountPath: /a}]", ["extraVolumeMounts", "extraVolumes"]),
    "volume of the chart": ("extraVolumes: [{name: tmp, emptyDir: {}}]", ["extraVolumes", "tmp"]),
    "model beside its volume": ("modelVolume: {emptyDir: {}}\nsettings: {model: {path: /data/m}}", ["/data/m", "/models"]),
    "model from two places": ("modelVolume: {emptyDir: {}}\nmodelInit: {image: a}", ["modelVolume", "modelInit.image"]),
    "model beside what is fetched": ("modelInit: {image: a}\nsettings: {model: {path: /data/m}}", ["/data/m", "modelInit", "/models"]),
    "a container without its image": ("modelInit: {command: [cp]}", ["modelInit.image"]),
    "plain secret of the store": ("modelInit: {image: a, env: [{name: STORE_TOKEN, value: hunter2}]}", ["modelInit.env", "STORE_TOKEN"]),
    "GPU twice": ("worker: {gpu: {count: 1, claimTemplate: one-gpu}}", ["worker.gpu.count", "worker.gpu.claimTemplate"]),
    "TLS on one side": ("scaler: {tls: {secretName: a}}", ["keda.tls.secretName"]),
    "TLS by settings on one side": (_tls + "settings: {scaling: {certificate_file: /etc/kafka-tls/a, key_file: /etc/kafka-tls/b}}", ["keda.tls.secretName"]),
    "TLS on KEDA's side": ("keda: {tls: {secretName: a}}", ["scaler.tls.secretName"]),
    "certificate asked for and not there": ("scaler: {tls: {secretName: a, clientAuthority: true}}\nkeda: {tls: {secretName: a}}", ["keda.tls.clientCertificate"]),
    "guard without a Secret": ("settings: {kafka: {security: {protocol: SASL_SSL, mechanism: PLAIN, username: a}}}\nkeda: {guard: {enabled: true}}", ["keda.guard", "secretName"]),
    "guard without a name": ("secretName: s\nsettings: {kafka: {security: {protocol: SASL_SSL, mechanism: PLAIN}}}\nkeda: {guard: {enabled: true}}", ["keda.guard", "usernameKey"]),
    "guard without the authority": (_tls + "settings: {kafka: {security: {protocol: SSL, ca_file: /etc/kafka-tls/ca.crt}}}\nkeda: {guard: {enabled: true}}", ["caKey"]),
    "guard without the certificate": (_tls + "settings: {kafka: {security: {protocol: SSL, certificate_file: /etc/kafka-tls/c, key_file: /etc/kafka-tls/k}}}\nkeda: {guard: {enabled: true}}", ["certificateKey"]),
    "guard with tokens": ("secretName: s\nsettings: {kafka: {security: {protocol: SASL_SSL, mechanism: OAUTHBEARER, username: a}}}\nkeda: {guard: {enabled: true}}", ["OAUTHBEARER", "authenticationRef"]),
    "guard without a mechanism": ("secretName: s\nsettings: {kafka: {security: {protocol: SASL_SSL, username: a}}}\nkeda: {guard: {enabled: true}}", ["settings.kafka.security.mechanism"]),
    "login without a mechanism": ("settings: {kafka: {security: {protocol: SASL_SSL, username: a}}}", ["settings.kafka.security.mechanism"]),
    "long name": ("fullnameOverride: a-name-that-is-quite-a-bit-longer-than-pods-can-take", ["45", "fullnameOverride"]),
    "name with a dot": ("fullnameOverride: a.b", ["fullnameOverride"]),
}  # fmt: skip

good: dict[str, dict[str, Any]] = {name: yaml.safe_load(text) or {} for name, text in _good.items()}
bad_by_schema: dict[str, tuple[dict[str, Any], list[str]]] = {
    name: (yaml.safe_load(text), words) for name, (text, words) in _bad_by_schema.items()
}
bad_by_chart: dict[str, tuple[dict[str, Any], list[str]]] = {
    name: (yaml.safe_load(text), words) for name, (text, words) in _bad_by_chart.items()
}
