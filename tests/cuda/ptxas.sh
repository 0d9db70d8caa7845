#!/bin/sh
# What ptxas said of every kernel (-Xptxas -v): ptxas.sh FILE…
# Fails when one has a stack frame or spills; prints kernels, architectures and the most registers of each file.
[ $# -gt 0 ] || { echo "cuda-check: there are no kernels" >&2; exit 1; }
awk '
    function report() {
        if (file != "") printf "%-40s %3d kernels, at most %d registers\n", file, kernels, most
    }
    FNR == 1 {
        report()
        file = FILENAME
        sub(/.*\/cuda\/trainer\/cuda\//, "", file)
        sub(/\.ptxas$/, "", file)
        kernels = most = 0
    }
    /Compiling entry function/ {
        split($0, part, "\047")
        kernel = part[2] " (" part[4] ")"
        kernels++
    }
    /bytes stack frame/ {
        if ($1 > 0 || $5 > 0 || $9 > 0) {
            printf "%s: %s:%s\n", file, kernel, $0
            bad++
        }
    }
    /Used [0-9]+ registers/ {
        for (i = 1; i < NF; i++) if ($i == "Used" && $(i + 1) + 0 > most) most = $(i + 1) + 0
    }
    END {
        report()
        if (bad) printf "cuda-check: %d kernels need a stack or spill\n", bad
        exit bad > 0
    }' "$@"
