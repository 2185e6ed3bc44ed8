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
{{- $name := include "clockwork.name" . -}}
{{- $services := list $name (printf "%s-worker" $name) -}}
{{- if .Values.people.enabled -}}
{{- $services = append $services (printf "%s-people" $name) -}}
{{- end -}}
{{- range $service := $services -}}
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
{{- if .Values.keysSecretName }}
- name: CLOCKWORK_AUTH_KEYS_FILE
  value: /etc/clockwork/keys/keys.toml
{{- end }}
{{- if .Values.ui.sessionSecretName }}
- name: CLOCKWORK_UI_SECRET_FILE
  value: /etc/clockwork/sessions/secrets
{{- end }}
{{- if .Values.ui.clientSecretName }}
- name: CLOCKWORK_OIDC_UI_SECRET_FILE
  value: /etc/clockwork/issuer/client-secret
{{- end }}
{{- if .Values.ui.linksConfigMapName }}
- name: CLOCKWORK_UI_LINKS
  value: /etc/clockwork/links/links.toml
{{- end }}
{{- end -}}

{{/* The files of Secrets that a node reads, by the name of their volume and their folder below /etc/clockwork; those of callers
and of the dashboard are with every node, so that none has settings of its own. */}}
{{- define "clockwork.files" -}}
http-tls: {folder: http, secret: {{ .Values.httpTlsSecretName | quote }}}
kafka-tls: {folder: kafka, secret: {{ .Values.kafkaTlsSecretName | quote }}}
postgres-tls: {folder: postgres, secret: {{ .Values.postgresTlsSecretName | quote }}}
keys: {folder: keys, secret: {{ .Values.keysSecretName | quote }}}
sessions: {folder: sessions, secret: {{ .Values.ui.sessionSecretName | quote }}}
issuer: {folder: issuer, secret: {{ .Values.ui.clientSecretName | quote }}}
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
  {{- range $volume, $files := include "clockwork.files" . | fromYaml }}
  {{- if $files.secret }}
  - name: {{ $volume }}
    mountPath: /etc/clockwork/{{ $files.folder }}
    readOnly: true
  {{- end }}
  {{- end }}
  {{- if .Values.ui.linksConfigMapName }}
  - name: links
    mountPath: /etc/clockwork/links
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
  {{- range $volume, $files := include "clockwork.files" $root | fromYaml }}
  {{- if $files.secret }}
  - name: {{ $volume }}
    secret:
      secretName: {{ $files.secret }}
      defaultMode: 0440
  {{- end }}
  {{- end }}
  {{- with $root.Values.ui.linksConfigMapName }}
  - name: links
    configMap:
      name: {{ . }}
  {{- end }}
{{- end -}}
