#!/bin/sh
# render.sh PYTHON KUBERNETES_VALIDATE: renders the chart with each file of examples/ into rendered/, checks it against Kubernetes'
# schemas, and notes what it was made of. helm is no Python package and not on every machine, so `make check` reads what is
# stored here; a test fails when the chart has changed since. Needs helm 3 (HELM=/path/to/helm).
set -eu
python=$1 validate=$2
helm=${HELM:-helm}
here=infra/helm
kubernetes=1.29.0

"$helm" version --short >/dev/null 2>&1 || {
  echo "charts: helm 3 is needed: install it, or name it: make charts HELM=/path/to/helm" >&2
  exit 1
}
mkdir -p "$here/rendered"
for values in "$here"/examples/*.yaml; do
  out=$here/rendered/$(basename "$values")
  "$helm" lint --strict --quiet --kube-version "$kubernetes" "$here/clockwork" --values "$values"
  "$helm" template clockwork "$here/clockwork" --namespace clockwork --kube-version "$kubernetes" --values "$values" \
    >"$out.new"
  # Custom resources (PodMonitor) have no schema among Kubernetes' own: they are said to be unknown, and pass.
  "$validate" --strict --kubernetes-version "${kubernetes%.*}" "$out.new"
  mv "$out.new" "$out"
done
"$python" -m infra.helm.digest >"$here/rendered/SOURCE"
echo "charts: $(ls "$here/rendered" | tr '\n' ' ')"
