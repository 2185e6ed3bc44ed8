#!/bin/sh
# promtool.sh PROMTOOL FOLDER: makes sure that PROMTOOL can be run; if it is FOLDER/promtool, fetches it first.
#
# Prometheus ships no package for Python, so it is Debian's, taken apart in the folder: nothing is installed, and no rights
# are needed. apt's own lists are used if there are any, else fetched into the folder. Anything that fails ends with one
# line that says what to do, and with an error: unchecked alerts are worse than none.
set -eu

promtool=$1 folder=$2

give_up() {
  echo "promtool: $1" >&2
  echo "          Install Prometheus' promtool and run: make check PROMTOOL=/path/to/promtool" >&2
  exit 1
}

runs() { "$promtool" --version >/dev/null 2>&1; }

runs && exit 0
[ "$promtool" = "$folder/promtool" ] || give_up "$promtool cannot be run."
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || give_up "it comes from Debian's packages; here is no apt-get."

mkdir -p "$folder"
work=$(mktemp -d "$folder/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

download() { (cd "$work" && apt-get "$@" -qq download prometheus >log 2>&1); }

if ! download; then
  mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
  root=$(cd "$work" && pwd)
  set -- -o "Dir::State::lists=$root/lists" -o "Dir::Cache=$root/cache" -o Debug::NoLocking=1
  { apt-get "$@" -qq update >"$work/log" 2>&1 && download "$@"; } || give_up "$(tail -n 1 "$work/log")"
fi
dpkg-deb --fsys-tarfile "$work"/prometheus_*.deb | tar -x -C "$work" ./usr/bin/promtool
mv "$work/usr/bin/promtool" "$promtool"
runs || give_up "the one of Debian's package does not run here."
echo "tools: $("$promtool" --version 2>&1 | head -n 1) in $folder"
