#!/bin/sh
# cppcheck and clang-tidy at zero, and functions that do not fit a screen: lint.sh FILE… [-- FILE…]
# After --: what these tools cannot read here, kernels and the like; its functions are measured only.
set -u
bad=0
linted=
measured=
checked=1
for file in "$@"; do
    [ "$file" = -- ] && checked=0 && continue
    measured="$measured $file"
    [ $checked -eq 1 ] && linted="$linted $file"
done
cppcheck --quiet --std=c11 --language=c --enable=warning,performance,portability --inline-suppr \
    --suppressions-list=tests/lint.suppressions --error-exitcode=1 -I. $linted || bad=1
for file in $linted; do
    case $file in *.c) clang-tidy --quiet "$file" -- -Itests/cuda/include -I. -D_GNU_SOURCE -std=gnu17 -fopenmp -DHAVE_URING=1 -DHAVE_DNNL=1 -DHAVE_MPI=1 \
        -DMPI_LIBRARY='"libmpi.so"' $(pkg-config --cflags-only-I ompi-c 2>/dev/null) 2>/dev/null ;; esac
done | grep -E 'warning:|error:' && bad=1
awk 'FNR == 1 {start = 0}
     /^[A-Za-z_].*\)$/ || /^\{/ {if (/^\{/) start = FNR}
     /^\}/ {if (start && FNR - start > 70) {printf "%s:%d: function of %d lines\n", FILENAME, start, FNR - start; bad = 1}; start = 0}
     END {exit bad}' $measured || bad=1
[ $bad -eq 0 ] && echo "lint: clean"
exit $bad
