#!/bin/sh
# build.sh plain|asan|checked OUTDIR
#
# Builds every kernel under kernels/ with the host's compiler and links it with the simulator into
#   OUTDIR/libcuda.so.1   the stand-in driver (and libcuda.so, which cudarc looks for first)
#   OUTDIR/libnvrtc.so    the stand-in NVRTC (and .so.12, .so.13)
#   OUTDIR/planted_bugs, OUTDIR/unit_tests   the tests of the simulator itself
# Only what changed is rebuilt. A mode needs an OUTDIR of its own.
set -eu
mode=${1:?usage: build.sh plain|asan|checked OUTDIR}
output=${2:?usage: build.sh plain|asan|checked OUTDIR}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$output"
exec make --silent --no-print-directory -C "$here" -j "${JOBS:-2}" MODE="$mode" OUT="$(cd "$output" && pwd)"
