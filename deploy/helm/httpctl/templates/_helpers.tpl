{{- define "httpctl.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 48 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 48 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 48 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Labels by which pods are selected: never changed by an upgrade. Takes (dict "top" . "component" "agent"). */}}
{{- define "httpctl.selector" -}}
app.kubernetes.io/name: {{ default .top.Chart.Name .top.Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .top.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "httpctl.labels" -}}
{{ include "httpctl.selector" . }}
app.kubernetes.io/version: {{ .top.Chart.AppVersion | replace "+" "_" | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .top.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .top.Chart.Name .top.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{/* + is not allowed in a tag. */}}
{{- define "httpctl.image" -}}
{{- $tag := coalesce (get .top.Values .component).imageTag .top.Values.image.tag .top.Chart.AppVersion | replace "+" "-" -}}
{{- with .top.Values.image.registry }}{{ . | trimSuffix "/" }}/{{ end }}httpctl-{{ .component }}:{{ $tag }}
{{- end -}}

{{/* The name by which agents reach the aggregator: headless, so that the address is the pod's. Behind
     a cluster address the node's translation would hide the agent's own connection from it. */}}
{{- define "httpctl.headless" -}}
{{ include "httpctl.fullname" . }}-aggregator-pods.{{ .Release.Namespace }}.svc
{{- end -}}

{{- define "httpctl.settings" -}}
{{- $all := dict "log" .Values.log -}}
{{- toYaml (mergeOverwrite $all (deepCopy .Values.settings)) -}}
{{- end -}}

{{/* The secret with the token by which nodes come into the fleet. */}}
{{- define "httpctl.token" -}}
{{- default (printf "%s-enroll" (include "httpctl.fullname" .)) .Values.agent.enroll.secretName -}}
{{- end -}}

{{- define "httpctl.agent.config" -}}
{{- $address := default (printf "%s:7420" (include "httpctl.headless" .)) .Values.agent.aggregator -}}
{{- $own := dict "aggregator" $address "state" "/var/lib/httpctl-agent" "capture" (dict "interfaces" .Values.agent.interfaces) -}}
{{- if .Values.agent.tls.secretName -}}
{{- $_ := set $own "tls" (dict "cert_file" "/run/httpctl/tls/tls.crt" "key_file" "/run/httpctl/tls/tls.key" "ca_file" "/run/httpctl/tls/ca.crt") -}}
{{- end -}}
{{ include "httpctl.settings" . }}
{{ toYaml (dict "agent" (mergeOverwrite $own (deepCopy .Values.agent.config))) }}
{{- end -}}

{{- define "httpctl.aggregator.config" -}}
{{- if and .Values.aggregator.tls.secretName (not .Values.aggregator.config.roles) -}}
{{- fail "aggregator.config.roles: say which certificates may do what, such as {agent: [agents.example.org], viewer: [alice.example.org]}" -}}
{{- end -}}
{{- $own := dict "data" "/var/lib/httpctl" "listen" (list ":7420") -}}
{{- if .Values.aggregator.tls.secretName -}}
{{- $_ := set $own "tls" (dict "cert_file" "/run/httpctl/tls/tls.crt" "key_file" "/run/httpctl/tls/tls.key" "ca_file" "/run/httpctl/tls/ca.crt") -}}
{{- end -}}
{{ include "httpctl.settings" . }}
{{ toYaml (dict "aggregator" (mergeOverwrite $own (deepCopy .Values.aggregator.config))) }}
{{- end -}}
