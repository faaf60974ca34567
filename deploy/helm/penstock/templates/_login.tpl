{{- /* The name to log in with where it stands in the settings, and the guard needs it. */ -}}
{{- define "penstock.guardUsername" -}}
{{- $security := dig "kafka" "security" (dict) .Values.settings -}}
{{- if and (hasPrefix "SASL" (dig "protocol" "PLAINTEXT" $security)) (not .Values.keda.guard.login.usernameKey) -}}
{{ dig "username" "" $security }}
{{- end }}
{{- end }}

{{- /* The spec of the guard's TriggerAuthentication, from the Secret that the pods use; empty where no login is needed. */ -}}
{{- define "penstock.guardLogin" -}}
{{- $login := .Values.keda.guard.login -}}
{{- $secret := $login.secretName | default .Values.secretName -}}
{{- $security := dig "kafka" "security" (dict) .Values.settings -}}
{{- $protocol := dig "protocol" "PLAINTEXT" $security -}}
{{- if not .Values.keda.guard.authenticationRef -}}
{{- $refs := list -}}
{{- if hasPrefix "SASL" $protocol -}}
{{- if $login.usernameKey -}}{{- $refs = append $refs (dict "parameter" "username" "name" $secret "key" $login.usernameKey) -}}{{- end -}}
{{- $refs = append $refs (dict "parameter" "password" "name" $secret "key" $login.passwordKey) -}}
{{- end -}}
{{- if hasSuffix "SSL" $protocol -}}
{{- if $login.caKey -}}{{- $refs = append $refs (dict "parameter" "ca" "name" $secret "key" $login.caKey) -}}{{- end -}}
{{- if $login.certificateKey -}}{{- $refs = append $refs (dict "parameter" "cert" "name" $secret "key" $login.certificateKey) -}}{{- end -}}
{{- if $login.keyKey -}}{{- $refs = append $refs (dict "parameter" "key" "name" $secret "key" $login.keyKey) -}}{{- end -}}
{{- if $login.keyPasswordKey -}}{{- $refs = append $refs (dict "parameter" "keyPassword" "name" $secret "key" $login.keyPasswordKey) -}}{{- end -}}
{{- end -}}
{{- if $refs -}}
secretTargetRef:
{{- range $refs }}
  - {{ toJson . }}
{{- end }}
{{- if include "penstock.guardUsername" . }}
configMapTargetRef:
  - {parameter: username, name: {{ printf "%s-guard" (include "penstock.name" .) | quote }}, key: username}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The guard is a second way in for KEDA: without its whole login it would take the first one down with it. */ -}}
{{- define "penstock.checks.login" -}}
{{- $faults := list -}}
{{- $login := .Values.keda.guard.login -}}
{{- $security := dig "kafka" "security" (dict) .Values.settings -}}
{{- $protocol := dig "protocol" "PLAINTEXT" $security -}}
{{- $mechanism := dig "mechanism" "" $security -}}
{{- if and .Values.keda.enabled .Values.keda.guard.enabled (not .Values.keda.guard.authenticationRef) (ne $protocol "PLAINTEXT") -}}
{{- $secret := $login.secretName | default .Values.secretName -}}
{{- if and (hasPrefix "SASL" $protocol) (not $secret) -}}
{{- $faults = append $faults (printf "keda.guard needs the login of %s, and no Secret is named: set secretName or keda.guard.login.secretName, or leave the guard off" $protocol) -}}
{{- end -}}
{{- if and (hasPrefix "SASL" $protocol) (not $login.passwordKey) -}}
{{- $faults = append $faults "keda.guard.login.passwordKey is empty: name the key of the Secret that holds the password, or leave the guard off" -}}
{{- end -}}
{{- if and (hasPrefix "SASL" $protocol) (not $login.usernameKey) (not (dig "username" "" $security)) -}}
{{- $faults = append $faults "keda.guard has no name to log in with: set settings.kafka.security.username or keda.guard.login.usernameKey, or leave the guard off" -}}
{{- end -}}
{{- if and (hasPrefix "SASL" $protocol) (eq $mechanism "OAUTHBEARER") -}}
{{- $faults = append $faults "keda.guard cannot log in with OAUTHBEARER by itself: name a TriggerAuthentication of yours in keda.guard.authenticationRef, or leave the guard off" -}}
{{- end -}}
{{- if hasSuffix "SSL" $protocol -}}
{{- if and (or $login.caKey $login.certificateKey $login.keyKey $login.keyPasswordKey) (not $secret) -}}
{{- $faults = append $faults "keda.guard.login names keys, and no Secret that holds them: set keda.guard.login.secretName" -}}
{{- end -}}
{{- if and (dig "ca_file" "" $security) (not $login.caKey) -}}
{{- $faults = append $faults "settings.kafka.security.ca_file names an authority that KEDA does not know: set keda.guard.login.caKey to the key of the Secret that holds it, or leave the guard off" -}}
{{- end -}}
{{- if and (dig "certificate_file" "" $security) (not (and $login.certificateKey $login.keyKey)) -}}
{{- $faults = append $faults "the brokers ask for a certificate: set keda.guard.login.certificateKey and keyKey to the keys of the Secret that hold it, or leave the guard off" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $faults -}}{{- fail (printf "\n%s" (join "\n" $faults)) -}}{{- end -}}
{{- end }}
