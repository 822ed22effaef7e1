#!/bin/sh
# All runs behind results/main. They take many hours, resume where they stopped, and may be started
# twice (or more often) at once: each takes the next job whose folder nobody else works in.
#
#     sh benchmarks/main.sh DATA SMALL.gguf LARGE.gguf runs/main
#
# DATA: the folder that `quickstudy data` checks. SMALL and LARGE: Qwen2.5-Coder-0.5B-Instruct and
# -1.5B-Instruct, Q4_K_M. Then `python benchmarks/publish.py` makes one folder of those that differ
# in benchmarks or methods only (see results/main/README.md).
set -eu
[ $# = 4 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2; }
data=$1 small=$2 large=$3 out=$4
mkdir -p "$out"

quick="base repair reconsider reconsider+repair tt-si tt-si+repair tt-icl tt-icl+repair other-request"
slow="tt-si base-unconstrained majority tt-si-paper" # tt-si tells how many answers majority draws
large_too="base repair tt-si tt-si+repair tt-icl"
ours="base tt-si tt-si+repair"
distilled="base tt-si tt-d"
others="icl certain-only adapt-all no-synthesis no-verification no-reset oracle"

# rows that were not used before: places of the seeded order
sealtool="--benchmark sealtool --limit 100 --offset 200" # the last 94
nexusraven="--benchmark nexusraven --limit 100 --offset 200"
apibank="--benchmark apibank --limit 100 --offset 300"
toolalpaca="--benchmark toolalpaca --limit 100"
abstain="--benchmark abstain --limit 100" # all there are

# folder | model | methods | options; a folder's jobs add to it
jobs() {
    cat <<END
nexusraven|$small|$quick|$nexusraven
sealtool|$small|$quick|$sealtool
toolalpaca|$small|$quick|$toolalpaca
apibank|$small|$quick|$apibank
abstain|$small|$quick|$abstain
sealtool|$small|$slow|$sealtool
nexusraven|$small|$slow|$nexusraven
smollm2|smollm2|$quick|$sealtool --set learning.learning_rate=3e-3
k1|$small|$ours|$sealtool --set augmentation.examples=1
k4|$small|$ours|$sealtool --set augmentation.examples=4
seed1|$small|$ours|$sealtool --set seed=1
seed2|$small|$ours|$sealtool --set seed=2
sealtool|$small|$others|$sealtool
toolalpaca|$small|$slow|$toolalpaca
apibank|$small|$slow|$apibank
abstain|$small|$slow|$abstain
large-sealtool|$large|$large_too|$sealtool --limit 50
large-toolalpaca|$large|$large_too|$toolalpaca --limit 50
large-apibank|$large|$large_too|$apibank --limit 50
large-abstain|$large|$large_too|$abstain --limit 50
large-nexusraven|$large|$large_too|$nexusraven --limit 50
taught-sealtool|$small|$distilled|$sealtool --limit 50 --set teacher.model=$large
taught-apibank|$small|$distilled|$apibank --limit 50 --set teacher.model=$large
sealtool|$small|sft-single sft|$sealtool
END
}

number=0
jobs | while IFS='|' read -r folder model methods options; do
    number=$((number + 1))
    told=""
    for method in $methods; do told="$told --method $method"; done
    [ -e "$out/$number.done" ] && continue
    # a folder that somebody works in is passed over; who works there comes to its other jobs
    # shellcheck disable=SC2086,SC2016
    flock --nonblock --conflict-exit-code 0 "$out/$folder.lock" sh -c '
        out=$1 number=$2; shift 2
        "$@" < /dev/null && touch "$out/$number.done"' - "$out" "$number" \
        quickstudy eval --model "$model" --data "$data" --seed 0 --set model.threads=1 \
        $told $options --out "$out/$folder" || echo "job $number failed: $folder" >&2
done
