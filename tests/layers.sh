#!/bin/sh
# Includes only point left: formats < augment < pipeline < trainer < tools. tests may see all.
bad=0
check() { # folder, then the folders it must not include
    folder=$1
    shift
    for other in "$@"; do
        if grep -rnE "^#include \"$other/" --include='*.[ch]' "$folder"; then
            echo "layers: $folder must not include $other" >&2
            bad=1
        fi
    done
}
check formats augment pipeline trainer tools tests
check augment pipeline trainer tools tests
check pipeline trainer tools tests
check trainer tools tests
check tools tests
[ $bad -eq 0 ] && echo "layers: includes point left"
exit $bad
