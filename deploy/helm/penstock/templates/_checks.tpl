{{- /* What values.schema.json cannot say: values that are right alone and wrong together. All of it is told at once. */ -}}
{{- define "penstock.checks" -}}
{{- $faults := list -}}
{{- $name := include "penstock.name" . -}}
{{- $settings := .Values.settings -}}
{{- $scaling := $settings.scaling -}}
{{- $http := $settings.http -}}
{{- $keda := .Values.keda -}}
{{- if not (regexMatch `^[a-z]([-a-z0-9]*[a-z0-9])?\z` $name) -}}
{{- $faults = append $faults (printf "%s cannot begin the names of services: small letters, digits and hyphens, a letter first; set fullnameOverride" $name) -}}
{{- end -}}
{{- if gt (len $name) 45 -}}
{{- $faults = append $faults (printf "the name %s is longer than 45 characters, and the pods' labels would not fit: set fullnameOverride" $name) -}}
{{- end -}}
{{- range $path, $host := dict "settings.http.host" $http.host "settings.scaling.host" $scaling.host -}}
{{- if regexMatch `^(127\..*|localhost|\[?::1\]?)\z` $host -}}
{{- $faults = append $faults (printf "%s is %s, which nothing outside the pod reaches, its probes included: 0.0.0.0" $path $host) -}}
{{- end -}}
{{- end -}}
{{- if regexMatch `(^|,|/)\s*(127\.[0-9.]+|localhost|\[::1\])(:|,|\s|\z)` $settings.kafka.bootstrap_servers -}}
{{- $faults = append $faults (printf "settings.kafka.bootstrap_servers is %s, which in a pod is the pod itself: name the brokers" $settings.kafka.bootstrap_servers) -}}
{{- end -}}
{{- if contains "@" $settings.kafka.bootstrap_servers -}}
{{- $faults = append $faults "settings.kafka.bootstrap_servers may not hold a name and a password: settings.kafka.security and the Secret named by secretName" -}}
{{- end -}}
{{- if regexMatch `^https?://[^/]*@` (dig "registry" "url" "" $settings) -}}
{{- $faults = append $faults "settings.registry.url may not hold a name and a password: settings.registry.username, and PENSTOCK_REGISTRY__PASSWORD in the Secret named by secretName" -}}
{{- end -}}
{{- $security := dig "kafka" "security" (dict) $settings -}}
{{- if and (hasPrefix "SASL" (dig "protocol" "PLAINTEXT" $security)) (not (dig "mechanism" "" $security)) -}}
{{- $faults = append $faults (printf "settings.kafka.security.mechanism is not set, and %s is a login: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER" $security.protocol) -}}
{{- end -}}
{{- if or (not $http.port) (not $scaling.port) -}}
{{- $faults = append $faults "settings.http.port and settings.scaling.port may not be 0 in a pod: services and probes must know them" -}}
{{- else if eq (int64 $http.port) (int64 $scaling.port) -}}
{{- $faults = append $faults (printf "settings.http.port and settings.scaling.port are both %d: the scaler listens on both" (int64 $http.port)) -}}
{{- end -}}
{{- if gt (add $http.port (dig "workers" 1 $settings)) 65535 -}}
{{- $faults = append $faults "settings.http.port and the ports after it, one for each of settings.workers, go past 65535" -}}
{{- end -}}
{{- if gt (int64 $scaling.min_replicas) (int64 $scaling.max_replicas) -}}
{{- $faults = append $faults (printf "settings.scaling.min_replicas is %d, more than max_replicas, which is %d" (int64 $scaling.min_replicas) (int64 $scaling.max_replicas)) -}}
{{- end -}}
{{- $grace := .Values.worker.terminationGracePeriodSeconds | int64 -}}
{{- $needed := add (ceil $settings.kafka.drain_budget_s | int64) 10 -}}
{{- if and (gt $grace 0) (lt $grace $needed) -}}
{{- $faults = append $faults (printf "worker.terminationGracePeriodSeconds is %d, and the drain of settings.kafka.drain_budget_s needs %d: raise it, or set 0 to have it derived" $grace $needed) -}}
{{- end -}}
{{- $partitions := .Values.inputPartitions | int64 -}}
{{- $pods := ternary (int64 $scaling.max_replicas) (int64 .Values.worker.replicas) $keda.enabled -}}
{{- $workers := mul $pods (dig "workers" 1 $settings) -}}
{{- if and (gt $partitions 0) (gt $workers $partitions) -}}
{{- $faults = append $faults (printf "%d pods with settings.workers each are %d workers, and inputPartitions is %d: the others would have nothing to do; lower %s, or add partitions" $pods $workers $partitions (ternary "settings.scaling.max_replicas" "worker.replicas" $keda.enabled)) -}}
{{- end -}}
{{- if $keda.enabled -}}
{{- if not $keda.fallback.replicas -}}
{{- $faults = append $faults "keda.fallback.replicas is 0: KEDA would stop every worker when the scaler answers with errors; at least 1" -}}
{{- else if gt (int64 $keda.fallback.replicas) (int64 $scaling.max_replicas) -}}
{{- $faults = append $faults "keda.fallback.replicas is more than settings.scaling.max_replicas" -}}
{{- end -}}
{{- if not .Values.scaler.replicas -}}
{{- $faults = append $faults "scaler.replicas is 0, and KEDA asks the scaler: at least 1, or keda.enabled: false" -}}
{{- end -}}
{{- if not (dig "output" "status" "" $settings) -}}
{{- $faults = append $faults "settings.output.status is not set: without the workers' reports the scaler does not know what one can do; name the topic, or set keda.enabled: false" -}}
{{- end -}}
{{- end -}}
{{- $faults = concat $faults (fromYaml (include "penstock.checks.secrets" .)).faults (fromYaml (include "penstock.checks.files" .)).faults (fromYaml (include "penstock.checks.tls" .)).faults -}}
{{- if $faults -}}{{- fail (printf "\n%s" (join "\n" $faults)) -}}{{- end -}}
{{- end }}

