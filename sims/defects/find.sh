#!/usr/bin/env bash
# Plants known defects one at a time and tells how many seeds the storm needs to find each.
#
#   sims/defects/find.sh                       all of them
#   sims/defects/find.sh limit_splits_token    one
#   SEEDS=0..2000 JOBS=4 SCENARIO=swarm sims/defects/find.sh
#
# A patch begins with headers:
#
#   Upstream: where the defect is known from
#   Invariant: what it violates, or how else its runs end: stuck, panicked, hung, crashed, out_of_memory
#   Scenario: in which it is found; storm if there is no such header
#   Seeds: the range in which it is looked for; 0..500 if there is no such header
#   Seeds swarm: the same for a scenario that SCENARIO asks for instead
#
# For each patch: a scratch copy of the committed tree, the patch, a build, and a soak until a seed fails in the way
# that the patch names. Then the stack without the patch runs the same plan, and must pass. Status 1 if a defect was not
# found or the plan does not pass. `build` and `find` are seconds of real time.
set -euo pipefail
cd "$(dirname "$0")/../.."
jobs=${JOBS:-2}

cargo build --release --quiet
target=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)
# The sound program, kept from being built again while the search goes on.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
sound=$scratch/sound
cp "$target/release/squall" "$sound"
# One target directory for all, kept for the next time: only what a patch touches is built again.
planted=$target/defects
git clone --quiet --local . "$scratch/tree"

names=("$@")
if [ ${#names[@]} -eq 0 ]; then
    for patch in sims/defects/*.patch; do names+=("$(basename "$patch" .patch)"); done
fi

# The value of a header of $patch; nothing if there is none.
header() { sed -n "/^diff /q;s/^$1: //p" "$patch"; }

failed=0
row='%-28s %-22s %-8s %11s %6s %6s %6s  %s\n'
# shellcheck disable=SC2059
printf "$row" defect invariant scenario range build find seeds 'first seed that finds it'
for name in "${names[@]}"; do
    patch=$PWD/sims/defects/$name.patch
    [ -f "$patch" ] || { echo "no such defect: $name (see sims/defects)" >&2; exit 2; }
    invariant=$(header Invariant)
    own=$(header Scenario)
    scenario=${SCENARIO:-${own:-storm}}
    range=$(header "Seeds $scenario")
    [ -n "$range" ] || [ "$scenario" != "${own:-storm}" ] || range=$(header Seeds)
    seeds=${SEEDS:-${range:-0..500}}
    git -C "$scratch/tree" checkout --quiet --force HEAD
    git -C "$scratch/tree" apply "$patch"
    began=$SECONDS
    (cd "$scratch/tree" && CARGO_TARGET_DIR=$planted CARGO_INCREMENTAL=1 cargo build --release --quiet --bin squall)
    built=$SECONDS
    # One JSON object a seed, in the order of the seeds; the last one is the one that was found. Status 1 is that none
    # was, anything else that the search itself is wrong.
    status=0
    "$planted/release/squall" soak --json --scenario "$scenario" --seeds "$seeds" --jobs "$jobs" --until "$invariant" \
        >"$scratch/verdicts" || status=$?
    found=$SECONDS
    count=- remark='not found'
    case $status in
    0)
        count=$(wc -l <"$scratch/verdicts")
        seed=$(tail -n 1 "$scratch/verdicts" | sed 's/^{"seed":\([0-9]*\),.*/\1/')
        remark=$seed
        if ! "$sound" run --json --scenario "$scenario" --seed "$seed" >/dev/null; then
            remark="$seed, but it fails without the patch too"
            failed=1
        fi
        ;;
    1) failed=1 ;;
    *) exit "$status" ;;
    esac
    # shellcheck disable=SC2059
    printf "$row" "$name" "$invariant" "$scenario" "$seeds" $((built - began)) $((found - built)) "$count" "$remark"
done
exit $failed
