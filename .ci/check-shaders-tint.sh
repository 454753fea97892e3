#!/usr/bin/env bash
# Compiles every shader with Tint, so that the kernels are valid WebGPU in browsers too: naga accepts barriers in
# non-uniform control flow, among other things that browsers refuse. Needs Node and the Vulkan driver of
# .ci/install-vulkan.sh. The first argument is a folder to keep Dawn in.
set -euo pipefail
folder=${1:?usage: .ci/check-shaders-tint.sh FOLDER}
cd "$(dirname "$0")/.."
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
export VK_DRIVER_FILES=${VK_DRIVER_FILES:-/usr/share/vulkan/icd.d/lvp_icd.json}

cp .ci/tint/check.mjs .ci/tint/package.json "$folder"
if [ ! -d "$folder/node_modules/webgpu" ]; then
    npm install --prefix "$folder" --no-audit --no-fund --ignore-scripts
fi
rm -rf "$folder/shaders"
# With the features of the tests, whose build it shares.
cargo run --quiet --features cli,candle --example export_shaders -- "$folder/shaders"
node "$folder/check.mjs" "$folder/shaders"