{{- /* Secrets come by reference: a ConfigMap and a pod's variables are read by many. */ -}}
{{- define "penstock.checks.secrets" -}}
{{- $faults := list -}}
{{- range $path := list "kafka.security.password" "kafka.security.key_password" "kafka.security.oauth_client_secret" "registry.password" -}}
{{- $node := $.Values.settings -}}
{{- range splitList "." $path -}}{{- if kindIs "map" $node -}}{{- $node = index $node . -}}{{- end -}}{{- end -}}
{{- if $node -}}
{{- $faults = append $faults (printf "settings.%s would stand in a ConfigMap for all to read: put PENSTOCK_%s into the Secret named by secretName" $path (regexReplaceAll `\.` $path "__" | upper)) -}}
{{- end -}}
{{- end -}}
{{- range concat .Values.extraEnv .Values.modelInit.env -}}
{{- if and (regexMatch `(?i)(password|secret|token)\z` .name) (index . "value") -}}
{{- $faults = append $faults (printf "extraEnv or modelInit.env gives %s as plain text: valueFrom.secretKeyRef, or the Secret named by secretName" .name) -}}
{{- end -}}
{{- if eq .name "PENSTOCK_IDENTITY" -}}
{{- $faults = append $faults "extraEnv may not set PENSTOCK_IDENTITY: it is the pod's name, and two workers with one would fence each other" -}}
{{- end -}}
{{- end -}}
{{ toYaml (dict "faults" $faults) }}
{{- end }}

