#!/bin/sh
# Installs the packages that building and testing need, and the optional ones. --missing is silent when all are there;
# --needed leaves out the optional ones, whose failure is no failure.
# On systems without apt-get it prints what to install.
set -u
needed="gcc make pkg-config libjpeg62-turbo-dev libpng-dev zlib1g-dev libzstd-dev liblmdb-dev libarchive-dev libyaml-dev
libjansson-dev liburing-dev libdnnl-dev libcmocka-dev zstd lmdb-utils"
# several processes: trainer/README.md; kernels on the processor: tests/README.md; convert of HDF5 files
optional="libopenmpi-dev openmpi-bin g++ libhdf5-dev"
silent=
for argument in "$@"; do
    case $argument in
    --missing) silent=1 ;;
    --needed) optional= ;;
    esac
done

# Those of the arguments that are not installed.
missing_of() {
    if ! command -v dpkg-query >/dev/null; then
        echo "$@"
        return
    fi
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || printf ' %s' "$package"
    done
}

export DEBIAN_FRONTEND=noninteractive
as_root=
[ "$(id -u)" -eq 0 ] || as_root=sudo
install() {
    echo "deps: installing $*"
    $as_root apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 ||
        { $as_root apt-get update -qq && $as_root apt-get install -y -qq --no-install-recommends "$@" >/dev/null; }
}

missing=$(missing_of $needed)
extra=$(missing_of $optional)
if [ -z "$missing$extra" ]; then
    [ -n "$silent" ] || echo "deps: everything is installed"
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "deps: this system has no apt-get; install the equivalents of:" $needed
    [ -z "$optional" ] || echo "deps: and if you like, of:" $optional
    [ -n "$silent" ] # going on is worth a try there: the build says what it lacks
    exit
fi
if [ -n "$missing" ]; then
    install $missing || exit
fi
[ -z "$extra" ] || install $extra || echo "deps: going on without$extra"
