#!/usr/bin/env bash
# Plants known defects one at a time and tells how many seeds the storm needs to find each.
#
#   sims/defects/find.sh                       all of them
#   sims/defects/find.sh limit_splits_token    one
#   SEEDS=0..2000 JOBS=4 SCENARIO=swarm sims/defects/find.sh
#
# A patch whose defect is rare names the range in which it is looked for; SEEDS overrides it.
#
# For each patch: a scratch copy of the committed tree, the patch, a build, and a soak until the invariant that the
# patch names is violated. Then the stack without the patch runs the same plan, and must pass. Status 1 if a defect was
# not found or the plan does not pass.
set -euo pipefail
cd "$(dirname "$0")/../.."
jobs=${JOBS:-2} scenario=${SCENARIO:-storm}

cargo build --release --quiet
sound=${CARGO_TARGET_DIR:-target}/release/squall
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# One copy and one target directory for all, kept for the next time: only what a patch touches is built again.
planted=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)/defects
git clone --quiet --local . "$scratch/tree"

names=("$@")
if [ ${#names[@]} -eq 0 ]; then
    for patch in sims/defects/*.patch; do names+=("$(basename "$patch" .patch)"); done
fi

failed=0
printf '%-28s %-20s %12s %6s  %s\n' defect invariant range seeds 'first seed that finds it'
for name in "${names[@]}"; do
    patch=$PWD/sims/defects/$name.patch
    [ -f "$patch" ] || { echo "no such defect: $name (see sims/defects)" >&2; exit 2; }
    invariant=$(sed -n 's/^Invariant: //p' "$patch")
    rare=$(sed -n 's/^Seeds: //p' "$patch")
    seeds=${SEEDS:-${rare:-0..500}}
    git -C "$scratch/tree" checkout --quiet --force HEAD
    git -C "$scratch/tree" apply "$patch"
    (cd "$scratch/tree" && CARGO_TARGET_DIR=$planted cargo build --release --quiet)
    # One JSON object a seed, in the order of the seeds; the last one is the one that was found.
    if verdicts=$("$planted/release/squall" soak --json --scenario "$scenario" --seeds "$seeds" --jobs "$jobs" \
        --until "$invariant"); then
        count=$(wc -l <<<"$verdicts")
        seed=$(tail -n 1 <<<"$verdicts" | sed 's/^{"seed":\([0-9]*\),.*/\1/')
        if "$sound" run --json --scenario "$scenario" --seed "$seed" >/dev/null; then
            printf '%-28s %-20s %12s %6s  %s\n' "$name" "$invariant" "$seeds" "$count" "$seed"
        else
            printf '%-28s %-20s %12s %6s  %s\n' "$name" "$invariant" "$seeds" "$count" "$seed, but it fails without the patch too"
            failed=1
        fi
    else
        printf '%-28s %-20s %12s %6s  %s\n' "$name" "$invariant" "$seeds" - "not found"
        failed=1
    fi
done
exit $failed
