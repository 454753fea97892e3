#!/usr/bin/env bash
# Packs what a GPU machine without Rust needs into one folder: the tool, kernels, test data and the runner.
#
#   scripts/pack_gpu_bundle.sh OUTDIR          then, on the GPU machine: python3 OUTDIR/run.py --out results
#
# OUTDIR must not exist. Exit 1 if the build fails, something is not there or the folder is over 60 MiB.
set -euo pipefail

readonly LIMIT_MIB=60

fail() {
    echo "pack_gpu_bundle.sh: $*" >&2
    exit 1
}

[ $# -eq 1 ] || fail "usage: scripts/pack_gpu_bundle.sh OUTDIR"
[ ! -e "$1" ] || fail "$1 exists already"
mkdir -p "$(dirname "$1")"
outdir="$(cd "$(dirname "$1")" && pwd)/$(basename "$1")"
cd "$(dirname "$0")/.."
[ -d kernels ] || fail "there is no kernels/ in $PWD"
[ -d tests/data ] || fail "there is no tests/data/ in $PWD"

cargo build --release --features cli
tool="${CARGO_TARGET_DIR:-target}/release/siluette"
[ -x "$tool" ] || fail "the build made no $tool"

unfinished="$(mktemp -d "$(dirname "$outdir")/.gpu-bundle-XXXXXX")"
trap 'rm -rf "$unfinished"' EXIT
chmod 755 "$unfinished"
mkdir "$unfinished/tests"
strip -o "$unfinished/siluette" "$tool"
cp -r kernels "$unfinished/kernels"
cp -r tests/data "$unfinished/tests/data"
cp scripts/gpu_bundle/run.py LICENSE-APACHE LICENSE-MIT "$unfinished/"
# Programs that run each wrapper of an assembly instruction on fixed inputs.
wrappers=tests/cuda_simulator/wrappers
if [ -d "$wrappers" ]; then
    cp -r "$wrappers" "$unfinished/wrappers"
fi

commit="$(git rev-parse HEAD)"
modified=false
[ -z "$(git status --porcelain)" ] || modified=true
cat >"$unfinished/bundle.json" <<JSON
{"commit": "$commit", "modified": $modified, "rustc": "$(rustc --version)"}
JSON

size_kib="$(du -sk --apparent-size "$unfinished" | cut -f1)"
[ "$size_kib" -le $((LIMIT_MIB * 1024)) ] || fail "the bundle would have $size_kib KiB, more than $LIMIT_MIB MiB"
mv "$unfinished" "$outdir"
trap - EXIT
echo "$outdir: $size_kib KiB, commit $commit, modified: $modified"
