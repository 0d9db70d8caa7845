#!/bin/sh
# The main job on the offline example, told step by step: demo.sh BUILD [START]
# START: seconds since 1970 when it all began (before installing and building). Leaves its results
# in BUILD/demo; starts clean every time.
set -eu
build=$1
start=${2:-$(date +%s)}
demo=$build/demo
byol=$build/byol
here=$(dirname "$0")

say() {
    printf '\n[%3ds] %s\n' $(($(date +%s) - start)) "$1"
}
run() {
    echo "  \$ $byol $*"
    "$byol" "$@" || { echo "demo: 'byol $1' failed" >&2; exit 1; }
}
# score NAME ARGUMENTS…: runs `byol eval`, keeps its JSON, prints the top-1 accuracy
score() {
    name=$1
    shift
    echo "  \$ $byol eval $*" >&2
    "$byol" eval "$@" --json >"$demo/$name.json" || { echo "demo: 'byol eval' failed" >&2; exit 1; }
    value=$(sed -n 's/.*"top1": *\([0-9.]*\).*/\1/p' "$demo/$name.json" | head -n 1)
    [ -n "$value" ] || { echo "demo: no top1 in $demo/$name.json" >&2; exit 1; }
    echo "$value"
}

rm -rf "$demo"
mkdir -p "$demo"

say "Draw 4,000 labelled pictures: ten classes that differ in shape and texture, nothing else"
run example "$demo/pictures"

say "Turn the folders into datasets: one as zstd shards, one as an LMDB; both stream alike"
run convert "$demo/pictures/train" -o "$demo/train" --store shards
run convert "$demo/pictures/test" -o "$demo/test" --store lmdb
run inspect "$demo/train" --verify
run inspect "$demo/test" --verify

say "A contact sheet: some pictures and the pairs of views that BYOL learns from"
run views "$demo/train" -o "$demo/sheet.png" --recipe "$here/recipes/demo.yaml" --size 96

say "Pretrain a small ResNet-18 on the pictures without looking at their labels"
run pretrain --data "$demo/train" --run "$demo/run" --recipe "$here/recipes/demo.yaml"

say "How good are the features? The learnt encoder beside the same one untrained"
probe="--run $demo/run --train $demo/train --test $demo/test"
knn=$(score knn knn $probe)
knn_untrained=$(score knn-untrained knn $probe --untrained)
linear=$(score linear linear --cached $probe)
linear_untrained=$(score linear-untrained linear --cached $probe --untrained)
seconds=$(($(date +%s) - start))

cat >"$demo/summary.json" <<SUMMARY
{
  "linear_top1": $linear,
  "linear_top1_untrained": $linear_untrained,
  "knn_top1": $knn,
  "knn_top1_untrained": $knn_untrained,
  "seconds": $seconds
}
SUMMARY

printf '\n  top-1 accuracy on 500 test pictures   learnt  untrained\n'
printf '  linear classifier                    %6.1f %%   %6.1f %%\n' "$linear" "$linear_untrained"
printf '  nearest neighbours                   %6.1f %%   %6.1f %%\n' "$knn" "$knn_untrained"
printf '\n  Look at %s, %s and %s.\n' "$demo/sheet.png" "$demo/summary.json" "$demo/run"
printf '  All of it took %d seconds.\n' "$seconds"
