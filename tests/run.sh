#!/bin/sh
# Runs test programs one after the other and sums what cmocka reports: run.sh BUILD PROGRAM…
# Each program's output goes to BUILD/test-logs/NAME.log and is shown when it fails. Last line: "N passed, N failed, N skipped".
set -u
build=$1
shift
logs=$build/test-logs
mkdir -p "$logs"
export BYOL_PROGRAM="$build/byol" CMOCKA_MESSAGE_OUTPUT=STDOUT
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}" # spinning threads would slow each other down
# The device `cuda`: the plugin for GPUs where there is one (or REQUIRE_DEVICE demands it), else its kernels on the processor.
if [ -z "${BYOL_CUDA_PLUGIN+set}" ]; then
    here=$(cd "$build" && pwd)
    if [ -n "${REQUIRE_DEVICE:-}" ] || { [ -e "$here/libbyol_cuda.so" ] && [ -e /dev/nvidia0 ]; }; then
        export BYOL_CUDA_PLUGIN="$here/libbyol_cuda.so"
    elif [ -e "$here/libbyol_cuda_emulated.so" ]; then
        export BYOL_CUDA_PLUGIN="$here/libbyol_cuda_emulated.so"
    fi
fi
# How many tests cmocka's summary lists as FAILED or SKIPPED: sum WORD LOG
sum() {
    sed -nE "s/^\[ +$1 +\] ([0-9]+) test\(s\).*/\1/p" "$2" | awk '{total += $1} END {print total + 0}'
}

passed=0 failed=0 skipped=0
for program in "$@"; do
    name=$(echo "${program#"$build"/tests/}" | tr / -)
    log=$logs/$name.log
    start=$(date +%s)
    "$program" >"$log" 2>&1
    code=$?
    ok=$(grep -c '^\[       OK \]' "$log")
    bad=$(sum FAILED "$log")
    skip=$(sum SKIPPED "$log")
    if [ "$code" -ne 0 ] && [ "$bad" -eq 0 ]; then
        bad=1 # crashed, or a sanitizer spoke
    fi
    if [ -n "${REQUIRE_DEVICE:-}" ]; then
        bad=$((bad + $(grep -cE '^(skipped:|SKIP) .*no device' "$log")))
    fi
    passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skip))
    printf '%-44s %4d passed, %d failed, %d skipped  (%ds)\n' "$name" "$ok" "$bad" "$skip" "$(($(date +%s) - start))"
    grep -h '^skipped:' "$log"
    [ "$bad" -gt 0 ] && tail -n 60 "$log"
done
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
