#!/bin/sh
# Makes a directory that runs on a bare machine with a GPU, where only NVIDIA's driver and the wheels of cuDNN, cuBLAS and NCCL are
# (PyTorch brings them): bundle.sh BUILD OUT [IMAGENET-TAR CIFAR-TRAIN CIFAR-TEST]. Everything else that the programs link with comes along in
# OUT/lib. On that machine: python3 OUT/check.py
set -eu
build=$1 out=$2
here=$(dirname "$0")
root=$(cd "$here/../.." && pwd)
suites="test_cuda_device test_cuda_step test_device_views test_queue test_device_ops test_device_half test_device_math test_optimisers test_gradients
    test_network test_method test_recompute"
golden="test_loss test_optimizer test_network test_updates"

[ -f "$build/libbyol_cuda.so" ] || { echo "gpu-bundle: $build/libbyol_cuda.so was not built: nvcc or cuDNN is missing" >&2; exit 1; }
rm -rf "$out"
mkdir -p "$out/lib" "$out/tests/trainer" "$out/tests/golden" "$out/tests/cuda_plans" "$out/tests/bench/peers" "$out/tests/peer" "$out/data"

# take PROGRAM PLACE: without what only a debugger reads
take() {
    [ -f "$1" ] || { echo "gpu-bundle: $1 was not built" >&2; exit 1; }
    strip -g -o "$2/$(basename "$1")" "$1"
    chmod 755 "$2/$(basename "$1")"
}
take "$build/byol" "$out"
take "$build/libbyol_cuda.so" "$out"
for name in $suites; do take "$build/tests/trainer/$name" "$out/tests/trainer"; done
for name in $golden; do take "$build/tests/golden/$name" "$out/tests/golden"; done
for program in "$build"/tests/cuda_plans/*; do take "$program" "$out/tests/cuda_plans"; done

# Shared libraries of all of them but those of glibc, which every machine has, and NVIDIA's.
find "$out" -type f -perm -100 -exec ldd {} \; 2>/dev/null | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p' | sort -u |
    grep -vE '/(libc|libm|libdl|librt|libpthread|ld-linux[^/]*|libcuda|libcudnn[^/]*|libcublas[^/]*|libnccl[^/]*)\.so' |
    while read -r library; do strip -g -o "$out/lib/$(basename "$library")" "$library" 2>/dev/null || cp -L "$library" "$out/lib"; done

cp "$here/check.py" "$out"
cp "$root"/tests/bench/peers/torch_step.py "$out/tests/bench/peers"
cp "$root"/tests/peer/network.py "$out/tests/peer"
mkdir -p "$out/tests/data"
cp -r "$root/tests/data/golden" "$out/tests/data/golden"
cp -r "$root/tools/recipes" "$out/recipes"

# convert TAR NAME: where there is one
convert() {
    [ -e "$1" ] || { echo "gpu-bundle: no $1: without data/$2" >&2; return 0; }
    pictures=$(mktemp -d)
    tar -xf "$1" -C "$pictures"
    "$build/byol" convert "$pictures" -o "$out/data/$2" --quiet
    rm -rf "$pictures"
}
convert "${3:-/nonexistent}" imagenet
convert "${4:-/nonexistent}" cifar-train
convert "${5:-/nonexistent}" cifar-test
echo "gpu-bundle: $out, $(du -sh "$out" | cut -f1). On a machine with a GPU: python3 $(basename "$out")/check.py"
