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
suite=$(cargo test --features cli --test suite --no-run --message-format json | python3 -c '
import json, sys
messages = map(json.loads, sys.stdin)
print(*(m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == "suite"))
')

# on MODE [NAME=VALUE ...]: the tests that run kernels, with this simulator and this environment.
on() {
    local mode=$1
    shift
    printf -- '--- %s %s (%s s)\n' "$mode" "$*" "$SECONDS"
    env SILUETTE_REQUIRE=cuda LD_LIBRARY_PATH="$out/$mode" "$@" \
        "$suite" conformance::cuda cuda_kernels:: cuda_enqueue:: cuda_movement:: --quiet
}

on plain SILUETTE_SIMULATOR_SCHEDULE=adversarial SILUETTE_SIMULATOR_ASYNC=early
on plain SILUETTE_SIMULATOR_SCHEDULE=random SILUETTE_SIMULATOR_SEED=7 SILUETTE_SIMULATOR_COMPUTE_CAPABILITY=7.5
on checked SILUETTE_SIMULATOR_SCHEDULE=descending
# Rust's test harness is not free of leaks.
on asan LD_PRELOAD="$(g++ -print-file-name=libasan.so)" ASAN_OPTIONS=detect_leaks=0
