{{- /* Annotations and labels of a pod: (dict "root" $ "component" "worker" "own" .Values.worker). */ -}}
{{- define "penstock.podMeta" -}}
labels:
  app.kubernetes.io/name: penstock
  app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
  app.kubernetes.io/component: {{ .component }}
  {{- if eq .root.Values.mesh "istio" }}
  sidecar.istio.io/inject: "true"
  {{- else if eq .root.Values.mesh "ambient" }}
  istio.io/dataplane-mode: ambient
  {{- end }}
  {{- with .own.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  penstock/settings-digest: {{ toYaml .root.Values.settings | sha256sum | quote }}
  prometheus.io/scrape: "true"
  prometheus.io/port: {{ .root.Values.settings.http.port | int64 | quote }}
  penstock/group: {{ .root.Values.settings.kafka.group | quote }}
  {{- $brokers := include "penstock.brokerPorts" .root | splitList "\n" | join "," }}
  {{- $asked := printf "%d,%d" (int64 .root.Values.settings.http.port) (int64 .root.Values.settings.scaling.port) }}
  {{- if eq .root.Values.mesh "istio" }}
  # The engine asks its brokers at once, and goes on doing so until it has drained.
  proxy.istio.io/config: '{"holdApplicationUntilProxyStarts": true}'
  traffic.sidecar.istio.io/excludeOutboundPorts: {{ $brokers | quote }}
  traffic.sidecar.istio.io/excludeInboundPorts: {{ $asked | quote }}
  {{- else if eq .root.Values.mesh "linkerd" }}
  linkerd.io/inject: enabled
  config.beta.linkerd.io/proxy-enable-native-sidecar: "true"
  config.linkerd.io/skip-outbound-ports: {{ $brokers | quote }}
  config.linkerd.io/skip-inbound-ports: {{ $asked | quote }}
  {{- end }}
  {{- with .own.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- /* A pod of either kind, fit for the restricted level of pod security. Also "command" and "grace". */ -}}
{{- define "penstock.podSpec" -}}
{{- $values := .root.Values -}}
{{- $worker := eq .component "worker" -}}
{{- $tls := and (not $worker) $values.scaler.tls.secretName -}}
serviceAccountName: {{ include "penstock.serviceAccount" .root | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ .grace }}
securityContext: {runAsNonRoot: true, runAsUser: 10001, runAsGroup: 10001, fsGroup: 10001, seccompProfile: {type: RuntimeDefault}}
{{- with $values.image.pullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- with .own.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- with .own.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .own.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .own.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- with .own.affinity }}
affinity: {{ toJson . }}
{{- end }}
topologySpreadConstraints:
  {{- if .own.topologySpreadConstraints }}
  {{- toYaml .own.topologySpreadConstraints | nindent 2 }}
  {{- else }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector: {matchLabels: {{ include "penstock.selector" . }}}
  {{- end }}
{{- if and $worker .own.gpu.claimTemplate }}
resourceClaims: [{name: gpu, resourceClaimTemplateName: {{ .own.gpu.claimTemplate | quote }}}]
{{- end }}
{{- if and $worker $values.modelInit.image }}
initContainers:
  - name: model
    image: {{ $values.modelInit.image | quote }}
    imagePullPolicy: {{ $values.image.pullPolicy }}
    {{- with $values.modelInit.command }}
    command: {{ toJson . }}
    {{- end }}
    {{- with $values.modelInit.args }}
    args: {{ toJson . }}
    {{- end }}
    {{- with $values.modelInit.env }}
    env: {{ toJson . }}
    {{- end }}
    {{- with $values.modelInit.envFrom }}
    envFrom: {{ toJson . }}
    {{- end }}
    {{- with $values.modelInit.resources }}
    resources: {{ toJson . }}
    {{- end }}
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
    volumeMounts:
      - {name: model, mountPath: /models}
      - {name: tmp, mountPath: /tmp}
{{- end }}
containers:
  - name: {{ .component }}
    image: {{ if $values.image.digest }}{{ printf "%s@%s" $values.image.name $values.image.digest | quote }}{{ else }}{{ $values.image.name | quote }}{{ end }}
    imagePullPolicy: {{ $values.image.pullPolicy }}
    args: [{{ .command }}, /etc/penstock/penstock.yaml]
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
    {{- if and $worker .own.gpu.count }}
    {{- $requests := dig "requests" (dict) .own.resources }}
    {{- $limits := dig "limits" (dict) .own.resources }}
    resources:
      requests:
        {{- with $requests }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{ .own.gpu.resource | quote }}: {{ .own.gpu.count | int64 | quote }}
      limits:
        {{- with $limits }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{ .own.gpu.resource | quote }}: {{ .own.gpu.count | int64 | quote }}
    {{- else if and $worker .own.gpu.claimTemplate }}
    resources:
      {{- with .own.resources }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
      claims: [{name: gpu}]
    {{- else }}
    resources: {{ toJson .own.resources }}
    {{- end }}
    ports:
      - {name: http, containerPort: {{ $values.settings.http.port | int64 }}}
      {{- if not $worker }}
      - {name: grpc, containerPort: {{ $values.settings.scaling.port | int64 }}}
      {{- end }}
    env:
      # Part of the transactional ids: whoever comes back under this name fences what the last one left open.
      {{- with $values.clusterName }}
      - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
      - {name: PENSTOCK_IDENTITY, value: {{ printf "$(POD_NAME).%s" . | quote }}}
      {{- else }}
      - {name: PENSTOCK_IDENTITY, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
      {{- end }}
      {{- if $tls }}
      - {name: PENSTOCK_SCALING__CERTIFICATE_FILE, value: /etc/penstock-tls/tls.crt}
      - {name: PENSTOCK_SCALING__KEY_FILE, value: /etc/penstock-tls/tls.key}
      {{- if $values.scaler.tls.clientAuthority }}
      - {name: PENSTOCK_SCALING__CLIENT_CA_FILE, value: /etc/penstock-tls/ca.crt}
      {{- end }}
      {{- end }}
      {{- with $values.extraEnv }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- if or $values.secretName $values.envFrom }}
    envFrom:
      {{- with $values.secretName }}
      - {secretRef: {name: {{ . | quote }}}}
      {{- end }}
      {{- with $values.envFrom }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- end }}
    {{- if $worker }}
    # Live while it warms up and while it waits for a broker, so that no start-up probe has to guess how long a model takes.
    livenessProbe: {httpGet: {path: /live, port: http}, initialDelaySeconds: 10, periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 3}
    {{- else }}
    livenessProbe: {httpGet: {path: /live, port: http}, initialDelaySeconds: 5, periodSeconds: 10, timeoutSeconds: 5}
    {{- end }}
    readinessProbe: {httpGet: {path: /ready, port: http}, periodSeconds: 5, timeoutSeconds: 5}
    volumeMounts:
      - {name: settings, mountPath: /etc/penstock, readOnly: true}
      - {name: tmp, mountPath: /tmp}
      {{- if and $worker (or $values.modelVolume $values.modelInit.image) }}
      - {name: model, mountPath: /models, readOnly: true}
      {{- end }}
      {{- if $tls }}
      - {name: scaler-tls, mountPath: /etc/penstock-tls, readOnly: true}
      {{- end }}
      {{- with $values.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  - name: settings
    configMap: {name: {{ printf "%s-settings" (include "penstock.name" .root) | quote }}, items: [{key: penstock.yaml, path: penstock.yaml}]}
  - {name: tmp, emptyDir: {}}
  {{- if and $worker $values.modelVolume }}
  - name: model
    {{- toYaml $values.modelVolume | nindent 4 }}
  {{- else if and $worker $values.modelInit.image }}
  - {name: model, emptyDir: {}}
  {{- end }}
  {{- if $tls }}
  - {name: scaler-tls, secret: {secretName: {{ $values.scaler.tls.secretName | quote }}}}
  {{- end }}
  {{- with $values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
