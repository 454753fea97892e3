#!/usr/bin/env bash
# The CUDA backend's tests once more, host code and kernels, on other simulated devices than the one of the test
# command: under AddressSanitizer, under the race, bounds and initialisation checks, in hostile orders of threads and
# of asynchronous copies, and on an old device. The first argument is a folder to build the simulator in.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: .ci/check-cuda-backend.sh FOLDER}
out=$(mkdir -p "$out" && cd "$out" && pwd)
for mode in plain asan checked; do
    tests/cuda_simulator/build.sh "$mode" "$out/$mode"
done
# Cargo names whatever it has built for the suite, the tool too, in no fixed order.
suite=$(cargo test --features cli,candle --test suite --no-run --message-format json | python3 -c '
import json, sys
messages = map(json.loads, sys.stdin)
print(*(m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == "suite"))
')

# on MODE [NAME=VALUE ...]: the tests that run kernels, with this simulator and this environment. They are one long
# test and a few short ones, so two of these fill two cores.
on() {
    local mode=$1 skipped=()
    shift
    [[ $mode == plain ]] || skipped=(--skip wgmma_takes_tiles_in_bands)
    env SILUETTE_REQUIRE=cuda LD_LIBRARY_PATH="$out/$mode" "$@" \
        "$suite" conformance::cuda cuda_kernels:: cuda_enqueue:: cuda_movement:: "${skipped[@]}" --quiet --test-threads 1
}

# both NAME NAME: runs these functions side by side; shows what they print, and fails if one does.
both() {
    local failed=0 name
    "$1" >"$out/$1.log" 2>&1 & local first=$!
    "$2" >"$out/$2.log" 2>&1 || failed=1
    wait "$first" || failed=1
    for name; do
        printf -- '--- %s (%s s)\n' "$name" "$SECONDS"
        cat "$out/$name.log"
    done
    return "$failed"
}

# Different parts of the cases: what one of these leaves out, the test command and mostly another of them do.
# Hostile orders are some three times as slow as the plain one, and the checks a hundred times.
adversarial_order() { on plain SILUETTE_CASES=1/3 SILUETTE_SIMULATOR_SCHEDULE=adversarial SILUETTE_SIMULATOR_ASYNC=early; }
random_order_on_sm_75() {
    on plain SILUETTE_CASES=2/3 SILUETTE_SIMULATOR_SCHEDULE=random SILUETTE_SIMULATOR_SEED=7 \
        SILUETTE_SIMULATOR_COMPUTE_CAPABILITY=7.5
}
checks() { on checked SILUETTE_CASES=3/7 SILUETTE_SIMULATOR_SCHEDULE=descending; }
# Rust's test harness is not free of leaks.
address_sanitizer() {
    on asan SILUETTE_CASES=6/7 LD_PRELOAD="$(g++ -print-file-name=libasan.so)" ASAN_OPTIONS=detect_leaks=0
}

hostile_orders() { adversarial_order && random_order_on_sm_75; }
checked_memory() { checks && address_sanitizer; }
both hostile_orders checked_memory
