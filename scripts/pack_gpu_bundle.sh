#!/usr/bin/env bash
# Packs what a GPU machine without Rust needs into one folder: the tool, the conformance tests, the criterion benches,
# kernels, test data and the runner.
#
#   scripts/pack_gpu_bundle.sh OUTDIR          then, on the GPU machine: python3 OUTDIR/run.py --out results
#
# OUTDIR must not exist. Exit 1 if a build fails, something is not there or the folder is over 60 MiB.
set -euo pipefail

readonly LIMIT_MIB=60

fail() {
    echo "pack_gpu_bundle.sh: $*" >&2
    exit 1
}

# Of a cargo command's messages: the executables of targets of this kind.
executables() {
    python3 -c '
import json, sys

for line in sys.stdin:
    message = json.loads(line)
    if message["reason"] == "compiler-artifact" and message["executable"] and sys.argv[1] in message["target"]["kind"]:
        print(message["target"]["name"], message["executable"])
' "$1"
}

# Builds the targets of a kind and copies them, without symbols: pack_programs KIND FOLDER CARGO_ARGUMENT...
pack_programs() {
    local kind=$1 folder=$2 messages name executable
    shift 2
    messages=$(cargo "$@" --features cli --message-format json-render-diagnostics) || fail "cargo $* failed"
    while read -r name executable; do
        mkdir -p "$folder"
        strip -o "$folder/$name" "$executable"
    done < <(executables "$kind" <<<"$messages")
}

[ $# -eq 1 ] || fail "usage: scripts/pack_gpu_bundle.sh OUTDIR"
[ ! -e "$1" ] || fail "$1 exists already"
mkdir -p "$(dirname "$1")"
outdir="$(cd "$(dirname "$1")" && pwd)/$(basename "$1")"
cd "$(dirname "$0")/.."
wrappers=tests/cuda_simulator/wrappers
for folder in kernels tests/data "$wrappers"; do
    [ -d "$folder" ] || fail "there is no $folder/ in $PWD"
done

unfinished="$(mktemp -d "$(dirname "$outdir")/.gpu-bundle-XXXXXX")"
trap 'rm -rf "$unfinished"' EXIT
chmod 755 "$unfinished"

pack_programs bin "$unfinished" build --release --bin siluette
pack_programs test "$unfinished" test --release --test suite --no-run
for program in siluette suite; do
    [ -x "$unfinished/$program" ] || fail "the build made no $program"
done
if [ -d benches ]; then
    pack_programs bench "$unfinished/benches" bench --benches --no-run
fi

# Laid out as in this repository, so that everything is found at the same place.
mkdir -p "$unfinished/$(dirname "$wrappers")"
cp -r kernels "$unfinished/kernels"
cp -r tests/data "$unfinished/tests/data"
cp -r "$wrappers" "$unfinished/$wrappers"
cp scripts/gpu_bundle/*.py LICENSE-APACHE LICENSE-MIT "$unfinished/"

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
