{{/* One namespace, since admission knows the platform's identities by it. */}}
{{- define "dejima.namespace" -}}
{{- if ne .Release.Namespace "dejima-system" -}}
{{- fail "Dejima lives in the namespace dejima-system: helm install dejima … --namespace dejima-system --create-namespace" -}}
{{- end -}}
dejima-system
{{- end -}}

{{- define "dejima.image" -}}
{{- required "workloads.image.reference: an image whose entry point is the binary dejima, pinned by digest (or workloads.enabled=false)" .Values.workloads.image.reference -}}
{{- end -}}

{{/* What may run in a pod of ours: no user of the node, no capability, nothing written but what is mounted. */}}
{{- define "dejima.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}
