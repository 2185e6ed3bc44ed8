#!/bin/sh
# pgbouncer.sh PGBOUNCER FOLDER: makes sure that PGBOUNCER can be run and is 1.21 or later (before that a pooler in transaction
# mode knew no prepared statements); if it is FOLDER/pgbouncer, fetches it first.
#
# It is Debian 13's package, with the libraries of that release, taken apart in the folder and run by their own loader:
# nothing is installed, no rights are needed, and the machine's own release does not matter. Needs apt and Debian's keys.
# Anything that fails ends with one line that says what to do, and with an error.
set -eu

pgbouncer=$1 folder=$2
packages="pgbouncer libc6 libcares2 libevent-2.1-7t64 libpam0g libssl3t64 libsystemd0 libaudit1 libcap-ng0 libcap2 libzstd1
  zlib1g libgcc-s1"
keys=/usr/share/keyrings/debian-archive-keyring.gpg

give_up() {
  echo "pgbouncer: $1" >&2
  echo "           Install PgBouncer 1.21 or later and run: make pgbouncer PGBOUNCER=/path/to/pgbouncer" >&2
  exit 1
}

new_enough() {
  version=$("$pgbouncer" --version 2>/dev/null | sed -n 's/^PgBouncer 1\.\([0-9]*\).*/\1/p')
  [ "${version:-0}" -ge 21 ]
}

new_enough && exit 0
[ "$pgbouncer" = "$folder/pgbouncer" ] || give_up "$pgbouncer cannot be run, or is too old."
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || give_up "it comes from Debian's packages; here is no apt-get."
[ -e "$keys" ] || give_up "it comes from Debian's packages; here are no keys to check them by."

mkdir -p "$folder"
work=$(mktemp -d "$folder/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/debs" "$work/files"
root=$(cd "$work" && pwd)
echo "deb [signed-by=$keys] http://deb.debian.org/debian trixie main" >"$work/sources.list"
set -- -o "Dir::State::lists=$root/lists" -o "Dir::Cache=$root/cache" -o "Dir::Etc::sourcelist=$root/sources.list" \
  -o Dir::Etc::sourceparts=/dev/null -o Dir::State::status=/dev/null -o Debug::NoLocking=1 -qq
{ apt-get "$@" update && cd "$work/debs" && apt-get "$@" download $packages; } >"$work/log" 2>&1 ||
  give_up "$(tail -n 1 "$root/log")"
cd "$OLDPWD"
for package in "$work"/debs/*.deb; do dpkg-deb -x "$package" "$work/files"; done
loader=$(cd "$work/files" && find usr/lib -name 'ld-linux-*.so.*' -type f | head -n 1)
[ -n "$loader" ] || give_up "no loader is in Debian's libc6."

rm -rf "$folder/pgbouncer-files"
mv "$work/files" "$folder/pgbouncer-files"
files=$(cd "$folder/pgbouncer-files" && pwd)
cat >"$work/pgbouncer" <<END
#!/bin/sh
exec "$files/$loader" --library-path "$files/$(dirname "$loader")" "$files/usr/sbin/pgbouncer" "\$@"
END
chmod 755 "$work/pgbouncer"
mv "$work/pgbouncer" "$pgbouncer"
new_enough || give_up "the one of Debian's package does not run here."
echo "tools: $("$pgbouncer" --version | head -n 1) in $folder"
