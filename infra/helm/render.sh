#!/bin/sh
# render.sh PYTHON KUBERNETES_VALIDATE FOLDER: renders the chart with each file of examples/ into rendered/, checks it against
# Kubernetes' schemas, and notes what it was made of. No package of Python or Debian has helm, and building it takes
# minutes: so `make check` reads what is stored here, and a test fails when chart or rendering have changed since.
#
# Takes helm 3 from the path, or HELM=/path/to/helm; where there is none but Go is, builds it into FOLDER once.
set -eu
python=$1 validate=$2 folder=$3
here=infra/helm
kubernetes=1.29.0
version=v3.19.0

runs() { "$1" version --short >/dev/null 2>&1; }

helm=${HELM:-helm}
if ! runs "$helm"; then
  helm=$folder/helm
  if [ -n "${HELM:-}" ] || { ! runs "$helm" && ! command -v go >/dev/null; }; then
    echo "charts: helm 3 is needed (or Go, to build it): install it, or name it: make charts HELM=/path/to/helm" >&2
    exit 1
  fi
  runs "$helm" || {
    echo "charts: building helm $version, once; this takes minutes"
    mkdir -p "$folder"
    GOBIN=$(cd "$folder" && pwd) GOFLAGS=-buildvcs=false go install "helm.sh/helm/v3/cmd/helm@$version"
  }
fi

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
