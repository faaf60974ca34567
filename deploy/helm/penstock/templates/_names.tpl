{{- define "penstock.name" -}}
{{ .Values.fullnameOverride | default .Release.Name }}
{{- end }}

{{- define "penstock.labels" -}}
app.kubernetes.io/name: penstock
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end }}

{{- /* The labels that selectors ask for; they may never change. */ -}}
{{- define "penstock.selector" -}}
{app.kubernetes.io/name: penstock, app.kubernetes.io/instance: {{ .root.Release.Name | quote }}, app.kubernetes.io/component: {{ .component }}}
{{- end }}

{{- define "penstock.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (printf "%s-penstock" (include "penstock.name" .)) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- define "penstock.grace" -}}
{{- if .Values.worker.terminationGracePeriodSeconds -}}
{{ .Values.worker.terminationGracePeriodSeconds | int64 }}
{{- else -}}
{{ add (.Values.settings.kafka.drain_budget_s | ceil | int64) 15 }}
{{- end }}
{{- end }}

{{- /* The port of host:port or of an address, else the default: (list text default). */ -}}
{{- define "penstock.port" -}}
{{- $text := index . 0 | trim -}}
{{- if regexMatch `:[0-9]+(/.*)?\z` $text -}}
{{ regexReplaceAll `^.*:([0-9]+)(/.*)?\z` $text "${1}" }}
{{- else if hasPrefix "http://" $text -}}
80
{{- else if hasPrefix "https://" $text -}}
443
{{- else -}}
{{ index . 1 }}
{{- end }}
{{- end }}

{{- /* Ports of the brokers, one a line, each once. */ -}}
{{- define "penstock.brokerPorts" -}}
{{- $ports := list -}}
{{- range splitList "," .Values.settings.kafka.bootstrap_servers -}}
{{- if trim . -}}{{- $ports = append $ports (include "penstock.port" (list . "9092")) -}}{{- end -}}
{{- end -}}
{{ join "\n" (uniq $ports) }}
{{- end }}

{{- /* Ports that the settings lead to, and the mesh, one a line, each once. */ -}}
{{- define "penstock.egressPorts" -}}
{{- $ports := splitList "\n" (include "penstock.brokerPorts" .) -}}
{{- with dig "registry" "url" "" .Values.settings -}}{{- $ports = append $ports (include "penstock.port" (list . "443")) -}}{{- end -}}
{{- with dig "kafka" "security" "oauth_token_url" "" .Values.settings -}}{{- $ports = append $ports (include "penstock.port" (list . "443")) -}}{{- end -}}
{{- with dig "tracing" "endpoint" "" .Values.settings -}}{{- $ports = append $ports (include "penstock.port" (list . "443")) -}}{{- end -}}
{{- range get (dict "istio" (list "15012") "ambient" (list "15008") "linkerd" (list "8080" "8086" "8090")) .Values.mesh | default (list) -}}{{- $ports = append $ports . -}}{{- end -}}
{{- range .Values.networkPolicy.egressPorts -}}{{- $ports = append $ports (. | int64 | toString) -}}{{- end -}}
{{ join "\n" (uniq $ports) }}
{{- end }}
