#!/bin/sh
# Makes a directory that runs on a bare machine with a GPU, where only NVIDIA's driver and the wheels of cuDNN, cuBLAS and NCCL are
# (PyTorch brings them): bundle.sh BUILD PROGRAMS OUT MIB [ARCHIVE…]. PROGRAMS: where byol and the suites lie that are taken. Everything else
# that they link with comes along, all in OUT/programs.tar.xz; the ARCHIVEs of images stay as they are. OUT/check.py unpacks both.
# More than MIB is an error.
set -eu
build=$1 programs=$2 out=$3 limit=$4
shift 4
here=$(dirname "$0")
root=$(cd "$here/../.." && pwd)

[ -f "$build/libbyol_cuda.so" ] || { echo "gpu-bundle: $build/libbyol_cuda.so was not built: nvcc or cuDNN is missing" >&2; exit 1; }
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir -p "$stage/lib" "$stage/tests/bench" "$stage/tests/data" "$stage/tools"

# take PROGRAM PLACE: without what only a debugger reads
take() {
    mkdir -p "$stage/$(dirname "$2")"
    strip -g -o "$stage/$2" "$1"
    chmod 755 "$stage/$2"
}
(cd "$programs" && find . -type f) | while read -r name; do take "$programs/$name" "$name"; done
for program in "$build"/tests/cuda_plans/*; do take "$program" "tests/cuda_plans/$(basename "$program")"; done
take "$build/libbyol_cuda.so" libbyol_cuda.so

# Shared libraries of all of them but those of glibc, which every machine has, and NVIDIA's.
find "$stage" -type f -perm -100 -exec ldd {} \; 2>/dev/null | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p' | sort -u |
    grep -vE '/(libc|libm|libdl|librt|libpthread|ld-linux[^/]*|libcuda|libcudnn[^/]*|libcublas[^/]*|libnccl[^/]*)\.so' |
    while read -r library; do take "$library" "lib/$(basename "$library")"; done

cp -r "$root/tests/bench/peers" "$stage/tests/bench/peers"
cp -r "$root/tests/peer" "$stage/tests/peer"
cp -r "$root/tests/data/golden" "$stage/tests/data/golden"
cp -r "$root/tools/recipes" "$stage/tools/recipes"
find "$stage" -name __pycache__ -prune -exec rm -r {} +

rm -rf "$out"
mkdir -p "$out/data"
# The suites lie one after the other and are nearly the same: together they take little more than one.
tar --sort=name --owner=0 --group=0 -C "$stage" -c . | xz -T0 >"$out/programs.tar.xz"
cp "$here/check.py" "$out"
for archive; do
    if [ -e "$archive" ]; then cp "$archive" "$out/data"; else echo "gpu-bundle: no $archive: left out" >&2; fi
done

(cd "$out" && du -ab | sort -n | awk '{printf "%8.1f MiB  %s\n", $1 / 1048576, $2}')
size=$(du -sb "$out" | cut -f1)
if [ "$size" -gt $((limit * 1048576)) ]; then
    echo "gpu-bundle: $out is larger than $limit MiB (GPU_DATA, GPU_LIMIT)" >&2
    exit 1
fi
echo "gpu-bundle: $out. On a machine with a GPU: python3 $(basename "$out")/check.py"
