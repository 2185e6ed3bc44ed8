{{- define "clockwork.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "clockwork.labels" -}}
app.kubernetes.io/name: clockwork
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{/* Of the pods of one role: (list root "api") */}}
{{- define "clockwork.selector" -}}
app.kubernetes.io/name: clockwork
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "clockwork.image" -}}
{{ .Values.image.repository }}:{{ include "clockwork.text" (list "image.tag" .Values.image.tag) | default .Chart.AppVersion }}
{{- end -}}

{{/* Host of a call through a Service: without keys a node takes no other name, and pods are called by address. */}}
{{- define "clockwork.hosts" -}}
{{- $root := . -}}
{{- $names := list -}}
{{- range $service := list (include "clockwork.name" .) (printf "%s-worker" (include "clockwork.name" .)) -}}
{{- range $domain := list "" ".NS" ".NS.svc" ".NS.svc.cluster.local" -}}
{{- $names = append $names (printf "%s%s" $service ($domain | replace "NS" $root.Release.Namespace)) -}}
{{- end -}}
{{- end -}}
{{- join "," $names -}}
{{- end -}}

{{/* A value of values.yaml as the text that was written: (list "its name" value). Plain YAML makes numbers floats (604800000
would print as 6.048e+08, 1.10 as 1.1), and `off` false; a list is joined by commas. */}}
{{- define "clockwork.text" -}}
{{- $name := index . 0 -}}
{{- $value := index . 1 -}}
{{- if kindIs "float64" $value -}}
{{- if ne (floor $value) $value -}}
{{- fail (printf "%s: %v has a fraction; write it in quotes" $name $value) -}}
{{- end -}}
{{- int64 $value -}}
{{- else if kindIs "slice" $value -}}
{{- join "," $value -}}
{{- else if kindIs "map" $value -}}
{{- fail (printf "%s: should be a text, a number, true or false, or a list of texts" $name) -}}
{{- else if not (kindIs "invalid" $value) -}}
{{- $value -}}
{{- end -}}
{{- end -}}

{{/* Absent, null and "" are left out; 0, false and off are texts by then, and stay. */}}
{{- define "clockwork.environment" -}}
{{- if not .Values.settings.CLOCKWORK_HTTP_HOSTS }}
- name: CLOCKWORK_HTTP_HOSTS
  value: {{ include "clockwork.hosts" . | quote }}
{{- end }}
{{- range $name, $value := .Values.settings }}
{{- with include "clockwork.text" (list (printf "settings.%s" $name) $value) }}
- name: {{ $name }}
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- if .Values.httpTlsSecretName }}
- name: CLOCKWORK_HTTP_TLS_CERT
  value: /etc/clockwork/http/tls.crt
- name: CLOCKWORK_HTTP_TLS_KEY
  value: /etc/clockwork/http/tls.key
{{- end }}
{{- if .Values.kafkaTlsSecretName }}
- name: CLOCKWORK_KAFKA_TLS_CA
  value: /etc/clockwork/kafka/ca.crt
{{- if .Values.kafkaTlsOwnCertificate }}
- name: CLOCKWORK_KAFKA_TLS_CERT
  value: /etc/clockwork/kafka/tls.crt
- name: CLOCKWORK_KAFKA_TLS_KEY
  value: /etc/clockwork/kafka/tls.key
{{- end }}
{{- end }}
{{- if .Values.postgresTlsSecretName }}
- name: CLOCKWORK_POSTGRES_TLS_CA
  value: /etc/clockwork/postgres/ca.crt
{{- if .Values.postgresTlsOwnCertificate }}
- name: CLOCKWORK_POSTGRES_TLS_CERT
  value: /etc/clockwork/postgres/tls.crt
- name: CLOCKWORK_POSTGRES_TLS_KEY
  value: /etc/clockwork/postgres/tls.key
{{- end }}
{{- end }}
{{- end -}}

{{/* The Secrets whose keys are settings: (list root "init"); of two with one key the later counts. */}}
{{- define "clockwork.secrets" -}}
{{- $root := index . 0 -}}
{{- $own := ternary $root.Values.init.secretName "" (eq (index . 1) "init") -}}
{{- if or $root.Values.secretName $own -}}
envFrom:
  {{- range list $root.Values.secretName $own }}
  {{- if . }}
  - secretRef:
      name: {{ . }}
  {{- end }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "clockwork.container" -}}
image: {{ include "clockwork.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
volumeMounts:
  # Sockets of several processes (CLOCKWORK_PROCESSES); nothing else is written.
  - name: tmp
    mountPath: /tmp
  {{- if .Values.httpTlsSecretName }}
  - name: http-tls
    mountPath: /etc/clockwork/http
    readOnly: true
  {{- end }}
  {{- if .Values.kafkaTlsSecretName }}
  - name: kafka-tls
    mountPath: /etc/clockwork/kafka
    readOnly: true
  {{- end }}
  {{- if .Values.postgresTlsSecretName }}
  - name: postgres-tls
    mountPath: /etc/clockwork/postgres
    readOnly: true
  {{- end }}
{{- end -}}

{{/* A node's port and probes. Started at once; ready when it can do what its role does. */}}
{{- define "clockwork.probes" -}}
{{- $scheme := ternary "HTTPS" "HTTP" (not (empty .Values.httpTlsSecretName)) -}}
ports:
  - name: http
    containerPort: 8080
startupProbe:
  httpGet: {path: /livez, port: http, scheme: {{ $scheme }}}
  periodSeconds: 1
  failureThreshold: 30
livenessProbe:
  httpGet: {path: /livez, port: http, scheme: {{ $scheme }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: http, scheme: {{ $scheme }}}
  periodSeconds: 5
  timeoutSeconds: 3
{{- end -}}

{{/* What every pod has, of whichever role: (list root "api") */}}
{{- define "clockwork.pod" -}}
{{- $root := index . 0 -}}
serviceAccountName: {{ include "clockwork.name" $root }}{{ if eq (index . 1) "init" }}-init{{ end }}
automountServiceAccountToken: false
# A Service called clockwork would put CLOCKWORK_… names into the environment.
enableServiceLinks: false
# More than CLOCKWORK_DRAIN_TIMEOUT_MS and the leaving of the group.
terminationGracePeriodSeconds: 30
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile:
    type: RuntimeDefault
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "clockwork.selector" $ | nindent 8 }}
  {{- end }}
volumes:
  - name: tmp
    emptyDir:
      medium: Memory
      sizeLimit: 16Mi
  {{- with $root.Values.httpTlsSecretName }}
  - name: http-tls
    secret:
      secretName: {{ . }}
      defaultMode: 0440
  {{- end }}
  {{- with $root.Values.kafkaTlsSecretName }}
  - name: kafka-tls
    secret:
      secretName: {{ . }}
      defaultMode: 0440
  {{- end }}
  {{- with $root.Values.postgresTlsSecretName }}
  - name: postgres-tls
    secret:
      secretName: {{ . }}
      defaultMode: 0440
  {{- end }}
{{- end -}}
