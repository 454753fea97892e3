#!/usr/bin/env bash
# The simulator's own tests in every mode, and the runner that holds it to a GPU. The first argument is a folder to
# build in.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: .ci/check-simulator.sh FOLDER}

for mode in plain asan checked; do
    echo "--- $mode"
    tests/cuda_simulator/build.sh "$mode" "$out/$mode"
    "$out/$mode/unit_tests" | tail -n 1
    "$out/$mode/planted_bugs" | tail -n 1
done

echo "--- the runner of the wrappers' tests on a GPU, on the stand-in driver"
LD_LIBRARY_PATH=$out/plain/wrappers:$out/plain python3 scripts/gpu_bundle/wrappers.py | tail -n 1