{{- /* Every file that the settings name must lie in something that is mounted, or in the image. */ -}}
{{- define "penstock.checks.files" -}}
{{- $faults := list -}}
{{- $volumes := list -}}
{{- range .Values.extraVolumes -}}{{- $volumes = append $volumes .name -}}{{- end -}}
{{- range list "settings" "tmp" "model" "scaler-tls" -}}
{{- if has . $volumes -}}{{- $faults = append $faults (printf "extraVolumes may not use the name %s, which the chart uses itself" .) -}}{{- end -}}
{{- end -}}
{{- $held := concat (list "/etc/ssl" "/etc/pki" "/usr") .Values.image.holds -}}
{{- range .Values.extraVolumeMounts -}}
{{- $held = append $held .mountPath -}}
{{- if not (has .name $volumes) -}}{{- $faults = append $faults (printf "extraVolumeMounts mounts %s, which is not in extraVolumes" .name) -}}{{- end -}}
{{- end -}}
{{- range $path := list "kafka.security.ca_file" "kafka.security.certificate_file" "kafka.security.key_file" "kafka.security.password_file" "kafka.security.oauth_client_secret_file" "registry.ca_file" "registry.password_file" "input.schema" "input.writer_schemas" "model.trust.keys" "http.bundles" "scaling.certificate_file" "scaling.key_file" "scaling.client_ca_file" "admin.audit_key_file" "admin.tokens" "admin.certificate_file" "admin.key_file" "admin.client_ca_file" "admin.jwt.jwks_ca_file" "tracing.token_file" "tracing.ca_file" -}}
{{- $node := $.Values.settings -}}
{{- range splitList "." $path -}}{{- if kindIs "map" $node -}}{{- $node = index $node . -}}{{- end -}}{{- end -}}
{{- $files := list -}}
{{- if kindIs "string" $node -}}{{- $files = list $node -}}{{- else if kindIs "slice" $node -}}{{- $files = $node -}}{{- else if kindIs "map" $node -}}{{- range $name, $each := $node -}}{{- $files = append $files $each -}}{{- end -}}{{- end -}}
{{- range $each := $files -}}
{{- $given := $each -}}
{{- if kindIs "map" $each -}}{{- $given = index $each "file" -}}{{- end -}}
{{- $file := ternary $given (printf "/etc/penstock/%s" $given) (hasPrefix "/" $given) -}}
{{- $there := false -}}
{{- range $held -}}{{- if or (eq $file .) (hasPrefix (printf "%s/" (trimSuffix "/" .)) $file) -}}{{- $there = true -}}{{- end -}}{{- end -}}
{{- if not $there -}}
{{- $faults = append $faults (printf "settings.%s is %s, and nothing is mounted there: name its Secret or ConfigMap in extraVolumes and extraVolumeMounts, or its folder in image.holds" $path $file) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $fetched := ternary "modelInit" "modelVolume" (not .Values.modelVolume) -}}
{{- if and (or .Values.modelVolume .Values.modelInit.image) (not (regexMatch `^/models(/|\z)` .Values.settings.model.path)) -}}
{{- $faults = append $faults (printf "settings.model.path is %s, and %s is mounted at /models" .Values.settings.model.path $fetched) -}}
{{- end -}}
{{- if and .Values.modelVolume .Values.modelInit.image -}}
{{- $faults = append $faults "modelVolume and modelInit.image both bring the model to /models: one of them" -}}
{{- end -}}
{{- if and (not .Values.modelInit.image) (or .Values.modelInit.command .Values.modelInit.args .Values.modelInit.env .Values.modelInit.envFrom) -}}
{{- $faults = append $faults "modelInit.image is not set, and without it the rest of modelInit does nothing" -}}
{{- end -}}
{{- if and .Values.worker.gpu.count .Values.worker.gpu.claimTemplate -}}
{{- $faults = append $faults "worker.gpu.count asks the device plugin and worker.gpu.claimTemplate a resource claim, each for a GPU of its own: one of them" -}}
{{- end -}}
{{ toYaml (dict "faults" $faults) }}
{{- end }}

{{- /* KEDA and the scaler must speak the same: plain, TLS, or TLS with KEDA's own certificate. */ -}}
{{- define "penstock.checks.tls" -}}
{{- $faults := list -}}
{{- $own := or .Values.scaler.tls.secretName (dig "certificate_file" "" .Values.settings.scaling) -}}
{{- $authority := or (and .Values.scaler.tls.secretName .Values.scaler.tls.clientAuthority) (dig "client_ca_file" "" .Values.settings.scaling) -}}
{{- if and .Values.scaler.tls.clientAuthority (not .Values.scaler.tls.secretName) -}}
{{- $faults = append $faults "scaler.tls.clientAuthority needs scaler.tls.secretName" -}}
{{- end -}}
{{- if and .Values.keda.tls.clientCertificate (not .Values.keda.tls.secretName) -}}
{{- $faults = append $faults "keda.tls.clientCertificate needs keda.tls.secretName" -}}
{{- end -}}
{{- if .Values.keda.enabled -}}
{{- if and $own (not .Values.keda.tls.secretName) -}}
{{- $faults = append $faults "the scaler speaks TLS, and KEDA does not: set keda.tls.secretName to a Secret with ca.crt" -}}
{{- end -}}
{{- if and .Values.keda.tls.secretName (not $own) -}}
{{- $faults = append $faults "keda.tls.secretName is set, and the scaler speaks no TLS: set scaler.tls.secretName to a Secret with tls.crt and tls.key" -}}
{{- end -}}
{{- if and $authority (not .Values.keda.tls.clientCertificate) -}}
{{- $faults = append $faults "the scaler asks for a certificate, and KEDA has none: set keda.tls.clientCertificate, with tls.crt and tls.key in the Secret of keda.tls.secretName" -}}
{{- end -}}
{{- end -}}
{{ toYaml (dict "faults" $faults) }}
{{- end }}
