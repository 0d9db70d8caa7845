#!/bin/sh
# Installs the packages that building and testing need; --missing does nothing when all are there.
# On systems without apt-get it prints what to install.
set -u
packages="gcc make pkg-config libjpeg62-turbo-dev libpng-dev libzstd-dev liblmdb-dev libarchive-dev libyaml-dev
libjansson-dev liburing-dev libdnnl-dev libcmocka-dev zstd lmdb-utils"
missing=
if command -v dpkg-query >/dev/null; then
    for package in $packages; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
else
    missing=$packages
fi
if [ -z "$missing" ]; then
    [ "${1:-}" = --missing ] || echo "deps: everything is installed"
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "deps: this system has no apt-get; install the equivalents of:" $packages
    [ "${1:-}" = --missing ] # going on is worth a try there: the build says what it lacks
    exit
fi
as_root=
[ "$(id -u)" -eq 0 ] || as_root=sudo
echo "deps: installing$missing"
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1 ||
    { $as_root apt-get update -qq && $as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null; }
