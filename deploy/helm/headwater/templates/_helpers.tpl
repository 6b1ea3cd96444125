{{/* The prefix of all names. It is also the label app.kubernetes.io/name, so that two releases in one namespace never select each other's pods. */}}
{{- define "headwater.name" -}}
{{- if .Values.nameOverride -}}
{{- .Values.nameOverride -}}
{{- else if contains "headwater" .Release.Name -}}
{{- .Release.Name -}}
{{- else -}}
{{- printf "%s-headwater" .Release.Name -}}
{{- end -}}
{{- end }}

{{/* Labels of every object. */}}
{{- define "headwater.labels" -}}
app.kubernetes.io/name: {{ include "headwater.name" . }}
app.kubernetes.io/part-of: headwater
{{- end }}

{{/* What selects the server's pods. */}}
{{- define "headwater.server" -}}
app.kubernetes.io/name: {{ include "headwater.name" . }}
app.kubernetes.io/component: server
{{- end }}

{{/* What selects Redis's pod. */}}
{{- define "headwater.redis" -}}
app.kubernetes.io/name: {{ include "headwater.name" . }}
app.kubernetes.io/component: redis
{{- end }}

{{/* SSE_LOG, unless `config` has one. Empty: it is in the Secret. */}}
{{- define "headwater.log" -}}
{{- if eq .Values.log.kind "redis" -}}
redis://{{ include "headwater.name" . }}-redis:6379/0
{{- else if eq .Values.log.kind "sqlite" -}}
sqlite:////data/headwater.db
{{- end -}}
{{- end }}

{{/* The drain (delay + window) or the runs' grace, whichever is longer, + 5 for ordinary requests and the exit + 5 until SIGKILL: sse/settings/model.py, termination_grace. The numbers after `default` are the service's defaults. */}}
{{- define "headwater.grace" -}}
{{- $delay := .Values.config.SSE_DRAIN_DELAY | default "5" | float64 -}}
{{- $window := .Values.config.SSE_DRAIN_WINDOW | default "15" | float64 -}}
{{- $runs := .Values.config.SSE_RUN_GRACE | default "0" | float64 -}}
{{- add (ceil (maxf (addf $delay $window) $runs)) 10 -}}
{{- end }}

{{/* What values together cannot mean. */}}
{{- define "headwater.check" -}}
{{- if and (eq .Values.log.kind "sqlite") (or (ne (int .Values.replicas) 1) .Values.autoscaling.enabled) -}}
{{- fail "log.kind is sqlite: the file belongs to one pod, so set replicas to 1 and leave autoscaling off (values/single.yaml)" -}}
{{- end -}}
{{- if and (eq .Values.log.kind "external") .Values.networkPolicy.enabled (not .Values.log.externalEgress) -}}
{{- fail "log.kind is external: say in log.externalEgress how pods reach the log, or set networkPolicy.enabled to false" -}}
{{- end -}}
{{- if and (ne .Values.log.kind "external") .Values.config.SSE_LOG -}}
{{- fail "config.SSE_LOG is set: set log.kind to external, so that the chart brings no log of its own" -}}
{{- end -}}
{{- end }}
